"""/api/v1/databases: the registry. A connection URL goes in and never comes out."""

import logging
import re
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, ConfigDict, SecretStr
from starlette.concurrency import run_in_threadpool

from monitor.core.database import check_name, parse_address
from monitor.core.errors import InvalidInput, StoreUnavailable
from monitor.live import observations, requests
from monitor.live.connections import Live
from monitor.registry import fleet
from monitor.registry.fleet import Registered
from monitor.secrets import SecretBox
from monitor.web.parameters import STRICT, Cursor, Limit, LiveOf, Name, decode_cursor, encode_cursor
from monitor.web.patience import StoreOf
from monitor.web.problems import DOCUMENTED, unknown_database
from monitor.web.security import BEARER
from monitor.web.shapes import AcceptedShape, FleetShape, RegisteredShape

MAX_LABELS = 16
_LABEL = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}\Z")
_log = logging.getLogger("feeler.web")

router = APIRouter(tags=["databases"], dependencies=[STRICT], responses=DOCUMENTED)


class NewDatabase(BaseModel):
    """What `POST /api/v1/databases` takes."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    name: str
    url: SecretStr
    labels: dict[str, str] = {}
    policy: str = "default"
    zone: str = ""


async def box_of(request: Request) -> SecretBox:
    """Return what opens and seals addresses."""
    box: SecretBox = request.app.state.box
    return box


BoxOf = Annotated[SecretBox, Depends(box_of)]


@router.get("/databases")
def listed(store: StoreOf, box: BoxOf, limit: Limit = 100, cursor: Cursor = "") -> FleetShape:
    """Return the registered databases, sorted by name."""
    rows = fleet.list_databases(store, after=decode_cursor(cursor), limit=limit + 1)
    following = encode_cursor(rows[limit - 1].name) if len(rows) > limit else None
    return {"data": [_shape(row, box) for row in rows[:limit]], "next_cursor": following}


@router.get("/databases/{name}")
def read(name: Name, store: StoreOf, box: BoxOf) -> RegisteredShape:
    """Return one registered database."""
    return _shape(fleet.get(store, name), box)


@router.post("/databases", status_code=201, dependencies=[Depends(BEARER)])
async def register(new: NewDatabase, response: Response, store: StoreOf, box: BoxOf, live: LiveOf) -> RegisteredShape:
    """Register a database; a worker begins to watch it within seconds."""
    address = parse_address(new.url.get_secret_value())
    name, labels = check_name(new.name), _check_labels(new.labels)
    sealed = box.seal(name, new.url.get_secret_value().strip())
    row = await run_in_threadpool(fleet.add, store, name, sealed, labels, new.policy, new.zone)
    await _tell(live)
    response.headers["Location"] = f"/api/v1/databases/{name}"
    return _shape(row, box) | {"url": address.redacted()}


@router.delete("/databases/{name}", status_code=204, dependencies=[Depends(BEARER)])
async def retire(name: Name, store: StoreOf, live: LiveOf) -> None:
    """Retire a database: watching ends, its history stays, its name is not given again."""
    await run_in_threadpool(fleet.remove, store, name)
    await _tell(live)


@router.post("/databases/{name}/observe", status_code=202, dependencies=[Depends(BEARER)])
async def observe(name: Name, live: LiveOf) -> AcceptedShape:
    """Ask the owner to feel the database now; the answer is the next observation."""
    if name not in await observations.latest(live, [name]):
        raise unknown_database(name)
    return {"request": await requests.ask(live, "observe", name), "database": name}


async def _tell(live: Live) -> None:
    """Nudge the leader; without Redis it finds the change by itself a little later."""
    try:
        await requests.ask(live, "fleet_changed")
    except StoreUnavailable as error:
        _log.warning("action=nudge_failed store=%s", error.store)


def _check_labels(labels: dict[str, str]) -> dict[str, str]:
    if len(labels) > MAX_LABELS:
        raise InvalidInput("labels", "too many", f"at most {MAX_LABELS}")
    for key, value in labels.items():
        if not _LABEL.match(key):
            raise InvalidInput("labels", "a key is not usable", "use a-z, 0-9, _, . and -, at most 63")
        if len(value.encode()) > 63 or not value.isprintable():
            raise InvalidInput(f"labels/{key}", "not a usable value", "printable text of at most 63 bytes")
    return labels


def _shape(row: Registered, box: SecretBox) -> RegisteredShape:
    try:
        url = parse_address(box.open(row.name, row.ciphertext)).redacted()
    except InvalidInput:  # sealed with a key that is gone
        url = ""
    return {
        "name": row.name,
        "url": url,
        "labels": dict(row.labels),
        "policy": row.policy.name,
        "zone": row.zone,
        "status": row.status.value,
    }
