"""The state machine: TRANSITIONS says what may change a state, `tick` applies it to an observation.

Pure: the observation's own time is the clock, so a recorded tape replays to the same end, under
another policy too. Anyone may import this; nothing else imports `transitions`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from transitions import EventData, Machine

from monitor.core import verdict
from monitor.core.cause import EVIDENCE, Cause, Evidence
from monitor.core.event import CannotReach, Event, Transition
from monitor.core.observation import Observation
from monitor.core.status import MAX_UNREACHABLE_FROM, Doubt, Identity, State, Status
from monitor.core.timing import ASK_A_THIRD, ASK_AGAIN, CLOCK_STEP, MOVE_AGAIN
from monitor.core.verdict import NAMED_BY, NEGATIVE, Context, Opinion, Subject, elapsed

__all__ = [
    "STEADY",
    "TRANSITIONS",
    "Context",
    "Opinion",
    "Rule",
    "diagram",
    "tick",
]


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of the table. With several targets the cause of the observation names the one."""

    name: str
    sources: tuple[State, ...]
    targets: tuple[State, ...]  # none: the state stays
    evidence: frozenset[Evidence]
    when: str
    proof: Callable[[Subject], verdict.Findings] = verdict.observed

    def target(self, cause: Cause) -> State | None:
        """Return where this cause leads, None when nowhere."""
        if len(self.targets) == 1:
            return self.targets[0]
        named = NAMED_BY.get(cause)
        return named if named in self.targets else None


_NEW, _AVAILABLE = (State.NEW,), (State.AVAILABLE,)
_UNCERTAIN, _UNAVAILABLE = (State.UNCERTAIN,), (State.UNAVAILABLE,)
_TALKING = (State.STARTING, State.REFUSING, State.LOCKED_OUT)
_ALL = tuple(State)
_OK = frozenset({Evidence.OK})
_ALIVE = frozenset({Evidence.ALIVE})
_ABSENT = frozenset({Evidence.ABSENT})

TRANSITIONS: tuple[Rule, ...] = (
    Rule("first_ok", _NEW, _AVAILABLE, _OK, "the first ok"),
    Rule(
        "doubt", (*_NEW, *_AVAILABLE, *_TALKING), _UNCERTAIN, NEGATIVE,
        "the first absent or silent; another worker is asked for",
    ),
    Rule(
        "false_alarm", _UNCERTAIN, _AVAILABLE, _OK,
        "ok, sent after the doubt began and after this worker's own negatives",
    ),
    Rule(
        "confirm_absent", _UNCERTAIN, _UNAVAILABLE, _ABSENT,
        "2 workers find it absent, 2 rounds and 2 s of nothing else; nobody reached it",
        verdict.confirm_absent,
    ),
    Rule(
        "confirm_silent", _UNCERTAIN, _UNAVAILABLE, NEGATIVE,
        "2 workers find it silent, or the last absent and others silent; 3 rounds, 10 s after the "
        "first failed probe; nobody reached it",
        verdict.confirm_silent,
    ),
    Rule(
        "single_observer", _UNCERTAIN, _UNAVAILABLE, NEGATIVE,
        "the same by one worker: the only eligible one for 30 s, a leader at work, "
        "its canaries green",
        verdict.single_observer,
    ),
    # Leaves `new` too: whoever typed a wrong password must be told locked_out, not new.
    Rule(
        "answered", _ALL, _TALKING, _ALIVE,
        "the server spoke twice in a row, once and to a peer too, or erred three times; "
        "the newest names the state",
        verdict.answered,
    ),
    Rule(
        "recovered", _UNAVAILABLE, _AVAILABLE, _OK,
        "2 ok at least 2 s apart, nothing else between",
        verdict.recovered,
    ),
    Rule("reopened", _TALKING, _AVAILABLE, _OK, "ok"),
)  # fmt: skip
STEADY = Rule("steady", _ALL, (), frozenset(Evidence), "everything else; our own fault always")


def _wire(rule: Rule, target: State | None) -> dict[str, object]:
    """Return the rule, on its way to one of its targets, as `transitions` takes it."""

    def holds(event: EventData) -> bool:
        subject = event.model
        assert isinstance(subject, Subject)
        if subject.evidence not in rule.evidence:
            return False
        fits = rule.target(subject.observation.cause) is target
        return fits and bool(rule.proof(subject))

    def fired(event: EventData) -> None:
        subject = event.model
        assert isinstance(subject, Subject)
        subject.rule = rule.name
        subject.proof = rule.proof(subject)

    return {
        "trigger": "tick",
        "source": [state for state in rule.sources if state is not target],
        "dest": target,
        "conditions": [holds] if target else None,
        "before": fired,
    }


