"""The few steps most tests of live/ begin with; values come from tests/factories.py."""

from collections.abc import Sequence

from monitor.core.assignment import Assignment
from monitor.core.beat import Beat
from monitor.core.placement import Assigned
from monitor.core.status import Status
from monitor.live import assignments, generation, observations
from monitor.live.connections import Live
from monitor.live.keys import database_key, partition
from tests.factories import DB, NOW, W1, epoch


async def opened(live: Live, by: str = "1.1") -> str:
    """Open a generation that nobody remembers anything of."""
    leader = epoch(by)
    assert await generation.restore(live, "leader", (), leader.term, "")
    name = await generation.open_generation(live, leader, {"leader"}, "")
    assert name
    return name


async def given(
    live: Live,
    under: str,
    owner: str = W1,
    database: str = DB,
    seed: Status | None = None,
    registry: str = "",
) -> None:
    """Assign without more ado."""
    answer = await assignments.assign(
        live,
        Assignment(database, owner, epoch(under)),
        planned=False,
        now=NOW,
        seed=seed,
        registry=registry,
    )
    assert answer is Assigned.ASSIGNED


async def reply_to(live: Live, name: str, worker: str, one: Beat) -> str:
    """Record one beat; return what Redis answers."""
    [reply] = await observations.record(live, name, worker, [one])
    return reply.value


async def stored(live: Live, database: str = DB) -> dict[str, str]:
    fields: dict[str, str] = await live.cache.hgetall(database_key(database))
    return fields


async def everything(live: Live, but: Sequence[str] = ()) -> dict[str, bytes]:
    """Return all of ours in the cache, without keys that end in one of `but`; threads of RQ outlive
    their tests.
    """
    keys = sorted(await live.cache.keys("feeler:*"))
    kept = [key for key in keys if not key.endswith(tuple(but) or ("\0",))]
    return {key: await _value(live, key) for key in kept}


async def _value(live: Live, key: str) -> object:
    kind = await live.cache.type(key)
    if kind == "hash":
        return await live.cache.hgetall(key)
    if kind == "set":
        return await live.cache.smembers(key)
    if kind == "zset":
        return await live.cache.zrange(key, 0, -1, withscores=True)
    if kind == "stream":
        return await live.cache.xrange(key)
    return await live.cache.get(key)


def namesakes(count: int, of: str = DB) -> list[str]:
    """Return names in the partition of `of`."""
    found = (f"{of}{i}" for i in range(10_000))
    same = [name for name in found if partition(name) == partition(of)]
    return same[:count]
