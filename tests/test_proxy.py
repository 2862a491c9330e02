"""The proxy hurts connections exactly as it says."""

import asyncio
import os
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing

import psycopg
import pytest
import redis

from tests.proxy import shift_time
from tests.waiting import eventually

LONG = "SELECT repeat('x', 1000)"


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


def test_deaf_from_holds_a_request_and_delivers_it_though_its_client_has_left(
    redis_url, redis_server, start_proxy
):
    proxy = start_proxy(redis_server.port)
    with redis.Redis.from_url(proxy.url(redis_url), socket_timeout=0.2, retry=None) as client:
        client.set("before", "1")
        proxy.deaf_from(b"the word")
        assert client.get("before") == b"1"
        with pytest.raises(redis.TimeoutError):
            client.set("late", "the word")
    with redis.Redis.from_url(redis_url) as client:
        assert client.get("late") is None
        proxy.mode = "pass"
        deadline = time.monotonic() + 5
        while client.get("late") != b"the word":
            assert time.monotonic() < deadline
            time.sleep(0.01)


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
    with (
        connect(url, application_name="feeler/one-1") as one,
        connect(url, application_name="feeler/two-2") as two,
    ):
        proxy.deaf_to("feeler/one*")
        assert two.execute("SELECT 2").fetchone() == (2,)
        with pytest.raises(psycopg.errors.ConnectionTimeout):
            connect(url, application_name="feeler/one-1")
        proxy.hear("feeler/one*")
        assert one.execute("SELECT 1").fetchone() == (1,)


def test_drop_next_reply_loses_the_reply_of_a_command_that_was_carried_out(
    redis_url, redis_server, start_proxy
):
    proxy = start_proxy(redis_server.port)
    with redis.Redis.from_url(proxy.url(redis_url), retry=None, socket_timeout=2) as client:
        assert client.incr("count") == 1
        proxy.drop_next_reply(containing=b"INCR")
        assert client.get("count") == b"1"
        with pytest.raises(redis.ConnectionError):
            client.incr("count")
        assert client.get("count") == b"2"
        assert proxy.lost_replies == 1


def fill_backlog(proxy, stack: ExitStack) -> None:
    for _ in range(500):
        stack.enter_context(socket.create_connection((proxy.host, proxy.port), timeout=0.5))


def ask_raw(port: int, *requests: bytes) -> bytes:
    """Send requests to a Redis one by one over one connection; return the last reply."""
    with socket.create_connection(("127.0.0.1", port), timeout=2) as talk:
        for request in requests:
            talk.sendall(request)
            reply = talk.recv(65536)
    return reply


def test_frozen_holds_open_connections_and_accepts_none(postgres_server, start_proxy):
    proxy = start_proxy(postgres_server.port)
    url = proxy.url(postgres_server.url())
    with connect(url) as connection, ExitStack() as stack:
        proxy.mode = "frozen"
        with pytest.raises(psycopg.errors.ConnectionTimeout):
            connect(url)
        assert proxy.accepted == 1
        with pytest.raises(TimeoutError):  # the kernel takes in what the backlog holds, and no more
            fill_backlog(proxy, stack)
        proxy.mode = "pass"
        assert connection.execute("SELECT 1").fetchone() == (1,)
        connect(url).close()


def test_frozen_ends_as_it_began_whatever_the_mode_before(postgres_server, start_proxy):
    proxy = start_proxy(postgres_server.port)
    url = proxy.url(postgres_server.url())
    for mode in ("refuse", "frozen", "refuse", "frozen", "pass"):
        proxy.mode = mode
    connect(url).close()


def test_delay_is_paid_both_ways_and_by_each_connection_alone(postgres_server, start_proxy):
    proxy = start_proxy(postgres_server.port)
    url = proxy.url(postgres_server.url())
    with connect(url) as one, connect(url) as two:
        proxy.delay = 0.2
        began = time.monotonic()
        with ThreadPoolExecutor() as threads:
            answers = threads.map(
                lambda connection: connection.execute("SELECT 1").fetchone(), (one, two)
            )
            assert list(answers) == [(1,), (1,)]
        assert 0.4 <= time.monotonic() - began < 0.7


