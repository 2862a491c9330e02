"""What must hold of any plan, in the order of what matters; then what it does in plain cases."""

from collections import Counter
from dataclasses import dataclass
from math import ceil

from hypothesis import given
from hypothesis import strategies as st

from monitor.core.assignment import Move, Refusal, Worker, plan
from monitor.core.fair_share import shares
from monitor.core.timing import FAULTS_AWAY, REFUSED_FOR
from tests.core.making import examples

NOW = 1_763_000_000.0
ZONES = ["", "", "eu", "us"]


@dataclass(frozen=True)
class Fleet:
    databases: dict[str, str]
    workers: tuple[Worker, ...]
    current: dict[str, str]
    refusals: tuple[Refusal, ...] = ()

    def plan(self) -> tuple[Move, ...]:
        return plan(self.databases, self.workers, self.current, self.refusals, NOW)

    def after(self, moves: tuple[Move, ...]) -> dict[str, str]:
        return self.current | {move.database: move.target for move in moves}

    def with_current(self, current: dict[str, str]) -> "Fleet":
        return Fleet(self.databases, self.workers, current, self.refusals)

    def settled(self) -> "Fleet":
        return self.with_current(self.after(self.plan()))

    def with_workers(self, *workers: Worker) -> "Fleet":
        return Fleet(self.databases, workers, self.current)

    def loads(self, current: dict[str, str]) -> Counter[str]:
        return Counter(current[name] for name in self.databases)


TWO = (Worker("w1"), Worker("w2"))


def fleet(databases: int, workers: int) -> Fleet:
    """Make a fleet that is planned."""
    names = {f"db{number:03}": "" for number in range(databases)}
    return Fleet(names, tuple(Worker(f"w{number:02}") for number in range(workers)), {}).settled()


@st.composite
def fleets(draw: st.DrawFn, zones: bool = True, refused: bool = True, tight: bool = False) -> Fleet:
    """Any fleet, however bad its present owners are."""
    zone = st.sampled_from(ZONES if zones else [""])
    capacity = st.sampled_from([0, 1, 3, 10, 10_000]) if tight else st.just(10_000)
    count = draw(st.integers(1, 7))
    workers = tuple(Worker(f"w{number}", draw(zone), draw(capacity)) for number in range(count))
    databases = {f"db{number}": draw(zone) for number in range(draw(st.integers(0, 40)))}
    ids = [worker.id for worker in workers]
    owner = st.sampled_from([*ids, *ids[:1] * count, "gone", ""])  # often all on one
    current = {name: draw(owner) for name in databases}
    refusals = st.builds(
        Refusal,
        st.sampled_from(sorted(databases) or ["db0"]),
        st.sampled_from([*ids, "gone"]),
        st.sampled_from([NOW - age for age in (-1, 0, 5, 59.9, 60, 90, 600)]),
        st.sampled_from([False, False, True]),
    )
    told = draw(st.lists(refusals, max_size=25)) if refused else []
    return Fleet(databases, workers, current, tuple(told))


def young(one: Fleet) -> dict[str, dict[str, tuple[bool, float]]]:
    found: dict[str, dict[str, tuple[bool, float]]] = {}
    for refusal in sorted(one.refusals, key=lambda refusal: (refusal.our_fault, refusal.at)):
        if 0 <= NOW - refusal.at < (FAULTS_AWAY if refusal.our_fault else REFUSED_FOR):
            found.setdefault(refusal.database, {})[refusal.worker] = refusal.our_fault, refusal.at
    return found


def check(one: Fleet, current: dict[str, str]) -> None:
    """Total, then exclusion."""
    ids = {worker.id for worker in one.workers}
    for name in one.databases:
        assert current[name] in ids
        refused = young(one).get(name, {})
        if ids <= refused.keys() and all(refused[worker][0] for worker in ids):
            assert one.current[name] not in ids or one.current[name] == current[name]
        elif ids <= refused.keys():
            assert refused[current[name]] == min(refused[worker] for worker in ids)
        else:
            assert current[name] not in refused


@given(fleets(tight=True) | fleets())
@examples(30)
def test_every_database_has_an_owner_that_did_not_refuse_it(one):
    check(one, one.after(one.plan()))


