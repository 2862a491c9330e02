"""Policies that would call a well database down, or never decide, cannot be made."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.core.cause import Cause
from monitor.core.errors import InvalidInput
from monitor.core.policy import Policy, stored
from monitor.core.status import State
from monitor.core.timing import LED_MARK
from tests.core.making import Story, examples

BROKEN = [
    ({"alone_seconds": LED_MARK}, "alone_seconds: must be more than 20 s", "leader that is gone"),
    ({"silent_seconds": 1.5}, "silent_seconds: 1.5 is less than absent_seconds (2)", "quicker"),
    ({"opinion_grace": 0.5}, "opinion_grace: 0.5 is less than fast_interval (1)", "asked again"),
    ({"deadline": 6.0}, "handover_grace: 10 is less than 2 x deadline (6)", "former owner's"),
    ({"login_least": 7.0}, "login_most: 5 is less than login_least (7)", "two ends"),
    ({"interval": 0.0}, "interval: must be more than zero", ""),
    ({"absent_seconds": math.nan}, "absent_seconds: must be more than zero", ""),
    ({"recovery_seconds": math.inf}, "recovery_seconds: must be more than zero", ""),
]


@pytest.mark.parametrize(("values", "relation", "why"), BROKEN)
def test_a_policy_that_breaks_a_relation_is_refused_and_told_which(values, relation, why):
    with pytest.raises(InvalidInput) as refused:
        Policy(**values)
    assert str(refused.value).startswith(f"policy/{relation}")
    assert why in str(refused.value)


def test_what_an_older_version_stored_hinders_nobody():
    policy, trouble = stored({"name": "hasty", "alone_seconds": 3.0})
    assert policy == Policy(name="hasty")
    assert trouble.startswith("policy/alone_seconds: must be more than 20 s")
    assert stored({"name": "calm", "interval": 60.0}) == (Policy(name="calm", interval=60.0), "")


seconds, times = st.sampled_from([0.3, 1.0, 2.0, 4.0, 10.0]), st.sampled_from([1.0, 1.5, 10.0])


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    """Any policy that is taken, those at the edge of a relation most of all."""
    deadline, fast, absent = draw(seconds), draw(seconds), draw(seconds)
    return Policy(
        deadline=deadline,
        fast_interval=fast,
        opinion_grace=fast,
        absent_seconds=absent,
        silent_seconds=absent * draw(times),
        handover_grace=2 * max(deadline, fast) * draw(times),
        absent_rounds=draw(st.integers(1, 6)),
        silent_rounds=draw(st.integers(1, 6)),
    )


@given(policies(), st.sampled_from([Cause.HUNG, Cause.PORT_CLOSED]))
@examples(60)
def test_under_any_policy_that_is_taken_a_dead_database_is_found_dead_by_two_workers(policy, cause):
    """The doubt changes hands whenever its owner asks; a silent probe takes its deadline."""
    story, at, requests = Story(more={"policy": policy}), 100.0, 0
    story.feel(Cause.OK, at)
    took = policy.deadline if cause is Cause.HUNG else 0.0
    rounds = policy.silent_rounds * (took + policy.fast_interval)
    longest = 3 * (policy.silent_seconds + policy.handover_grace + rounds)
    while story.status.state is not State.UNAVAILABLE:
        sent, at = at, at + took
        story.feel(cause, at, sent=sent)
        if len(story.requests) > requests:
            requests = len(story.requests)
            story.move("w2" if story.worker == "w1" else "w1")
        at = max(at, sent + policy.fast_interval)
        assert at < 100.0 + 40 + longest, (policy, story.transitions)
