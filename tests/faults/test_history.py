"""The judge is judged: legal histories pass, each broken promise is named, and it alone."""

import base64
import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.core.cause import Cause
from monitor.core.event import CannotReach, Finding, Transition
from monitor.core.machine import Context, tick
from monitor.core.observation import Observation
from monitor.core.policy import Policy
from monitor.core.schedule import cadence
from monitor.core.status import Epoch, Identity, State, Status
from monitor.registry.rows import TransitionRow
from tests.core.making import examples
from tests.faults.demands import outages
from tests.faults.history import caught_up, check, demand, excuses, lateness
from tests.faults.observed import (
    Accepted,
    Connections,
    Counted,
    Effect,
    Fault,
    History,
    Journaled,
    Sight,
    Stall,
)

START, POLICY = 1_763_000_000.0, Policy()
DB, PORT, SECRET = "orders", 5433, b'Tr0ub4dor&3/"x+y?'
WORKERS = ("w1", "w2", "w3")
CAUSES = {
    Effect.SILENT: Cause.CONNECT_TIMEOUT,
    Effect.ABSENT: Cause.PORT_CLOSED,
    Effect.HIDDEN: Cause.CONNECT_TIMEOUT,
    Effect.SPEAKS: Cause.STARTING,
}  # the first that is in force is what a probe meets


def fault(effect: Effect, began: float, ended: float | None, *parties: str) -> Fault:
    """Make a fault; times count from START."""
    ends = None if ended is None else START + ended
    databases = frozenset([DB]) if effect in CAUSES else frozenset()
    return Fault(str(effect), effect, START + began, ends, databases, frozenset(parties))


class Story:
    """One database through a run: the real machine, three workers, and a leader that moves it."""

    def __init__(self, seconds: float, faults: Iterable[Fault] = ()) -> None:
        self.history = History(START, START + seconds, sorted(faults, key=lambda one: one.began))
        self.now, self.status, self.owner, self.counter, self.number = (
            START + 1.0,
            Status(),
            "w1",
            1,
            0,
        )
        self.moved_for: Identity | None = None
        self.history.rows[DB], self.history.sights[DB], self.history.ports[DB] = [], [], PORT
        self.history.generations.append((START, "life:1.0"))
        self._forgot = [one for one in self.history.faults if one.effect is Effect.FORGOT]

    def tell(self) -> History:
        """Let it happen."""
        while self.now < self.history.ended:
            self._suffer()
            self._beat()
        fields = self.history.sights[DB][-1].fields
        self.history.cache[DB] = fields
        return self.history

    def _suffer(self) -> None:
        if self._forgot and self.now >= self._forgot[0].began:
            self._forgot.pop(0)
            self.history.sights[DB].append(Sight(self.now, {}))
            self.history.generations.append((self.now, ""))
            self.now = round(self.now + 3.0, 3)
            self._assign(self.owner)
            self.history.generations.append((self.now, f"life:1.{self.counter}"))
        if self._is_dead(self.owner):
            self.now = round(self.now + 7.0, 3)
            self._assign(next(worker for worker in WORKERS if not self._is_dead(worker)))

    def _is_dead(self, worker: str) -> bool:
        faults = self.history.faults
        return any(
            o.effect is Effect.KILLED and worker in o.parties and o.began <= self.now
            for o in faults
        )

    def _assign(self, owner: str) -> None:
        self.owner, self.counter, self.number = owner, self.counter + 1, 0

    def _beat(self) -> None:
        cause = self._cause()
        took = POLICY.deadline if cause is Cause.CONNECT_TIMEOUT else 0.01
        at = round(self.now + took, 3)
        seen = Observation(database=DB, worker=self.owner, sent_at=self.now, at=at, cause=cause)
        context = Context(
            worker=self.owner, epoch=Epoch(1, self.counter), policy=POLICY, eligible=3
        )
        self.status, events = tick(self.status, seen, context)
        self.number += 1
        self.now = round(at + cadence(self.status, POLICY, at), 3)
        for event in events:
            if isinstance(event, Transition):
                self._keep(event)
        self._look(seen)
        if self.status.doubt and any(isinstance(event, CannotReach) for event in events):
            self.now = round(at + 0.5, 3)
            living = [worker for worker in WORKERS if not self._is_dead(worker)]
            self._assign(
                living[(living.index(self.owner) + 1) % len(living)]
                if self.owner in living
                else living[0]
            )

    def _cause(self) -> Cause:
        in_force = {
            one.effect
            for one in self.history.faults
            if one.began <= self.now <= (one.ended or self.now)
            and (one.effect is not Effect.HIDDEN or self.owner in one.parties)
        }
        return next((cause for effect, cause in CAUSES.items() if effect in in_force), Cause.OK)

    def _keep(self, one: Transition) -> None:
        rows = self.history.rows[DB]
        rows.append(TransitionRow(len(rows) + 1, len(rows) + 1, False, one.at + 0.2, one))
        self.history.journal.append(Journaled(one.at + 0.05, one, False))
        self.history.accepted.append(Accepted(one.at + 0.02, one.worker, DB, str(one.identity)))

    def _look(self, seen: Observation) -> None:
        fields = {
            "owner": self.owner, "epoch": f"1.{self.counter}", "number": str(self.number),
            "seen_by": self.owner, "state": self.status.state.value,
            "identity": str(self.status.identity or ""),
            "observed_at": f"{seen.at:.3f}", "cause": seen.cause.value,
        }  # fmt: skip
        self.history.sights[DB].append(Sight(seen.at + 0.05, fields))


