"""The `run` script installs once, then only starts, and shows no password in `ps`."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

URL = "postgresql://app:Kanarienvogel@db.example/orders"
ROOT = Path(__file__).parents[1]
ECHO = """#!/bin/sh
echo "$@"
case "$2" in @*) cat "${2#@}";; esac
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


def run(venv, *words, **more):
    argv = [sys.executable, str(ROOT / "run"), *words]
    environment = {**os.environ, "FEELER_VENV": str(venv), "PATH": "/usr/bin:/bin"} | more
    return subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)


def test_any_other_word_is_feelers(ready_venv):
    answer = run(ready_venv, "get", "--state", "available")
    assert (answer.stdout, answer.stderr) == ("get --state available\n", "")


@pytest.mark.parametrize("url", [URL, f"orders={URL}"])
def test_urls_reach_up_without_a_name_anywhere(ready_venv, url):
    told, content = run(ready_venv, "up", url).stdout.splitlines()
    assert told.startswith("up @/dev/fd/")
    assert "Kanarienvogel" not in told
    assert content == url


def mistaken(venv):
    (venv / "bin" / "feeler").write_text("#!/bin/sh\nexit 2\n")


def not_there(venv):
    (venv / "bin" / "feeler").unlink()


@pytest.mark.parametrize("mistake", [mistaken, not_there])
def test_no_mistake_leaves_a_password_behind(ready_venv, tmp_path, mistake):
    mistake(ready_venv)
    (tmp_path / "tmp").mkdir()
    failed = run(ready_venv, "up", f"orders={URL}", TMPDIR=str(tmp_path / "tmp"))
    assert failed.returncode
    assert "Kanarienvogel" not in failed.stdout + failed.stderr
    assert not [
        path
        for path in tmp_path.rglob("*")
        if path.is_file() and b"Kanarienvogel" in path.read_bytes()
    ]


def test_no_words_explain_it(ready_venv):
    assert "./run up" in run(ready_venv).stderr
    assert "./run test" in run(ready_venv, "--help").stderr
