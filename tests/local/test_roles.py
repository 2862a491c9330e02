"""The roles of the Procfile: whose it is, and what each becomes."""

import sys
from pathlib import Path

from monitor.local.roles import RELEASE, is_worker, read_procfile, role_processes


def test_our_own_procfile_is_found_and_runs_this_installation() -> None:
    commands = read_procfile()
    assert set(commands) == {RELEASE, "web", "supervisor", "worker"}
    assert commands["worker"] == f"{sys.executable} -m monitor.cli run worker"


def test_a_procfile_of_ones_own_is_taken_as_it_is(tmp_path: Path) -> None:
    given = tmp_path / "Procfile"
    given.write_text("# comment: none\n\nweb: sleep 600\nrelease: feeler migrate\n")
    ours = f"{sys.executable} -m monitor.cli migrate"
    assert read_procfile(given) == {"web": "sleep 600", RELEASE: ours}


def test_every_role_runs_once_but_the_workers_and_the_release() -> None:
    commands = {RELEASE: "true", "web": "true", "worker": "true"}
    processes = role_processes(commands, 2, {})
    assert [one.name for one in processes] == ["web", "worker.1", "worker.2"]
    assert [one.name for one in processes if is_worker(one)] == ["worker.1", "worker.2"]
    assert [one.name for one in role_processes(commands, 1, {})] == ["web", "worker"]
