"""What one worker holds of its databases, and what Redis's answers do to it. Pure; no clock.

The worker's side of the fencing protocol, each decision once; workers/worker/recorder.py carries
it out. What is held of a database is

- tentative: felt and ticked here; people see nothing of it;
- pending: its events that Redis has not accepted yet, sent with every beat until it does;
- accepted: the last Status that Redis is known to have had;
- retained: an accepted transition that is not durable yet, replayed if Redis loses its journal;
- released: the last accepted Status of a database given up, kept for a while to be restored.

Workers import this, and the tests that put it against the real scripts.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum, auto

from monitor.core.beat import Beat, Reply
from monitor.core.event import Transition
from monitor.core.generation import Generation, Signature
from monitor.core.holding import Holding, later, transitions
from monitor.core.observation import Observation
from monitor.core.status import Epoch, Key, Status
from monitor.core.timing import RELEASED_KEPT

RETAINED_MOST = 100_000  # transitions of one worker; the oldest go first


@dataclass(frozen=True, slots=True)
class Released:
    """The last accepted Status of a database that was given up, kept until `until`."""

    status: Status
    epoch: Epoch
    until: float  # monotonic seconds


class Following(Enum):
    """What to do about the generation that a look found."""

    RESTORE = auto()  # it is closed: hand in what we hold, record nothing
    STAY = auto()  # it is ours
    END = auto()  # it is older than one we have entered: whoever leads must open another
    ENTER = auto()  # it is new: restore, replay, then `enter`


class Custody:
    """All that one worker holds. Times are seconds of a clock that nobody sets."""

    def __init__(self) -> None:
        self.holdings: dict[str, Holding] = {}
        self.generation = ""  # the one we record in; "" while none is open: feel on, send nothing
        self.opened = Epoch(0, 0)  # the leader's epoch of the newest generation entered
        self.term = 0  # the highest seen: part of a restore, so that the leader goes above it
        self.signature = Signature()  # whose the Redis is that we follow
        # Into the closed generation of now: Redis may show a report of an earlier closing, which
        # came late.
        self.restored = False
        self._released: dict[str, Released] = {}
        self._retained: dict[Key, Transition] = {}
        self._found: list[Transition] = []
        self._waiting: tuple[Key, ...] = ()

    @property
    def unjudged(self) -> int:
        """Return how many observations could change nothing, since too much waits for Redis."""
        return sum(holding.unjudged for holding in self.holdings.values())

    # --- databases come and go --------------------------------------------------------------------

    def must_learn(self, database: str) -> bool:
        """Tell whether nothing may be said of a database before `learn`."""
        holding = self.holdings.get(database)
        return holding is None or holding.stopped

    def learn(self, database: str, epoch: Epoch, stored: Status) -> tuple[Transition, ...]:
        """Take a database, or a new epoch of it; return what proves to have been accepted."""
        holding = self.holdings.get(database)
        if holding is None:
            kept = self._released.pop(database, None)
            accepted = kept.status if kept else stored
            holding = Holding(database, epoch, accepted)
            self.holdings[database] = holding
        elif holding.epoch == epoch and not holding.stopped:
            return ()  # we know more than the hash
        found = holding.learn(epoch, stored)
        self.term = max(self.term, epoch.term)
        return self._find(found)

    def release(self, database: str, stored: Status | None, now: float) -> tuple[Transition, ...]:
        """Give a database up, for what the hash holds of it; return what proves accepted by it."""
        holding = self.holdings.pop(database, None)
        if holding is None:
            return ()
        found = () if stored is None else holding.learn(holding.epoch, stored)
        until = now + RELEASED_KEPT
        released = Released(holding.accepted, holding.epoch, until)
        self._released[database] = released
        return self._find(found)

    def stop(self) -> None:
        """Say nothing more of any database before `learn`: another process may own them by now."""
        for holding in self.holdings.values():
            holding.stopped = True

    # --- beats and their replies ------------------------------------------------------------------

    def beat(self, observation: Observation) -> Beat | None:
        """Return what to record of this observation; None where we may say nothing."""
        holding = self.holdings.get(observation.database)
        if holding is None or holding.stopped:
            return None
        return holding.beat(observation)

    def apply_reply(self, beat: Beat, reply: Reply) -> tuple[Transition, ...]:
        """Do what Redis answered to `beat`; return the transitions that are accepted by it."""
        if reply is Reply.ACCEPTED:
            return self._accept(beat)
        if reply is Reply.CLOSED:
            self.generation = ""
        elif reply is Reply.TWIN:
            self.stop()  # who goes by our id has all our epochs
        elif holding := self._held(beat):
            holding.stopped = True  # fenced, or the hash knows better
        return ()

    def _held(self, beat: Beat) -> Holding | None:
        """Return what the beat was of, unless it was given up or has a new epoch meanwhile."""
        holding = self.holdings.get(beat.database)
        if holding and holding.epoch == beat.epoch:
            return holding
        return None

    def _accept(self, beat: Beat) -> tuple[Transition, ...]:
        if holding := self._held(beat):
            return self._retain(holding.accept(beat))
        # Given up while the beat was under way: nobody else retains its transitions, and what is
        # restored must not be older than they are.
        database = beat.database
        kept = self._released.get(database)
        if kept and kept.epoch == beat.epoch:
            status = later(kept.status, beat.status)
            self._released[database] = replace(kept, status=status)
        return self._retain(transitions(beat.events))

    # --- generations ------------------------------------------------------------------------------

    def follow(self, seen: Generation) -> Following:
        """Judge the generation that a look found."""
        self._sign(seen)
        opened = seen.epoch
        if opened is None:
            self.generation = ""
            return Following.RESTORE
        if seen.name == self.generation:
            return Following.STAY
        if opened >= self.opened:
            return Following.ENTER
        # A server that was left behind, or all that was newer is lost but to us.
        return Following.END

    def _sign(self, seen: Generation) -> None:
        """Remember whose the Redis is: a take-over is obeyed, and whoever has opened a generation.

        Of two with equally many take-overs the one that opened it is right.
        """
        found = seen.signature
        known = self.signature
        as_many = found.takeovers == known.takeovers
        opener = seen.open and found.registry and as_many
        if found > known or opener:
            self.signature = found

    def enter(self, seen: Generation) -> None:
        """Record in this generation: what we hold is restored, what we retain is replayed."""
        opened = seen.epoch
        assert opened, "it was open when it was seen"
        self.generation = seen.name
        self.opened = opened
        self.restored = False
        # Who owned nothing has seen the term here alone, and restores it too: else it would wait
        # for ever for a leader that never comes up to it.
        self.term = max(self.term, opened.term)

    def restorable(self) -> Mapping[str, tuple[Status, Epoch]]:
        """Return what to restore: per database the last accepted Status, and our last epoch."""
        kept = {}
        for name, released in self._released.items():
            kept[name] = released.status, released.epoch
        for name, holding in self.holdings.items():
            kept[name] = holding.accepted, holding.epoch
        return kept

    # --- what is accepted and not durable yet -----------------------------------------------------

    @property
    def retained(self) -> Mapping[Key, Transition]:
        """Return the accepted transitions that are not known to be durable, oldest first."""
        return self._retained

    @property
    def found(self) -> tuple[Transition, ...]:
        """Return what a hash showed to be accepted; the journal may have lost it: replay it."""
        return tuple(self._found)

    def replayed(self, found: Collection[Transition]) -> None:
        """Note that these are in the journal; others may have been found meanwhile."""
        done = set(found)
        self._found = [one for one in self._found if one not in done]

    def forget_durable(self, keys: Iterable[Key]) -> None:
        """Drop what Postgres holds, each by its identity: a later one may become durable first."""
        for key in keys:
            self._retained.pop(key, None)

    def repeat(self) -> list[Transition]:
        """Return what is retained since the last call, to be replayed once more.

        Its entry was trimmed by force, or its mark of being durable has expired.
        """
        waiting = []
        for key in self._waiting:
            if transition := self._retained.get(key):
                waiting.append(transition)
        self._waiting = tuple(self._retained)
        return waiting

    def expire(self, now: float) -> tuple[Transition, ...]:
        """Drop what was released long ago, and what is retained too much; return the latter."""
        known = tuple(self._released.items())
        for database, kept in known:
            if kept.until <= now:
                del self._released[database]
        dropped = []
        while len(self._retained) > RETAINED_MOST:
            oldest = next(iter(self._retained))
            transition = self._retained.pop(oldest)
            dropped.append(transition)
        return tuple(dropped)

    def _find(self, found: tuple[Transition, ...]) -> tuple[Transition, ...]:
        self._found += found
        return self._retain(found)

    def _retain(self, accepted: tuple[Transition, ...]) -> tuple[Transition, ...]:
        """Keep these until they are durable; return those that are new."""
        news = []
        for transition in accepted:
            key = (transition.database, transition.identity)
            if key not in self._retained:
                news.append(transition)
            self._retained[key] = transition
        return tuple(news)
