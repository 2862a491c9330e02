from collections.abc import Callable
from dataclasses import replace

from monitor.core.timing import LED_MARK, PRESENCE_TTL
from monitor.live import presence
from monitor.live.connections import Live
from monitor.live.keys import LED, WORKERS, bus_key, claim_key, presence_key
from tests.factories import NOW, W1, W2, here
from tests.fixtures import Become, StartRedis
from tests.waiting import eventually

HERE = here(host="alpha", pid=42, zone="a", capacity=10_000, owned=3, lateness=0.001, retained=1)


async def test_present_until_it_expires_known_until_it_is_forgotten(live: Live) -> None:
    assert await presence.present(live) == {}
    assert await presence.known(live) == set()
    await presence.announce(live, HERE)
    await presence.announce(live, replace(HERE, worker=W2, retained=4))
    assert await presence.present(live) == {W1: HERE, W2: replace(HERE, worker=W2, retained=4)}
    await live.bus.pexpire(presence_key(W1), 1)
    await eventually(lambda: gone(live, W1))
    assert set(await presence.present(live)) == {W2}
    assert await presence.known(live) == {W1, W2}
    await presence.forget(live, W1)
    assert await presence.known(live) == {W2}


async def gone(live: Live, worker: str) -> bool:
    return not await live.bus.exists(presence_key(worker))


async def test_presence_lives_six_seconds(live: Live) -> None:
    await presence.announce(live, HERE)
    assert 6_500 < await live.bus.pttl(presence_key(W1)) <= 7_000
    assert await live.bus.zscore(WORKERS, W1) == NOW


async def test_one_that_leaves_is_absent_at_once_and_still_known(live: Live) -> None:
    await presence.announce(live, HERE)
    await presence.leave(live, W1)
    assert await presence.present(live) == {}
    assert await presence.known(live) == {W1}


async def test_each_leader_notices_a_reset_of_the_bus(live: Live) -> None:
    assert not await presence.mark_bus(live, "one"), "it cannot know what was before"
    assert await presence.mark_bus(live, "one")
    assert not await presence.mark_bus(live, "two")
    await live.bus.flushall()
    assert not await presence.mark_bus(live, "one")
    assert not await presence.mark_bus(live, "two"), (
        "the first one's look must not hide it from the second"
    )
    assert await presence.mark_bus(live, "one")
    assert await presence.mark_bus(live, "two")
    assert 0 < await live.bus.ttl(bus_key("one")) <= 60


async def test_a_restart_of_the_bus_is_a_reset_even_if_it_kept_its_data(
    start_redis: StartRedis, connect: Callable[..., Live]
) -> None:
    server = start_redis()
    await presence.mark_bus(connect(server.url), "one")
    server.stop()
    server.start()
    live = connect(server.url)
    assert await live.bus.exists(bus_key("one"))
    assert not await presence.mark_bus(live, "one")
    assert await presence.mark_bus(live, "one")


async def test_a_leader_says_that_it_completed_a_sweep(live: Live) -> None:
    await presence.mark_bus(live, "one")
    assert await presence.swept(live) is None, "it has only begun"
    await presence.mark_swept(live, "one")
    ago = await presence.swept(live)
    assert ago is not None
    assert 0 <= ago < 5
    assert PRESENCE_TTL < await live.bus.ttl(LED) <= LED_MARK


async def test_no_sweep_was_completed_later_than_now(live: Live) -> None:
    await presence.mark_swept(live, "one")
    await live.bus.expire(LED, 3600)  # as a clock that is set back by an hour does
    assert await presence.swept(live) is None


def test_who_says_nothing_new_is_not_alive_for_longer_than_a_presence_lives() -> None:
    alive, told = presence.Alive(), {W1: HERE}
    assert alive.among(told, 100.0) == alive.among(told, 100.0 + PRESENCE_TTL - 0.1) == told
    assert alive.among(told, 100.0 + PRESENCE_TTL) == {}
    again = {W1: replace(HERE, at=HERE.at - 3600)}
    assert alive.among(again, 200.0) == again, "a clock that was set back says something new"
    assert alive.among({}, 201.0) == {}
    assert alive.among(again, 208.0) == again, "it came back"


async def test_an_id_is_held_by_one_process(live: Live, become: Become) -> None:
    assert await presence.claim(live, "w1")
    assert await presence.claim(live, "w1"), "held on to"
    ours = presence.PROCESS
    become("a twin")
    assert not await presence.claim(live, "w1")
    assert await presence.claim(live, "w2")
    await live.bus.delete(claim_key("w1"))
    assert await presence.claim(live, "w1"), "the bus forgot: whoever comes first"
    become(ours)
    assert not await presence.claim(live, "w1")
    assert await live.bus.ttl(claim_key("w1")) > PRESENCE_TTL
