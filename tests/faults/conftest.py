"""Rows of the fault matrix: each test is one, and every run ends with its history judged."""

import os
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.faults import report
from tests.faults.history import demand
from tests.faults.lab import Lab
from tests.faults.turns import Turns
from tests.faults.waiting import WAITING
from tests.fixtures import StartPgBouncer, StartPostgres, StartProxy, StartRedis
from tests.servers import RedisServer

MakeLab = Callable[..., Lab]
TURNS = Path(tempfile.gettempdir()) / f"feeler-turns-{os.getuid()}"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave long rows to `./run faults`; begin with the longest, end with those to be alone."""
    rows = {item for item in items if item.get_closest_marker("row")}
    for item in rows:
        item.add_marker(pytest.mark.system)
        item.user_properties.append(("row", item.get_closest_marker("row").args))
    if config.getoption("--all-rows"):
        items.sort(key=lambda item: (item.get_closest_marker("alone") is not None, -_timeout(item)))
        return
    left = [item for item in rows if not item.get_closest_marker("quick")]
    config.hook.pytest_deselected(items=left)
    items[:] = [item for item in items if item not in left]


def _timeout(item: pytest.Item) -> float:
    mark = item.get_closest_marker("timeout")
    return float(mark.args[0]) if mark else 0.0


def pytest_terminal_summary(terminalreporter: Any, exitstatus: int, config: pytest.Config) -> None:
    """Write the report of a run in which every row held."""
    path, stats = config.getoption("--report"), terminalreporter.stats
    broken = [
        one for kind in ("failed", "error") for one in stats.get(kind, []) if report.is_row(one)
    ]
    through = exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)
    if path and through and not broken:
        rows = report.gathered(stats.get("passed", []))
        target = Path(path)
        target.parent.mkdir(exist_ok=True)
        mutants = report.mutants_of(target.read_text()) if target.exists() else ""
        target.write_text(
            report.with_mutants(report.render(rows, WAITING, report.machine()), mutants)
        )
        terminalreporter.write_line(f"{len(rows)} rows held; report: {path}")


class Figures:
    """The figures of one row: each is printed, kept for the report and held to its bound."""

    def __init__(self, item: pytest.Item) -> None:
        self._item = item

    def __call__(
        self, what: str, value: float, unit: str = "s", *, most: float | None = None
    ) -> None:
        bound = "" if most is None else f" (at most {most:g})"
        text = (
            f"{what} {value:.2f} {unit}" if isinstance(value, float) else f"{what} {value} {unit}"
        )
        print(text + bound)
        self._item.user_properties.append(("figure", text.rstrip()))
        assert most is None or value <= most, f"{text} > {most}"


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Figures:
    return Figures(request.node)


@pytest.fixture(autouse=True)
def turn(request: pytest.FixtureRequest) -> Iterator[None]:
    """Wait for this row's turn: some measure lateness, and want the machine for themselves."""
    node = request.node
    if not request.config.getoption("--all-rows") or node.get_closest_marker("idle"):
        yield
        return
    with Turns(TURNS).take(alone=node.get_closest_marker("alone") is not None):
        yield


@pytest.fixture
async def make_lab(
    request: pytest.FixtureRequest,
    turn: None,
    tmp_path: Path,
    database_url: str,
    start_redis: StartRedis,
    start_postgres: StartPostgres,
    start_proxy: StartProxy,
    start_pgbouncer: StartPgBouncer,
) -> AsyncIterator[MakeLab]:
    """Start a cluster to be hurt; when the row is through, its history is judged.

    Servers, poolers and proxies outlive it: they are asked for here, so that they are stopped
    later.
    """
    labs: list[tuple[Lab, dict[str, Any]]] = []

    def make(
        *,
        workers: int = 3,
        supervisors: int = 1,
        metadata: str = database_url,
        server: RedisServer | None = None,
        environment: dict[str, str] | None = None,
        **judged: Any,
    ) -> Lab:
        home = tmp_path / f"home-{len(labs)}"
        home.mkdir()
        lab = Lab(home, metadata, server or start_redis())
        labs.append((lab, judged))
        for _ in range(supervisors):
            lab.launch("supervisor", **(environment or {}))
        for _ in range(workers):
            lab.launch("worker", **(environment or {}))
        return lab

    yield make
    try:
        failed = request.node.stash.get(FAILED, False)
        for lab, judged in labs:
            if not failed:
                demand(await lab.finish(), **judged)
    finally:
        for lab, _ in labs:
            lab.close()


@dataclass(frozen=True)
class Row:
    """What a row takes: a lab to hurt, servers and links of its own, and where its figures go."""

    make_lab: MakeLab
    start_postgres: StartPostgres
    start_redis: StartRedis
    start_proxy: StartProxy
    start_pgbouncer: StartPgBouncer
    figure: Figures


@pytest.fixture
def row(
    make_lab: MakeLab,
    start_postgres: StartPostgres,
    start_redis: StartRedis,
    start_proxy: StartProxy,
    start_pgbouncer: StartPgBouncer,
    figure: Figures,
) -> Row:
    return Row(make_lab, start_postgres, start_redis, start_proxy, start_pgbouncer, figure)


FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo) -> Any:
    report = yield
    if report.when == "call":
        item.stash[FAILED] = report.failed
    return report
