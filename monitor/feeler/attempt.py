"""One feel in the making: how far it came, and whose time it took. For this package alone."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from monitor.core.cause import Cause
from monitor.feeler.causes import Failed
from monitor.feeler.turns import Found

OWN_SHARE = (
    4  # of the deadline: more than 1/4 of it in our own queues, and a timeout is no evidence
)

_LATE = {
    "slot": Cause.LATE_LOOP,
    "dns": Cause.DNS,
    "connect": Cause.CONNECT_TIMEOUT,
    "login": Cause.HUNG,
    "query": Cause.QUERY_TIMEOUT,
}


@dataclass(slots=True)
class Attempt:
    """Times are the event loop's, but for `sent_at`."""

    clock: Callable[[], float]
    deadline: float  # of the part under way
    began: float = field(default_factory=monotonic)  # when that part began
    # a probe that began before says nothing new of this database, our own last one least of all
    since: float = 0.0
    timeout: asyncio.Timeout | None = (
        None  # of a login that may wait for its turn as long as it takes
    )
    stage: str = "query"
    own: float = 0.0  # seconds spent waiting for ourselves
    waited: float = 0.0  # seconds of it that moved the deadline
    tried: list[str] = field(default_factory=list)  # addresses, the last one tried last
    dns_stale: bool = False  # the last ones known, for the name did not resolve
    reached: bool = False  # a host took our connection
    sent_at: float = 0.0  # fleet seconds
    sent: float = 0.0  # the same moment by the loop's clock
    heard_at: float = 0.0  # fleet seconds when another database's login found it out for us, else 0
    heard: float = 0.0  # the same moment by the loop's clock
    answered: bool = False  # the server said something in the login, whatever
    asked: bool = False  # the server asked for a proof of who we are
    spoke: float = 0.0  # when it last sent something in the login
    login: bool = False
    login_seconds: float = 0.0  # that it took, where it worked
    waiting: bool = False  # a login is to be proved, and it is not our turn yet
    steps: dict[str, float] = field(default_factory=dict)  # milliseconds
    stuck: "asyncio.Future[Any] | None" = None  # a call in a thread that outlives the feel

    @property
    def until(self) -> float:
        return self.began + self.deadline

    def allow(self, seconds: float) -> None:
        """Begin another part, with a deadline of its own."""
        self.began, self.deadline, self.own = monotonic(), seconds, 0.0

    def sending(self) -> tuple[float, float]:
        """Note the time of the first packet; return this one's, by the fleet's clock and the
        loop's.
        """
        sent_at, sent = self.clock(), monotonic()
        self.heard_at = self.heard = 0.0
        if not self.sent_at:
            self.sent_at, self.sent = sent_at, sent
        return sent_at, sent

    def again(self) -> None:
        """Forget a login that proves nothing: the next one is the evidence, with all the time of
        one.
        """
        self.sent_at, self.reached, self.answered, self.asked = 0.0, False, False, False
        self.waited += monotonic() - self.began
        self.steps.clear()
        self.allow(self.deadline)
        if self.timeout:
            self.timeout.reschedule(self.until)

    def take(self, found: Found) -> Failed:
        """Count another login's end as ours, with its times."""
        if not self.sent_at or found.sent_at < self.sent_at:
            self.sent_at, self.sent = found.sent_at, found.began
        self.heard_at, self.heard = found.at, found.ended
        self.reached = found.cause is Cause.STARTING
        return Failed(found.cause, found.detail, sqlstate=found.sqlstate)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time one step; the deadline is told apart by the step it falls into."""
        self.stage, began = name, monotonic()
        try:
            yield
        finally:
            self.steps[name] = round(self.steps.get(name, 0.0) + (monotonic() - began) * 1000, 3)

    @contextmanager
    def queue(self) -> Iterator[None]:
        """Wait for our turn: the target's time stands still, unless a kept session is asked
        beside.
        """
        self.stage, began = "slot", monotonic()
        if self.timeout:
            self.timeout.reschedule(None)
        try:
            yield
        finally:
            passed = monotonic() - began
            if self.timeout:
                self.waited += passed
                self.began += passed
            else:
                self.own += passed
            if self.timeout and self.timeout.when() is None:
                self.timeout.reschedule(self.until)

    def give_up(self) -> None:
        """Wait for our turn no longer."""
        if self.timeout and self.timeout.when() is None:
            self.timeout.reschedule(0.0)

    @contextmanager
    def own_time(self) -> Iterator[None]:
        """Count time that is ours, not the target's."""
        began = monotonic()
        try:
            yield
        finally:
            self.own += monotonic() - began

    def told(self, detail: str) -> str:
        """Return what people are told: the address that was tried, and what came of it."""
        if not self.tried or not (detail or self.dns_stale):
            return detail
        return f"{self.tried[-1]}{' (dns_stale)' if self.dns_stale else ''}: {detail}"

    def expired(self) -> Failed:
        """Say what it proves that the deadline has passed."""
        if self.stuck:
            return Failed(
                Cause.SEVERED, "the server asked for a proof that takes too long to compute"
            )
        if self.own > self.deadline / OWN_SHARE:
            return Failed(Cause.LATE_LOOP, "too many logins at once")
        if (
            self.stage == "login"
            and self.asked
            and monotonic() - self.spoke > self.deadline / OWN_SHARE
        ):
            return Failed(
                Cause.LOGIN_FAILING, "the server asked who we are, was told, and says nothing more"
            )
        return Failed(_LATE[self.stage], f"no answer within {self.deadline:g} s")
