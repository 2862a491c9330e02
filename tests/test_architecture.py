"""ARCHITECTURE.md shows the machine as it is."""

import re
from pathlib import Path

from monitor.core.machine import STEADY, TRANSITIONS, diagram

DOCUMENT = Path(__file__).parents[1] / "ARCHITECTURE.md"


def test_the_diagram_in_the_document_is_the_table():
    blocks = re.findall(r"```mermaid\n(.*?)\n```", DOCUMENT.read_text(), re.DOTALL)
    assert diagram() in blocks, "paste monitor.core.machine.diagram() into ARCHITECTURE.md"


def test_the_diagram_draws_every_rule_from_every_source():
    lines = diagram().splitlines()
    for rule in TRANSITIONS:
        [line] = [line for line in lines if re.search(rf"\b{rule.name}\b", line)]
        sources, _, target = line.strip().partition(" --")
        assert sources.split(" & ") == [str(state) for state in rule.sources]
        if len(rule.targets) == 1:
            assert target == f" {rule.name} --> {rule.targets[0]}"
    assert "    choice --> starting & refusing & locked_out" in lines


def test_the_table_of_rules_is_the_machines():
    rows = re.findall(r"^\| (\w+) \| (.+) \|$", DOCUMENT.read_text(), re.MULTILINE)
    assert rows[0] == ("rule", "when")
    assert rows[1:] == [(rule.name, rule.when) for rule in (*TRANSITIONS, STEADY)]
