"""Daemon threads for the few calls that may take as long as somebody else likes.

For this package alone. Not an executor: the interpreter joins an executor's threads when it ends,
and a hostile server could keep one busy for half an hour.
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
OVERDUE_NICE = 19  # not SCHED_IDLE: a thread that has no processor may hold the interpreter's lock
OVERDUE_AFTER = 0.25  # seconds a call may have its place


class Threads:
    """At most `limit` calls at once; later ones wait in order.

    A call that takes long gives its place away, as many as `overdue` of them at once.
    """

    def __init__(self, limit: int, overdue: int = 0) -> None:
        self._free = asyncio.Semaphore(limit)
        self._overdue_left = overdue

    async def start(self, work: Callable[[], T]) -> "asyncio.Future[T]":
        """Wait for a place, then run `work` in a thread; awaiting the result is another matter."""
        await self._free.acquire()
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()
        done.add_done_callback(self._release)
        thread = threading.Thread(
            target=_work, args=(loop, done, work), name="feeler-call", daemon=True
        )
        try:
            thread.start()
            loop.call_later(OVERDUE_AFTER, self._give_place_away, done, thread)
        except RuntimeError as exc:  # no more threads on this machine
            done.set_exception(exc)
        return done

    def _give_place_away(self, done: "asyncio.Future[Any]", thread: threading.Thread) -> None:
        """Let the next call begin: many endless ones must not keep others waiting."""
        if not thread.is_alive() or done.done():
            return
        if not self._overdue_left:
            loop = asyncio.get_running_loop()
            loop.call_later(OVERDUE_AFTER, self._give_place_away, done, thread)
        elif done.remove_done_callback(self._release):
            self._overdue_left -= 1
            done.add_done_callback(self._overdue_ended)
            self._free.release()
            _renice(thread.native_id, OVERDUE_NICE)

    def _release(self, _: "asyncio.Future[Any]") -> None:
        self._free.release()

    def _overdue_ended(self, _: "asyncio.Future[Any]") -> None:
        self._overdue_left += 1


def _work(
    loop: asyncio.AbstractEventLoop, done: "asyncio.Future[Any]", work: Callable[[], Any]
) -> None:
    _renice(threading.get_native_id(), NICE)
    end: Callable[[Any], None] = done.set_result
    try:
        outcome: Any = work()
    except BaseException as exc:
        end, outcome = done.set_exception, exc
    try:
        loop.call_soon_threadsafe(_end, done, end, outcome)
    except RuntimeError:
        return  # the loop ended first; nobody waits


def _end(done: "asyncio.Future[Any]", end: Callable[[Any], None], outcome: Any) -> None:
    if not done.done():
        end(outcome)


def _renice(thread: int | None, nice: int) -> None:
    if sys.platform == "linux" and thread:  # where each thread has a priority of its own
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, thread, nice)
