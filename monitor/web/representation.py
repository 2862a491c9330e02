"""What Redis holds of a database, as automation reads it: pure, time is an argument.

web/ alone imports this; what is stale is decided in core/overlay.py.
"""

import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
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
class Details:
    """What else there is for people: the address, whom it logs in as, what the server said."""

    address: str = ""
    user: str = ""
    reason: Reason | None = None


# --- the answer for one database ---


def last_observation(latest: Latest, now: float, details: Details) -> LastObservationShape:
    """Return the answer for one database."""
    status, name = latest.status, latest.database
    decided = status.identity
    return {
        "database": {"name": name, "labels": dict(latest.labels), "address": details.address},
        "state": status.state.value,
        "state_since": rfc3339(status.since) if decided else None,
        "transition": str(decided) if decided else None,
        "rule": status.rule,
        "reason": _reason(latest, details.reason),
        "unreachable_from": list(status.unreachable_from),
        "observation": _observation(latest, now, details.user),
        "owner": latest.owner,
        "links": {
            "self": f"/api/v1/last_observation/{name}",
            "transitions": f"/api/v1/databases/{name}/transitions",
        },
    }


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
    policy, cause = latest.policy, latest.cause
    values = _values(cause, latest.readings)
    took = max(0.0, latest.at - latest.sent_at)
    families = {one.family: _family(one, policy, now, user) for one in latest.readings}
    return {
        "observed_at": rfc3339(latest.at),
        "age_seconds": age(latest.at, now),
        "interval_seconds": policy.interval,
        "login_interval_seconds": latest.login_interval or policy.login_interval,
        "stale": is_old(latest.at, policy.stale_after, now),
        "stale_after_seconds": policy.stale_after,
        "worker": latest.worker,
        "cause": cause.value,
        "duration_ms": round(took * 1000, 1),
        "waited_ms": latest.waited_ms,
        "dns_stale": latest.dns_stale,
        "pooled": latest.access.pooled,
        "values": values,
        "units": _units(values),
        "families": families,
        "errors": _errors(cause, latest.readings),
    }


def _family(reading: Reading, policy: Policy, now: float, user: str) -> FamilyShape:
    return {
        "status": reading.status.value,
        "observed_at": rfc3339(reading.observed_at),
        "age_seconds": age(reading.observed_at, now),
        "stale": is_stale(reading, policy, now),
        "code": reading.code,
        "advice": grant(user) if reading.status is ReadingStatus.DENIED else "",
    }


def _values(cause: Cause, readings: Iterable[Reading]) -> dict[str, Value]:
    """Return the good values; a probe that failed by our own fault says nothing of the service."""
    values: dict[str, Value] = {}
    if EVIDENCE[cause] is not Evidence.OUR_FAULT:
        values[SERVICES] = cause is Cause.OK
    for reading in readings:
        if reading.status is ReadingStatus.OK:
            values |= reading.values
    return values


def _units(values: Mapping[str, Value]) -> dict[str, str]:
    units = {}
    for name in values:
        gauge = GAUGES.get(name)
        if gauge and gauge.unit:
            units[name] = gauge.unit
    return units


def _errors(cause: Cause, readings: Iterable[Reading]) -> dict[str, str]:
    errors = {}
    for reading in readings:
        if reading.status is not ReadingStatus.OK:
            errors[reading.family] = reading.code or reading.status.value
    if EVIDENCE[cause] is Evidence.OUR_FAULT:
        errors[SERVICES] = cause.value
    return errors


# --- around the answers ---


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
    """Return what changes with whatever the answer says, and when something turns stale."""
    policy = latest.policy
    stale = [is_stale(reading, policy, now) for reading in latest.readings]
    labels = sorted(latest.labels.items())
    beside = f"{stale} {latest.owner} {labels} {policy} {latest.ciphertext}"
    if latest.at is not None:
        old = is_old(latest.at, policy.stale_after, now)
        beside += f" {old}"
    checksum = zlib.crc32(beside.encode())
    transition = latest.status.identity or "new"
    return f'W/"{transition}-{latest.epoch or 0}-{latest.number}-{checksum:08x}"'


def rfc3339(at: float) -> str:
    """Return fleet seconds as RFC 3339 in UTC with milliseconds."""
    text = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")
    return text.removesuffix("+00:00") + "Z"
