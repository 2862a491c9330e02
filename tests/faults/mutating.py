"""Break the product on purpose, one mutant at a time, and see the tests named for it fail: `./run
faults --mutants`.

All of it happens in copies of the tree. Before anything is broken the named tests must pass in one
of them.
"""

import argparse
import ast
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from tests.faults import report
from tests.faults.mutants import MUTANTS, Mutant

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs" / "faults.md"
LIMIT = 300  # seconds for one test; the longest row that is named takes two minutes
LEFT_OUT = shutil.ignore_patterns(
    ".git", ".venv*", "__pycache__", ".*_cache", ".hypothesis", "dist"
)
OPTIONS = ["-x", "--all-rows", "-p", "no:randomly", "-p", "no:cacheprovider", "--hypothesis-seed=1"]
# one minute of random faults: the spared ones need no longer
OPTIONS += ["-o", "timeout_func_only=true", "--minutes", "1"]
COPIES = 3  # broken side by side: the tests wait more than they compute
SIDE_BY_SIDE = ["-n", str(COPIES), "--maxschedchunk", "1"]  # the tests as they are
TELL = 40  # last lines of a test's output that say why there is no verdict
_CLOSING = {re.escape(bracket) for bracket in ")]}"}
_running: set[subprocess.Popen[bytes]] = set()


class Broken(Exception):
    """A mutant that proves nothing: it does not apply, or its tests could not be run."""


@dataclass(frozen=True, slots=True)
class Kill:
    """A test that noticed a mutant."""

    mutant: Mutant
    killer: str
    seconds: float


# --- editing --------------------------------------------------------------------------------------


def mutate(text: str, mutant: Mutant) -> str:
    """Return the file's text with the edit in it."""
    start, end = _span(text, mutant)
    found = list(_as_laid_out(mutant.before).finditer(text, start, end))
    if len(found) != 1:
        place = mutant.function or "the file"
        raise Broken(
            f"{mutant.file}: {mutant.before!r} stands {len(found)} times in {place}, not once"
        )
    edited = text[: found[0].start()] + mutant.after + text[found[0].end() :]
    if mutant.file.endswith(".py"):
        _check_syntax(edited, mutant)
    return edited


def _as_laid_out(code: str) -> re.Pattern[str]:
    """Return a pattern that finds this code however its lines are broken."""
    words = (re.escape(word) for word in re.findall(r"\w+|[^\w\s]", code))
    loose = r"\s*".join(rf",?\s*{word}" if word in _CLOSING else word for word in words)
    head, tail = re.match(r"\s*", code), re.search(r"\s*\Z", code)
    assert head
    assert tail
    return re.compile(re.escape(head[0]) + loose + re.escape(tail[0]))


def _check_syntax(text: str, mutant: Mutant) -> None:
    try:
        compile(text, mutant.file, "exec")
    except SyntaxError as exc:
        raise Broken(f"{mutant.file}: {exc}") from None


def _span(text: str, mutant: Mutant) -> tuple[int, int]:
    """Return where the function begins and ends."""
    if not mutant.function:
        return 0, len(text)
    find = _python_span if mutant.file.endswith(".py") else _lua_span
    if (span := find(text, mutant.function)) is None:
        raise Broken(f"{mutant.file} has no function {mutant.function}")
    return span


def _python_span(text: str, function: str) -> tuple[int, int] | None:
    nodes: list[ast.AST] = [ast.parse(text)]
    for name in function.split("."):
        inside = (child for node in nodes for child in ast.iter_child_nodes(node))
        nodes = [child for child in inside if getattr(child, "name", "") == name]
    if len(nodes) != 1:
        return None
    lines, node = text.splitlines(keepends=True), nodes[0]
    assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    assert node.end_lineno
    return len("".join(lines[: node.lineno - 1])), len("".join(lines[: node.end_lineno]))


def _lua_span(text: str, function: str) -> tuple[int, int] | None:
    head = rf"^local function {re.escape(function)}\("
    found = re.search(rf"{head}[^\n]*\bend$|{head}.*?^end$", text, re.MULTILINE | re.DOTALL)
    return found.span() if found else None


