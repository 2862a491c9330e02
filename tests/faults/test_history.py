"""The judge is judged: legal histories pass, each broken promise is named, and it alone."""

import base64
import json
from collections.abc import Callable, Iterable, Mapping
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
        self.now, self.status = START + 1.0, Status()
        self.owner, self.counter, self.number = "w1", 1, 0
        self.history.rows[DB], self.history.sights[DB], self.history.ports[DB] = [], [], PORT
        self.history.generations.append((START, "life:1.0"))
        self._forgot = [one for one in self.history.faults if one.effect is Effect.FORGOT]

    def tell(self) -> History:
        """Let it happen."""
        while self.now < self.history.ended:
            self._suffer()
            self._beat()
        self.history.cache[DB] = self.history.sights[DB][-1].fields
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
        under = Epoch(1, self.counter)
        context = Context(worker=self.owner, epoch=under, policy=POLICY, eligible=3)
        self.status, events = tick(self.status, seen, context)
        self.number += 1
        self.now = round(at + cadence(self.status, POLICY, at), 3)
        for event in events:
            if isinstance(event, Transition):
                self._keep(event)
        self._look(seen)
        if self.status.doubt and any(isinstance(event, CannotReach) for event in events):
            self.now = round(at + 0.5, 3)
            self._assign(self._next_one())

    def _next_one(self) -> str:
        living = [worker for worker in WORKERS if not self._is_dead(worker)]
        after = living.index(self.owner) + 1 if self.owner in living else 0
        return living[after % len(living)]

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
    first, second = (5, "w1", 2), (90, "w2", 1)
    held = [Connections(START + when, who, PORT, count) for when, who, count in (first, second)]
    history.connections = held
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

Breaking = Callable[[History], object]

LASTING = fault(Effect.ABSENT, 20, None)
BREAKS: list = []


def at(seconds: float) -> float:
    return round(START + seconds, 3)


def broken(promises: str, of: Iterable[Fault] = (), **breakings: Breaking) -> None:
    """Note ways to break these promises, and no others, of a run with these faults."""
    wanted = promises.split()
    for name, breaking in breakings.items():
        BREAKS.append(pytest.param(list(of), breaking, set(wanted), id=f"{wanted[0]}-{name}"))


def breaks(promises: str, *of: Fault) -> Callable[[Breaking], Breaking]:
    """Note such a way that takes more than one step."""

    def note(breaking: Breaking) -> Breaking:
        broken(promises, of, **{breaking.__name__: breaking})
        return breaking

    return note


def told(history: History, i: int) -> Transition:
    return history.rows[DB][i].transition


def rewrite(history: History, i: int, **more) -> None:
    """Change a transition wherever it stands."""
    row = history.rows[DB][i]
    new = replace(row.transition, **more)
    history.journal = [
        replace(e, transition=new) if e.transition == row.transition else e for e in history.journal
    ]
    history.rows[DB][i] = replace(row, transition=new)


def renumber(history: History, n: int, epoch: Epoch | None = None) -> None:
    """Give the last transition another identity wherever it stands."""
    old = told(history, -1).identity
    new = Identity(epoch or old.epoch, n)
    rewrite(history, -1, identity=new)
    history.accepted[-1] = replace(history.accepted[-1], identity=str(new))
    for i, sight in enumerate(history.sights[DB]):
        if sight.fields["identity"] == str(old):
            see(history, i, identity=str(new))
    history.cache[DB] = history.sights[DB][-1].fields


def reversion(history: History, version: int, i: int = 3) -> None:
    """Give a row another version."""
    history.rows[DB][i] = replace(history.rows[DB][i], version=version)


def retime(history: History, **more) -> None:
    """Change the first noted fault."""
    history.faults[0] = replace(history.faults[0], **more)


def see(history: History, i: int, **fields: str) -> None:
    """Change one sight."""
    sight = history.sights[DB][i]
    history.sights[DB][i] = replace(sight, fields={**sight.fields, **fields})


def see_while_gone(history: History, *changes: dict[str, str]) -> None:
    """Let what Redis forgot be seen again, changed so, before a generation is opened."""
    sights = history.sights[DB]
    gone = next(i for i, sight in enumerate(sights) if not sight.fields)
    old, since = sights[gone - 1].fields, sights[gone].at
    seen = [Sight(since + i, {**old, **more}) for i, more in enumerate(changes, start=1)]
    sights[gone + 1 : gone + 1] = seen


