import pytest

from monitor.core.advice import ADVICE, advice
from monitor.core.cause import EVIDENCE, Cause, Evidence


@pytest.mark.parametrize("cause", Cause)
def test_every_cause_says_what_to_do_next(cause):
    assert bool(ADVICE.get(cause)) == (cause is not Cause.OK), f"{cause}: give it its advice in monitor/core/advice.py"


def test_our_own_faults_do_not_blame_the_server():
    ours = [cause for cause in Cause if EVIDENCE[cause] is Evidence.VOID]
    assert not [cause for cause in ours if "the server's log" in ADVICE[cause]]


def test_the_code_says_more_than_the_cause():
    assert "set-url" in advice(Cause.LOCKED_OUT, "28P01")
    assert "GRANT CONNECT" in advice(Cause.LOCKED_OUT, "42501")
    assert advice(Cause.LOCKED_OUT, "0LXXX") == advice(Cause.LOCKED_OUT) == ADVICE[Cause.LOCKED_OUT]
    assert advice(Cause.OK, "28P01") == ""
