"""The proxy hurts connections exactly as it says."""

import asyncio

import psycopg
import pytest
import redis

from tests.waiting import eventually


def connect(url: str, **options) -> psycopg.Connection:
    return psycopg.connect(url, autocommit=True, connect_timeout=2, **options)


async def read_one(proxy) -> bytes:
    reader, writer = await asyncio.open_connection(proxy.host, proxy.port)
    try:
        return await reader.read(1)
    finally:
        writer.close()


def test_pass_relays_both_ways(postgres_server, start_proxy):
    proxy = start_proxy(postgres_server.port)
    with connect(proxy.url(postgres_server.url())) as connection:
        assert connection.execute("SELECT repeat('x', 300000)").fetchone() == ("x" * 300000,)


def test_deaf_holds_open_and_new_connections_and_delivers_late(postgres_server, start_proxy):
    proxy = start_proxy(postgres_server.port)
    url = proxy.url(postgres_server.url())
    with connect(url) as connection:
        proxy.mode = "deaf"
        with pytest.raises(psycopg.errors.ConnectionTimeout):
            connect(url)
        proxy.mode = "pass"
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_refuse_ends_open_connections_and_closes_the_port(postgres_server, start_proxy):
    proxy = start_proxy(postgres_server.port)
    url = proxy.url(postgres_server.url())
    connection = connect(url)
    proxy.mode = "refuse"
    with pytest.raises(psycopg.OperationalError):
        connection.execute("SELECT 1")
    with pytest.raises(psycopg.OperationalError, match="refused"):
        connect(url)
    proxy.mode = "pass"
    connect(url).close()
    connection.close()


async def test_reset_ends_everything_with_rst(postgres_server, start_proxy):
    proxy = start_proxy(postgres_server.port)
    reader, writer = await asyncio.open_connection(proxy.host, proxy.port)
    await eventually(lambda: proxy.accepted == 1)
    proxy.mode = "reset"
    with pytest.raises(ConnectionResetError):
        await reader.read(1)
    writer.close()
    with pytest.raises(ConnectionResetError):  # while connecting, or right after
        await read_one(proxy)


def test_deaf_to_holds_one_application_alone(postgres_server, start_proxy):
    proxy = start_proxy(postgres_server.port)
    url = proxy.url(postgres_server.url())
    with connect(url, application_name="feeler/one-1") as one, connect(url, application_name="feeler/two-2") as two:
        proxy.deaf_to("feeler/one*")
        assert two.execute("SELECT 2").fetchone() == (2,)
        with pytest.raises(psycopg.errors.ConnectionTimeout):
            connect(url, application_name="feeler/one-1")
        proxy.hear("feeler/one*")
        assert one.execute("SELECT 1").fetchone() == (1,)


def test_drop_next_reply_loses_the_reply_of_a_command_that_was_carried_out(redis_url, redis_server, start_proxy):
    proxy = start_proxy(redis_server.port)
    with redis.Redis.from_url(proxy.url(redis_url), retry=None, socket_timeout=2) as client:
        assert client.incr("count") == 1
        proxy.drop_next_reply(containing=b"INCR")
        assert client.get("count") == b"1"
        with pytest.raises(redis.ConnectionError):
            client.incr("count")
        assert client.get("count") == b"2"
        assert proxy.lost_replies == 1