@given(fleets(tight=True) | fleets())
@examples(30)
def test_a_planned_fleet_needs_no_further_plan(one):
    assert one.with_current(one.after(one.plan())).plan() == ()


@given(st.data(), fleets(tight=True) | fleets())
@examples(20)
def test_half_a_plan_is_as_good_a_start_as_any(data, one):
    """The leader may die after any move; whoever follows plans anew from what was done."""
    moves = one.plan()
    half = one.with_current(one.after(moves[: data.draw(st.integers(0, len(moves)))]))
    whole = half.after(half.plan())
    check(one, whole)
    assert one.with_current(whole).plan() == ()
    if not one.refusals:
        bounds = shares({worker.id: worker.capacity for worker in one.workers}, len(one.databases))
        assert all(load <= bounds[worker].limit for worker, load in one.loads(whole).items())


@given(fleets(refused=False))
@examples(25)
def test_no_worker_is_overloaded_and_none_is_left_without(one):
    loads = one.loads(one.after(one.plan()))
    mean = len(one.databases) / len(one.workers)
    assert max(loads.values(), default=0) <= ceil(1.25 * mean)
    if mean >= 1:
        assert min(loads[worker.id] for worker in one.workers) >= max(1, int(0.75 * mean))


@given(fleets(refused=False, tight=True))
@examples(25)
def test_capacities_hold_while_they_suffice(one):
    if sum(worker.capacity for worker in one.workers) >= len(one.databases):
        loads = one.loads(one.after(one.plan()))
        assert all(loads[worker.id] <= worker.capacity for worker in one.workers)


@given(fleets())
@examples(25)
def test_moves_are_true_and_each_database_moves_once(one):
    moves = one.plan()
    assert len({move.database for move in moves}) == len(moves)
    for move in moves:
        assert move.source == (one.current[move.database] or None)
        assert move.target != move.source
        assert (move.reason == "unowned") == (move.source is None)
        assert (move.reason == "owner_lost") == (move.source == "gone")
        assert move.reason != "cannot_reach" or move.source in young(one)[move.database]
        assert move.reason != "zone" or one.databases[move.database]


@given(fleets(), st.randoms(use_true_random=False))
@examples(10)
def test_the_order_of_what_is_given_does_not_matter(one, random):
    def mixed(items):
        return random.sample(list(items), len(items))

    databases, current = dict(mixed(one.databases.items())), dict(mixed(one.current.items()))
    other = Fleet(databases, tuple(mixed(one.workers)), current, tuple(mixed(one.refusals)))
    assert other.plan() == one.plan()


@given(
    st.integers(0, 120),
    st.integers(1, 8),
    st.lists(st.tuples(st.booleans(), st.integers(0, 7)), max_size=8),
)
@examples(20)
def test_a_join_or_a_leave_moves_no_more_than_a_share(databases, workers, changes):
    one = fleet(databases, workers)
    for number, (joins, which) in enumerate(changes):
        before = one.workers
        if joins:
            one = one.with_workers(*before, Worker(f"w1{number}"))
        elif len(before) > 1:
            one = one.with_workers(*(w for w in before if w != before[which % len(before)]))
        moves = one.plan()
        lost = {move.database for move in moves if move.reason == "owner_lost"}
        assert len(moves) <= ceil(1.01 * databases / len(one.workers))
        assert joins or len(moves) == len(lost)  # a leave moves what the leaver had, nothing else
        one = one.with_current(one.after(moves))
        loads = one.loads(one.current)
        assert max(loads.values(), default=0) - min(loads[worker.id] for worker in one.workers) <= 1


@given(fleets(refused=False, tight=True), st.integers(0, 30))
@examples(20)
def test_shares_hold_the_whole_fleet(one, more):
    total = len(one.databases) + more
    capacities = {worker.id: worker.capacity for worker in one.workers}
    divided = shares(capacities, total)
    assert sum(share.limit for share in divided.values()) >= total
    for worker, share in divided.items():
        assert 0 <= share.low <= share.fair <= share.limit
        assert share.limit <= capacities[worker] or sum(capacities.values()) < total


