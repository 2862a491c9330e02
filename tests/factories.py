"""The one place that builds values of the core: a test says only what it is about.

Times are fleet seconds from NOW on; identities and epochs are written as people read them:
"TERM.COUNTER.N" and "TERM.COUNTER". What only one module builds stays there; steps against Redis or
Postgres are built in the folder of their tests. Any test may import this.
"""

from dataclasses import replace
from typing import Any

from monitor.core.beat import Beat
from monitor.core.cause import Cause
from monitor.core.event import CannotReach, Event, Transition
from monitor.core.machine import Context
from monitor.core.observation import Observation
from monitor.core.policy import Policy
from monitor.core.status import Doubt, Epoch, Identity, State, Status, Witness
from monitor.live.presence import Presence

DB, W1, W2 = "orders", "alpha-111111", "bravo-222222"
NOW = 1_700_000_000.0
POLICY = Policy()
TOOK = 0.01  # seconds from the question to the answer


def epoch(text: str) -> Epoch:
    """Read TERM.COUNTER."""
    return Epoch.parse(text)


def identity(text: str) -> Identity | None:
    """Read TERM.COUNTER.N; nothing is no identity."""
    return Identity.parse(text) if text else None


def observation(
    database: str = DB, worker: str = W1, at: float = NOW, cause: Cause = Cause.OK, **more: Any
) -> Observation:
    """Make an observation that arrived at `at`."""
    fields = {"sent_at": at - TOOK} | more
    return Observation(database=database, worker=worker, at=at, cause=cause, **fields)


def context(worker: str = W1, under: str = "1.1", **more: Any) -> Context:
    """Make what a worker ticks under: with it two workers are eligible."""
    fields = {"policy": POLICY, "eligible": 2} | more
    return Context(worker=worker, epoch=epoch(under), **fields)


def status(which: str = "", state: State = State.NEW, **more: Any) -> Status:
    """Make a Status after the transition named; NEW before any."""
    return Status(state, NOW, identity(which), "rule" if which else "", **more)


def doubted(which: str, at: float = NOW) -> Status:
    """Make a Status in the doubt of the transition named."""
    named = Identity.parse(which)
    witness = Witness(W1, 1, at, at + 0.5, Cause.CONNECT_TIMEOUT)
    return status(which, State.UNCERTAIN, doubt=Doubt(named, at, at, (witness,)))


def transition(
    which: str,
    prev: str = "",
    target: State = State.AVAILABLE,
    database: str = DB,
    **more: Any,
) -> Transition:
    """Make the transition of that identity, out of NEW unless said."""
    made = Transition(
        database=database,
        identity=Identity.parse(which),
        prev=identity(prev),
        source=State.NEW,
        target=target,
        rule="rule",
        at=NOW,
        worker=W1,
        observers=(W1,),
        evidence=(),
    )
    return replace(made, **more)


def cannot_reach(doubt: str, at: float = NOW, database: str = DB) -> CannotReach:
    """Make the request of W1 for a second opinion in the doubt named."""
    return CannotReach(database, Identity.parse(doubt), W1, at, Cause.PORT_CLOSED)


def beat(under: str, after: Status, *events: Event, database: str = DB, at: float = NOW) -> Beat:
    """Make what W1 sends under an epoch: an observation, and the Status after the events."""
    return Beat(database, epoch(under), after, observation(database, at=at), events)


def here(worker: str = W1, at: float = NOW, **more: Any) -> Presence:
    """Make what an idle worker says of itself."""
    said: dict[str, Any] = {
        "host": "here",
        "pid": 1,
        "zone": "",
        "capacity": 100,
        "started_at": at - 60,
    }
    said |= {"owned": 0, "leaving": False, "generation": "", "lateness": 0.0}
    return Presence(worker=worker, at=at, **said | {"rejected": 0, "retained": 0} | more)
