"""The app on real stores, and a Redis filled by the protocol's own steps."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from monitor.config import Settings
from monitor.secrets import SecretBox
from monitor.web.app import create_app
from tests.web.filling import Filler

TOKEN = "0123456789abcdef"
KEY = "0" * 43 + "="


@pytest.fixture
def box() -> SecretBox:
    return SecretBox([KEY])


@pytest.fixture
def settings(tmp_path: Path, redis_url: str, database_url: str) -> Settings:
    return Settings(
        home=tmp_path,
        database_url=database_url,
        redis_url=redis_url,
        cache_url=redis_url,
        token=TOKEN,
        host="127.0.0.1",
    )


@pytest.fixture
async def app(settings: Settings, box: SecretBox) -> AsyncIterator[FastAPI]:
    built = create_app(settings, box)
    async with built.router.lifespan_context(built):
        yield built


@pytest.fixture
async def web(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A client on this machine that holds the token."""
    async with client_of(app) as client:
        yield client


@pytest.fixture
async def fill(app: FastAPI) -> Filler:
    filler = Filler(app.state.live)
    await filler.open()
    return filler


def client_of(app: FastAPI, **headers: str) -> httpx.AsyncClient:
    headers = {"Authorization": f"Bearer {TOKEN}"} | headers
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://127.0.0.1:8000", headers=headers
    )


Connect = Callable[..., httpx.AsyncClient]


@pytest.fixture
def connect(app: FastAPI) -> Connect:
    """Make clients with other headers: `connect(Authorization="")`."""
    return lambda **headers: client_of(app, **headers)
