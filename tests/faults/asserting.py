"""What several rows look for in a lab. Only rows of tests/faults import this."""

import itertools
from collections.abc import Collection

from monitor.core.event import Transition
from tests.faults import injecting
from tests.faults.conftest import Figures
from tests.faults.lab import Lab
from tests.system.cluster import Role
from tests.waiting import eventually

TAKEN_OVER = 16.0  # seconds until others record what a worker owned that is gone
NEVER = {"confirm_absent", "confirm_silent", "single_observer"}  # rules that call a database down


def assert_unmoved(lab: Lab, names: Collection[str]) -> None:
    """Fail where a state has changed since the first observation."""
    for name in names:
        assert set(lab.eye.states(name)) <= {"new", "available"}
        assert lab.rules(name) == ["first_ok"]


def assert_available(lab: Lab, names: Collection[str]) -> None:
    """Fail where a database was seen in another state than available, once it was."""
    for name in names:
        states = [state for state in lab.eye.states(name) if state != "new"]
        assert states == ["available"], f"{name}: {states} by {_evidence(lab, name)}"


def _evidence(lab: Lab, name: str) -> str:
    """Return the transitions of a database with what each rests on, for people."""
    told = []
    for row in lab.transitions(name):
        one = row.transition
        for seen in one.evidence:
            took = seen.at - seen.sent_at
            found = f"{seen.cause} by {seen.worker} in {took:.3f} s: {seen.detail}"
            told.append(f"{one.rule} at {seen.at:.3f} on {found}")
    return "; ".join(told)


def longest_probe(lab: Lab, names: Collection[str], since: float = 0.0, cause: str = "") -> float:
    """Return how long the longest probe that was recorded since a moment took, by its cause."""
    sights = (sight for name in names for sight in lab.eye.sights[name])
    fields = [sight.fields for sight in sights if float(sight.fields.get("observed_at", 0)) > since]
    if cause:
        fields = [one for one in fields if one.get("cause") == cause]
    return max((float(one["observed_at"]) - float(one["sent_at"]) for one in fields), default=0.0)


def gaps(lab: Lab, name: str, since: float) -> list[float]:
    """Return the seconds between observations of a database, from the last before `since` on."""
    sights = [sight.fields for sight in lab.eye.sights[name]]
    moments = sorted({float(fields["observed_at"]) for fields in sights if "observed_at" in fields})
    first = sum(moment < since for moment in moments) - 1
    return [after - before for before, after in itertools.pairwise(moments[max(0, first) :])]


def terms(lab: Lab) -> list[int]:
    """Return every term somebody led in."""
    lines = [
        line for role in lab.roles for line in role.text().splitlines() if "action=leading " in line
    ]
    return sorted(int(line.split("term=")[1].split()[0]) for line in lines)


async def durable(lab: Lab, name: str, *rules: str) -> list[Transition]:
    """Wait until the history of a database says just this; return its transitions."""
    await eventually(lambda: lab.rules(name) == list(rules), within=15, every=0.2)
    return [row.transition for row in lab.transitions(name)]


async def taken_over(
    lab: Lab,
    victim: Role,
    names: Collection[str],
    figure: Figures,
    told: str = "observed by others after",
) -> None:
    """Kill a worker: others must take over what it owns."""
    orphans = lab.owned_by(victim, names)
    assert orphans
    injecting.killed(lab, victim)
    figure(told, await lab.observed_by_others(orphans, victim, within=30), most=TAKEN_OVER)