def test_nobody_lives_and_nothing_is_planned():
    assert plan({"db1": ""}, [], {"db1": "w1"}, [], NOW) == ()
    assert plan({}, [Worker("w1")], {"db1": "w1"}, [], NOW) == ()


def test_the_lost_are_found_a_home_before_anything_else():
    names = ["a", "b", "c", "d", "e", "x", "y"]
    current = dict.fromkeys("abcde", "w1") | {"x": "gone"}
    told = (Refusal("e", "w1", NOW),)
    one = Fleet(dict.fromkeys(names, ""), (*TWO, Worker("w3")), current, told)
    assert [(move.database, move.source, move.reason) for move in one.plan()] == [
        ("y", None, "unowned"),
        ("x", "gone", "owner_lost"),
        ("e", "w1", "cannot_reach"),
        ("a", "w1", "overloaded"),
    ]


def test_a_database_goes_home_while_there_is_room():
    names = {f"db{number}": "eu" if number in (0, 1, 2) else "" for number in range(8)}
    current = {name: "w1" if number < 5 else "w2" for number, name in enumerate(names)}
    one = Fleet(names, (Worker("w1"), Worker("w2", "eu")), current)
    assert one.plan() == (Move("db0", "w1", "w2", "zone"),)  # then both hold four


def test_a_refusal_holds_for_a_minute():
    one = Fleet({"a": ""}, TWO, {"a": "w1"})
    for age, moved in ((0, True), (59.9, True), (60, False)):
        told = (Refusal("a", "w1", NOW - age),)
        assert bool(Fleet(one.databases, one.workers, one.current, told).plan()) == moved


def test_what_all_refuse_goes_to_the_one_whose_refusal_is_longest_ago():
    told = (Refusal("a", "w1", NOW - 1), Refusal("a", "w2", NOW - 9), Refusal("a", "w2", NOW - 50))
    two = Fleet({"a": ""}, TWO, {"a": "w1"}, told)
    assert two.plan() == (Move("a", "w1", "w2", "cannot_reach"),)
    assert Fleet(two.databases, two.workers, {"a": "w2"}, told).plan() == ()
    assert Fleet(two.databases, two.workers[:1], {"a": "w1"}, told).plan() == ()
    again = (Refusal("a", "w1", NOW - 20), Refusal("a", "w2", NOW - 1), told[2])
    assert Fleet(two.databases, two.workers, {"a": "w1"}, again).plan() == ()


def test_a_worker_that_was_hindered_is_the_last_to_get_it_again():
    told = (Refusal("a", "w1", NOW - 1), Refusal("a", "w2", NOW - 599, our_fault=True))
    two = Fleet({"a": ""}, TWO, {"a": "w2"}, told)
    assert two.plan() == (Move("a", "w2", "w1", "cannot_reach"),)
    assert two.with_current({"a": "w1"}).plan() == ()
    three = Fleet(two.databases, (*two.workers, Worker("w3")), {"a": "w1"}, told)
    assert three.plan() == (Move("a", "w1", "w3", "cannot_reach"),)


def test_where_all_are_hindered_nothing_moves():
    ages = {"w1": 1, "w2": 99}
    told = tuple(Refusal("a", who, NOW - age, our_fault=True) for who, age in ages.items())
    for owner in ("w1", "w2"):
        assert Fleet({"a": ""}, TWO, {"a": owner}, told).plan() == ()


def test_exclusion_beats_the_bound():
    names = {f"db{number}": "" for number in range(10)}
    told = tuple(Refusal(name, "w1", NOW) for name in names)
    one = Fleet(names, TWO, dict.fromkeys(names, "w1"), told)
    assert one.loads(one.after(one.plan())) == Counter({"w2": 10})


def test_a_joiner_gets_its_share_though_nobody_is_above_the_bound():
    one = fleet(100, 9)
    moves = one.with_workers(*one.workers, Worker("x")).plan()
    assert len(moves) == 10
    assert {move.target for move in moves} == {"x"}


