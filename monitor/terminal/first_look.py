"""What the first look at a new address found, for whoever has just given it.

Nothing is probed from here: the answer is that of the worker that watches, from where it
stands. Only cli.py imports this.
"""

import time

from monitor.core.cause import Cause
from monitor.core.errors import FeelerError
from monitor.shapes import LastObservationShape, RegisteredShape
from monitor.terminal.client import Client
from monitor.terminal.values import clean

TIME_LIMIT = 10.0  # seconds
PAUSE = 0.1  # seconds between two questions


def await_first_look(client: Client, registered: RegisteredShape) -> str:
    """Wait until a worker has looked at the address as registered now; return what came of it."""
    name, revision = registered["name"], registered["revision"]
    began = time.monotonic()
    while True:
        why = "no worker has looked at it yet"
        answer = None
        try:
            answer = client.observation(name)
        except FeelerError as error:
            why = clean(str(error))
        took = time.monotonic() - began
        if answer and _is_about(answer, revision):
            return _outcome(answer, took)
        if took > TIME_LIMIT:
            unseen = f"registered, and not seen after {took:.0f} s ({why})"
            return f"{unseen}. `feeler info {name}` will tell"
        time.sleep(PAUSE)


def _is_about(answer: LastObservationShape, revision: int) -> bool:
    """Say whether the newest look was at this revision's address, and the state comes of it."""
    reason = answer["reason"]
    if not reason or reason.get("revision", 0) < revision:
        return False
    return reason["code"] != Cause.OK or answer["state"] == "available"


def _outcome(answer: LastObservationShape, took: float) -> str:
    reason = answer["reason"]
    assert reason
    if reason["code"] == Cause.OK:
        return f"{answer['state']} in {took:.1f} s"
    said = ": ".join(filter(None, (reason["code"], reason["detail"])))
    return clean(f"{said}. {reason['advice']}")
