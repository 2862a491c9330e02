import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from alembic import command
from cryptography.fernet import Fernet
from typer.testing import CliRunner

from monitor.cli import app as cli
from monitor.config import Settings, write_runtime
from monitor.core.cause import Cause
from monitor.core.database import parse_address
from monitor.core.event import Transition, encode
from monitor.core.generation import Signature
from monitor.core.status import Epoch, Identity, State
from monitor.live import connections, generation, letters
from monitor.live.keys import database_key
from monitor.local.first_run import FirstRun
from monitor.local.machine import free_port
from monitor.registry import fleet
from monitor.registry.store import migrations, open_store
from monitor.registry.transitions import read_transitions, write_transitions
from monitor.secrets import SecretBox
from monitor.terminal import first_look
from monitor.web.app import create_app
from tests.servers import PostgresServer
from tests.waiting import eventually
from tests.web.filling import Filler

TOKEN = "0123456789abcdef"
KEY = "0" * 43 + "="
CANARY = "canary-Zx81-password"
URL = f"postgresql://app:{CANARY}@db.example/orders"
CAUSES = {State.AVAILABLE: Cause.OK, State.REFUSING: Cause.REFUSING}
Run = Callable[..., Any]


@pytest.fixture(autouse=True)
def short_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """No worker runs here that could look at what is added."""
    monkeypatch.setattr(first_look, "TIME_LIMIT", 0.05)


@pytest.fixture
def environ(tmp_path: Path, redis_url: str, database_url: str) -> dict[str, str]:
    return {
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "FEELER_HOME": str(tmp_path),
        "FEELER_SECRET_KEYS": KEY,
        "FEELER_TOKEN": TOKEN,
    }


@pytest.fixture
def served(environ: dict[str, str]) -> Iterator[dict[str, str]]:
    """A web in a thread of its own; yields what a client must know."""
    config = uvicorn.Config(
        create_app(Settings.from_env(environ), SecretBox([KEY])),
        port=0,
        log_config=None,
        ws="none",
        lifespan="on",
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield {name: environ[name] for name in ("FEELER_HOME", "FEELER_TOKEN")} | {
        "FEELER_URL": f"http://127.0.0.1:{port}"
    }
    server.should_exit = True
    thread.join()


@pytest.fixture
def feeler(served: dict[str, str]) -> Run:
    """Run the command line beside the web."""

    def run(*words: str, **more: Any) -> Any:
        return invoke(served, *words, **more)

    return run


@pytest.fixture
async def fill(redis_url: str) -> AsyncIterator[Filler]:
    live = connections.connect(redis_url)
    filler = Filler(live)
    await filler.open()
    yield filler
    await connections.close(live)


def invoke(environ: dict[str, str], *words: str, **more: Any) -> Any:
    known = ("DATABASE_URL", "REDIS_URL", "FEELER_URL", "FEELER_TOKEN", "FEELER_HOST", "PORT")
    return CliRunner().invoke(cli, list(words), env={**dict.fromkeys(known), **environ}, **more)


def rows(output: str) -> list[list[str]]:
    return [line.split("\t") for line in output.splitlines()]


def test_help_is_quick():
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "monitor.cli", "--help"], capture_output=True, text=True, check=True
    )
    took = time.perf_counter() - began
    print(f"feeler --help: {took * 1000:.0f} ms")
    assert "last observations" in done.stdout
    assert took < 2.0


def test_help_loads_none_of_the_heavy_packages():
    code = "import sys, monitor.cli; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"fastapi", "sqlalchemy", "redis", "psycopg", "httpx", "cryptography"} & set(loaded)


