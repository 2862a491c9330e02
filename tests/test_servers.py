"""The throwaway servers do what the tests that rely on them think they do."""

import time

import psycopg
import pytest
import redis


def test_a_killed_postmaster_keeps_committed_rows(start_postgres):
    server = start_postgres()
    server.execute("CREATE TABLE kept AS SELECT generate_series(1, 100) AS n")
    session = psycopg.connect(server.url())
    server.kill_postmaster()
    assert server.pid == 0
    server.start()
    assert server.execute("SELECT count(*) FROM kept") == [(100,)]
    session.close()


def test_a_killed_server_comes_back_on_its_port(start_postgres):
    server = start_postgres()
    port, family = server.port, server.pids()
    server.kill_all()
    with pytest.raises(psycopg.OperationalError):
        server.execute("SELECT 1")
    server.start()
    assert server.port == port
    assert server.pids()[0] not in family
    assert server.execute("SELECT 1") == [(1,)]


def test_a_frozen_postgres_accepts_and_says_nothing(start_postgres):
    server = start_postgres()
    server.freeze()
    with pytest.raises(psycopg.errors.ConnectionTimeout):
        psycopg.connect(server.url(), connect_timeout=2)
    server.thaw()
    assert server.execute("SELECT 1") == [(1,)]


def test_settings_reach_the_server(start_postgres):
    server = start_postgres(max_connections="7")
    assert server.execute("SHOW max_connections") == [("7",)]
    assert server.execute("SHOW synchronous_commit") == [("on",)]


def test_one_user_of_the_server_may_not_enter_without_a_password(postgres_server):
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(postgres_server.url(password="wrong"))


def test_redis_comes_back_with_its_data_or_empty(start_redis):
    server = start_redis()
    first = server.run_id()
    with redis.Redis.from_url(server.url) as client:
        client.set("kept", "1")
        assert client.config_get("appendonly")["appendonly"] == "yes"
    server.kill()
    server.start()
    assert server.run_id() != first
    with redis.Redis.from_url(server.url) as client:
        assert client.get("kept") == b"1"
    server.kill()
    server.start(empty=True)
    with redis.Redis.from_url(server.url) as client:
        assert client.get("kept") is None


def test_a_frozen_redis_says_nothing(start_redis):
    server = start_redis()
    server.freeze()
    with (
        redis.Redis.from_url(server.url, socket_timeout=0.2, retry=None) as client,
        pytest.raises(redis.TimeoutError),
    ):
        client.ping()
    server.thaw()
    assert server.run_id()


def test_redis_wants_its_password(redis_server):
    with (
        redis.Redis(port=redis_server.port, retry=None) as client,
        pytest.raises(redis.AuthenticationError),
    ):
        client.ping()


@pytest.mark.parametrize("count", [20])
def test_twenty_servers_in_a_few_seconds(start_postgres, count):
    began = time.monotonic()
    servers = [start_postgres() for _ in range(count)]
    assert all(server.execute("SELECT 1") == [(1,)] for server in servers)
    assert time.monotonic() - began < 20
