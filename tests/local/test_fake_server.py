"""The fake Postgres of the benches is one to feeler and to psycopg: asked over the wire."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest

from monitor.core.cause import Cause
from monitor.core.database import Address, parse_address
from monitor.core.observation import FAMILIES, ReadingStatus
from monitor.feeler.login import LoginLimiter
from monitor.feeler.session import Session, probe

PASSWORD = "sesame-open-long"


@contextmanager
def fake(*arguments: str) -> Iterator[int]:
    """Start a fake server and return its port; it ends with its standard input."""
    words = [sys.executable, "-m", "monitor.local.fake_server", *arguments]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin
    assert process.stdout
    try:
        yield int(process.stdout.readline())
    finally:
        process.stdin.close()
        assert process.wait(timeout=10) == 0


@pytest.fixture(scope="module")
def open_port() -> Iterator[int]:
    with fake("--addresses", "2") as port:
        yield port


@pytest.fixture(scope="module")
def scram_port() -> Iterator[int]:
    with fake("--password", PASSWORD) as port:
        yield port


def address(port: int, password: str = PASSWORD, host: str = "127.0.1.1") -> Address:
    return parse_address(f"postgresql://feeler:{password}@{host}:{port}/orders")


@pytest.mark.parametrize("host", ["127.0.1.1", "127.0.1.2"])
async def test_it_answers_all_that_feeler_asks(open_port: int, host: str) -> None:
    seen = await probe(address(open_port, host=host))
    assert seen.cause is Cause.OK
    assert {one.family for one in seen.readings} == set(FAMILIES)
    assert {one.status for one in seen.readings} == {ReadingStatus.OK}


@pytest.mark.parametrize(
    ("password", "cause"), [(PASSWORD, Cause.OK), ("another-word", Cause.WRONG_PASSWORD)]
)
async def test_it_lets_in_whoever_knows_the_password(
    scram_port: int, password: str, cause: Cause
) -> None:
    assert (await probe(address(scram_port, password))).cause is cause


async def test_a_kept_session_sees_counters_rise(open_port: int) -> None:
    session = Session(
        address(open_port), worker="w1", deadline=2.0, clock=time.time, logins=LoginLimiter()
    )
    rates: dict[str, object] = {}
    until = time.monotonic() + 10
    while "xact_rate" not in rates or not rates["xact_rate"]:
        assert time.monotonic() < until
        seen, _ = await session.feel(fresh=False, slow=False)
        assert seen.cause is Cause.OK
        rates = {name: value for one in seen.readings for name, value in one.values.items()}
    await session.close()


def test_a_driver_takes_it_for_a_postgres(scram_port: int) -> None:
    url = f"postgresql://feeler:{PASSWORD}@127.0.1.1:{scram_port}/orders"
    with psycopg.connect(url, autocommit=True) as connection:
        sql = "SELECT pg_database_size(current_database()) AS db_size"
        for _ in range(7):  # psycopg prepares what it is asked often
            [(size,)] = connection.execute(sql).fetchall()
            assert int(size) > 0


def test_nonsense_ends_a_connection_and_no_other(open_port: int) -> None:
    with psycopg.connect(f"postgresql://u@127.0.1.1:{open_port}/d", autocommit=True) as other:
        with psycopg.connect(f"postgresql://u@127.0.1.1:{open_port}/d") as connection:
            pgconn = connection.pgconn
            with socket.socket(fileno=pgconn.socket) as wire:
                wire.send(b"?\0\0\0\4")
                wire.detach()
            with pytest.raises(psycopg.OperationalError, match="no message"):
                connection.execute("SELECT 1 AS db_size")
        assert other.execute("SELECT 1 AS db_size").fetchone()
