"""Single values as people read them: states, ages, sizes, gauges. Pure.

A state is always words and a glyph, never a colour alone. terminal/, cli and local import this.
"""

from datetime import datetime
from itertools import pairwise

from monitor.core.observation import GAUGES, Value

GLYPHS = {
    "new": "·",
    "available": "✔",
    "uncertain": "?",
    "unavailable": "✖",
    "starting": "◔",
    "refusing": "⊖",
    "locked_out": "⊘",
}
REFUSING = "refusing logins (server is up)"  # never to be mistaken for the cause port_closed
_SPANS = (("d", 86_400), ("h", 3600), ("m", 60), ("s", 1))


def state(name: str) -> str:
    """Return a state as glyph and words."""
    return f"{GLYPHS.get(name, '!')} {state_words(name)}"


def state_words(name: str) -> str:
    """Return a state in words alone."""
    return REFUSING if name == "refusing" else clean(name)


def gauge(name: str, value: Value) -> str:
    """Return the value of a gauge with its unit."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return clean(value)
    unit = GAUGES[name].unit if name in GAUGES else ""
    return _number(value, unit)


def _number(value: float, unit: str) -> str:
    if unit == "bytes":
        return size(value)
    if unit == "percent":
        return f"{value:.1f}%"
    if unit == "seconds":
        return duration(value)
    if not unit:
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.1f}"


def size(count: float) -> str:
    """Return bytes as people say them."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB" if count < 1000 else f"{count:,.0f} TB"


def duration(span: float) -> str:
    """Return seconds as people say them: the two largest units."""
    whole = max(0, int(span))
    for (unit, length), (smaller, part) in pairwise(_SPANS):
        if whole >= length:
            count, rest = divmod(whole, length)
            smaller_count = rest // part
            more = f"{smaller_count}{smaller}" if smaller_count else ""
            return f"{count}{unit}{more}"
    return f"{whole}s"


def clean(text: str) -> str:
    """Return text without what could move a terminal's cursor or break a line."""
    return "".join(char if char.isprintable() else "�" for char in text)


def timestamp(at: str) -> float:
    """Read an RFC 3339 time of the API as seconds since 1970."""
    return datetime.fromisoformat(at).timestamp()
