"""docs/faults.md tells of the rows there are; turns keep those apart that must be alone."""

import threading
from pathlib import Path

from tests.faults import report
from tests.faults.report import Row
from tests.faults.turns import Turns
from tests.faults.waiting import WAITING

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "faults.md"


def lines(text: str) -> list[tuple[str, ...]]:
    """Return the first two columns of every table row."""
    lines = report.without_mutants(text).splitlines()
    rows = [line.strip("|").split("|") for line in lines if line.startswith("| ")]
    return [tuple(cell.strip() for cell in row[:2]) for row in rows if row[0].strip() != "fault"]


def test_the_document_lists_every_row_and_no_other() -> None:
    wanted = [(row.fault, row.required) for row in report.defined()] + list(WAITING.items())
    assert sorted(lines(DOCUMENT.read_text())) == sorted(wanted)


def test_every_row_has_a_subject_and_a_text_of_its_own() -> None:
    rows = report.defined()
    assert len({(row.fault, row.required) for row in rows}) == len(rows)
    paths = report.HERE.glob("test_*.py")
    files = {path.stem for path in paths if "pytest.mark.row" in path.read_text()}
    assert files - {"test_report"} == set(report.SUBJECTS)
    assert not [row for row in rows if "|" in row.fault + row.required]


def test_figures_of_a_rows_variants_come_together() -> None:
    row = report.defined()[0]

    class Report:
        def __init__(self, figure: str) -> None:
            self.user_properties = [("figure", figure), ("row", (row.fault, row.required))]

    one, two = "away 1.00 s", "away 2.00 s"
    (found,) = report.gathered([Report(one), Report(two), Report(one)])
    assert found == Row(row.subject, row.fault, row.required, (one, two))
    told = lines(report.render([found], {"a": "b"}, "2 cores"))
    assert told == [(row.fault, row.required), ("a", "b")]


def test_rows_and_mutants_leave_each_others_tables_alone() -> None:
    document = report.render(report.defined()[:1], {"a": "b"}, "2 cores")
    head = report.MUTANTS_HEAD.format(count=1, machine="2 cores")
    section = f"{report.MUTANTS}{head}| m | `x.py` f | no `y` | test: z (1 s) |\n"
    both = report.with_mutants(report.with_mutants(document, section), section)
    assert both == document + section
    assert (report.without_mutants(both), report.mutants_of(both)) == (document, section)
    assert report.with_mutants(document, report.mutants_of(document)) == document


def test_whoever_is_alone_waits_for_the_others_and_they_for_it(tmp_path: Path) -> None:
    alone, release, order = threading.Event(), threading.Event(), list[str]()

    def lonely() -> None:
        with Turns(tmp_path).take(alone=True):
            order.append("alone")
            alone.set()
            release.wait(5)
            order.append("done")

    def company() -> None:
        with Turns(tmp_path).take(alone=False):
            order.append("together")

    with Turns(tmp_path).take(alone=False), Turns(tmp_path).take(alone=False):
        first = threading.Thread(target=lonely)
        first.start()
        assert not alone.wait(0.2)
    assert alone.wait(5)
    second = threading.Thread(target=company)
    second.start()
    second.join(0.2)
    assert order == ["alone"]
    release.set()
    for thread in (first, second):
        thread.join(5)
    assert order == ["alone", "done", "together"]
