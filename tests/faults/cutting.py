"""Rules of iptables that cut, refuse or thin out packets of this machine to itself. Needs root.

Each rule carries a comment of its own and goes with its block; no other rule is ever touched.
"""

import functools
import itertools
import os
import shutil
import subprocess
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from tests.faults.groups import new_group

_numbers = itertools.count(1)
DROP = ("-j", "DROP")
RESET = ("-j", "REJECT", "--reject-with", "tcp-reset")
PORT_UNREACHABLE = ("-j", "REJECT", "--reject-with", "icmp-port-unreachable")
HOST_UNREACHABLE = ("-j", "REJECT", "--reject-with", "icmp-host-unreachable")


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule in place."""

    chain: str
    words: tuple[str, ...]
    comment: str

    def packets(self) -> int:
        """Return how many packets it has met so far."""
        rows = _iptables("-L", self.chain, "-v", "-x", "-n").splitlines()
        return sum(int(row.split()[0]) for row in rows if f"/* {self.comment} */" in row)


_in_place: list[Rule] = []


@functools.cache
def why_not() -> str:
    """Say why packets cannot be cut here, "" where they can."""
    if os.geteuid() != 0 or not shutil.which("iptables"):
        return "cutting needs root and iptables"
    group = new_group()
    if group is None:
        return "cutting needs control groups of version 2"
    try:
        with cut_off(group.path, [1]):
            return ""
    except subprocess.CalledProcessError as error:
        return f"iptables cannot match control groups here: {error.stderr.strip()}"
    finally:
        group.remove()


@contextmanager
def cut_off(group: str, ports: Collection[int]) -> Iterator[Rule]:
    """Let nothing a control group sends reach any of these ports."""
    to = ("-m", "multiport", "--dports", ",".join(map(str, ports)))
    by = ("-m", "cgroup", "--path", group)
    with _rule("OUTPUT", "-o", "lo", "-p", "tcp", *by, *to, *DROP) as rule:
        yield rule


@contextmanager
def closed(port: int, answer: Sequence[str]) -> Iterator[Rule]:
    """Answer for a port: with silence, a reset or a message that it cannot be reached."""
    with _rule("INPUT", "-i", "lo", "-p", "tcp", "--dport", str(port), *answer) as rule:
        yield rule


@contextmanager
def lossy(ports: Sequence[int], share: float) -> Iterator[list[Rule]]:
    """Lose this share of all packets to and from some ports."""
    chance = ("-m", "statistic", "--mode", "random", "--probability", str(share))
    sides = [(side, str(port)) for port in ports for side in ("--dport", "--sport")]
    rules = [_rule("INPUT", "-i", "lo", "-p", "tcp", *side, *chance, *DROP) for side in sides]
    with ExitStack() as stack:
        yield [stack.enter_context(rule) for rule in rules]


@contextmanager
def _rule(chain: str, *words: str) -> Iterator[Rule]:
    """Put a rule in place for as long as the block lasts."""
    comment = f"feeler-tests-{os.getpid()}-{next(_numbers)}"
    rule = Rule(chain, (*words, "-m", "comment", "--comment", comment), comment)
    _iptables("-I", chain, *rule.words)
    _in_place.append(rule)
    try:
        yield rule
    finally:
        _remove(rule)


def clear() -> None:
    """Remove the rules of blocks that were never left: a test that ran out of time unwinds late."""
    for rule in list(_in_place):
        _remove(rule)


def _remove(rule: Rule) -> None:
    if rule in _in_place:
        _in_place.remove(rule)
        _iptables("-D", rule.chain, *rule.words)


def _iptables(*words: str) -> str:
    done = subprocess.run(
        ["iptables", "-w", "10", *words], check=True, capture_output=True, text=True
    )
    return done.stdout