def test_delay_keeps_the_order_and_does_not_add_up(redis_url, redis_server, start_proxy):
    proxy = start_proxy(redis_server.port)
    with redis.Redis.from_url(proxy.url(redis_url)) as client:
        client.ping()
        proxy.delay = 0.1
        began = time.monotonic()
        words = [b"x%d" % number * 20_000 for number in range(20)]
        with client.pipeline(transaction=False) as pipe:
            for word in words:
                pipe.echo(word)
            assert pipe.execute() == words
        assert 0.2 <= time.monotonic() - began < 0.6


def test_drip_sends_replies_byte_by_byte(postgres_server, start_proxy):
    proxy = start_proxy(postgres_server.port)
    with connect(proxy.url(postgres_server.url())) as connection:
        proxy.drip = 0.002
        began = time.monotonic()
        assert connection.execute(LONG).fetchone() == ("x" * 1000,)
        assert time.monotonic() - began > 2
        proxy.drip = 0.0
        assert connection.execute(LONG).fetchone() == ("x" * 1000,)


@pytest.mark.parametrize("reset", [False, True])
def test_cut_after_lets_each_connection_have_so_many_bytes(postgres_server, start_proxy, reset):
    proxy = start_proxy(postgres_server.port)
    url = proxy.url(postgres_server.url())
    with closing(connect(url)) as one, closing(connect(url)) as two:
        proxy.cut_after(500, reset=reset)
        for connection in (one, two):
            connection.pgconn.send_query(LONG.encode())
            with socket.socket(fileno=os.dup(connection.fileno())) as sock:
                sock.settimeout(0.3)
                assert len(sock.recv(501, socket.MSG_WAITALL)) == 500
                with pytest.raises(ConnectionResetError if reset else TimeoutError):
                    sock.recv(1)
    proxy.cut_after(None)
    with connect(url) as third:
        assert third.execute(LONG).fetchone() == ("x" * 1000,)


def test_capture_keeps_the_whole_request_for_a_replay(redis_url, redis_server, start_proxy):
    proxy = start_proxy(redis_server.port)
    with redis.Redis.from_url(proxy.url(redis_url)) as client:
        client.set("before", 1)
        proxy.capture(b"APPEND", count=2)
        word = b"x" * 300_000  # many chunks
        for key in ("one", "two", "three"):
            client.append(key, word)
        caught = proxy.captured
        assert [request.split(b"\r\n")[4] for request in caught] == [b"one", b"two"]
        password = redis_server.password.encode()
        login = b"*2\r\n$4\r\nAUTH\r\n$%d\r\n%s\r\n" % (len(password), password)
        assert ask_raw(redis_server.port, login, caught[0]) == b":600000\r\n"
        assert client.get("one") == 2 * word


def test_retarget_resets_open_connections_and_leads_new_ones_elsewhere(start_redis, start_proxy):
    old, new = start_redis(), start_redis()
    proxy = start_proxy(old.port)
    with redis.Redis(port=proxy.port, password=old.password, retry=None) as client:
        assert client.info("server")["tcp_port"] == old.port
        proxy.retarget(new.port)
        with pytest.raises(redis.ConnectionError):
            client.ping()
    with redis.Redis(port=proxy.port, password=new.password) as client:
        assert client.info("server")["tcp_port"] == new.port


def test_shift_time_moves_the_answer_of_time_alone(redis_url, redis_server, start_proxy):
    proxy = start_proxy(redis_server.port)
    with redis.Redis.from_url(proxy.url(redis_url)) as client:
        proxy.rewrite_replies(shift_time(3600))
        assert 3598 < client.time()[0] - time.time() < 3602
        seconds = b"%d" % time.time()
        client.rpush("list", seconds, b"123456")
        assert client.lrange("list", 0, -1) == [
            seconds,
            b"123456",
        ]  # the same bytes, another request
        proxy.rewrite_replies(None)
        assert abs(client.time()[0] - time.time()) < 2
