"""The patrol on a real Redis and a real Postgres, without a supervisor."""

import asyncio
import itertools
from contextlib import AsyncExitStack

from monitor.core.assignment import Assignment
from monitor.core.cause import Cause
from monitor.core.policy import Policy
from monitor.core.status import Epoch, State, Status
from monitor.feeler.login import LoginLimiter
from monitor.live import assignments, generation, observations, targets
from monitor.live.connections import Live
from monitor.live.targets import Target
from monitor.secrets import SecretBox
from tests.fixtures import StartProxy
from tests.servers import PostgresServer
from tests.waiting import eventually
from workers.worker.clock import FleetClock
from workers.worker.observing import Observer
from workers.worker.patrol import Patrol
from workers.worker.peers import Peers
from workers.worker.recorder import Recorder
from workers.worker.watches import Watches

OURS, OTHER = "0" * 43 + "=", "1" * 42 + "0="


async def assigned(live: Live, name: str, sealed: str, counter: int, revision: int = 1) -> None:
    await targets.publish(live, name, Target(sealed, Policy(), {}, revision), term=9, registry="")
    await assignments.assign(
        live,
        Assignment(name, "w1", Epoch(1, counter)),
        planned=False,
        now=1.0,
        seed=Status(),
        registry="",
    )


async def opened(live: Live) -> None:
    await generation.restore(live, "leader", [], 1, "")
    assert await generation.open_generation(live, Epoch(1, 1), {"leader"}, "")


def make_patrol(live: Live, capacity: int = 100) -> tuple[Patrol, Recorder]:
    """Put a patrol together as the process does."""
    look, clock, peers = asyncio.Event(), FleetClock(), Peers()
    recorder = Recorder(live, "w1", look.set)
    watches = Watches("w1", SecretBox([OURS]), clock, LoginLimiter(), capacity)
    observer = Observer(clock, recorder.pulse, peers, owned=lambda: len(watches))
    return Patrol(live, "w1", watches, observer, recorder, clock, peers, look), recorder


async def working(stack: AsyncExitStack, live: Live, capacity: int = 100) -> Patrol:
    patrol, recorder = make_patrol(live, capacity)
    for part in (patrol.run(), recorder.run()):
        task = asyncio.create_task(part)
        stack.callback(task.cancel)
    stack.push_async_callback(patrol.close)
    return patrol


async def test_feels_that_are_due_at_once_hold_the_loop_up_a_few_at_a_time(live: Live) -> None:
    (patrol, _), begun = make_patrol(live), list[str]()
    patrol._start = begun.append  # type: ignore[method-assign]
    for number in range(200):
        patrol._wheel.set(f"db-{number}", 0.0)
    running, seen = asyncio.create_task(patrol.run()), [0]
    while len(begun) < 200:
        await asyncio.sleep(0)
        seen.append(len(begun))
    running.cancel()
    assert max(after - before for before, after in itertools.pairwise(seen)) <= 20


async def test_an_address_no_key_opens_hinders_no_other_and_says_so(
    live: Live, postgres_server: PostgresServer
) -> None:
    url = postgres_server.superuser_url()
    await opened(live)
    names = [f"db-{i}" for i in range(6)]
    for i, name in enumerate(names):
        await assigned(live, name, SecretBox([OTHER if i == 0 else OURS]).seal(name, url), i + 2)
    async with AsyncExitStack() as stack:
        patrol = await working(stack, live)
        await patrol.reconcile()

        async def told() -> bool:
            latest = await observations.latest(live, names)
            states = [latest[name].status.state for name in names]
            return (
                states == [State.NEW, *[State.AVAILABLE] * 5]
                and latest[names[0]].cause is Cause.NO_CREDENTIALS
            )

        await eventually(told, within=10)
        proven = (await assignments.places(live, names[:1]))[names[0]].proven
        assert proven, "it may be moved to a worker that has the key"


async def test_a_new_address_is_taken_up_and_the_old_feel_says_nothing(
    live: Live, postgres_server: PostgresServer, start_proxy: StartProxy
) -> None:
    url, box = postgres_server.superuser_url(), SecretBox([OURS])
    proxy = start_proxy(postgres_server.port)
    await opened(live)
    await assigned(live, "orders", box.seal("orders", proxy.url(url)), 2)
    async with AsyncExitStack() as stack:
        patrol = await working(stack, live)
        await patrol.reconcile()

        async def state() -> State:
            return (await observations.latest(live, ["orders"]))["orders"].status.state

        async def is_available() -> bool:
            return await state() is State.AVAILABLE

        await eventually(is_available, within=10)
        proxy.mode = "deaf"
        patrol.nudge("observe_now", ("orders",))
        await asyncio.sleep(0)
        await targets.publish(
            live, "orders", Target(box.seal("orders", url), Policy(), {}, 2), term=9, registry=""
        )
        await patrol.reconcile()
        before = (await observations.latest(live, ["orders"]))["orders"].number

        async def beats() -> bool:
            return (await observations.latest(live, ["orders"]))["orders"].number > before

        await eventually(beats, within=10)
        assert await state() is State.AVAILABLE


async def test_a_new_address_is_taken_up_while_all_is_well(
    live: Live, postgres_server: PostgresServer, start_proxy: StartProxy
) -> None:
    """The owner stays, its session answers, and no beat of it has failed: nothing else makes it
    look elsewhere.
    """
    url, box = postgres_server.superuser_url(), SecretBox([OURS])
    old = start_proxy(postgres_server.port)
    await opened(live)
    await assigned(live, "orders", box.seal("orders", old.url(url)), 2)
    async with AsyncExitStack() as stack:
        patrol = await working(stack, live)

        async def seen_at(revision: int) -> bool:
            await patrol.reconcile()
            latest = (await observations.latest(live, ["orders"]))["orders"]
            return latest.status.state is State.AVAILABLE and latest.revision == revision

        await eventually(lambda: seen_at(1), within=10)
        await targets.publish(
            live, "orders", Target(box.seal("orders", url), Policy(), {}, 2), term=9, registry=""
        )
        await eventually(lambda: seen_at(2), within=10)
        old.mode = "refuse"
        patrol.nudge("observe_now", ("orders",))
        before = (await observations.latest(live, ["orders"]))["orders"].number

        async def beats() -> bool:
            await patrol.reconcile()
            return (await observations.latest(live, ["orders"]))["orders"].number > before + 1

        await eventually(beats, within=20)
        assert await seen_at(2), "what befalls the old address is nothing to it"


async def test_what_is_beyond_the_capacity_is_refused_and_taken_up_when_there_is_room(
    live: Live, postgres_server: PostgresServer
) -> None:
    url = postgres_server.superuser_url()
    await opened(live)
    names = [f"db-{i}" for i in range(4)]
    for i, name in enumerate(names):
        await assigned(live, name, SecretBox([OURS]).seal(name, url), i + 2)
    async with AsyncExitStack() as stack:
        patrol = await working(stack, live, capacity=3)
        await patrol.reconcile()

        async def causes() -> list[str]:
            latest = await observations.latest(live, names)
            return sorted(cause.value if (cause := latest[name].cause) else "" for name in names)

        async def refused() -> bool:
            return await causes() == ["no_capacity", "ok", "ok", "ok"]

        await eventually(refused, within=10)
        latest = await observations.latest(live, names)
        watched = next(name for name in names if latest[name].cause is Cause.OK)
        names.remove(watched)
        await assignments.unassign(live, watched, 9, "")
        await patrol.reconcile()
        await patrol.reconcile()

        async def taken_up() -> bool:
            return await causes() == ["ok"] * 3

        await eventually(taken_up, within=10)