def end_with(history: History, **fields: str) -> None:
    """Change the last sight, and the hash."""
    see(history, -1, **fields)
    history.cache[DB] = history.sights[DB][-1].fields


def cache(history: History, **fields: str) -> None:
    """Change the hash."""
    history.cache[DB] = {**history.cache[DB], **fields}


def journal(history: History, transition: Transition, replayed: bool = False) -> None:
    history.journal.append(Journaled(at(100), transition, replayed))


def connect(history: History, seconds: float, *counts: int) -> None:
    """Let the first workers hold so many connections each."""
    held = zip(WORKERS, counts, strict=False)
    history.connections += [Connections(at(seconds), who, PORT, count) for who, count in held]


def stall(history: History, seconds: float, length: float, starved: float) -> None:
    history.stalls.append(Stall(at(seconds), "w1", length, starved))


def another(history: History, n: int = 1, **more) -> Transition:
    """Make a transition that follows the last one."""
    last = told(history, -1)
    identity = Identity(last.identity.epoch, last.identity.n + n)
    return replace(last, identity=identity, prev=last.identity, **more)


def verdict_on(history: History, own: Mapping = {}, other: Mapping = {}) -> None:
    """Change what the worker that decided had found, and the other one."""
    mine, theirs = told(history, 2).evidence
    rewrite(history, 2, evidence=(replace(mine, **own), replace(theirs, **other)))


def alone(history: History, **more) -> None:
    """Take the second observer from the verdict."""
    own = told(history, 2).evidence[0]
    rewrite(history, 2, evidence=(own,), observers=(own.worker,), **more)


broken(
    "no_false_unavailable rules",
    [ABSENT],
    nothing_was_wrong=lambda h: h.faults.clear(),
    it_was_starting=lambda h: retime(h, effect=Effect.SPEAKS),
)
broken(
    "no_false_unavailable",
    [ABSENT],
    old_evidence=lambda h: verdict_on(h, other={"sent_at": at(17), "at": at(18)}),
    one_observer=alone,
    an_observer_without_evidence=lambda h: rewrite(h, 2, observers=("w1", "w2", "w3")),
    an_observer_who_reached_it=lambda h: verdict_on(h, other={"cause": Cause.STARTING}),
    alone_in_company=lambda h: alone(h, rule="single_observer"),
)
broken(
    "no_false_unavailable",
    [fault(Effect.ABSENT, 20, 30)],
    late_evidence=lambda h: retime(h, ended=told(h, 2).at - 3.1),
)
broken(
    "no_false_unavailable",
    [HIDDEN],
    seen_without_a_transition=lambda h: see(h, 3, state="unavailable"),
)
broken(
    "no_false_unavailable chain",
    [fault(Effect.ABSENT, 20, 30)],
    said_long_after_it_was_seen=lambda h: rewrite(h, 2, at=at(33.5)),
)


@breaks("no_false_unavailable rules", fault(Effect.HIDDEN, 20, 60, "w1", "w2"))
def two_were_cut_off(history: History) -> None:
    assert "confirm_silent" in rules_of(history)


@breaks("no_false_unavailable", fault(Effect.HIDDEN, 20, 60, "w1", "w2"))
def a_moment_down_that_nobody_saw(history: History) -> None:
    verdict = told(history, 2)
    verdict_on(history, own={"sent_at": verdict.at - 0.1})
    down = fault(Effect.ABSENT, 20, None)
    history.faults.append(replace(down, began=verdict.at - 2.9, ended=verdict.at - 2.8))


broken(
    "chain",
    [ABSENT],
    a_version_left_out=lambda h: reversion(h, 5),
    a_version_twice=lambda h: reversion(h, 3),
    a_wrong_prev=lambda h: rewrite(h, 3, prev=told(h, 1).identity),
    a_wrong_source=lambda h: rewrite(h, 1, source=State.NEW),
    a_number_left_out=lambda h: renumber(h, told(h, -1).identity.n + 1),
    an_epoch_that_does_not_begin_with_one=lambda h: renumber(h, 2, Epoch(1, 50)),
)
broken(
    "chain",
    a_first_one_that_builds_on_something=lambda h: rewrite(h, 0, prev=Identity(Epoch(1, 0), 1)),
)
broken("chain", [LASTING], another_state_in_the_cache=lambda h: cache(h, state="uncertain"))
broken(
    "chain epochs",
    [LASTING],
    an_older_identity_in_the_cache=lambda h: cache(h, identity=str(told(h, 1).identity)),
)


