"""What ticks report, and the JSON they travel as in the journal. Anyone may import this."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from monitor.core.cause import Cause
from monitor.core.errors import InvalidInput
from monitor.core.foreign import fitting, moment
from monitor.core.status import Identity, State


@dataclass(frozen=True, slots=True)
class Finding:
    """One observation kept as evidence; times in fleet seconds."""

    worker: str
    sent_at: float
    at: float
    cause: Cause
    rounds: int = 1
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Transition:
    """A change of state: (database, identity) names it for ever; it builds on `prev`."""

    database: str
    identity: Identity
    prev: Identity | None
    source: State
    target: State
    rule: str
    at: float
    worker: str
    observers: tuple[str, ...]
    evidence: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class CannotReach:
    """A worker's request for another one: 'I can't reach this database', in the doubt it names."""

    database: str
    doubt: Identity
    worker: str
    at: float
    cause: Cause
    third: bool = False  # absent for another worker and silent for this one: neither proves it


Event = Transition | CannotReach


def encode(event: Event) -> str:
    """Return the event as compact JSON with sorted keys: equal events encode to equal texts."""
    fields = asdict(event)
    if isinstance(event, Transition):
        fields |= {
            "type": "transition",
            "identity": str(event.identity),
            "prev": str(event.prev) if event.prev else None,
        }
    else:
        fields |= {"type": "cannot_reach", "doubt": str(event.doubt)}
    return json.dumps(fields, separators=(",", ":"), sort_keys=True)


def decode(text: str) -> Event:
    """Read what `encode` of this or a newer version wrote; else it is InvalidInput."""
    try:
        fields = json.loads(text)
        if fields["type"] == "transition":
            return _transition(fields)
        return _cannot_reach(fields)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as exc:
        raise InvalidInput("event", f"{type(exc).__name__}: {exc}"[:80]) from None


def _cannot_reach(fields: Mapping[str, Any]) -> CannotReach:
    if fields["type"] != "cannot_reach":
        raise InvalidInput("event", "of a type not known here")
    moment(fields["at"])
    read = {"doubt": Identity.parse(fields["doubt"]), "cause": Cause(fields["cause"])}
    return CannotReach(**fitting(CannotReach, fields) | read)


def _transition(fields: Mapping[str, Any]) -> Transition:
    moment(fields["at"])
    read = {
        "identity": Identity.parse(fields["identity"]),
        "prev": Identity.parse(fields["prev"]) if fields["prev"] else None,
        "source": State(fields["source"]),
        "target": State(fields["target"]),
        "observers": tuple(str(worker) for worker in fields["observers"]),
        "evidence": tuple(map(decode_finding, fields["evidence"])),
    }
    return Transition(**fitting(Transition, fields) | read)


def decode_finding(fields: Mapping[str, Any]) -> Finding:
    """Read one observation kept as evidence."""
    moment(fields["sent_at"])
    moment(fields["at"])
    return Finding(**fitting(Finding, fields) | {"cause": Cause(fields["cause"])})
