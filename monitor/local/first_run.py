"""The first minute of `feeler up`, beside its processes: registers databases, waits for the first
observation, says so.

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

OURSELVES = "feeler-metadata"
FIRST_PAUSE, LAST_PAUSE = 0.1, 2.0  # seconds between two questions, ever longer
PATIENCE = 60.0  # seconds after which it says that nothing has come yet


@dataclass(frozen=True, slots=True)
class Welcome:
    """What to register, where, and since when to count."""

    settings: Settings
    databases: Mapping[str, str]
    began: float
    began_at: float
    new_token: bool  # made at this start: only now is it shown

    def run(self) -> None:
        """Do it all; meant for a thread that may be cut off at any point."""
        with Client(self.settings) as client:
            known = self._await_web(client)
            self._say_where()
            wanted = self.databases or ({} if known else {OURSELVES: self.settings.database_url})
            for name, url in wanted.items():
                try:
                    self._register(client, name, url, known)
                except FeelerError as error:
                    say("up", f"{name} was not registered: {error}")
            if holder := self._holder(client):
                say("up", f"nothing is watched: {holder}")
                return
            self._await_observation(client)
        if not self.databases and set(known) <= {OURSELVES}:
            say(
                "up",
                "feeler watches its own registry; add yours: feeler db add NAME - (it asks for the URL)",
            )

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

    def _register(self, client: Client, name: str, url: str, known: Mapping[str, int]) -> None:
        if name not in known:
            client.add(name, url, labels={}, policy="default", zone="")
            say("up", f"registered {name}")
        elif client.change_url(name, url)["revision"] != known[name]:
            say("up", f"{name} has a new address or password, which is taken from now on")

    def _holder(self, client: Client) -> str:
        """Return what /readyz says of the Redis we were given where another registry holds it."""
        try:
            return client.trouble().get("registry", "")
        except FeelerError:
            return ""

    def _await_observation(self, client: Client) -> None:
        told = False
        for pause in _pauses():
            if seen := self._first(client):
                say(
                    "up",
                    f"first observation {time.monotonic() - self.began:.1f} s after the start: {seen}",
                )
                return
            if not told and time.monotonic() - self.began > PATIENCE:
                told = True
                say(
                    "up",
                    f"no observation after {PATIENCE:.0f} s; the lines of supervisor and worker say why",
                )
            time.sleep(pause)

    def _first(self, client: Client) -> str:
        """Return a database seen since we began, and its state."""
        try:
            items = next(client.observations(list(self.databases), []))[
                "data"
            ]  # the first page is enough
        except Refused:
            return ""
        for item in items:
            seen = item["observation"]
            if seen and datetime.fromisoformat(seen["observed_at"]).timestamp() >= self.began_at:
                return f"{item['database']['name']} is {item['state']}"
        return ""


def _pauses() -> Iterator[float]:
    pause = FIRST_PAUSE
    while True:
        yield pause
        pause = min(pause * 1.1, LAST_PAUSE)
