"""Rows of Redis that this process cannot read: each is set aside, logged and counted once.

It stops no other. A newer version beside this one may have written it, or a hand. Only live/
imports this; `Rows` is what readers get.
"""

import logging
from collections.abc import Callable, Iterable
from typing import TypeVar

from monitor.core.errors import StoreUnavailable
from monitor.live.connections import Live, wrap_store_errors
from monitor.live.keys import partition_key

log = logging.getLogger("feeler.live")

R = TypeVar("R")
T = TypeVar("T")


class Rows(dict[str, T]):
    """Rows by name; `unreadable` names those that are there and cannot be read."""

    unreadable: frozenset[str] = frozenset()


async def decode(
    live: Live, kind: str, rows: Iterable[tuple[str, R]], read: Callable[[str, R], T]
) -> Rows[T]:
    """Read rows one by one; those that cannot be read are left out of the answer and named."""
    found = Rows[T]()
    bad: dict[str, Exception] = {}
    for name, row in rows:
        try:
            found[name] = read(name, row)
        except Exception as exc:  # `read` is pure: whatever it raises, it is this row's fault
            bad[name] = exc
    found.unreadable = frozenset(bad)
    news = live.aside.news(kind, bad, found)
    if news:
        await _set_aside(live, kind, news)
    return found


async def _set_aside(live: Live, kind: str, news: dict[str, Exception]) -> None:
    for name, exc in news.items():
        error = f"{type(exc).__name__}: {exc}"[:120]
        log.error("action=row_unreadable kind=%s name=%s error=%s", kind, name, error)
    rows = len(news)
    try:
        await count(live, f"unreadable_{kind}", rows)
    except StoreUnavailable as exc:
        error = exc.detail
        log.warning("action=unreadable_uncounted kind=%s rows=%d error=%s", kind, rows, error)


async def count(live: Live, what: str, by: int) -> None:
    """Add to one of the counters that /metrics shows."""
    counters = partition_key(0, "counters")
    with wrap_store_errors():
        await live.cache.hincrby(counters, what, by)
