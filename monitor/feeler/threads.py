"""Daemon threads for the few calls that may take as long as somebody else likes. For this package
alone.

Not an executor: the interpreter joins an executor's threads when it ends, and a hostile server
could keep one busy for half an hour.
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
LENT = 0.25  # seconds after which a call is overdue


class Threads:
    """At most `limit` calls at once; later ones wait in order. As many as `overdue` others may go
    on for longer.
    """

    def __init__(self, limit: int, overdue: int = 0) -> None:
        self._free, self._overdue = asyncio.Semaphore(limit), overdue

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
            loop.call_later(LENT, self._outlast, done, thread)
        except RuntimeError as exc:  # no more threads on this machine
            done.set_exception(exc)
        return done

    def _outlast(self, done: "asyncio.Future[Any]", thread: threading.Thread) -> None:
        """Give the place of a call that takes long to the next one: many endless calls must not
        keep others waiting.
        """
        if not thread.is_alive() or done.done():
            return
        if not self._overdue:
            asyncio.get_running_loop().call_later(LENT, self._outlast, done, thread)
        elif done.remove_done_callback(self._release):
            self._overdue -= 1
            done.add_done_callback(self._return)
            self._free.release()
            _renice(thread.native_id, OVERDUE_NICE)

    def _release(self, _: "asyncio.Future[Any]") -> None:
        self._free.release()

    def _return(self, _: "asyncio.Future[Any]") -> None:
        self._overdue += 1


def _work(
    loop: asyncio.AbstractEventLoop, done: "asyncio.Future[Any]", work: Callable[[], Any]
) -> None:
    _renice(threading.get_native_id(), NICE)
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


def _renice(thread: int | None, nice: int) -> None:
    if sys.platform == "linux" and thread:  # where each thread has a priority of its own
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, thread, nice)
