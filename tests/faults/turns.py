"""Turns between rows side by side, shared or alone. Locks end with their process."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Turns:
    """Two lock files: all pass `gate` one by one, so none is overtaken for ever."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, exist_ok=True)
        self._gate, self._floor = folder / "gate", folder / "floor"

    @contextmanager
    def take(self, *, alone: bool) -> Iterator[None]:
        """Hold the floor, together with others or alone."""
        with self._floor.open("a") as floor:
            with self._gate.open("a") as gate:
                fcntl.flock(gate, fcntl.LOCK_EX)
                fcntl.flock(floor, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
            yield