async def test_get_prints_tab_separated_data_to_a_pipe(feeler, fill):
    await fill.beat("b", state=State.AVAILABLE)
    await fill.beat("a", cause=Cause.PORT_CLOSED, readings=(), state=State.UNCERTAIN)
    await fill.beat("c", state=State.STARTING, cause=Cause.STARTING)
    await fill.watchers()
    got = feeler("get")
    assert (got.exit_code, got.stderr) == (0, "")
    head, *found = rows(got.stdout)
    assert head == ["NAME", "STATE", "SINCE", "AGE", "WHY", "OWNER", "CONN", "SIZE", "HIT", "STALE"]
    assert [row[:2] for row in found] == [["a", "uncertain"], ["b", "available"], ["c", "starting"]]
    assert found[0][4:] == ["port_closed", "w4", "", "", "", "no"]
    assert found[1][6:] == ["88", "44238471168", "99.1", "no"]


async def test_get_takes_names_and_states(feeler, fill):
    await fill.beat("a", state=State.AVAILABLE)
    await fill.beat("b", state=State.REFUSING, cause=Cause.REFUSING)
    assert [row[0] for row in rows(feeler("get", "b").stdout)[1:]] == ["b"]
    assert [
        row[0] for row in rows(feeler("get", "--state", "available", "--state", "new").stdout)[1:]
    ] == ["a"]
    assert feeler("get", "--state", "broken").exit_code == 2


@pytest.mark.parametrize(
    "words",
    [
        ("get", ""),
        ("get", "a", " "),
        ("get", "", "--state", "available"),
        ("get", "a", "--state", ""),
        ("info", ""),
        ("observe", ""),
        ("observe", "", "--owner"),
        ("transitions", ""),
        ("db", "add", "", "-"),
        ("db", "add", "a", ""),
        ("db", "set-url", "", "-"),
        ("db", "set-url", "a", ""),
        ("db", "remove", "", "--yes"),
    ],
)
async def test_a_variable_that_is_not_set_is_a_usage_error_not_the_whole_fleet(feeler, fill, words):
    await fill.beat("a", state=State.AVAILABLE)
    refused = feeler(*words, input=URL)
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert refused.stderr


async def test_a_condition_over_nothing_is_false(feeler, fill):
    assert feeler("get", "--state", "available").exit_code == 3
    await fill.beat("a", state=State.AVAILABLE)
    await fill.beat("b", state=State.REFUSING, cause=Cause.REFUSING)
    assert feeler("get", "--state", "available").exit_code == 0
    assert feeler("get", "--state", "unavailable").exit_code == 3
    assert feeler("get", "a", "b", "--state", "available").exit_code == 3
    twice = ["a", *(f"unknown{i}" for i in range(200)), "a", "b"]  # two request lines
    assert len(rows(feeler("get", *twice).stdout)) == 3


async def test_get_in_json(feeler, fill):
    await fill.beat("a", state=State.AVAILABLE)
    await fill.beat("b", state=State.AVAILABLE)
    whole = json.loads(feeler("get", "a", "zz", "-o", "json").stdout)
    assert [one["database"]["name"] for one in whole["data"]] == ["a"]
    assert whole["missing"] == ["zz"]
    lines = feeler("get", "-o", "ndjson").stdout.splitlines()
    assert [json.loads(line)["database"]["name"] for line in lines] == ["a", "b"]


async def test_get_as_a_table_has_words_and_no_colour_in_a_pipe(feeler, fill):
    await fill.beat("a", state=State.AVAILABLE)
    await fill.beat("b", state=State.AVAILABLE, age=40)
    table = feeler("get", "-o", "table").stdout
    assert "✔ available" in table
    assert "44.2 GB" in table
    assert "40s ◌ stale" in table
    assert "\x1b" not in table


async def test_what_is_stale_or_unknown_ends_with_4(feeler, fill):
    await fill.beat("fresh")
    await fill.beat("old", age=60)
    await fill.give("new")
    assert feeler("get", "fresh").exit_code == 0
    assert feeler("get").exit_code == 0
    for name in ("old", "new", "unknown"):
        assert feeler("get", "fresh", name).exit_code == 4
        assert feeler("info", name).exit_code == 4
    await fill.watchers()
    assert feeler("get", "unknown").stderr == "feeler: there is no database named unknown\n"
    assert "no database named unknown" in feeler("info", "unknown").stderr


