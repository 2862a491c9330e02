"""TLS: what is trusted, what is not, and whose fault it is."""

import socket
import struct
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest

from monitor.core.cause import EVIDENCE, LOCKS, Cause, Evidence
from monitor.core.database import Address, parse_address
from monitor.feeler.session import probe
from monitor.local.machine import own
from tests.feeler.certificates import DAY, Authority
from tests.feeler.hostile import Hostile, Talk
from tests.fixtures import StartPostgres
from tests.servers import PostgresServer
from tests.waiting import eventually

pytestmark = pytest.mark.tls


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority("feeler test CA")


@pytest.fixture
def ca_dir(authority: Authority, tmp_path: Path) -> Path:
    authority.write(tmp_path / "ours.pem")
    Authority("somebody else").write(tmp_path / "theirs.pem")
    (tmp_path / "garbage.pem").write_text("no certificate")
    return tmp_path


@pytest.fixture
def server(start_postgres: StartPostgres, authority: Authority) -> PostgresServer:
    server = start_postgres()
    renew(server, authority)
    try:
        server.execute("alter system set ssl = on")
    except psycopg.errors.InvalidParameterValue:
        pytest.skip("this PostgreSQL is built without TLS")
    server.execute("select pg_reload_conf()")
    return server


def renew(server: PostgresServer, authority: Authority, life: timedelta = DAY) -> None:
    authority.issue("localhost", server.data, life)
    own(server.data / "server.crt")
    own(server.data / "server.key")


def over_tls(server: PostgresServer, **changes: str) -> Address:
    address = replace(
        parse_address(server.superuser_url()), host="localhost", sslmode="verify-full"
    )
    return replace(address, **{"sslrootcert": "ours.pem", **changes})


async def cause(address: Address, ca_dir: Path | None) -> Cause:
    return (await probe(address, ca_dir=ca_dir)).cause


async def test_a_trusted_certificate_lets_us_in(server: PostgresServer, ca_dir: Path) -> None:
    assert await eventually(lambda: is_ok(over_tls(server), ca_dir))
    encrypted = await probe(over_tls(server, password="wrong"), ca_dir=ca_dir)
    assert encrypted.cause is Cause.WRONG_PASSWORD
    assert "28P01" in encrypted.detail  # the code is readable through TLS too
    assert "3D000" in (await probe(over_tls(server, dbname="nowhere"), ca_dir=ca_dir)).detail


async def is_ok(address: Address, ca_dir: Path) -> bool:
    return await cause(address, ca_dir) is Cause.OK


@pytest.mark.parametrize(
    "changes",
    [
        {"sslrootcert": "theirs.pem"},
        {"host": "127.0.0.1"},
        {"sslrootcert": "system"},
        {"sslrootcert": ""},
    ],
    ids=["another CA", "another name", "the system's CAs", "no CA named"],
)
async def test_a_certificate_we_do_not_trust_locks_us_out(
    server: PostgresServer, ca_dir: Path, changes: dict[str, str]
) -> None:
    assert await eventually(lambda: is_ok(over_tls(server), ca_dir))
    seen = await cause(over_tls(server, **changes), ca_dir)
    assert seen is Cause.UNTRUSTED
    assert EVIDENCE[seen] is Evidence.ALIVE


async def test_an_expired_certificate_locks_us_out(
    server: PostgresServer, ca_dir: Path, authority: Authority
) -> None:
    renew(server, authority, life=-DAY)
    server.execute("select pg_reload_conf()")
    assert await eventually(lambda: is_locked_out(over_tls(server), ca_dir))
    assert (
        await cause(over_tls(server, sslmode="require", sslrootcert=""), ca_dir) is Cause.OK
    )  # trusts anybody


async def is_locked_out(address: Address, ca_dir: Path) -> bool:
    return await cause(address, ca_dir) in LOCKS


async def test_a_server_without_tls_locks_us_out(
    start_postgres: StartPostgres, ca_dir: Path
) -> None:
    server = start_postgres()
    assert await cause(over_tls(server, sslmode="require", sslrootcert=""), ca_dir) is Cause.NO_TLS
    assert await cause(over_tls(server), ca_dir) is Cause.NO_TLS
    assert await cause(over_tls(server, sslmode="prefer", sslrootcert=""), ca_dir) is Cause.OK


async def test_a_refusal_through_tls_is_not_asked_for_again_without(
    server: PostgresServer, ca_dir: Path
) -> None:
    assert await eventually(lambda: is_ok(over_tls(server), ca_dir))
    wrong = over_tls(server, sslmode="prefer", sslrootcert="", password="wrong")
    assert await cause(wrong, ca_dir) is Cause.WRONG_PASSWORD
    assert server.log.read_text().count("password authentication failed") == 1


async def test_a_server_that_wants_no_tls_is_asked_again_without(
    server: PostgresServer, ca_dir: Path
) -> None:
    assert await eventually(lambda: is_ok(over_tls(server), ca_dir))
    rules = server.data / "pg_hba.conf"
    rules.write_text("hostnossl all all all scram-sha-256\n")
    server.execute("select pg_reload_conf()")
    await eventually(lambda: is_locked_out(over_tls(server), ca_dir))
    assert await cause(over_tls(server, sslmode="prefer", sslrootcert=""), ca_dir) is Cause.OK


@pytest.mark.parametrize("name", ["absent.pem", "garbage.pem", "../ours.pem"])
async def test_a_ca_file_we_lack_is_our_fault(
    server: PostgresServer, ca_dir: Path, name: str
) -> None:
    assert await eventually(lambda: is_ok(over_tls(server), ca_dir))
    seen = await cause(over_tls(server, sslrootcert=name), ca_dir)
    assert seen is Cause.MISSING_FILE
    assert EVIDENCE[seen] is Evidence.OUR_FAULT


async def test_no_ca_folder_is_our_fault(server: PostgresServer) -> None:
    assert await cause(over_tls(server), None) is Cause.MISSING_FILE


async def test_a_server_that_ends_the_connection_instead_of_encrypting_is_reset(
    ca_dir: Path,
) -> None:
    def hang_up(talk: Talk) -> None:
        talk.reader.read(8)

    def agree_and_hang_up(talk: Talk) -> None:
        talk.reader.read(8)
        talk.sock.sendall(b"S")
        talk.sock.recv(65536)
        talk.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    for behave in (hang_up, agree_and_hang_up):
        with Hostile(behave) as server:
            address = server.address(host="localhost", sslmode="require")
            assert await cause(address, ca_dir) is Cause.RESET
