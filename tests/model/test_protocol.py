"""The fencing protocol, searched: no violation within the bounds, and one for each repair left out.

`pytest -s tests/model` prints how many worlds each search saw; a failure prints the shortest
history that leads to it.
"""

import os
from collections.abc import Callable
from typing import Any

import pytest

from tests.model import situations as met
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
Asked = tuple[Case, tuple[Situation, ...]]
INTACT: dict[Case, Found] = {}  # what searches of the whole protocol have found


def case(start: Start, faults: str, feels: int, assigns: int, elections: int, **more: Any) -> Case:
    """Say where a search starts, what may fail, and how much may happen."""
    return start, Bounds(tuple(faults.split()), feels, assigns, elections, **more)


EXHAUSTED = [
    case(fresh, "", 2, 2, 2),
    case(running, "lost_reply", 2, 2, 1),
    case(running, "crash", 2, 2, 1),
    case(running, "postgres_away", 2, 2, 1),
    case(fresh, "postgres_away", 1, 1, 2),
    case(running, "flush", 2, 2, 0),
    case(running, "flush", 1, 2, 1),
    case(opening, "flush", 1, 1, 1),
    case(running, "failover", 1, 2, 0),
    case(running, "failover", 1, 1, 1),
    case(opening, "failover", 1, 1, 0),
    case(deposed, "flush", 1, 1, 0),
    case(deposed, "failover", 1, 1, 0),
    case(running, "crash flush", 1, 2, 0),
    case(running, "lost_reply flush", 1, 1, 0),
    case(running, "lost_reply failover", 1, 1, 0),
    case(running, "failover failback", 1, 1, 0),
    case(running, "twin", 2, 2, 1),
    case(running, "twin crash", 2, 1, 0),
    case(running, "twin lost_reply", 2, 1, 0),
    case(running, "flush intruder", 0, 1, 1),
    case(outlived, "", 2, 1, 1),
    case(outlived, "flush", 1, 1, 0),
    case(joining, "failover intruder", 0, 1, 0),
    case(running, "flush", 0, 1, 1, resigning=True),
    case(joining, "", 1, 1, 1, resigning=True),
]
STARVING = [
    case(fresh, "", 1, 2, 1, strained=True),
    case(fresh, "postgres_away", 1, 1, 1, strained=True),
    case(running, "flush", 1, 1, 0, strained=True),
    case(running, "lost_reply", 2, 1, 0, strained=True),
]
CUT_SHORT = [
    case(running, "failover", 2, 2, 1, states=50_000),
    case(running, "flush postgres_away", 1, 2, 1, states=30_000),
]
# Searches that must also have met certain situations, or their bounds say nothing.
MET: list[Asked] = [
    # the journal, its groups and its limit
    (
        case(running, "flush", 1, 1, 0, parts=(DRAINING,)),
        (met.replayed_after_the_drain, met.trimmed_while_retained),
    ),
    (
        case(running, "failover", 1, 1, 0, parts=(DRAINING,)),
        (met.replayed_after_the_drain, met.trimmed_while_retained),
    ),
    (case(running, "force crash", 2, 1, 0, parts=(DRAINING,)), (met.lost_to_the_journal,)),
    (case(running, "expire flush", 1, 1, 0, parts=(DRAINING,)), (met.durable_and_forgotten,)),
    # reports, openings, entering and learning in their parts
    (
        case(opening, "flush", 1, 1, 0, parts=(RESTORING, ENTERING)),
        (
            met.reporting_into_another_memory,
            met.reporting_into_an_open_generation,
            met.entering_what_is_closed,
        ),
    ),
    (case(opening, "flush lost_part", 1, 1, 0, parts=(RESTORING,)), (met.part_outlives_memory,)),
    (case(running, "flush", 1, 1, 1, parts=(OPENING,)), (met.half_open, met.others_open_first)),
    (case(running, "flush", 1, 1, 0, parts=(LEARNING,)), (met.read_in_another_generation,)),
    (case(running, "late_answer flush", 2, 1, 0), (met.released_in_flight, met.lost_in_flight)),
    # partitions: a leader off Postgres, one without any worker, one that knows its workers from
    # an older memory of Redis
    (case(running, "flush cut", 0, 1, 1), (met.opened_without_postgres,)),
    (case(running, "flush", 1, 2, 0, ownerless=True), (met.open_without_an_owner,)),
    (case(joining, "", 1, 1, 1), (met.passed_over,)),
    # two masters
    (case(running, "left_worker", 1, 1, 0), (met.two_masters_disagree, met.two_owners)),
    (case(parted, "stray", 2, 1, 0), (met.strayed,)),
    # a third worker
    (case(crowded, "flush", 1, 1, 0), (met.passed_over,)),
    (case(crowded, "crash", 2, 2, 0), (met.three_last_statuses,)),
]
DEEP: list[Asked] = [
    (case(running, "left_leader", 1, 2, 1), (met.two_masters_disagree, met.two_owners)),
    (case(running, "left_worker stray", 2, 1, 0), (met.two_masters_disagree,)),
    (
        case(running, "flush flush_again lost_part", 1, 1, 0, parts=(RESTORING, ENTERING)),
        (met.part_outlives_memory, met.entering_what_is_closed),
    ),
    (case(running, "failover late_answer", 2, 1, 0, parts=(DRAINING,)), (met.released_in_flight,)),
    (case(running, "failover", 1, 1, 1, parts=(OPENING, RESTORING)), (met.half_open,)),
    (case(running, "flush cut", 1, 2, 1), (met.opened_without_postgres,)),
    (case(crowded, "flush", 2, 2, 0), (met.three_last_statuses,)),
    (case(crowded, "failover", 1, 2, 0), (met.passed_over,)),
    (case(crowded, "left_worker", 1, 2, 0), (met.two_owners,)),
]


