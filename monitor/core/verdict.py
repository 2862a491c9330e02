"""What the findings of workers prove about a database: the proof of each rule of the machine.

Only core/machine.py imports this (and the tests); it names Context and Opinion for everybody else.

In a doubt the newest finding of every other worker since the doubt began counts: as an earlier
owner's (a witness in the Status) or as that of a peer that was asked (an opinion in the Context).
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from monitor.core.cause import EVIDENCE, FULL, LOCKS, Cause, Evidence
from monitor.core.event import Finding
from monitor.core.observation import Observation
from monitor.core.policy import Policy
from monitor.core.status import (
    MAX_ROUNDS,
    MAX_TRIED,
    MAX_WITNESSES,
    Doubt,
    Epoch,
    Identity,
    State,
    Status,
    Witness,
    mark,
)

NEGATIVE = frozenset({Evidence.ABSENT, Evidence.SILENT})
NAMED_BY = {
    Cause.STARTING: State.STARTING,
    **dict.fromkeys(FULL, State.REFUSING),
    Cause.LOGIN_FAILING: State.REFUSING,
    **dict.fromkeys(LOCKS, State.LOCKED_OUT),
    Cause.SERVER_ERROR: State.REFUSING,  # whatever is the matter: it serves nobody
}  # login_not_proved is alive too, but names no state
ERRORS_MOST = 3  # server_errors without another answer of the server between

Findings = tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class Opinion:
    """A peer's completed feel, asked for in a doubt; in any other doubt it counts for nothing."""

    doubt: Identity
    worker: str
    sent_at: float
    at: float
    cause: Cause


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What a tick needs to know besides the Status: who ticks, and what the fleet knows."""

    worker: str
    epoch: Epoch
    policy: Policy
    eligible: int = 1  # workers that could watch it: live and not blind, this one included
    revision: int = 0  # of the address that was felt
    alone_since: float | None = None  # since when this worker has been the only eligible one
    opinions: tuple[Opinion, ...] = ()
    canaries_green: bool = True


class Subject:
    """One tick under way: what `transitions` moves through the table.

    An outdated observation counts as a fault of our own.
    """

    __slots__ = (
        "asked",
        "context",
        "doubt",
        "evidence",
        "observation",
        "others",
        "proof",
        "rule",
        "state",
        "status",
    )

    def __init__(self, status: Status, observation: Observation, context: Context) -> None:
        outdated = _is_outdated(status, observation, context.worker)
        self.status = status
        self.observation = observation
        self.context = context
        self.state: State = status.state
        self.evidence = Evidence.OUR_FAULT if outdated else observation.evidence
        self.rule = ""
        self.proof: Findings = ()
        self.doubt: Doubt | None = None
        self.others: Findings = ()  # the newest finding of each other worker in the doubt
        self.asked: frozenset[str] = frozenset()  # those of them that are peers
        if status.doubt:
            self._take_up(status.doubt)

    def _take_up(self, doubt: Doubt) -> None:
        context = self.context
        doubt = _of_this_address(doubt, context.revision)
        if self.evidence in NEGATIVE:
            doubt = add_witness(doubt, self.observation, context.worker)
        opinions = _of_this_doubt(context.opinions, doubt)
        self.doubt = doubt
        self.others = _newest_of_others(doubt, opinions, context.worker)
        self.asked = frozenset(opinion.worker for opinion in opinions)

    @property
    def own(self) -> Finding:
        """Return this observation as a finding; in a doubt, for all rounds of this worker."""
        seen, worker = self.observation, self.context.worker
        rounds = 1
        if self.doubt and self.evidence in NEGATIVE:
            rounds = _rounds(self.doubt, worker)
        return Finding(worker, seen.sent_at, seen.at, seen.cause, rounds, seen.detail)

    def confirming(self, seconds: float) -> Findings:
        """Return others' negatives that count beside this one under a rule that waits `seconds`.

        A peer is asked again and again, so what it found must be new. A former owner no longer
        probes: what it found last may be older by the rule's own wait, else a frozen server (it
        takes 10 s to prove) could stay uncertain for ever. This observation must have been sent
        after theirs ended: the owner has the last word. An absence confirms no silence: the server
        may be back by now, and out of this worker's reach alone.
        """
        policy, seen = self.context.policy, self.observation
        grace_of_peers = policy.deadline + policy.opinion_grace
        grace_of_owners = policy.handover_grace + seconds
        confirming = []
        for finding in self.others:
            grace = grace_of_peers if finding.worker in self.asked else grace_of_owners
            if finding.at > seen.sent_at or not is_negative(finding):
                continue
            if self.evidence is Evidence.SILENT and is_absent(finding):
                continue
            if elapsed(finding.at, seen.at) <= grace:
                confirming.append(finding)
        return tuple(confirming)

    def needs_a_third(self) -> bool:
        """Tell whether others found it absent that is silent for this worker, and no silence."""
        if self.evidence is not Evidence.SILENT:
            return False
        negatives = list(filter(is_negative, self.others))
        return bool(negatives) and all_absent(negatives)

    def is_contradicted(self) -> bool:
        """Tell whether another worker has reached the server since the doubt began."""
        return not all(map(is_negative, self.others))

    def are_enough(self, findings: Findings, rounds: int, seconds: float) -> bool:
        """Tell whether these negatives are many, the doubt is old enough, nothing contradicts."""
        assert self.doubt
        waited = elapsed(self.doubt.sent_at, self.observation.at)
        if waited < seconds or self.is_contradicted():
            return False
        return sum(finding.rounds for finding in findings) >= rounds

    def absent_for_long(self, findings: Findings) -> bool:
        """Tell whether all these are absents, many and for long, nothing else between.

        A silence before them counts for nothing: it is another kind of evidence, with a wait of
        its own.
        """
        assert self.doubt
        policy = self.context.policy
        since = self.doubt.absent_since
        if since is None or not all_absent(findings):
            return False
        if self.is_contradicted():
            return False
        if elapsed(since, self.observation.at) < policy.absent_seconds:
            return False
        of_peers = sum(finding.worker in self.asked for finding in findings)
        return self.doubt.absent_rounds + of_peers >= policy.absent_rounds


def elapsed(since: float, at: float) -> float:
    """Return the seconds between two moments to the millisecond: floats say 1.9999998 for 2."""
    return round(at - since, 3)


def is_negative(finding: Finding) -> bool:
    """Tell whether the server said nothing at all: any answer proves that it is not down."""
    return EVIDENCE[finding.cause] in NEGATIVE


def is_absent(finding: Finding) -> bool:
    """Tell whether the host answered this worker, and the service did not."""
    return EVIDENCE[finding.cause] is Evidence.ABSENT


def all_absent(findings: Iterable[Finding]) -> bool:
    """Tell whether the host answered every one of these workers, and the service none."""
    return all(map(is_absent, findings))


# The proof of a rule: the findings that fire it, none when it does not hold.


def observed(subject: Subject) -> Findings:
    """Prove what one observation proves."""
    return (subject.own,)


def confirm_absent(subject: Subject) -> Findings:
    """Prove by two workers that the host is there and the service is not."""
    others = subject.confirming(subject.context.policy.absent_seconds)
    findings = (subject.own, *others)
    if not others or not subject.absent_for_long(findings):
        return ()
    return findings


def confirm_silent(subject: Subject) -> Findings:
    """Prove by two workers that nothing answers, or by an absence after another's silence."""
    policy = subject.context.policy
    others = subject.confirming(policy.silent_seconds)
    findings = (subject.own, *others)
    if not others:
        return ()
    enough = subject.are_enough(findings, policy.silent_rounds, policy.silent_seconds)
    if not enough or confirm_absent(subject):
        return ()
    return findings


