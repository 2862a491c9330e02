"""What a server said when it was not ok, for people: text too long for the database's hash.

Workers write, doors read. A reason counts only for the cause it names: the hash may have gone on,
and nobody removes what expires in a while.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

from monitor.core.cause import Cause
from monitor.core.observation import Observation
from monitor.live.connections import Live, wrap_store_errors
from monitor.live.keys import reason_key
from monitor.live.observations import Latest

LENGTH = 200  # characters
KEPT = 600  # seconds


@dataclass(frozen=True, slots=True)
class Reason:
    """The error behind a cause, as the worker that met it gives it."""

    cause: str
    sqlstate: str
    detail: str
    worker: str


def reason_of(observation: Observation) -> Reason | None:
    """Return what there is to tell of an observation beyond its cause."""
    told = observation.detail or observation.sqlstate
    if observation.cause is Cause.OK or not told:
        return None
    return Reason(
        cause=observation.cause.value,
        sqlstate=observation.sqlstate,
        detail=observation.detail[:LENGTH],
        worker=observation.worker,
    )


async def tell(live: Live, reasons: Mapping[str, Reason]) -> None:
    """Keep the reasons of these databases for a while."""
    pipe = live.cache.pipeline(transaction=False)
    for name, reason in reasons.items():
        text = json.dumps(asdict(reason))
        pipe.set(reason_key(name), text, ex=KEPT)
    with wrap_store_errors():
        await pipe.execute()


async def reasons(live: Live, known: Iterable[Latest]) -> dict[str, Reason]:
    """Return the reasons of those that are not ok, where they name the newest cause."""
    nothing_to_tell = (None, Cause.OK)
    wanted = [one for one in known if one.cause not in nothing_to_tell]
    if not wanted:
        return {}
    pipe = live.cache.pipeline(transaction=False)
    for one in wanted:
        pipe.get(reason_key(one.database))
    with wrap_store_errors():
        texts = await pipe.execute()
    found = {}
    for one, text in zip(wanted, texts, strict=True):
        reason = _read(text)
        if reason and reason.cause == one.cause:
            found[one.database] = reason
    return found


def _read(text: str | None) -> Reason | None:
    """Read what this or a newer version wrote; what it cannot read is no reason."""
    try:
        stored = json.loads(text or "{}")
        return Reason(
            cause=str(stored["cause"]),
            sqlstate=str(stored["sqlstate"]),
            detail=str(stored["detail"]),
            worker=str(stored["worker"]),
        )
    except (ValueError, KeyError, TypeError):
        return None
