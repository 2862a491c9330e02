"""The fencing protocol, searched: no violation within the bounds, and one for each repair left out.

`pytest -s tests/model` prints how many worlds each search saw; a failure prints the shortest
history that leads to it.
"""

import os
from collections.abc import Callable

import pytest

from tests.model import situations
from tests.model.repairs import Repair, Without
from tests.model.search import (
    DRAINING,
    ENTERING,
    LEARNING,
    OPENING,
    RESTORING,
    Bounds,
    Found,
    Situation,
    search,
)
from tests.model.starts import (
    crowded,
    deposed,
    fresh,
    joining,
    opening,
    outlived,
    parted,
    relieved,
    running,
)
from tests.model.world import World

DEEPER = int(os.environ.get("FEELER_DEEPER", "1")) > 1

Start = Callable[[Without], World]
Case = tuple[Start, Bounds]
INTACT: dict[Case, Found] = {}  # what searches of the whole protocol have found

EXHAUSTED = [
    (fresh, Bounds((), feels=2, assigns=2, elections=2)),
    (running, Bounds(("lost_reply",), feels=2, assigns=2, elections=1)),
    (running, Bounds(("crash",), feels=2, assigns=2, elections=1)),
    (running, Bounds(("postgres_away",), feels=2, assigns=2, elections=1)),
    (fresh, Bounds(("postgres_away",), feels=1, assigns=1, elections=2)),
    (running, Bounds(("flush",), feels=2, assigns=2, elections=0)),
    (running, Bounds(("flush",), feels=1, assigns=2, elections=1)),
    (opening, Bounds(("flush",), feels=1, assigns=1, elections=1)),
    (running, Bounds(("failover",), feels=1, assigns=2, elections=0)),
    (running, Bounds(("failover",), feels=1, assigns=1, elections=1)),
    (opening, Bounds(("failover",), feels=1, assigns=1, elections=0)),
    (deposed, Bounds(("flush",), feels=1, assigns=1, elections=0)),
    (deposed, Bounds(("failover",), feels=1, assigns=1, elections=0)),
    (running, Bounds(("crash", "flush"), feels=1, assigns=2, elections=0)),
    (running, Bounds(("lost_reply", "flush"), feels=1, assigns=1, elections=0)),
    (running, Bounds(("lost_reply", "failover"), feels=1, assigns=1, elections=0)),
    (running, Bounds(("failover", "failback"), feels=1, assigns=1, elections=0)),
    (running, Bounds(("twin",), feels=2, assigns=2, elections=1)),
    (running, Bounds(("twin", "crash"), feels=2, assigns=1, elections=0)),
    (running, Bounds(("twin", "lost_reply"), feels=2, assigns=1, elections=0)),
    (running, Bounds(("flush", "intruder"), feels=0, assigns=1, elections=1)),
    (outlived, Bounds((), feels=2, assigns=1, elections=1)),
    (outlived, Bounds(("flush",), feels=1, assigns=1, elections=0)),
    (joining, Bounds(("failover", "intruder"), feels=0, assigns=1, elections=0)),
    (running, Bounds(("flush",), feels=0, assigns=1, elections=1, resting=True)),
    (joining, Bounds((), feels=1, assigns=1, elections=1, resting=True)),
]
STARVING = [
    (fresh, Bounds((), feels=1, assigns=2, elections=1, strained=True)),
    (fresh, Bounds(("postgres_away",), feels=1, assigns=1, elections=1, strained=True)),
    (running, Bounds(("flush",), feels=1, assigns=1, elections=0, strained=True)),
    (running, Bounds(("lost_reply",), feels=2, assigns=1, elections=0, strained=True)),
]
CUT_SHORT = [
    (running, Bounds(("failover",), feels=2, assigns=2, elections=1, states=50_000)),
    (running, Bounds(("flush", "postgres_away"), feels=1, assigns=2, elections=1, states=30_000)),
]
# Searches that must also have met certain situations, or their bounds say nothing.
MET: list[tuple[Start, Bounds, tuple[Situation, ...]]] = [
    # the journal, its groups and its limit
    (
        running,
        Bounds(("flush",), feels=1, assigns=1, elections=0, parts=(DRAINING,)),
        (situations.replayed_after_the_drain, situations.trimmed_while_retained),
    ),
    (
        running,
        Bounds(("failover",), feels=1, assigns=1, elections=0, parts=(DRAINING,)),
        (situations.replayed_after_the_drain, situations.trimmed_while_retained),
    ),
    (
        running,
        Bounds(("force", "crash"), feels=2, assigns=1, elections=0, parts=(DRAINING,)),
        (situations.lost_to_the_journal,),
    ),
    (
        running,
        Bounds(("expire", "flush"), feels=1, assigns=1, elections=0, parts=(DRAINING,)),
        (situations.durable_and_forgotten,),
    ),
    # reports, openings, entering and learning in their parts
    (
        opening,
        Bounds(("flush",), feels=1, assigns=1, elections=0, parts=(RESTORING, ENTERING)),
        (
            situations.reporting_into_another_memory,
            situations.reporting_into_an_open_generation,
            situations.entering_what_is_closed,
        ),
    ),
    (
        opening,
        Bounds(("flush", "lost_part"), feels=1, assigns=1, elections=0, parts=(RESTORING,)),
        (situations.part_outlives_memory,),
    ),
    (
        running,
        Bounds(("flush",), feels=1, assigns=1, elections=1, parts=(OPENING,)),
        (situations.half_open, situations.others_open_first),
    ),
    (
        running,
        Bounds(("flush",), feels=1, assigns=1, elections=0, parts=(LEARNING,)),
        (situations.read_in_another_generation,),
    ),
    (
        running,
        Bounds(("late_answer", "flush"), feels=2, assigns=1, elections=0),
        (situations.released_in_flight, situations.lost_in_flight),
    ),
    # partitions: a leader off Postgres, one without any worker, one that knows its workers from an
    # old memory
    (
        running,
        Bounds(("flush", "cut"), feels=0, assigns=1, elections=1),
        (situations.opened_without_postgres,),
    ),
    (
        running,
        Bounds(("flush",), feels=1, assigns=2, elections=0, ownerless=True),
        (situations.open_without_an_owner,),
    ),
    (joining, Bounds((), feels=1, assigns=1, elections=1), (situations.passed_over,)),
    # two masters
    (
        running,
        Bounds(("left_worker",), feels=1, assigns=1, elections=0),
        (situations.two_masters_disagree, situations.two_owners),
    ),
    (
        parted,
        Bounds(("stray",), feels=2, assigns=1, elections=0),
        (situations.strayed,),
    ),
    # a third worker
    (crowded, Bounds(("flush",), feels=1, assigns=1, elections=0), (situations.passed_over,)),
    (crowded, Bounds(("crash",), feels=2, assigns=2, elections=0), (situations.three_memories,)),
]
DEEP: list[tuple[Start, Bounds, tuple[Situation, ...]]] = [
    (
        running,
        Bounds(("left_leader",), feels=1, assigns=2, elections=1, states=2_000_000),
        (situations.two_masters_disagree, situations.two_owners),
    ),
    (
        running,
        Bounds(("left_worker", "stray"), feels=2, assigns=1, elections=0, states=2_000_000),
        (situations.two_masters_disagree,),
    ),
    (
        running,
        Bounds(
            ("flush", "flush_again", "lost_part"),
            1,
            1,
            0,
            states=2_000_000,
            parts=(RESTORING, ENTERING),
        ),
        (situations.part_outlives_memory, situations.entering_what_is_closed),
    ),
    (
        running,
        Bounds(
            ("failover", "late_answer"),
            feels=2,
            assigns=1,
            elections=0,
            states=2_000_000,
            parts=(DRAINING,),
        ),
        (situations.released_in_flight,),
    ),
    (
        running,
        Bounds(
            ("failover",),
            feels=1,
            assigns=1,
            elections=1,
            states=2_000_000,
            parts=(OPENING, RESTORING),
        ),
        (situations.half_open,),
    ),
    (
        running,
        Bounds(("flush", "cut"), feels=1, assigns=2, elections=1, states=2_000_000),
        (situations.opened_without_postgres,),
    ),
    (
        crowded,
        Bounds(("flush",), feels=2, assigns=2, elections=0, states=2_000_000),
        (situations.three_memories,),
    ),
    (
        crowded,
        Bounds(("failover",), feels=1, assigns=2, elections=0, states=2_000_000),
        (situations.passed_over,),
    ),
    (crowded, Bounds(("left_worker",), 1, 2, 0, states=2_000_000), (situations.two_owners,)),
]


