import asyncio
from email.utils import parsedate_to_datetime

import httpx
import pytest
from pydantic import ConfigDict, TypeAdapter

from monitor.config import Settings
from monitor.core.access import Access
from monitor.core.cause import Cause
from monitor.core.observation import FAMILIES, Reading, ReadingStatus
from monitor.core.policy import Policy
from monitor.core.status import State
from monitor.live import connections, reasons, targets
from monitor.live.keys import database_key
from monitor.live.reasons import Reason
from monitor.live.targets import Target
from monitor.registry import fleet
from monitor.shapes import LastObservationShape, ObservationsShape
from monitor.web.app import create_app
from tests.web.conftest import client_of
from tests.web.filling import GOOD, Filler

CANARY = "Kanarie"
ALL_WELL = {"code": "ok", "sqlstate": "", "detail": "", "advice": "", "revision": 0}
EXACTLY = ConfigDict(extra="forbid", strict=True)


def checked(shape, answer: httpx.Response):
    """Return the answer if it has the documented shape, no more and no less."""
    shape.__pydantic_config__ = EXACTLY
    TypeAdapter(shape).validate_json(answer.content)
    return answer.json()


async def test_one_database_in_full(web, fill: Filler):
    await fill.beat(
        "orders-eu", state=State.AVAILABLE, labels={"env": "prod"}, unreachable_from=("w2",)
    )
    answer = await web.get("/last_observation/orders-eu")
    body = checked(LastObservationShape, answer)
    seen = body["observation"]
    assert answer.status_code == 200
    assert body["database"] == {"name": "orders-eu", "labels": {"env": "prod"}, "address": ""}
    assert (body["state"], body["rule"]) == ("available", "first_ok")
    assert (body["owner"], body["unreachable_from"]) == ("w4", ["w2"])
    assert body["transition"] == f"{fill.statuses['orders-eu'][0]}.1"
    assert body["state_since"] == seen["observed_at"]
    assert body["reason"] == ALL_WELL
    assert seen["values"] == {"services_available": True} | GOOD
    assert seen["units"]["db_size"] == "bytes"
    assert "role" not in seen["units"]
    assert (seen["worker"], seen["duration_ms"]) == ("w4", 38.0)
    assert (seen["stale"], seen["errors"]) == (False, {})
    assert (seen["interval_seconds"], seen["stale_after_seconds"]) == (5.0, 17.0)
    assert seen["age_seconds"] < 2
    assert set(seen["families"]) == set(FAMILIES)
    assert body["links"]["self"] == "/api/v1/last_observation/orders-eu"
    assert (await web.get(body["links"]["self"])).json()["state"] == "available"


async def test_headers_carry_age_and_validators(web, fill: Filler):
    await fill.beat("a", age=4.5)
    answer = await web.get("/last_observation/a")
    assert answer.headers["Age"] == "4"
    assert answer.headers["Cache-Control"] == "private, max-age=1"
    observed = parsedate_to_datetime(answer.headers["Last-Modified"]).timestamp()
    assert abs(observed - (await connections.now(fill.live) - 4.5)) < 2
    assert answer.headers["ETag"].startswith('W/"new-1.2-1-')


async def test_an_etag_saves_the_body_until_something_changes(web, fill: Filler):
    await fill.beat("a", state=State.AVAILABLE)
    first = await web.get("/last_observation/a")
    tag = first.headers["ETag"]
    for given in (tag, tag.removeprefix("W/"), f'"other", {tag}', "*"):
        again = await web.get("/last_observation/a", headers={"If-None-Match": given})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["ETag"] == tag
    assert (
        await web.get("/last_observation/a", headers={"If-None-Match": '"other"'})
    ).status_code == 200
    await fill.beat("a")
    changed = await web.get("/last_observation/a", headers={"If-None-Match": tag})
    assert changed.status_code == 200
    assert changed.headers["ETag"] != tag


async def test_a_304_never_hides_that_the_answer_turned_stale(web, fill: Filler):
    policy = Policy(interval=0.05, deadline=0.2)
    await fill.beat("a", policy=policy)
    tag = (await web.get("/last_observation/a")).headers["ETag"]
    await asyncio.sleep(policy.stale_after + 0.05)
    later = await web.get("/last_observation/a", headers={"If-None-Match": tag})
    assert later.status_code == 200
    assert later.json()["observation"]["stale"] is True


