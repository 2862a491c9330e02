import logging
from urllib.parse import quote

import pytest
from pydantic import ConfigDict, TypeAdapter

from monitor.config import Settings
from monitor.core.database import parse_address
from monitor.live import requests
from monitor.registry import fleet
from monitor.shapes import RegisteredShape
from monitor.web.app import create_app
from tests.web.conftest import TOKEN, client_of

CANARY = "Kanarie/vogel+7%c!"
URL = f"postgresql://app:{quote(CANARY, safe='')}@db.example:5433/orders"
OTHER = "postgresql://app:rotated@db.example:5433/orders"
REDACTED = "postgresql://app:***@db.example:5433/orders"


def forms(secret: str) -> list[str]:
    return [secret, quote(secret, safe=""), repr(secret)[1:-1]]


async def test_a_database_is_registered_sealed_and_the_leader_told(app, web, box):
    answer = await web.post(
        "/api/v1/databases",
        json={"name": "orders", "url": f" {URL}\n", "labels": {"env": "prod"}, "zone": "eu-1"},
    )
    assert answer.status_code == 201
    assert answer.headers["Location"] == "/api/v1/databases/orders"
    RegisteredShape.__pydantic_config__ = ConfigDict(extra="forbid")
    assert TypeAdapter(RegisteredShape).validate_json(answer.content) == {
        "name": "orders", "url": REDACTED, "labels": {"env": "prod"}, "policy": "default",
        "zone": "eu-1", "status": "active", "revision": 1,
    }  # fmt: skip
    assert answer.headers["ETag"] == '"1"'
    kept = fleet.get(app.state.store, "orders")
    assert parse_address(box.open("orders", kept.ciphertext)).password == CANARY
    assert [one.kind for one in await requests.take(app.state.live, "leader")] == ["fleet_changed"]
    assert (await web.get(answer.headers["Location"])).json() == answer.json()


@pytest.mark.parametrize(
    "url",
    [
        URL.replace("postgresql", "mysql"),
        URL.replace(":5433", ":port"),
        URL.replace("db.example", "[bad"),
        URL.replace("app:", ":"),
        URL + "?passfile=/etc/passwd",
        URL + "?sslmode=" + quote(CANARY, safe=""),
        URL + "?sslrootcert=/" + quote(CANARY, safe=""),
        CANARY,
        "",
    ],
)
async def test_a_malformed_url_is_told_but_never_repeated(web, caplog, url):
    caplog.set_level(logging.DEBUG)
    answer = await web.post("/api/v1/databases", json={"name": "broken", "url": url})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "/url"
    assert answer.json()["errors"][0]["detail"]
    records = caplog.text + "".join(repr(vars(record)) for record in caplog.records)
    for form in forms(CANARY):
        assert form not in answer.text + repr(answer.headers)
        assert form not in records


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"name": "x", "url": [URL]}, "/url"),
        ({"name": "x", "url": {"value": URL}}, "/url"),
        ({"name": URL, "url": URL}, "/name"),
        ({"name": "X", "url": URL}, "/name"),
        ({"url": URL}, "/name"),
        ({"name": "x", "uri": URL}, "/"),
        ({"name": "x", "url": URL, URL: 1}, "/"),
        ({"name": "x", "url": URL, "labels": {URL: "v"}}, "/labels"),
        ({"name": "x", "url": URL, "labels": {"k": URL + "x" * 60}}, "/labels/k"),
        ({"name": "x", "url": URL, "labels": {"k": "a\nb"}}, "/labels/k"),
        ({"name": "x", "url": URL, "labels": {"k": 7}}, "/labels/k"),
        ({"name": "x", "url": URL, "zone": "z" * 33}, "/zone"),
        ({"name": "x", "url": URL, "zone": "a\nb"}, "/zone"),
        ({"name": "x", "url": f"postgresql://u:{CANARY}{'x' * 8000}@h/d"}, "/url"),
        ({"name": "x", "url": URL, "labels": {URL: 7}}, "/labels/*"),
        ({"name": "x", "url": URL, "labels": {f"k{i}": "v" for i in range(17)}}, "/labels"),
        ({"name": "x", "url": URL, "policy": "none-such"}, "/policy"),
        ([URL], "/"),
        (URL, "/"),
    ],
)
async def test_every_mistake_in_a_body_has_a_pointer_and_no_echo(web, caplog, body, pointer):
    caplog.set_level(logging.DEBUG)
    answer = await web.post("/api/v1/databases", json=body)
    assert answer.status_code == 422
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert pointer in [error["pointer"] for error in answer.json()["errors"]]
    for form in forms(CANARY):
        assert form not in answer.text + caplog.text
    assert (await web.get("/api/v1/databases")).json()["data"] == []


