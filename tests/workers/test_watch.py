"""How urgently a watch wants its login."""

from dataclasses import replace

import pytest

from monitor.core.cause import Cause
from monitor.core.status import State, Status
from monitor.feeler.login_queue import Urgency
from workers.worker.watch import urgency


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