def _machine() -> Machine:
    """Wire one machine for all databases and threads.

    A machine for each database would cost 85 us a tick, and add_model scans a list.
    """
    wires = [_wire(rule, target) for rule in TRANSITIONS for target in rule.targets]
    wires.append(_wire(STEADY, None))  # last: what nothing else took
    return Machine(
        model=None,
        states=State,
        initial=State.NEW,
        transitions=wires,
        auto_transitions=False,
        send_event=True,
    )


def _can_move(state: State, cause: Cause) -> bool:
    for rule in TRANSITIONS:
        if state not in rule.sources or EVIDENCE[cause] not in rule.evidence:
            continue
        if rule.target(cause) not in (None, state):
            return True
    return False


MACHINE = _machine()
# The guard: causes that move no database out of this state. A look at it costs a fraction of
# firing the machine.
CANNOT_MOVE = {
    state: frozenset(cause for cause in Cause if not _can_move(state, cause)) for state in State
}


def is_quiet(status: Status, observation: Observation) -> bool:
    """Tell without the machine that nothing can change: no rule in reach, nothing pending."""
    return (
        observation.cause in CANNOT_MOVE[status.state]
        and status.doubt is None
        and status.alive is None
        and not status.errors
        and not status.ok_rounds
        and not status.unreachable_from
    )


def tick(
    status: Status, observation: Observation, context: Context
) -> tuple[Status, tuple[Event, ...]]:
    """Return what to believe after this observation and what to tell of it.

    Where nothing changed the Status is the same object.
    """
    quiet = is_quiet(status, observation)
    newest = status.since if quiet else _newest(status)
    if observation.at < newest - CLOCK_STEP:
        status = _redated(status, observation.at)
    if quiet:
        return status, ()
    subject = Subject(status, observation, context)
    MACHINE.events["tick"].trigger(subject)
    return _stayed(subject) if subject.rule == STEADY.name else _moved(subject)


def _newest(status: Status) -> float:
    """Return the newest moment a Status knows of."""
    newest = max(status.since, status.ok_since or 0.0, status.unreachable_at)
    doubt = status.doubt
    if doubt is None:
        return newest
    newest = max(newest, doubt.sent_at, doubt.asked_at)
    for witness in doubt.witnesses:
        newest = max(newest, witness.sent_at, witness.at)
    return newest


def _redated(status: Status, now: float) -> Status:
    """Return the status on a clock that was set back: no moment in the future counts.

    Else all observations would look outdated until the clock catches up.
    """
    recovering = status.ok_since is not None and status.ok_since <= now
    return replace(
        status,
        since=min(status.since, now),
        doubt=_redated_doubt(status.doubt, now) if status.doubt else None,
        ok_since=status.ok_since if recovering else None,
        ok_rounds=status.ok_rounds if recovering else 0,
        unreachable_at=min(status.unreachable_at, now),
    )


def _redated_doubt(doubt: Doubt, now: float) -> Doubt:
    witnesses = [one for one in doubt.witnesses if max(one.sent_at, one.at) <= now]
    past = replace(
        doubt,
        sent_at=min(doubt.sent_at, now),
        asked_at=min(doubt.asked_at, now),
        witnesses=tuple(witnesses),
    )
    if past.absent_since is not None and past.absent_since > now:
        past = replace(past, absent_since=None, absent_rounds=0)
    return past


def _moved(subject: Subject) -> tuple[Status, tuple[Event, ...]]:
    """Return the Status after a rule that fired, the transition, and a request for a witness."""
    seen = subject.observation
    transition = _transition(subject)
    events: tuple[Event, ...] = (transition,)
    doubt = None
    if subject.state is State.UNCERTAIN:
        doubt = _opened(transition.identity, subject)
        events = (transition, _request(transition.identity, subject))
    unreachable_from, unreachable_at = _unreachable_from(subject)
    moved = Status(
        subject.state,
        seen.at,
        transition.identity,
        subject.rule,
        doubt,
        unreachable_from=unreachable_from,
        unreachable_at=unreachable_at,
    )
    return moved, events


def _transition(subject: Subject) -> Transition:
    seen, context = subject.observation, subject.context
    last = subject.status.identity
    n = last.n + 1 if last and last.epoch == context.epoch else 1
    observers = {finding.worker for finding in subject.proof}
    return Transition(
        seen.database,
        Identity(context.epoch, n),
        last,
        source=subject.status.state,
        target=subject.state,
        rule=subject.rule,
        at=seen.at,
        worker=context.worker,
        observers=tuple(sorted(observers)),
        evidence=subject.proof,
    )


def _opened(identity: Identity, subject: Subject) -> Doubt:
    seen, context = subject.observation, subject.context
    doubt = Doubt(identity, seen.sent_at, seen.at, (), revision=context.revision)
    return verdict.add_witness(doubt, seen, context.worker)


def _request(doubt: Identity, subject: Subject) -> CannotReach:
    seen, worker = subject.observation, subject.context.worker
    third = subject.needs_a_third()
    return CannotReach(seen.database, doubt, worker, seen.at, seen.cause, third)


