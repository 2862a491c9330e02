import pytest

from monitor.core.advice import ADVICE, advice, grant
from monitor.core.cause import EVIDENCE, LOCKS, Cause, Evidence


@pytest.mark.parametrize("cause", Cause)
def test_every_cause_says_what_to_do_next(cause):
    assert bool(ADVICE.get(cause)) == (cause is not Cause.OK), (
        f"{cause}: give it its advice in monitor/core/advice.py"
    )


def test_our_own_faults_do_not_blame_the_server():
    ours = [cause for cause in Cause if EVIDENCE[cause] is Evidence.OUR_FAULT]
    assert not [cause for cause in ours if "the server's log" in ADVICE[cause]]


def test_each_way_to_be_locked_out_has_its_own_advice():
    assert "set-url" in advice(Cause.WRONG_PASSWORD)
    assert "GRANT CONNECT" in advice(Cause.NO_PRIVILEGE)
    assert len({advice(cause) for cause in LOCKS}) == len(LOCKS)
    assert advice(Cause.OK) == ""


@pytest.mark.parametrize(
    ("role", "named"),
    [("feeler", "feeler"), ("", "..."), ("Read Only", '"Read Only"'), ('a"b', '"a""b"')],
)
def test_the_grant_names_the_role(role, named):
    assert grant(role) == f"GRANT pg_monitor TO {named};"