async def test_get_says_first_what_is_not_as_green_as_it_looks(feeler, fill):
    await fill.beat("fresh", state=State.AVAILABLE)
    assert feeler("get").stderr.splitlines() == [
        "feeler: nobody watches: no worker is present (start one: `feeler run worker`)",
        "feeler: no supervisor is at work: what a lost worker watched stays unwatched",
    ]
    await fill.watchers()
    await fill.beat("old", age=125, state=State.AVAILABLE)
    await fill.give("new")
    assert (
        feeler("get").stderr
        == "feeler: 2 of 3 without a recent observation; the oldest observation is 2m5s old\n"
    )


async def test_info_tells_all(feeler, fill, store):
    change = await fill.beat(
        "orders", state=State.AVAILABLE, labels={"env": "prod"}, unreachable_from=("w2",)
    )
    fleet.add(store, "orders", "sealed", {})
    write_transitions(store, [change])
    told = feeler("info", "orders")
    assert told.exit_code == 0
    for text in (
        "✔ available", "rule first_ok", "env=prod", "w2 cannot reach it", "connections 88",
        "db_size 44.2 GB", "EVIDENCE", "ok w4 x1",
    ):  # fmt: skip
        assert text in told.stdout
    assert told.stderr == ""


def test_a_database_comes_and_goes(feeler, served):
    added = feeler(
        "db", "add", "orders", "-", "-l", "env=prod", "--label", "tier=gold", input=URL + "\n"
    )
    assert added.exit_code == 0
    assert "registered, and not seen after 0 s" in added.stderr
    assert added.stdout == "orders\tpostgresql://app:***@db.example:5432/orders\n"
    listed = rows(feeler("db", "list").stdout)
    assert listed[1] == [
        "orders", "active", "default", "-", "postgresql://app:***@db.example:5432/orders",
        "env=prod tier=gold",
    ]  # fmt: skip
    assert feeler("db", "add", "orders", "-", input=URL).exit_code == 1
    refused = feeler("db", "remove", "orders")
    assert (refused.exit_code, "--yes" in refused.stderr) == (2, True)
    assert feeler("db", "remove", "orders", "--yes").exit_code == 0
    assert feeler("db", "list").stdout.count("\n") == 1
    assert feeler("db", "remove", "orders", "--yes").exit_code == 4
    assert feeler("db", "add", "orders", "-", input=URL).exit_code == 0


def test_an_address_is_changed(feeler, served):
    feeler("db", "add", "orders", "-", "-l", "env=prod", input=URL)
    changed = feeler("db", "set-url", "orders", "-", input=URL.replace("/orders", "/orders2"))
    assert (changed.exit_code, changed.stderr.count("\n")) == (0, 1)
    assert changed.stdout == "orders\tpostgresql://app:***@db.example:5432/orders2\n"
    assert rows(feeler("db", "list").stdout)[1][4:] == [
        changed.stdout.split("\t")[1].strip(),
        "env=prod",
    ]
    assert feeler("db", "set-url", "unknown", "-", input=URL).exit_code == 4
    refused = feeler("db", "set-url", "orders", "-", input=CANARY)
    assert (refused.exit_code, CANARY in refused.output) == (2, False)


def test_a_url_need_not_stand_on_the_command_line(feeler, served):
    assert invoke(served | {"ORDERS_URL": URL}, "db", "add", "a", "env:ORDERS_URL").exit_code == 0
    unset = feeler("db", "add", "b", "env:NOT_SET")
    assert (unset.exit_code, unset.stderr.count("\n")) == (2, 1)
    warned = feeler("db", "add", "c", URL)
    assert warned.exit_code == 0
    assert "warning" in warned.stderr
    assert CANARY not in warned.stderr + warned.stdout


