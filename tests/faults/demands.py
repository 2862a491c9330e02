"""What the injected faults demand: which negatives are true, which transitions may follow, which
must.

The truth about a database is its faults; all judging of states goes by it. Pure; only tests/faults
imports this.
"""

import itertools
import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from monitor.core.cause import EVIDENCE, Evidence
from monitor.core.event import Finding, Transition
from monitor.core.machine import TRANSITIONS
from monitor.core.status import Identity, State
from monitor.core.verdict import NEGATIVE
from tests.faults.observed import Effect, Fault, History

Key = tuple[str, Identity]

DOWN = frozenset({Effect.ABSENT, Effect.SILENT})
SEEN_DOWN = DOWN | {Effect.EITHER}
TRUTH = SEEN_DOWN | {Effect.SPEAKS, Effect.HIDDEN}  # what may change a state
TROUBLE = TRUTH | {Effect.UNWATCHED}
OURS = frozenset({Effect.KILLED, Effect.FROZEN, Effect.FORGOT, Effect.AWAY})
RULES = {rule.name: rule for rule in TRANSITIONS}


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How exactly faults are noted and how soon feeler must see them; all in seconds."""

    before: float = 1.0  # a fault may work so long before its `began`
    deadline: float = 2.0  # of a probe
    late: float = 0.5  # a probe may end so long after its deadline
    verdict: float = 3.0  # `unavailable` may be said so long after the end
    absent: float = 12.0  # an absent server must be unavailable by then ...
    silent: float = 22.0  # ... a silent one by then
    allowance: float = (
        20.0  # more for each fault of ours that overlaps, besides the time it overlaps
    )
    # what stays dead overlaps so long: 6 s until missed, 30 s until `single_observer`, less
    # the allowance
    takeover: float = 16.0
    settled: float = 30.0  # all is well again so long after a fault
    quiet: float = (
        30.0  # `single_observer`: no other worker may have recorded anything for so long ...
    )
    peers: float = 5.0  # ... but of one that has just come it may not know yet
    taken_up: float = 10.0  # what the registry was told is known to the workers by then
    drain: float = 3.0  # from accepted to durable while nothing of ours is hurt
    replay: float = 5.0  # from the opening of a generation to the last replayed transition
    reopened: float = 0.5  # looks at sights and at the generation differ by so much
    reread: float = (
        0.5  # workers read Redis's clock anew; a slow answer may set theirs back by so much
    )
    change: float = 10.0  # around a change of owner two workers may hold connections
    stall: float = 0.25
    ahead: float = 0.0  # the fleet's clock may have been ahead by so much
    thaw: float = 1.0  # after it a worker may still count the time it was frozen


STANDARD = Bounds()


@dataclass(frozen=True, slots=True)
class Violation:
    """One broken promise."""

    invariant: str
    about: str  # a database, a party or a place
    text: str

    def __str__(self) -> str:
        return f"{self.invariant}: {self.about}: {self.text}"


# --- the truth ------------------------------------------------------------------------------------


def end(fault: Fault) -> float:
    """Return when a fault ended; infinity where it lasted to the end of the run."""
    return math.inf if fault.ended is None else fault.ended


def reaches(
    fault: Fault, since: float, until: float, *, before: float = 0.0, after: float = 0.0
) -> bool:
    """Tell whether a fault, widened on both sides, overlaps a stretch of time."""
    return fault.began - before <= until and since <= end(fault) + after


def truth(history: History, database: str, effects: Iterable[Effect] = TROUBLE) -> list[Fault]:
    """Return the faults of a database with one of these effects, by time."""
    wanted = frozenset(effects)
    its = (fault for fault in history.faults if database in fault.databases)
    return sorted((one for one in its if one.effect in wanted), key=lambda fault: fault.began)


def ours(history: History, bounds: Bounds) -> list[Fault]:
    """Return the faults of our own parts; what stays dead counts until it was replaced."""

    def ended(fault: Fault) -> Fault:
        stays = fault.effect is Effect.KILLED and fault.ended is None
        return replace(fault, ended=fault.began + bounds.takeover) if stays else fault

    return [ended(fault) for fault in history.faults if fault.effect in OURS]


def allowance(history: History, since: float, until: float, bounds: Bounds) -> float:
    """Return the seconds that faults of our own parts may cost between two moments."""
    after, faults = bounds.allowance, ours(history, bounds)
    touching = [fault for fault in faults if reaches(fault, since, until, after=after)]
    overlaps = (max(0.0, min(end(fault), until) - max(fault.began, since)) for fault in touching)
    return sum(overlaps) + bounds.allowance * len(touching)


def is_negative(seen: Finding) -> bool:
    """Tell whether this piece of evidence says that nothing came back."""
    return EVIDENCE[seen.cause] in NEGATIVE


def is_true(
    history: History, database: str, seen: Finding, effects: Iterable[Effect], bounds: Bounds
) -> bool:
    """Tell whether a piece of evidence lies in a moment when this worker could not but see it."""
    slack = {"before": bounds.before, "after": bounds.deadline + bounds.late + bounds.ahead}
    faults = truth(history, database, effects)
    met = (one for one in faults if one.effect is not Effect.HIDDEN or seen.worker in one.parties)
    return any(reaches(fault, seen.sent_at, seen.at, **slack) for fault in met)


def told(history: History) -> dict[Key, list[Transition]]:
    """Return every transition durable or seen in the journal; differing contents stay apart."""
    found: dict[Key, list[Transition]] = {}
    durable = (row.transition for rows in history.rows.values() for row in rows)
    for one in (*durable, *(entry.transition for entry in history.journal)):
        contents = found.setdefault((one.database, one.identity), [])
        if one not in contents:
            contents.append(one)
    return found


def chain_of(history: History, database: str) -> list[Transition]:
    """Return the durable transitions of a database, by version, superseded ones left out."""
    rows = [row for row in history.rows.get(database, []) if not row.superseded]
    return [
        row.transition
        for row in sorted(rows, key=lambda row: (row.version or 0, row.transition.identity))
    ]


def databases_of(history: History) -> list[str]:
    """Return every database of the history."""
    return sorted({*history.rows, *history.cache, *history.sights, *history.ports})


# --- no false unavailable -------------------------------------------------------------------------


def no_false_unavailable(history: History, bounds: Bounds = STANDARD) -> Iterator[Violation]:
    """Demand that the database was down for all whose word an `unavailable` rests on."""
    known = told(history)
    for (database, identity), contents in known.items():
        for one in contents:
            if one.target is State.UNAVAILABLE:
                for text in _faults_of_verdict(history, one, bounds):
                    yield Violation(
                        "no_false_unavailable", database, f"{identity} ({one.rule}): {text}"
                    )
    for database in databases_of(history):
        yield from _false_sights(history, database, known, bounds)


def _faults_of_verdict(history: History, verdict: Transition, bounds: Bounds) -> Iterator[str]:
    database = verdict.database
    if not _is_down(history, database, verdict.at, bounds):
        yield f"said at {verdict.at:.3f}, when it was not down"
    for seen in verdict.evidence:
        if not is_negative(seen):
            yield f"rests on {seen.cause} by {seen.worker}"
        elif not is_true(history, database, seen, SEEN_DOWN | {Effect.HIDDEN}, bounds):
            yield (
                f"{seen.cause} by {seen.worker} at {seen.sent_at:.3f}..{seen.at:.3f}, when it "
                f"could be reached"
            )
    if not any(is_true(history, database, seen, SEEN_DOWN, bounds) for seen in verdict.evidence):
        yield "no observer looked while it was down for everybody"
    yield from _faults_of_observers(history, verdict, bounds)


def _faults_of_observers(history: History, verdict: Transition, bounds: Bounds) -> Iterator[str]:
    workers = {seen.worker for seen in verdict.evidence}
    if workers != set(verdict.observers):
        yield f"observers {sorted(verdict.observers)} but evidence of {sorted(workers)}"
    if verdict.rule != "single_observer":
        if len(workers) < 2:
            yield f"observed by {sorted(workers)} only"
        return
    since = verdict.at - bounds.quiet + bounds.deadline
    others = {
        sight.fields.get("seen_by", "")
        for sights in history.sights.values()
        for sight in sights
        if since < float(sight.fields.get("observed_at", 0)) < verdict.at - bounds.peers
    } - workers
    if others:
        yield f"on one worker's word, while {sorted(others)} recorded too"


def _false_sights(
    history: History, database: str, known: Mapping[Key, list[Transition]], bounds: Bounds
) -> Iterator[Violation]:
    """Judge states that were seen but that no known transition led to."""
    its = {identity: all_ for (name, identity), all_ in known.items() if name == database}
    judged = {str(identity) for identity, all_ in its.items() if any(map(_says_down, all_))}
    for sight in history.sights.get(database, []):
        identity = sight.fields.get("identity", "")
        if sight.fields.get("state") != State.UNAVAILABLE or identity in judged:
            continue
        judged.add(identity)
        if not _is_down(history, database, sight.at, bounds):
            text = f"seen unavailable at {sight.at:.3f} under {identity!r}, when it was not down"
            yield Violation("no_false_unavailable", database, text)


def _says_down(transition: Transition) -> bool:
    return transition.target is State.UNAVAILABLE


def _is_down(history: History, database: str, at: float, bounds: Bounds) -> bool:
    faults = truth(history, database, SEEN_DOWN)
    slack = {"before": bounds.before, "after": bounds.verdict}
    return any(reaches(fault, at, at, **slack) for fault in faults)


# --- rules ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Step:
    """A place in the order of rules an episode may show: one of `rules`, or any number of them."""

    rules: frozenset[str]
    many: bool = False


def _one(*rules: str) -> Step:
    return Step(frozenset(rules))


def _any(*rules: str) -> Step:
    return Step(frozenset(rules), many=True)


# Every step may be missing: what must not be missing is demanded by `_overdue`, what cannot follow
# by the table.
OUTAGE = (
    _one("answered"),  # the server may still say that it shuts down
    _one("doubt"),
    _one("confirm_absent", "confirm_silent", "single_observer"),
    _any("answered"),  # on its way up
    _one("false_alarm", "recovered", "reopened"),
)
DOUBTED = (_any("doubt", "false_alarm"),)
TALK = (_one("doubt"), _any("answered", "reopened", "false_alarm"))
DOUBTED_TALK = (_any("doubt", "false_alarm", "answered", "reopened"),)


@dataclass(slots=True)
class Episode:
    """Faults of one database too close to be told apart, up to when all must be well again."""

    faults: list[Fault]
    settled: float = 0.0
    transitions: list[Transition] = field(default_factory=list)

    @property
    def began(self) -> float:
        return self.faults[0].began


def episodes(history: History, database: str, bounds: Bounds) -> list[Episode]:
    """Return the episodes of a database, by time."""
    found: list[Episode] = []
    for fault in truth(history, database):
        if not found or fault.began - bounds.before > found[-1].settled:
            found.append(Episode([]))
        found[-1].faults.append(fault)
        found[-1].settled = max(found[-1].settled, _settled(history, fault, bounds))
    return found


def _settled(history: History, fault: Fault, bounds: Bounds) -> float:
    ended = end(fault)
    return ended if math.isinf(ended) else put_off(history, ended, bounds.settled, bounds)


def put_off(history: History, since: float, within: float, bounds: Bounds) -> float:
    """Return when something must be done; faults of ours put it off while they come."""
    moment = 0.0
    reached = since + within
    while moment < reached and moment <= history.ended:
        moment, reached = reached, since + within + allowance(history, since, reached, bounds)
    return moment


def rules(
    history: History, bounds: Bounds = STANDARD, lost: Mapping[Key, str] | None = None
) -> Iterator[Violation]:
    """Demand that states change as the table and the faults allow, as soon as they demand."""
    gaps = {database for database, _ in lost or {}}
    for database in databases_of(history):
        chain = chain_of(history, database)
        texts = [*_illegal(chain), *_doubts_for_nothing(history, chain, bounds)]
        texts += _misplaced(history, chain, bounds)
        if database not in gaps:
            parts = episodes(history, database, bounds)
            texts += [*_strange(chain, parts, bounds), *_overdue(history, database, chain, bounds)]
            texts += [*_unsettled(history, chain, parts)]
        texts += _unwell(history, database, bounds)
        yield from (Violation("rules", database, text) for text in texts)


def _illegal(chain: list[Transition]) -> Iterator[str]:
    """Name transitions the table does not have."""
    for one in chain:
        rule = RULES.get(one.rule)
        if (
            rule is None
            or one.source not in rule.sources
            or one.target not in rule.targets
            or one.source is one.target
        ):
            yield f"{one.identity}: {one.rule} does not lead from {one.source} to {one.target}"
        elif not one.evidence or EVIDENCE[one.evidence[0].cause] not in rule.evidence:
            yield f"{one.identity}: {one.rule} on {[seen.cause.value for seen in one.evidence]}"


def _doubts_for_nothing(history: History, chain: list[Transition], bounds: Bounds) -> Iterator[str]:
    for one in chain:
        if one.rule == "doubt" and not all(
            is_true(history, one.database, s, TRUTH, bounds) for s in one.evidence
        ):
            causes = [
                f"{seen.cause} by {seen.worker} at {seen.sent_at:.3f}..{seen.at:.3f}"
                for seen in one.evidence
            ]
            yield f"{one.identity}: doubt on {causes}, when it could be reached"


def _misplaced(history: History, chain: list[Transition], bounds: Bounds) -> Iterator[str]:
    """Name oks of a server that was down all the while: then its fault was noted wrongly."""
    for one in chain:
        for seen in one.evidence:
            if EVIDENCE[seen.cause] is Evidence.OK and any(
                fault.began + bounds.before < seen.sent_at and seen.at < end(fault) - bounds.before
                for fault in truth(history, one.database, DOWN)
            ):
                yield f"{one.identity}: {one.rule} at {seen.at:.3f}, when it was down"


def _strange(chain: list[Transition], parts: list[Episode], bounds: Bounds) -> Iterator[str]:
    """Name transitions no fault explains: outside episodes, or not in their order."""
    for i, one in enumerate(chain):
        since, until = one.at + bounds.before, one.at - bounds.ahead
        home = next((part for part in parts if part.began <= since and until <= part.settled), None)
        if i == 0 and one.rule == "first_ok":
            continue
        if home is None:
            yield f"{one.identity}: {one.rule} at {one.at:.3f}, when nothing was wrong with it"
        else:
            home.transitions.append(one)
    for part in parts:
        if stranger := _stranger(part):
            order = " ".join(one.rule for one in part.transitions)
            faults = ", ".join(
                f"{fault.name} ({fault.effect}) {fault.began:.1f}..{end(fault):.1f}"
                for fault in part.faults
            )
            yield f"{stranger.identity}: {stranger.rule} does not belong into {order!r} of {faults}"


def _stranger(episode: Episode) -> Transition | None:
    """Return the first transition without a place: taking the first that fits is best."""
    steps = _steps(episode)
    place = 0
    for one in episode.transitions:
        fits = (i for i in range(place, len(steps)) if one.rule in steps[i].rules)
        found = next(fits, None)
        if found is None:
            return one
        place = found if steps[found].many else found + 1
    return None


def _steps(episode: Episode) -> list[Step]:
    """Return what may happen from one beginning or end of a fault to the next."""
    moments = {moment for fault in episode.faults for moment in (fault.began, end(fault))}
    instants = [(fault.began, fault.began) for fault in episode.faults if fault.began == end(fault)]
    ever_hidden = any(fault.effect is Effect.HIDDEN for fault in episode.faults)
    steps: list[Step] = []
    was_down = False
    for since, until in sorted([*itertools.pairwise(sorted(moments)), *instants]):
        effects = {
            fault.effect for fault in episode.faults if fault.began <= since and until <= end(fault)
        }
        is_down = bool(effects & DOWN)
        if not (is_down and was_down):
            steps += _shape(effects)
        if ever_hidden:
            steps += DOUBTED  # the move it led to may come to light later
        was_down = is_down
    return steps


def _shape(effects: Collection[Effect]) -> tuple[Step, ...]:
    if SEEN_DOWN.intersection(effects):
        return OUTAGE
    if Effect.SPEAKS in effects:
        return DOUBTED_TALK if Effect.HIDDEN in effects else TALK
    return DOUBTED if effects else ()


def _stretches(
    history: History, database: str, bounds: Bounds
) -> Iterator[tuple[float, float, float]]:
    """Yield when the database was down for all without a break, and how long unnoticed."""
    known_since = next((s.at for s in history.sights.get(database, []) if s.fields), history.began)
    since = until = patience = -math.inf
    for fault in truth(history, database, DOWN):
        wanted = bounds.silent if fault.effect is Effect.SILENT else bounds.absent
        if fault.began - until <= bounds.before:
            until, patience = max(until, end(fault)), max(patience, wanted)
            continue
        if until > since:
            yield since, until, patience
        since, until, patience = max(fault.began, known_since), end(fault), wanted
    if until > since:
        yield since, until, patience


class Outage(NamedTuple):
    """A stretch in which a database was down for everybody, longer than it may go unnoticed."""

    database: str
    since: float
    until: float
    due: float  # it must be called unavailable by then


def outages(history: History, bounds: Bounds = STANDARD) -> list[Outage]:
    """Return the outages that had to be called in time: not short, not behind our faults."""
    parts = (_outages(history, database, bounds) for database in databases_of(history))
    return [outage for some in parts for outage in some]


def _outages(history: History, database: str, bounds: Bounds) -> Iterator[Outage]:
    for since, until, patience in _stretches(history, database, bounds):
        stop = min(until, history.ended)
        due = _due(history, since, stop, patience, bounds)
        if due <= stop:
            yield Outage(database, since, stop, due)


def _due(history: History, since: float, until: float, patience: float, bounds: Bounds) -> float:
    """Return when an outage must be known; only earlier faults of ours may put it off."""
    due, reached = since, since + patience
    while due < reached <= until:
        due, reached = reached, since + patience + allowance(history, since, reached, bounds)
    return reached


def _overdue(
    history: History, database: str, chain: list[Transition], bounds: Bounds
) -> Iterator[str]:
    for outage in _outages(history, database, bounds):
        if (state := state_at(chain, outage.due)) is not State.UNAVAILABLE:
            patience, seconds = outage.due - outage.since, outage.until - outage.since
            yield (
                f"{state} at {outage.due:.3f}, {patience:.1f} s after it went down for "
                f"{seconds:.1f} s"
            )


def state_at(chain: list[Transition], moment: float) -> State:
    """Return the state a database was in at a moment."""
    return next((one.target for one in reversed(chain) if one.at <= moment), State.NEW)


def _unsettled(history: History, chain: list[Transition], parts: list[Episode]) -> Iterator[str]:
    for part in parts:
        if (
            part.settled <= history.ended
            and (state := state_at(chain, part.settled)) is not State.AVAILABLE
        ):
            ended = max(map(end, part.faults))
            yield (
                f"{state} at {part.settled:.3f}, {part.settled - ended:.1f} s after the end of "
                f"{part.faults[-1].name}"
            )


def _unwell(history: History, database: str, bounds: Bounds) -> Iterator[str]:
    """Demand that what nothing has been wrong with for long is available in the cache."""
    begun = next(
        (sight.at for sight in history.sights.get(database, []) if sight.fields), history.began
    )
    faults = [*truth(history, database), *ours(history, bounds)]
    quiet_since = max([history.began, begun, *map(end, faults)])
    state = history.cache.get(database, {}).get("state", "missing")
    if history.ended - quiet_since >= bounds.settled and state != State.AVAILABLE:
        yield f"{state} in the cache, {history.ended - quiet_since:.1f} s after the last fault"
