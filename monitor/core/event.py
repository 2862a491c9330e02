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
    """A change of state: (database, identity) names it for ever, `prev` is the transition it builds
    on.
    """

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
    """A worker's cry for another one: 'I can't reach this database', in the doubt it names."""

    database: str
    doubt: Identity
    worker: str
    at: float
    cause: Cause


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
    """Read what `encode` of this or a newer version wrote; what is no event known here is
    InvalidInput.
    """
    try:
        told = json.loads(text)
        return _transition(told) if told["type"] == "transition" else _cannot_reach(told)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as exc:
        raise InvalidInput("event", f"{type(exc).__name__}: {exc}"[:80]) from None


def _cannot_reach(told: Mapping[str, Any]) -> CannotReach:
    if told["type"] != "cannot_reach":
        raise InvalidInput("event", "of a type not known here")
    moment(told["at"])
    read = {"doubt": Identity.parse(told["doubt"]), "cause": Cause(told["cause"])}
    return CannotReach(**fitting(CannotReach, told) | read)


def _transition(told: Mapping[str, Any]) -> Transition:
    moment(told["at"])
    read = {
        "identity": Identity.parse(told["identity"]),
        "prev": Identity.parse(told["prev"]) if told["prev"] else None,
        "source": State(told["source"]),
        "target": State(told["target"]),
        "observers": tuple(str(worker) for worker in told["observers"]),
        "evidence": tuple(map(decode_finding, told["evidence"])),
    }
    return Transition(**fitting(Transition, told) | read)


def decode_finding(told: Mapping[str, Any]) -> Finding:
    """Read one observation kept as evidence."""
    moment(told["sent_at"])
    moment(told["at"])
    return Finding(**fitting(Finding, told) | {"cause": Cause(told["cause"])})