@pytest.mark.parametrize(
    "url", [URL.replace("postgresql", "mysql"), f"postgresql://u:{CANARY}@h:port/d", CANARY]
)
def test_a_malformed_url_is_refused_in_one_line_without_an_echo(feeler, url):
    for words, given in ((("db", "add", "x", "-"), url), (("db", "add", "x", url), "")):
        refused = feeler(*words, input=given)
        assert (refused.exit_code, refused.stderr.count("\n")) == (2, 1)
        assert CANARY not in refused.output


@pytest.mark.parametrize(
    "words", [("db", "add", "No", "-"), ("db", "add", "x", "-", "-l", "novalue"), ("info", "../x")]
)
def test_misuse_is_a_usage_error(feeler, words):
    refused = feeler(*words, input=URL)
    assert (refused.exit_code, refused.stderr.count("\n")) == (2, 1)


async def test_transitions(feeler, fill, store):
    changes = [
        await fill.beat("orders", state=State.AVAILABLE),
        await fill.beat(
            "orders", state=State.UNCERTAIN, cause=Cause.PORT_CLOSED, readings=(), rule="doubt"
        ),
    ]
    fleet.add(store, "orders", "sealed", {})
    write_transitions(store, changes)
    head, *found = rows(feeler("transitions", "orders").stdout)
    assert head[:4] == ["AT", "FROM", "TO", "RULE"]
    assert [row[1:6] for row in found] == [
        ["new", "available", "first_ok", "w4", "ok w4 x1"],
        ["available", "uncertain", "doubt", "w4", "port_closed w4 x1"],
    ]
    assert feeler("transitions", "unknown").exit_code == 4


def hear_interrupts():
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextmanager
def following(served, *options):
    """`feeler transitions orders` that follows, over when the block is, however that ends."""
    argv = [sys.executable, "-m", "monitor.cli", "transitions", "orders", "-o", "ndjson"]
    # In the background of a script SIGINT is ignored, and every child inherits that.
    piped = {"stdout": subprocess.PIPE, "text": True, "preexec_fn": hear_interrupts}
    with subprocess.Popen([*argv, *options], env=os.environ | served, **piped) as process:
        try:
            yield process
        finally:
            process.kill()


async def test_transitions_are_followed_until_interrupted(served, fill, store):
    fleet.add(store, "orders", "sealed", {})
    write_transitions(store, [await fill.beat("orders", state=State.AVAILABLE)])
    with following(served, "--follow") as process:
        assert json.loads(process.stdout.readline())["to"] == "available"
        write_transitions(
            store, [await fill.beat("orders", state=State.REFUSING, cause=Cause.REFUSING)]
        )
        assert json.loads(process.stdout.readline())["to"] == "refusing"
        process.send_signal(signal.SIGINT)
        assert process.wait(5) == 0


async def test_following_shows_what_is_new_and_nothing_old(served, fill, store):
    async def flap(times: int) -> None:
        states = [State.AVAILABLE, State.REFUSING] * times
        changes = [await fill.beat("orders", state=state, cause=CAUSES[state]) for state in states]
        write_transitions(store, changes)

    fleet.add(store, "orders", "sealed", {})
    await flap(60)
    with following(served, "-f", "--limit", "2") as process:
        shown = [json.loads(process.stdout.readline())["identity"] for _ in range(2)]
        await flap(110)
        shown += [json.loads(process.stdout.readline())["identity"] for _ in range(220)]
        await flap(1)
        shown += [json.loads(process.stdout.readline())["identity"] for _ in range(2)]
    kept = [str(row.transition.identity) for row in read_transitions(store, "orders", limit=224)]
    assert shown == kept[::-1]


