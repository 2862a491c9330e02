"""What Redis holds of a database, as automation reads it: pure, time is an argument. Imported by
web/ only.

`stale` is computed here, at reading, per family from its own cadence: our fault, never the state's.
"""

import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from monitor.core.advice import advice, grant
from monitor.core.cause import EVIDENCE, Cause, Evidence
from monitor.core.observation import GAUGES, Reading, ReadingStatus, Value
from monitor.core.overlay import age, is_old, is_stale
from monitor.core.policy import Policy
from monitor.core.status import State
from monitor.live.observations import Latest
from monitor.live.reasons import Reason
from monitor.shapes import (
    FamilyShape,
    LastObservationShape,
    ListMetaShape,
    ObservationShape,
    ReasonShape,
)

SERVICES = "services_available"


@dataclass(frozen=True, slots=True)
class Told:
    """What else there is for people: the address, whom it logs in as, what the server said."""

    address: str = ""
    user: str = ""
    reason: Reason | None = None


def moment(at: float) -> str:
    """Return fleet seconds as RFC 3339 in UTC with milliseconds."""
    return (
        datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").removesuffix("+00:00")
        + "Z"
    )


def last_observation(latest: Latest, now: float, told: Told) -> LastObservationShape:
    """Return the answer for one database."""
    status, name = latest.status, latest.database
    return {
        "database": {"name": name, "labels": dict(latest.labels), "address": told.address},
        "state": status.state.value,
        "state_since": moment(status.since) if status.identity else None,
        "transition": str(status.identity) if status.identity else None,
        "rule": status.rule,
        "reason": _reason(latest, told.reason),
        "unreachable_from": list(status.unreachable_from),
        "observation": _observation(latest, now, told.user),
        "owner": latest.owner,
        "links": {
            "self": f"/api/v1/last_observation/{name}",
            "transitions": f"/api/v1/databases/{name}/transitions",
        },
    }


def meta(
    answers: Sequence[LastObservationShape], total: int, trouble: Iterable[str]
) -> ListMetaShape:
    """Return what a page of answers adds up to."""
    ages = [answer["observation"]["age_seconds"] for answer in answers if answer["observation"]]
    states = Counter(answer["state"] for answer in answers)
    return {
        "total": total,
        "oldest_age_seconds": max(ages, default=None),
        "states": {state: states[state] for state in State if states[state]},
        "trouble": list(trouble),
    }


def etag(latest: Latest, now: float) -> str:
    """Return what changes with every transition, assignment, beat and label, and when something
    turns stale.
    """
    stale = [is_stale(reading, latest.policy, now) for reading in latest.readings]
    overlay = f"{stale} {latest.owner} {sorted(latest.labels.items())} {latest.policy} {latest.ciphertext}"
    if latest.at is not None:
        overlay += f" {is_old(latest.at, latest.policy.stale_after, now)}"
    return f'W/"{latest.status.identity or "new"}-{latest.epoch or 0}-{latest.number}-{zlib.crc32(overlay.encode()):08x}"'


def _reason(latest: Latest, reason: Reason | None) -> ReasonShape | None:
    if latest.cause is None:
        return None
    return {
        "code": latest.cause.value,
        "sqlstate": reason.sqlstate if reason else "",
        "detail": reason.detail if reason else "",
        "advice": advice(latest.cause),
        "revision": latest.revision,
    }


def _observation(latest: Latest, now: float, user: str) -> ObservationShape | None:
    if latest.at is None or latest.sent_at is None or latest.cause is None:
        return None
    policy, values = latest.policy, _values(latest.cause, latest.readings)
    return {
        "observed_at": moment(latest.at),
        "age_seconds": age(latest.at, now),
        "interval_seconds": policy.interval,
        "login_interval_seconds": latest.login_interval or policy.login_interval,
        "stale": is_old(latest.at, policy.stale_after, now),
        "stale_after_seconds": policy.stale_after,
        "worker": latest.worker,
        "cause": latest.cause.value,
        "duration_ms": round(max(0.0, latest.at - latest.sent_at) * 1000, 1),
        "waited_ms": latest.waited_ms,
        "dns_stale": latest.dns_stale,
        "pooled": latest.access.pooled,
        "values": values,
        "units": {
            name: GAUGES[name].unit for name in values if name in GAUGES and GAUGES[name].unit
        },
        "families": {
            reading.family: _family(reading, policy, now, user) for reading in latest.readings
        },
        "errors": _errors(latest.cause, latest.readings),
    }


def _family(reading: Reading, policy: Policy, now: float, user: str) -> FamilyShape:
    return {
        "status": reading.status.value,
        "observed_at": moment(reading.observed_at),
        "age_seconds": age(reading.observed_at, now),
        "stale": is_stale(reading, policy, now),
        "code": reading.code,
        "advice": grant(user) if reading.status is ReadingStatus.DENIED else "",
    }


def _values(cause: Cause, readings: Iterable[Reading]) -> dict[str, Value]:
    """Return the good values; a feel that failed by our own fault says nothing of the service."""
    values: dict[str, Value] = (
        {} if EVIDENCE[cause] is Evidence.OUR_FAULT else {SERVICES: cause is Cause.OK}
    )
    for reading in readings:
        if reading.status is ReadingStatus.OK:
            values |= reading.values
    return values


def _errors(cause: Cause, readings: Iterable[Reading]) -> dict[str, str]:
    errors = {
        reading.family: reading.code or reading.status.value
        for reading in readings
        if _failed(reading)
    }
    return errors | ({SERVICES: cause.value} if EVIDENCE[cause] is Evidence.OUR_FAULT else {})


def _failed(reading: Reading) -> bool:
    return reading.status is not ReadingStatus.OK
