"""A beat: one database asked, judged and recorded. Flat out, at users' pace, and asked too much."""

from bench.baselines import fresh_connections, rq_jobs
from bench.lab import Lab, lab
from bench.measure import Figure, interleaved, wait_until
from monitor.core.policy import Policy

DATABASES, ROUNDS, WARM_UP, SECONDS = 1_000, 5, 4.0, 12.0
FLAT = Policy(interval=0.01)  # far more than any worker can do
PACED = Policy(interval=1.0)  # a thousand beats a second
JOBS, CHECKS = 300, 100


def run() -> list[Figure]:
    """Measure processor time per beat; must: <= 50 us flat, <= 90 us paced."""
    with lab() as one:
        found: dict[str, list[float]] = {"flat": [], "paced": []}
        flat, paced, jobs, checks = interleaved(
            ROUNDS,
            lambda: _beat(one, FLAT, found["flat"]),
            lambda: _beat(one, PACED, found["paced"]),
            lambda: rq_jobs(one.server.url(), JOBS),
            lambda: fresh_connections(one.port, CHECKS),
        )
        flat_rate = sorted(found["flat"])[ROUNDS // 2]
        over = Policy(interval=DATABASES / (1.5 * flat_rate))
        overload: list[float] = []
        interleaved(ROUNDS, lambda: _beat(one, over, overload))
        over_rate = sorted(overload)[ROUNDS // 2]
    rq, fresh = "an empty RQ job (SimpleWorker)", "a fresh psycopg connection, the same queries"
    return [
        _cost("beat, flat out", flat, rq, jobs),
        _cost("beat, flat out", flat, fresh, checks),
        _cost("beat, 1,000 a second", paced, rq, jobs),
        Figure(name="beats a second, flat out", value=flat_rate, unit="/s"),
        Figure(
            name="beats a second, 150 % of that wanted",
            value=over_rate,
            unit="/s",
            baseline="flat out",
            baseline_value=flat_rate,
        ),
    ]


def _cost(name: str, value: float, baseline: str, other: float) -> Figure:
    return Figure(name=name, value=value, unit="us", baseline=baseline, baseline_value=other)


def _beat(one: Lab, policy: Policy, rates: list[float]) -> float:
    """Return microseconds per beat of a fresh worker, once it has logged in everywhere."""
    one.start_worker()
    names = one.watch(DATABASES, policy)
    wait_until(lambda: one.observed(names) == len(names))
    rate, cost = one.cost(SECONDS, warm_up=WARM_UP)
    rates.append(rate)
    accepted, counted = one.numbers(names), one.beats()
    assert abs(accepted - counted) <= 2 * rate, "Redis lost beats or counted some twice"
    return cost