async def test_observe_by_the_owner_is_a_request(feeler, fill):
    await fill.beat("orders")
    assert re.fullmatch(r"\d+-\d+\n", feeler("observe", "orders", "--owner").stdout)
    assert feeler("observe", "unknown", "--owner").exit_code == 4


def test_observe_shows_each_step_and_what_came_out(environ, postgres_server):
    url = postgres_server.url("postgres")
    seen = invoke(environ | {"TARGET": url}, "observe", "env:TARGET")
    assert (seen.exit_code, seen.stderr) == (0, "")
    assert re.search(r"^  query +\d+\.\d ms$", seen.stdout, re.MULTILINE)
    assert re.search(r"^  total +\d+\.\d ms$", seen.stdout, re.MULTILINE)
    for text in ("cause       ok (ok)", "connections_max", "db_size"):
        assert text in seen.stdout
    assert parse_address(url).password not in seen.stdout


def test_observe_finds_registered_databases(environ, postgres_server):
    store, box = open_store(environ["DATABASE_URL"]), SecretBox([KEY])
    fleet.add(store, "orders", box.seal("orders", postgres_server.url("postgres")), {})
    store.close()
    assert "cause       ok" in invoke(environ, "observe", "orders").stdout
    missing = invoke(environ, "observe", "unknown")
    assert (missing.exit_code, missing.stderr) == (4, "feeler: no database named 'unknown'\n")


def test_observe_of_what_cannot_be_felt_ends_with_3(environ):
    url = f"postgresql://u:{CANARY}@127.0.0.1:1/d"
    seen = invoke(environ | {"TARGET": url}, "observe", "env:TARGET")
    assert seen.exit_code == 3
    assert "cause       port_closed (absent)" in seen.stdout
    assert CANARY not in seen.output


def test_migrate_checks_and_works(environ, postgres_server):
    postgres_server.execute("CREATE DATABASE bare_cli")
    try:
        bare = environ | {"DATABASE_URL": postgres_server.url("bare_cli"), "SUDO_USER": "alice"}
        pending = invoke(bare, "migrate", "--check")
        assert pending.exit_code == 3
        assert pending.stdout
        assert "action=audit" not in pending.stderr
        done = invoke(bare, "migrate")
        assert (done.exit_code, "in clear" in done.stderr) == (0, False), "nobody is registered yet"
        revisions = ",".join(pending.stdout.split())
        assert re.search(
            rf" I feeler.audit action=audit who=\w+,sudo:alice what=migrate:{revisions}"
            r" result=done from=\S+:\d+\n",
            done.stderr,
        )
        assert invoke(bare, "migrate", "--check").exit_code == 0
    finally:
        postgres_server.execute("DROP DATABASE bare_cli WITH (FORCE)")


def test_migrate_names_whom_the_rule_about_passwords_in_clear_may_meet(environ, postgres_server):
    postgres_server.execute("CREATE DATABASE older_cli")
    older = environ | {"DATABASE_URL": postgres_server.url("older_cli")}
    urls = {
        "prefers": URL,
        "allows": f"{URL}?allow_cleartext=1",
        "verifies": f"{URL}?sslmode=verify-full",
        "requires": f"{URL}?require_auth=scram-sha-256",
        "tells-nobody": "postgresql://app@db.example/orders",
    }
    try:
        assert invoke(older, "migrate").exit_code == 0
        store = open_store(older["DATABASE_URL"])
        for name, url in urls.items():
            fleet.add(store, name, SecretBox([KEY]).seal(name, url), {})
        fleet.add(
            store, "foreign", SecretBox([Fernet.generate_key().decode()]).seal("foreign", URL), {}
        )
        with store.begin() as connection:
            command.downgrade(migrations(connection), "0002")
        store.close()
        told = invoke(older, "migrate").stderr
        assert re.search(r"^  prefers$", told, re.M), told
        assert "1 more databases have addresses that no key opens here" in told
        assert CANARY not in told
        again = invoke(older, "migrate").stderr
        assert "in clear" not in again, "told once"
    finally:
        postgres_server.execute("DROP DATABASE older_cli WITH (FORCE)")


