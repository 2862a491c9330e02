"""Answers as text for people and for pipes: pure, time comes with the answer. Only the CLI imports
this.

A state is always a word and a glyph, never a colour alone; stale is said wherever a value is shown.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from itertools import pairwise

from monitor.core.observation import GAUGES, Value
from monitor.shapes import (
    LastObservationShape,
    ObservationShape,
    ReasonShape,
    RegisteredShape,
    SeenShape,
    TransitionShape,
)

GLYPHS = {
    "new": "·",
    "available": "✔",
    "uncertain": "?",
    "unavailable": "✖",
    "starting": "◔",
    "refusing": "⊖",
    "locked_out": "⊘",
}
REACHED = (
    "available",
    "starting",
    "refusing",
    "locked_out",
)  # states whose owner hears from the server
STALE = "◌ stale"
NONE = "-"
WAITED = 0.1  # seconds: less is not worth a word
_SHOWN = ("connections", "db_size", "cache_hit_rate")
_UNITS = (("d", 86_400), ("h", 3600), ("m", 60), ("s", 1))
COLUMNS = ("NAME", "STATE", "SINCE", "AGE", "WHY", "OWNER", "CONN", "SIZE", "HIT")
WIDE_COLUMNS = (*COLUMNS, "ADDRESS", "SQLSTATE", "DETAIL", "NEXT")
PLAIN_COLUMNS = (*COLUMNS, "STALE")
TRANSITION_COLUMNS = ("AT", "FROM", "TO", "RULE", "WORKER", "EVIDENCE", "IDENTITY")
DATABASE_COLUMNS = ("NAME", "STATUS", "POLICY", "ZONE", "URL", "LABELS")


def observation_row(answer: LastObservationShape, now: float) -> tuple[str, ...]:
    """Return one line of `get` for people."""
    seen, since = answer["observation"], answer["state_since"]
    values = seen["values"] if seen else {}
    cells = (
        answer["database"]["name"],
        state(answer["state"]),
        duration(now - seconds(since)) if since else NONE,
        _age(seen),
        answer["reason"]["code"] if answer["reason"] else NONE,
        answer["owner"] or NONE,
        *(gauge(name, values[name]) if name in values else NONE for name in _SHOWN),
    )
    return tuple(map(clean, cells))


def wide_row(answer: LastObservationShape, now: float) -> tuple[str, ...]:
    """Return one line of `get -o wide`: what else there is to know of a cause."""
    reason = answer["reason"]
    more = ("sqlstate", "detail", "advice")
    cells = (
        answer["database"].get("address", ""),
        *(str(reason.get(one, "")) if reason else "" for one in more),
    )
    return (*observation_row(answer, now), *(clean(cell) or NONE for cell in cells))


def warnings(answers: Sequence[LastObservationShape], trouble: Iterable[str]) -> Iterator[str]:
    """Yield what must be read before the answers of `get`: why they may not be as green as they
    look.
    """
    yield from map(clean, trouble)
    late = [
        one["observation"]
        for one in answers
        if not one["observation"] or one["observation"]["stale"]
    ]
    ages = [seen["age_seconds"] for seen in late if seen]
    if late:
        oldest = f"; the oldest observation is {duration(max(ages))} old" if ages else ""
        yield f"{len(late)} of {len(answers)} without a recent observation{oldest}"


def plain_row(answer: LastObservationShape) -> tuple[str, ...]:
    """Return one line of `get` for pipes: numbers bare, times RFC 3339, nothing rounded."""
    seen = answer["observation"]
    values = seen["values"] if seen else {}
    cells = (
        answer["database"]["name"],
        answer["state"],
        answer["state_since"] or "",
        str(seen["age_seconds"]) if seen else "",
        answer["reason"]["code"] if answer["reason"] else "",
        answer["owner"],
        *(str(values.get(name, "")) for name in _SHOWN),
        ("yes" if seen["stale"] else "no") if seen else "",
    )
    return tuple(map(clean, cells))


def transition_row(one: TransitionShape) -> tuple[str, ...]:
    """Return one line of `transitions`."""
    mark = " (superseded)" if one["superseded"] else ""
    evidence = ", ".join(map(_seen, one["evidence"])) or NONE
    cells = (
        one["at"],
        one["from"],
        one["to"],
        one["rule"],
        one["worker"],
        evidence,
        one["identity"] + mark,
    )
    return tuple(map(clean, cells))


def database_row(one: RegisteredShape) -> tuple[str, ...]:
    """Return one line of `db list`."""
    labels = " ".join(
        f"{clean(key)}={clean(value)}" for key, value in sorted(one["labels"].items())
    )
    place = clean(one["url"]) or "sealed with a key that is gone"
    return (
        clean(one["name"]),
        one["status"],
        clean(one["policy"]),
        clean(one["zone"]) or NONE,
        place,
        labels or NONE,
    )


def info_head(answer: LastObservationShape, now: float) -> tuple[str, str, str]:
    """Return the name, the state, and since when."""
    since = answer["state_since"]
    span = f"for {duration(now - seconds(since))}, since {since}" if since else ""
    return clean(answer["database"]["name"]), state(answer["state"]), clean(span)


def info_lines(answer: LastObservationShape) -> Iterator[tuple[str, str]]:
    """Yield what else `info` says of one database: a word and what it is."""
    seen, labels = answer["observation"], answer["database"]["labels"]
    decided = (
        f" (rule {answer['rule']}, transition {answer['transition']})"
        if answer["transition"]
        else ""
    )
    yield (
        "why",
        clean((answer["reason"]["code"] if answer["reason"] else "never observed") + decided),
    )
    if answer["reason"]:
        yield from _reason_lines(answer["reason"])
    if address := answer["database"].get("address"):
        yield "address", clean(address)
    yield "owner", clean(answer["owner"] or "nobody")
    if labels:
        yield "labels", clean(" ".join(f"{key}={value}" for key, value in sorted(labels.items())))
    if answer["unreachable_from"]:
        told = (
            "cannot reach it, its owner can"
            if answer["state"] in REACHED
            else "could not reach it lately"
        )
        yield "unreachable_from", clean(f"{', '.join(answer['unreachable_from'])} {told}")
    if seen:
        yield from _observation_lines(seen)


def _reason_lines(reason: ReasonShape) -> Iterator[tuple[str, str]]:
    """Yield what the server said and what to do about it; an older web says neither."""
    said = " ".join(filter(None, (reason.get("sqlstate"), reason.get("detail"))))
    if said:
        yield "said", clean(said)
    if advice := reason.get("advice"):
        yield "next", clean(advice)


def _observation_lines(seen: ObservationShape) -> Iterator[tuple[str, str]]:
    stale = (
        f"  {STALE}: older than {duration(seen['stale_after_seconds'])}" if seen["stale"] else ""
    )
    felt = f"{duration(seen['age_seconds'])} ago by {clean(seen['worker'])} in {seen['duration_ms']:g} ms"
    waited = seen.get("waited_ms", 0) / 1000
    turn = (
        f" and {waited:.1f} s that its login waits its turn at this address"
        if waited >= WAITED
        else ""
    )
    yield "observed", f"{felt}, every {seen['interval_seconds']:g} s{turn}{stale}"
    if seen.get("pooled"):
        yield (
            "pooled",
            "a pooler is between: what does not come may be waited for there, or its server may be down",
        )
    for family, told in seen["families"].items():
        mine = {name: value for name, value in seen["values"].items() if _family(name) == family}
        shown = " · ".join(f"{clean(name)} {gauge(name, value)}" for name, value in mine.items())
        failed = (
            clean(f"{told['status']} {told['code']}").strip() if told["status"] != "ok" else NONE
        )
        mark = f"  {STALE}" if told["stale"] else ""
        mark += f"  {clean(advice)}" if (advice := told.get("advice")) else ""
        yield clean(family), f"{shown or failed}  ({duration(told['age_seconds'])} ago){mark}"


def state(word: str) -> str:
    """Return a state as glyph and word."""
    return f"{GLYPHS.get(word, '!')} {clean(word)}"


def _family(gauge_name: str) -> str:
    return GAUGES[gauge_name].family if gauge_name in GAUGES else ""


def _age(seen: ObservationShape | None) -> str:
    if seen is None:
        return "never"
    return duration(seen["age_seconds"]) + (f" {STALE}" if seen["stale"] else "")


def _seen(seen: SeenShape) -> str:
    return f"{seen['cause']} {seen['worker']} x{seen['rounds']}"


def gauge(name: str, value: Value) -> str:
    """Return a value with its unit."""
    unit = GAUGES[name].unit if name in GAUGES else ""
    if isinstance(value, bool | str):
        return clean(str(value)).lower() if isinstance(value, bool) else clean(value)
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
    if whole < 60:
        return f"{whole}s"
    for (unit, length), (smaller, part) in pairwise(_UNITS):
        if whole >= length:
            rest = whole % length // part
            return f"{whole // length}{unit}" + (f"{rest}{smaller}" if rest else "")
    return f"{whole}s"


def clean(text: str) -> str:
    """Return text without what could move a terminal's cursor or break a line."""
    return "".join(char if char.isprintable() else "�" for char in text)


def seconds(at: str) -> float:
    """Read an RFC 3339 time of the API."""
    return datetime.fromisoformat(at).timestamp()
