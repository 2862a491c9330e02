"""The first minute of `feeler up`, beside its processes: it registers the databases it was given,
says where the web is, and waits for the first observation.

Only `monitor.local.up` imports it. It speaks to the web as any client does.
"""

import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from monitor.config import Settings
from monitor.core.errors import FeelerError
from monitor.local.processes import say
from monitor.terminal.client import Client, Refused
from monitor.terminal.values import state_words

OURSELVES = "feeler-metadata"
FIRST_PAUSE, LAST_PAUSE = 0.1, 2.0  # seconds between two questions, ever longer
SAID_AFTER = 60.0  # seconds after which it says that nothing has come yet


@dataclass(frozen=True, slots=True)
class FirstRun:
    """What to register, where, and since when to count."""

    settings: Settings
    databases: Mapping[str, str]
    began: float  # monotonic
    began_at: float  # by the wall clock
    new_token: bool  # made at this start: only now is it shown

    def run(self) -> None:
        """Do it all; meant for a thread that may be cut off at any point."""
        with Client(self.settings) as client:
            known = self._await_web(client)
            self._say_where()
            self._register_all(client, known)
            if holder := _holder(client):
                say("up", f"nothing is watched: {holder}")
                return
            self._await_observation(client)
        if not self.databases and set(known) <= {OURSELVES}:
            hint = "add yours: feeler db add NAME - (it asks for the URL)"
            say("up", f"feeler watches its own registry; {hint}")

    def _await_web(self, client: Client) -> dict[str, int]:
        """Return name and revision of each registered database, as soon as the web knows."""
        for pause in _pauses():
            try:
                return {row["name"]: row["revision"] for row in client.databases()}
            except FeelerError:
                time.sleep(pause)
        raise AssertionError("pauses never end")

    def _say_where(self) -> None:
        token = f"FEELER_TOKEN={self.settings.token}\n" if self.new_token else ""
        sys.stdout.write(f"{self.settings.url}/last_observation\n{token}")
        sys.stdout.flush()

    def _register_all(self, client: Client, known: Mapping[str, int]) -> None:
        """Register what was given; in a fleet of nothing at all, our own Postgres."""
        wanted = dict(self.databases)
        if not wanted and not known:
            wanted = {OURSELVES: self.settings.database_url}
        for name, url in wanted.items():
            try:
                _register(client, name, url, known)
            except FeelerError as error:
                say("up", f"{name} was not registered: {error}")

    def _await_observation(self, client: Client) -> None:
        said = False
        for pause in _pauses():
            seen = self._seen(client)
            waited = time.monotonic() - self.began
            if seen:
                say("up", f"first observation {waited:.1f} s after the start: {seen}")
                return
            if not said and waited > SAID_AFTER:
                said = True
                where = "the lines of supervisor and worker say why"
                say("up", f"no observation after {SAID_AFTER:.0f} s; {where}")
            time.sleep(pause)

    def _seen(self, client: Client) -> str:
        """Return a database seen since we began, and its state; the first page is enough."""
        try:
            page = next(client.observations(list(self.databases), []))
        except Refused:
            return ""
        for item in page["data"]:
            seen = item["observation"]
            if seen and datetime.fromisoformat(seen["observed_at"]).timestamp() >= self.began_at:
                return f"{item['database']['name']} is {state_words(item['state'])}"
        return ""


def _register(client: Client, name: str, url: str, known: Mapping[str, int]) -> None:
    if name not in known:
        client.add(name, url, labels={}, policy="default", zone="")
        say("up", f"registered {name}")
    elif client.change_url(name, url)["revision"] != known[name]:
        say("up", f"{name} has a new address or password, which is taken from now on")


def _holder(client: Client) -> str:
    """Return what /readyz says of the Redis we were given where another registry holds it."""
    try:
        return client.trouble().get("registry", "")
    except FeelerError:
        return ""


def _pauses() -> Iterator[float]:
    pause = FIRST_PAUSE
    while True:
        yield pause
        pause = min(pause * 1.1, LAST_PAUSE)
