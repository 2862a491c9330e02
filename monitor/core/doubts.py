"""Which databases that somebody could not reach still ask for another worker.

Pure; the leader alone imports this. Moments are seconds of the fleet's clock, and none that lies
in the future counts: that clock may be set back.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from monitor.core.assignment import Refusal
from monitor.core.cause import EVIDENCE, Cause, Evidence
from monitor.core.event import CannotReach, Transition
from monitor.core.placement import Place
from monitor.core.policy import Policy
from monitor.core.status import Identity, State
from monitor.core.timing import FAULTS_AGAIN, FAULTS_GRACE, MOVE_AGAIN, MOVES_WITHIN

MOVES_MOST = 3  # of one database at once within MOVES_WITHIN; more only in doubts that last


@dataclass(slots=True)
class _OpenDoubt:
    """A doubt that asks for another worker."""

    worker: str  # whose request came last
    doubt: Identity
    cause: Cause | None = None  # None: read from the hash, which does not tell
    since: float | None = None  # when the leader first weighed it
    needs_a_third: bool = False


@dataclass(frozen=True, slots=True)
class _Answer:
    """A refusal, and the doubt of the request that it answers."""

    refusal: Refusal
    doubt: Identity


class Doubts:
    """The open doubts by database, and the refusals that came of them."""

    def __init__(self, policy: Callable[[str], Policy]) -> None:
        self._policy = policy
        self._open: dict[str, _OpenDoubt] = {}
        self._answers: dict[tuple[str, str], _Answer] = {}  # by database and worker
        self._faults: dict[str, CannotReach] = {}  # of owners that are hindered themselves
        self._confirmed: dict[str, float] = {}  # when a database was found unavailable last

    def request(self, event: CannotReach) -> None:
        """Note a request for another worker; of two for one database the newer counts.

        A fault of the worker's own says nothing about the database: it adds nothing to a doubt.
        """
        if EVIDENCE[event.cause] is Evidence.OUR_FAULT:
            self._faults[event.database] = event
            return
        asked = _OpenDoubt(
            worker=event.worker,
            doubt=event.doubt,
            cause=event.cause,
            needs_a_third=event.third,
        )
        known = self._open.get(event.database)
        if known and known.doubt == asked.doubt:
            asked.since = known.since
        self._open[event.database] = asked

    def decided(self, transition: Transition) -> None:
        """Note that a state was reached: nobody needs to look for it any more."""
        if transition.target is not State.UNCERTAIN:
            self._open.pop(transition.database, None)
        if transition.target is State.UNAVAILABLE:
            self._confirmed[transition.database] = transition.at

    def review(self, places: Iterable[Place]) -> None:
        """Take up what the hashes say: a new leader has not had the requests of the old one."""
        for place in places:
            if place.state is not State.UNCERTAIN:
                # The hash may have been read after an event that the journal still keeps from us.
                self._open.pop(place.database, None)
            elif place.doubt and place.owner:
                self._open.setdefault(place.database, _OpenDoubt(place.owner, place.doubt))

    def answered_by_move(self, database: str, owner: str | None) -> Identity | None:
        """Return the open doubt that a move away from this owner answers, if it answers one."""
        asked = self._open.get(database)
        if asked is None:
            return None
        answer = self._answers.get((database, owner or ""))
        if answer and answer.refusal.our_fault:
            return None
        return asked.doubt

    def refusals(self, places: Mapping[str, Place], now: float) -> list[Refusal]:
        """Return who must not get what, by the requests of now and those of the last minute."""
        self._forget_outages(now)
        self._refuse_for_doubts(places, now)
        self._refuse_for_faults(places, now)
        self._drop_answers(places, now)
        return [answer.refusal for answer in self._answers.values()]

    def _forget_outages(self, now: float) -> None:
        for database, at in list(self._confirmed.items()):
            if not _is_recent(at, now):
                del self._confirmed[database]

    def _refuse_for_doubts(self, places: Mapping[str, Place], now: float) -> None:
        for database, asked in self._open.items():
            place = places.get(database)
            if place is None or place.owner != asked.worker:
                continue
            if self._may_move(place, asked, now):
                refusal = Refusal(database, asked.worker, now)
                self._answer(refusal, asked.doubt)

    def _refuse_for_faults(self, places: Mapping[str, Place], now: float) -> None:
        """Take a database from an owner that is hindered itself, whatever moves there were."""
        for database, event in self._faults.items():
            place = places.get(database)
            if place is None or place.owner != event.worker:
                continue
            refusal = Refusal(database, event.worker, now, our_fault=True)
            self._answer(refusal, event.doubt)
        self._faults.clear()

    def _answer(self, refusal: Refusal, doubt: Identity) -> None:
        key = refusal.database, refusal.worker
        self._answers[key] = _Answer(refusal, doubt)

    def _drop_answers(self, places: Mapping[str, Place], now: float) -> None:
        for key, answer in list(self._answers.items()):
            expired = not answer.refusal.counts(now)
            stands = not expired and self._stands(answer, places, now)
            if not stands:
                del self._answers[key]

    def _stands(self, answer: _Answer, places: Mapping[str, Place], now: float) -> bool:
        """Tell whether a refusal stands; against the present owner only in its doubt or fault."""
        refusal = answer.refusal
        place = places.get(refusal.database)
        is_owner = place is not None and place.owner == refusal.worker
        if not is_owner:
            return True
        if refusal.our_fault:
            lasts = FAULTS_AGAIN + FAULTS_GRACE
            return now - refusal.at < lasts
        asked = self._open.get(refusal.database)
        if asked is None:
            return False
        return asked.doubt == answer.doubt

    def _may_move(self, place: Place, asked: _OpenDoubt, now: float) -> bool:
        """Tell whether a doubt may move its database now.

        Not again while the former owner's finding counts (an absence does not beside a silence),
        and not more than three times in ten minutes. But a doubt that outlives its rule's wait
        needs its second observer: it may.
        """
        if asked.since is None or asked.since > now:
            asked.since = now
        recent = [at for at in place.moves if _is_recent(at, now)]
        moved_for_it = place.moved_for == asked.doubt and not asked.needs_a_third
        if recent and moved_for_it:
            since_then = now - max(recent)
            if since_then <= MOVE_AGAIN:
                return False
        confirmed = self._confirmed.get(place.database, 0.0)
        used = [at for at in recent if at > confirmed]
        if len(used) < MOVES_MOST:
            return True
        policy = self._policy(place.database)
        lasted = now - asked.since
        return lasted >= policy.seconds_required(asked.cause)


def _is_recent(at: float, now: float) -> bool:
    return 0 <= now - at < MOVES_WITHIN
