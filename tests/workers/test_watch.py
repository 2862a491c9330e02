"""How a watch is timed."""

from dataclasses import dataclass, replace

import pytest

from monitor.core.cause import Cause
from monitor.core.policy import Policy
from monitor.core.status import State, Status
from monitor.feeler.proofs import Urgency
from workers.worker.watch import UnreadableAddress, Watch, login_interval, urgency


@dataclass(frozen=True)
class Crowded(UnreadableAddress):
    """A session among so many at its server."""

    neighbours: int = 1


def watch(neighbours: int = 1) -> Watch:
    return Watch("orders", "", Policy(), 1, Crowded(lambda: 0.0, neighbours=neighbours))


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
