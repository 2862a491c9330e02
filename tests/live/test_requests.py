import asyncio

from monitor.live import requests
from monitor.live.connections import Live
from monitor.live.keys import REQUESTS
from monitor.live.requests import Request


async def test_a_request_is_taken_once(live: Live) -> None:
    assert await requests.take(live, "leader") == []
    first = await requests.ask(live, "observe", "orders")
    second = await requests.ask(live, "fleet_changed")
    assert await requests.take(live, "leader") == [
        Request("observe", "orders", first), Request("fleet_changed", "", second),
    ]  # fmt: skip
    assert await requests.take(live, "leader") == []
    assert await live.bus.xlen(REQUESTS) == 0


async def test_requests_wait_for_the_first_leader_and_for_one_after_a_flush(live: Live) -> None:
    await requests.ask(live, "fleet_changed")
    assert len(await requests.take(live, "leader")) == 1
    await live.bus.flushall()
    await requests.ask(live, "fleet_changed")
    assert len(await requests.take(live, "leader")) == 1


async def test_two_takers_never_get_the_same(live: Live) -> None:
    asked = [await requests.ask(live, "observe", f"db{i}") for i in range(50)]
    parts = await asyncio.gather(*(requests.take(live, f"leader-{i}", count=20) for i in range(4)))
    taken = [request.id for part in parts for request in part]
    assert sorted(taken) == sorted(asked)