async def test_each_family_is_stale_by_its_own_cadence_and_the_state_never_is(web, fill: Filler):
    now = await connections.now(fill.live)
    readings = (
        Reading("connections", now - 18, ReadingStatus.OK, {"connections": 1}),
        Reading("size", now - 18, ReadingStatus.OK, {"db_size": 2}),
        Reading("tables", now - 183, ReadingStatus.OK, {"table_count": 3}),
    )
    await fill.beat("a", age=18, state=State.AVAILABLE, readings=readings)
    body = (await web.get("/last_observation/a")).json()
    families = body["observation"]["families"]
    assert {name: family["stale"] for name, family in families.items()} == {
        "connections": True, "size": False, "tables": True,
    }  # fmt: skip
    assert body["observation"]["stale"] is True
    assert body["state"] == "available"


async def test_a_failed_gauge_is_absent_and_named(web, fill: Filler):
    now = await connections.now(fill.live)
    readings = (
        Reading("connections", now, ReadingStatus.OK, {"connections": 1}),
        Reading("tables", now, ReadingStatus.DENIED, {}, "42501"),
        Reading("size", now, ReadingStatus.TIMED_OUT),
    )
    await fill.beat("a", readings=readings)
    seen = (await web.get("/last_observation/a")).json()["observation"]
    assert seen["values"] == {"services_available": True, "connections": 1}
    assert seen["errors"] == {"tables": "42501", "size": "timed_out"}
    assert seen["families"]["tables"]["status"] == "denied"


async def test_a_failed_feel_keeps_the_gauges_with_their_own_age(web, fill: Filler):
    await fill.beat("a", age=60, state=State.AVAILABLE)
    await fill.beat("a", cause=Cause.PORT_CLOSED, readings=(), state=State.UNCERTAIN, rule="doubt")
    body = (await web.get("/last_observation/a")).json()
    seen = body["observation"]
    assert body["state"] == "uncertain"
    assert body["reason"]["code"] == seen["cause"] == "port_closed"
    assert "nothing listens on this port" in body["reason"]["advice"]
    assert seen["values"]["services_available"] is False
    assert seen["values"]["connections"] == 88
    assert seen["families"]["connections"]["age_seconds"] >= 60
    assert seen["families"]["connections"]["stale"] is True
    assert seen["stale"] is False


async def test_what_the_server_said_stays_visible(web, fill: Filler, box):
    url = f"postgresql://Reader:{CANARY}@db.example/orders"
    await targets.publish(
        fill.live, "orders", Target(box.seal("orders", url), Policy(), {}, 3), term=9, registry=""
    )
    denied = Reading(
        "activity", await connections.now(fill.live), ReadingStatus.DENIED, {}, "42501"
    )
    await fill.assign("orders")
    await fill.beat(
        "orders", cause=Cause.WRONG_PASSWORD, readings=(denied,), state=State.LOCKED_OUT
    )
    await reasons.tell(
        fill.live, {"orders": Reason("wrong_password", "28P01", "FATAL:  28P01: no", "w4")}
    )
    for path in ("/last_observation/orders", "/last_observation"):
        answer = await web.get(path)
        body = answer.json()
        body = body["data"][0] if "data" in body else body
        assert body["database"]["address"] == "postgresql://Reader:***@db.example:5432/orders"
        assert body["reason"]["sqlstate"] == "28P01"
        assert body["reason"]["detail"] == "FATAL:  28P01: no"
        assert "set-url" in body["reason"]["advice"]
        assert (
            body["observation"]["families"]["activity"]["advice"] == 'GRANT pg_monitor TO "Reader";'
        )
        assert CANARY not in answer.text
    await fill.beat("orders", state=State.AVAILABLE)
    assert (await web.get("/last_observation/orders")).json()["reason"] == ALL_WELL


async def test_a_pooler_between_is_told(web, fill: Filler):
    for pooled in (True, False):
        await fill.beat("a", access=Access("0123abcd", pooled=pooled))
        assert (await web.get("/last_observation/a")).json()["observation"]["pooled"] is pooled
    await fill.live.cache.hset(
        database_key("a"), mapping={"login_pooled": "0123abcd", "login_at": "fedc9876"}
    )
    assert not (await web.get("/last_observation/a")).json()["observation"]["pooled"], (
        "that was another address"
    )


async def test_a_changed_address_has_another_etag(web, fill: Filler, box):
    tags = set()
    await fill.beat("a")
    for revision, host in ((2, "one"), (3, "two")):
        sealed = box.seal("a", f"postgresql://u@{host}/d")
        await targets.publish(
            fill.live, "a", Target(sealed, Policy(), {}, revision), term=9, registry=""
        )
        tags.add((await web.get("/last_observation/a")).headers["ETag"])
    assert len(tags) == 2


