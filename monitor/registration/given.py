"""What people and automation give to have a database watched, parsed and checked.

No error repeats what was given: it may be a URL in the wrong place. Doors import this, and
`feeler up`.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from monitor.core.database import check_name, check_zone, parse_address
from monitor.core.errors import InvalidInput

MAX_LABELS = 16
MAX_LABEL_VALUE = 63  # bytes
_LABEL = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}\Z")
# How a file without a name comes: from `feeler up` itself, ./run, or a shell's <(...).
_DESCRIPTOR = re.compile(r"@/dev/fd/(\d{1,6})\Z")


@dataclass(frozen=True, slots=True)
class NewDatabase:
    """A database to register; nothing of it is in the registry yet."""

    name: str
    url: str = field(repr=False)
    labels: Mapping[str, str] = field(default_factory=dict)
    policy: str = "default"
    zone: str = ""

    def checked(self) -> "NewDatabase":
        """Return it with the blanks around its URL gone, or raise InvalidInput."""
        url = check_url(self.url)
        name = check_name(self.name)
        labels = check_labels(self.labels)
        zone = check_zone(self.zone)
        return NewDatabase(name, url, labels, self.policy, zone)


@dataclass(frozen=True, slots=True)
class Changes:
    """What shall be different of a registered database; None stays as it is."""

    url: str | None = field(default=None, repr=False)
    labels: Mapping[str, str] | None = None
    policy: str | None = None
    zone: str | None = None

    def checked(self) -> "Changes":
        """Return them with the blanks around the URL gone, or raise InvalidInput."""
        url = None if self.url is None else check_url(self.url)
        labels = None if self.labels is None else check_labels(self.labels)
        zone = None if self.zone is None else check_zone(self.zone)
        return Changes(url, labels, self.policy, zone)


def check_url(url: str) -> str:
    """Return a usable URL without the blanks around it, or raise InvalidInput."""
    parse_address(url)
    return url.strip()


def check_labels(labels: Mapping[str, str]) -> Mapping[str, str]:
    """Return usable labels, or raise InvalidInput."""
    if len(labels) > MAX_LABELS:
        raise InvalidInput("labels", "too many", f"at most {MAX_LABELS}")
    for key, value in labels.items():
        if not _LABEL.match(key):
            fix = "use a-z, 0-9, _, . and -, at most 63"
            raise InvalidInput("labels", "a key is not usable", fix)
        size = len(value.encode())
        if size > MAX_LABEL_VALUE or not value.isprintable():
            fix = f"printable text of at most {MAX_LABEL_VALUE} bytes"
            raise InvalidInput(f"labels/{key}", "not a usable value", fix)
    return labels


def parse_label(text: str) -> tuple[str, str]:
    """Read KEY=VALUE; whether the two are usable is checked with all the labels."""
    key, equals, value = text.partition("=")
    if not equals:
        raise InvalidInput("label", "not KEY=VALUE")
    return key, value


def parse_databases(texts: Sequence[str]) -> tuple[NewDatabase, ...]:
    """Read NAME=URL and @FILE, where a file has such lines."""
    databases = []
    for text in texts:
        for line in read_lines(text):
            databases.append(parse_database(line))
    return tuple(databases)


def parse_database(line: str) -> NewDatabase:
    """Read NAME=URL."""
    name, equals, url = line.partition("=")
    if not equals or "://" in name:
        example = "feeler up orders=postgresql://USER:PASSWORD@HOST/DATABASE"
        raise InvalidInput("databases", "not NAME=URL", example)
    return NewDatabase(name, url).checked()


def read_lines(text: str) -> list[str]:
    """Return the lines of @FILE but for empty ones and comments; any other text is its own line."""
    if not text.startswith("@"):
        return [text]
    path = text.removeprefix("@")
    nameless = _DESCRIPTOR.match(text)
    source = int(nameless[1]) if nameless else path
    try:
        with open(source, encoding="utf-8") as file:
            lines = file.read().splitlines()
    except (OSError, UnicodeDecodeError):
        fix = "@FILE has a line NAME=URL for each"
        raise InvalidInput("databases", f"cannot read {path}", fix) from None
    kept: list[str] = []
    for line in lines:
        stripped = line.strip()
        if stripped and not line.startswith("#"):
            kept.append(stripped)
    return kept
