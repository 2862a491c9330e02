"""What all benches share: figures with their baselines, processor time as the kernel counts it."""

import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

PACKAGES = ("psycopg", "redis", "hiredis", "rq", "transitions", "uvloop", "fastapi", "uvicorn")
OURS, THEIRS = 0, 1  # processors: the process under test alone on the one, all else on the other


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One thing measured, and the same of what a user would run instead, in the same run."""

    name: str
    value: float
    unit: str
    baseline: str = ""
    baseline_value: float | None = None

    @property
    def ratio(self) -> float | None:
        """Return how many times the value the baseline is."""
        if self.baseline_value is None or not self.value:
            return None
        return self.baseline_value / self.value

    def as_json(self) -> dict[str, object]:
        return {**asdict(self), "ratio": self.ratio}


def table(figures: Iterable[Figure]) -> str:
    """Return the figures as a Markdown table."""
    lines = ["| what | figure | beside | figure | ratio |", "|---|---|---|---|---|"]
    for one in figures:
        other = "" if one.baseline_value is None else f"{rounded(one.baseline_value)} {one.unit}"
        ratio = "" if one.ratio is None else f"{rounded(one.ratio)} x"
        value = f"{rounded(one.value)} {one.unit}"
        lines.append(f"| {one.name} | {value} | {one.baseline} | {other} | {ratio} |")
    return "\n".join(lines)


def rounded(value: float) -> str:
    """Return three digits of a number, more where it is larger."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def machine() -> dict[str, str]:
    """Return what the figures were measured on."""
    found = {"python": platform.python_version(), "system": platform.platform(terse=True)}
    found["processors"] = str(os.cpu_count())
    with suppress(OSError):
        names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if "name" in line]
        found["processor"] = names[0].split(":")[1].strip()
    for package in PACKAGES:
        found[package] = version(package)
    return found


def cpu_seconds(pid: int) -> float:
    """Return the processor time of all threads of a process so far."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(OSError):
            total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


def interleaved(rounds: int, *cases: Callable[[], float]) -> list[float]:
    """Return each case's median; a round takes all cases, one after the other."""
    found: list[list[float]] = [[] for _ in cases]
    for _ in range(rounds):
        for case, values in zip(cases, found, strict=True):
            values.append(case())
    return [statistics.median(values) for values in found]


def pin(pid: int, processor: int) -> None:
    """Keep a process, and the threads it has, on one processor, where there are several."""
    if (os.cpu_count() or 1) < 2:
        return
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(OSError):
            os.sched_setaffinity(int(task.name), {processor})


def python(arguments: Sequence[str], *, processor: int, **options: object) -> subprocess.Popen[str]:
    """Start a Python of ours on this processor, in text mode."""
    process = subprocess.Popen([sys.executable, *arguments], text=True, **options)  # type: ignore[call-overload]
    pin(process.pid, processor)
    return process  # type: ignore[no-any-return]


def wait_until(true: Callable[[], object], within: float = 60.0) -> None:
    """Return once it is true; raise TimeoutError when it does not become so."""
    until = time.monotonic() + within
    while not true():
        if time.monotonic() > until:
            raise TimeoutError(f"not true within {within:g} s")
        time.sleep(0.05)