def tell(seconds: float, *faults: Fault) -> History:
    """Tell a story, and what the processes left behind."""
    history = Story(seconds, faults).tell()
    history.terms = [(START, "s1", 1), (START + 60, "s2", 2)]
    history.connections = [
        Connections(START + 5, "w1", PORT, 2),
        Connections(START + 90, "w2", PORT, 1),
    ]
    history.stalls = [Stall(START + 50, "w1", 0.9, 0.7)]
    history.counted = [
        Counted(START + i, {"beats": i, "transitions": i // 9, "rejected_conflict": 0})
        for i in range(9)
    ]
    history.secrets, history.written = (SECRET,), {"log": b"all is well", "redis": b""}
    return history


def names(history: History, **more) -> set[str]:
    return {violation.invariant for violation in check(history, **more)}


def rules_of(history: History) -> list[str]:
    return [row.transition.rule for row in history.rows[DB]]


# --- legal histories ------------------------------------------------------------------------------

ABSENT, SILENT = fault(Effect.ABSENT, 20, 60), fault(Effect.SILENT, 20, 60)
SPEAKS, HIDDEN = fault(Effect.SPEAKS, 20, 60), fault(Effect.HIDDEN, 20, 60, "w1")
FORGOT, KILLED = fault(Effect.FORGOT, 30, 31, "redis"), fault(Effect.KILLED, 30, None, "w1")


@pytest.mark.parametrize(
    ("faults", "rules"),
    [
        ([], "first_ok"),
        ([ABSENT], "first_ok doubt confirm_absent recovered"),
        ([SILENT], "first_ok doubt confirm_silent recovered"),
        ([SPEAKS], "first_ok answered reopened"),
        ([HIDDEN], "first_ok doubt false_alarm"),
        ([fault(Effect.ABSENT, 15.5, 16.5)], "first_ok doubt false_alarm"),
        ([fault(Effect.ABSENT, 17, 18)], "first_ok"),
        (
            [ABSENT, fault(Effect.SPEAKS, 60, 70)],
            "first_ok doubt confirm_absent answered reopened",
        ),
        ([FORGOT], "first_ok"),
        ([KILLED], "first_ok"),
        ([ABSENT, FORGOT, KILLED], "first_ok doubt confirm_absent recovered"),
    ],
    ids=lambda value: (
        value.replace(" ", "-") if isinstance(value, str) else "+".join(one.name for one in value)
    ),
)
def test_legal_histories_pass(faults: list[Fault], rules: str) -> None:
    history = tell(120, *faults)
    assert rules_of(history) == rules.split()
    assert demand(history) == 0


lengths = st.floats(0.1, 60).map(lambda seconds: round(seconds, 3))
of_the_database = st.builds(
    lambda effect, began, length: fault(effect, began, began + length, "w1"),
    st.sampled_from(sorted(CAUSES)),
    st.floats(5, 150).map(lambda seconds: round(seconds, 3)),
    lengths,
)
of_ours = st.sampled_from([[], [FORGOT], [KILLED], [FORGOT, KILLED]])
timelines = st.tuples(st.lists(of_the_database, max_size=4), of_ours).map(
    lambda parts: [*parts[0], *parts[1]]
)


@examples(60)
@given(timelines)
def test_whatever_is_done_to_a_sound_system_passes(faults: list[Fault]) -> None:
    demand(tell(300, *faults))


# --- broken promises ------------------------------------------------------------------------------

LASTING = fault(Effect.ABSENT, 20, None)
BREAKS: list = []


def at(seconds: float) -> float:
    return round(START + seconds, 3)


def breaks(*promises: str, of: Iterable[Fault] = ()) -> Callable:
    """Note a way to break these promises, and no others, of a run with these faults."""

    def note(breaking: Callable[[History], None]) -> Callable[[History], None]:
        BREAKS.append(
            pytest.param(list(of), breaking, set(promises), id=f"{promises[0]}-{breaking.__name__}")
        )
        return breaking

    return note


def rewrite(history: History, i: int, **more) -> None:
    """Change a transition wherever it stands."""
    row = history.rows[DB][i]
    new = replace(row.transition, **more)
    history.journal = [
        replace(e, transition=new) if e.transition == row.transition else e for e in history.journal
    ]
    history.rows[DB][i] = replace(row, transition=new)


def retime(history: History, **more) -> None:
    """Change the first noted fault."""
    history.faults[0] = replace(history.faults[0], **more)


def see(history: History, i: int, **fields: str) -> None:
    """Change one sight."""
    sight = history.sights[DB][i]
    history.sights[DB][i] = replace(sight, fields={**sight.fields, **fields})


def another(history: History, n: int = 1, **more) -> Transition:
    """Make a transition that follows the last one."""
    last = history.rows[DB][-1].transition
    identity = Identity(last.identity.epoch, last.identity.n + n)
    return replace(last, identity=identity, prev=last.identity, **more)


@breaks("no_false_unavailable", "rules", of=[ABSENT])
def nothing_was_wrong(history: History) -> None:
    history.faults.clear()


@breaks("no_false_unavailable", "rules", of=[fault(Effect.HIDDEN, 20, 60, "w1", "w2")])
def two_were_cut_off(history: History) -> None:
    assert "confirm_silent" in rules_of(history)


@breaks("no_false_unavailable", "rules", of=[ABSENT])
def it_was_starting(history: History) -> None:
    retime(history, effect=Effect.SPEAKS)


@breaks("no_false_unavailable", of=[ABSENT])
def old_evidence(history: History) -> None:
    own, other = history.rows[DB][2].transition.evidence
    rewrite(history, 2, evidence=(own, replace(other, sent_at=at(17), at=at(18))))


@breaks("no_false_unavailable", of=[fault(Effect.ABSENT, 20, 30)])
def late_evidence(history: History) -> None:
    retime(history, ended=history.rows[DB][2].transition.at - 3.1)


@breaks("no_false_unavailable", of=[ABSENT])
def one_observer(history: History) -> None:
    own = history.rows[DB][2].transition.evidence[0]
    rewrite(history, 2, evidence=(own,), observers=(own.worker,))


@breaks("no_false_unavailable", of=[ABSENT])
def an_observer_without_evidence(history: History) -> None:
    rewrite(history, 2, observers=("w1", "w2", "w3"))


@breaks("no_false_unavailable", of=[ABSENT])
def an_observer_who_reached_it(history: History) -> None:
    own, other = history.rows[DB][2].transition.evidence
    rewrite(history, 2, evidence=(own, replace(other, cause=Cause.STARTING)))


@breaks("no_false_unavailable", of=[ABSENT])
def alone_in_company(history: History) -> None:
    own = history.rows[DB][2].transition.evidence[0]
    rewrite(history, 2, rule="single_observer", evidence=(own,), observers=(own.worker,))


@breaks("no_false_unavailable", of=[HIDDEN])
def seen_without_a_transition(history: History) -> None:
    see(history, 3, state="unavailable")


@breaks("chain", of=[ABSENT])
def a_version_left_out(history: History) -> None:
    history.rows[DB][3] = replace(history.rows[DB][3], version=5)


@breaks("chain", of=[ABSENT])
def a_version_twice(history: History) -> None:
    history.rows[DB][3] = replace(history.rows[DB][3], version=3)


@breaks("chain", of=[ABSENT])
def a_superseded_row(history: History) -> None:
    forked = replace(
        history.rows[DB][-1].transition, identity=Identity(Epoch(1, 1), 7), worker="w1"
    )
    history.rows[DB].append(TransitionRow(9, None, True, at(100), forked))


@breaks("chain", of=[ABSENT])
def a_wrong_prev(history: History) -> None:
    rewrite(history, 3, prev=history.rows[DB][1].transition.identity)


@breaks("chain")
def a_first_one_that_builds_on_something(history: History) -> None:
    rewrite(history, 0, prev=Identity(Epoch(1, 0), 1))


@breaks("chain", of=[ABSENT])
def a_wrong_source(history: History) -> None:
    rewrite(history, 1, source=State.NEW)


def renumber(history: History, identity: Identity) -> None:
    """Give the last transition another identity wherever it stands."""
    old = str(history.rows[DB][-1].transition.identity)
    rewrite(history, -1, identity=identity)
    history.accepted[-1] = replace(history.accepted[-1], identity=str(identity))
    for i, sight in enumerate(history.sights[DB]):
        if sight.fields["identity"] == old:
            see(history, i, identity=str(identity))
    history.cache[DB] = history.sights[DB][-1].fields


@breaks("chain", of=[ABSENT])
def a_number_left_out(history: History) -> None:
    last = history.rows[DB][-1].transition.identity
    renumber(history, Identity(last.epoch, last.n + 1))


@breaks("chain", of=[ABSENT])
def an_epoch_that_does_not_begin_with_one(history: History) -> None:
    renumber(history, Identity(Epoch(1, 50), 2))


@breaks("chain", of=[LASTING])
def another_state_in_the_cache(history: History) -> None:
    history.cache[DB] = {**history.cache[DB], "state": "uncertain"}


@breaks("chain", "epochs", of=[LASTING])
def an_older_identity_in_the_cache(history: History) -> None:
    history.cache[DB] = {
        **history.cache[DB],
        "identity": str(history.rows[DB][1].transition.identity),
    }


@breaks("chain", "nothing_lost", of=[LASTING])
def a_newer_identity_in_the_cache(history: History) -> None:
    history.cache[DB] = {**history.cache[DB], "identity": "1.9.9"}


@breaks("nothing_lost", "chain", "rules", of=[LASTING])
def a_row_is_missing(history: History) -> None:
    history.rows[DB].pop()


@breaks("nothing_lost", "chain")
def all_rows_are_missing(history: History) -> None:
    history.rows[DB].clear()


@breaks("nothing_lost")
def journaled_and_not_durable(history: History) -> None:
    history.journal.append(Journaled(at(100), another(history), False))


@breaks("nothing_lost")
def logged_and_not_durable(history: History) -> None:
    history.accepted.append(Accepted(at(100), "w1", DB, "1.1.2"))


@breaks("nothing_doubled", of=[ABSENT])
def kept_apart_by_the_historian(history: History) -> None:
    history.conflicts = 1


@breaks("nothing_doubled", "chain", "epochs", "rules", of=[ABSENT])
def two_rows(history: History) -> None:
    history.rows[DB].append(replace(history.rows[DB][-1], id=9, version=5))


@breaks("nothing_doubled", of=[ABSENT])
def another_content_in_the_journal(history: History) -> None:
    entry = history.journal[-1]
    history.journal.append(Journaled(at(100), replace(entry.transition, at=at(99)), True))


@breaks("nothing_doubled", of=[ABSENT])
def journaled_twice(history: History) -> None:
    history.journal.append(replace(history.journal[-1], at=at(100)))


@breaks("epochs", of=[HIDDEN])
def an_older_epoch_writes(history: History) -> None:
    see(history, -1, epoch="1.1", number="99", owner="w1")
    history.cache[DB] = history.sights[DB][-1].fields


@breaks("epochs", of=[HIDDEN])
def a_beat_is_counted_back(history: History) -> None:
    see(history, -2, number="1")


@breaks("epochs", of=[HIDDEN])
def an_epoch_with_two_owners(history: History) -> None:
    see(history, -2, owner="w3")


@breaks("epochs")
def somebody_writes_who_does_not_own_it(history: History) -> None:
    see(history, -2, seen_by="w3")


@breaks("epochs")
def an_older_observation_of_the_same_epoch(history: History) -> None:
    see(history, -2, observed_at=history.sights[DB][-4].fields["observed_at"])


@breaks("epochs", of=[ABSENT])
def an_epoch_of_another_worker(history: History) -> None:
    rewrite(history, 3, worker="w3")


@breaks("epochs", of=[ABSENT])
def an_older_identity_is_seen(history: History) -> None:
    see(history, -2, identity="1.1.1", state="available")


@breaks("epochs", of=[ABSENT])
def journaled_out_of_order(history: History) -> None:
    first = history.journal.pop(0)
    history.journal.append(replace(first, at=at(100)))


@breaks("epochs", of=[FORGOT])
def a_write_into_a_closed_generation(history: History) -> None:
    gone = next(i for i, sight in enumerate(history.sights[DB]) if not sight.fields)
    old, at_ = history.sights[DB][gone - 1].fields, history.sights[DB][gone].at
    beats = [Sight(at_ + i, {**old, "number": str(i)}) for i in (1, 2)]
    history.sights[DB][gone + 1 : gone + 1] = beats


@breaks("epochs", of=[FORGOT])
def an_old_epoch_after_the_opening(history: History) -> None:
    see(history, -1, epoch="1.1")
    history.cache[DB] = history.sights[DB][-1].fields


@breaks("terms")
def a_term_twice(history: History) -> None:
    history.terms.append((at(90), "s1", 2))


@breaks("terms")
def a_term_falls(history: History) -> None:
    history.terms.append((at(90), "s1", 1))


@breaks("rules", of=[HIDDEN])
def a_doubt_for_nothing(history: History) -> None:
    history.faults.clear()


@breaks("rules", of=[HIDDEN])
def a_doubt_of_one_who_reached_it(history: History) -> None:
    retime(history, parties=frozenset({"w3"}))


@breaks("rules", of=[SPEAKS])
def an_answer_of_a_sound_server(history: History) -> None:
    history.faults.clear()


@breaks("rules", of=[fault(Effect.ABSENT, 15.5, 16.5)])
def a_doubt_before_the_fault(history: History) -> None:
    retime(history, began=at(18), ended=at(19))


@breaks("rules")
def an_absence_unnoticed(history: History) -> None:
    history.faults.append(fault(Effect.ABSENT, 60, 73))


@breaks("rules")
def a_silence_unnoticed(history: History) -> None:
    history.faults.append(fault(Effect.SILENT, 60, 83))


@breaks("rules", of=[ABSENT])
def a_second_absence_unnoticed(history: History) -> None:
    history.faults.append(fault(Effect.ABSENT, 75, 95))


@breaks("rules", of=[LASTING])
def never_recovered(history: History) -> None:
    retime(history, ended=at(60))


@breaks("rules", of=[ABSENT])
def recovered_while_down(history: History) -> None:
    retime(history, ended=at(100))


@breaks("rules", of=[HIDDEN])
def a_rule_that_leads_elsewhere(history: History) -> None:
    rewrite(history, 2, rule="recovered")


@breaks("rules", of=[HIDDEN])
def a_rule_on_the_wrong_evidence(history: History) -> None:
    own = history.rows[DB][2].transition.evidence[0]
    rewrite(history, 2, evidence=(replace(own, cause=Cause.PORT_CLOSED),))


@breaks("rules", of=[ABSENT])
def confirmed_twice_in_one_absence(history: History) -> None:
    down, back = history.rows[DB][1:3], history.rows[DB].pop()
    chain = [back.transition]
    for source in [*down, back]:
        last = chain[-1]
        follower = Identity(last.identity.epoch, last.identity.n + 1)
        chain.append(
            replace(
                source.transition,
                identity=follower,
                prev=last.identity,
                at=last.at,
                worker=last.worker,
            )
        )
    history.rows[DB] += [
        TransitionRow(i, i, False, one.at, one) for i, one in enumerate(chain, start=4)
    ]
    history.cache[DB] = {**history.cache[DB], "identity": str(chain[-1].identity)}


@breaks("no_false_unavailable", "chain", of=[fault(Effect.ABSENT, 20, 30)])
def said_long_after_it_was_seen(history: History) -> None:
    rewrite(history, 2, at=at(33.5))


@breaks("no_false_unavailable", of=[fault(Effect.HIDDEN, 20, 60, "w1", "w2")])
def a_moment_down_that_nobody_saw(history: History) -> None:
    verdict = history.rows[DB][2].transition
    own, other = verdict.evidence
    rewrite(history, 2, evidence=(replace(own, sent_at=verdict.at - 0.1), other))
    down = fault(Effect.ABSENT, 20, None)
    history.faults.append(replace(down, began=verdict.at - 2.9, ended=verdict.at - 2.8))


@breaks("rules", of=[SPEAKS])
def an_answer_between_two_episodes(history: History) -> None:
    history.faults = [fault(Effect.SPEAKS, moment, moment + 1) for moment in (2, 110)]


@breaks("rules", of=[fault(Effect.ABSENT, 80, 100)])
def an_earlier_absence_unnoticed(history: History) -> None:
    history.faults.append(fault(Effect.ABSENT, 30, 50))


@breaks("rules")
def two_short_absences_without_a_break(history: History) -> None:
    history.faults += [fault(Effect.ABSENT, 60, 68), fault(Effect.ABSENT, 68.5, 76)]


@breaks("rules", of=[LASTING])
def unavailable_between_two_absences(history: History) -> None:
    history.faults = [fault(Effect.ABSENT, 20, 25), fault(Effect.ABSENT, 60, None)]


@breaks("rules", of=[HIDDEN])
def a_fault_of_another_database(history: History) -> None:
    retime(history, databases=frozenset({"ledger"}))


@breaks("rules")
def no_evidence(history: History) -> None:
    rewrite(history, 0, evidence=())


@breaks("rules", of=[SPEAKS])
def a_rule_nobody_knows(history: History) -> None:
    rewrite(history, 1, rule="guessed")


@breaks("rules", of=[ABSENT])
def a_rule_from_a_state_it_does_not_leave(history: History) -> None:
    rewrite(history, 3, rule="reopened")


@breaks("rules", of=[fault(Effect.ABSENT, 20, 30)])
def a_rule_to_a_state_it_does_not_reach(history: History) -> None:
    rewrite(history, 2, target=State.STARTING)
    rewrite(history, 3, source=State.STARTING, rule="reopened")


@breaks("rules", of=[fault(Effect.SPEAKS, 20, None)])
def a_rule_that_changes_nothing(history: History) -> None:
    again = another(history, source=State.STARTING)
    history.rows[DB].append(TransitionRow(3, 3, False, at(100), again))
    history.cache[DB] = {**history.cache[DB], "identity": str(again.identity)}


@breaks("rules")
def gone_from_the_cache(history: History) -> None:
    history.cache.clear()


@breaks("connections")
def three_connections(history: History) -> None:
    history.connections.append(Connections(at(100), "w1", PORT, 3))
    history.faults.append(replace(KILLED, began=at(100)))  # no excuse for one worker alone


@breaks("connections")
def two_workers_hold_on(history: History) -> None:
    history.connections += [
        Connections(at(100), "w1", PORT, 1),
        Connections(at(100), "w2", PORT, 2),
    ]


@breaks("connections", of=[KILLED])
def two_workers_hold_on_for_long(history: History) -> None:
    history.connections += [Connections(at(60), "w1", PORT, 2), Connections(at(60), "w2", PORT, 1)]


@breaks("stalls")
def a_loop_stands_still(history: History) -> None:
    history.stalls.append(Stall(at(100), "w1", 0.9, 0.6))


@breaks("stalls")
def another_worker_was_frozen(history: History) -> None:
    history.faults.append(fault(Effect.FROZEN, 90, 100, "w2"))
    history.stalls.append(Stall(at(100), "w1", 10.0, 0.1))


@breaks("stalls")
def still_long_after_the_thaw(history: History) -> None:
    history.faults.append(fault(Effect.FROZEN, 80, 90, "w1"))
    history.stalls.append(Stall(at(91.5), "w1", 0.4, 0.0))


@breaks("counters")
def a_counter_falls(history: History) -> None:
    history.counted.append(Counted(at(100), {"beats": 3, "transitions": 4, "rejected_conflict": 0}))


@breaks("counters")
def a_counter_vanishes(history: History) -> None:
    history.counted.append(Counted(at(100), {"transitions": 4}))


@breaks("counters")
def a_conflict_is_counted(history: History) -> None:
    history.counted = [Counted(at(1), {"identity_conflicts": 1})]


@breaks("counters")
def trimmed_too_early(history: History) -> None:
    history.counted = [Counted(at(1), {"trimmed_unacknowledged": 2})]


@pytest.mark.parametrize(("faults", "breaking", "promises"), BREAKS)
def test_a_broken_promise_is_named(
    faults: list[Fault], breaking: Callable, promises: set[str]
) -> None:
    history = tell(120, *faults)
    breaking(history)
    assert names(history) == promises


def test_demand_lists_all_that_is_broken() -> None:
    history = tell(60)
    history.conflicts = 1
    a_term_falls(history)
    with pytest.raises(
        AssertionError, match=r"(?s)2 broken promises:.*nothing_doubled: .*terms: s1: "
    ):
        demand(history)


# --- what is allowed ------------------------------------------------------------------------------


def test_superseded_rows_pass_where_split_brain_was_provoked() -> None:
    history = tell(120, ABSENT)
    a_superseded_row(history)
    assert names(history, forks_allowed=True) == set()


def test_an_older_hash_passes_until_a_generation_is_opened() -> None:
    history = tell(120, FORGOT)
    gone = next(i for i, sight in enumerate(history.sights[DB]) if not sight.fields)
    forgotten_at = history.sights[DB][gone].at
    replica = {**history.sights[DB][gone - 1].fields, "number": "1"}
    restored = [
        Sight(forgotten_at + 1, replica),
        Sight(forgotten_at + 2, {**replica, "claim": "w1"}),
    ]
    history.sights[DB][gone + 1 : gone + 1] = restored
    assert names(history) == set()


@pytest.mark.parametrize("replayed", [True, False], ids=["replayed", "after-a-loss-of-memory"])
def test_a_transition_may_be_journaled_again(replayed: bool) -> None:
    history = tell(120, *([] if replayed else [FORGOT]))
    history.journal.append(replace(history.journal[-1], at=at(100), replayed=replayed))
    assert names(history) == set()


def test_counters_may_fall_when_redis_forgets() -> None:
    history = tell(120, FORGOT)
    history.counted.append(Counted(at(100), {"beats": 1}))
    assert names(history) == set()


def test_observations_may_be_dated_back_with_the_clock() -> None:
    history = tell(120)
    older = replace(
        history.sights[DB][-1],
        fields=history.sights[DB][-1].fields | {"observed_at": f"{at(20):.3f}"},
    )
    history.sights[DB].append(older)
    history.cache[DB] = older.fields
    assert names(history) == {"epochs"}
    history.faults = [fault(Effect.CLOCK, 100, 125)]
    assert names(history) == set()


@pytest.mark.parametrize("seconds", [50, 90.9], ids=["frozen", "just-thawed"])
def test_a_frozen_worker_stands_still(seconds: float) -> None:
    history = tell(120, fault(Effect.FROZEN, 40, 90, "w1"))
    history.stalls.append(Stall(at(seconds), "w1", 0.5, 0.0))
    assert names(history) == set()


@pytest.mark.parametrize(
    ("faults", "seconds"),
    [
        ([HIDDEN], 25),
        ([fault(Effect.FROZEN, 80, 95, "w3")], 100),
        ([KILLED], 37),
        ([fault(Effect.AWAY, 80, 95, "w3")], 100),
    ],
    ids=["moved", "frozen", "killed", "cut-off-from-redis"],
)
def test_two_workers_may_hold_connections_for_a_while(faults: list[Fault], seconds: float) -> None:
    history = tell(120, *faults)
    history.connections += [Connections(at(seconds), worker, PORT, 2) for worker in WORKERS]
    assert names(history) == set()


def test_databases_of_one_server_share_its_connections() -> None:
    history = tell(120)
    history.connections.append(Connections(at(100), "w1", PORT, 3))
    assert names(history) == {"connections"}
    history.ports["ledger"] = PORT
    history.cache["ledger"] = {"state": "available"}
    assert "connections" not in names(history)


@pytest.mark.parametrize(
    ("ours", "delay"),
    [
        ([], 12.0),
        ([fault(Effect.AWAY, 62, 64, "redis")], 34.0),
        ([fault(Effect.AWAY, 50, 55, "redis")], 32.0),
        ([fault(Effect.AWAY, 30, 35, "redis")], 12.0),
        ([fault(Effect.KILLED, 62, None, "s1")], 48.0),
        ([fault(Effect.KILLED, 62, 65, "s1")], 35.0),
    ],
    ids=[
        "none",
        "redis-away",
        "redis-away-just-before",
        "redis-away-before",
        "leader-killed",
        "leader-started-again",
    ],
)
def test_faults_of_ours_put_off_what_is_demanded(ours: list[Fault], delay: float) -> None:
    for length, broken in ((delay - 1, False), (delay + 1, True)):
        history = tell(60)
        history.faults = [fault(Effect.ABSENT, 60, 60 + length), *ours]
        history.ended = at(60 + length)
        history.cache[DB] = {**history.cache[DB], "state": "available"}
        assert ("rules" in names(history)) is broken, length


def test_faults_of_ours_that_come_after_a_verdict_was_due_are_no_excuse() -> None:
    history = tell(60)
    history.faults, history.ended = (
        [fault(Effect.ABSENT, 60, 85), fault(Effect.AWAY, 75, 80, "redis")],
        at(85),
    )
    assert outages(history) == [(DB, at(60), at(85), at(72))]
    assert "rules" in names(history)


def test_what_is_shorter_than_it_may_go_unnoticed_is_no_outage() -> None:
    history = tell(
        120,
        fault(Effect.ABSENT, 20, 31),
        fault(Effect.SILENT, 60, 81),
        fault(Effect.SPEAKS, 90, 119),
    )
    assert outages(history) == []


def test_nothing_is_demanded_while_redis_is_away_for_good() -> None:
    history = tell(120, fault(Effect.ABSENT, 60, 90), fault(Effect.AWAY, 50, None, "redis"))
    history.rows[DB][1:], history.sights[DB][12:], history.journal[1:], history.accepted[1:] = (
        [],
        [],
        [],
        [],
    )
    history.cache = {}
    assert names(history) == set()


@pytest.mark.parametrize("length", [0.0, 2.4])
def test_faults_are_noted_with_some_slack(length: float) -> None:
    history = tell(120, fault(Effect.ABSENT, 20, 30))
    doubt, verdict = (row.transition.at for row in history.rows[DB][1:3])
    retime(history, began=doubt + 0.9)
    assert names(history) == set()
    retime(history, began=at(20), ended=verdict - length)
    assert names(history) == set()


# --- excuses --------------------------------------------------------------------------------------

FORGOT_IT, DIED = fault(Effect.FORGOT, 87, 88, "redis"), fault(Effect.KILLED, 86, None, "w1")


def lost_at_85(*faults: Fault) -> History:
    """Return a history with a doubt that was accepted and never became durable."""
    history = tell(80)
    history.ended, history.faults = at(120), list(faults)
    seen = Finding("w1", at(84.9), at(85), Cause.PORT_CLOSED)
    source, target = State.AVAILABLE, State.UNCERTAIN
    told = {"rule": "doubt", "evidence": (seen,), "at": at(85), "source": source, "target": target}
    history.journal.append(Journaled(at(85.1), another(history, **told), False))
    history.generations += [(at(87.5), ""), (at(94), "life:1.9")]
    return history


@pytest.mark.parametrize(
    "faults",
    [
        [DIED, FORGOT_IT],
        [fault(Effect.KILLED, 96, None, "w1"), FORGOT_IT],
        [fault(Effect.AWAY, 80, 105, "postgres"), fault(Effect.FORGOT, 100, 101), DIED],
    ],
    ids=["died-first", "died-before-it-could-replay", "the-historian-was-held-up"],
)
def test_a_transition_may_be_lost_with_its_worker_and_redis(faults: list[Fault]) -> None:
    history = lost_at_85(*faults)
    if faults[1].began > at(95):
        history.generations[-1] = (at(104), "life:1.9")
    assert demand(history) == 1
    assert [identity.n for _, identity in excuses(history)] == [2]


@pytest.mark.parametrize(
    "faults",
    [
        [FORGOT_IT],
        [DIED],
        [FORGOT_IT, replace(DIED, parties=frozenset({"w2"}))],
        [FORGOT_IT, replace(DIED, effect=Effect.FROZEN, ended=at(90))],
        [FORGOT_IT, fault(Effect.KILLED, 84, None, "w1")],
        [FORGOT_IT, fault(Effect.KILLED, 100, None, "w1")],
        [fault(Effect.FORGOT, 82, 83), DIED],
        [fault(Effect.FORGOT, 99, 100), DIED],
        [fault(Effect.FORGOT, 99, 100), DIED, fault(Effect.AWAY, 80, 105, "redis", "w1")],
        [fault(Effect.AWAY, 100, 110, "postgres"), fault(Effect.FORGOT, 105, 106), DIED],
    ],
    ids=[
        "the-worker-lived", "redis-remembered", "another-worker-died", "it-was-only-frozen",
        "dead-before", "it-had-replayed", "forgot-before", "drained-long-ago",
        "only-the-worker-was-cut-off", "drained-before-postgres-went-away",
    ],
)  # fmt: skip
def test_there_is_no_other_excuse(faults: list[Fault]) -> None:
    history = lost_at_85(*faults)
    assert names(history) == {"nothing_lost"}
    assert not excuses(history)


def test_the_cache_may_fall_back_behind_what_is_excused() -> None:
    history = lost_at_85(DIED, FORGOT_IT)
    old, lost = history.cache[DB], history.journal[-1].transition
    history.sights[DB].append(
        Sight(at(85.1), {**old, "identity": str(lost.identity), "state": "uncertain"})
    )
    history.cache[DB] = {**old, "epoch": "1.9", "owner": "w2", "seen_by": "w2", "number": "1"}
    assert demand(history) == 1
    history.faults.remove(DIED)
    assert names(history) == {"nothing_lost", "epochs"}


def test_the_chain_may_miss_exactly_what_is_excused() -> None:
    for missing in (2, 1):
        history = tell(
            120, ABSENT, fault(Effect.FORGOT, 66, 67), fault(Effect.KILLED, 66, None, "w1", "w2")
        )
        lost = history.rows[DB].pop(missing).transition
        history.rows[DB][missing:] = [
            replace(row, version=row.version - 1) for row in history.rows[DB][missing:]
        ]
        assert (DB, lost.identity) not in excuses(history)  # it had 40 seconds to become durable
        assert names(history) >= {"chain", "nothing_lost"}
        history.faults.append(fault(Effect.AWAY, 15, 70, "postgres"))
        assert names(history) == set()
        assert list(excuses(history)) == [(DB, lost.identity)]


def test_a_restored_postgres_may_lack_what_was_accepted_since_its_copy() -> None:
    history = tell(120, ABSENT)
    lost = [row.transition for row in history.rows[DB][1:3]]
    history.rows[DB] = [
        history.rows[DB][0],
        *(replace(row, version=2) for row in history.rows[DB][3:]),
    ]
    assert names(history) >= {"chain", "nothing_lost"}
    set_back = fault(Effect.RESTORED, lost[0].at - START - 1, lost[1].at - START + 1, "postgres")
    for too_short in (
        replace(set_back, began=lost[1].at),
        replace(set_back, ended=lost[0].at + 0.001),
    ):
        history.faults = [fault for fault in history.faults if fault.effect is Effect.ABSENT] + [
            too_short
        ]
        assert names(history) >= {"nothing_lost"}
    history.faults[-1] = set_back
    assert names(history) == set()
    assert list(excuses(history)) == [(DB, one.identity) for one in lost]


# --- secrets --------------------------------------------------------------------------------------

TEXT = SECRET.decode()
FORMS = {
    "plain": SECRET,
    "percent-encoded": quote(TEXT, safe="").encode(),
    "percent-encoded-small": quote(TEXT, safe="").lower().encode(),
    "all-percents": "".join(f"%{byte:02X}" for byte in SECRET).encode(),
    "base64": base64.b64encode(SECRET),
    "base64-second": base64.b64encode(b"feeler:" + SECRET + b"@host"),
    "base64-third": base64.b64encode(b"feeler::" + SECRET + b"@host"),
    "base64-url": base64.urlsafe_b64encode(SECRET),
    "hex": SECRET.hex().encode(),
    "HEX": SECRET.hex().upper().encode(),
    "json": json.dumps(TEXT).encode(),
    "repr": repr(b"\0" + SECRET).encode(),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_a_secret_is_found_in_every_form(form: bytes) -> None:
    history = tell(60)
    history.written["dump"] = b"before " + form + b" after"
    assert {(one.invariant, one.about) for one in check(history)} == {("secrets", "dump")}
    assert not any(TEXT in str(one) for one in check(history))


@examples(100)
@given(
    st.binary(min_size=6, max_size=30),
    st.binary(max_size=9),
    st.binary(max_size=9),
    st.sampled_from([base64.b64encode, base64.urlsafe_b64encode]),
)
def test_a_secret_is_found_wherever_base64_begins(
    secret: bytes, before: bytes, after: bytes, encode: Callable[[bytes], bytes]
) -> None:
    history = History(
        START, START, secrets=(secret,), written={"dump": encode(before + secret + after)}
    )
    assert names(history) == {"secrets"}


# --- feeling goes on ------------------------------------------------------------------------------


def test_lateness_counts_what_is_beyond_the_interval() -> None:
    history = History(START, START + 30)
    moments = (1.0, 1.0, 6.0, 11.5, 20.0)
    history.sights[DB] = [Sight(at(m + 0.1), {"observed_at": f"{at(m):.3f}"}) for m in moments]
    assert [round(late, 3) for late in lateness(history, [DB], (at(1), at(25)))] == [0, 0.5, 3.5, 0]
    assert max(lateness(history, [DB], (at(1), at(30)))) == pytest.approx(
        5
    )  # nothing at its end is late too
    history.sights[DB].clear()
    assert lateness(history, [DB], (at(1), at(30))) == [24]


def test_caught_up_waits_for_a_newer_observation() -> None:
    history = History(START, START + 30)
    history.sights[DB] = [
        Sight(at(m), {"observed_at": f"{at(o):.3f}"}) for m, o in ((9, 8), (11, 8), (12.5, 10.2))
    ]
    assert caught_up(history, DB, at(10)) == pytest.approx(2.5)
    assert caught_up(history, DB, at(11)) == float("inf")


# --- any single fault of the record ---------------------------------------------------------------

ALTERED: dict[str, Callable[[Transition], dict]] = {
    "source": lambda one: {"source": _other(one.source)},
    "target": lambda one: {"target": _other(one.target)},
    "prev": lambda one: {"prev": Identity(Epoch(9, 9), 9)},
    "identity": lambda one: {"identity": Identity(one.identity.epoch, one.identity.n + 1)},
    "rule": lambda one: {"rule": "single_observer" if one.rule != "single_observer" else "doubt"},
    "at": lambda one: {"at": one.at + 0.001},
    "worker": lambda one: {"worker": "w9"},
    "evidence": lambda one: {"evidence": one.evidence[1:]},
}


def _other(state: State) -> State:
    return State.NEW if state is not State.NEW else State.UNCERTAIN


@examples(60)
@given(timelines, st.data())
def test_a_single_wrong_row_never_passes(faults: list[Fault], data: st.DataObject) -> None:
    history = tell(200, *faults)
    rows = history.rows[DB]
    i = data.draw(st.integers(0, len(rows) - 1))
    how = data.draw(st.sampled_from(["dropped", "doubled", *ALTERED]))
    if how == "dropped":
        del rows[i]
    elif how == "doubled":
        rows.append(rows[i])
    else:
        rows[i] = replace(
            rows[i], transition=replace(rows[i].transition, **ALTERED[how](rows[i].transition))
        )
    assert names(history)