def test_an_uneven_fleet_within_the_bounds_is_left_in_peace():
    names = {f"db{number:02}": "" for number in range(20)}
    current = {name: "w1" if number < 12 else "w2" for number, name in enumerate(names)}
    assert Fleet(names, TWO, current).plan() == ()


def test_a_database_stays_in_its_zone_when_others_must_leave():
    names = {f"db{number}": "eu" if number < 5 else "" for number in range(10)}
    one = Fleet(names, (Worker("w1", "eu"), Worker("w2")), dict.fromkeys(names, "w1"))
    moved = {move.database for move in one.plan()}
    assert moved == {f"db{number}" for number in range(5, 10)}


def test_a_worker_without_capacity_is_emptied():
    drained = fleet(10, 2).with_workers(Worker("w00", capacity=0), Worker("w01"))
    assert drained.loads(drained.settled().current) == Counter({"w01": 10})


def held(**holdings: str) -> dict[str, str]:
    """Turn worker=names into name: worker."""
    return {name: worker for worker, names in holdings.items() for name in names.split()}


def test_a_newcomer_goes_where_its_zone_is_however_full():
    current = held(w1="a", w2="b c")
    one = Fleet(dict.fromkeys("abc", "") | {"d": "eu"}, (Worker("w1"), Worker("w2", "eu")), current)
    assert one.plan() == (Move("d", None, "w2", "unowned"),)


def test_the_room_of_a_zone_is_for_its_own_first():
    workers = (Worker("w1", "eu", capacity=1), Worker("w2"))
    one = Fleet({"a": "", "b": "eu", "c": ""}, workers, held(w2="c"))
    assert one.after(one.plan()) == held(w1="b", w2="a c")


def test_a_refusal_bars_one_database_and_no_other():
    names = [f"db{number:02}" for number in range(18)]
    current = held(w1=" ".join(names[:8]), w2=" ".join(names[8:]))
    databases = dict.fromkeys([*names, "x", "y"], "")
    one = Fleet(databases, TWO, current, (Refusal("x", "w1", NOW),))
    assert one.after(one.plan()) == current | {"x": "w2", "y": "w1"}


def test_nothing_goes_home_to_a_worker_that_refused_it():
    databases = {"a": "eu", "b": "", "c": "", "d": ""}
    one = Fleet(databases, (Worker("w1"), Worker("w2", "eu")), held(w1="a b c", w2="d"))
    assert one.plan() == (Move("a", "w1", "w2", "zone"),)
    refused = Fleet(one.databases, one.workers, one.current, (Refusal("a", "w2", NOW),))
    assert refused.plan() == ()


def test_going_home_leaves_nobody_with_too_little():
    current = held(w1="a", w2="b", w3="c d e", w4="f g h")
    workers = (Worker("w1"), Worker("w2", "eu"), Worker("w3"), Worker("w4"))
    assert Fleet(dict.fromkeys(current, "") | {"a": "eu"}, workers, current).plan() == ()


def test_the_overloaded_keep_what_is_at_home_with_them():
    home = [f"a{number:02}" for number in range(13)]
    others = [f"b{number:02}" for number in range(16)]
    current = held(w1=" ".join([*home, "z"]), w2=" ".join(others[:8]), w3=" ".join(others[8:]))
    databases = dict.fromkeys(home, "eu") | dict.fromkeys([*others, "z"], "")
    one = Fleet(databases, (Worker("w1", "eu"), Worker("w2"), Worker("w3")), current)
    assert one.plan() == (Move("z", "w1", "w2", "overloaded"),)


def test_where_nobody_has_room_the_one_least_above_its_limit_gets_it():
    workers = (Worker("w1"), Worker("w2", capacity=1), Worker("w3", capacity=1))
    told = (Refusal("x", "w1", NOW),)
    one = Fleet(dict.fromkeys("pqrx", ""), workers, held(w2="p q", w3="r"), told)
    assert one.after(one.plan())["x"] == "w3"


def test_joiners_that_come_together_share_alike():
    one = fleet(100, 9)
    moves = one.with_workers(*one.workers, Worker("x1"), Worker("x2")).plan()
    assert Counter(move.target for move in moves) == {"x1": 9, "x2": 9}
    assert not {move.source for move in moves} & {"x1", "x2"}