async def test_our_own_fault_says_nothing_of_the_service(web, fill: Filler):
    await fill.beat("a", cause=Cause.NO_CREDENTIALS, readings=())
    body = (await web.get("/last_observation/a")).json()
    assert (body["observation"], body["reason"]["code"]) == (None, "no_credentials")
    await fill.beat("a", age=30, state=State.AVAILABLE)
    await fill.beat("a", cause=Cause.LATE_LOOP, readings=())
    body = (await web.get("/last_observation/a")).json()
    seen = body["observation"]
    assert body["state"] == "available"
    assert body["reason"]["code"] == seen["cause"] == "late_loop"
    assert "services_available" not in seen["values"]
    assert seen["values"]["connections"] == 88
    assert seen["errors"] == {"services_available": "late_loop"}
    assert (seen["stale"], seen["age_seconds"] >= 30) == (True, True)


@pytest.mark.parametrize("owned", [True, False])
async def test_a_database_never_observed_is_new(web, fill: Filler, owned):
    await (fill.give("a", labels={"k": "v"}) if owned else fill.target("a", labels={"k": "v"}))
    answer = await web.get("/last_observation/a")
    body = checked(LastObservationShape, answer)
    assert answer.status_code == 200
    assert body["state"] == "new"
    assert (body["observation"], body["state_since"], body["reason"]) == (None, None, None)
    assert body["database"]["labels"] == {"k": "v"}
    assert body["owner"] == ("w4" if owned else "")
    assert "Age" not in answer.headers


async def test_what_only_the_registry_knows_is_new(app, web, fill: Filler, box):
    await fill.beat("watched")
    sealed = box.seal("added", f"postgresql://u:{CANARY}@h/d")
    fleet.add(app.state.store, "added", sealed, {"k": "v"})
    fleet.add(app.state.store, "retired", sealed, {})
    fleet.remove(app.state.store, "retired")
    body = checked(LastObservationShape, await web.get("/last_observation/added"))
    assert (body["state"], body["owner"]) == ("new", "")
    assert (body["observation"], body["reason"]) == (None, None)
    assert body["database"] == {
        "name": "added",
        "labels": {"k": "v"},
        "address": "postgresql://u:***@h:5432/d",
    }
    assert (await web.get("/last_observation/retired")).status_code == 404
    page = (
        await web.get("/last_observation?database=added&database=retired&database=watched")
    ).json()
    assert ([one["database"]["name"] for one in page["data"]], page["missing"]) == (
        ["added", "watched"],
        ["retired"],
    )


async def test_while_redis_is_rebuilt_nothing_is_said_not_to_exist(app, web, fill: Filler):
    await fill.beat("orders")
    await fill.live.cache.flushall()
    for path in ("/last_observation/orders", "/last_observation?database=orders"):
        answer = await web.get(path)
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")
        assert answer.json()["type"] == "urn:feeler:problem:rebuilding"
    whole = (await web.get("/last_observation")).json()
    assert whole["data"] == []
    assert any("being rebuilt" in trouble for trouble in whole["meta"]["trouble"])


async def test_without_postgres_what_is_known_is_answered(tmp_path, redis_url, box):
    nowhere = "postgresql://u:p@127.0.0.1:1/feeler"
    settings = Settings(
        home=tmp_path, database_url=nowhere, redis_url=redis_url, cache_url=redis_url
    )
    app = create_app(settings, box)
    async with app.router.lifespan_context(app), client_of(app) as web:
        fill = Filler(app.state.live)
        await fill.open()
        await fill.beat("orders")
        assert (await web.get("/last_observation/orders")).status_code == 200
        assert (await web.get("/last_observation/unknown")).status_code == 503
        page = (await web.get("/last_observation?database=orders&database=unknown")).json()
        assert ([one["database"]["name"] for one in page["data"]], page["missing"]) == (
            ["orders"],
            ["unknown"],
        )


@pytest.mark.parametrize("name", ["unknown", "No-Name", "a%20b", "x" * 64])
async def test_an_unknown_database_is_a_404(web, fill: Filler, name):
    answer = await web.get(f"/last_observation/{name}")
    assert answer.status_code == 404
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["type"] == "urn:feeler:problem:unknown-database"


async def test_all_databases_with_counts(web, fill: Filler):
    await fill.beat("b", state=State.AVAILABLE, age=7)
    await fill.beat("a", state=State.AVAILABLE)
    await fill.beat("c", cause=Cause.PORT_CLOSED, readings=(), state=State.UNCERTAIN)
    await fill.give("d")
    for path in ("/last_observation", "/api/v1/last_observation"):
        body = checked(ObservationsShape, await web.get(path))
        assert [one["database"]["name"] for one in body["data"]] == ["a", "b", "c", "d"]
        assert body["meta"]["total"] == 4
        assert body["meta"]["states"] == {"new": 1, "available": 2, "uncertain": 1}
        assert 7 <= body["meta"]["oldest_age_seconds"] < 9
        assert (body["missing"], body["next_cursor"]) == ([], None)


