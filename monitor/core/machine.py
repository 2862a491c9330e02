"""The state machine: TRANSITIONS says what may change a database's state, `tick` applies it to one
observation.

Pure: the observation's own time is the clock, so a recorded tape replays to the same end, under
another policy too. Anyone may import this; nothing else imports `transitions`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from transitions import EventData, Machine

from monitor.core import verdict
from monitor.core.cause import EVIDENCE, Cause, Evidence
from monitor.core.event import CannotReach, Event, Seen, Transition
from monitor.core.observation import Observation
from monitor.core.policy import Policy
from monitor.core.status import MAX_UNREACHABLE_FROM, Doubt, Identity, State, Status
from monitor.core.timing import ASK_AGAIN, CLOCK_STEP
from monitor.core.verdict import NAMED_BY, NEGATIVE, Context, Opinion, Subject, elapsed

__all__ = [
    "STEADY",
    "TRANSITIONS",
    "Context",
    "Opinion",
    "Rule",
    "cadence",
    "diagram",
    "tick",
    "wants_login",
]


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of the table. With several targets the cause of the observation names the one."""

    name: str
    sources: tuple[State, ...]
    targets: tuple[State, ...]  # none: the state stays
    evidence: frozenset[Evidence]
    when: str
    proof: Callable[[Subject], tuple[Seen, ...]] = verdict.observed

    def target(self, cause: Cause) -> State | None:
        """Return where this cause leads, None when nowhere."""
        if len(self.targets) == 1:
            return self.targets[0]
        return named if (named := NAMED_BY.get(cause)) in self.targets else None


_N, _A, _U, _D = (State.NEW,), (State.AVAILABLE,), (State.UNCERTAIN,), (State.UNAVAILABLE,)
_TALKING = (State.STARTING, State.REFUSING, State.LOCKED_OUT)
_ALL = tuple(State)
_OK, _ALIVE, _ABSENT = (
    frozenset({Evidence.OK}),
    frozenset({Evidence.ALIVE}),
    frozenset({Evidence.ABSENT}),
)

TRANSITIONS: tuple[Rule, ...] = (
    Rule("first_ok", _N, _A, _OK, "the first ok"),
    Rule("doubt", (*_N, *_A, *_TALKING), _U, NEGATIVE, "the first absent or silent; another worker is asked for"),
    Rule("false_alarm", _U, _A, _OK, "ok, sent after the doubt began and after this worker's own negatives"),
    Rule(
        "confirm_absent", _U, _D, _ABSENT,
        "2 workers find it absent, 2 rounds and 2 s of nothing else; nobody reached it",
        verdict.confirm_absent,
    ),
    Rule(
        "confirm_silent", _U, _D, NEGATIVE,
        "2 workers find it absent or silent, 3 rounds, 10 s after the first failed probe; nobody reached it",
        verdict.confirm_silent,
    ),
    Rule(
        "single_observer", _U, _D, NEGATIVE,
        "the same on one worker's word: the only eligible one for 30 s, where a leader is at work, its canaries green",
        verdict.single_observer,
    ),
    # Leaves `new` too: whoever typed a wrong password must be told locked_out, not new.
    Rule(
        "answered", _ALL, _TALKING, _ALIVE,
        "the server spoke twice in a row, or once and a peer heard the same, or erred three times; the newest word "
        "names the state",
        verdict.answered,
    ),
    Rule("recovered", _D, _A, _OK, "2 ok at least 2 s apart, nothing else between", verdict.recovered),
    Rule("reopened", _TALKING, _A, _OK, "ok"),
)  # fmt: skip
STEADY = Rule("steady", _ALL, (), frozenset(Evidence), "everything else; void always")


def _wire(rule: Rule, target: State | None) -> dict[str, object]:
    """Return the rule, on its way to one of its targets, as `transitions` takes it."""

    def holds(event: EventData) -> bool:
        subject = event.model
        assert isinstance(subject, Subject)
        fits = (
            subject.evidence in rule.evidence and rule.target(subject.observation.cause) is target
        )
        return fits and bool(rule.proof(subject))

    def fired(event: EventData) -> None:
        subject = event.model
        assert isinstance(subject, Subject)
        subject.rule, subject.proof = rule.name, rule.proof(subject)

    sources = [state for state in rule.sources if state is not target]
    conditions = [holds] if target else None
    return {
        "trigger": "tick",
        "source": sources,
        "dest": target,
        "conditions": conditions,
        "before": fired,
    }


def _machine() -> Machine:
    # One for all databases and threads: a Machine per database costs 85 us a tick, and add_model
    # scans a list.
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
    return any(
        state in rule.sources
        and EVIDENCE[cause] in rule.evidence
        and rule.target(cause) not in (None, state)
        for rule in TRANSITIONS
    )


