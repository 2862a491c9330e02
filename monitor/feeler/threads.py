"""Daemon threads for the few calls that may take as long as somebody else likes. For this package alone.

Not an executor: the interpreter joins an executor's threads when it ends, and a hostile server could keep one busy
for half an hour.
"""

import asyncio
import contextlib
import os
import sys
import threading
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")
NICE = 10  # below the loop's own thread: proofs may wait, beats may not


class Threads:
    """At most `limit` calls at once; later ones wait in order."""

    def __init__(self, limit: int) -> None:
        self._free = asyncio.Semaphore(limit)

    async def start(self, work: Callable[[], T]) -> "asyncio.Future[T]":
        """Wait for a place, then run `work` in a thread; awaiting the result is another matter."""
        await self._free.acquire()
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()
        done.add_done_callback(lambda _: self._free.release())
        try:
            threading.Thread(target=_work, args=(loop, done, work), name="feeler-call", daemon=True).start()
        except RuntimeError as exc:  # no more threads on this machine
            done.set_exception(exc)
        return done


def _work(loop: asyncio.AbstractEventLoop, done: "asyncio.Future[Any]", work: Callable[[], Any]) -> None:
    if sys.platform == "linux":  # where each thread has a priority of its own
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
    try:
        outcome: tuple[Callable[[Any], None], Any] = (done.set_result, work())
    except BaseException as exc:
        outcome = (done.set_exception, exc)
    try:
        loop.call_soon_threadsafe(_settle, done, *outcome)
    except RuntimeError:
        return  # the loop ended first; nobody waits


def _settle(done: "asyncio.Future[Any]", settle: Callable[[Any], None], outcome: Any) -> None:
    if not done.done():
        settle(outcome)
