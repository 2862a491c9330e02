"""ARCHITECTURE.md shows the machine as it is."""

import re
from pathlib import Path

from monitor.core.machine import STEADY, TRANSITIONS, diagram

DOCUMENT = Path(__file__).parents[1] / "ARCHITECTURE.md"


def test_the_diagram_in_the_document_is_the_table():
    blocks = re.findall(r"```mermaid\n(.*?)\n```", DOCUMENT.read_text(), re.DOTALL)
    assert diagram() in blocks, "paste monitor.core.machine.diagram() into ARCHITECTURE.md"


def test_the_diagram_draws_every_rule_from_every_source():
    edges = re.findall(r"^    (\w+) --> (\w+): (.+)$", diagram(), re.MULTILINE)
    for rule in TRANSITIONS:
        for source in rule.sources:
            drawn = {
                target
                for origin, target, names in edges
                if origin == source and rule.name in names.split(", ")
            }
            assert drawn == ({rule.targets[0].value} if len(rule.targets) == 1 else {rule.name})
    choice = {target for origin, target, _ in edges if origin == "answered"}
    assert choice == {"starting", "refusing", "locked_out"}


def test_the_table_of_rules_is_the_machines():
    rows = re.findall(r"^\| (\w+) \| (.+) \|$", DOCUMENT.read_text(), re.MULTILINE)
    assert rows[1:] == [(rule.name, rule.when) for rule in (*TRANSITIONS, STEADY)]
