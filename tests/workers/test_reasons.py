"""What a worker tells of databases that are not ok: once, anew when it changes, never at the cost
of the beats.
"""

from collections.abc import Callable
from typing import Any

import pytest

from monitor.core.cause import Cause
from monitor.core.observation import Observation
from monitor.live import connections
from monitor.live.connections import Live
from monitor.live.keys import reason_key
from workers.worker import reasons as module
from workers.worker.reasons import Reasons


def seen(detail: str, cause: Cause = Cause.WRONG_PASSWORD) -> Observation:
    return Observation(
        database="orders",
        worker="w1",
        sent_at=1,
        at=2,
        cause=cause,
        detail=detail,
        sqlstate="28P01",
    )


async def told(live: Live) -> str:
    """Return what is told now, and forget it."""
    return str(await live.cache.getdel(reason_key("orders")))


async def test_the_same_is_told_once_and_anew_before_it_expires(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    reasons = Reasons(live)
    for detail, said in (("no", True), ("no", False), ("still no", True)):
        reasons.note(seen(detail))
        await reasons.tell()
        assert (detail in await told(live)) is said
    monkeypatch.setattr(module, "REWRITE_AFTER", 0.0)
    reasons.note(seen("still no"))
    await reasons.tell()
    assert "28P01" in await told(live)


async def test_what_was_well_meanwhile_is_told_again(live: Live) -> None:
    reasons = Reasons(live)
    for cause in (Cause.WRONG_PASSWORD, Cause.OK, Cause.WRONG_PASSWORD):
        reasons.note(seen("no", cause))
        await reasons.tell()
        assert ("no" in await told(live)) is (cause is not Cause.OK)


async def test_a_redis_that_is_away_costs_the_words_alone(start_redis: Callable[..., Any]) -> None:
    server = start_redis()
    live = connections.connect(server.url)
    reasons = Reasons(live)
    server.stop()
    reasons.note(seen("no"))
    await reasons.tell()
    server.start()
    reasons.note(seen("no"))
    await reasons.tell()
    assert "no" in await told(live)
    await connections.close(live)
