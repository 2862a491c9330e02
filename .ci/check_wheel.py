"""What an installed wheel must do by itself: migrate a fresh registry, and bring a first
observation.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import monitor
from monitor.local.embedded import Postgres
from monitor.local.home import make_home, stores_folder
from monitor.local.machine import free_port

FEELER = str(Path(sys.executable).with_name("feeler"))
PATIENCE = 60.0  # seconds


def feeler(*words: str, **environment: str) -> str:
    """Run a command of the installed feeler; return what it printed."""
    answer = subprocess.run(
        [FEELER, *words],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return answer.stdout


def check_migration(home: Path) -> None:
    """Migrate an empty database, and find nothing pending after that."""
    server = Postgres(stores_folder(home) / "fresh")
    server.prepare()
    server.start()
    try:
        server.wait_ready()
        stores = {
            "DATABASE_URL": server.url(),
            "REDIS_URL": "redis://127.0.0.1:1",
            "FEELER_HOME": str(home),
        }
        assert feeler("migrate", **stores), "a fresh registry had nothing to migrate"
        assert not feeler("migrate", "--check", **stores)
    finally:
        server.stop()


def check_observation(home: Path) -> None:
    """Start everything and wait for the first observation."""
    began = time.monotonic()
    up = subprocess.Popen(
        [FEELER, "up", "--port", str(free_port())], env=os.environ | {"FEELER_HOME": str(home)}
    )
    try:
        while not (home / "runtime.env").exists() or "available" not in observed(home):
            assert up.poll() is None, "`feeler up` ended"
            assert time.monotonic() - began < PATIENCE, "no observation"
            time.sleep(0.2)
        print(f"first observation after {time.monotonic() - began:.1f} s")
    finally:
        up.send_signal(signal.SIGTERM)
        assert up.wait(30) == 0


def observed(home: Path) -> str:
    """Return what `feeler get` prints, nothing while nobody answers."""
    environment = os.environ | {"FEELER_HOME": str(home)}
    return subprocess.run(
        [FEELER, "get"], env=environment, capture_output=True, text=True, check=False
    ).stdout


if __name__ == "__main__":
    place = Path(sys.argv[1])
    assert Path(monitor.__file__).is_relative_to(sys.prefix), f"not the wheel: {monitor.__file__}"
    make_home(place)
    check_migration(place)
    check_observation(place)
