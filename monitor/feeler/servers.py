"""What the logins of one process learn about one server, for all who keep a session there.

A server that hangs must not be asked by everybody at once: what it says to whoever comes is
reported to all. For this package alone.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic

from monitor.core.cause import EVIDENCE, Cause, Evidence
from monitor.feeler.admission import SHARED_CAUSES
from monitor.feeler.attempt import Attempt
from monitor.feeler.backoff import LoginBackoff
from monitor.feeler.causes import Failed

REPORT_LASTS = 1.0  # seconds a shared failure waits for those who were woken for it
SHARED_FROM = 2  # such failures in a row: one may be a packet that got lost


@dataclass(frozen=True, slots=True)
class SharedFailure:
    """How one login failed that would have failed for anybody at that address."""

    failed: Failed
    hostaddr: str
    began: float  # monotonic
    expires: float = field(default_factory=lambda: monotonic() + REPORT_LASTS)


@dataclass(frozen=True, slots=True)
class Report:
    """What another session's login proves for ours: a failure, or (None) that logins work again."""

    failed: Failed | None


class Server:
    """One host and port as its name is written, whatever the role."""

    def __init__(self) -> None:
        # the sessions of this process there, and how each is woken
        self.sessions: dict[object, Callable[[], None]] = {}
        self.backoff = LoginBackoff()
        self._login_worked = "", 0.0  # at which address, and when (monotonic), the newest one
        self._failing = ""  # the address that the failures are about
        self._failures = 0  # since somebody got an answer there
        self._shared: SharedFailure | None = None

    def login_failed(self, reporter: object, failure: SharedFailure) -> None:
        """Count a failure that anybody would have met; from the second on, all others learn it."""
        if failure.hostaddr != self._failing:
            self._failing = failure.hostaddr
            self._failures, self._shared = 0, None
        self._failures += 1
        if self._failures < SHARED_FROM:
            return
        self._shared = failure
        for session, wake in tuple(self.sessions.items()):
            if session is not reporter:
                wake()

    def answered(self, hostaddr: str) -> None:
        """Note that somebody got an answer of their own: the failures there are over."""
        if hostaddr == self._failing:
            self._failures, self._shared = 0, None

    def login_worked(self, hostaddr: str) -> None:
        """Note that somebody got in."""
        self._login_worked = hostaddr, monotonic()
        self.answered(hostaddr)

    def login_worked_since(self, moment: float, hostaddr: str) -> bool:
        """Say whether the newest login that worked was at this address, after `moment`."""
        where, at = self._login_worked
        return where == hostaddr and at > moment

    def failure_since(self, moment: float, hostaddr: str) -> Failed | None:
        """Return the shared failure of this address, if its login began after `moment`."""
        shared = self._shared
        if shared is None or shared.hostaddr != hostaddr:
            return None
        if shared.began <= moment or monotonic() >= shared.expires:
            return None
        return shared.failed


class LoginReports:
    """One session's exchange with the others at its server: what they proved since its own login.

    Who relied on another's failure relies on another's success too: else a server that is well
    again would be asked by everybody at once.
    """

    def __init__(self, server: Server, wake: Callable[[], None]) -> None:
        self._server = server
        self._relies_on_others = False  # the newest word on our logins was another session's
        self._proved = monotonic()  # when the newest login that counts for us ended
        server.sessions[self] = wake

    @property
    def sessions(self) -> int:
        """Return how many sessions of this process are at the server, this one included."""
        return len(self._server.sessions)

    def news(self, hostaddr: str) -> Report | None:
        """Return what others' logins at this address proved since the newest that counts for us."""
        failed = self._server.failure_since(self._proved, hostaddr)
        if failed:
            return Report(failed)
        worked = self._server.login_worked_since(self._proved, hostaddr)
        return Report(None) if self._relies_on_others and worked else None

    def rely_on(self, report: Report) -> None:
        """Take another's login for ours."""
        self._relies_on_others = report.failed is not None

    def login_begins(self) -> None:
        """Note a login of our own: it is the newest word, however it ends."""
        self._relies_on_others = False

    def login_worked(self, hostaddr: str) -> None:
        """Let the others know that we got in."""
        self._server.login_worked(hostaddr)

    def login_counted(self, moment: float) -> None:
        """Note when (monotonic) the login ended that counts for us."""
        self._proved = moment

    def login_failed(self, attempt: Attempt, failed: Failed) -> None:
        """Let the others know what the address says to whoever comes, and nothing else."""
        if attempt.shared_ended or not attempt.tried:
            return  # another login found it out, which counts once; or it came to no address
        hostaddr = attempt.tried[-1]
        mute = failed.cause is Cause.HUNG and not attempt.answered
        if failed.cause in SHARED_CAUSES or mute:
            self._server.login_failed(self, SharedFailure(failed, hostaddr, attempt.sent))
        elif EVIDENCE[failed.cause] is Evidence.ALIVE:
            self._server.answered(hostaddr)

    def close(self) -> None:
        """Take part no longer."""
        self._server.sessions.pop(self, None)