# --- running --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Copy:
    """A copy of the tree that may be broken."""

    folder: Path

    def environment(self) -> dict[str, str]:
        """Return an environment in which every Python, of child processes too, imports the copy."""
        return {
            **os.environ,
            "PYTHONPATH": str(self.folder),  # comes before the path of an editable installation
            "PYTHONDONTWRITEBYTECODE": "1",  # two edits of one second look alike to what is cached
            "FEELER_REQUIRE_ALL": "1",  # a test that is skipped notices nothing
        }

    def check(self) -> None:
        """Make sure that a child process sees the copy, wherever it is started."""
        code = "import monitor, workers; print(monitor.__file__); print(workers.__file__)"
        argv, env = [sys.executable, "-c", code], self.environment()
        told = subprocess.check_output(argv, cwd="/", env=env, text=True).split()
        if not all(Path(line).is_relative_to(self.folder) for line in told):
            raise Broken(f"child processes import {told}, not the copy in {self.folder}")

    def run(self, tests: Sequence[str], limit: float, *more: str) -> tuple[str, str]:
        """Run these tests; return "passed", "failed" or "unclear", and what they printed."""
        results = self.folder / "results.xml"
        results.unlink(missing_ok=True)
        argv = [sys.executable, "-m", "pytest", *tests, *OPTIONS, *more, "--junitxml", str(results)]
        code, output = _run(argv, self.folder, self.environment(), limit)
        if code == 0:
            return "passed", output
        sound = code == 1 and "Error compiling script" not in output
        return "failed" if sound and _has_failed(results) else "unclear", output


def _run(
    argv: list[str], folder: Path, environment: dict[str, str], limit: float
) -> tuple[int, str]:
    """Run a program for a limited time; who takes longer may still tidy up its servers."""
    with tempfile.TemporaryFile("w+") as out:
        process = subprocess.Popen(
            argv,
            cwd=folder,
            env=environment,
            stdout=out,
            stderr=out,
            start_new_session=True,
            preexec_fn=_hear_interrupts,  # noqa: PLW1509 - it takes no lock
        )
        _running.add(process)
        try:
            process.wait(limit)
        except BaseException as exc:  # Ctrl-C too
            process.send_signal(signal.SIGINT)
            process.wait(60)
            if not isinstance(exc, subprocess.TimeoutExpired):
                raise
        finally:
            _running.discard(process)
        out.seek(0)
        return process.returncode, out.read()


