"""The flat fields of a database's hash: observations and Status to text and back.

Only live/ imports this. A text has at most 64 bytes. A number stays the number people would type
(`HSET db1 db_size 4213`); what there is none of is no field at all.
"""

import re
from collections.abc import Iterator, Mapping

from monitor.core import access
from monitor.core import status as statuses
from monitor.core.cause import Evidence
from monitor.core.foreign import moment
from monitor.core.observation import FAMILIES, GAUGES, Observation, Reading, ReadingStatus, Value
from monitor.core.status import Status

MOST_BYTES = 64  # one longer value makes the whole hash 3.5 times larger
_ZEROES = {"ok_rounds": "0", "errors": "0", "unreachable_at": "0.000"}
_NUMBER = re.compile(r"-?\d+(\.\d+)?(e[+-]?\d+)?\Z")


_GAUGES_OF: dict[str, list[str]] = {family: [] for family in FAMILIES}
for _gauge in GAUGES.values():
    _GAUGES_OF[_gauge.family].append(_gauge.name)


def status_fields(status: Status) -> dict[str, str]:
    """Return every status field in the order of STATUS_FIELDS; '' where there is none."""
    fields = statuses.encode(status)
    for name, zero in _ZEROES.items():
        if fields[name] == zero:
            fields[name] = ""
    return fields


def observation_fields(observation: Observation) -> dict[str, str]:
    """Return what one feel found; '' for a field that must go.

    Families it did not read are left alone. A feel that failed by our own fault saw nothing of the
    database: it changes only the cause, the last observation stays, with its age.
    """
    fields = {
        "cause": observation.cause.value,
        "revision": str(observation.revision or ""),
    }
    evidence = observation.evidence
    if evidence is Evidence.OUR_FAULT:
        return fields
    at = observation.at
    sent_at = observation.sent_at
    duration_ms = (at - sent_at) * 1000
    waited_ms = observation.waited * 1000
    fields["observed_at"] = f"{at:.3f}"
    fields["sent_at"] = f"{sent_at:.3f}"
    fields["seen_by"] = observation.worker
    fields["duration_ms"] = f"{duration_ms:.0f}"
    fields["fresh_login"] = "1" if observation.fresh_login else "0"
    fields["login_interval"] = f"{observation.login_interval:g}"
    fields["dns_stale"] = "1" if observation.dns_stale else ""
    fields["waited_ms"] = f"{waited_ms:.0f}" if waited_ms >= 1 else ""
    fields["services_available"] = "1" if evidence is Evidence.OK else "0"
    fields |= access.encode(observation.access)
    for reading in observation.readings:
        _add_reading(fields, reading)
    return fields


def _add_reading(fields: dict[str, str], reading: Reading) -> None:
    family = reading.family
    status = reading.status
    head = f"{status.value} {reading.observed_at:.3f} {reading.code}"
    fields[f"family:{family}"] = head.rstrip()
    values = reading.values if status is ReadingStatus.OK else {}
    for name in _GAUGES_OF[family]:
        if name in values:
            fields[name] = _text(values[name])
        else:
            fields[name] = ""


def readings(fields: Mapping[str, str]) -> tuple[Reading, ...]:
    """Read the families back; a gauge that is not there is left out."""
    return tuple(_readings(fields))


def _readings(fields: Mapping[str, str]) -> Iterator[Reading]:
    for family in FAMILIES:
        text = fields.get(f"family:{family}")
        if not text:
            continue
        status, observed_at, *code = text.split(" ")
        values: dict[str, Value] = {}
        for name in _GAUGES_OF[family]:
            if name in fields:
                values[name] = _value(fields[name])
        yield Reading(
            family,
            moment(observed_at),
            ReadingStatus(status),
            values,
            "".join(code),
        )


def _text(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return repr(value)
    encoded = str(value).encode()
    return encoded[:MOST_BYTES].decode(errors="ignore")


def _value(text: str) -> Value:
    if text in ("true", "false"):
        return text == "true"
    if not _NUMBER.match(text):
        return text
    if "." in text or "e" in text:
        return float(text)
    return int(text)
