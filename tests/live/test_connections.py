"""Redis failing in every way it can: always StoreUnavailable, always soon, never another command's
reply.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from urllib.parse import urlsplit

import pytest
import redis
from rq import Queue

from monitor.core.assignment import Assignment
from monitor.core.errors import InvalidInput, StoreUnavailable
from monitor.core.status import Status
from monitor.live import (
    assignments,
    connections,
    durability,
    generation,
    journal,
    observations,
    presence,
    requests,
    targets,
)
from monitor.live.connections import Live
from tests.factories import DB, NOW, W1, beat, epoch, identity, status, transition
from tests.fixtures import StartRedis
from tests.live.builders import given, opened, reply_to, stored
from tests.live.test_presence import HERE
from tests.proxy import Proxy
from tests.servers import RedisServer
from tests.waiting import eventually

CALLS: dict[str, Callable[[Live], Awaitable[object]]] = {
    "now": connections.now,
    "check_writes": connections.check_writes,
    "generation": generation.generation,
    "restore": lambda live: generation.restore(live, W1, (), 1, ""),
    "open": lambda live: generation.open_generation(live, epoch("1.1"), {"leader"}, ""),
    "standing": generation.standing,
    "record": lambda live: observations.record(live, "name", W1, [beat("1.2", status())]),
    "latest": lambda live: observations.latest(live, [DB]),
    "names": observations.names,
    "counters": observations.counters,
    "assign": lambda live: assignments.assign(
        live, Assignment(DB, W1, epoch("9.9")), planned=False, now=NOW, registry=""
    ),
    "places": lambda live: assignments.places(live, [DB]),
    "mine": lambda live: assignments.mine(live, W1),
    "targets": lambda live: targets.targets(live, [DB]),
    "read": lambda live: journal.read(live, "historian", "one", count=10, block=0.1),
    "claim": lambda live: journal.claim(live, "historian", "one", idle=0),
    "replay": lambda live: durability.replay(live, "name", [transition("1.1.1")]),
    "trim": lambda live: journal.trim(live, NOW),
    "backlog": journal.backlog,
    "present": presence.present,
    "mark_bus": lambda live: presence.mark_bus(live, "leader"),
    "take": lambda live: requests.take(live, "leader"),
    "ask": lambda live: requests.ask(live, "fleet_changed"),
}
BLOCKING = {"read"}  # its deadline is that of the longest wait


async def fails(live: Live, call: str, within: float = 2.2) -> str:
    started = time.monotonic()
    with pytest.raises(StoreUnavailable) as caught:
        await CALLS[call](live)
    assert time.monotonic() - started < within, call
    assert caught.value.store == "redis"
    assert not caught.value.permanent
    return caught.value.detail


@pytest.fixture
def proxy(redis_server: RedisServer, redis_url: str) -> Iterator[Proxy]:
    found = Proxy(urlsplit(redis_server.url).port or 0).start()
    yield found
    found.stop()


async def test_a_closed_port(start_redis: StartRedis, connect: Callable[..., Live]) -> None:
    server = start_redis()
    live = connect(server.url)
    await connections.now(live)
    server.stop()
    for call in CALLS:
        assert await fails(live, call) == "connection", call
    server.start()
    await connections.now(live)


async def test_a_frozen_server_with_connections_kept_and_without(
    start_redis: StartRedis, connect: Callable[..., Live]
) -> None:
    """Everything at once: no call waits behind another, more of them than there are connections."""
    server = start_redis()
    live, fresh = connect(server.url), connect(server.url)
    await opened(live)
    await asyncio.gather(*(connections.now(live) for _ in range(8)))
    server.freeze()
    try:
        quick = [call for call in CALLS if call not in BLOCKING]
        started = time.monotonic()
        kinds = await asyncio.gather(
            *(fails(which, call) for which in (live, fresh) for call in quick * 2)
        )
        assert time.monotonic() - started < 2.5
        assert set(kinds) <= {"timeout", "connection"}
        assert "timeout" in kinds
        assert await fails(live, "read", within=7.5) == "timeout"
    finally:
        server.thaw()
    await connections.now(live)
    await connections.now(fresh)


async def test_a_server_without_memory_answers_and_refuses_to_write(
    start_redis: StartRedis, connect: Callable[..., Live]
) -> None:
    live = connect(start_redis().url)
    name = await opened(live)
    await given(live, "1.2", seed=Status())
    await live.cache.config_set("maxmemory", "1mb")
    for call in ("check_writes", "assign", "restore", "ask"):
        assert await fails(live, call) == "out_of_memory"
    before = await stored(live)
    with pytest.raises(StoreUnavailable, match="out_of_memory"):
        await reply_to(live, name, W1, beat("1.2", status()))
    assert await stored(live) == before == (await live.cache.hgetall(observations.database_key(DB)))
    await live.cache.config_set("maxmemory", "0")
    assert await reply_to(live, name, W1, beat("1.2", status())) == "accepted"


async def test_a_replica_does_not_take_writes(
    start_redis: StartRedis, connect: Callable[..., Live]
) -> None:
    master, replica = start_redis(), start_redis()
    live = connect(replica.url)
    name = await opened(live)
    await given(live, "1.2", seed=Status())
    parts = urlsplit(master.url)
    await live.cache.config_set("masterauth", str(parts.password))
    await live.cache.config_set("replica-serve-stale-data", "yes")
    await live.cache.replicaof("127.0.0.1", str(parts.port))
    for call in ("check_writes", "assign", "restore", "ask"):
        assert await fails(live, call) == "read_only"
    with pytest.raises(StoreUnavailable, match="read_only"):
        await reply_to(live, name, W1, beat("1.2", status()))


async def test_a_promoted_replica_holds_everything_and_is_closed(
    start_redis: StartRedis, connect: Callable[..., Live]
) -> None:
    """Fail over for real: key, assignment and hash are there, the instance is another."""
    master, replica = start_redis(repl_diskless_sync_delay="0"), start_redis()
    old, new = connect(master.url), connect(replica.url)
    parts = urlsplit(master.url)
    await new.cache.config_set("masterauth", str(parts.password))
    await new.cache.replicaof("127.0.0.1", str(parts.port))
    await eventually(
        lambda: attached(new)
    )  # the first replica gives its master another replication id
    name = await opened(old)
    await given(old, "1.2", seed=Status())
    assert await reply_to(old, name, W1, beat("1.2", status())) == "accepted"
    await eventually(lambda: replicated(old, new))
    master.kill()
    await new.cache.replicaof("NO", "ONE")
    before = await stored(new)
    assert (
        await reply_to(new, name, W1, beat("1.2", status("1.2.1"), transition("1.2.1"))) == "closed"
    )
    assert await stored(new) == before
    assert not (await generation.generation(new)).open


async def attached(replica: Live) -> bool:
    try:
        return (await replica.cache.info("replication"))["master_link_status"] == "up"
    except redis.RedisError:  # loading
        return False


async def replicated(old: Live, new: Live) -> bool:
    try:
        return (await stored(new)) == (await stored(old))
    except redis.RedisError:  # loading
        return False


async def test_a_wrong_password_is_unavailable_and_is_not_repeated(
    redis_url: str, connect: Callable[..., Live]
) -> None:
    parts = urlsplit(redis_url)
    live = connect(f"redis://:SEKRET@{parts.hostname}:{parts.port}/0")
    with pytest.raises(StoreUnavailable, match="authentication") as caught:
        await connections.now(live)
    assert "SEKRET" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "http://:SEKRET@h",
        "redis://:SEKRET@[h",
        "redis://:SEKRET@h:99999",
        "redis://:SEKRET@h/0?nonsense=1",
    ],
)
def test_a_malformed_url_is_never_echoed(url: str) -> None:
    for make in (connections.connect, connections.rq_connection):
        with pytest.raises(InvalidInput) as caught:
            make(url)
        assert "SEKRET" not in str(caught.value)
        assert caught.value.__cause__ is None


async def test_tls_options_of_the_url_reach_the_connection(connect: Callable[..., Live]) -> None:
    live = connect("rediss://h:6380/0?ssl_ca_certs=/etc/ca.pem&ssl_cert_reqs=required")
    for client in (live.bus, live.cache):
        options = client.connection_pool.connection_kwargs
        assert options["ssl_ca_certs"] == "/etc/ca.pem"
        assert options["ssl_cert_reqs"] == "required"
        assert client.connection_pool.connection_class is redis.asyncio.SSLConnection


async def test_bus_and_cache_may_be_two_servers(
    redis_url: str, start_redis: StartRedis, connect: Callable[..., Live]
) -> None:
    one = connect(redis_url)
    assert one.bus is one.cache
    live = connect(redis_url, start_redis().url)
    await requests.ask(live, "fleet_changed")
    name = await opened(live)
    assert await live.bus.keys("*") == ["feeler:requests"]
    assert {key.split(":")[2] for key in await live.cache.keys("*")} == {"generation", "term"}
    await given(live, "1.2", seed=Status())
    await reply_to(live, name, W1, beat("1.2", status("1.2.1"), transition("1.2.1")))
    assert len(await journal.read(live, "historian", "one", count=10, block=0)) == 1


async def test_connections_tell_whose_they_are(live: Live) -> None:
    await connections.now(live)
    await journal.read(live, "historian", "one", count=1, block=0)
    names = {client["name"] for client in await live.bus.client_list()}
    assert "feeler/live" in names


async def test_rq_may_overwrite_its_timeouts_without_touching_ours(
    redis_url: str, live: Live
) -> None:
    with connections.rq_connection(redis_url) as client:
        Queue("feeler-w", connection=client)
        client.connection_pool.connection_kwargs["socket_timeout"] = 415
    assert live.bus.connection_pool.connection_kwargs["socket_timeout"] == 1.0


# --- on the wire ----------------------------------------------------------------------------------


async def test_a_lost_reply_is_an_error_and_the_same_again_is_accepted_once(
    proxy: Proxy, redis_url: str, connect: Callable[..., Live]
) -> None:
    live = connect(proxy.url(redis_url))
    name = await opened(live)
    await given(live, "1.2", seed=Status())
    one = beat("1.2", status("1.2.1"), transition("1.2.1"))
    assert (
        await reply_to(live, name, W1, beat("1.2", status())) == "accepted"
    )  # the server knows the script now
    proxy.drop_next_reply(b"EVALSHA")
    with pytest.raises(StoreUnavailable):
        await reply_to(live, name, W1, one)
    assert (await stored(live))["identity"] == "1.2.1", "it was written"
    assert await reply_to(live, name, W1, one) == "accepted"
    assert len(await journal.read(live, "historian", "one", count=10, block=0)) == 1
    proxy.drop_next_reply(b"EVALSHA")
    with pytest.raises(StoreUnavailable):
        await given(live, "1.3")
    await given(live, "1.3")


async def test_a_cut_wire_heals_by_itself(
    proxy: Proxy, redis_url: str, connect: Callable[..., Live]
) -> None:
    live = connect(proxy.url(redis_url))
    await asyncio.gather(*(connections.now(live) for _ in range(5)))
    proxy.sever()
    await asyncio.gather(*(connections.now(live) for _ in range(5)), return_exceptions=True)
    await asyncio.gather(*(connections.now(live) for _ in range(5)))


async def test_a_cancelled_call_leaves_no_reply_for_the_next(
    proxy: Proxy, redis_url: str, connect: Callable[..., Live]
) -> None:
    live = connect(proxy.url(redis_url))
    name = await opened(live)
    await given(live, "1.2", seed=Status())
    await live.cache.set("mine", "yours")
    for i in range(20):
        calls = [
            asyncio.create_task(call)
            for call in (
                reply_to(live, name, W1, beat("1.2", status(), at=NOW + i)),
                live.cache.get("mine"),
                assignments.mine(live, W1),
            )
        ]
        await asyncio.sleep(0.0002 * i)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        found = await asyncio.gather(
            *(live.cache.get("mine") for _ in range(4)), assignments.mine(live, W1)
        )
        assert found == ["yours"] * 4 + [{DB: "1.2 0"}]
        assert await reply_to(live, name, W1, beat("1.2", status(), at=NOW + i)) == "accepted"
    assert len(live.cache.connection_pool._in_use_connections) == 0


async def test_more_calls_than_connections_wait_in_line(live: Live) -> None:
    found = await asyncio.gather(
        *(connections.now(live) for _ in range(connections.CONNECTIONS * 5))
    )
    assert len(found) == connections.CONNECTIONS * 5
    assert len(await live.cache.client_list()) <= connections.CONNECTIONS + 2


async def test_a_server_that_refuses_to_write_is_named_by_every_call(
    start_redis: StartRedis, connect: Callable[..., Live]
) -> None:
    """In a pipeline too, whose errors redis-py words otherwise."""
    server = start_redis()
    live = connect(server.url)
    with redis.Redis.from_url(server.url) as client:
        client.config_set("min-replicas-to-write", 1)
    for write in (
        presence.announce(live, HERE),
        presence.mark_bus(live, "leader"),
        requests.ask(live, "fleet_changed"),
        journal.ensure(live, "historian"),
        durability.mark_durable(live, [("orders", identity("1.1.1"))], NOW),
        connections.check_writes(live),
    ):
        with pytest.raises(StoreUnavailable) as caught:
            await write
        assert caught.value.detail == "no_replicas"