async def test_a_body_that_is_no_json(web, caplog):
    answer = await web.post("/api/v1/databases", content=b'{"url": "' + URL.encode())
    assert answer.status_code == 422
    assert CANARY not in answer.text + caplog.text
    assert quote(CANARY, safe="") not in answer.text + caplog.text


async def test_a_name_is_given_once_and_taken_up_again_after_it_was_retired(app, web):
    body = {"name": "orders", "url": URL}
    assert (await web.post("/api/v1/databases", json=body)).status_code == 201
    again = await web.post("/api/v1/databases", json=body)
    assert (again.status_code, again.json()["type"]) == (409, "urn:feeler:problem:already-exists")
    assert (await web.delete("/api/v1/databases/orders")).status_code == 204
    other = await web.post(
        "/api/v1/databases", json=body | {"url": OTHER, "labels": {"env": "new"}}
    )
    assert (other.status_code, other.json()["revision"]) == (201, 3)
    assert other.json()["labels"] == {"env": "new"}


async def test_credentials_are_changed_and_the_leader_told(app, web, box):
    await web.post(
        "/api/v1/databases", json={"name": "orders", "url": URL, "labels": {"env": "prod"}}
    )
    await requests.take(app.state.live, "leader")
    changed = await web.patch("/api/v1/databases/orders", json={"url": f" {OTHER}\n"})
    assert (changed.status_code, changed.headers["ETag"]) == (200, '"2"')
    assert changed.json()["labels"] == {"env": "prod"}
    assert changed.json()["url"] == REDACTED
    for form in forms(CANARY):
        assert form not in changed.text
    assert box.open("orders", fleet.get(app.state.store, "orders").ciphertext) == OTHER
    assert [one.kind for one in await requests.take(app.state.live, "leader")] == ["fleet_changed"]
    rest = {"labels": {}, "zone": "eu-1", "policy": "default"}
    assert (await web.patch("/api/v1/databases/orders", json=rest)).json() | rest == (
        await web.get("/api/v1/databases/orders")
    ).json()


async def test_the_same_once_more_changes_nothing(app, web):
    body = {"url": URL, "labels": {"env": "prod"}, "policy": "default", "zone": "eu-1"}
    await web.post("/api/v1/databases", json={"name": "orders"} | body)
    await requests.take(app.state.live, "leader")
    for same in (body, {"url": URL}, {}):
        answer = await web.patch("/api/v1/databases/orders", json=same)
        assert (answer.status_code, answer.json()["revision"]) == (200, 1)
    assert await requests.take(app.state.live, "leader") == []


async def test_a_change_meant_for_another_revision_is_refused(app, web):
    await web.post("/api/v1/databases", json={"name": "orders", "url": URL})
    read = (await web.get("/api/v1/databases/orders")).headers["ETag"]
    for number, tags in enumerate(("{}", '"77", {}', "*")):
        meant, change = {"If-Match": tags.format(read)}, {"labels": {"a": str(number)}}
        answer = await web.patch("/api/v1/databases/orders", json=change, headers=meant)
        assert answer.status_code == 200
        read = answer.headers["ETag"]
    late = await web.patch(
        "/api/v1/databases/orders", json={"url": OTHER}, headers={"If-Match": '"1"'}
    )
    assert (late.status_code, late.json()["type"]) == (
        412,
        "urn:feeler:problem:precondition-failed",
    )
    assert (await web.get("/api/v1/databases/orders")).headers["ETag"] == read


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"url": ""}, "/url"),
        ({"url": CANARY}, "/url"),
        ({"labels": {"K": "v"}}, "/labels"),
        ({"policy": "none-such"}, "/policy"),
        ({"name": "other"}, "/"),
    ],
)
async def test_a_change_that_cannot_be_made_changes_nothing(web, body, pointer):
    await web.post("/api/v1/databases", json={"name": "orders", "url": URL})
    answer = await web.patch("/api/v1/databases/orders", json=body)
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, pointer)
    assert CANARY not in answer.text
    assert (await web.get("/api/v1/databases/orders")).json()["revision"] == 1


async def test_what_is_not_there_cannot_be_changed(web):
    await web.post("/api/v1/databases", json={"name": "retired", "url": URL})
    await web.delete("/api/v1/databases/retired")
    for name in ("retired", "never-was", "No"):
        for body in ({}, {"url": OTHER}):
            assert (await web.patch(f"/api/v1/databases/{name}", json=body)).status_code == 404