def intact(start: Start, bounds: Bounds) -> Found:
    """Search the whole protocol, once only."""
    if (start, bounds) not in INTACT:
        asked = next((asked for *case, asked in MET + DEEP if case == [start, bounds]), ())
        INTACT[start, bounds] = search(start(frozenset()), bounds, asked=asked)
    return INTACT[start, bounds]


def named(case: tuple[Start, Bounds, tuple[Situation, ...]] | Case) -> str:
    start, bounds = case[:2]
    more = [name for name in ("ownerless", "resting") if getattr(bounds, name)]
    how = "+".join((*bounds.faults, *bounds.parts, *more)) or "pauses"
    return f"{start.__name__}-{how}-{bounds.feels}-{bounds.assigns}-{bounds.elections}"


@pytest.mark.parametrize("case", EXHAUSTED + STARVING, ids=named)
def test_no_history_within_bounds_breaks_the_protocol(case: Case) -> None:
    found = intact(*case)
    print(named(case), found)
    assert not found.violation, str(found)
    assert found.exhausted


@pytest.mark.parametrize("case", MET + (DEEP if DEEPER else []), ids=named)
def test_no_history_through_these_situations_breaks_the_protocol(
    case: tuple[Start, Bounds, tuple[Situation, ...]],
) -> None:
    start, bounds, asked = case
    found = intact(start, bounds)
    met = {situation.__name__: count for situation, count in zip(asked, found.reached, strict=True)}
    print(named(case), found, met)
    assert not found.violation, str(found)
    assert found.exhausted
    assert all(met.values()), f"never met: {met}"


