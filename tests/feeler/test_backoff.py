"""Logins of ours in numbers, at a server without a slot left: what a storm of ours fills is no
evidence.
"""

import asyncio
import threading
import time
from collections import Counter

from monitor.core.cause import Cause
from monitor.core.observation import Observation
from monitor.feeler import backoff
from monitor.feeler.login import LoginLimiter
from monitor.feeler.session import FeelNotes, Session
from tests.feeler import hostile
from tests.feeler.conftest import MakeSession, feel, feel_and_note
from tests.feeler.hostile import Hostile, Talk

Felt = tuple[Observation, FeelNotes]
MANY = 3 * backoff.STORM_LOGINS
SLACK = 1.5  # seconds more than our patience


class Slots:
    """A server with few slots, until somebody else gives theirs back."""

    def __init__(self, free: int, freed_after: float = 1000.0) -> None:
        self.taken = self.refused = 0
        self._free, self._freed_at = free, time.monotonic() + freed_after
        self._let_in = hostile.logged_in(hostile.honest)

    def __call__(self, talk: Talk) -> None:
        if self.taken >= self._free and time.monotonic() < self._freed_at:
            self.refused += 1
            talk.start_up()
            talk.refuse("FATAL", "53300")
            return
        self.taken += 1
        self._let_in(talk)


class OneByOne:
    """A server that takes its time to refuse and lets one in now and then, until there is room for
    all.
    """

    REFUSAL, EACH, ALL = (
        0.4,
        0.5,
        3.0,
    )  # seconds: of a refusal, between two it lets in, until all may

    def __init__(self) -> None:
        self.taken = 0
        self._began, self._lock = time.monotonic(), threading.Lock()
        self._let_in = hostile.logged_in(hostile.honest)

    def __call__(self, talk: Talk) -> None:
        if self._has_room():
            self._let_in(talk)
            return
        talk.start_up()
        time.sleep(self.REFUSAL)
        talk.refuse("FATAL", "53300")

    def _has_room(self) -> bool:
        passed = time.monotonic() - self._began
        with self._lock:
            room = passed > self.ALL or self.taken < 1 + passed // self.EACH
            self.taken += room
            return room


async def feel_all(sessions: list[Session]) -> tuple[Counter[Cause], list[Felt], float]:
    began = time.monotonic()
    felt = await asyncio.gather(*(feel_and_note(session) for session in sessions))
    return Counter(seen.cause for seen, _ in felt), felt, time.monotonic() - began


async def test_a_storm_of_ours_gives_way_until_there_is_room(make_session: MakeSession) -> None:
    """Another worker still has the sessions of those that we are given."""
    logins, slots = LoginLimiter(), Slots(free=5, freed_after=1.0)
    with Hostile(slots) as server:
        causes, felt, _ = await feel_all(
            [make_session(server.address(), logins=logins) for _ in range(MANY)]
        )
    assert causes == {Cause.OK: MANY}
    assert 0 < slots.refused < 2 * MANY, "one after another, not all again and again"
    assert all(seen.at - seen.sent_at < 1.0 for seen, _ in felt), (
        "the login that got in is the evidence"
    )
    assert max(seen.waited for seen, _ in felt) > 0.5


async def test_each_try_of_a_login_that_gives_way_has_a_deadline_of_its_own(
    make_session: MakeSession,
) -> None:
    logins = LoginLimiter()
    with Hostile(OneByOne()) as server:
        sessions = [
            make_session(server.address(), logins=logins, deadline=1.0) for _ in range(MANY)
        ]
        causes, felt, seconds = await feel_all(sessions)
    assert causes == {Cause.OK: MANY}
    assert seconds > OneByOne.ALL, "refusals in a row took longer than a deadline"
    slowest = max(notes.login_seconds for _, notes in felt)
    assert slowest < OneByOne.REFUSAL, "of the try that got in"
    assert all(seen.at - seen.sent_at < 1.0 for seen, _ in felt)


async def test_a_server_that_is_full_is_known_in_time(make_session: MakeSession) -> None:
    logins = LoginLimiter()
    with Hostile(Slots(free=5)) as server:
        sessions = [make_session(server.address(), logins=logins) for _ in range(MANY)]
        causes, _, seconds = await feel_all(sessions)
        assert causes == {Cause.OK: 5, Cause.REFUSING: MANY - 5}
        assert seconds < backoff.EXCUSED_SECONDS + SLACK
        causes, _, seconds = await feel_all(sessions)
        assert causes == {Cause.OK: 5, Cause.REFUSING: MANY - 5}
        assert seconds < SLACK, "a second word is waited for no more"


async def test_a_few_logins_are_no_storm(make_session: MakeSession) -> None:
    logins = LoginLimiter()
    with Hostile(Slots(free=0)) as server:
        sessions = [
            make_session(server.address(), logins=logins) for _ in range(backoff.STORM_LOGINS - 1)
        ]
        causes, felt, seconds = await feel_all(sessions)
    assert causes == {Cause.REFUSING: len(sessions)}
    assert seconds < backoff.RETRY_SPACING + SLACK
    assert not any(seen.waited > SLACK for seen, _ in felt)


async def test_a_session_that_is_closed_gives_way_no_longer(make_session: MakeSession) -> None:
    logins = LoginLimiter()
    with Hostile(Slots(free=0)) as server:
        sessions = [
            make_session(server.address(), logins=logins, deadline=5.0) for _ in range(MANY)
        ]
        feels = [asyncio.create_task(feel(session)) for session in sessions]
        await asyncio.sleep(0.5)
        began = time.monotonic()
        await asyncio.gather(*(session.close() for session in sessions))
        await asyncio.gather(*feels)
    assert time.monotonic() - began < backoff.EXCUSED_SECONDS / 2
