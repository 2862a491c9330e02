"""Searching worlds that differ in who is who only once is sound: it is checked here, world by
world.
"""

from itertools import permutations

import pytest

from tests.model.search import DRAINING, ENTERING, LEARNING, OPENING, RESTORING, Bounds, moves
from tests.model.starts import crowded
from tests.model.symmetry import canonical, permuted
from tests.model.world import World

ALL = (DRAINING, RESTORING, OPENING, LEARNING, ENTERING)
WORLDS = 150  # of each search, and every permutation of them
ORDERS = list(permutations(range(3)))


@pytest.mark.parametrize(
    "faults", [("flush", "lost_part"), ("left_worker", "stray"), ("late_answer", "crash")]
)
@pytest.mark.parametrize("parts", [(), ALL], ids=["whole", "parts"])
def test_a_permuted_world_is_the_same_world_with_the_same_ways_on(
    faults: tuple[str, ...], parts: tuple[str, ...]
) -> None:
    bounds = Bounds(faults, feels=2, assigns=2, elections=1, parts=parts)
    differing = 0
    for world in reached(bounds):
        following = {first(one) for _, one in moves(world, bounds, frozenset())}
        for order in ORDERS[1:]:
            other = permuted(world, order)
            differing += other != world
            assert canonical(other) in {permuted(world, one) for one in ORDERS}
            assert {first(one) for _, one in moves(other, bounds, frozenset())} == following
    assert differing > WORLDS


def first(world: World) -> World:
    """Return the same permutation of a world, whichever of them it is."""
    return min(permuted(world, order) for order in ORDERS)


def reached(bounds: Bounds) -> list[World]:
    """Return some worlds, near ones and far ones: every seventh way on is followed first."""
    known, queue = {crowded()}, [crowded()]
    while len(known) < WORLDS and queue:
        world = queue.pop(0) if len(known) % 7 else queue.pop()
        for _, following in moves(world, bounds, frozenset()):
            if following not in known:
                known.add(following)
                queue.append(following)
    return sorted(known)[:WORLDS]