async def test_retiring_tells_the_leader_and_ends_the_listing(app, web):
    await web.post("/api/v1/databases", json={"name": "orders", "url": URL})
    await requests.take(app.state.live, "leader")
    gone = await web.delete("/api/v1/databases/orders")
    assert (gone.status_code, gone.content) == (204, b"")
    assert [one.kind for one in await requests.take(app.state.live, "leader")] == ["fleet_changed"]
    assert (await web.get("/api/v1/databases")).json()["data"] == []
    assert (await web.get("/api/v1/databases/orders")).json()["status"] == "retired"
    for name in ("orders", "never-was", "No"):
        assert (await web.delete(f"/api/v1/databases/{name}")).status_code == 404


async def test_the_listing_is_paged_by_name(web):
    for name in ("c", "a", "b"):
        await web.post("/api/v1/databases", json={"name": name, "url": URL})
    first = (await web.get("/api/v1/databases?limit=2")).json()
    assert [row["name"] for row in first["data"]] == ["a", "b"]
    assert {row["url"] for row in first["data"]} == {REDACTED}
    second = (
        await web.get("/api/v1/databases", params={"limit": 2, "cursor": first["next_cursor"]})
    ).json()
    assert ([row["name"] for row in second["data"]], second["next_cursor"]) == (["c"], None)


async def test_an_address_sealed_with_a_lost_key_is_shown_as_none(app, web):
    fleet.add(app.state.store, "orders", "not sealed by us", {})
    assert (await web.get("/api/v1/databases/orders")).json()["url"] == ""


async def test_an_address_that_is_no_longer_allowed_hides_no_other_of_its_page(app, web, box):
    fleet.add(app.state.store, "orders", box.seal("orders", URL), {})
    fleet.add(app.state.store, "stock", box.seal("stock", "postgresql:///only-a-socket"), {})
    page = (await web.get("/api/v1/databases")).json()
    assert [row["url"] for row in page["data"]] == [REDACTED, ""]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/databases"),
        ("PATCH", "/databases/a"),
        ("DELETE", "/databases/a"),
        ("POST", "/databases/a/observe"),
    ],
)
async def test_writing_needs_the_token_even_here(connect, method, path):
    async with connect(Authorization="Bearer wrong") as stranger:
        assert (await stranger.request(method, f"/api/v1{path}", json={})).status_code == 401
        assert (await stranger.get("/api/v1/databases")).status_code == 200


async def test_observe_asks_the_leader(app, web, fill):
    await fill.beat("orders")
    answer = await web.post("/api/v1/databases/orders/observe")
    assert answer.status_code == 202
    [asked] = await requests.take(app.state.live, "leader")
    assert (asked.kind, asked.database, asked.id) == ("observe", "orders", answer.json()["request"])
    assert (await web.post("/api/v1/databases/unknown/observe")).status_code == 404


async def test_observing_what_was_just_added(app, web, fill):
    await web.post("/api/v1/databases", json={"name": "orders", "url": URL})
    assert (await web.post("/api/v1/databases/orders/observe")).status_code == 202


async def test_registering_works_while_redis_is_away(tmp_path, start_redis, database_url, box):
    server = start_redis()
    server.stop()
    settings = Settings(
        home=tmp_path,
        database_url=database_url,
        redis_url=server.url,
        cache_url=server.url,
        token=TOKEN,
    )
    app = create_app(settings, box)
    async with app.router.lifespan_context(app), client_of(app) as web:
        assert (
            await web.post("/api/v1/databases", json={"name": "a", "url": URL})
        ).status_code == 201
        assert (await web.post("/api/v1/databases/a/observe")).status_code == 503


async def test_without_postgres_the_registry_says_so(tmp_path, redis_url, box):
    nowhere = "postgresql://u:p@127.0.0.1:1/feeler"
    settings = Settings(
        home=tmp_path, database_url=nowhere, redis_url=redis_url, cache_url=redis_url, token=TOKEN
    )
    app = create_app(settings, box)
    async with app.router.lifespan_context(app), client_of(app) as web:
        for answer in (
            await web.get("/api/v1/databases"),
            await web.post("/api/v1/databases", json={"name": "a", "url": URL}),
            await web.get("/api/v1/databases/a/transitions"),
        ):
            assert answer.status_code == 503
            assert answer.headers["Retry-After"] == "2"
