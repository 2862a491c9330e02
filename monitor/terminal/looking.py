"""What the first look at a new address found, for whoever has just given it. Only cli.py imports
this.

Nothing is probed from here: the answer is that of the worker that watches, from where it stands.
"""

import time

from monitor.core.cause import Cause
from monitor.core.errors import FeelerError
from monitor.shapes import LastObservationShape, RegisteredShape
from monitor.terminal.client import Client
from monitor.terminal.rendering import clean

PATIENCE = 10.0  # seconds
PAUSE = 0.1


def first_look(client: Client, registered: RegisteredShape) -> str:
    """Wait until a worker has looked at the address as it is registered now; return what came of
    it.
    """
    began, name = time.monotonic(), registered["name"]
    while True:
        try:
            answer = client.observation(name)
        except FeelerError as error:
            answer, why = None, str(error)
        else:
            why = "no worker has looked at it yet"
        took = time.monotonic() - began
        if answer and _is_about(answer, registered["revision"]):
            return _told(answer, took)
        if took > PATIENCE:
            return f"registered, and not seen after {took:.0f} s ({clean(why)}). `feeler info {name}` will tell"
        time.sleep(PAUSE)


def _is_about(answer: LastObservationShape, revision: int) -> bool:
    """Say whether the newest look was at the address of this revision, and the state is what came
    of it.
    """
    reason = answer["reason"]
    if not reason or reason.get("revision", 0) < revision:
        return False
    return reason["code"] != Cause.OK or answer["state"] == "available"


def _told(answer: LastObservationShape, took: float) -> str:
    reason = answer["reason"]
    assert reason
    if reason["code"] == Cause.OK:
        return f"{answer['state']} in {took:.1f} s"
    words = ": ".join(filter(None, (reason["code"], reason["detail"])))
    return clean(f"{words}. {reason['advice']}")
