"""/api/v1/databases: the registry. A connection URL goes in and never comes out."""

from typing import Annotated

from fastapi import APIRouter, Depends, Header, Response
from pydantic import BaseModel, ConfigDict, SecretStr
from starlette.concurrency import run_in_threadpool

from monitor.core.errors import Outdated
from monitor.live import observations, requests
from monitor.registration.changes import Registration
from monitor.registration.given import Changes, NewDatabase
from monitor.registry import fleet
from monitor.registry.fleet import Database
from monitor.secrets import SecretBox
from monitor.shapes import AcceptedShape, FleetShape, RegisteredShape
from monitor.web.parameters import (
    STRICT,
    BoxOf,
    Cursor,
    Limit,
    LiveOf,
    LookupOf,
    Name,
    decode_cursor,
    encode_cursor,
)
from monitor.web.problems import DOCUMENTED, unknown_database
from monitor.web.registry_access import StoreOf
from monitor.web.security import BEARER

router = APIRouter(tags=["databases"], dependencies=[STRICT], responses=DOCUMENTED)


async def registration_of(store: StoreOf, box: BoxOf, live: LiveOf) -> Registration:
    """Return what changes the fleet."""
    return Registration(store, box, live)


RegistrationOf = Annotated[Registration, Depends(registration_of)]


class PostBody(BaseModel):
    """What `POST /api/v1/databases` takes."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    name: str
    url: SecretStr
    labels: dict[str, str] = {}
    policy: str = "default"
    zone: str = ""

    def given(self) -> NewDatabase:
        """Return it as what registration takes."""
        url = self.url.get_secret_value()
        return NewDatabase(self.name, url, self.labels, self.policy, self.zone)


class PatchBody(BaseModel):
    """What `PATCH /api/v1/databases/{name}` takes: what is left out stays as it is."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    url: SecretStr | None = None
    labels: dict[str, str] | None = None
    policy: str | None = None
    zone: str | None = None

    def given(self) -> Changes:
        """Return it as what registration takes."""
        url = None if self.url is None else self.url.get_secret_value()
        return Changes(url, self.labels, self.policy, self.zone)


@router.get("/databases")
def listed(store: StoreOf, box: BoxOf, limit: Limit = 100, cursor: Cursor = "") -> FleetShape:
    """Return the registered databases, sorted by name."""
    after = decode_cursor(cursor)
    rows = fleet.list_databases(store, after=after, limit=limit + 1)
    following = None
    if len(rows) > limit:
        last = rows[limit - 1]
        following = encode_cursor(last.name)
    data = [_shape(row, box) for row in rows[:limit]]
    return {"data": data, "next_cursor": following}


@router.get("/databases/{name}")
def read(name: Name, response: Response, store: StoreOf, box: BoxOf) -> RegisteredShape:
    """Return one registered database; its ETag is what If-Match of a PATCH compares."""
    row = fleet.get(store, name)
    return _answer(row, response, box)


@router.post("/databases", status_code=201, dependencies=[Depends(BEARER)])
async def register(
    body: PostBody, response: Response, registration: RegistrationOf
) -> RegisteredShape:
    """Register a database; a worker begins to watch it within seconds."""
    row = await registration.register(body.given())
    response.headers["Location"] = f"/api/v1/databases/{row.name}"
    return _answer(row, response, registration.box)


@router.patch("/databases/{name}", dependencies=[Depends(BEARER)])
async def change(
    name: Name,
    body: PatchBody,
    response: Response,
    registration: RegistrationOf,
    if_match: Annotated[
        str | None, Header(description="The ETag that was read; without it, whatever is there")
    ] = None,
) -> RegisteredShape:
    """Change address, labels, policy or zone; a new address is taken up within seconds."""
    before = await run_in_threadpool(fleet.get, registration.store, name)
    revision = None
    if if_match not in (None, "*"):
        revision = before.revision
        given = str(if_match).split(",")
        if _etag(before) not in map(str.strip, given):
            raise Outdated("database", name)
    row = await registration.change(before, body.given(), revision)
    return _answer(row, response, registration.box)


@router.delete("/databases/{name}", status_code=204, dependencies=[Depends(BEARER)])
async def retire(name: Name, registration: RegistrationOf) -> None:
    """Retire a database: watching ends; its history goes on when it is registered again."""
    await registration.retire(name)


@router.post("/databases/{name}/observe", status_code=202, dependencies=[Depends(BEARER)])
async def observe(name: Name, live: LiveOf, lookup: LookupOf) -> AcceptedShape:
    """Ask the owner to probe the database now; the answer is the next observation."""
    observed = await observations.latest(live, [name])
    in_redis = name in observed or name in observed.unreadable
    if not in_redis and not await lookup([name]):
        raise unknown_database(name)
    request = await requests.ask(live, "observe", name)
    return {"request": request, "database": name}


def _answer(row: Database, response: Response, box: SecretBox) -> RegisteredShape:
    response.headers["ETag"] = _etag(row)
    return _shape(row, box)


def _etag(row: Database) -> str:
    return f'"{row.revision}"'


def _shape(row: Database, box: SecretBox) -> RegisteredShape:
    address = box.readable_address(row.name, row.ciphertext)
    return {
        "name": row.name,
        "url": address.redacted() if address else "",
        "labels": dict(row.labels),
        "policy": row.policy.name,
        "zone": row.zone,
        "status": row.status.value,
        "revision": row.revision,
    }
