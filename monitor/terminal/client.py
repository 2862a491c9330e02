"""The CLI's way to the web: answers as the shapes of monitor.shapes. The CLI and `up` import
this.

The standard library's client: httpx costs 0.3 s of CPU before the first byte, here at every call.
"""

import json
import time
from collections.abc import Container, Iterator, Mapping, Sequence
from email.utils import parsedate_to_datetime
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any, Self, cast
from urllib.parse import urlencode, urlsplit

from monitor.config import Settings
from monitor.core.errors import FeelerError, InvalidInput
from monitor.shapes import (
    AcceptedShape,
    FleetShape,
    LastObservationShape,
    ObservationsShape,
    RegisteredShape,
    TransitionShape,
    TransitionsShape,
)

Params = Sequence[tuple[str, str]]
PAGE = 200  # names in one request line
# transitions looked at for news: one that comes late is told apart from an old one this far back
WINDOW = 100
TIMEOUT = 10  # seconds
SUCCESS = range(200, 300)


class Refused(FeelerError):
    """The web did not do it; the message is its own. `missing` when there is no such database."""

    def __init__(self, message: str, *, missing: bool = False) -> None:
        self.missing = missing
        super().__init__(message)


class Client:
    """Speaks to one feeler: a connection per request, no redirects, no proxies."""

    def __init__(self, settings: Settings) -> None:
        parts = urlsplit(settings.url)
        connect = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        self._http = connect(parts.hostname or "", parts.port, timeout=TIMEOUT)
        self._place, self._root = f"{self._http.host}:{self._http.port}", parts.path
        self._headers = {"Connection": "close", "Content-Type": "application/json"}
        if settings.token:
            self._headers["Authorization"] = f"Bearer {settings.token}"
        self.now = (
            time.time()
        )  # the web's clock as of its last answer: ages must not show our own clock's error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def observations(
        self, names: Sequence[str], states: Sequence[str]
    ) -> Iterator[ObservationsShape]:
        """Yield the pages of the databases named, or of all."""
        for start in range(0, max(1, len(names)), PAGE):
            wanted = [("database", name) for name in names[start : start + PAGE]]
            wanted += [("state", state) for state in states]
            cursor: str | None = ""
            while cursor is not None:
                page: ObservationsShape = self._get("last_observation", wanted, cursor)
                yield page
                cursor = page["next_cursor"]

    def observation(self, name: str) -> LastObservationShape:
        """Return the last observation of one database."""
        return cast(LastObservationShape, self._get(f"last_observation/{_segment(name)}"))

    def transitions(self, name: str, limit: int) -> list[TransitionShape]:
        """Return transitions of one database, newest first."""
        return self._transitions(name, limit)["data"]

    def news(self, name: str, known: Container[str]) -> list[TransitionShape]:
        """Return transitions newer than the known identities, and late ones among these, newest
        first.
        """
        news: list[TransitionShape] = []
        page = self._transitions(name, WINDOW)
        while not any(row["identity"] in known for row in page["data"]) and page["next_before"]:
            news += page["data"]
            page = self._transitions(name, WINDOW, page["next_before"])
        return news + [row for row in page["data"] if row["identity"] not in known]

    def _transitions(self, name: str, limit: int, before: int | None = None) -> TransitionsShape:
        params = [("limit", str(limit))] + ([("before", str(before))] if before else [])
        page: TransitionsShape = self._get(f"databases/{_segment(name)}/transitions", params)
        return page

    def databases(self) -> Iterator[RegisteredShape]:
        """Yield every registered database."""
        cursor: str | None = ""
        while cursor is not None:
            page: FleetShape = self._get("databases", [("limit", "1000")], cursor)
            yield from page["data"]
            cursor = page["next_cursor"]

    def add(
        self, name: str, url: str, *, labels: Mapping[str, str], policy: str, zone: str
    ) -> RegisteredShape:
        """Register a database."""
        body = {"name": name, "url": url, "labels": dict(labels), "policy": policy, "zone": zone}
        return cast(RegisteredShape, self._ask("POST", "databases", body))

    def change_url(self, name: str, url: str) -> RegisteredShape:
        """Give a registered database another address, or the same with another password."""
        return cast(
            RegisteredShape, self._ask("PATCH", f"databases/{_segment(name)}", {"url": url})
        )

    def remove(self, name: str) -> None:
        """Retire a database."""
        self._ask("DELETE", f"databases/{_segment(name)}")

    def observe(self, name: str) -> AcceptedShape:
        """Ask the owner of a database to feel it now."""
        return cast(AcceptedShape, self._ask("POST", f"databases/{_segment(name)}/observe"))

    def trouble(self) -> dict[str, str]:
        """Return which checks of /readyz do not pass, and why."""
        status, content = self._exchange("GET", f"{self._root}/readyz")
        try:
            checks = json.loads(content)["checks"]
            return {
                name: check["detail"] for name, check in checks.items() if check["status"] != "pass"
            }
        except (ValueError, KeyError, TypeError, AttributeError):
            raise _refusal(status, content, self._place) from None

    def _get(self, path: str, params: Params = (), cursor: str = "") -> Any:
        query = urlencode([*params, *([("cursor", cursor)] if cursor else [])])
        return self._ask("GET", f"{path}?{query}" if query else path)

    def _ask(self, method: str, path: str, body: Mapping[str, object] | None = None) -> Any:
        status, content = self._exchange(
            method, f"{self._root}/api/v1/{path}", json.dumps(body) if body else None
        )
        if status in SUCCESS:
            return json.loads(content) if content else None
        raise _refusal(status, content, self._place)

    def _exchange(self, method: str, path: str, body: str | None = None) -> tuple[int, bytes]:
        try:
            self._http.request(method, path, body, self._headers)
            response = self._http.getresponse()
            content = response.read()
        except (OSError, HTTPException) as error:
            self._http.close()
            fix = "start it with `feeler up`, or set FEELER_URL"
            raise Refused(
                f"no feeler answers at {self._place}: {type(error).__name__} ({fix})"
            ) from None
        if date := response.headers.get("Date"):
            self.now = parsedate_to_datetime(date).timestamp()
        return response.status, content


def _segment(name: str) -> str:
    """Return a name as a part of a path; one that cannot be a name asks for nothing."""
    if not name.isascii() or not name.replace("-", "").replace("_", "").isalnum():
        raise InvalidInput("name", "not a database's name", "a-z, 0-9, _ and -")
    return name


def _refusal(status: int, content: bytes, place: str) -> FeelerError:
    try:
        problem = json.loads(content)
        kind, detail = str(problem["type"]).rpartition(":")[2], str(problem["detail"])
        errors = [(str(item["pointer"]), str(item["detail"])) for item in problem["errors"]]
    except (ValueError, KeyError, TypeError):
        return Refused(f"{place} answered {status}, and not as a feeler would (check FEELER_URL)")
    if errors:
        return InvalidInput(errors[0][0].strip("/") or "request", errors[0][1])
    return Refused(detail, missing=kind == "unknown-database")
