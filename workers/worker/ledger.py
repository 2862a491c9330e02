"""What one worker may say of one database: tentative until Redis accepted it. No I/O; only workers/
imports this.

The steps are the protocol's: `observe` (tick on the tentative Status), `accept` (record said yes),
`stop` (record said no: feel on, say nothing), `learn` (a new epoch, or a hash that knows better).
"""

from dataclasses import dataclass, field

from monitor.core.beat import Beat
from monitor.core.custody import Voids, hear
from monitor.core.event import CannotReach, Event, Transition
from monitor.core.machine import Context, tick
from monitor.core.observation import Observation
from monitor.core.status import Epoch, Identity, Status

# events of one database that wait for a Redis that is away: 0.7 MB, hours of the wildest flapping
PENDING_MOST = 1_000


@dataclass(slots=True)
class Ledger:
    """The Status Redis is known to hold, the events it has not accepted yet, and the Status after
    them.
    """

    database: str
    epoch: Epoch
    accepted: Status
    pending: tuple[Event, ...] = ()
    tentative: Status = field(default_factory=Status)
    stopped: bool = False
    unjudged: int = 0  # observations that could change nothing: too much waits for Redis already
    voids: Voids = field(default_factory=Voids)

    def __post_init__(self) -> None:
        if not self.pending:
            self.tentative = self.accepted

    def observe(self, observation: Observation, context: Context) -> Beat | None:
        """Tick on the tentative Status; return what to record, or None while stopped."""
        if self.stopped:
            return None
        if len(self.pending) >= PENDING_MOST:
            self.unjudged += (
                1  # starting over would give its identities, accepted or not, to other transitions
            )
        else:
            self.tentative, events = tick(self.tentative, observation, context)
            events += self._give_up(observation, context.worker)
            self.pending = _without_older_cries(self.pending, events) + events
        return Beat(self.database, self.epoch, self.tentative, observation, self.pending)

    def _give_up(self, observation: Observation, worker: str) -> tuple[Event, ...]:
        """Return a cry where this worker has long found nothing but its own faults; it names the
        last transition.
        """
        self.voids, due = hear(self.voids, observation)
        last = self.tentative.identity or Identity(self.epoch, 0)
        return (
            (CannotReach(self.database, last, worker, observation.at, observation.cause),)
            if due
            else ()
        )

    def accept(self, beat: Beat) -> tuple[Transition, ...]:
        """Note that Redis holds `beat`; return the transitions that became true by it."""
        if beat.epoch != self.epoch:
            return ()
        done = set(beat.events)
        news = tuple(
            event for event in self.pending if event in done and isinstance(event, Transition)
        )
        self.pending = tuple(event for event in self.pending if event not in done)
        self.accepted = beat.status
        return news

    def stop(self) -> None:
        """Say nothing more until `learn`: the epoch is not ours, or the hash knows better."""
        self.stopped = True

    def learn(self, epoch: Epoch, stored: Status) -> tuple[Transition, ...]:
        """Go on under `epoch` from what Redis holds; return transitions that turn out to have been
        accepted.

        A pending event whose reply was lost is found in the hash; one that still builds on the hash
        is carried over under its old identity; anything else was overtaken by another owner and is
        dropped. A hash that is older than what was accepted takes nothing back: it was read before
        our last beat, or has lost its memory.
        """
        if _is_later(self.accepted.identity, stored.identity):
            stored = self.accepted  # the next beat brings the hash up
        known = tuple(event for event in self.pending if isinstance(event, Transition))
        self.epoch, self.stopped, self.voids = epoch, False, Voids()
        held = [event for event in known if stored.identity and event.identity <= stored.identity]
        if held and held[-1].identity == stored.identity:
            rest = _after(self.pending, held[-1].identity)
            self._take(stored, rest)
            return tuple(held)
        builds = bool(known) and known[0].prev == stored.identity
        self._take(stored, self.pending if builds else ())
        return ()

    def _take(self, stored: Status, pending: tuple[Event, ...]) -> None:
        self.accepted, self.pending = stored, pending
        if not any(isinstance(event, Transition) for event in pending):
            self.tentative, self.pending = stored, ()


def _without_older_cries(
    pending: tuple[Event, ...], events: tuple[Event, ...]
) -> tuple[Event, ...]:
    """Leave out cries for another worker that are said anew: only the newest of a doubt asks for
    anything.
    """
    doubts = {event.doubt for event in events if isinstance(event, CannotReach)}
    if not doubts:
        return pending
    return tuple(
        one for one in pending if not isinstance(one, CannotReach) or one.doubt not in doubts
    )


def _is_later(one: Identity | None, other: Identity | None) -> bool:
    return one is not None and (other is None or one > other)


def _after(events: tuple[Event, ...], identity: Identity) -> tuple[Event, ...]:
    position = [
        i
        for i, event in enumerate(events)
        if isinstance(event, Transition) and event.identity == identity
    ]
    return events[position[-1] + 1 :]
