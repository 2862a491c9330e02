"""docs/faults.md from a run: each row, its demand, what was seen. For the conftest alone."""

import ast
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SUBJECTS = {  # the file of a row -> its heading
    "test_processes": "Workers and leaders",
    "test_redis": "Redis",
    "test_metadata": "The metadata Postgres",
    "test_network": "The network",
    "test_names": "Host names",
    "test_targets": "Databases that are watched",
    "test_hostile_targets": "Hostile and dying fleets",
    "test_messages": "RQ messages",
    "test_logins": "Logins",
    "test_storms": "Many logins at once",
    "test_poolers": "Poolers",
    "test_web": "The web",
    "test_versions": "Beside another version",
    "test_clocks": "Clocks",
    "test_nemesis": "At random",
}
HEAD = """# What feeler stands up to

Made by `./run faults` from a run of the rows below: real Postgres and Redis servers, real
processes, killed, frozen and cut off for real. Do not edit. A row changed since the last whole
run has figures of a run of its own; all were seen on {machine}; machines differ, the bounds do
not.

After every row the whole history of the run is judged (`tests/faults/history.py`): no false
`unavailable`; versions 1..n of each database without a gap, ending in what the cache says;
nothing accepted is lost or doubled, no identity has two contents; epochs and terms never fall, no
write of an older epoch after a newer one; the sequence of rules is the one the faults demand;
every outage that outlasts its bound is called in time, as far as no fault of ours is in the way;
whoever writes owns what it writes, and no observation gives way to an older one; nobody writes
about a retired database, and nobody is connected where none lives any more; at most 2 connections
per database; the workers' loops stand still for 250 ms at most; no password anywhere. Record
calls captured before the fault are sent again after it, those of an epoch that is over as the
newest batch of all: told `fenced` or `closed`, counted, the hash untouched.
`./run faults --random --seed S --minutes M` draws faults at random, overlapping, and judges the
same.
"""
MUTANTS = "\n## Broken on purpose"
MUTANTS_HEAD = """
Made by `./run faults --mutants` on {machine}: each of {count} edits breaks the product in a copy
of the tree, and the tests and rows beside it, which pass without the edit, fail.
| mutant | where | the edit | what failed |
|---|---|---|---|
"""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the matrix; `figures` are of the run."""

    subject: str
    fault: str
    required: str
    figures: tuple[str, ...] = field(default=())


def defined() -> list[Row]:
    """Return the rows the tests define, in their order, without figures."""
    rows = []
    for stem in SUBJECTS:
        path = HERE / f"{stem}.py"
        for node in ast.walk(ast.parse(path.read_text())) if path.exists() else ():
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.row":
                fault, required = (ast.literal_eval(argument) for argument in node.args)
                rows.append(Row(stem, fault, required))
    return rows


def render(rows: Iterable[Row], waiting: Mapping[str, str], machine: str) -> str:
    """Return the document."""
    by_subject: dict[str, list[Row]] = {subject: [] for subject in SUBJECTS}
    for row in rows:
        by_subject[row.subject].append(row)
    parts = [HEAD.format(machine=machine)]
    for subject, its in by_subject.items():
        if its:
            parts.append(
                f"\n## {SUBJECTS[subject]}\n| fault | what must hold | seen |\n|---|---|---|\n"
            )
            parts += [
                f"| {row.fault} | {row.required} | {'; '.join(row.figures) or 'held'} |\n"
                for row in its
            ]
    parts.append("\n## Not here\n| fault | why |\n|---|---|\n")
    parts += [f"| {fault} | {why} |\n" for fault, why in waiting.items()]
    return "".join(parts)


def without_mutants(document: str) -> str:
    """Return the document's rows."""
    return document.partition(MUTANTS)[0]


def with_mutants(document: str, section: str) -> str:
    """Return the document with another section of mutants, the last one."""
    return without_mutants(document) + section


def mutants_of(document: str) -> str:
    """Return the section of mutants, '' where there is none."""
    _, heading, table = document.partition(MUTANTS)
    return heading + table


def is_row(report: Any) -> bool:
    """Tell whether this is the report of a row."""
    return any(
        name == "row" for name, _ in getattr(report, "user_properties", ())
    )  # collecting has none


def gathered(reports: Sequence[Any]) -> list[Row]:
    """Return the rows of a run, figures of a row's variants put together."""
    figures: dict[tuple[str, str], list[str]] = {}
    for report in reports:
        said = dict.fromkeys(value for name, value in report.user_properties if name == "figure")
        for name, value in report.user_properties:
            if name == "row":
                figures.setdefault(tuple(value), []).extend(said)
    seen = {key: tuple(dict.fromkeys(texts)) for key, texts in figures.items()}
    held = [row for row in defined() if (row.fault, row.required) in seen]
    return [replace(row, figures=seen[row.fault, row.required]) for row in held]


def machine() -> str:
    """Name the kind of machine, not the machine."""
    system = f"{platform.system()} {platform.machine()}"
    return f"{os.cpu_count()} cores, {system}, Python {platform.python_version()}"
