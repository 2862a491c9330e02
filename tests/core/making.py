"""Short ways to make the values of the core, and hypothesis strategies for them."""

import os
from dataclasses import dataclass, field, replace

from hypothesis import settings
from hypothesis import strategies as st

from monitor.core.cause import Cause
from monitor.core.event import CannotReach, Event, Finding, Transition
from monitor.core.machine import Context, tick
from monitor.core.observation import Observation
from monitor.core.policy import Policy
from monitor.core.status import (
    MAX_ROUNDS,
    MAX_TRIED,
    MAX_UNREACHABLE_FROM,
    MAX_WITNESSES,
    Doubt,
    Epoch,
    Identity,
    State,
    Status,
    Witness,
    mark,
)

START = 1_763_000_000.0  # stories begin here
POLICY = Policy()
DEEPER = int(os.environ.get("FEELER_DEEPER", "1"))  # times the examples of the quick suite


def examples(times: int) -> settings:
    """Say how often a property is tried; a busy machine may take its time."""
    return settings(max_examples=times * DEEPER, deadline=None)


def context(worker: str = "w1", counter: int = 1, **more) -> Context:
    said = {"policy": POLICY, "eligible": 3} | more
    return Context(worker=worker, epoch=Epoch(1, counter), **said)


def seen(
    cause: Cause, at: float, *, sent: float | None = None, worker: str = "w1", fresh: bool = True
) -> Observation:
    """Make an observation; times count from START, by default a login that takes no time."""
    sent_at, at = START + (at if sent is None else sent), START + at
    fields = {"database": "db1", "worker": worker, "cause": cause, "fresh_login": fresh}
    return Observation(sent_at=sent_at, at=at, **fields)


@dataclass
class Story:
    """One database through the hands of workers."""

    worker: str = "w1"
    counter: int = 1
    status: Status = field(default_factory=Status)
    events: list[Event] = field(default_factory=list)
    more: dict = field(default_factory=dict)  # what the context says besides

    def feel(self, cause: Cause, at: float, *, tried: str = "", **more) -> str:
        """Tick, and return the name of the rule that fired."""
        observation = seen(cause, at, worker=self.worker, **more)
        observation = replace(observation, tried=tuple(tried.split()))
        here = context(self.worker, self.counter, **self.more)
        self.status, events = tick(self.status, observation, here)
        self.events += events
        return next((event.rule for event in events if isinstance(event, Transition)), "steady")

    def move(self, worker: str) -> "Story":
        self.worker, self.counter = worker, self.counter + 1
        return self

    @property
    def transitions(self) -> list[Transition]:
        return [event for event in self.events if isinstance(event, Transition)]

    @property
    def requests(self) -> list[CannotReach]:
        return [event for event in self.events if isinstance(event, CannotReach)]


worker_ids = st.from_regex(r"[a-z0-9]{1,8}-[0-9a-f]{10}", fullmatch=True)
moments = st.integers(0, 4_000_000_000_000).map(lambda milliseconds: milliseconds / 1000)
causes = st.sampled_from(Cause)
epochs = st.builds(Epoch, st.integers(1, 2**31), st.integers(0, 2**32 - 1))
identities = st.builds(Identity, epochs, st.integers(1, 10**9))
texts = st.text(max_size=20)
seens = st.builds(
    Finding,
    worker=worker_ids,
    sent_at=moments,
    at=moments,
    cause=causes,
    rounds=st.integers(1, 9999),
    detail=texts,
)
transitions = st.builds(
    Transition,
    database=st.just("db1"),
    identity=identities,
    prev=st.none() | identities,
    source=st.sampled_from(State),
    target=st.sampled_from(State),
    rule=st.sampled_from(["doubt", "single_observer"]),
    at=moments,
    worker=worker_ids,
    observers=st.lists(worker_ids, max_size=3).map(tuple),
    evidence=st.lists(seens, max_size=3).map(tuple),
)
requests = st.builds(CannotReach, st.just("db1"), identities, worker_ids, moments, causes)


@st.composite
def doubts(draw: st.DrawFn) -> Doubt:
    began = draw(st.integers(0, 4_000_000_000_000))
    offsets = st.integers(0, 10**12)  # milliseconds since: three decades
    witnesses = []
    for _ in range(draw(st.integers(0, MAX_WITNESSES))):
        sent, took = draw(offsets), draw(st.integers(-10, 10**6))
        times = (began + sent) / 1000, (began + sent + took) / 1000
        witnesses.append(
            Witness(draw(worker_ids), draw(st.integers(1, MAX_ROUNDS)), *times, draw(causes))
        )
    absent = draw(st.none() | offsets)
    run = None, 0
    if absent is not None:
        run = (began + absent) / 1000, draw(st.integers(1, MAX_ROUNDS))
    asked_at, revision = (began + draw(offsets)) / 1000, draw(st.integers(0, 2**31))
    tried = tuple(map(mark, draw(st.lists(texts, max_size=MAX_TRIED))))
    return Doubt(draw(identities), began / 1000, asked_at, tuple(witnesses), *run, revision, tried)


statuses = st.builds(
    Status,
    state=st.sampled_from(State),
    since=moments,
    identity=st.none() | identities,
    rule=st.sampled_from(["", "doubt", "confirm_silent"]),
    doubt=st.none() | doubts(),
    ok_since=st.none() | moments,
    ok_rounds=st.integers(0, 10**6),
    alive=st.none() | causes,
    unreachable_from=st.lists(worker_ids, max_size=MAX_UNREACHABLE_FROM).map(tuple),
    unreachable_at=moments,
    errors=st.integers(0, 10**6),
)