def intact(start: Start, bounds: Bounds) -> Found:
    """Search the whole protocol, once only."""
    if (start, bounds) not in INTACT:
        asked = dict(MET + DEEP).get((start, bounds), ())
        INTACT[start, bounds] = search(start(frozenset()), bounds, asked=asked)
    return INTACT[start, bounds]


def named(case: Case | Asked) -> str:
    start, bounds = case if callable(case[0]) else case[0]
    more = [name for name in ("ownerless", "resigning") if getattr(bounds, name)]
    how = "+".join((*bounds.faults, *bounds.parts, *more)) or "pauses"
    return f"{start.__name__}-{how}-{bounds.feels}-{bounds.assigns}-{bounds.elections}"


@pytest.mark.parametrize("case", EXHAUSTED + STARVING, ids=named)
def test_no_history_within_bounds_breaks_the_protocol(case: Case) -> None:
    found = intact(*case)
    print(named(case), found)
    assert not found.violation, str(found)
    assert found.exhausted


@pytest.mark.parametrize("case", MET + (DEEP if DEEPER else []), ids=named)
def test_no_history_through_these_situations_breaks_the_protocol(case: Asked) -> None:
    one, asked = case
    found = intact(*one)
    counts = {one.__name__: count for one, count in zip(asked, found.reached, strict=True)}
    print(named(case), found, counts)
    assert not found.violation, str(found)
    assert found.exhausted
    assert all(counts.values()), f"never met: {counts}"


@pytest.mark.parametrize("case", CUT_SHORT, ids=named)
def test_no_near_history_breaks_the_protocol(case: Case) -> None:
    found = intact(*case)
    print(named(case), found)
    assert not found.violation, str(found)
    assert found.states >= case[1].states