def _stayed(subject: Subject) -> tuple[Status, tuple[Event, ...]]:
    """Keep the books of a state that holds: a doubt's rounds, the first ok, the first answer."""
    status, seen, evidence = subject.status, subject.observation, subject.evidence
    if evidence is Evidence.OUR_FAULT:
        return status, ()
    doubt = subject.doubt
    requests: tuple[Event, ...] = ()
    if doubt and evidence is Evidence.ALIVE:
        doubt = verdict.without_findings(doubt)  # the server spoke
    if doubt and evidence in NEGATIVE and _must_ask_again(doubt, subject):
        doubt = replace(doubt, asked_at=seen.at)
        requests = (_request(doubt.identity, subject),)
    ok_since, ok_rounds = _recovery(subject)
    unreachable_from, unreachable_at = _unreachable_from(subject)
    kept = replace(
        status,
        doubt=doubt,
        ok_since=ok_since,
        ok_rounds=ok_rounds,
        alive=_sign_of_life(subject),
        errors=_errors(subject),
        unreachable_from=unreachable_from,
        unreachable_at=unreachable_at,
    )
    return (status if kept == status else kept), requests


def _recovery(subject: Subject) -> tuple[float | None, int]:
    """Return since when it has been ok again, and how often in a row."""
    status = subject.status
    if subject.evidence is not Evidence.OK or status.state is not State.UNAVAILABLE:
        return None, 0
    since = subject.observation.at if status.ok_since is None else status.ok_since
    return since, status.ok_rounds + 1


def _sign_of_life(subject: Subject) -> Cause | None:
    """Return the one answer that a second one may confirm.

    What a login was told, the kept session cannot take back.
    """
    status, seen = subject.status, subject.observation
    if not seen.fresh_login and seen.cause in (Cause.OK, Cause.LOGIN_NOT_PROVED):
        return status.alive
    named = NAMED_BY.get(seen.cause)
    if seen.cause is Cause.SERVER_ERROR or named in (None, status.state):
        return None
    return seen.cause


def _errors(subject: Subject) -> int:
    """Return the server_errors in a row.

    A negative in a doubt does not end the row: what errs and falls silent in turn must not stay
    uncertain for ever.
    """
    status = subject.status
    if subject.observation.cause is Cause.SERVER_ERROR:
        return 0 if status.state is State.REFUSING else status.errors + 1
    return status.errors if subject.doubt and subject.evidence in NEGATIVE else 0


def _must_ask_again(doubt: Doubt, subject: Subject) -> bool:
    """Tell whether a doubt would dead-end: nobody else's finding helps, and somebody could look.

    A third worker is asked for more often, until the doubt has lasted so long that none comes.
    """
    context, policy, now = subject.context, subject.context.policy, subject.observation.at
    is_young = elapsed(doubt.sent_at, now) < policy.silent_seconds + MOVE_AGAIN
    pause = ASK_A_THIRD if is_young and subject.needs_a_third() else ASK_AGAIN
    if elapsed(doubt.asked_at, now) < pause or context.eligible <= 1:
        return False
    absent = verdict.all_absent((subject.own, *subject.others))
    seconds = policy.absent_seconds if absent else policy.silent_seconds
    return not subject.confirming(seconds)


def _unreachable_from(subject: Subject) -> tuple[tuple[str, ...], float]:
    """Return who cannot reach it though its owner can, and since when.

    After a false alarm these are new ones, else the old ones for a while.
    """
    status, seen, context = subject.status, subject.observation, subject.context
    if subject.state is State.UNAVAILABLE:
        return (), 0.0
    if subject.rule == "false_alarm":
        negatives = filter(verdict.is_negative, subject.others)
        newest = sorted(negatives, key=lambda finding: -finding.at)[:MAX_UNREACHABLE_FROM]
        if newest:
            return tuple(finding.worker for finding in newest), seen.at
    if not status.unreachable_from:
        return (), 0.0
    if elapsed(status.unreachable_at, seen.at) >= context.policy.unreachable_from_seconds:
        return (), 0.0
    reached = context.worker if subject.evidence is Evidence.OK else None
    still = tuple(worker for worker in status.unreachable_from if worker != reached)
    return still, status.unreachable_at if still else 0.0


def diagram() -> str:
    """Return the table as a Mermaid flowchart, one line for each rule.

    A rule with several targets leads to a choice that bears its name.
    """
    lines = ["flowchart LR", "    begin(( )) --> new"]
    for rule in TRANSITIONS:
        sources, targets = " & ".join(rule.sources), " & ".join(rule.targets)
        if len(rule.targets) == 1:
            lines.append(f"    {sources} -- {rule.name} --> {targets}")
            continue
        choice = f"choice{{{rule.name}}}"
        lines.append(f"    {sources} --> {choice}")
        lines.append(f"    choice --> {targets}")
    return "\n".join(lines)
