"""The run of mutants: what does not apply, survives or cannot run is a failure of it."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from tests.faults import mutating
from tests.faults.mutants import MUTANTS, Mutant
from tests.faults.mutating import Broken, Copy, mutate

TESTS = "tests/test_scale.py"
PRODUCT = """
class Scale:
    def heavier(self, a, b):
        return a > b

    def lighter(self, a, b):
        return a < b
"""
LUA = """
local function tally(what, by) counts[what] = by end

local function record(key)
  if key then
    return 1
  end
  return 0
end
return record(KEYS[1])
"""
CHECKS = '''
from monitor.scale import Scale


def test_weights():
    assert Scale().heavier(2, 1)


def test_nothing():
    """Looks away."""


def test_at_the_end(weigh):
    """Is judged when it is over."""


def test_breaks_before(broken):
    """Never begins."""
'''
FIXTURES = """
import pytest
from monitor.scale import Scale


def pytest_addoption(parser):
    parser.addoption("--all-rows", action="store_true")
    parser.addoption("--minutes")


@pytest.fixture
def weigh():
    yield
    assert Scale().heavier(2, 1)


@pytest.fixture
def broken():
    assert Scale().heavier(2, 1)
"""


def mutant(killer: str = "test_weights", **changes: str) -> Mutant:
    fields = {"file": "monitor/scale.py", "function": "Scale.heavier"}
    fields |= {"before": "a > b", "after": "a < b"}
    return Mutant("swapped", killers=(f"{TESTS}::{killer}",), **(fields | changes))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A product of one module and its tests."""
    files = {
        "monitor/__init__.py": "",
        "workers/__init__.py": "",
        "monitor/scale.py": PRODUCT,
        "tests/conftest.py": FIXTURES,
        "tests/test_scale.py": CHECKS,
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_the_edit_is_made_within_the_function_alone() -> None:
    edited = mutate(PRODUCT, mutant(function="Scale.lighter", before="return", after="return not"))
    assert edited == PRODUCT.replace("return a < b", "return not a < b")
    lua = partial(mutant, file="record.lua")
    edited = mutate(LUA, lua(function="record", before="return 1", after="return 2"))
    assert edited == LUA.replace("return 1", "return 2")
    edited = mutate(LUA, lua(function="tally", before="by end", after="1 end"))
    assert edited == LUA.replace("= by", "= 1")


@pytest.mark.parametrize(
    "changes",
    [
        {"before": "a >= b"},
        {"before": "a"},
        {"function": "Scale.equal"},
        {"function": "heavier"},
        {"after": "a >"},
        {"file": "record.lua", "function": "count", "before": "1"},
    ],
)
def test_an_edit_that_does_not_apply_is_refused(changes: dict[str, str]) -> None:
    with pytest.raises(Broken):
        mutate(LUA if "file" in changes else PRODUCT, mutant(**changes))


def test_a_mutant_that_is_noticed_is_a_kill_and_the_tree_stays_as_it_was(tree: Path) -> None:
    killers = (f"{TESTS}::test_weights", f"{TESTS}::test_at_the_end")
    kills, wrong = mutating.run([replace(mutant(), killers=killers)], tree)
    assert not wrong
    assert len(kills) == 2
    assert (tree / "monitor" / "scale.py").read_text() == PRODUCT
    row = "| swapped | `scale.py` Scale.heavier | `a > b` becomes `a < b` |"
    assert row in mutating.section(kills)


def test_a_survivor_and_tests_that_could_not_be_run_fail_the_run(tree: Path) -> None:
    survivor = mutant("test_nothing")
    set_up = mutant("test_breaks_before")
    imported = mutant(function="", before="class Scale", after="class Weight")
    kills, wrong = mutating.run([survivor, set_up, imported], tree)
    assert not kills
    verdicts = [text.splitlines()[0].rpartition(" ")[2] for text in wrong]
    assert verdicts == ["passed", "unclear", "unclear"]


@pytest.mark.parametrize(
    ("one", "told"),
    [
        (mutant(before="a = b"), "stands 0 times"),
        (mutant(file="monitor/gone.py"), "gone.py"),
        (mutant("test_gone"), "do not pass without any mutant"),
    ],
)
def test_no_mutant_is_tried_where_one_proves_nothing(tree: Path, one: Mutant, told: str) -> None:
    kills, wrong = mutating.run([one], tree)
    assert not kills
    assert told in wrong[0]


def test_a_test_that_never_ends_is_no_verdict(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mutating, "LIMIT", 3.0)
    endless = mutant(before="return a > b", after="while a < b or a > b: pass")
    kills, wrong = mutating.try_all([Copy(tree)], [endless])
    assert not kills
    assert "unclear" in wrong[0]


def test_every_mutant_applies_and_has_a_name_of_its_own() -> None:
    assert len({one.name for one in MUTANTS}) == len(MUTANTS)
    assert all(one.killers for one in MUTANTS)
    assert not mutating.inapplicable(mutating.ROOT, MUTANTS)


def test_every_mutant_names_tests_that_there_are() -> None:
    named = [killer.partition("[")[0].partition("::") for one in MUTANTS for killer in one.killers]
    texts = {path: (mutating.ROOT / path).read_text() for path, _, _ in named}
    assert not [name for path, _, name in named if f"def {name}(" not in texts[path]]


def test_a_mutant_nobody_knows_is_told_with_those_there_are() -> None:
    assert mutating.chosen([]) == list(MUTANTS)
    assert mutating.chosen([MUTANTS[0].name]) == [MUTANTS[0]]
    with pytest.raises(SystemExit, match=MUTANTS[0].name):
        mutating.chosen(["no such"])
