"""GET /metrics for Prometheus: read anew at each scrape, from Redis and the lease in Postgres.

A scrape answers whatever is down: what cannot be read is left out and `feeler_store_up` says so.
Names and labels never come from data of databases. app.py imports this.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from fastapi import APIRouter, Request, Response
from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from monitor.core.chunks import chunks
from monitor.core.errors import StoreUnavailable
from monitor.core.overlay import age
from monitor.core.status import State
from monitor.live import generation, journal, observations, presence, watched
from monitor.live.connections import Live, check_writes, now
from monitor.live.presence import Presence
from monitor.live.watched import Watched
from monitor.registry import leadership
from monitor.registry.store import Store
from monitor.web.parameters import STRICT
from monitor.web.registry_access import within_deadline

CHUNK = 100  # databases read at once
AGES = (1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0)  # seconds
REJECTED, UNREADABLE = "rejected_", "unreadable_"

router = APIRouter(tags=["metrics"], dependencies=[STRICT])


@dataclass(frozen=True, slots=True)
class Findings:
    """What one scrape found; None where a store did not answer."""

    live: "LiveFindings | None"
    term: int | None


@dataclass(frozen=True, slots=True)
class LiveFindings:
    """What Redis says."""

    writable: bool
    open: bool
    states: Mapping[State, int]
    unreadable: int
    ages: tuple[float, ...]  # seconds since each database's last observation
    counters: Mapping[str, int]
    backlog: Mapping[str, int]
    workers: Mapping[str, Presence]
    watched: Watched
    led: bool


@router.get("/metrics", response_class=Response)
async def metrics(request: Request) -> Response:
    """Return the metrics in the format the scraper asks for."""
    state = request.app.state
    live, term = await asyncio.gather(_read_live(state.live), _read_term(state.store))
    found = Findings(live, term)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Families(found))
    accepted = request.headers.get("accept", "")
    encode, content_type = choose_encoder(accepted)
    return Response(encode(registry), headers={"Content-Type": content_type})


class Families(Collector):
    """The metric families of what was read."""

    def __init__(self, found: Findings) -> None:
        self._found = found

    def collect(self) -> Iterator[Metric]:
        """Yield every family; each is documented where it is made."""
        live, term = self._found.live, self._found.term
        answers = {"redis": live is not None, "postgres": term is not None}
        yield _gauges(
            "feeler_store_up", "Whether a store of ours answered this scrape", "store", answers
        )
        if term is not None:
            yield GaugeMetricFamily(
                "feeler_leader_term", "Term of the leading supervisor, 0 when nobody leads", term
            )
        if live is not None:
            yield from _fleet(live)
            yield from _counters(live.counters)
            yield from _journal(live.backlog)
            yield from _workers(live.workers)


def _fleet(live: LiveFindings) -> Iterator[Metric]:
    states = {state.value: live.states.get(state, 0) for state in State}
    yield _gauges("feeler_databases", "Databases by state", "state", states)
    unreadable = "Databases whose stored state this version cannot read: newer, or damaged"
    yield GaugeMetricFamily("feeler_databases_unreadable", unreadable, live.unreadable)
    ages = HistogramMetricFamily("feeler_observation_age_seconds", "Age of the last observations")
    buckets = []
    for bound in AGES:
        within = sum(seconds <= bound for seconds in live.ages)
        buckets.append((str(bound), float(within)))
    buckets.append(("+Inf", float(len(live.ages))))
    ages.add_metric([], buckets, sum(live.ages))
    yield ages
    oldest, overdue = live.watched.oldest, live.watched.overdue
    yield GaugeMetricFamily(
        "feeler_oldest_observation_seconds", "Age of the oldest last observation", oldest
    )
    yield GaugeMetricFamily(
        "feeler_databases_overdue", "Databases without a recent observation", overdue
    )
    yield GaugeMetricFamily("feeler_led", "Whether a leader was at work within 20 s", int(live.led))
    yield GaugeMetricFamily(
        "feeler_redis_writable", "Whether Redis takes writes: full, it refuses", int(live.writable)
    )
    yield GaugeMetricFamily("feeler_generation_open", "Whether workers may record", int(live.open))


def _counters(counts: Mapping[str, int]) -> Iterator[Metric]:
    yield CounterMetricFamily(
        "feeler_beats", "Observations accepted by Redis", counts.get("beats", 0)
    )
    yield CounterMetricFamily(
        "feeler_transitions", "Changes of state accepted", counts.get("transitions", 0)
    )
    doubled = counts.get("duplicates", 0)
    yield CounterMetricFamily(
        "feeler_duplicates", "Observations that came twice or late, and changed nothing", doubled
    )
    yield _by_kind(
        "feeler_rejected", "Observations Redis refused", counts, REJECTED, label="reason"
    )
    yield _by_kind(
        "feeler_unreadable",
        "Rows that some process set aside, unable to read them",
        counts,
        UNREADABLE,
    )
    conflicts = counts.get("identity_conflicts", 0)
    yield CounterMetricFamily(
        "feeler_identity_conflicts", "One identity with two contents: always a bug", conflicts
    )


def _by_kind(
    name: str, help_text: str, counts: Mapping[str, int], prefix: str, *, label: str = "kind"
) -> CounterMetricFamily:
    found = {}
    for key, count in counts.items():
        if key.startswith(prefix):
            found[key.removeprefix(prefix)] = count
    return _counts(name, help_text, label, found)


def _counts(
    name: str, help_text: str, label: str, values: Mapping[str, int]
) -> CounterMetricFamily:
    family = CounterMetricFamily(name, help_text, labels=[label])
    for value, number in sorted(values.items()):
        family.add_metric([value], number)
    return family


def _journal(backlog: Mapping[str, int]) -> Iterator[Metric]:
    yield GaugeMetricFamily(
        "feeler_journal_length", "Entries kept in the journal", backlog.get("length", 0)
    )
    dead = "Entries that some consumer could not read: see `feeler journal dead`"
    yield GaugeMetricFamily("feeler_journal_dead_letters", dead, backlog.get("dead", 0))
    for what, help_text in (
        ("pending", "Entries taken and not yet worked off"),
        ("lag", "Entries not yet taken"),
    ):
        suffix = f"_{what}"
        groups = {}
        for key, count in backlog.items():
            if key.endswith(suffix):
                groups[key.removesuffix(suffix)] = count
        yield _gauges(f"feeler_journal_{what}", help_text, "group", groups)


def _workers(workers: Mapping[str, Presence]) -> Iterator[Metric]:
    yield GaugeMetricFamily("feeler_workers", "Workers present", len(workers))
    owned = {worker: one.owned for worker, one in workers.items()}
    yield _gauges("feeler_worker_owned", "Databases a worker owns", "worker", owned)
    lateness = {worker: one.lateness for worker, one in workers.items()}
    yield _gauges(
        "feeler_worker_lateness_seconds",
        "How late its beats start, p99 of a minute",
        "worker",
        lateness,
    )
    replaced = {worker: one.replaced for worker, one in workers.items()}
    yield _counts(
        "feeler_worker_replaced",
        "Observations replaced by newer ones before they left",
        "worker",
        replaced,
    )
    unjudged = {worker: one.unjudged for worker, one in workers.items()}
    yield _counts(
        "feeler_worker_unjudged",
        "Observations that came while too many events waited",
        "worker",
        unjudged,
    )


def _gauges(
    name: str, help_text: str, label: str, values: Mapping[str, float]
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, help_text, labels=[label])
    for value, number in sorted(values.items()):
        family.add_metric([value], float(number))
    return family


async def _read_live(live: Live) -> LiveFindings | None:
    try:
        seen, led = await asyncio.gather(watched.watched(live), presence.is_led(live))
        opened, counts, backlog, workers, at = await asyncio.gather(
            generation.generation(live),
            observations.counters(live),
            journal.backlog(live),
            presence.present(live),
            now(live),
        )
        states: Counter[State] = Counter()
        unreadable = 0
        ages: list[float] = []
        names = await observations.names(live)
        for chunk in chunks(names, CHUNK):
            found = await observations.latest(live, chunk)
            unreadable += len(found.unreadable)
            for latest in found.values():
                states[latest.status.state] += 1
                if latest.at is not None:
                    ages.append(age(latest.at, at))
    except StoreUnavailable:
        return None
    writable = await _is_writable(live)
    return LiveFindings(
        writable=writable,
        open=opened.open,
        states=states,
        unreadable=unreadable,
        ages=tuple(ages),
        counters=counts,
        backlog=backlog,
        workers=workers,
        watched=seen,
        led=led,
    )


async def _is_writable(live: Live) -> bool:
    try:
        await check_writes(live)
    except StoreUnavailable:
        return False
    return True


async def _read_term(store: Store) -> int | None:
    try:
        lease = await within_deadline(leadership.current, store)
    except StoreUnavailable:
        return None
    return lease.term if lease else 0
