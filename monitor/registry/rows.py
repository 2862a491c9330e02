"""Transitions as rows and back. Only registry/ imports this."""

import hashlib
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Row

from monitor.core.event import Finding, Transition, decode_finding, encode
from monitor.core.status import (
    MAX_WITNESSES,
    Doubt,
    Epoch,
    Identity,
    Key,
    State,
    Status,
    Witness,
)


@dataclass(frozen=True, slots=True)
class TransitionRow:
    """One transition as kept."""

    id: int  # the cursor of `read_transitions`
    version: int | None
    superseded: bool
    recorded_at: float
    transition: Transition


def digest(transition: Transition) -> bytes:
    """Return what tells a replay of this transition from another content."""
    return hashlib.sha256(encode(transition).encode()).digest()


def key_of(transition: Transition) -> Key:
    """Return what names a transition for ever."""
    return transition.database, transition.identity


def identity_columns(transition: Transition) -> dict[str, Any]:
    """Return the columns that name a transition."""
    (term, counter), n = transition.identity
    return {
        "database_name": transition.database,
        "epoch_term": term,
        "epoch_counter": counter,
        "n": n,
    }


def columns_of(transition: Transition, version: int | None) -> dict[str, Any]:
    """Return every column we fill."""
    return {
        **identity_columns(transition),
        **_prev_columns(transition.prev),
        "version": version,
        "source": transition.source.value,
        "target": transition.target.value,
        "rule": transition.rule,
        "evidence": [_evidence_of(one) for one in transition.evidence],
        "observers": list(transition.observers),
        "worker": transition.worker,
        "at": moment(transition.at),
        "digest": digest(transition),
    }


def _prev_columns(prev: Identity | None) -> dict[str, int | None]:
    if prev is None:
        return {"prev_term": None, "prev_counter": None, "prev_n": None}
    return {
        "prev_term": prev.epoch.term,
        "prev_counter": prev.epoch.counter,
        "prev_n": prev.n,
    }


def _evidence_of(finding: Finding) -> dict[str, Any]:
    return asdict(finding) | {"detail": storable(finding.detail)}


def identity_of(row: Row[*tuple[Any, ...]]) -> Identity:
    """Return which transition a row is."""
    epoch = Epoch(row.epoch_term, row.epoch_counter)
    return Identity(epoch, row.n)


def prev_of(row: Row[*tuple[Any, ...]]) -> Identity | None:
    """Return which transition it builds on."""
    if row.prev_n is None:
        return None
    epoch = Epoch(row.prev_term, row.prev_counter)
    return Identity(epoch, row.prev_n)


def transition_of(row: Row[Any]) -> Transition:
    """Return the transition itself."""
    return Transition(
        database=row.database_name,
        identity=identity_of(row),
        prev=prev_of(row),
        source=State(row.source),
        target=State(row.target),
        rule=row.rule,
        at=seconds(row.at),
        worker=row.worker,
        observers=tuple(row.observers),
        evidence=tuple(map(decode_finding, row.evidence)),
    )


def row_of(row: Row[Any]) -> TransitionRow:
    """Return the transition with what keeping it added."""
    return TransitionRow(
        row.id, row.version, row.superseded, seconds(row.recorded_at), transition_of(row)
    )


def status_of(row: Row[Any]) -> Status:
    """Return the status a transition led to."""
    last = transition_of(row)
    return Status(
        state=last.target,
        since=last.at,
        identity=last.identity,
        rule=last.rule,
        doubt=_doubt_of(last) if last.target is State.UNCERTAIN else None,
    )


def _doubt_of(last: Transition) -> Doubt:
    """Make a doubt anew from the evidence that raised it."""
    sent_at = min((seen.sent_at for seen in last.evidence), default=last.at)
    witnesses = []
    for seen in last.evidence[:MAX_WITNESSES]:
        witness = Witness(seen.worker, seen.rounds, seen.sent_at, seen.at, seen.cause)
        witnesses.append(witness)
    return Doubt(last.identity, sent_at, last.at, tuple(witnesses))


def moment(seconds: float) -> datetime:
    """Return fleet seconds as Postgres keeps them."""
    return datetime.fromtimestamp(seconds, UTC)


def seconds(at: datetime) -> float:
    """Return fleet seconds, to the millisecond like wherever they are made."""
    return round(at.timestamp(), 3)


def storable(text: str) -> str:
    """Return text that Postgres takes: without NUL and half characters."""
    return text.replace("\0", "\ufffd").encode(errors="replace").decode()
