"""What ticks report, and the JSON they travel as in the journal. Anyone may import this."""

import json
from dataclasses import asdict, dataclass

from monitor.core.cause import Cause
from monitor.core.status import Identity, State


@dataclass(frozen=True, slots=True)
class Seen:
    """One observation kept as evidence; times in fleet seconds."""

    worker: str
    sent_at: float
    at: float
    cause: Cause
    rounds: int = 1
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Transition:
    """A change of state: (database, identity) names it for ever, `prev` is the transition it builds on."""

    database: str
    identity: Identity
    prev: Identity | None
    source: State
    target: State
    rule: str
    at: float
    worker: str
    observers: tuple[str, ...]
    evidence: tuple[Seen, ...]


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
    """Read what `encode` wrote."""
    fields = json.loads(text)
    if fields.pop("type") == "cannot_reach":
        fields |= {"doubt": Identity.parse(fields["doubt"]), "cause": Cause(fields["cause"])}
        return CannotReach(**fields)
    fields["identity"] = Identity.parse(fields["identity"])
    fields["prev"] = Identity.parse(fields["prev"]) if fields["prev"] else None
    fields["source"], fields["target"] = State(fields["source"]), State(fields["target"])
    fields["observers"] = tuple(fields["observers"])
    fields["evidence"] = tuple(Seen(**seen | {"cause": Cause(seen["cause"])}) for seen in fields["evidence"])
    return Transition(**fields)
