"""The web beside a newer version: a row it cannot read is named and counted, and hides no other."""

from monitor.core.cause import Cause
from monitor.core.status import State
from monitor.live.keys import database_key
from tests.web.filling import Filler
from tests.web.test_metrics import samples


async def two(fill: Filler, broken: str = "a") -> None:
    await fill.beat(broken, state=State.AVAILABLE)
    await fill.beat("b", state=State.AVAILABLE)
    await fill.live.cache.hset(database_key(broken), "state", "blind")


async def test_a_row_that_cannot_be_read_is_never_told_as_new(web, fill: Filler):
    await two(fill)
    answer = await web.get("/last_observation/a")
    assert (answer.status_code, answer.json()["type"]) == (503, "urn:feeler:problem:unreadable")
    assert (await web.get("/last_observation/b")).json()["state"] == "available"
    assert (await web.post("/api/v1/databases/a/observe")).status_code == 202


async def test_a_list_names_what_it_leaves_out(web, fill: Filler):
    await two(fill)
    for query in ("", "?state=available"):
        body = (await web.get(f"/last_observation{query}")).json()
        assert ([one["database"]["name"] for one in body["data"]], body["unreadable"]) == (
            ["b"],
            ["a"],
        )
        assert (body["missing"], body["meta"]["total"]) == ([], 2)
    body = (await web.get("/last_observation?database=a&database=b&database=zz")).json()
    assert (body["missing"], body["unreadable"]) == (["a", "zz"], ["a"])


async def test_metrics_count_it(web, fill: Filler):
    await two(fill, "counted")  # a process counts a name once: one that no other test broke
    found = samples(await web.get("/metrics"))
    assert found["feeler_databases_unreadable"] == 1
    assert found["feeler_databases{state=available}"] == 1
    assert found["feeler_journal_dead_letters"] == 0
    found = samples(await web.get("/metrics"))  # what a scrape counts is seen by the next one
    assert found["feeler_unreadable_total{kind=database}"] == 1


async def test_a_cause_of_a_newer_version_is_told_as_it_is(web, fill: Filler):
    await fill.beat("a", state=State.AVAILABLE)
    await fill.live.cache.hset(database_key("a"), "cause", "proxy_dreaming")
    answer = (await web.get("/last_observation/a")).json()
    assert (answer["reason"]["code"], answer["state"]) == ("proxy_dreaming", "available")
    assert "services_available" not in answer["observation"]["values"], (
        "what it means is not known here"
    )
    assert Cause(answer["observation"]["cause"]) not in list(Cause)
