"""GET /api/v1/databases/{name}/transitions: the durable history of one database's state."""

from typing import Annotated

from fastapi import APIRouter, Query

from monitor.core.event import Finding
from monitor.registry import fleet
from monitor.registry.rows import TransitionRow
from monitor.registry.transitions import read_transitions
from monitor.shapes import SeenShape, TransitionShape, TransitionsShape
from monitor.web.parameters import STRICT, Limit, Name
from monitor.web.problems import DOCUMENTED
from monitor.web.registry_access import StoreOf
from monitor.web.representation import rfc3339

router = APIRouter(tags=["transitions"], dependencies=[STRICT], responses=DOCUMENTED)


@router.get("/databases/{name}/transitions")
def transitions(
    name: Name,
    store: StoreOf,
    limit: Limit = 50,
    before: Annotated[
        int | None, Query(ge=1, description="`next_before` of the page before")
    ] = None,
) -> TransitionsShape:
    """Return the transitions of a database, newest first."""
    rows = read_transitions(store, name, limit, before)
    if not rows:
        fleet.get(store, name)  # raises NotFound
    return {
        "data": [_shape(row) for row in rows],
        "next_before": rows[-1].id if len(rows) == limit else None,
    }


def _shape(row: TransitionRow) -> TransitionShape:
    one = row.transition
    return {
        "version": row.version,
        "superseded": row.superseded,
        "identity": str(one.identity),
        "previous": str(one.prev) if one.prev else None,
        "from": one.source.value,
        "to": one.target.value,
        "rule": one.rule,
        "at": rfc3339(one.at),
        "worker": one.worker,
        "observers": list(one.observers),
        "evidence": [_seen(seen) for seen in one.evidence],
    }


def _seen(seen: Finding) -> SeenShape:
    return {
        "worker": seen.worker,
        "sent_at": rfc3339(seen.sent_at),
        "observed_at": rfc3339(seen.at),
        "cause": seen.cause.value,
        "rounds": seen.rounds,
        "detail": seen.detail,
    }
