import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from monitor.config import Settings
from monitor.core.cause import Cause
from monitor.core.status import State
from monitor.live import durability, journal
from monitor.registry import leadership
from monitor.web.app import create_app
from tests.web.conftest import client_of


def samples(answer: httpx.Response) -> dict[str, float]:
    """Return every sample as `name{label=value}`."""
    found = {}
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            labels = ",".join(f"{key}={value}" for key, value in sample.labels.items())
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


async def test_a_scrape_says_how_the_fleet_is(app, web, fill):
    await journal.ensure(fill.live, "historian")
    await fill.beat("a", state=State.AVAILABLE)
    await fill.beat("b", state=State.AVAILABLE, age=20)
    await fill.beat("b", cause=Cause.PORT_CLOSED, state=State.UNCERTAIN, age=8)
    await fill.give("c")
    await fill.worker("w4", owned=3)
    await journal.read(fill.live, "historian", "h", count=100, block=0.1)
    await durability.count_conflicts(fill.live, 2)
    lease = leadership.acquire(app.state.store, "leader")
    answer = await web.get("/metrics")
    found = samples(answer)
    assert answer.headers["Content-Type"].startswith("text/plain")
    expected = {
        "feeler_store_up{store=redis}": 1,
        "feeler_store_up{store=postgres}": 1,
        "feeler_databases{state=available}": 1,
        "feeler_databases{state=uncertain}": 1,
        "feeler_databases{state=new}": 1,
        "feeler_databases{state=locked_out}": 0,
        "feeler_observation_age_seconds_count": 2,
        "feeler_observation_age_seconds_bucket{le=5.0}": 1,
        "feeler_observation_age_seconds_bucket{le=10.0}": 2,
        "feeler_observation_age_seconds_bucket{le=+Inf}": 2,
        "feeler_beats_total": 3,
        "feeler_transitions_total": 3,
        "feeler_redis_writable": 1,
        "feeler_duplicates_total": 0,
        "feeler_generation_open": 1,
        "feeler_databases_overdue": 1,
        "feeler_led": 0,
        "feeler_workers": 1,
        "feeler_worker_owned{worker=w4}": 3,
        "feeler_worker_lateness_seconds{worker=w4}": 0.012,
        "feeler_journal_length": 3,
        "feeler_journal_pending{group=historian}": 3,
        "feeler_journal_lag{group=historian}": 0,
        "feeler_identity_conflicts_total": 2,
        "feeler_leader_term": lease.term,
    }
    assert {name: found.get(name) for name in expected} == expected
    assert 8 <= found["feeler_oldest_observation_seconds"] < 10


async def test_refusals_are_counted_by_reason(app, web, fill):
    await fill.beat("a")
    epoch, status = fill.statuses["a"]
    fill.statuses["a"] = epoch._replace(counter=99), status
    with pytest.raises(AssertionError):
        await fill.beat("a")
    assert samples(await web.get("/metrics"))["feeler_rejected_total{reason=fenced}"] == 1


async def test_openmetrics_where_it_is_asked_for(web, fill):
    answer = await web.get(
        "/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"}
    )
    assert answer.headers["Content-Type"].startswith("application/openmetrics-text")
    assert answer.text.endswith("# EOF\n")


async def test_a_scrape_answers_when_both_stores_are_away(tmp_path, box):
    nowhere = Settings(
        home=tmp_path,
        database_url="postgresql://u:p@127.0.0.1:1/feeler",
        redis_url="redis://127.0.0.1:1",
        cache_url="redis://127.0.0.1:1",
    )
    app = create_app(nowhere, box)
    async with app.router.lifespan_context(app), client_of(app) as web:
        answer = await web.get("/metrics")
    assert answer.status_code == 200
    assert samples(answer) == {
        "feeler_store_up{store=redis}": 0,
        "feeler_store_up{store=postgres}": 0,
    }
