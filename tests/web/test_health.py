import asyncio
import re
import time
from contextlib import asynccontextmanager

import pytest
import redis

from monitor.config import Settings
from monitor.core.policy import Policy
from monitor.core.status import State
from monitor.live import assignments, generation, journal, presence
from monitor.live.keys import LED, database_key
from monitor.registry import leadership, store
from monitor.web import health
from monitor.web.app import create_app
from monitor.web.health import FRESH
from tests.web.conftest import client_of


@asynccontextmanager
async def door(box, tmp_path, database_url, redis_url):
    """A web on other stores, open to the world, and a client without a token."""
    settings = Settings(
        home=tmp_path,
        database_url=database_url,
        redis_url=redis_url,
        cache_url=redis_url,
        token="x" * 16,
        host="0.0.0.0",
    )
    app = create_app(settings, box)
    async with app.router.lifespan_context(app), client_of(app, Authorization="") as client:
        yield client


async def test_ready_when_all_is_there(app, web, fill):
    leadership.acquire(app.state.store, "leader")
    await fill.watchers()
    await fill.beat("orders")

    await presence.mark_swept(app.state.live, "leader")
    answer = await web.get("/readyz")
    assert answer.status_code == 200
    body = answer.json()
    assert body["status"] == "pass"
    assert {name: check["status"] for name, check in body["checks"].items()} == dict.fromkeys(
        (
            "redis",
            "generation",
            "history",
            "workers",
            "supervisor",
            "observations",
            "postgres",
            "migrations",
            "leader",
            "registry",
        ),
        "pass",
    )


async def test_nobody_watching_is_a_warning(web, fill):
    answer = await web.get("/readyz")
    assert (answer.status_code, answer.json()["status"]) == (200, "warn"), (
        "what Redis holds is served, with its age"
    )
    checks = answer.json()["checks"]
    assert checks["workers"] == {"status": "warn", "detail": "none is present: nobody watches"}
    assert checks["supervisor"]["status"] == "warn"
    assert checks["observations"]["status"] == "pass"


async def test_observations_that_do_not_come_are_a_warning(web, fill, redis_url):
    await fill.watchers()
    await fill.beat("fresh")
    await fill.beat("slow", age=60, policy=Policy(interval=100))
    await fill.beat("old", age=400)
    await fill.give("new")
    await fill.beat("paused", age=500)
    await assignments.unassign(fill.live, "paused", term=9, registry="")
    check = (await web.get("/readyz")).json()["checks"]["observations"]
    assert check["status"] == "warn"
    told = r"2 of 4 without a recent observation; the oldest is 40\d s old"
    assert re.fullmatch(told, check["detail"])


async def test_what_is_not_written_down_in_time_is_a_warning(web, fill, monkeypatch):
    monkeypatch.setattr(health, "BEHIND", 0.5)

    async def history() -> tuple[str, bool]:
        monkeypatch.setattr(health, "FRESH", -1.0)
        check = (await web.get("/readyz")).json()["checks"]["history"]
        return check["status"], check["detail"].startswith("not written down for ")

    await fill.beat("a", state=State.AVAILABLE)
    assert await history() == ("pass", False)
    await asyncio.sleep(0.6)
    assert await history() == ("warn", True)  # no historian was ever there
    await journal.ensure(fill.live, "historian")
    assert await history() == ("warn", True)  # nobody took it
    entries = await journal.read(fill.live, "historian", "h", count=10, block=0.1)
    assert await history() == ("warn", True)  # somebody took it and cannot write
    await journal.ack(fill.live, "historian", entries)
    assert await history() == ("pass", False)


async def test_one_value_nobody_can_read_is_one_that_is_overdue(web, fill, redis_url):
    await fill.beat("a")
    await fill.beat("b")
    with redis.Redis.from_url(redis_url) as client:
        client.hset(database_key("b"), "observed_at", "soon")
    check = (await web.get("/readyz")).json()["checks"]["observations"]
    assert check["detail"].startswith("1 of 2 ")


async def test_a_closed_generation_and_no_leader_are_warnings(web):
    answer = await web.get("/readyz")
    assert (answer.status_code, answer.json()["status"]) == (200, "warn")
    checks = answer.json()["checks"]
    assert (checks["generation"]["status"], checks["leader"]["status"]) == ("warn", "warn")
    assert (checks["redis"]["status"], checks["migrations"]["status"]) == ("pass", "pass")


