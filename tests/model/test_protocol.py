"""The fencing protocol, searched: no violation within the bounds, and one for each repair left out.

`pytest -s tests/model` prints how many worlds each search saw; a failure prints the shortest history that leads to it.
"""

from collections.abc import Callable

import pytest

from tests.model.repairs import Repair, Without
from tests.model.search import Bounds, deposed, fresh, opening, running, search
from tests.model.world import World

Start = Callable[[Without], World]

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


def named(case: tuple[Start, Bounds]) -> str:
    start, bounds = case
    return f"{start.__name__}-{'+'.join(bounds.faults) or 'pauses'}-{bounds.feels}-{bounds.assigns}-{bounds.elections}"


@pytest.mark.parametrize("case", EXHAUSTED + STARVING, ids=named)
def test_no_history_within_bounds_breaks_the_protocol(case: tuple[Start, Bounds]) -> None:
    start, bounds = case
    found = search(start(frozenset()), bounds)
    print(named(case), found)
    assert not found.violation, str(found)
    assert found.exhausted


@pytest.mark.parametrize("case", CUT_SHORT, ids=named)
def test_no_near_history_breaks_the_protocol(case: tuple[Start, Bounds]) -> None:
    start, bounds = case
    found = search(start(frozenset()), bounds)
    print(named(case), found)
    assert not found.violation, str(found)
    assert found.states >= bounds.states


# What goes wrong without each repair: from where, under which faults, within which bounds, and how.
ABLATIONS: dict[Repair, tuple[Start, Bounds, str]] = {
    Repair.ASSIGN_FENCED: (deposed, Bounds((), feels=0, assigns=1, elections=0), "STALE"),
    Repair.TERM_EACH: (running, Bounds(("crash",), feels=0, assigns=1, elections=1), "CLOSED"),
    Repair.IDENTITY: (deposed, Bounds(("flush",), feels=2, assigns=1, elections=0), "TWIN"),
    Repair.GATED: (running, Bounds(("failover",), feels=0, assigns=1, elections=0), "STALE"),
    Repair.LIFE: (running, Bounds(("failover",), feels=0, assigns=1, elections=0), "STALE"),
    Repair.REPLICATION_ID: (running, Bounds(("failover", "failback"), feels=1, assigns=0, elections=0), "LOST"),
    Repair.FRESH_EPOCHS: (running, Bounds(("failover",), feels=0, assigns=1, elections=0), "STALE"),
    Repair.RENAMED: (running, Bounds(("flush",), feels=1, assigns=0, elections=0), "LOST"),
    Repair.BEGUN: (opening, Bounds(("flush",), feels=0, assigns=1, elections=1), "STUCK"),
    Repair.ASKED: (opening, Bounds(("failover",), feels=1, assigns=1, elections=0), "FORGOTTEN"),
    Repair.WAITED: (running, Bounds(("flush",), feels=1, assigns=1, elections=0), "FORGOTTEN"),
    Repair.CONFIRMED: (deposed, Bounds(("flush",), feels=0, assigns=1, elections=0), "STALE"),
    Repair.RESTORED: (running, Bounds(("flush",), feels=1, assigns=0, elections=0), "FORGOTTEN"),
    Repair.RELEASED: (running, Bounds(("flush",), feels=1, assigns=1, elections=0), "FORGOTTEN"),
    Repair.TERM_RESTORED: (deposed, Bounds(("flush", "postgres_away"), feels=0, assigns=1, elections=0), "STALE"),
    Repair.MERGED: (running, Bounds(("flush",), feels=1, assigns=1, elections=0), "FORGOTTEN"),
    Repair.LATE_MERGED: (running, Bounds(("flush",), feels=1, assigns=1, elections=0), "WENT BACK"),
    Repair.ENTERED: (running, Bounds(("flush",), feels=1, assigns=1, elections=0), "WENT BACK"),
    Repair.SEEDED: (running, Bounds(("flush",), feels=1, assigns=2, elections=0), "ROLLBACK"),
    Repair.TENTATIVE: (running, Bounds(("flush",), feels=1, assigns=0, elections=0), "PHANTOM"),
    Repair.SAME_AGAIN: (running, Bounds(("lost_reply", "flush"), feels=1, assigns=1, elections=0), "LOST"),
    Repair.FOUND_REPLAYED: (running, Bounds(("lost_reply", "flush"), feels=1, assigns=1, elections=0), "LOST"),
    Repair.INSTALLED: (fresh, Bounds(("postgres_away",), feels=0, assigns=1, elections=1), "STUCK"),
    Repair.WITH_EVENTS: (fresh, Bounds(("postgres_away",), feels=0, assigns=1, elections=1, strained=True), "STARVED"),
    Repair.ONE_STEP: (running, Bounds(("flush",), feels=1, assigns=0, elections=0), "LOST"),
    Repair.RETAINED: (running, Bounds(("flush",), feels=1, assigns=0, elections=0), "LOST"),
    Repair.REPLAYED: (running, Bounds(("flush",), feels=1, assigns=0, elections=0), "LOST"),
    Repair.ACKNOWLEDGED: (running, Bounds(("flush",), feels=2, assigns=0, elections=0), "LOST"),
    Repair.TRIMMED: (running, Bounds((), feels=1, assigns=0, elections=0), "LOST"),
    Repair.PROVEN: (running, Bounds((), feels=0, assigns=0, elections=0, strained=True), "STARVED"),
}


@pytest.mark.parametrize("repair", Repair, ids=lambda repair: repair.name)
def test_each_repair_is_needed(repair: Repair) -> None:
    start, bounds, kind = ABLATIONS[repair]
    found = search(start(frozenset()), bounds)
    assert not found.violation, str(found)
    without = frozenset({repair})
    found = search(start(without), bounds, without)
    print(f"without {repair.name}:", found)
    assert found.violation.startswith(kind), str(found)


def test_the_loss_that_is_known() -> None:
    """An answer was lost, the database moved on, and Redis lost its memory before the drain."""
    found = search(running(), Bounds(("lost_reply", "flush"), feels=2, assigns=1, elections=0))
    assert found.violation.startswith("LOST"), str(found)
