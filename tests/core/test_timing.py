"""The seconds of the protocol relate as the protocol needs, and a relation that breaks is told."""

import re
from pathlib import Path

import pytest

from monitor.core import timing
from monitor.core.policy import Policy

SCRIPTS = Path(__file__).parents[2] / "monitor" / "live" / "scripts"


def test_all_relations_hold():
    assert timing.broken() == []


@pytest.mark.parametrize(
    ("name", "seconds", "why"),
    [
        ("PRESENCE_TTL", 4.0, "fence itself"),
        ("PRESENCE_TTL", 70.0, "no twin"),
        ("ANNOUNCE_EVERY", 3.5, "one lost announcement"),
        ("FREEZE", 6.0, "fence itself"),
        ("FREEZE", 0.3, "doubting oneself"),
        ("ABSENCE_GRACE", 0.0, "come back"),
        ("ABSENCE_GRACE", 8.0, "dies with Redis"),
        ("RESTORE_GRACE", 1.0, "restore"),
        ("LEASE", 5.0, "lost renewals"),
        ("LED_MARK", 10, "as if nobody led"),
        ("STOP_GRACE", 5.0, "must not be killed"),
        ("DURABLE_REMEMBERED", 60.0, "replayed"),
        ("REFUSED_FOR", 15.0, "who raised it"),
        ("UNPROVEN_FOR", 10.0, "missed before"),
    ],
)
def test_a_broken_relation_is_told(monkeypatch, name, seconds, why):
    monkeypatch.setattr(timing, name, seconds)
    assert any(why in told for told in timing.broken())


def test_the_default_policy_fits_the_protocol():
    policy = Policy()
    assert policy.alone_seconds > timing.LED_MARK
    assert policy.handover_grace + policy.silent_seconds <= timing.MOVE_AGAIN
    assert policy.deadline + policy.opinion_grace < timing.CLOCK_STEP
    assert policy.stale_after < timing.UNPROVEN_FOR


def test_scripts_know_the_same_seconds():
    told = re.search(r"local CLOCK_STEP = ([0-9.]+)", (SCRIPTS / "record.lua").read_text())
    assert told
    assert float(told[1]) == timing.CLOCK_STEP
