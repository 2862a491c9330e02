"""Links are cut, closed, thinned: who cannot reach a thing says so, no outage is invented."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest

from tests.faults import cutting, injecting
from tests.faults.asserting import assert_available
from tests.faults.conftest import Figures, Row
from tests.faults.lab import Lab
from tests.faults.observed import Effect
from tests.proxy import Proxy
from tests.servers import PostgresServer
from tests.system.cluster import Role
from tests.waiting import eventually

MOVED = 16.0  # seconds from a cut to new observations by others
ABSENT = 12.0  # seconds to `unavailable` where the network says no
SILENT = (
    17.0  # where it says nothing: the interval, 10 s of silence and the deadline of the last probe
)
BACK = 7.0
DEADLINE = 2.0  # of a probe
DOUBTED = {"new", "available", "uncertain"}  # states of what is up, and may not be reached


@pytest.fixture(autouse=True)
def no_rule_stays() -> Iterator[None]:
    yield
    cutting.clear()


@pytest.fixture
def cuts() -> None:
    """Leave out what needs rules of iptables where there can be none."""
    if reason := cutting.why_not():
        pytest.skip(reason)


async def watched(lab: Lab, server: PostgresServer, count: int) -> list[str]:
    """Have databases of one server watched, each observed at least twice."""
    names = lab.monitor_many(count, server)
    await lab.all_in(names, "available", within=30)
    await lab.observed_again(names, within=15)
    return names


# --- one worker is cut off ------------------------------------------------------------------------


@pytest.mark.usefixtures("cuts")
@pytest.mark.row(
    "everything one worker sends to Redis is lost for 20 s",
    "others observe its databases <= 16 s; what it felt meanwhile is recorded under no old epoch; "
    "no state changes",
)
async def test_worker_without_redis(row: Row) -> None:
    lab = row.make_lab(workers=3)
    names = await watched(lab, row.start_postgres(), 9)
    cut_off = lab.owner(names[0])
    victim = lab.worker_of(cut_off)
    lost, former = lab.owned_by(victim, names), lab.party(victim)
    epochs = {name: lab.hash(name)["epoch"] for name in lost}
    with injecting.without_redis(lab, victim) as rule:
        over = time.monotonic() + 20
        seconds = await lab.observed_by_others(lost, victim, within=30)
        row.figure("observed by others after", seconds, most=MOVED)
        await asyncio.sleep(over - time.monotonic())  # 20 s in all
        row.figure("packets lost", rule.packets(), "")
        assert rule.packets()
    back = time.time()

    def let_go(name: str) -> bool:
        """Tell whether it has released this one, or was given it anew before it looked."""
        given_anew = lab.owner(name) == cut_off and lab.hash(name)["epoch"] != epochs[name]
        return given_anew or f"action=released database={name}" in victim.text()

    await eventually(lambda: all(map(let_go, lost)), within=15)
    row.figure("it let go after", time.time() - back, most=MOVED)
    await lab.observed_again(names, within=15)
    for name in lost:
        late = [
            one.fields
            for one in lab.eye.sights[name]
            if one.at > back and one.fields["seen_by"] == former
        ]
        assert epochs[name] not in {fields["epoch"] for fields in late}
    assert_available(lab, names)


@contextmanager
def by_iptables(lab: Lab, role: Role, server: PostgresServer, proxy: Proxy) -> Iterator[None]:
    if reason := cutting.why_not():
        pytest.skip(reason)
    with injecting.without_target(lab, role, server) as rule:
        yield
        assert rule.packets()


@contextmanager
def by_proxy(lab: Lab, role: Role, server: PostgresServer, proxy: Proxy) -> Iterator[None]:
    name = f"feeler/{lab.party(role)}"

    def cut(on: bool) -> None:
        (proxy.deaf_to if on else proxy.hear)(name)

    with injecting.hidden(lab, injecting.databases_of(lab, server), [lab.party(role)], cut):
        yield


@pytest.mark.parametrize("cut", [pytest.param(by_iptables, marks=pytest.mark.quick), by_proxy])
@pytest.mark.row(
    "one worker cannot reach a server that is up",
    "never `unavailable`; another worker observes it <= 16 s and the first one is named a doubter",
)
async def test_one_worker_cannot_reach_it(cut: Callable[..., contextmanager], row: Row) -> None:
    lab, server = row.make_lab(workers=2), row.start_postgres()
    proxy = row.start_proxy(server.port)
    lab.monitor("orders", server, proxy.url(server.url()) if cut is by_proxy else "")
    await lab.all_in(["orders"], "available", within=30)
    first = lab.worker_of(lab.owner("orders"))
    with cut(lab, first, server, proxy):
        seconds = await lab.observed_by_others(["orders"], first, within=30)
        row.figure("observed by another after", seconds, most=MOVED)
        await lab.all_in(["orders"], "available", within=10)
        assert lab.hash("orders")["unreachable_from"] == lab.party(first)
        await lab.observed_again(["orders"], within=10)
    await eventually(
        lambda: lab.rules("orders") == ["first_ok", "doubt", "false_alarm"], within=10, every=0.1
    )
    assert "unavailable" not in lab.eye.states("orders")


@pytest.mark.usefixtures("cuts")
@pytest.mark.parametrize("workers", [2, 3])
@pytest.mark.parametrize("stays", [False, True], ids=["back", "stays"])
@pytest.mark.row(
    "a server killed, for 7 s or for longer, while the worker that gets it next cannot reach it",
    "back after 7 s: never `unavailable`; else `unavailable` <= 12 s after the kill",
)
async def test_killed_and_the_next_worker_is_cut_off(stays: bool, workers: int, row: Row) -> None:
    lab, server = row.make_lab(workers=workers), row.start_postgres()
    lab.monitor("orders", server)
    await lab.all_in(["orders"], "available", within=30)
    owner = lab.owner("orders")
    next_owner = min({lab.party(role) for role in lab.workers()} - {owner})
    with injecting.without_target(lab, lab.worker_of(next_owner), server) as rule:
        with injecting.target_killed(lab, server):
            if stays:
                seconds = await lab.all_in(["orders"], "unavailable", within=30)
                row.figure("unavailable after", seconds, most=ABSENT)
            else:
                await asyncio.sleep(7)  # a restart: longer than the quick rule's wait
        await lab.all_in(["orders"], "available", within=20)
        await asyncio.sleep(5)  # what it said too late would show by now
        assert rule.packets()
    if not stays:
        assert "unavailable" not in lab.eye.states("orders")


# --- a target is cut off --------------------------------------------------------------------------


@pytest.mark.usefixtures("cuts")
@pytest.mark.row(
    "a server black-holed: every packet to it is lost",
    "`unavailable` <= 17 s by confirm_silent, on timeouts alone; `available` <= 7 s after; its "
    "neighbours untouched",
)
async def test_target_black_holed(row: Row) -> None:
    lab, server, neighbour = row.make_lab(workers=3), row.start_postgres(), row.start_postgres()
    lab.monitor("orders", server)
    names = await watched(lab, neighbour, 3)
    await lab.all_in(["orders"], "available", within=30)
    with injecting.target_closed(lab, server, Effect.SILENT, cutting.DROP) as rule:
        seconds = await lab.all_in(["orders"], "unavailable", within=40)
        row.figure("unavailable after", seconds, most=SILENT)
        assert rule.packets()
    seconds = await lab.all_in(["orders"], "available", within=30)
    row.figure("available again after", seconds, most=BACK)
    await lab.settle()
    rows = {row.transition.rule: row.transition for row in lab.transitions("orders")}
    causes = {seen.cause for seen in rows["confirm_silent"].evidence}
    assert causes <= {"connect_timeout", "query_timeout"}
    assert_available(lab, names)


REJECTED = {
    "reset": (cutting.RESET, Effect.ABSENT, {"confirm_absent"}, {"port_closed", "reset"}),
    # A session that is up does not hear of an unreachable port: it finds silence, new logins find a
    # closed port.
    "port": (
        cutting.PORT_UNREACHABLE,
        Effect.SILENT,
        {"confirm_absent", "confirm_silent"},
        {"port_closed", "query_timeout"},
    ),
    "host": (
        cutting.HOST_UNREACHABLE,
        Effect.SILENT,
        {"confirm_silent"},
        {"unreachable", "query_timeout"},
    ),
}


@pytest.mark.usefixtures("cuts")
@pytest.mark.parametrize("by", REJECTED)
@pytest.mark.row(
    "a firewall rejects every packet to a server: by a reset, as an unreachable port, as an "
    "unreachable host",
    "`unavailable` <= 12 s by confirm_absent where it resets, <= 17 s otherwise; `available` <= 7 "
    "s after",
)
async def test_target_rejected(by: str, row: Row) -> None:
    answer, effect, rules, causes = REJECTED[by]
    lab, server = row.make_lab(workers=2), row.start_postgres()
    lab.monitor("orders", server)
    await lab.all_in(["orders"], "available", within=30)
    with injecting.target_closed(lab, server, effect, answer):
        bound = ABSENT if effect is Effect.ABSENT else SILENT
        seconds = await lab.all_in(["orders"], "unavailable", within=40)
        row.figure(f"{by}: unavailable after", seconds, most=bound)
    seconds = await lab.all_in(["orders"], "available", within=30)
    row.figure(f"{by}: available again after", seconds, most=BACK)
    await lab.settle()
    [verdict] = [
        row.transition
        for row in lab.transitions("orders")
        if row.transition.target == "unavailable"
    ]
    assert verdict.rule in rules
    assert {seen.cause for seen in verdict.evidence} <= causes


# --- bad links ------------------------------------------------------------------------------------


async def loses(
    lab: Lab,
    server: PostgresServer,
    names: list[str],
    share: float,
    seconds: float,
    figure: Figures,
    *,
    logins: bool = False,
) -> None:
    """Lose packets for some time; the fleet must go on being observed."""
    with injecting.packets_lost(lab, [server.port], share, logins=logins) as rules:
        await asyncio.sleep(seconds)  # the loss is the row
        figure("packets lost", sum(rule.packets() for rule in rules), "")
        assert all(
            any(rule.packets() for rule in rules if str(port) in rule.words)
            for port in ports_of(lab, server)
        )
    await lab.observed_again(names, within=20)


def ports_of(lab: Lab, server: PostgresServer) -> list[int]:
    return [server.port, *(urlsplit(url).port or 0 for url in (lab.redis_url, lab.database_url))]


@pytest.mark.timeout(900)
@pytest.mark.usefixtures("cuts")
@pytest.mark.row(
    "5 % of all packets lost for 10 minutes, between us and targets, Redis and the metadata "
    "Postgres",
    "of 700 probes at most 2, lost with all their repeats, are a doubt that the next worker ends; "
    "no other state changes, no other database changes its owner",
)
async def test_a_twentieth_lost(row: Row) -> None:
    lab, server = row.make_lab(workers=2), row.start_postgres()
    names = await watched(lab, server, 6)
    owned = {name: (lab.owner(name), lab.hash(name)["epoch"]) for name in names}
    await loses(lab, server, names, 0.05, 600, row.figure)
    await lab.all_in(names, "available", within=15)
    doubted = [name for name in names if "uncertain" in lab.eye.states(name)]
    doubts = sum(lab.eye.states(name).count("uncertain") for name in doubted)
    row.figure("doubts", doubts, "", most=2)
    left_alone = sorted(set(names) - set(doubted))
    assert_available(lab, left_alone)
    for name in left_alone:
        assert (lab.owner(name), lab.hash(name)["epoch"]) == owned[name]
    assert {state for name in doubted for state in lab.eye.states(name)} <= DOUBTED


@pytest.mark.usefixtures("cuts")
@pytest.mark.row(
    "20 % of all packets lost for 60 s",
    "`uncertain` at most, or `refusing` after two logins in a row that were lost; never "
    "`unavailable`",
)
async def test_a_fifth_lost(row: Row) -> None:
    lab, server = row.make_lab(workers=2), row.start_postgres()
    names = await watched(lab, server, 6)
    await loses(lab, server, names, 0.2, 60, row.figure, logins=True)
    await lab.all_in(names, "available", within=15)
    seen = {state for name in names for state in lab.eye.states(name)}
    assert seen <= {*DOUBTED, "refusing"}
    row.figure("doubts", sum(lab.rules(name).count("doubt") for name in names), "")


@pytest.mark.row(
    "every connection stalls in the middle of an answer",
    "no probe takes longer than its deadline of 2 s + 0.1 s; `unavailable` by confirm_silent "
    "where it stalls before it lets us in, `refusing` where it stalls later; `available` <= 7 s "
    "after",
)
async def test_stalled_answers(row: Row) -> None:
    lab, server = row.make_lab(workers=2), row.start_postgres()
    proxies = {f"after-{count}": (row.start_proxy(server.port), count) for count in (5, 60, 300)}
    for name, (proxy, _) in proxies.items():
        lab.monitor(name, server, proxy.url(server.url()))
    names = list(proxies)
    await lab.all_in(names, "available", within=30)
    began = time.time()
    with injecting.answers_cut(lab, proxies):
        await lab.all_in(["after-5"], "unavailable", within=40)
        await lab.all_in(["after-60", "after-300"], "refusing", within=40)
    row.figure("available again after", await lab.all_in(names, "available", within=30), most=BACK)
    sights = [one.fields for name in names for one in lab.eye.sights[name] if one.at > began]
    longest = max(float(fields["observed_at"]) - float(fields["sent_at"]) for fields in sights)
    row.figure("the longest probe took", longest, most=DEADLINE + 0.1)
    assert "confirm_silent" in lab.rules("after-5")