def test_a_web_that_is_not_there_is_one_line(tmp_path):
    nowhere = {"FEELER_HOME": str(tmp_path), "FEELER_URL": f"http://u:{CANARY}@127.0.0.1:1"}
    for words in (
        ("get",),
        ("info", "a"),
        ("db", "list"),
        ("transitions", "a"),
        ("db", "remove", "a", "--yes"),
    ):
        refused = invoke(nowhere, *words)
        assert (refused.exit_code, refused.stdout, refused.stderr.count("\n")) == (1, "", 1)
        assert "feeler up" in refused.stderr
        assert CANARY not in refused.stderr


def test_settings_nobody_can_use_are_one_line(tmp_path):
    refused = invoke({"FEELER_HOME": str(tmp_path), "FEELER_URL": f"ftp://{CANARY}"}, "get")
    assert (refused.exit_code, refused.stderr.count("\n")) == (2, 1)
    assert "FEELER_URL" in refused.stderr
    assert CANARY not in refused.stderr
    missing = invoke({"FEELER_HOME": str(tmp_path)}, "migrate")
    assert (missing.exit_code, "DATABASE_URL" in missing.stderr) == (2, True)


async def test_a_running_up_is_found_without_any_variable(served, fill, tmp_path):
    await fill.beat("a")
    write_runtime(tmp_path, {name: served[name] for name in ("FEELER_URL", "FEELER_TOKEN")})
    beside = {"FEELER_HOME": served["FEELER_HOME"]}
    assert invoke(beside, "get", "a").exit_code == 0
    assert invoke(beside, "db", "add", "b", "-", input=URL).exit_code == 0


def test_version():
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*\n", invoke({}, "version").stdout)


async def test_run_web_serves_and_stops(environ):
    port = free_port()
    command = [sys.executable, "-m", "monitor.cli", "run", "web"]
    with subprocess.Popen(
        command, env=os.environ | environ | {"PORT": str(port)}, stderr=subprocess.PIPE
    ) as process:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as web:
            await eventually(lambda: answers(web, process), within=60)
            assert (
                await web.get("/last_observation")
            ).status_code == 401  # PORT and a token: open to the world
            mine = await web.get("/last_observation", headers={"Authorization": f"Bearer {TOKEN}"})
            assert (mine.status_code, mine.headers.get("server")) == (200, None)
            head = await web.head("/livez")
            assert (head.status_code, head.content) == (200, b"")
        process.terminate()
        assert process.wait(5) in (0, -signal.SIGTERM)
        said = process.stderr.read().decode()
    assert "action=serve host=0.0.0.0" in said
    assert "reading=token writing=token" in said
    assert TOKEN not in said


async def answers(web: httpx.AsyncClient, process: "subprocess.Popen[bytes]") -> bool:
    assert process.poll() is None
    try:
        return (await web.get("/livez")).status_code == 200
    except httpx.TransportError:
        return False


