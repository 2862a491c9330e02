"""What is stale is decided at reading, by each family's own cadence."""

import pytest

from monitor.core.observation import FAMILIES, SLOW_FAMILIES, Reading, ReadingStatus
from monitor.core.overlay import age, is_old, is_stale, stale_after
from monitor.core.timing import CLOCK_STEP
from tests.core.making import POLICY, START


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_is_stale_once_it_has_missed_its_own_cadence(family):
    cadence = POLICY.slow_interval if family in SLOW_FAMILIES else POLICY.interval
    reading = Reading(family, START, ReadingStatus.OK)
    fresh = START + 3 * cadence + POLICY.deadline
    assert stale_after(family, POLICY) == fresh - START
    assert not is_stale(reading, POLICY, fresh)
    assert is_stale(reading, POLICY, fresh + 0.001)


def test_what_comes_from_the_future_is_stale_and_has_no_age():
    assert not is_old(START + CLOCK_STEP, 5.0, START)
    assert is_old(START + CLOCK_STEP + 0.001, 5.0, START)
    assert age(START + 3, START) == 0.0
    assert age(START, START + 1.23456) == 1.235
