"""One feel in the making: how far it came, and whose time it took. For this package alone."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from monitor.core.cause import Cause
from monitor.feeler.admission import SharedResult
from monitor.feeler.causes import Failed

# Part of the deadline: where our own queues took more than a quarter, a timeout is no evidence.
OWN_SHARE = 4

_CAUSE_OF_TIMEOUT = {
    "admission": Cause.LATE_LOOP,
    "dns": Cause.DNS,
    "connect": Cause.CONNECT_TIMEOUT,
    "login": Cause.HUNG,
    "query": Cause.QUERY_TIMEOUT,
}


@dataclass(slots=True)
class Attempt:
    """Moments are monotonic seconds, but for `sent_at` and `evidence_at`, which are the fleet's."""

    clock: Callable[[], float]  # fleet seconds
    deadline: float  # seconds, of the part under way
    login_deadline: float = 0.0  # seconds a login may take
    began: float = field(default_factory=monotonic)  # when that part began
    # a login that began before says nothing new of this database, our own last one least of all
    since: float = 0.0
    # what ends a login; None where a kept session is asked beside it, so that no wait moves its end
    timeout: asyncio.Timeout | None = None
    stage: str = "query"
    own_delay: float = 0.0  # seconds of this part that were ours, not the target's
    waited: float = 0.0  # seconds by which waiting moved the deadline
    tried: list[str] = field(default_factory=list)  # addresses, the last one tried last
    dns_stale: bool = False  # the last ones known, for the name did not resolve
    reached: bool = False  # a host took our connection
    sent_at: float = 0.0  # when the first packet left
    sent: float = 0.0  # the same moment, monotonic
    evidence_at: float = 0.0  # when the evidence was in, where that was before the end, else 0
    shared_ended: float = 0.0  # when another database's login ended that found it out, else 0
    answered: bool = False  # the server said something in the login, whatever
    proof_requested: bool = False  # the server asked for a proof of who we are
    last_reply: float = 0.0  # when it last sent something in the login
    login: bool = False  # a login is part of the evidence
    login_seconds: float = 0.0  # that it took, where it worked
    login_waiting: bool = False  # a login is to be proved, and it is not our turn yet
    steps: dict[str, float] = field(default_factory=dict)  # milliseconds
    stuck_call: "asyncio.Future[Any] | None" = None  # a call in a thread that outlives the feel

    @property
    def until(self) -> float:
        return self.began + self.deadline

    def start_part(self, seconds: float) -> None:
        """Begin another part, with a deadline of its own."""
        self.began, self.deadline, self.own_delay = monotonic(), seconds, 0.0

    def sending(self) -> tuple[float, float]:
        """Note a first packet; return when it left, in fleet seconds and monotonic."""
        sent_at, sent = self.clock(), monotonic()
        self.evidence_at = self.shared_ended = 0.0
        if not self.sent_at:
            self.sent_at, self.sent = sent_at, sent
        return sent_at, sent

    def restart_login(self) -> None:
        """Forget a login that proves nothing: the next one is the evidence, with all its time."""
        self.sent_at = 0.0
        self.reached = self.answered = self.proof_requested = False
        self.waited += monotonic() - self.began
        self.steps.clear()
        self.start_part(self.deadline)
        if self.timeout:
            self.timeout.reschedule(self.until)

    def adopt(self, result: SharedResult) -> Failed:
        """Count another login's end as ours, with its times."""
        if not self.sent_at or result.sent_at < self.sent_at:
            self.sent_at, self.sent = result.sent_at, result.began
        self.evidence_at, self.shared_ended = result.at, result.ended
        self.reached = result.cause is Cause.STARTING
        return Failed(result.cause, result.detail, sqlstate=result.sqlstate)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time one step; what a timeout proves depends on the step it falls into."""
        self.stage, began = name, monotonic()
        try:
            yield
        finally:
            milliseconds = (monotonic() - began) * 1000
            self.steps[name] = round(self.steps.get(name, 0.0) + milliseconds, 3)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Wait for admission: the target's time stands still, unless a session is asked beside."""
        self.stage, began = "admission", monotonic()
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
                self.own_delay += passed
            # one that `cancel_wait` has set for now stays
            if self.timeout and self.timeout.when() is None:
                self.timeout.reschedule(self.until)

    def cancel_wait(self) -> None:
        """Wait for admission no longer."""
        if self.timeout and self.timeout.when() is None:
            self.timeout.reschedule(0.0)

    @contextmanager
    def counting_as_ours(self) -> Iterator[None]:
        """Count time that is ours, not the target's."""
        began = monotonic()
        try:
            yield
        finally:
            self.own_delay += monotonic() - began

    def describe(self, detail: str) -> str:
        """Return what people are told: the address that was tried, and what came of it."""
        if not self.tried or not (detail or self.dns_stale):
            return detail
        stale = " (dns_stale)" if self.dns_stale else ""
        return f"{self.tried[-1]}{stale}: {detail}"

    def expired(self) -> Failed:
        """Say what it proves that the deadline has passed."""
        if self.stuck_call:
            detail = "the server asked for a proof that takes too long to compute"
            return Failed(Cause.SEVERED, detail)
        tolerated = self.deadline / OWN_SHARE
        if self.own_delay > tolerated:
            return Failed(Cause.LATE_LOOP, "too many logins at once")
        silence = monotonic() - self.last_reply
        if self.stage == "login" and self.proof_requested and silence > tolerated:
            detail = "the server asked who we are, was told, and says nothing more"
            return Failed(Cause.LOGIN_FAILING, detail)
        return Failed(_CAUSE_OF_TIMEOUT[self.stage], f"no answer within {self.deadline:g} s")
