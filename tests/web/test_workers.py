from pydantic import ConfigDict, TypeAdapter

from monitor.live import presence
from monitor.shapes import WorkersShape


async def test_workers_that_are_here(app, web, fill):
    cannot = {"able": False, "given_up": {"descriptors": 2}}
    await fill.worker(
        "w4", owned=7, rejected=2, retained=1, leaving=True, replaced=5, unjudged=6, **cannot
    )
    await fill.worker("w1", zone="")
    await fill.worker("w9")
    await presence.leave(app.state.live, "w9")
    WorkersShape.__pydantic_config__ = ConfigDict(extra="forbid")
    body = TypeAdapter(WorkersShape).validate_json((await web.get("/api/v1/workers")).content)
    assert [one["id"] for one in body["data"]] == ["w1", "w4"]
    one = body["data"][1]
    assert (one["host"], one["zone"], one["capacity"], one["owned"]) == ("h1", "eu-1", 100, 7)
    assert (one["replaced"], one["unjudged"]) == (5, 6)
    assert (one["rejected"], one["retained"], one["leaving"]) == (2, 1, True)
    assert one["lateness_seconds"] == 0.012
    assert (one["able"], one["given_up"]) == (False, {"descriptors": 2})
    assert (body["data"][0]["able"], body["data"][0]["given_up"]) == (True, {})
    assert 0 <= one["age_seconds"] < 2


async def test_nobody(web):
    assert (await web.get("/api/v1/workers")).json() == {"data": []}