def single_observer(subject: Subject) -> Findings:
    """Prove by the only worker there is; the only proof that rests on what one worker found."""
    context, policy = subject.context, subject.context.policy
    if context.eligible != 1 or context.alone_since is None or not context.canaries_green:
        return ()
    if elapsed(context.alone_since, subject.observation.at) < policy.alone_seconds:
        return ()
    findings = (subject.own,)
    silent = subject.are_enough(findings, policy.silent_rounds, policy.silent_seconds)
    if not silent and not subject.absent_for_long(findings):
        return ()
    if confirm_absent(subject) or confirm_silent(subject):
        return ()
    return findings


def answered(subject: Subject) -> Findings:
    """Prove that the server speaks and lets nobody in: twice in a row, or once and to a peer too.

    An error that says nothing of logins must come three times: one may be the fault of a single
    statement.
    """
    if subject.observation.cause is Cause.SERVER_ERROR:
        enough = subject.status.errors + 1 >= ERRORS_MOST
        return (subject.own,) if enough else ()
    agreeing = _agreeing(subject)
    if not agreeing and not subject.status.alive:
        return ()
    return (subject.own, *agreeing)


def _agreeing(subject: Subject) -> list[Finding]:
    """Return what others found lately that names the same state."""
    seen, policy = subject.observation, subject.context.policy
    target = NAMED_BY.get(seen.cause)
    grace = policy.deadline + policy.opinion_grace
    agreeing = []
    for finding in subject.others:
        if finding.cause is Cause.SERVER_ERROR or NAMED_BY.get(finding.cause) is not target:
            continue
        if elapsed(finding.at, seen.at) <= grace:
            agreeing.append(finding)
    return agreeing