@pytest.mark.parametrize(("left", "told"), [(None, "lately"), (5, r"for 1[5-9] s")])
async def test_a_leader_that_gets_nothing_done_is_named(app, web, fill, left, told):
    leadership.acquire(app.state.store, "leader")
    if left:
        await presence.mark_swept(app.state.live, "leader")
        await app.state.live.bus.expire(LED, left)
    check = (await web.get("/readyz")).json()["checks"]["leader"]
    assert check["status"] == "warn"
    assert re.search(f"term 1 has completed no sweep {told}", check["detail"])


async def test_a_redis_of_another_registry_is_named_with_what_to_do(app, web, fill):
    await generation.take_over(app.state.live, "0123abcdef" * 3, 1)
    answer = await web.get("/readyz")
    assert (answer.status_code, answer.json()["status"]) == (200, "warn")
    check = answer.json()["checks"]["registry"]
    assert (check["status"], check["detail"].count("feeler redis adopt 0123abcd`")) == ("warn", 1)


async def test_without_postgres_it_still_serves_what_redis_holds(box, tmp_path, redis_url):
    async with door(
        box, tmp_path, "postgresql://u:canary@127.0.0.1:1/feeler", redis_url
    ) as stranger:
        answer = await stranger.get("/readyz")
    assert (answer.status_code, answer.json()["checks"]["postgres"]["status"]) == (200, "warn")
    assert "canary" not in answer.text
    assert "127.0.0.1" not in answer.text


async def test_without_redis_it_is_not_ready_but_alive(box, tmp_path, database_url):
    async with door(box, tmp_path, database_url, "redis://:canary@127.0.0.1:1/0") as stranger:
        answer = await stranger.get("/readyz")
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")
        assert (answer.json()["status"], answer.json()["checks"]["redis"]["status"]) == (
            "fail",
            "fail",
        )
        assert "canary" not in answer.text
        assert (await stranger.get("/livez")).json()["status"] == "pass"


async def test_a_redis_that_is_full_is_named(web, redis_url):
    with redis.Redis.from_url(redis_url) as client:
        client.config_set("maxmemory", 1)
        try:
            answer = await web.get("/readyz")
            metrics = await web.get("/metrics")
        finally:
            client.config_set("maxmemory", 0)
    assert answer.status_code == 200, "old observations can still be read"
    assert answer.json()["checks"]["redis"] == {
        "status": "warn",
        "detail": "takes no writes: out_of_memory",
    }
    assert "feeler_redis_writable 0.0" in metrics.text


async def test_pending_migrations_are_a_failure(box, tmp_path, postgres_server, redis_url):
    postgres_server.execute("CREATE DATABASE bare")
    try:
        async with door(box, tmp_path, postgres_server.url("bare"), redis_url) as stranger:
            answer = await stranger.get("/readyz")
        assert (answer.status_code, answer.json()["checks"]["migrations"]["status"]) == (
            503,
            "fail",
        )
        assert "feeler migrate" in answer.json()["checks"]["migrations"]["detail"]
    finally:
        postgres_server.execute("DROP DATABASE bare WITH (FORCE)")


async def test_a_hanging_postgres_holds_nobody_up(box, tmp_path, start_postgres, redis_url):
    server = start_postgres()
    server.execute("CREATE DATABASE feeler")
    store.migrate(server.url("feeler"))
    async with door(box, tmp_path, server.url("feeler"), redis_url) as stranger:
        server.freeze()
        try:
            began = time.monotonic()
            answer = await stranger.get("/readyz")
            metrics = await stranger.get(
                "/metrics", headers={"Authorization": "Bearer " + "x" * 16}
            )
            took = time.monotonic() - began
        finally:
            server.thaw()
    assert (answer.status_code, answer.json()["checks"]["postgres"]["status"]) == (200, "warn")
    assert 'feeler_store_up{store="postgres"} 0.0' in metrics.text
    assert took < 8


async def test_asking_often_does_not_ask_the_stores_often(web, redis_url):
    def looks() -> int:
        with redis.Redis.from_url(redis_url) as client:
            return client.info("commandstats")["cmdstat_info"]["calls"]

    await web.get("/readyz")
    before = looks()
    answers = await asyncio.gather(*(web.get("/readyz") for _ in range(20)))
    assert {answer.status_code for answer in answers} == {200}
    assert looks() == before + 1  # our own look
    await asyncio.sleep(FRESH)
    await web.get("/readyz")
    assert looks() == before + 3