@breaks("chain", ABSENT)
def a_superseded_row(history: History) -> None:
    forked = replace(told(history, -1), identity=Identity(Epoch(1, 1), 7), worker="w1")
    history.rows[DB].append(TransitionRow(9, None, True, at(100), forked))


broken(
    "chain nothing_lost",
    [LASTING],
    a_newer_identity_in_the_cache=lambda h: cache(h, identity="1.9.9"),
)
broken("nothing_lost chain rules", [LASTING], a_row_is_missing=lambda h: h.rows[DB].pop())
broken("nothing_lost chain", all_rows_are_missing=lambda h: h.rows[DB].clear())
broken(
    "nothing_lost",
    journaled_and_not_durable=lambda h: journal(h, another(h)),
    logged_and_not_durable=lambda h: h.accepted.append(Accepted(at(100), "w1", DB, "1.1.2")),
)
broken(
    "nothing_doubled",
    [ABSENT],
    kept_apart_by_the_historian=lambda h: setattr(h, "conflicts", 1),
    another_content_in_the_journal=lambda h: journal(h, replace(told(h, -1), at=at(99)), True),
    journaled_twice=lambda h: journal(h, told(h, -1)),
)
broken(
    "nothing_doubled chain epochs rules",
    [ABSENT],
    two_rows=lambda h: h.rows[DB].append(replace(h.rows[DB][-1], id=9, version=5)),
)
broken(
    "epochs",
    [HIDDEN],
    an_older_epoch_writes=lambda h: end_with(h, epoch="1.1", number="99", owner="w1"),
    a_beat_is_counted_back=lambda h: see(h, -2, number="1"),
    an_epoch_with_two_owners=lambda h: see(h, -2, owner="w3"),
)
broken(
    "epochs",
    somebody_writes_who_does_not_own_it=lambda h: see(h, -2, seen_by="w3"),
    an_older_observation_of_the_same_epoch=lambda h: see(
        h, -2, observed_at=h.sights[DB][-4].fields["observed_at"]
    ),
)
broken(
    "epochs",
    [ABSENT],
    an_epoch_of_another_worker=lambda h: rewrite(h, 3, worker="w3"),
    an_older_identity_is_seen=lambda h: see(h, -2, identity="1.1.1", state="available"),
    journaled_out_of_order=lambda h: journal(h, h.journal.pop(0).transition),
)
broken(
    "epochs",
    [FORGOT],
    an_old_epoch_after_the_opening=lambda h: end_with(h, epoch="1.1"),
    a_write_into_a_closed_generation=lambda h: see_while_gone(h, {"number": "1"}, {"number": "2"}),
)


broken(
    "terms",
    a_term_twice=lambda h: h.terms.append((at(90), "s1", 2)),
    a_term_falls=lambda h: h.terms.append((at(90), "s1", 1)),
)
broken(
    "rules",
    [HIDDEN],
    a_doubt_for_nothing=lambda h: h.faults.clear(),
    a_doubt_of_one_who_reached_it=lambda h: retime(h, parties=frozenset({"w3"})),
    a_rule_that_leads_elsewhere=lambda h: rewrite(h, 2, rule="recovered"),
    a_fault_of_another_database=lambda h: retime(h, databases=frozenset({"ledger"})),
)
broken(
    "rules",
    [SPEAKS],
    an_answer_of_a_sound_server=lambda h: h.faults.clear(),
    a_rule_nobody_knows=lambda h: rewrite(h, 1, rule="guessed"),
)
broken(
    "rules",
    [fault(Effect.ABSENT, 15.5, 16.5)],
    a_doubt_before_the_fault=lambda h: retime(h, began=at(18), ended=at(19)),
)
broken(
    "rules",
    an_absence_unnoticed=lambda h: h.faults.append(fault(Effect.ABSENT, 60, 73)),
    a_silence_unnoticed=lambda h: h.faults.append(fault(Effect.SILENT, 60, 83)),
    two_short_absences_without_a_break=lambda h: h.faults.extend(
        [fault(Effect.ABSENT, 60, 68), fault(Effect.ABSENT, 68.5, 76)]
    ),
    no_evidence=lambda h: rewrite(h, 0, evidence=()),
    gone_from_the_cache=lambda h: h.cache.clear(),
)
broken(
    "rules",
    [ABSENT],
    a_second_absence_unnoticed=lambda h: h.faults.append(fault(Effect.ABSENT, 75, 95)),
    recovered_while_down=lambda h: retime(h, ended=at(100)),
    a_rule_from_a_state_it_does_not_leave=lambda h: rewrite(h, 3, rule="reopened"),
)
broken("rules", [LASTING], never_recovered=lambda h: retime(h, ended=at(60)))
broken(
    "rules",
    [fault(Effect.ABSENT, 80, 100)],
    an_earlier_absence_unnoticed=lambda h: h.faults.append(fault(Effect.ABSENT, 30, 50)),
)


