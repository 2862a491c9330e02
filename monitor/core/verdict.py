"""What the words of workers prove about a database: one tick under way and the proof of each rule
of the machine.

Only core/machine.py imports this (and the tests); Context and Opinion are named by it for everybody
else.

In a doubt the word of every other worker is the newest thing it said since the doubt began: as an
earlier owner (a witness in the Status) or as a peer that was asked (an opinion in the Context).
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from monitor.core.cause import EVIDENCE, FULL, LOCKS, Cause, Evidence
from monitor.core.event import Seen
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
ERRORS_MOST = 3  # server_errors without another word of the server between


@dataclass(frozen=True, slots=True)
class Opinion:
    """A peer's completed feel, asked for in a doubt; in any other doubt it is void."""

    doubt: Identity
    worker: str
    round: int
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
    """One tick under way: what `transitions` moves through the table. An outdated observation
    counts as void.
    """

    __slots__ = (
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
        self.state: State = status.state
        self.status, self.observation, self.context = status, observation, context
        self.evidence = Evidence.OUR_FAULT if outdated else observation.evidence
        self.doubt = _of_this_address(status.doubt, context.revision) if status.doubt else None
        if self.doubt and self.evidence in NEGATIVE:
            self.doubt = hear(self.doubt, observation, context.worker)
        self.others = _words_of_others(self.doubt, context) if self.doubt else ()
        self.rule = ""
        self.proof: tuple[Seen, ...] = ()

    @property
    def own(self) -> Seen:
        """Return this observation as evidence; in a doubt it stands for all this worker's
        rounds.
        """
        seen, worker = self.observation, self.context.worker
        witnesses = self.doubt.witnesses if self.doubt and self.evidence in NEGATIVE else ()
        rounds = sum(witness.rounds for witness in witnesses if witness.worker == worker) or 1
        return Seen(worker, seen.sent_at, seen.at, seen.cause, rounds, seen.detail)

    def counted(self, seconds: float) -> tuple[Seen, ...]:
        """Return the negatives of others that may count beside this observation under a rule with
        this patience.

        A peer is asked again and again, so its word must be new. A former owner no longer probes:
        its last word may be older by the rule's own patience, else a frozen server (it takes 10 s
        to prove) could stay uncertain for ever. The observation must have been sent after it: the
        last word is the owner's.
        """
        assert self.doubt
        peers = {opinion.worker for opinion in _opinions(self.doubt, self.context)}
        seen, policy = self.observation, self.context.policy

        def counts(word: Seen) -> bool:
            grace = (
                policy.deadline + policy.opinion_grace
                if word.worker in peers
                else policy.handover_grace + seconds
            )
            return (
                word.at <= seen.sent_at and elapsed(word.at, seen.at) <= grace and is_negative(word)
            )

        return tuple(word for word in self.others if counts(word))

    def suffices(self, words: tuple[Seen, ...], rounds: int, seconds: float) -> bool:
        """Tell whether these negatives are many and old enough, and nobody else reached the server
        since.
        """
        assert self.doubt
        patient = elapsed(self.doubt.sent_at, self.observation.at) >= seconds
        return (
            patient
            and sum(word.rounds for word in words) >= rounds
            and all(map(is_negative, self.others))
        )

    def absent_for_long(self, words: tuple[Seen, ...]) -> bool:
        """Tell whether all these words are absents, many and for long, nothing else between; nobody
        else reached it.

        A silence before them counts for nothing: it is another kind of evidence, with a patience of
        its own.
        """
        assert self.doubt
        policy, since = self.context.policy, self.doubt.absent_since
        asked = {opinion.worker for opinion in _opinions(self.doubt, self.context)}
        rounds = self.doubt.absent_rounds + sum(word.worker in asked for word in words)
        patient = since is not None and elapsed(since, self.observation.at) >= policy.absent_seconds
        return (
            patient
            and rounds >= policy.absent_rounds
            and all_absent(words)
            and all(map(is_negative, self.others))
        )


def elapsed(since: float, at: float) -> float:
    """Return the seconds between two moments: two milliseconds-exact floats differ by 1.9999998
    where 2 is meant.
    """
    return round(at - since, 3)


def is_negative(word: Seen) -> bool:
    """Tell whether this worker got no word from the server: any word at all proves that it is not
    down.
    """
    return EVIDENCE[word.cause] in NEGATIVE


def all_absent(words: Iterable[Seen]) -> bool:
    """Tell whether the host answered every one of these workers, and the service none."""
    return all(EVIDENCE[word.cause] is Evidence.ABSENT for word in words)


def patience(policy: Policy, cause: Cause | None) -> float:
    """Return the seconds that the rule for negatives of this kind waits; the longer where the kind
    is not known.
    """
    return (
        policy.absent_seconds
        if cause and EVIDENCE[cause] is Evidence.ABSENT
        else policy.silent_seconds
    )


# The proof of a rule: the evidence that fires it, empty when it does not hold.


def observed(subject: Subject) -> tuple[Seen, ...]:
    """Prove what one observation proves."""
    return (subject.own,)


def confirm_absent(subject: Subject) -> tuple[Seen, ...]:
    """Prove by two workers that the host is there and the service is not."""
    policy = subject.context.policy
    others = subject.counted(policy.absent_seconds)
    words = (subject.own, *others)
    return words if others and subject.absent_for_long(words) else ()


def confirm_silent(subject: Subject) -> tuple[Seen, ...]:
    """Prove by two workers that nothing answers, or a mix; by absent ones too when the quicker rule
    came too late.
    """
    policy = subject.context.policy
    others = subject.counted(policy.silent_seconds)
    words = (subject.own, *others)
    agreed = others and subject.suffices(words, policy.silent_rounds, policy.silent_seconds)
    return words if agreed and not confirm_absent(subject) else ()


def single_observer(subject: Subject) -> tuple[Seen, ...]:
    """Prove by the only worker there is; the only proof that rests on one worker's word."""
    context, policy, word = subject.context, subject.context.policy, subject.own
    if context.eligible != 1 or context.alone_since is None or not context.canaries_green:
        return ()
    unbroken = elapsed(context.alone_since, subject.observation.at) >= policy.alone_seconds
    silent = subject.suffices((word,), policy.silent_rounds, policy.silent_seconds)
    agreed = unbroken and (silent or subject.absent_for_long((word,)))
    return (word,) if agreed and not confirm_absent(subject) and not confirm_silent(subject) else ()


def answered(subject: Subject) -> tuple[Seen, ...]:
    """Prove that the server speaks and does not let us in: twice in a row, or once with a peer's
    agreement.

    An error that says nothing of logins must come three times: one may be the fault of a single
    statement.
    """
    if subject.observation.cause is Cause.SERVER_ERROR:
        return (subject.own,) if subject.status.errors + 1 >= ERRORS_MOST else ()
    target, policy = NAMED_BY.get(subject.observation.cause), subject.context.policy

    def agrees(word: Seen) -> bool:
        age = elapsed(word.at, subject.observation.at)
        return (
            word.cause is not Cause.SERVER_ERROR
            and NAMED_BY.get(word.cause) is target
            and age <= policy.deadline + policy.opinion_grace
        )

    agreeing = tuple(word for word in subject.others if agrees(word))
    return (subject.own, *agreeing) if agreeing or subject.status.alive else ()


def recovered(subject: Subject) -> tuple[Seen, ...]:
    """Prove that the database is back to stay: some oks, some seconds apart."""
    policy, at = subject.context.policy, subject.observation.at
    since = at if subject.status.ok_since is None else subject.status.ok_since
    enough = (
        subject.status.ok_rounds + 1 >= policy.recovery_rounds
        and elapsed(since, at) >= policy.recovery_seconds
    )
    return (subject.own,) if enough else ()


def _is_outdated(status: Status, observation: Observation, worker: str) -> bool:
    """Tell whether it is older than what the Status knows already: clocks are re-anchored, feels
    may be told twice.
    """
    if observation.at < max(status.since, status.ok_since or 0.0):
        return True
    doubt = status.doubt
    return doubt is not None and (
        observation.sent_at < doubt.sent_at
        or any(
            witness.worker == worker
            and (observation.sent_at <= witness.sent_at or observation.at < witness.at)
            for witness in doubt.witnesses
        )
    )


def _of_this_address(doubt: Doubt, revision: int) -> Doubt:
    """Return the doubt without what was found at an address that the database no longer has."""
    if revision in (0, doubt.revision):
        return doubt
    return replace(unheard(doubt) if doubt.revision else doubt, revision=revision)


def unheard(doubt: Doubt) -> Doubt:
    """Return a doubt whose counting starts afresh at the next negative."""
    return replace(doubt, witnesses=(), absent_since=None, absent_rounds=0)


def hear(doubt: Doubt, observation: Observation, worker: str) -> Doubt:
    """Return the doubt with this worker's newest negative in it; the first one after proof of life
    dates it anew.
    """
    doubt = _where_it_leads(doubt, observation)
    others = [witness for witness in doubt.witnesses if witness.worker != worker]
    before = sum(witness.rounds for witness in doubt.witnesses if witness.worker == worker)
    rounds = min(before + 1, MAX_ROUNDS)
    own = Witness(worker, rounds, observation.sent_at, observation.at, observation.cause)
    sent_at = doubt.sent_at if doubt.witnesses else observation.sent_at
    since, absents = doubt.absent_since, min(doubt.absent_rounds + 1, MAX_ROUNDS)
    if observation.evidence is not Evidence.ABSENT:
        since, absents = None, 0
    elif since is None:
        since, absents = observation.sent_at, 1
    witnesses = (*others, own)[-MAX_WITNESSES:]
    return replace(
        doubt, sent_at=sent_at, witnesses=witnesses, absent_since=since, absent_rounds=absents
    )


def _where_it_leads(doubt: Doubt, observation: Observation) -> Doubt:
    """Return the doubt without what was found before an address came up that was not tried before.

    The name leads elsewhere, and nothing found where it led counts. An address that comes up again
    changes nothing: each observer may have an answer of its own for a name.
    """
    marks = tuple(map(mark, observation.tried))
    came_up = tuple(one for one in marks if one not in doubt.tried)
    if not came_up or len(doubt.tried) + len(came_up) > MAX_TRIED:
        return doubt
    return replace(unheard(doubt) if doubt.tried else doubt, tried=doubt.tried + came_up)


def _words_of_others(doubt: Doubt, context: Context) -> tuple[Seen, ...]:
    """Return the newest word of every worker but this one; `rounds` counts its negatives since it
    was last positive.

    What a newer version found and this one has no word for is nobody's word: it neither proves nor
    hinders.
    """
    words = {w.worker: Seen(w.worker, w.sent_at, w.at, w.cause, w.rounds) for w in doubt.witnesses}
    for opinion in sorted(_opinions(doubt, context), key=lambda opinion: opinion.at):
        known = words.get(opinion.worker)
        if known and opinion.at <= known.at:
            continue  # the same answer again, or older than what it found as the owner
        new = Seen(opinion.worker, opinion.sent_at, opinion.at, opinion.cause)
        if known and is_negative(known) and is_negative(new):
            new = Seen(new.worker, new.sent_at, new.at, new.cause, known.rounds + 1)
        words[opinion.worker] = new
    return tuple(
        word
        for word in words.values()
        if word.worker != context.worker and EVIDENCE[word.cause] is not Evidence.OUR_FAULT
    )


def _opinions(doubt: Doubt, context: Context) -> list[Opinion]:
    return [
        opinion
        for opinion in context.opinions
        if opinion.doubt == doubt.identity
        and opinion.sent_at >= doubt.sent_at
        and EVIDENCE[opinion.cause] is not Evidence.OUR_FAULT
    ]