async def test_an_empty_fleet(web, fill: Filler):
    await fill.watchers()
    body = (await web.get("/last_observation")).json()
    meta = {"total": 0, "oldest_age_seconds": None, "states": {}, "trouble": []}
    assert body == {"data": [], "meta": meta, "missing": [], "unreadable": [], "next_cursor": None}


async def test_only_those_asked_for(web, fill: Filler):
    for name in ("a", "b", "c"):
        await fill.beat(name, state=State.AVAILABLE)
    await fill.beat("b", cause=Cause.PORT_CLOSED, readings=(), state=State.UNCERTAIN)
    query = [("database", "c"), ("database", "b"), ("database", "zz"), ("database", "b")]
    body = (await web.get("/last_observation", params=query)).json()
    assert [one["database"]["name"] for one in body["data"]] == ["b", "c"]
    assert body["missing"] == ["zz"]
    body = (await web.get("/last_observation", params=[*query, ("state", "uncertain")])).json()
    assert [one["database"]["name"] for one in body["data"]] == ["b"]
    states = [("state", "uncertain"), ("state", "available")]
    assert len((await web.get("/last_observation", params=states)).json()["data"]) == 3
    assert (await web.get("/last_observation?state=refusing")).json()["data"] == []


async def test_pages_join_up(web, fill: Filler):
    names = [f"db-{number:03}" for number in range(25)]
    for number, name in enumerate(names):
        await fill.beat(name, state=State.AVAILABLE if number % 2 else State.REFUSING)
    seen, cursor, sizes = [], "", []
    while cursor is not None:
        query = {"limit": "6", "cursor": cursor, "state": "available"}
        body = (await web.get("/last_observation", params=query)).json()
        sizes.append(len(body["data"]))
        seen += [one["database"]["name"] for one in body["data"]]
        cursor = body["next_cursor"]
    assert seen == names[1::2]
    assert sizes == [6, 6]


@pytest.mark.parametrize(
    "query",
    ["stale=1", "name=a", "state=broken", "state=", "limit=0", "limit=1001", "limit=x", "cursor=!",
     "cursor=QUI", "database=postgres://u:canary@h/d", "database="],
)  # fmt: skip
async def test_what_cannot_be_understood_is_a_400(web, fill: Filler, query):
    answer = await web.get(f"/last_observation?{query}")
    assert answer.status_code == 400
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert "canary" not in answer.text


@pytest.mark.parametrize(
    "path", ["/last_observation/", "/api/v1/last_observation/", "/api/v1/databases/"]
)
async def test_a_path_without_its_name_is_no_list(web, fill: Filler, path):
    await fill.beat("orders", state=State.AVAILABLE)
    answer = await web.get(path)
    assert (answer.status_code, answer.headers.get("Location")) == (404, None)
    assert answer.json()["type"] == "urn:feeler:problem:not-found"


async def test_an_unknown_parameter_names_itself_and_the_known_ones(web, fill: Filler):
    detail = (await web.get("/last_observation?sate=available")).json()["detail"]
    assert "sate" in detail
    assert "cursor, database, limit, state" in detail
    assert (await web.get("/last_observation/a?state=available")).status_code == 400


async def test_without_redis_it_says_so_and_comes_back(tmp_path, start_redis, database_url, box):
    server = start_redis()
    server.stop()
    away = Settings(
        home=tmp_path, database_url=database_url, redis_url=server.url, cache_url=server.url
    )
    app = create_app(away, box)
    async with app.router.lifespan_context(app), client_of(app) as web:
        for path in ("/last_observation", "/last_observation/a", "/api/v1/workers"):
            answer = await web.get(path)
            assert answer.status_code == 503
            assert answer.headers["Retry-After"] == "2"
            assert answer.json()["type"] == "urn:feeler:problem:store-unavailable"
        assert (await web.get("/livez")).status_code == 200
        server.start()
        assert (await web.get("/last_observation")).status_code == 200


async def test_postgres_is_not_asked(redis_url, tmp_path, box):
    nowhere = "postgresql://u:p@127.0.0.1:1/feeler"
    app = create_app(
        Settings(home=tmp_path, database_url=nowhere, redis_url=redis_url, cache_url=redis_url), box
    )
    async with app.router.lifespan_context(app), client_of(app) as web:
        fill = Filler(app.state.live)
        await fill.open()
        await fill.beat("a", state=State.AVAILABLE)
        assert (await web.get("/last_observation/a")).json()["state"] == "available"