MACHINE = _machine()
# The guard: causes that can move no database out of this state. A look costs a fraction of firing
# the machine.
QUIET = {
    state: frozenset(cause for cause in Cause if not _can_move(state, cause)) for state in State
}


def is_quiet(status: Status, observation: Observation) -> bool:
    """Tell, without the machine, that nothing can change: no rule is in reach and nothing is
    pending.
    """
    return (
        observation.cause in QUIET[status.state]
        and status.doubt is None
        and status.alive is None
        and not status.errors
        and not status.ok_rounds
        and not status.unreachable_from
    )


def tick(
    status: Status, observation: Observation, context: Context
) -> tuple[Status, tuple[Event, ...]]:
    """Return what to believe after this observation and what to tell of it; the same Status when
    nothing changed.
    """
    quiet = is_quiet(status, observation)
    if observation.at < (status.since if quiet else _newest(status)) - CLOCK_STEP:
        status = _redated(status, observation.at)
    if quiet:
        return status, ()
    subject = Subject(status, observation, context)
    MACHINE.events["tick"].trigger(subject)
    return _stayed(subject) if subject.rule == STEADY.name else _moved(subject)


def _newest(status: Status) -> float:
    """Return the newest moment a Status knows of."""
    doubt = status.doubt
    asked = (
        (
            doubt.sent_at,
            doubt.asked_at,
            *(max(witness.sent_at, witness.at) for witness in doubt.witnesses),
        )
        if doubt
        else ()
    )
    return max(status.since, status.ok_since or 0.0, status.unreachable_at, *asked)


def _redated(status: Status, now: float) -> Status:
    """Return the status on a clock that was set back: no moment in the future counts.

    Else all observations would look outdated until the clock catches up.
    """
    doubt = status.doubt
    if doubt:
        witnesses = tuple(
            witness for witness in doubt.witnesses if max(witness.sent_at, witness.at) <= now
        )
        sent_at, asked_at = min(doubt.sent_at, now), min(doubt.asked_at, now)
        doubt = replace(doubt, sent_at=sent_at, asked_at=asked_at, witnesses=witnesses)
        if doubt.absent_since is not None and doubt.absent_since > now:
            doubt = replace(doubt, absent_since=None, absent_rounds=0)
    recovering = status.ok_since is not None and status.ok_since <= now
    return replace(
        status,
        since=min(status.since, now),
        doubt=doubt,
        ok_since=status.ok_since if recovering else None,
        ok_rounds=status.ok_rounds if recovering else 0,
        unreachable_at=min(status.unreachable_at, now),
    )


def _moved(subject: Subject) -> tuple[Status, tuple[Event, ...]]:
    status, seen, context = subject.status, subject.observation, subject.context
    last = status.identity
    identity = Identity(context.epoch, last.n + 1 if last and last.epoch == context.epoch else 1)
    doubt = None
    cries: tuple[Event, ...] = ()
    if subject.state is State.UNCERTAIN:
        opened = Doubt(identity, seen.sent_at, seen.at, (), revision=context.revision)
        doubt = verdict.hear(opened, seen, context.worker)
        cries = (CannotReach(seen.database, identity, context.worker, seen.at, seen.cause),)
    transition = Transition(
        seen.database,
        identity,
        last,
        source=status.state,
        target=subject.state,
        rule=subject.rule,
        at=seen.at,
        worker=context.worker,
        observers=tuple(sorted({word.worker for word in subject.proof})),
        evidence=subject.proof,
    )
    unreachable_from, unreachable_at = _unreachable_from(subject)
    moved = Status(
        subject.state,
        seen.at,
        identity,
        subject.rule,
        doubt,
        unreachable_from=unreachable_from,
        unreachable_at=unreachable_at,
    )
    return moved, (transition, *cries)


def _stayed(subject: Subject) -> tuple[Status, tuple[Event, ...]]:
    """Keep the books of a state that holds: rounds of a doubt, the first ok of a recovery, the
    first sign of life.
    """
    status, seen, evidence = subject.status, subject.observation, subject.evidence
    if evidence is Evidence.OUR_FAULT:
        return status, ()
    doubt = subject.doubt
    if doubt and evidence is Evidence.ALIVE:
        doubt = verdict.unheard(doubt)  # the server spoke
    cries: tuple[Event, ...] = ()
    if doubt and evidence in NEGATIVE and _must_ask_again(subject):
        doubt = replace(doubt, asked_at=seen.at)
        cries = (
            CannotReach(seen.database, doubt.identity, subject.context.worker, seen.at, seen.cause),
        )
    recovering = evidence is Evidence.OK and status.state is State.UNAVAILABLE
    unreachable_from, unreachable_at = _unreachable_from(subject)
    kept = replace(
        status,
        doubt=doubt,
        ok_since=(seen.at if status.ok_since is None else status.ok_since) if recovering else None,
        ok_rounds=status.ok_rounds + 1 if recovering else 0,
        alive=_sign_of_life(subject),
        errors=_errors(subject),
        unreachable_from=unreachable_from,
        unreachable_at=unreachable_at,
    )
    return (status if kept == status else kept), cries


