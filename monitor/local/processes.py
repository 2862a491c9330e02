"""Child processes that are kept alive: started again when they die, gone when we are gone.

All of monitor.local imports this.
"""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import IO

from monitor.core.timing import STOP_GRACE
from monitor.local.machine import die_with_parent

FIRST_DELAY, LAST_DELAY = 0.2, 15.0  # seconds before a dead child starts again; doubled each time
LONG_LIFE = 15.0  # seconds a child must have lived for the delay to begin anew
LOOK = 0.05  # seconds between two looks at a child

Process = subprocess.Popen[bytes]


def say(who: str, text: str) -> None:
    """Write one line for people to stderr: who says what."""
    sys.stderr.write(f"{who:<12}| {text}\n")
    sys.stderr.flush()


def start_command(name: str, command: str, environment: Mapping[str, str]) -> Process:
    """Start a shell command in a session of its own; its output goes to stderr under its name."""
    process = subprocess.Popen(
        # exec: signals must reach the program, not a shell before it
        ["/bin/sh", "-c", f"exec {command}"],
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        # Ctrl-C in a terminal reaches us alone, and we stop things in order
        start_new_session=True,
        # Two system calls: no lock can be held there.
        preexec_fn=die_with_parent(signal.SIGKILL),  # noqa: PLW1509
    )
    threading.Thread(target=_prefix, args=(name, process.stdout), daemon=True).start()
    return process


def _prefix(name: str, output: IO[bytes]) -> None:
    with output:
        for line in output:
            say(name, line.decode(errors="replace").rstrip())


@dataclass(eq=False)
class Child:
    """One process that shall live: how to start it, how to stop it, and its last line of log."""

    name: str
    start: Callable[[], Process]
    stop_signal: signal.Signals = signal.SIGTERM
    grace: float = STOP_GRACE
    last_line: Callable[[], str] = str
    process: Process | None = None
    stopping: asyncio.Event = field(default_factory=asyncio.Event)

    async def keep(self) -> None:
        """Have the child run until `stop` is called, whatever happens to it."""
        delay = FIRST_DELAY
        while not self.stopping.is_set():
            began = time.monotonic()
            end = await self._live()
            if self.stopping.is_set():
                return
            if time.monotonic() - began > LONG_LIFE:
                delay = FIRST_DELAY
            say(self.name, f"{end}; starts again in {delay:.1f} s {self.last_line()}".rstrip())
            await self._wait(delay)
            delay = min(delay * 2, LAST_DELAY)

    async def _live(self) -> str:
        """Return how one life of the child ended."""
        try:
            process = self.process = self.process or self.start()
        except OSError as error:  # no memory, no descriptor, no disk: all of that may pass
            return f"could not start: {error.strerror}"
        while (code := process.poll()) is None:  # noqa: ASYNC110  waitpid has no event
            await asyncio.sleep(LOOK)
        self.process = None
        if code < 0:
            return f"ended with {signal.Signals(-code).name}"
        return f"ended with exit code {code}"

    async def stop(self) -> None:
        """Ask the child to end, and end it by force when it does not."""
        self.stopping.set()
        process = self.process
        if not process or process.poll() is not None:
            return
        process.send_signal(self.stop_signal)
        deadline = time.monotonic() + self.grace
        while process.poll() is None:
            if time.monotonic() > deadline:
                say(self.name, f"did not stop within {self.grace:.0f} s; killed")
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            await asyncio.sleep(LOOK)

    async def _wait(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self.stopping.wait(), seconds)
        except TimeoutError:
            return