@breaks("rules", HIDDEN)
def a_rule_on_the_wrong_evidence(history: History) -> None:
    own = told(history, 2).evidence[0]
    rewrite(history, 2, evidence=(replace(own, cause=Cause.PORT_CLOSED),))


@breaks("rules", ABSENT)
def confirmed_twice_in_one_absence(history: History) -> None:
    down, back = history.rows[DB][1:3], history.rows[DB].pop()
    chain = [back.transition]
    for source in [*down, back]:
        last = chain[-1]
        named = {"identity": Identity(last.identity.epoch, last.identity.n + 1)}
        named |= {"prev": last.identity, "at": last.at, "worker": last.worker}
        chain.append(replace(source.transition, **named))
    rows = enumerate(chain, start=4)
    history.rows[DB] += [TransitionRow(i, i, False, one.at, one) for i, one in rows]
    cache(history, identity=str(chain[-1].identity))


@breaks("rules", SPEAKS)
def an_answer_between_two_episodes(history: History) -> None:
    history.faults = [fault(Effect.SPEAKS, moment, moment + 1) for moment in (2, 110)]


@breaks("rules", LASTING)
def unavailable_between_two_absences(history: History) -> None:
    history.faults = [fault(Effect.ABSENT, 20, 25), fault(Effect.ABSENT, 60, None)]


@breaks("rules", fault(Effect.ABSENT, 20, 30))
def a_rule_to_a_state_it_does_not_reach(history: History) -> None:
    rewrite(history, 2, target=State.STARTING)
    rewrite(history, 3, source=State.STARTING, rule="reopened")


@breaks("rules", fault(Effect.SPEAKS, 20, None))
def a_rule_that_changes_nothing(history: History) -> None:
    again = another(history, source=State.STARTING)
    history.rows[DB].append(TransitionRow(3, 3, False, at(100), again))
    cache(history, identity=str(again.identity))


broken("connections", two_workers_hold_on=lambda h: connect(h, 100, 1, 2))
broken("connections", [KILLED], two_workers_hold_on_for_long=lambda h: connect(h, 60, 2, 1))
broken("stalls", a_loop_stands_still=lambda h: stall(h, 100, 0.9, 0.6))


@breaks("connections")
def three_connections(history: History) -> None:
    connect(history, 100, 3)
    history.faults.append(replace(KILLED, began=at(100)))  # no excuse for one worker alone


@breaks("stalls")
def another_worker_was_frozen(history: History) -> None:
    history.faults.append(fault(Effect.FROZEN, 90, 100, "w2"))
    stall(history, 100, 10.0, 0.1)


@breaks("stalls")
def still_long_after_the_thaw(history: History) -> None:
    history.faults.append(fault(Effect.FROZEN, 80, 90, "w1"))
    stall(history, 91.5, 0.4, 0.0)


def count(history: History, **counters: int) -> None:
    history.counted.append(Counted(at(100), counters))


def count_alone(history: History, **counters: int) -> None:
    history.counted = [Counted(at(1), counters)]


broken(
    "counters",
    a_counter_falls=lambda h: count(h, beats=3, transitions=4, rejected_conflict=0),
    a_counter_vanishes=lambda h: count(h, transitions=4),
    a_conflict_is_counted=lambda h: count_alone(h, identity_conflicts=1),
    trimmed_too_early=lambda h: count_alone(h, trimmed_unacknowledged=2),
)


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
    history.terms.append((at(90), "s1", 1))
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
    see_while_gone(history, {"number": "1"}, {"number": "1", "claim": "w1"})
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
    history.sights[DB].append(history.sights[DB][-1])
    end_with(history, observed_at=f"{at(20):.3f}")
    assert names(history) == {"epochs"}
    history.faults = [fault(Effect.CLOCK, 100, 125)]
    assert names(history) == set()