def recovered(subject: Subject) -> Findings:
    """Prove that the database is back to stay: some oks, some seconds apart."""
    policy, status, at = subject.context.policy, subject.status, subject.observation.at
    since = at if status.ok_since is None else status.ok_since
    many = status.ok_rounds + 1 >= policy.recovery_rounds
    if not many or elapsed(since, at) < policy.recovery_seconds:
        return ()
    return (subject.own,)


def _is_outdated(status: Status, observation: Observation, worker: str) -> bool:
    """Tell whether the Status knows something newer.

    Clocks are anchored anew, and a feel may be told twice.
    """
    if observation.at < max(status.since, status.ok_since or 0.0):
        return True
    doubt = status.doubt
    if doubt is None:
        return False
    if observation.sent_at < doubt.sent_at:
        return True
    for witness in doubt.witnesses:
        if witness.worker != worker:
            continue
        if observation.sent_at <= witness.sent_at or observation.at < witness.at:
            return True
    return False


def _of_this_address(doubt: Doubt, revision: int) -> Doubt:
    """Return the doubt without what was found at an address that the database no longer has."""
    if revision in (0, doubt.revision):
        return doubt
    if doubt.revision:
        doubt = without_findings(doubt)
    return replace(doubt, revision=revision)


def without_findings(doubt: Doubt) -> Doubt:
    """Return a doubt whose counting starts afresh at the next negative."""
    return replace(doubt, witnesses=(), absent_since=None, absent_rounds=0)


def add_witness(doubt: Doubt, observation: Observation, worker: str) -> Doubt:
    """Return the doubt with this worker's newest negative in it.

    The first one after proof of life dates the doubt anew.
    """
    doubt = _where_it_leads(doubt, observation)
    rounds = min(_rounds(doubt, worker) + 1, MAX_ROUNDS)
    own = Witness(worker, rounds, observation.sent_at, observation.at, observation.cause)
    others = [witness for witness in doubt.witnesses if witness.worker != worker]
    sent_at = doubt.sent_at if doubt.witnesses else observation.sent_at
    witnesses = (*others, own)[-MAX_WITNESSES:]
    absent_since, absent_rounds = _absents(doubt, observation)
    return replace(
        doubt,
        sent_at=sent_at,
        witnesses=witnesses,
        absent_since=absent_since,
        absent_rounds=absent_rounds,
    )


def _rounds(doubt: Doubt, worker: str) -> int:
    return sum(witness.rounds for witness in doubt.witnesses if witness.worker == worker)


def _absents(doubt: Doubt, observation: Observation) -> tuple[float | None, int]:
    """Return since when all findings have been absents, and how many they are, with this one."""
    if observation.evidence is not Evidence.ABSENT:
        return None, 0
    if doubt.absent_since is None:
        return observation.sent_at, 1
    return doubt.absent_since, min(doubt.absent_rounds + 1, MAX_ROUNDS)


def _where_it_leads(doubt: Doubt, observation: Observation) -> Doubt:
    """Return the doubt without what was found before an untried address came up.

    The name leads elsewhere, and nothing found where it led counts. An address that comes up again
    changes nothing: each observer may have an answer of its own for a name.
    """
    marks = map(mark, observation.tried)
    came_up = tuple(one for one in marks if one not in doubt.tried)
    if not came_up or len(doubt.tried) + len(came_up) > MAX_TRIED:
        return doubt
    tried = doubt.tried + came_up
    if doubt.tried:
        doubt = without_findings(doubt)
    return replace(doubt, tried=tried)


def _newest_of_others(doubt: Doubt, opinions: Iterable[Opinion], worker: str) -> Findings:
    """Return the newest finding of every worker but this one.

    `rounds` counts its negatives since it was last positive. A cause that only a newer version
    knows neither proves nor hinders.
    """
    newest: dict[str, Finding] = {}
    for one in doubt.witnesses:
        newest[one.worker] = Finding(one.worker, one.sent_at, one.at, one.cause, one.rounds)
    for opinion in opinions:
        known = newest.get(opinion.worker)
        if known and opinion.at <= known.at:
            continue  # the same answer again, or older than what it found as the owner
        finding = Finding(opinion.worker, opinion.sent_at, opinion.at, opinion.cause)
        if known and is_negative(known) and is_negative(finding):
            finding = replace(finding, rounds=known.rounds + 1)
        newest[opinion.worker] = finding
    newest.pop(worker, None)
    findings = newest.values()
    return tuple(one for one in findings if EVIDENCE[one.cause] is not Evidence.OUR_FAULT)


def _of_this_doubt(opinions: Iterable[Opinion], doubt: Doubt) -> list[Opinion]:
    """Return the opinions that speak of this doubt, the oldest first."""
    speaking = []
    for opinion in opinions:
        if opinion.doubt != doubt.identity or opinion.sent_at < doubt.sent_at:
            continue
        if EVIDENCE[opinion.cause] is not Evidence.OUR_FAULT:
            speaking.append(opinion)
    return sorted(speaking, key=lambda opinion: opinion.at)
