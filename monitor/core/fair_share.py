"""How many databases each worker should hold. Pure; core/assignment.py alone imports this."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Share:
    """How many databases a worker holds: filled from below `low` to `fair`, at most `limit`."""

    low: int
    fair: int
    limit: int

    def within(self, capacity: int) -> "Share":
        """Return the share of a worker that can hold so many."""
        low = min(self.low, capacity)
        fair = min(self.fair, capacity)
        limit = min(self.limit, capacity)
        return Share(low, fair, limit)


def shares(capacities: Mapping[str, int], total: int) -> dict[str, Share]:
    """Divide this many databases fairly.

    What a small worker cannot hold falls to the others in equal parts.
    """
    room = sum(capacities.values())
    if room < total:
        capacities = _overdrawn(capacities, room, total)
    level, parts = _level(capacities.values(), total)  # the fair share is level / parts
    quarters = 4 * parts
    low = 3 * level // quarters
    if level >= parts:
        low = max(low, 1)  # who could hold one must not stay empty
    fair = level // parts
    limit = _rounded_up(5 * level, quarters)
    share = Share(low, fair, limit)
    return {worker: share.within(capacity) for worker, capacity in capacities.items()}


def _overdrawn(capacities: Mapping[str, int], room: int, total: int) -> dict[str, int]:
    """Return capacities that suffice: every one overdrawn in proportion."""
    if not room:
        each = _rounded_up(total, len(capacities))
        return dict.fromkeys(capacities, each)
    overdrawn: dict[str, int] = {}
    for worker, capacity in capacities.items():
        part = total * capacity
        overdrawn[worker] = _rounded_up(part, room)
    return overdrawn


def _rounded_up(dividend: int, divisor: int) -> int:
    return -(-dividend // divisor)


def _level(capacities: Collection[int], total: int) -> tuple[int, int]:
    """Return what is left for those it does not fill, and how many they are."""
    level, parts = total, len(capacities)
    for capacity in sorted(capacities):
        if capacity * parts >= level:
            break
        level -= capacity
        parts -= 1
    return level, parts
