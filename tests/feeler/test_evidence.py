"""What the two signals of a feel prove together."""

import pytest

from monitor.core.cause import Cause
from monitor.feeler import evidence
from monitor.feeler.causes import Failed
from monitor.feeler.evidence import Outcome
from monitor.feeler.pooler import Pooling

ANSWERED, ERRED = Outcome(Cause.OK, 150000), Outcome(Cause.SERVER_ERROR, 150000)


@pytest.mark.parametrize(
    ("login", "proved"),
    [
        (Cause.REFUSING, Cause.REFUSING),
        (Cause.STARTING, Cause.STARTING),
        (Cause.LOCKED_OUT, Cause.LOCKED_OUT),
        (Cause.WRONG_PASSWORD, Cause.WRONG_PASSWORD),
        (Cause.UNTRUSTED, Cause.UNTRUSTED),
        (Cause.PORT_CLOSED, Cause.LOGIN_FAILING),
        (Cause.HUNG, Cause.LOGIN_FAILING),
        (Cause.SERVER_ERROR, Cause.LOGIN_FAILING),
        (Cause.DESCRIPTORS, Cause.OK),
        (Cause.LATE_LOOP, Cause.OK),
    ],
)
def test_beside_a_kept_session_that_answers_no_login_proves_it_down(
    login: Cause, proved: Cause
) -> None:
    assert evidence.cause_beside_kept(login) is proved


def test_a_session_that_answers_where_no_login_could_be_tried_proves_no_login() -> None:
    assert evidence.without_login(ANSWERED).cause is Cause.LOGIN_NOT_PROVED
    assert evidence.without_login(ERRED) is ERRED


def test_a_refusal_is_told_again_as_long_as_the_server_lives() -> None:
    refusal = Outcome(Cause.WRONG_PASSWORD, detail="no", sqlstate="28P01")
    told = evidence.under_refusal(ANSWERED, refusal)
    assert (told.cause, told.detail, told.sqlstate) == (Cause.WRONG_PASSWORD, "no", "28P01")
    assert told.server_version, "its readings are kept"
    assert evidence.under_refusal(ERRED, refusal) is ERRED


def test_what_others_logins_proved_counts_for_a_session_that_is_answered() -> None:
    assert evidence.with_report(ANSWERED, None) is ANSWERED
    failed = Failed(Cause.HUNG, "no answer")
    assert evidence.with_report(ANSWERED, failed).cause is Cause.LOGIN_FAILING


def test_a_pooler_that_has_shown_itself_is_not_talked_away() -> None:
    assert Pooling.NONE.reported(True).present
    assert not Pooling.REPORTED.reported(False).present
    assert Pooling.CERTAIN.reported(False) is Pooling.CERTAIN