@pytest.mark.parametrize("seconds", [50, 90.9], ids=["frozen", "just-thawed"])
def test_a_frozen_worker_stands_still(seconds: float) -> None:
    history = tell(120, fault(Effect.FROZEN, 40, 90, "w1"))
    stall(history, seconds, 0.5, 0.0)
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
    connect(history, seconds, 2, 2, 2)
    assert names(history) == set()


def test_databases_of_one_server_share_its_connections() -> None:
    history = tell(120)
    connect(history, 100, 3)
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
        "away",
        "away-just-before",
        "away-before",
        "leader-killed",
        "leader-started-again",
    ],
)
def test_faults_of_ours_put_off_what_is_demanded(ours: list[Fault], delay: float) -> None:
    for length, broken in ((delay - 1, False), (delay + 1, True)):
        history = tell(60)
        history.faults = [fault(Effect.ABSENT, 60, 60 + length), *ours]
        history.ended = at(60 + length)
        cache(history, state="available")
        assert ("rules" in names(history)) is broken, length


def test_faults_of_ours_that_come_after_a_verdict_was_due_are_no_excuse() -> None:
    history = tell(60)
    history.faults = [fault(Effect.ABSENT, 60, 85), fault(Effect.AWAY, 75, 80, "redis")]
    history.ended = at(85)
    assert outages(history) == [(DB, at(60), at(85), at(72))]
    assert "rules" in names(history)


def test_what_is_shorter_than_it_may_go_unnoticed_is_no_outage() -> None:
    short = [fault(Effect.ABSENT, 20, 31), fault(Effect.SILENT, 60, 81)]
    assert outages(tell(120, *short, fault(Effect.SPEAKS, 90, 119))) == []


def test_nothing_is_demanded_while_redis_is_away_for_good() -> None:
    history = tell(120, fault(Effect.ABSENT, 60, 90), fault(Effect.AWAY, 50, None, "redis"))
    del history.rows[DB][1:], history.sights[DB][12:], history.journal[1:], history.accepted[1:]
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
    seen = {**old, "identity": str(lost.identity), "state": "uncertain"}
    history.sights[DB].append(Sight(at(85.1), seen))
    cache(history, epoch="1.9", owner="w2", seen_by="w2", number="1")
    assert demand(history) == 1
    history.faults.remove(DIED)
    assert names(history) == {"nothing_lost", "epochs"}


def test_the_chain_may_miss_exactly_what_is_excused() -> None:
    for missing in (2, 1):
        died = fault(Effect.KILLED, 66, None, "w1", "w2")
        history = tell(120, ABSENT, fault(Effect.FORGOT, 66, 67), died)
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
    del history.rows[DB][1:3]
    reversion(history, 2, i=1)
    assert names(history) >= {"chain", "nothing_lost"}
    set_back = fault(Effect.RESTORED, lost[0].at - START - 1, lost[1].at - START + 1, "postgres")
    for too_short in ({"began": lost[1].at}, {"ended": lost[0].at + 0.001}):
        history.faults[1:] = [replace(set_back, **too_short)]
        assert names(history) >= {"nothing_lost"}
    history.faults[1:] = [set_back]
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
    found = check(history)
    assert {(one.invariant, one.about) for one in found} == {("secrets", "dump")}
    assert not any(TEXT in str(one) for one in found)


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
    written = {"dump": encode(before + secret + after)}
    history = History(START, START, secrets=(secret,), written=written)
    assert names(history) == {"secrets"}


# --- feeling goes on ------------------------------------------------------------------------------


def test_lateness_counts_what_is_beyond_the_interval() -> None:
    history = History(START, START + 30)
    moments = (1.0, 1.0, 6.0, 11.5, 20.0)
    history.sights[DB] = [Sight(at(m + 0.1), {"observed_at": f"{at(m):.3f}"}) for m in moments]
    assert [round(late, 3) for late in lateness(history, [DB], (at(1), at(25)))] == [0, 0.5, 3.5, 0]
    # nothing at its end is late too
    assert max(lateness(history, [DB], (at(1), at(30)))) == pytest.approx(5)
    history.sights[DB].clear()
    assert lateness(history, [DB], (at(1), at(30))) == [24]


def test_caught_up_waits_for_a_newer_observation() -> None:
    history = History(START, START + 30)
    moments = (9, 8), (11, 8), (12.5, 10.2)
    history.sights[DB] = [Sight(at(m), {"observed_at": f"{at(o):.3f}"}) for m, o in moments]
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
        one = rows[i].transition
        rows[i] = replace(rows[i], transition=replace(one, **ALTERED[how](one)))
    assert names(history)
