"""One database in a worker's care: tentative, pending, accepted. Pure; imported by custody.

The worker's Status of a database runs ahead of what Redis has accepted; nobody sees what is ahead.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from monitor.core.beat import Beat
from monitor.core.event import CannotReach, Event, Transition
from monitor.core.machine import Context, tick
from monitor.core.observation import Observation
from monitor.core.own_faults import NO_FAULTS, FaultStreak, count_fault
from monitor.core.status import Epoch, Identity, Status

# events of one database that wait for a Redis that is away: 0.7 MB, hours of the wildest flapping
PENDING_MOST = 1_000


@dataclass(slots=True)
class Holding:
    """One database in this worker's care, under one epoch."""

    database: str
    epoch: Epoch
    accepted: Status
    pending: tuple[Event, ...] = field(default=(), init=False)  # oldest first
    tentative: Status = field(init=False)  # `accepted` after all that is pending
    stopped: bool = False  # feel on, say nothing, until `learn`
    unjudged: int = 0  # observations that could change nothing: too much is pending already
    faults: FaultStreak = NO_FAULTS

    def __post_init__(self) -> None:
        self.tentative = self.accepted

    def observe(self, observation: Observation, context: Context) -> None:
        """Tick on the tentative Status."""
        if self.stopped:
            return
        if len(self.pending) >= PENDING_MOST:
            # starting over would give its identities, accepted or not, to other transitions
            self.unjudged += 1
            return
        self.tentative, events = tick(self.tentative, observation, context)
        events += self._request(observation, context.worker)
        if events:
            self.pending = _without_older_requests(self.pending, events) + events

    def _request(self, observation: Observation, worker: str) -> tuple[Event, ...]:
        """Ask for another worker where this one has long found nothing but its own faults."""
        self.faults, due = count_fault(self.faults, observation)
        if not due:
            return ()
        request = CannotReach(
            database=self.database,
            doubt=self.tentative.identity or Identity(self.epoch, 0),
            worker=worker,
            at=observation.at,
            cause=observation.cause,
        )
        return (request,)

    def beat(self, observation: Observation) -> Beat:
        """Return what to record: every pending event goes along until one reply accepts it."""
        return Beat(
            database=self.database,
            epoch=self.epoch,
            status=self.tentative,
            observation=observation,
            events=self.pending,
        )

    def accept(self, beat: Beat) -> tuple[Transition, ...]:
        """Note that Redis holds `beat`; return the transitions that became true by it."""
        self.accepted = beat.status
        if not beat.events:
            return ()
        done = set(beat.events)
        accepted: list[Transition] = []
        waiting: list[Event] = []
        for event in self.pending:
            if event not in done:
                waiting.append(event)
            elif isinstance(event, Transition):
                accepted.append(event)
        self.pending = tuple(waiting)
        return tuple(accepted)

    def learn(self, epoch: Epoch, stored: Status) -> tuple[Transition, ...]:
        """Go on under `epoch` from what the hash holds; return what proves to have been accepted.

        A pending event whose reply was lost is found in the hash; what still builds on the hash is
        carried over under its old identity; anything else was overtaken by another owner and goes.
        """
        # A hash older than what was accepted takes nothing back: it was read before our last beat
        # arrived, or from a Redis that lost its data. The next beat brings it up.
        stored = later(self.accepted, stored)
        self.epoch = epoch
        self.stopped = False
        self.faults = NO_FAULTS
        known = transitions(self.pending)
        found = tuple(event for event in known if _is_within(event, stored))
        if found and found[-1].identity == stored.identity:
            self._go_on_from(stored, _after(self.pending, found[-1]))
            return found
        carried = self.pending if known and known[0].prev == stored.identity else ()
        self._go_on_from(stored, carried)
        return ()

    def _go_on_from(self, stored: Status, pending: tuple[Event, ...]) -> None:
        self.accepted = stored
        self.pending = pending
        if not transitions(pending):  # requests alone: the next feel makes them anew
            self.tentative = stored
            self.pending = ()


def transitions(events: Iterable[Event]) -> tuple[Transition, ...]:
    return tuple(event for event in events if isinstance(event, Transition))


def later(accepted: Status, stored: Status) -> Status:
    """Return the one with the later identity; of equals `stored`."""
    mine = accepted.identity
    its = stored.identity
    if mine is None or (its is not None and its >= mine):
        return stored
    return accepted


def _without_older_requests(
    pending: tuple[Event, ...], events: tuple[Event, ...]
) -> tuple[Event, ...]:
    """Leave out requests that are made anew: only the newest of a doubt asks for anything."""
    doubts = {event.doubt for event in events if isinstance(event, CannotReach)}
    if not doubts:
        return pending
    kept = []
    for event in pending:
        if isinstance(event, Transition) or event.doubt not in doubts:
            kept.append(event)
    return tuple(kept)


def _is_within(event: Transition, stored: Status) -> bool:
    return stored.identity is not None and event.identity <= stored.identity


def _after(events: tuple[Event, ...], last: Transition) -> tuple[Event, ...]:
    position = events.index(last)
    return events[position + 1 :]
