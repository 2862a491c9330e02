"""What is told beside a state when it is read: how old an observation is, and whether it is stale.

Stale is our own fault and never changes a state: it is decided at reading, by the reader's clock,
for each family of gauges by its own cadence. Pure, time is an argument; web/ imports this.
"""

from monitor.core.observation import SLOW_FAMILIES, Reading
from monitor.core.policy import Policy
from monitor.core.timing import CLOCK_STEP


def age(at: float, now: float) -> float:
    """Return how long ago something was; never negative, clocks differ by a little."""
    return round(max(0.0, now - at), 3)


def is_old(at: float, most: float, now: float) -> bool:
    """Tell whether a moment is longer ago than `most` seconds.

    One far in the future tells no age: the fleet's clock was set back.
    """
    return not -CLOCK_STEP <= now - at <= most


def stale_after(family: str, policy: Policy) -> float:
    """Return the seconds after which a family's values no longer speak for now."""
    if family in SLOW_FAMILIES:
        return 3 * policy.slow_interval + policy.deadline
    return policy.stale_after


def is_stale(reading: Reading, policy: Policy, now: float) -> bool:
    """Tell whether a family has missed its own cadence for too long."""
    return is_old(reading.observed_at, stale_after(reading.family, policy), now)
