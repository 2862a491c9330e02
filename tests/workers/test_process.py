"""What both processes do at their end."""

import asyncio

from workers.process import end


async def test_a_task_that_dropped_its_cancellation_is_cancelled_again() -> None:
    """As asyncio.wait_for does before Python 3.12, when what it waits for is just done."""
    dropped = asyncio.Event()

    async def step() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            dropped.set()
        await asyncio.sleep(60)

    task = asyncio.create_task(step())
    await asyncio.sleep(0)  # it runs
    async with asyncio.timeout(10):
        await end([task])
    assert dropped.is_set()
    assert task.cancelled()


async def test_what_does_not_end_is_left_after_a_while() -> None:
    async def deaf() -> None:
        while not over.is_set():
            try:
                await over.wait()
            except asyncio.CancelledError:
                continue

    over = asyncio.Event()
    task = asyncio.create_task(deaf())
    await asyncio.sleep(0)  # it runs
    async with asyncio.timeout(10):
        await end([task], within=0.05)
    assert not task.done()
    over.set()
    await task