def _sign_of_life(subject: Subject) -> Cause | None:
    """Return the one word that a second one may confirm. What a login said, the kept session cannot
    take back.
    """
    status, seen = subject.status, subject.observation
    if not seen.fresh_login and seen.cause in (Cause.OK, Cause.LOGIN_NOT_PROVED):
        return status.alive
    unnamed = (None, status.state)
    return (
        seen.cause
        if seen.cause is not Cause.SERVER_ERROR and NAMED_BY.get(seen.cause) not in unnamed
        else None
    )


def _errors(subject: Subject) -> int:
    """Return the server_errors in a row. A negative in a doubt does not end the row: what errs and
    falls silent in turn must not stay uncertain for ever."""
    status = subject.status
    if subject.observation.cause is Cause.SERVER_ERROR:
        return 0 if status.state is State.REFUSING else status.errors + 1
    return status.errors if subject.doubt and subject.evidence in NEGATIVE else 0


def _must_ask_again(subject: Subject) -> bool:
    """Tell whether a doubt would dead-end: nobody else's word can confirm it, and somebody else
    could look.
    """
    assert subject.doubt
    policy = subject.context.policy
    absent = verdict.all_absent((subject.own, *subject.others))
    others = subject.counted(policy.absent_seconds if absent else policy.silent_seconds)
    waited = elapsed(subject.doubt.asked_at, subject.observation.at) >= ASK_AGAIN
    return waited and not others and subject.context.eligible > 1


def _unreachable_from(subject: Subject) -> tuple[tuple[str, ...], float]:
    """Return who cannot reach it though its owner can: new ones after a false alarm, else the old
    ones for a while.
    """
    status, seen, context = subject.status, subject.observation, subject.context
    if subject.state is State.UNAVAILABLE:
        return (), 0.0
    if subject.rule == "false_alarm":
        negatives = sorted(filter(verdict.is_negative, subject.others), key=lambda word: -word.at)
        if negatives:
            return tuple(word.worker for word in negatives[:MAX_UNREACHABLE_FROM]), seen.at
    if (
        not status.unreachable_from
        or elapsed(status.unreachable_at, seen.at) >= context.policy.unreachable_from_seconds
    ):
        return (), 0.0
    reached = context.worker if subject.evidence is Evidence.OK else None
    unreachable_from = tuple(worker for worker in status.unreachable_from if worker != reached)
    return unreachable_from, status.unreachable_at if unreachable_from else 0.0


def cadence(status: Status, policy: Policy, now: float) -> float:
    """Return the seconds until the next beat: fast while a question is open or an outage is
    young.
    """
    if status.state is State.UNCERTAIN or status.alive or status.errors:
        return policy.fast_interval
    if status.state in (State.NEW, State.AVAILABLE):
        return policy.interval
    return policy.fast_interval if now - status.since < policy.fast_seconds else policy.bad_interval


def wants_login(status: Status) -> bool:
    """Tell whether each beat needs a fresh login: a failed one is undecided, or both signals must
    lead back.

    A recovery under way began with a login; its session has only to last. Logins beside it wait for
    their turn, and the databases of a large server would hinder one another's recovery for ever.
    """
    if status.alive is not None:
        return True
    return status.state is not State.AVAILABLE and not status.ok_rounds


def diagram() -> str:
    """Return the table as a Mermaid state diagram; a rule with several targets passes a choice of
    its own name.
    """
    lines = ["stateDiagram-v2", "    [*] --> new"]
    edges: dict[tuple[str, str], list[str]] = {}
    for rule in TRANSITIONS:
        middle = rule.name if len(rule.targets) > 1 else ""
        if middle:
            lines.insert(1, f"    state {middle} <<choice>>")
        for source in rule.sources:
            edges.setdefault((source, middle or rule.targets[0]), []).append(rule.name)
        for target in rule.targets if middle else ():
            edges.setdefault((middle, target), []).append(f"the newest word says {target}")
    lines += [
        f"    {source} --> {target}: {', '.join(names)}"
        for (source, target), names in edges.items()
    ]
    return "\n".join(lines)
