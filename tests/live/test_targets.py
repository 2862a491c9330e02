from monitor.core.policy import Policy
from monitor.live import generation, observations, targets
from monitor.live.connections import Live
from monitor.live.targets import Target
from tests.factories import DB
from tests.live.builders import given


def sealed(revision: int, interval: float = 5.0) -> Target:
    return Target(
        "gAAAAA" * 40, Policy(name="fast", interval=interval), {"team": "bäcker"}, revision
    )


async def test_a_target_comes_back_as_it_was_published(live: Live) -> None:
    assert await targets.target(live, DB) is None
    assert await targets.publish(live, DB, sealed(1), term=1, registry="")
    assert await targets.target(live, DB) == sealed(1)
    assert await targets.targets(live, ["nobody", DB]) == {DB: sealed(1)}


async def test_a_late_publisher_does_not_bring_back_an_old_revision(live: Live) -> None:
    assert await targets.publish(live, DB, sealed(10, interval=1.0), term=1, registry="")
    assert not await targets.publish(live, DB, sealed(9), term=1, registry="")
    assert await targets.publish(live, DB, sealed(10, interval=2.0), term=1, registry="")
    assert await targets.target(live, DB) == sealed(10, interval=2.0)


async def test_a_leader_of_a_higher_term_may_go_back(live: Live) -> None:
    assert await targets.publish(live, DB, sealed(10), term=3, registry="")
    assert not await targets.publish(live, DB, sealed(9), term=3, registry="")
    assert await targets.publish(
        live, DB, sealed(7), term=4, registry=""
    )  # the registry was restored from an older copy
    assert not await targets.publish(live, DB, sealed(11), term=3, registry="")
    assert await targets.target(live, DB) == sealed(7)
    assert await targets.publish(live, DB, sealed(8), term=4, registry="")


async def test_labels_and_policy_are_read_with_the_observation(live: Live) -> None:
    await given(live, "1.2")
    assert (await observations.latest(live, [DB]))[DB].policy == Policy()
    await targets.publish(live, DB, sealed(1), term=9, registry="")
    found = (await observations.latest(live, [DB]))[DB]
    assert found.labels == {"team": "bäcker"}
    assert found.policy == sealed(1).policy


async def test_a_deposed_leader_brings_no_retired_address_back(live: Live) -> None:
    await generation.lead(live, 5, "")
    assert not await targets.publish(live, DB, sealed(1), term=4, registry="")
    assert await targets.target(live, DB) is None
    assert await targets.publish(live, DB, sealed(1), term=5, registry="")
