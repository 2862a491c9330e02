"""The CLI's way to the web: answers as the shapes of monitor.shapes. The CLI and `up` import this.

The standard library's client: httpx costs 0.3 s of CPU before the first byte, here at every call.
"""

import json
import time
from collections.abc import Container, Iterator, Mapping, Sequence
from email.utils import parsedate_to_datetime
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any, Self
from urllib.parse import urlencode, urlsplit

from monitor.config import Settings
from monitor.core.chunks import chunks
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

NAMES_AT_ONCE = 200  # names in one request line
WINDOW = 100  # transitions looked at for news: one that comes late is found this far back
TIMEOUT = 10  # seconds
SUCCESS = range(200, 300)

Params = list[tuple[str, str]]


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
        self._place = f"{self._http.host}:{self._http.port}"
        self._root = parts.path
        self._headers = {"Connection": "close", "Content-Type": "application/json"}
        if settings.token:
            self._headers["Authorization"] = f"Bearer {settings.token}"
        # The web's clock as of its last answer: ages must not show our own clock's error.
        self.now = time.time()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def observations(
        self, names: Sequence[str], states: Sequence[str]
    ) -> Iterator[ObservationsShape]:
        """Yield the pages of the databases named, or of all."""
        parts = list(chunks(names, NAMES_AT_ONCE)) or [()]  # naming none asks for all
        for chunk in parts:
            params = [("database", name) for name in chunk]
            params += [("state", state) for state in states]
            yield from self._pages("last_observation", params)

    def observation(self, name: str) -> LastObservationShape:
        """Return the last observation of one database."""
        answer: LastObservationShape = self._get(f"last_observation/{_segment(name)}")
        return answer

    def transitions(self, name: str, limit: int) -> list[TransitionShape]:
        """Return transitions of one database, newest first."""
        page = self._transitions(name, limit)
        return page["data"]

    def news(self, name: str, known: Container[str]) -> list[TransitionShape]:
        """Return transitions newer than those known, and late ones among these, newest first."""
        news: list[TransitionShape] = []
        page = self._transitions(name, WINDOW)
        while page["next_before"]:
            if any(row["identity"] in known for row in page["data"]):
                break
            news += page["data"]
            page = self._transitions(name, WINDOW, page["next_before"])
        for row in page["data"]:
            if row["identity"] not in known:
                news.append(row)
        return news

    def _transitions(self, name: str, limit: int, before: int | None = None) -> TransitionsShape:
        params = [("limit", str(limit))]
        if before:
            params.append(("before", str(before)))
        path = f"databases/{_segment(name)}/transitions"
        page: TransitionsShape = self._get(path, params)
        return page

    def databases(self) -> Iterator[RegisteredShape]:
        """Yield every registered database."""
        page: FleetShape
        for page in self._pages("databases", [("limit", "1000")]):
            yield from page["data"]

    def add(
        self, name: str, url: str, *, labels: Mapping[str, str], policy: str, zone: str
    ) -> RegisteredShape:
        """Register a database."""
        body = {"name": name, "url": url, "labels": dict(labels), "policy": policy, "zone": zone}
        added: RegisteredShape = self._ask("POST", "databases", body)
        return added

    def change_url(self, name: str, url: str) -> RegisteredShape:
        """Give a registered database another address, or the same with another password."""
        path = f"databases/{_segment(name)}"
        changed: RegisteredShape = self._ask("PATCH", path, {"url": url})
        return changed

    def remove(self, name: str) -> None:
        """Retire a database."""
        self._ask("DELETE", f"databases/{_segment(name)}")

    def observe(self, name: str) -> AcceptedShape:
        """Ask the owner of a database to probe it now."""
        accepted: AcceptedShape = self._ask("POST", f"databases/{_segment(name)}/observe")
        return accepted

    def trouble(self) -> dict[str, str]:
        """Return which checks of /readyz do not pass, and why."""
        status, content = self._exchange("GET", f"{self._root}/readyz")
        trouble = {}
        try:
            for name, check in json.loads(content)["checks"].items():
                if check["status"] != "pass":
                    trouble[name] = str(check["detail"])
        except (ValueError, KeyError, TypeError, AttributeError):
            raise _refusal(status, content, self._place) from None
        return trouble

    def _pages(self, path: str, params: Params) -> Iterator[Any]:
        page = self._get(path, params)
        yield page
        while page["next_cursor"] is not None:
            cursor = ("cursor", page["next_cursor"])
            page = self._get(path, [*params, cursor])
            yield page

    def _get(self, path: str, params: Params | None = None) -> Any:
        if params:
            path = f"{path}?{urlencode(params)}"
        return self._ask("GET", path)

    def _ask(self, method: str, path: str, body: Mapping[str, object] | None = None) -> Any:
        text = json.dumps(body) if body else None
        url = f"{self._root}/api/v1/{path}"
        status, content = self._exchange(method, url, text)
        if status not in SUCCESS:
            raise _refusal(status, content, self._place)
        return json.loads(content) if content else None

    def _exchange(self, method: str, path: str, body: str | None = None) -> tuple[int, bytes]:
        try:
            self._http.request(method, path, body, self._headers)
            response = self._http.getresponse()
            content = response.read()
        except (OSError, HTTPException) as error:
            self._http.close()
            why = type(error).__name__
            fix = "start it with `feeler up`, or set FEELER_URL"
            raise Refused(f"no feeler answers at {self._place}: {why} ({fix})") from None
        if date := response.headers.get("Date"):
            self.now = parsedate_to_datetime(date).timestamp()
        return response.status, content


def _segment(name: str) -> str:
    """Return a name as a part of a path; one that cannot be a name asks for nothing."""
    letters = name.replace("-", "").replace("_", "")
    if not letters.isascii() or not letters.isalnum():
        raise InvalidInput("name", "not a database's name", "a-z, 0-9, _ and -")
    return name


def _refusal(status: int, content: bytes, place: str) -> FeelerError:
    try:
        problem = json.loads(content)
        kind = str(problem["type"])
        detail = str(problem["detail"])
        errors = []
        for item in problem["errors"]:
            field = str(item["pointer"]).strip("/")
            errors.append(InvalidInput(field or "request", str(item["detail"])))
    except (ValueError, KeyError, TypeError):
        return Refused(f"{place} answered {status}, and not as a feeler would (check FEELER_URL)")
    if errors:
        return errors[0]
    missing = kind.endswith(":unknown-database")
    return Refused(detail, missing=missing)
