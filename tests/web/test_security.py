import logging

import httpx
import pytest
from fastapi import FastAPI, Request

from monitor.config import Settings
from monitor.web import problems
from monitor.web.security import HEADERS, MAX_BODY, Guard

TOKEN = "0123456789abcdef"
CANARY = "canary-Zx81-password"
BEARER = {"Authorization": f"Bearer {TOKEN}"}


def door(tmp_path, *, host="127.0.0.1", token=TOKEN):
    """A small app behind the guard, as seen from this machine."""
    app = FastAPI()

    @app.get("/thing")
    @app.get("/livez")
    async def thing() -> str:
        return "here"

    @app.get("/broken")
    async def broken() -> str:
        raise ValueError(CANARY)

    @app.post("/thing")
    async def make(request: Request) -> int:
        return len(await request.body())

    problems.install(app)
    app.add_middleware(Guard, settings=Settings(home=tmp_path, host=host, token=token))
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1:8000")


async def test_reading_on_loopback_needs_no_token(tmp_path):
    async with door(tmp_path) as web:
        for host in ("127.0.0.1:8000", "localhost", "[::1]:8000"):
            assert (await web.get("/thing", headers={"Host": host})).status_code == 200


@pytest.mark.parametrize("host", ["feeler.example", "127.0.0.1.evil.example:8000", "evil", ""])
async def test_a_foreign_name_for_a_loopback_door_needs_the_token(tmp_path, host):
    async with door(tmp_path) as web:
        assert (await web.get("/thing", headers={"Host": host})).status_code == 401
        assert (await web.get("/thing", headers={"Host": host} | BEARER)).status_code == 200


async def test_reading_elsewhere_needs_the_token_but_for_health(tmp_path):
    async with door(tmp_path, host="0.0.0.0") as web:
        refused = await web.get("/thing")
        assert refused.status_code == 401
        assert refused.headers["WWW-Authenticate"] == "Bearer"
        assert refused.json()["type"] == "urn:feeler:problem:unauthorized"
        assert (await web.get("/nothing")).status_code == 401  # nobody learns what exists
        assert (await web.get("/livez")).status_code == 200
        assert (await web.get("/thing", headers=BEARER)).status_code == 200


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Bearer",
        "Bearer ",
        "Bearer 0123456789abcde",
        f"Basic {TOKEN}",
        f"Bearer {TOKEN}x",
        "Bearer é",
    ],
)
async def test_writing_always_needs_the_token(tmp_path, authorization):
    async with door(tmp_path) as web:
        headers = {"Authorization": authorization.encode("latin-1")} if authorization else {}
        assert (await web.post("/thing", headers=headers)).status_code == 401
        assert (await web.post("/thing", headers=BEARER)).status_code == 200
        assert (
            await web.post("/thing", headers={"Authorization": f"bearer {TOKEN}"})
        ).status_code == 200


async def test_without_a_token_writing_is_closed_and_says_how_to_open_it(tmp_path):
    async with door(tmp_path, token="") as web:
        for headers in ({}, {"Authorization": "Bearer "}):
            refused = await web.post("/thing", headers=headers)
            assert refused.status_code == 403
            assert "FEELER_TOKEN" in refused.json()["detail"]


async def test_every_answer_carries_security_headers_and_an_id(tmp_path):
    async with door(tmp_path) as web:
        for path in ("/thing", "/nothing", "/broken"):
            answer = await web.get(path)
            assert {name: answer.headers[name] for name in HEADERS} == HEADERS
            assert len(answer.headers["X-Request-Id"]) == 32
        assert (await web.get("/thing", headers={"X-Request-Id": "mine-1"})).headers[
            "X-Request-Id"
        ] == "mine-1"
        forged = await web.get("/thing", headers={"X-Request-Id": "two\tlines"})
        assert forged.headers["X-Request-Id"] != "two\tlines"


async def test_every_change_and_refusal_leaves_a_line(tmp_path, caplog):
    async with door(tmp_path, host="0.0.0.0") as web:
        await web.post(
            "/thing",
            headers=BEARER | {"X-Request-Id": "a", "X-Forwarded-For": "10.0.0.7, 10.0.0.1"},
        )
        await web.post("/thing", headers={"X-Request-Id": "b", "X-Forwarded-For": "a\tb"})
        await web.get(f"/postgres:%2F%2Fu:{CANARY}@h", headers={"X-Request-Id": "c"})
        await web.get("/thing", headers=BEARER)
        await web.get("/livez")
        await web.delete("/thing", headers=BEARER | {"X-Request-Id": "d"})
    told = [one.getMessage() for one in caplog.records if one.name == "feeler.audit"]
    made = "made=- from=127.0.0.1:123 forwarded_for="
    proxies = "10.0.0.7,10.0.0.1"
    assert told == [
        f"action=audit who=token method=POST path=/thing status=200 {made}{proxies} request_id=a",
        f"action=audit who=nobody method=POST path=/thing status=401 {made}- request_id=b",
        f"action=audit who=nobody method=GET path=* status=401 {made}- request_id=c",
        f"action=audit who=token method=DELETE path=/thing status=405 {made}- request_id=d",
    ]


async def test_a_failure_shows_no_words_of_the_error(tmp_path, caplog):
    async with door(tmp_path) as web:
        answer = await web.get("/broken")
    assert answer.status_code == 500
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["request_id"] in caplog.text
    assert "error=ValueError" in caplog.text
    assert CANARY not in answer.text + caplog.text
    assert caplog.records[0].levelno == logging.ERROR


async def test_bodies_are_bounded_whatever_they_say_of_themselves(tmp_path):
    async def chunks():
        for _ in range(MAX_BODY // 1000 + 1):
            yield b"x" * 1000

    async with door(tmp_path) as web:
        fits = await web.post("/thing", content=b"x" * MAX_BODY, headers=BEARER)
        assert fits.json() == MAX_BODY
        assert (
            await web.post("/thing", content=b"x" * (MAX_BODY + 1), headers=BEARER)
        ).status_code == 413
        assert (await web.post("/thing", content=chunks(), headers=BEARER)).status_code == 413


async def test_wrong_paths_and_methods_are_problems(tmp_path):
    async with door(tmp_path) as web:
        missing = await web.get(f"/postgres:%2F%2Fu:{CANARY}@h")
        assert (missing.status_code, missing.json()["title"]) == (404, "Not found")
        assert CANARY not in missing.text
        wrong = await web.put("/thing", headers=BEARER)
        assert (wrong.status_code, wrong.headers["Allow"]) == (405, "GET")
        assert wrong.json()["instance"] == "/thing"
        assert (await web.head("/thing")).status_code == 200