@pytest.mark.parametrize("case", CUT_SHORT, ids=named)
def test_no_near_history_breaks_the_protocol(case: Case) -> None:
    found = intact(*case)
    print(named(case), found)
    assert not found.violation, str(found)
    assert found.states >= case[1].states


# What goes wrong without each repair: from where, under which faults, within which bounds, and how.
ABLATIONS: dict[Repair, tuple[Start, Bounds, str]] = {
    Repair.ASSIGN_FENCED: (deposed, Bounds((), feels=0, assigns=1, elections=0), "STALE"),
    Repair.TERM_EACH: (running, Bounds(("crash",), feels=0, assigns=1, elections=1), "CLOSED"),
    Repair.IDENTITY: (deposed, Bounds(("flush",), feels=2, assigns=1, elections=0), "TWIN"),
    Repair.GATED: (running, Bounds(("failover",), feels=0, assigns=1, elections=0), "STALE"),
    Repair.LIFE: (running, Bounds(("failover",), feels=0, assigns=1, elections=0), "STALE"),
    Repair.REPLICATION_ID: (
        running,
        Bounds(("failover", "failback"), feels=1, assigns=0, elections=0),
        "LOST",
    ),
    Repair.FRESH_EPOCHS: (running, Bounds(("failover",), feels=0, assigns=1, elections=0), "STALE"),
    Repair.RENAMED: (running, Bounds(("flush",), feels=1, assigns=0, elections=0), "LOST"),
    Repair.BEGUN: (opening, Bounds(("flush",), feels=0, assigns=1, elections=1), "STALE"),
    Repair.ASKED: (opening, Bounds(("failover",), feels=1, assigns=1, elections=0), "FORGOTTEN"),
    Repair.WAITED: (running, Bounds(("flush",), feels=1, assigns=1, elections=0), "FORGOTTEN"),
    Repair.CONFIRMED: (deposed, Bounds(("flush",), feels=0, assigns=1, elections=0), "STALE"),
    Repair.RESTORED: (running, Bounds(("flush",), feels=1, assigns=0, elections=0), "FORGOTTEN"),
    Repair.RELEASED: (running, Bounds(("flush",), feels=1, assigns=1, elections=0), "FORGOTTEN"),
    Repair.TERM_RESTORED: (
        deposed,
        Bounds(("flush", "postgres_away"), feels=0, assigns=1, elections=0),
        "STALE",
    ),
    Repair.MERGED: (running, Bounds(("flush",), feels=1, assigns=1, elections=0), "FORGOTTEN"),
    Repair.LATE_MERGED: (running, Bounds(("flush",), feels=1, assigns=1, elections=0), "DIVERGED"),
    Repair.ENTERED: (running, Bounds(("flush",), feels=1, assigns=1, elections=0), "WENT BACK"),
    Repair.SEEDED: (running, Bounds(("flush",), feels=1, assigns=2, elections=0), "ROLLBACK"),
    Repair.TENTATIVE: (running, Bounds(("flush",), feels=1, assigns=0, elections=0), "PHANTOM"),
    Repair.SAME_AGAIN: (
        running,
        Bounds(("lost_reply", "flush"), feels=1, assigns=1, elections=0),
        "LOST",
    ),
    Repair.FOUND_REPLAYED: (
        running,
        Bounds(("lost_reply", "flush"), feels=1, assigns=1, elections=0),
        "LOST",
    ),
    Repair.INSTALLED: (fresh, Bounds(("postgres_away",), feels=0, assigns=1, elections=1), "STUCK"),
    Repair.WITH_EVENTS: (
        fresh,
        Bounds(("postgres_away",), feels=0, assigns=1, elections=1, strained=True),
        "STARVED",
    ),
    Repair.ONE_STEP: (running, Bounds(("flush",), feels=1, assigns=0, elections=0), "LOST"),
    Repair.RETAINED: (running, Bounds(("flush",), feels=1, assigns=0, elections=0), "LOST"),
    Repair.REPLAYED: (running, Bounds(("flush",), feels=1, assigns=0, elections=0), "LOST"),
    Repair.ACKNOWLEDGED: (running, Bounds(("flush",), feels=2, assigns=0, elections=0), "LOST"),
    Repair.TRIMMED: (
        running,
        Bounds((), feels=1, assigns=0, elections=0, parts=(DRAINING,)),
        "LOST",
    ),
    Repair.GROUPED: (
        running,
        Bounds(("flush",), feels=1, assigns=1, elections=0, parts=(DRAINING,)),
        "HOARDED",
    ),
    Repair.ACKED_LAST: (
        running,
        Bounds((), feels=1, assigns=0, elections=0, parts=(DRAINING,)),
        "HOARDED",
    ),
    Repair.REPEATED: (
        running,
        Bounds(("force",), feels=1, assigns=0, elections=0, parts=(DRAINING,)),
        "LOST",
    ),
    Repair.HANDSHAKE: (
        opening,
        Bounds(("flush", "lost_part"), 1, 1, 0, parts=(RESTORING,)),
        "FORGOTTEN",
    ),
    Repair.ATTEMPTS: (
        opening,
        Bounds(("flush", "lost_part"), 1, 1, 0, parts=(RESTORING,)),
        "FORGOTTEN",
    ),
    Repair.SETTLED: (
        running,
        Bounds(("late_answer", "flush"), feels=1, assigns=1, elections=0),
        "FORGOTTEN",
    ),
    Repair.HEARD_LATE: (
        running,
        Bounds(("late_answer", "flush"), feels=2, assigns=1, elections=0),
        "LOST",
    ),
    Repair.GIVEN_UP: (
        running,
        Bounds(("lost_reply", "flush"), feels=1, assigns=1, elections=0),
        "LOST",
    ),
    Repair.KEPT: (
        running,
        Bounds(("flush",), feels=1, assigns=1, elections=0, parts=(LEARNING,)),
        "WENT BACK",
    ),
    Repair.UNOWNED: (
        running,
        Bounds(("flush",), feels=1, assigns=2, elections=0, ownerless=True),
        "DIVERGED",
    ),
    Repair.MET: (joining, Bounds((), feels=1, assigns=1, elections=1), "FORGOTTEN"),
    Repair.RESTED: (relieved, Bounds((), feels=1, assigns=1, elections=1), "FORGOTTEN"),
    Repair.NEVER_BACK: (parted, Bounds(("stray",), feels=2, assigns=0, elections=0), "ROLLBACK"),
    Repair.OUTLIVED: (outlived, Bounds((), feels=0, assigns=0, elections=0), "LOST"),
    Repair.SIGNED: (running, Bounds(("intruder",), feels=0, assigns=0, elections=0), "TAKEN"),
    Repair.NAME_RESTORED: (
        running,
        Bounds(("flush", "intruder"), feels=0, assigns=0, elections=0),
        "TAKEN",
    ),
    Repair.BOUND: (running, Bounds(("twin",), feels=2, assigns=0, elections=0), "CONFLICT"),
    Repair.PROVEN: (running, Bounds((), feels=0, assigns=0, elections=0, strained=True), "STARVED"),
}