@pytest.mark.parametrize("role", ["supervisor", "worker"])
def test_run_becomes_the_role(tmp_path, role):
    environ = {"FEELER_HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    done = subprocess.run(
        [sys.executable, "-m", "monitor.cli", "run", role],
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "DATABASE_URL" in done.stderr


async def test_dead_letters_are_listed_and_replayed(environ: dict[str, str], fill: Filler):
    assert (await asyncio.to_thread(invoke, environ, "journal", "dead")).exit_code == 0
    text = encode(
        Transition(
            "a",
            Identity(Epoch(1, 1), 1),
            None,
            State.NEW,
            State.AVAILABLE,
            "first_ok",
            1.0,
            "w4",
            (),
            (),
        )
    )
    for group in ("historian", "supervisor"):
        await letters.bury(fill.live, group, 3, [("5-1", {"event": text})])
    await letters.bury(fill.live, "historian", 3, [("6-1", {"event": '{"type":"blinded"}'})])
    listed = await asyncio.to_thread(invoke, environ, "journal", "dead")
    assert [row[:4] for row in rows(listed.stdout)] == [
        ["3", "5-1", "historian,supervisor", "readable"],
        ["3", "6-1", "historian", "unreadable"],
    ]
    assert listed.exit_code == 3
    done = await asyncio.to_thread(invoke, environ, "journal", "replay")
    audited, told = done.stderr.splitlines()
    assert "action=audit who=" in audited
    assert "what=journal-replay:1 result=done" in audited
    assert told == "1 entries replayed, 1 left that this version cannot read either"
    assert [
        row[1] for row in rows((await asyncio.to_thread(invoke, environ, "journal", "dead")).stdout)
    ] == ["6-1"]


async def test_a_row_that_cannot_be_read_is_neither_new_nor_missing(feeler: Run, fill: Filler):
    await fill.beat("orders", state=State.AVAILABLE)
    await fill.beat("ledger", state=State.AVAILABLE)
    await fill.live.cache.hset(database_key("orders"), "state", "blind")
    for words in (
        ("orders",),
        ("orders", "ledger", "--state", "available"),
        ("--state", "available"),
        (),
    ):
        got = feeler("get", *words)
        assert (got.exit_code, "cannot read what is stored of orders" in got.stderr) == (4, True)
        assert "no database named" not in got.stderr
    told = feeler("info", "orders")
    assert (told.exit_code, "cannot read" in told.stderr) == (1, True)


async def test_a_redis_is_adopted_by_its_holders_short_name_alone(
    environ: dict[str, str], fill: Filler
) -> None:
    holder = "fedcba9876543210"

    async def adopt(*words: str) -> Any:
        return await asyncio.to_thread(invoke, environ, "redis", "adopt", *words)

    assert "nothing to do" in (await adopt()).stderr
    await generation.take_over(fill.live, holder, 4)
    for wrong in ([], ["fedcba"], [holder]):
        refused = await adopt(*wrong)
        assert refused.exit_code == 2
        assert "registry fedcba98 holds this Redis" in refused.stderr
        audited = (
            "what=redis-adopt:fedcba98->" in refused.stderr and "result=refused" in refused.stderr
        )
        assert audited is bool(wrong), "a look is no try"
    assert (await generation.standing(fill.live)).signature == Signature(4, holder)
    adopted = await adopt("fedcba98")
    assert (adopted.exit_code, "result=done from=" in adopted.stderr) == (0, True)
    signature = (await generation.standing(fill.live)).signature
    assert (signature.takeovers, len(signature.registry)) == (5, 32)


def test_migrate_says_why_postgres_lets_nobody_in(
    environ: dict[str, str], postgres_server: PostgresServer
) -> None:
    for url, cause in (
        (postgres_server.url("postgres", password=CANARY), "wrong_password"),
        (postgres_server.url("nowhere"), "no_database"),
        (f"postgresql://app:{CANARY}@127.0.0.1:1/feeler", "port_closed"),
    ):
        failed = invoke(environ | {"DATABASE_URL": url}, "migrate")
        assert (failed.exit_code, f"postgres is unavailable: {cause}" in failed.stderr) == (
            1,
            True,
        ), failed.stderr
        assert CANARY not in failed.stderr


async def test_up_says_whose_redis_it_was_given(
    served: dict[str, str], fill: Filler, capfd: Any
) -> None:
    await generation.take_over(fill.live, "fedcba9876543210", 1)
    settings = Settings.from_env(served, stores=False)
    await asyncio.to_thread(FirstRun(settings, {}, 0.0, 0.0, False).run)
    assert (
        "nothing is watched: this Redis holds the fleet of registry fedcba98"
        in capfd.readouterr().err
    )