# What goes wrong without each repair: within which bounds, and how.
ABLATIONS = {
    Repair.ASSIGN_FENCED: (case(deposed, "", 0, 1, 0), "STALE"),
    Repair.TERM_EACH: (case(running, "crash", 0, 1, 1), "CLOSED"),
    Repair.IDENTITY: (case(deposed, "flush", 2, 1, 0), "TWIN"),
    Repair.GATED: (case(running, "failover", 0, 1, 0), "STALE"),
    Repair.INSTANCE: (case(running, "failover", 0, 1, 0), "STALE"),
    Repair.REPLICATION_ID: (case(running, "failover failback", 1, 0, 0), "LOST"),
    Repair.FRESH_EPOCHS: (case(running, "failover", 0, 1, 0), "STALE"),
    Repair.RENAMED: (case(running, "flush", 1, 0, 0), "LOST"),
    Repair.BEGUN: (case(opening, "flush", 0, 1, 1), "STALE"),
    Repair.ASKED: (case(opening, "failover", 1, 1, 0), "FORGOTTEN"),
    Repair.WAITED: (case(running, "flush", 1, 1, 0), "FORGOTTEN"),
    Repair.CONFIRMED: (case(deposed, "flush", 0, 1, 0), "STALE"),
    Repair.RESTORED: (case(running, "flush", 1, 0, 0), "FORGOTTEN"),
    Repair.RELEASED: (case(running, "flush", 1, 1, 0), "FORGOTTEN"),
    Repair.TERM_RESTORED: (case(deposed, "flush postgres_away", 0, 1, 0), "STALE"),
    Repair.MERGED: (case(running, "flush", 1, 1, 0), "FORGOTTEN"),
    Repair.LATE_MERGED: (case(running, "flush", 1, 1, 0), "DIVERGED"),
    Repair.ENTERED: (case(running, "flush", 1, 1, 0), "WENT BACK"),
    Repair.SEEDED: (case(running, "flush", 1, 2, 0), "ROLLBACK"),
    Repair.TENTATIVE: (case(running, "flush", 1, 0, 0), "PHANTOM"),
    Repair.SAME_AGAIN: (case(running, "lost_reply flush", 1, 1, 0), "LOST"),
    Repair.FOUND_REPLAYED: (case(running, "lost_reply flush", 1, 1, 0), "LOST"),
    Repair.INSTALLED: (case(fresh, "postgres_away", 0, 1, 1), "STUCK"),
    Repair.WITH_EVENTS: (case(fresh, "postgres_away", 0, 1, 1, strained=True), "STARVED"),
    Repair.ONE_STEP: (case(running, "flush", 1, 0, 0), "LOST"),
    Repair.RETAINED: (case(running, "flush", 1, 0, 0), "LOST"),
    Repair.REPLAYED: (case(running, "flush", 1, 0, 0), "LOST"),
    Repair.ACKNOWLEDGED: (case(running, "flush", 2, 0, 0), "LOST"),
    Repair.TRIMMED: (case(running, "", 1, 0, 0, parts=(DRAINING,)), "LOST"),
    Repair.GROUPED: (case(running, "flush", 1, 1, 0, parts=(DRAINING,)), "HOARDED"),
    Repair.ACKED_LAST: (case(running, "", 1, 0, 0, parts=(DRAINING,)), "HOARDED"),
    Repair.REPEATED: (case(running, "force", 1, 0, 0, parts=(DRAINING,)), "LOST"),
    Repair.HANDSHAKE: (case(opening, "flush lost_part", 1, 1, 0, parts=(RESTORING,)), "FORGOTTEN"),
    Repair.ATTEMPTS: (case(opening, "flush lost_part", 1, 1, 0, parts=(RESTORING,)), "FORGOTTEN"),
    Repair.NONE_FLYING: (case(running, "late_answer flush", 1, 1, 0), "FORGOTTEN"),
    Repair.REPLIED_LATE: (case(running, "late_answer flush", 2, 1, 0), "LOST"),
    Repair.GIVEN_UP: (case(running, "lost_reply flush", 1, 1, 0), "LOST"),
    Repair.KEPT: (case(running, "flush", 1, 1, 0, parts=(LEARNING,)), "WENT BACK"),
    Repair.UNOWNED: (case(running, "flush", 1, 2, 0, ownerless=True), "DIVERGED"),
    Repair.MET: (case(joining, "", 1, 1, 1), "FORGOTTEN"),
    Repair.MARKED_COMPLETE: (case(relieved, "", 1, 1, 1), "FORGOTTEN"),
    Repair.NEVER_BACK: (case(parted, "stray", 2, 0, 0), "ROLLBACK"),
    Repair.OUTLIVED: (case(outlived, "", 0, 0, 0), "LOST"),
    Repair.SIGNED: (case(running, "intruder", 0, 0, 0), "TAKEN"),
    Repair.NAME_RESTORED: (case(running, "flush intruder", 0, 0, 0), "TAKEN"),
    Repair.BOUND: (case(running, "twin", 2, 0, 0), "CONFLICT"),
    Repair.PROVEN: (case(running, "", 0, 0, 0, strained=True), "STARVED"),
    Repair.LEARNED: (case(running, "lost_reply flush", 1, 1, 0), "FORGOTTEN"),
}
SECOND = {Repair.ENTERED: Repair.KEPT}  # what would repair it as well, and is left out in any case


@pytest.mark.parametrize("repair", Repair, ids=lambda repair: repair.name)
def test_each_repair_is_needed(repair: Repair) -> None:
    (start, bounds), kind = ABLATIONS[repair]
    without = frozenset({SECOND[repair]} if repair in SECOND else ())
    found = search(start(without), bounds, without) if without else intact(start, bounds)
    assert not found.violation, str(found)
    without |= {repair}
    found = search(start(without), bounds, without)
    print(f"without {repair.name}:", found)
    assert found.violation.startswith(kind), str(found)


def test_the_loss_that_is_known() -> None:
    """A reply was lost, the database moved on, and Redis lost its memory before the drain."""
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
    found = search(running(), bounds, asked=(met.gone_for_good,))
    print("+".join(faults), found, found.reached)
    assert not found.violation, str(found)
    assert found.exhausted
    assert (found.reached > (0,)) is losable


def test_what_does_not_hold_with_two_masters() -> None:
    """Both take writes, an older epoch after a newer one; the new one knows it only later."""
    found = search(
        running(), Bounds(("left_worker",), feels=0, assigns=1, elections=0, one_truth=True)
    )
    assert found.violation.startswith("STALE"), str(found)
