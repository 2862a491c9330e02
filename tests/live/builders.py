"""Values for the tests of live/, and the few steps most of them begin with."""

from collections.abc import Sequence
from dataclasses import replace

from monitor.core.assignment import Assignment
from monitor.core.beat import Beat
from monitor.core.cause import Cause
from monitor.core.event import CannotReach, Event, Transition
from monitor.core.observation import Observation
from monitor.core.placement import Assigned
from monitor.core.status import Doubt, Epoch, Identity, State, Status, Witness
from monitor.live import assignments, generation, observations
from monitor.live.connections import Live
from monitor.live.keys import database_key, partition

DB, W1, W2 = "orders", "alpha-111111", "bravo-222222"
NOW = 1_700_000_000.0


def epoch(text: str) -> Epoch:
    return Epoch.parse(text)


def identity(text: str) -> Identity | None:
    return Identity.parse(text) if text else None


def status(which: str = "", state: State = State.NEW) -> Status:
    """A Status after the transition named; NEW before any."""
    return Status(state, NOW, identity(which), "rule" if which else "")


def transition(
    which: str, prev: str = "", target: State = State.AVAILABLE, database: str = DB
) -> Transition:
    named = identity(which)
    assert named
    return Transition(
        database, named, identity(prev), State.NEW, target, "rule", NOW, W1, (W1,), ()
    )


def cry(doubt: str, at: float = NOW, database: str = DB) -> CannotReach:
    named = identity(doubt)
    assert named
    return CannotReach(database, named, W1, at, Cause.PORT_CLOSED)


def doubted(which: str, at: float = NOW) -> Status:
    """A Status in the doubt of the transition named."""
    named = identity(which)
    assert named
    witness = Witness(W1, 1, at, at + 0.5, Cause.CONNECT_TIMEOUT)
    return replace(status(which, State.UNCERTAIN), doubt=Doubt(named, at, at, (witness,)))


def observation(
    database: str = DB, worker: str = W1, at: float = NOW, cause: Cause = Cause.OK
) -> Observation:
    return Observation(database=database, worker=worker, sent_at=at - 0.01, at=at, cause=cause)


def beat(under: str, after: Status, *events: Event, database: str = DB, at: float = NOW) -> Beat:
    return Beat(database, epoch(under), after, observation(database, at=at), events)


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


async def said(live: Live, name: str, worker: str, one: Beat) -> str:
    """Record one beat; return the verdict's word."""
    [verdict] = await observations.record(live, name, worker, [one])
    return verdict.value


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
