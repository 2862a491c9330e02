"""The historian on real stores: what one database cannot have written holds up nobody else."""

import pytest
from sqlalchemy import text

from monitor.core.errors import StoreUnavailable
from monitor.live import connections, durability, journal
from monitor.live.connections import Live
from monitor.live.keys import partition_key
from monitor.registry import store as store_module
from monitor.registry.store import Store, open_store
from monitor.registry.transitions import read_transitions
from tests.factories import transition
from tests.fixtures import StartProxy
from tests.live.builders import opened
from tests.registry.test_retention import DAYS, flapping, kept, numbered, write
from tests.servers import RedisServer
from workers.supervisor.historian import GROUP, Historian
from workers.supervisor.sampler import Pruner

NAMES = ("flapper", "ledger", "orders")


async def test_a_database_that_cannot_be_written_holds_up_nobody_else(
    live: Live,
    store: Store,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Somebody holds its chain for longer than we wait for a statement."""
    monkeypatch.setattr(store_module, "UNIT_SECONDS", 60.0)
    monkeypatch.setattr(store_module, "STATEMENT_MS", 300)
    impatient = open_store(database_url)
    name, historian = await opened(live), Historian(live, impatient, "one")
    await durability.replay(live, name, [transition("1.2.1", database=one) for one in NAMES])
    with store.begin() as other:
        other.execute(
            text("SELECT pg_advisory_xact_lock(hashtextextended('feeler.chain flapper', 0))")
        )
        assert await historian.drain()
    assert [len(read_transitions(store, one)) for one in NAMES] == [0, 1, 1]
    assert (await journal.backlog(live))[f"{GROUP}_pending"] == 1
    left = await journal.claim(live, GROUP, "another", idle=0)
    assert [entry.event.database for entry in left] == ["flapper"]


async def test_what_was_claimed_is_held_when_the_next_read_fails(
    live: Live,
    store: Store,
    redis_url: str,
    redis_server: RedisServer,
    start_proxy: StartProxy,
) -> None:
    name, proxy = await opened(live), start_proxy(redis_server.port)
    away = connections.connect(proxy.url(redis_url))
    historian = Historian(away, store, "one")
    await durability.replay(live, name, [transition("1.2.1", database="orders")])
    [left] = await journal.read(live, GROUP, "one that dies", count=10, block=0)
    key = partition_key(left.partition, "journal")
    await live.cache.xclaim(key, GROUP, "one that dies", 0, [left.id], idle=3_600_000)
    proxy.drop_next_reply(b"XREADGROUP")
    with pytest.raises(StoreUnavailable):
        await historian.drain()
    assert proxy.lost_replies == 1
    assert await historian.drain()
    assert len(read_transitions(store, "orders")) == 1
    await connections.close(away)


async def test_old_transitions_go_and_do_not_come_back(live: Live, store: Store) -> None:
    name, old = await opened(live), flapping(100)
    write(store, old)
    assert await Pruner(live, store, 0).prune() == 0, "for ever"
    assert await Pruner(live, store, DAYS).prune() == 70
    await durability.replay(live, name, old)
    historian = Historian(live, store, "one", DAYS)
    while await historian.drain():
        continue
    assert kept(store) == numbered(range(71, 101))
    durable = await durability.durable(live, [(one.database, one.identity) for one in old])
    assert len(durable) == 100, "no worker retains them"
