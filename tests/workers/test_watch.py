"""How a watch is timed."""

from dataclasses import dataclass, replace

import pytest

from monitor.core.cause import Cause
from monitor.core.policy import Policy
from monitor.core.status import State, Status
from monitor.feeler.login_queue import Urgency
from monitor.feeler.session import FeelNotes
from workers.worker.watch import UnreadableAddress, Watch, login_interval, slow_due, urgency


@dataclass(frozen=True)
class Crowded(UnreadableAddress):
    """A session among so many at its server."""

    neighbours: int = 1


def watch(neighbours: int = 1) -> Watch:
    session = Crowded("orders", "w1", 1, lambda: 0.0, neighbours=neighbours)
    return Watch("orders", "", Policy(), 1, session)


def test_logins_are_proved_each_minute() -> None:
    assert login_interval(watch(), owned=1, workers=1) == 60
    assert login_interval(watch(), owned=700, workers=50) == 60


def test_no_server_is_asked_for_more_than_one_login_a_second() -> None:
    assert login_interval(watch(neighbours=60), owned=60, workers=1) == 60
    assert login_interval(watch(neighbours=100), owned=100, workers=2) == 200


def test_no_worker_spends_more_than_a_twentieth_on_proving_logins() -> None:
    assert login_interval(watch(), owned=10_000, workers=1) == 800


@pytest.mark.parametrize(
    ("status", "wanted"),
    [
        (Status(State.AVAILABLE), Urgency.DUE),
        (Status(State.AVAILABLE, alive=Cause.LOGIN_FAILING), Urgency.UNDECIDED),
        (Status(State.UNCERTAIN), Urgency.UNDECIDED),
        (Status(State.REFUSING), Urgency.REPEATED),
        (replace(Status(State.REFUSING), alive=Cause.WRONG_PASSWORD), Urgency.UNDECIDED),
    ],
)
def test_what_is_undecided_comes_first(status: Status, wanted: Urgency) -> None:
    assert urgency(status) is wanted


@pytest.mark.parametrize(
    ("notes", "due"),
    [
        (FeelNotes(slow_complete=True, slow_seconds=0.01), 160.0),
        (FeelNotes(slow_complete=True, slow_seconds=1.0), 300.0),
        (FeelNotes(), 100.0),
        (FeelNotes(slow_seconds=0.5), 200.0),
    ],
)
def test_slow_gauges_that_found_no_time_are_asked_again_soon_but_never_for_more_than_their_share(
    notes: FeelNotes, due: float
) -> None:
    assert slow_due(watch(), notes, began=100.0) == due
