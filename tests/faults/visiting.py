"""Who asks the web while something is hurt. Rows import this."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress

import httpx

from monitor.local.machine import free_port
from tests.faults.conftest import Figures
from tests.faults.lab import Lab
from tests.waiting import again_and_again, eventually


class Visitor:
    """Somebody who asks the web for all observations, over and over, and for a change at times."""

    def __init__(self, lab: Lab) -> None:
        port = free_port()
        lab.launch("web", PORT=str(port))
        headers = {"Authorization": "Bearer token-for-tests"}
        self.client = httpx.Client(
            base_url=f"http://127.0.0.1:{port}", headers=headers, trust_env=False, timeout=20
        )
        self.answers: list[tuple[int, float]] = []  # status, seconds

    async def get(self, path: str) -> httpx.Response:
        return await asyncio.to_thread(self.client.get, path)

    async def answering(self) -> bool:
        with suppress(httpx.HTTPError):
            return (await self.get("/last_observation")).status_code == 200
        return False

    def visiting(self) -> AbstractContextManager[None]:
        """Ask four times a second as long as the block lasts."""
        return again_and_again(self._visit, every=0.25)

    def _visit(self) -> None:
        asked = time.monotonic()
        status = self.client.get("/last_observation").status_code
        self.answers.append((status, time.monotonic() - asked))

    def demand(self, figure: Figures) -> None:
        """Every question was answered, and soon."""
        assert {status for status, _ in self.answers} == {200}
        figure("slowest answer of the web", max(seconds for _, seconds in self.answers), most=2)

    async def refused_change(self, figure: Figures) -> None:
        """A change is answered by a problem document that says to come again, and in time."""
        asked = time.monotonic()
        body = {"name": "new", "url": "postgresql://nobody:secret@127.0.0.1:1/none"}
        answer = await asyncio.to_thread(self.client.post, "/api/v1/databases", json=body)
        assert answer.status_code == 503
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["type"] == "urn:feeler:problem:store-unavailable"
        assert "retry-after" in answer.headers
        figure("a change was refused after", time.monotonic() - asked, most=12)


async def visited(lab: Lab, names: Sequence[str]) -> Visitor:
    """Wait until all are available and the web says so to somebody who asks."""
    visitor = Visitor(lab)
    await lab.all_in(names, "available", within=30)
    await eventually(visitor.answering, within=40, every=0.2)
    return visitor
