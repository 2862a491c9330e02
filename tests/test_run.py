"""The `run` script: installs once, then only starts, and keeps passwords out of the process list."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ECHO = """#!/bin/sh
echo "$@"
case "$2" in @*) cat "${2#@}"; ls -l "${2#@}"; rm "${2#@}";; esac
"""


@pytest.fixture
def ready_venv(tmp_path):
    """A place that looks like a finished .venv whose `feeler` says what it was told."""
    venv = tmp_path / "venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").symlink_to(sys.executable)
    feeler = venv / "bin" / "feeler"
    feeler.write_text(ECHO)
    feeler.chmod(0o755)
    files = b"".join((ROOT / name).read_bytes() for name in ("pyproject.toml", "constraints.txt"))
    place = f"{sys.version_info.major}.{sys.version_info.minor}{ROOT}"
    (venv / ".feeler-dev").write_text(hashlib.sha256(files + place.encode()).hexdigest())
    return venv


def run(venv, *words):
    argv = [sys.executable, str(ROOT / "run"), *words]
    environment = {**os.environ, "FEELER_VENV": str(venv), "PATH": "/usr/bin:/bin"}
    return subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)


def test_any_other_word_is_feelers(ready_venv):
    answer = run(ready_venv, "get", "--state", "available")
    assert (answer.stdout, answer.stderr) == ("get --state available\n", "")


def test_urls_reach_up_in_a_private_file(ready_venv):
    url = "orders=postgresql://app:Kanarienvogel@db.example/orders"
    told, content, listing = run(ready_venv, "up", url).stdout.splitlines()
    assert told.startswith("up @")
    assert content == url
    assert listing.startswith("-rw-------")


def test_no_words_explain_it(ready_venv):
    assert "./run up" in run(ready_venv).stderr
    assert "./run test" in run(ready_venv, "--help").stderr
