"""Every command of the README runs, in its order, and says what it promises."""

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from monitor.local.machine import free_port
from tests.servers import PostgresServer
from tests.waiting import eventually

ROOT = Path(__file__).resolve().parents[2]
BLOCKS = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
COMMANDS = [line for block in BLOCKS for line in block.splitlines()]


@pytest.fixture
def environment(servers_folder: Path, postgres_server: PostgresServer) -> dict[str, str]:
    home = servers_folder / f"readme-{free_port()}"
    home.mkdir(mode=0o711)
    told = {
        "FEELER_HOME": str(home),
        "PORT": str(free_port()),
        "ORDERS_URL": postgres_server.superuser_url(),
    }
    clean = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("FEELER", "DATABASE_", "REDIS_"))
    }
    return clean | {"FEELER_VENV": os.environ.get("FEELER_VENV", str(ROOT / ".venv"))} | told


@pytest.fixture
def running(environment: dict[str, str], tmp_path: Path) -> Iterator[Path]:
    """Run the README's first command for as long as the test lasts; give its output."""
    log = tmp_path / "up.log"
    with log.open("wb") as out:
        up = subprocess.Popen(
            ["bash", "-c", f"exec {COMMANDS[0]}"],
            cwd=ROOT,
            env=environment,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    yield log
    up.send_signal(signal.SIGTERM)
    up.wait(30)


def call(command: str, environment: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    command = command.replace(":8000", f":{environment['PORT']}")
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def run(command: str, environment: dict[str, str]) -> str:
    done = call(command, environment)
    assert done.returncode == 0, (
        f"{command}: exit code {done.returncode}\n{done.stdout}{done.stderr}"
    )
    return done.stdout


def is_available(environment: dict[str, str]) -> bool:
    return call("./run get orders --state available", environment).returncode == 0


@pytest.mark.slow
async def test_every_command_of_the_readme_runs(running: Path, environment: dict[str, str]) -> None:
    assert COMMANDS[0] == "./run up"
    await eventually(lambda: "first observation" in running.read_text(), within=60, every=0.2)
    said = {}
    for command in COMMANDS[1:]:
        if command == "./run test":
            continue  # that is what runs this
        if command.startswith(("./run observe", "./run info", "./run transitions")):
            await eventually(lambda: is_available(environment), within=20, every=0.5)
        said[command] = run(command, environment)
    assert (
        '"state":"available"'
        in said["curl -s http://127.0.0.1:8000/last_observation/feeler-metadata"]
    )
    assert "feeler-metadata" in said["./run get"]
    assert "deploy" in said["./run get feeler-metadata --state available && echo deploy"]
    assert "first_ok" in said["./run transitions orders"]
    assert "orders" in said["./run db list"]
