"""What goes wrong again and again: told when it begins and when it is over, not each time."""

import logging

import pytest

from workers import troubles
from workers.troubles import Trouble


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(troubles.time, "monotonic", lambda: now[0])
    return now


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [one.getMessage().removeprefix("action=") for one in caplog.records]


def test_it_is_told_once_and_its_end_with_how_often(
    clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    trouble = Trouble("record")
    trouble.worked()
    for _ in range(77):
        trouble.failed("redis:cannot_persist")
        clock[0] += 0.3
    trouble.failed("redis:timeout")
    clock[0] += troubles.CALM
    trouble.worked()
    trouble.worked()
    assert told(caplog) == [
        "step_failing step=record trouble=redis:cannot_persist",
        "step_failing step=record trouble=redis:timeout",
        "step_recovered step=record failures=78",
    ]


def test_what_comes_and_goes_is_one_trouble(
    clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    trouble = Trouble("record")
    for _ in range(50):
        trouble.failed("redis:out_of_memory")
        clock[0] += 1
        trouble.worked()
    assert told(caplog) == ["step_failing step=record trouble=redis:out_of_memory"]


def test_it_is_told_again_when_it_comes_back(
    clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    trouble = Trouble("sweep")
    for _ in range(2):
        trouble.failed("redis:timeout")
        clock[0] += troubles.CALM
        trouble.worked()
    assert [line.split()[0] for line in told(caplog)] == ["step_failing", "step_recovered"] * 2