SECOND = {Repair.ENTERED: Repair.KEPT}  # what would repair it as well, and is left out in any case


@pytest.mark.parametrize("repair", Repair, ids=lambda repair: repair.name)
def test_each_repair_is_needed(repair: Repair) -> None:
    start, bounds, kind = ABLATIONS[repair]
    without = frozenset({SECOND[repair]} if repair in SECOND else ())
    found = search(start(without), bounds, without) if without else intact(start, bounds)
    assert not found.violation, str(found)
    without |= {repair}
    found = search(start(without), bounds, without)
    print(f"without {repair.name}:", found)
    assert found.violation.startswith(kind), str(found)


def test_the_loss_that_is_known() -> None:
    """An answer was lost, the database moved on, and Redis lost its memory before the drain."""
    found = search(running(), Bounds(("lost_reply", "flush"), feels=2, assigns=1, elections=0))
    assert found.violation.startswith("LOST"), str(found)


# What may be lost, exactly: only what no live worker retains, and then only with an entry or a
# memory lost.
LOSABLE = [
    (("crash",), False),
    (("force",), False),
    (("expire",), False),
    (("flush",), False),
    (("failover",), False),
    (("left_worker",), False),
    (("late_answer", "flush"), False),
    (("crash", "expire"), False),
    (("crash", "force"), True),
    (("crash", "flush"), True),
    (("crash", "failover"), True),
]


@pytest.mark.parametrize(
    ("faults", "losable"), LOSABLE, ids=["+".join(faults) for faults, _ in LOSABLE]
)
def test_a_transition_is_lost_only_with_its_worker_and_an_entry_or_a_memory(
    faults: tuple[str, ...], losable: bool
) -> None:
    bounds = Bounds(faults, feels=1, assigns=1, elections=0, parts=(DRAINING,))
    found = search(running(), bounds, asked=(situations.gone_for_good,))
    print("+".join(faults), found, found.reached)
    assert not found.violation, str(found)
    assert found.exhausted
    assert (found.reached > (0,)) is losable


def test_what_does_not_hold_with_two_masters() -> None:
    """Both take writes, the older epoch after the newer; what the old one takes is known at the new
    one only later.
    """
    found = search(
        running(), Bounds(("left_worker",), feels=0, assigns=1, elections=0, one_truth=True)
    )
    assert found.violation.startswith("STALE"), str(found)
