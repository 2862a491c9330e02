"""What the logins of one process learn about a server, for all who keep a session there."""

import time
from time import monotonic

from monitor.core.cause import Cause
from monitor.feeler.admission import SharedResult
from monitor.feeler.attempt import Attempt
from monitor.feeler.causes import Failed
from monitor.feeler.servers import SHARED_FROM, LoginReports, Server, SharedFailure

HERE, THERE = "192.0.2.1", "192.0.2.2"
REFUSED = Failed(Cause.PORT_CLOSED)


def refused(hostaddr: str) -> SharedFailure:
    return SharedFailure(REFUSED, hostaddr, monotonic())


def test_what_one_address_says_of_logins_is_said_of_that_one_alone() -> None:
    server = Server()
    server.login_failed(None, refused(HERE))
    server.login_failed(None, refused(THERE))
    assert server.failure_since(0.0, THERE) is None, "the first one there"
    server.login_failed(None, refused(THERE))
    server.login_worked(HERE)
    assert server.failure_since(0.0, THERE) is REFUSED
    assert not server.login_worked_since(0.0, THERE)
    assert server.login_worked_since(0.0, HERE)
    server.login_worked(THERE)
    assert server.failure_since(0.0, THERE) is None
    assert server.login_worked_since(0.0, THERE)


def test_what_another_login_found_out_counts_once() -> None:
    server, attempt = Server(), Attempt(time.time, 1.0, tried=[HERE])
    reports = LoginReports(server, lambda: None)
    found = SharedResult(
        Cause.PORT_CLOSED, "", "", sent_at=1.0, at=1.0, began=1.0, ended=1.0, expires=2.0
    )
    for _ in range(SHARED_FROM):
        reports.login_failed(attempt, attempt.adopt(found))
    assert not server.failure_since(0.0, HERE)
    attempt.sending()
    for _ in range(SHARED_FROM):
        reports.login_failed(attempt, REFUSED)
    assert server.failure_since(0.0, HERE)


def test_a_login_that_came_to_no_address_tells_nobody() -> None:
    reports = LoginReports(Server(), lambda: None)
    reports.login_failed(Attempt(time.time, 1.0), Failed(Cause.DNS))
    assert reports.news(HERE) is None
