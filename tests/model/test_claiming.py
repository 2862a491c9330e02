"""Two registries claim one empty Redis at once, partition by partition, and may die on the way:
every interleaving.

Each partition keeps the first name it gets, as the step `lead` does; replies come in any order.
With the claim of all partitions at once, which is how the product had it, names mix and nobody
leads.
"""

from collections.abc import Iterator
from typing import NamedTuple

import pytest

PARTITIONS = frozenset(range(3))
FIRST = frozenset({0})


class Claim(NamedTuple):
    """What a registry has asked for so far, and whether a partition refused it."""

    asked: frozenset[int] = frozenset()
    refused: bool = False


class World(NamedTuple):
    names: tuple[int, ...] = (-1,) * len(PARTITIONS)  # the registry whose name stands there
    claims: tuple[Claim, Claim] = (Claim(), Claim())


def wanted(claim: Claim, *, first_chooses: bool) -> frozenset[int]:
    """Return the partitions that may be asked next."""
    if not first_chooses:
        return PARTITIONS - claim.asked
    if claim.refused:
        return frozenset()
    return PARTITIONS - claim.asked if claim.asked else FIRST


def steps(world: World, *, first_chooses: bool) -> Iterator[World]:
    for who, claim in enumerate(world.claims):
        for number in wanted(claim, first_chooses=first_chooses):
            holder = world.names[number]
            name = who if holder < 0 else holder
            names = (*world.names[:number], name, *world.names[number + 1 :])
            after = Claim(claim.asked | {number}, claim.refused or holder not in (-1, who))
            claims = (after, world.claims[1]) if who == 0 else (world.claims[0], after)
            yield World(names, claims)


def reachable(*, first_chooses: bool) -> set[World]:
    """Return every world, also those in which both died there and then."""
    found, unseen = {World()}, [World()]
    while unseen:
        for after in steps(unseen.pop(), first_chooses=first_chooses):
            if after not in found:
                found.add(after)
                unseen.append(after)
    return found


def leading(world: World) -> list[int]:
    whole = Claim(PARTITIONS)
    return [who for who, claim in enumerate(world.claims) if claim == whole]


def is_mixed(world: World) -> bool:
    return len(set(world.names) - {-1}) > 1


def test_one_registry_has_a_redis_wholly() -> None:
    worlds = reachable(first_chooses=True)
    assert not any(map(is_mixed, worlds))
    over = [world for world in worlds if not any(steps(world, first_chooses=True))]
    assert {tuple(leading(world)) for world in over} == {(0,), (1,)}


@pytest.mark.parametrize("wrong", [is_mixed, lambda world: not leading(world)])
def test_names_mix_where_no_partition_comes_first(wrong: object) -> None:
    worlds = reachable(first_chooses=False)
    over = [world for world in worlds if not any(steps(world, first_chooses=False))]
    assert any(map(wrong, over))  # type: ignore[arg-type]
