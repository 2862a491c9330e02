"""Puts the HTTP door together and serves it. Imported by cli.py (lazily) and by tests."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

import uvicorn
from fastapi import FastAPI

from monitor.config import Settings
from monitor.live import connections
from monitor.registry.store import open_store
from monitor.secrets import SecretBox, load_keys
from monitor.web import (
    databases,
    health,
    last_observation,
    metrics,
    problems,
    registry_access,
    transitions,
    workers,
)
from monitor.web.http_limits import bounded_protocol
from monitor.web.security import Guard

API = "/api/v1"
_log = logging.getLogger("feeler.web")


def create_app(settings: Settings, box: SecretBox) -> FastAPI:
    """Return the app; stores are opened at start and may be away then."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.live = connections.connect(settings.redis_url, settings.cache_url)
        app.state.store = open_store(settings.database_url)
        app.state.lookup = registry_access.lookup_in(app.state.store)
        app.state.readiness = health.Readiness(
            app.state.live, app.state.store, settings.database_url
        )
        yield
        await connections.close(app.state.live)
        app.state.store.close()

    # No /docs: its page loads scripts from a CDN. The schema itself is at /openapi.json.
    # No redirects: `/last_observation/` without a name must not become the whole fleet.
    app = FastAPI(
        title="feeler",
        version=version("feeler"),
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
    )
    app.state.box = box
    app.include_router(last_observation.router)
    for resource in (last_observation, databases, transitions, workers):
        app.include_router(resource.router, prefix=API)
    app.include_router(health.router)
    app.include_router(metrics.router)
    problems.install(app)
    app.add_middleware(Guard, settings=settings)
    return app


def serve(settings: Settings) -> None:
    """Serve until a signal comes."""
    form = "%(asctime)s %(levelname).1s %(name)s %(message)s"
    logging.basicConfig(level=settings.log_level, format=form)
    for talkative in ("alembic", "uvicorn"):
        logging.getLogger(talkative).setLevel(logging.WARNING)
    keys = load_keys(settings.home, settings.secret_keys, settings.secret_keys_file)
    box = SecretBox(keys)
    reading = "token" if settings.require_read_token else "open"
    writing = "token" if settings.token else "closed"
    _log.info(
        "action=serve host=%s port=%s reading=%s writing=%s",
        settings.host,
        settings.port,
        reading,
        writing,
    )
    if not settings.token:
        fix = "set FEELER_TOKEN to register databases, or to be reached from elsewhere"
        _log.warning('action=no_token fix="%s"', fix)
    uvicorn.run(
        create_app(settings, box),
        host=settings.host,
        port=settings.port,
        http=bounded_protocol(),
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=5,
    )