def _hear_interrupts() -> None:
    """In the background of a script SIGINT is ignored, and every child inherits that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _has_failed(results: Path) -> bool:
    """Tell whether a test failed by what it saw: a row is judged when it is torn down."""
    if not results.exists():
        return False
    root = ElementTree.parse(results).getroot()
    errors = (error.get("message", "") for error in root.iter("error"))
    judged = any(message.startswith("failed on teardown") for message in errors)
    return judged or root.find(".//failure") is not None


# --- all of them ----------------------------------------------------------------------------------


def run(mutants: Sequence[Mutant], root: Path) -> tuple[list[Kill], list[str]]:
    """Try each mutant in a copy of the tree; return what noticed them and what is wrong."""
    with tempfile.TemporaryDirectory(prefix="feeler-mutants-") as place:
        copies = [Copy(Path(place, str(number), "tree")) for number in range(COPIES)]
        for copy in copies:
            shutil.copytree(root, copy.folder, ignore=LEFT_OUT, symlinks=True)
            copy.check()
        if wrong := inapplicable(copies[0].folder, mutants):
            return [], wrong
        tests = list(dict.fromkeys(killer for one in mutants for killer in one.killers))
        print(
            f"{len(mutants)} mutants; first their {len(tests)} tests on the tree as it is",
            flush=True,
        )
        told, output = copies[0].run(tests, LIMIT * len(tests), *SIDE_BY_SIDE)
        if told != "passed":
            return [], [f"the tests do not pass without any mutant:\n{_end(output)}"]
        return try_all(copies, mutants)


def inapplicable(root: Path, mutants: Iterable[Mutant]) -> list[str]:
    """Name the mutants whose edit cannot be made, and why."""
    wrong = []
    for mutant in mutants:
        try:
            mutate((root / mutant.file).read_text(), mutant)
        except (Broken, OSError) as exc:
            wrong.append(f"{mutant.name}: {exc}")
    return wrong


def try_all(copies: Sequence[Copy], mutants: Iterable[Mutant]) -> tuple[list[Kill], list[str]]:
    """Break the copies, each by one mutant after the other; its tests must fail."""
    idle = queue.SimpleQueue[Copy]()
    for copy in copies:
        idle.put(copy)

    def attempt(mutant: Mutant) -> tuple[list[Kill], list[str]]:
        copy = idle.get()
        try:
            return _try(copy, mutant)
        finally:
            idle.put(copy)

    with ThreadPoolExecutor(len(copies)) as pool:
        tried = [pool.submit(attempt, mutant) for mutant in mutants]
        try:
            told = [one.result() for one in tried]
        except BaseException:  # Ctrl-C: the servers of the tests must not stay
            pool.shutdown(wait=False, cancel_futures=True)
            for process in tuple(_running):
                process.send_signal(signal.SIGINT)
            raise
    return [kill for kills, _ in told for kill in kills], [
        line for _, wrong in told for line in wrong
    ]


def _try(copy: Copy, mutant: Mutant) -> tuple[list[Kill], list[str]]:
    kills, wrong = [], list[str]()
    path = copy.folder / mutant.file
    text = path.read_text()
    path.write_text(mutate(text, mutant))
    for killer in mutant.killers:
        began = time.monotonic()
        told, output = copy.run([killer], LIMIT)
        seconds = time.monotonic() - began
        print(f"{mutant.name}: {killer} {told} after {seconds:.1f} s", flush=True)
        if told == "failed":
            kills.append(Kill(mutant, killer, seconds))
        else:
            wrong.append(
                f"{mutant.name}: {killer} {told}\n{_end(output) if told == 'unclear' else ''}"
            )
    path.write_text(text)
    return kills, wrong


def _end(output: str) -> str:
    return "\n".join(output.splitlines()[-TELL:])


def section(kills: Sequence[Kill]) -> str:
    """Return the part of docs/faults.md that tells of this run."""
    count = len({kill.mutant.name for kill in kills})
    parts = [report.MUTANTS + report.MUTANTS_HEAD.format(count=count, machine=report.machine())]
    for kill in kills:
        mutant = kill.mutant
        where = f"`{Path(mutant.file).name}` {mutant.function}".strip()
        before, after = _code(mutant.before), _code(mutant.after)
        edit = f"{before} becomes {after}" if mutant.after else f"no {before}"
        noticed = f"{Path(kill.killer.partition('::')[0]).stem}: {kill.killer.rpartition('::')[2]}"
        parts.append(f"| {mutant.name} | {where} | {edit} | {noticed} ({kill.seconds:.0f} s) |\n")
    return "".join(parts)


def _code(text: str) -> str:
    """Return one line of code for a cell of a table."""
    return f"`{' '.join(text.split())}`".replace("|", "\\|")


def chosen(names: Sequence[str]) -> list[Mutant]:
    """Return the mutants of these names, all of them where none is named."""
    known = {mutant.name: mutant for mutant in MUTANTS}
    if unknown := [name for name in names if name not in known]:
        raise SystemExit(f"no mutant {', '.join(unknown)}; there are {', '.join(known)}")
    return [known[name] for name in names] or list(MUTANTS)


def main() -> None:
    """Run all mutants and write the table, or run some and only tell."""
    # or the servers of a test would stay
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))
    parser = argparse.ArgumentParser(prog="./run faults --mutants")
    told = "mutants to run (default: all, then write the table)"
    parser.add_argument("names", nargs="*", metavar="NAME", help=told)
    names = parser.parse_args().names
    kills, wrong = run(chosen(names), ROOT)
    if wrong:
        sys.exit("\n".join([f"{len(wrong)} wrong:", *wrong]))
    table = section(kills)
    print(table)
    if not names:
        DOCUMENT.write_text(report.with_mutants(DOCUMENT.read_text(), table))


if __name__ == "__main__":
    main()
