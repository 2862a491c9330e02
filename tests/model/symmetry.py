"""Search worlds that differ only in which worker is which once. For tests/model alone.

No step compares workers with each other, so a permutation of a way through the worlds is a way,
too.
"""

from collections.abc import Sequence
from typing import Any

from tests.model.world import NOBODY, Redis, World


def canonical(world: World) -> World:
    """Return the world with its workers in the order of what they know and what is known of them.

    It is one of its permutations, whatever the order: where only a third worker distinguishes two,
    the same world may be searched twice, but none is left out.
    """
    order = sorted(range(len(world.workers)), key=lambda who: _seen(world, who))
    return world if order == sorted(order) else permuted(world, order)


def permuted(world: World, order: Sequence[int]) -> World:
    """Return the world with other names for its workers: the first is who was `order[0]`."""
    place = {NOBODY: NOBODY} | {who: i for i, who in enumerate(order)}
    return world._replace(
        redis=_renamed(world.redis, place),
        replica=tuple(_renamed(one, place) for one in world.replica),
        old=tuple(side._replace(redis=_renamed(side.redis, place)) for side in world.old),
        late=tuple(one._replace(who=place[one.who]) for one in world.late),
        workers=_in_order(world.workers, order, place),
    )


def _seen(world: World, who: int) -> tuple[Any, ...]:
    places = (world.redis, *world.replica, *(side.redis for side in world.old))
    worker = world.workers[who]
    return (
        worker._replace(looked=tuple(one._replace(owner=NOBODY) for one in worker.looked)),
        tuple(_mentions(one, who) for one in places),
        tuple(one.who == who for one in world.late),
        tuple(_mentions(one, who) for one in worker.looked),
    )


def _mentions(redis: Redis, who: int) -> tuple[Any, ...]:
    attempts = tuple(attempt for one, attempt in redis.begun if one == who)
    given = tuple(one == who for one in (redis.owner, redis.bound, redis.claimant))
    return (*given, who in redis.reported, who in redis.announced, attempts)


def _renamed(redis: Redis, place: dict[int, int]) -> Redis:
    return redis._replace(
        owner=place[redis.owner],
        bound=place[redis.bound],
        claimant=place[redis.claimant],
        begun=tuple(sorted((place[who], attempt) for who, attempt in redis.begun)),
        reported=tuple(sorted(place[who] for who in redis.reported)),
        announced=tuple(sorted(place[who] for who in redis.announced)),
    )


def _in_order(
    workers: Sequence[Any], order: Sequence[int], place: dict[int, int]
) -> tuple[Any, ...]:

    def renamed(worker: Any) -> Any:
        looked = tuple(_renamed(one, place) for one in worker.looked)
        return worker._replace(looked=looked, alias=place[worker.alias])

    return tuple(renamed(workers[who]) for who in order)
