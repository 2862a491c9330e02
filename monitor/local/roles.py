"""The roles of the Procfile, as commands and as processes. `monitor.local.up` imports this."""

import shlex
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from monitor.local.processes import Child, start_command

RELEASE = "release"  # runs once, before all others
WORKER = "worker"  # runs as often as one asks for

_MONITOR = Path(__file__).parents[1]


def read_procfile(given: Path | None = None) -> dict[str, str]:
    """Return the command of each role; `feeler` in them is this very installation."""
    commands = {}
    text = (given or _our_procfile()).read_text(encoding="utf-8")
    for line in text.splitlines():
        role, colon, command = line.partition(":")
        if colon and not line.startswith("#"):
            commands[role.strip()] = _ours(command.strip())
    return commands


def role_processes(
    commands: Mapping[str, str], workers: int, environment: Mapping[str, str]
) -> list[Child]:
    """Return what is kept running: every role but the release once, and so many workers."""
    processes = []
    for role, command in commands.items():
        if role == RELEASE:
            continue
        for name in _names(role, workers if role == WORKER else 1):
            start = partial(start_command, name, command, environment)
            processes.append(Child(name, start))
    return processes


def is_worker(process: Child) -> bool:
    """Say whether this is one of the workers."""
    return process.name.partition(".")[0] == WORKER


def _our_procfile() -> Path:
    """Return the Procfile that came with the wheel, else the one of this checkout."""
    shipped = _MONITOR / "_procfile"
    return shipped if shipped.exists() else _MONITOR.parent / "Procfile"


def _ours(command: str) -> str:
    program, _, arguments = command.partition(" ")
    if program == "feeler":
        program = f"{shlex.quote(sys.executable)} -m monitor.cli"
    return f"{program} {arguments}"


def _names(role: str, count: int) -> list[str]:
    return [role] if count == 1 else [f"{role}.{number}" for number in range(1, count + 1)]
