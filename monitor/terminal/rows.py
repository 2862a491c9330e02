"""Answers of the web as rows and lines of text: pure, time comes with the answer.

Tables, pipes and cli.py import this. Stale is said wherever a value is shown.
"""

from collections.abc import Iterable, Iterator, Sequence

from monitor.core.observation import GAUGES
from monitor.shapes import (
    FamilyShape,
    LastObservationShape,
    ObservationShape,
    ReasonShape,
    RegisteredShape,
    SeenShape,
    TransitionShape,
)
from monitor.terminal.values import clean, duration, gauge, state, timestamp

STALE = "◌ stale"
NONE = "-"
# States in which the owner hears from the server.
REACHED = frozenset({"available", "starting", "refusing", "locked_out"})
WAITED = 100  # milliseconds: less is not worth a line
_SHOWN = ("connections", "db_size", "cache_hit_rate")

COLUMNS = ("NAME", "STATE", "SINCE", "AGE", "WHY", "OWNER", "CONN", "SIZE", "HIT")
WIDE_COLUMNS = (*COLUMNS, "ADDRESS", "SQLSTATE", "DETAIL", "NEXT")
PLAIN_COLUMNS = (*COLUMNS, "STALE")
TRANSITION_COLUMNS = ("AT", "FROM", "TO", "RULE", "WORKER", "EVIDENCE", "IDENTITY")
DATABASE_COLUMNS = ("NAME", "STATUS", "POLICY", "ZONE", "URL", "LABELS")

Row = tuple[str, ...]


def observation_row(answer: LastObservationShape, now: float) -> Row:
    """Return one line of `get` for people."""
    seen = answer["observation"]
    values = seen["values"] if seen else {}
    shown = []
    for name in _SHOWN:
        shown.append(gauge(name, values[name]) if name in values else NONE)
    lasts = NONE
    if since := answer["state_since"]:
        lasts = duration(now - timestamp(since))
    return _cleaned(
        answer["database"]["name"],
        state(answer["state"]),
        lasts,
        _age(seen),
        _cause(answer) or NONE,
        answer["owner"] or NONE,
        *shown,
    )


def wide_row(answer: LastObservationShape, now: float) -> Row:
    """Return one line of `get -o wide`: what else there is to know of a cause."""
    address = answer["database"].get("address", "")
    reason = answer["reason"]
    details = ["", "", ""]
    if reason:
        details = [str(reason.get(key, "")) for key in ("sqlstate", "detail", "advice")]
    more = (clean(cell) or NONE for cell in (address, *details))
    return (*observation_row(answer, now), *more)


def plain_row(answer: LastObservationShape) -> Row:
    """Return one line of `get` for pipes: numbers bare, times RFC 3339, nothing rounded."""
    age, stale = "", ""
    seen = answer["observation"]
    if seen:
        age = str(seen["age_seconds"])
        stale = "yes" if seen["stale"] else "no"
    values = seen["values"] if seen else {}
    shown = (str(values.get(name, "")) for name in _SHOWN)
    return _cleaned(
        answer["database"]["name"],
        answer["state"],
        answer["state_since"] or "",
        age,
        _cause(answer),
        answer["owner"],
        *shown,
        stale,
    )


def warnings(answers: Sequence[LastObservationShape], trouble: Iterable[str]) -> Iterator[str]:
    """Yield what to read before the answers of `get`: why they may be less green than they look."""
    yield from map(clean, trouble)
    late = 0
    ages = []
    for answer in answers:
        seen = answer["observation"]
        if seen is None or seen["stale"]:
            late += 1
        if seen and seen["stale"]:
            ages.append(seen["age_seconds"])
    if late:
        oldest = f"; the oldest observation is {duration(max(ages))} old" if ages else ""
        yield f"{late} of {len(answers)} without a recent observation{oldest}"


def transition_row(one: TransitionShape) -> Row:
    """Return one line of `transitions` for people."""
    return _transition(one, state(one["from"]), state(one["to"]))


def plain_transition_row(one: TransitionShape) -> Row:
    """Return one line of `transitions` for pipes."""
    return _transition(one, one["from"], one["to"])


def _transition(one: TransitionShape, source: str, target: str) -> Row:
    identity = one["identity"]
    if one["superseded"]:
        identity += " (superseded)"
    evidence = ", ".join(map(_evidence, one["evidence"]))
    return _cleaned(
        one["at"],
        source,
        target,
        one["rule"],
        one["worker"],
        evidence or NONE,
        identity,
    )


def database_row(one: RegisteredShape) -> Row:
    """Return one line of `db list`."""
    return _cleaned(
        one["name"],
        one["status"],
        one["policy"],
        one["zone"] or NONE,
        one["url"] or "sealed with a key that is gone",
        _labels(one["labels"]) or NONE,
    )


def info_head(answer: LastObservationShape, now: float) -> tuple[str, str, str]:
    """Return the name, the state, and since when."""
    name = clean(answer["database"]["name"])
    since = answer["state_since"]
    if not since:
        return name, state(answer["state"]), ""
    lasts = duration(now - timestamp(since))
    return name, state(answer["state"]), clean(f"for {lasts}, since {since}")


def info_lines(answer: LastObservationShape) -> Iterator[tuple[str, str]]:
    """Yield what else `info` says of one database: a heading and its text."""
    for heading, text in _info(answer):
        if text:
            yield clean(heading), clean(text)


def _info(answer: LastObservationShape) -> Iterator[tuple[str, str]]:
    why = _cause(answer) or "never observed"
    if answer["transition"]:
        why += f" (rule {answer['rule']}, transition {answer['transition']})"
    yield "why", why
    if answer["reason"]:
        yield from _reason_lines(answer["reason"])
    yield "address", answer["database"].get("address", "")
    yield "owner", answer["owner"] or "nobody"
    yield "labels", _labels(answer["database"]["labels"])
    if workers := ", ".join(answer["unreachable_from"]):
        how = "could not reach it lately"
        if answer["state"] in REACHED:
            how = "cannot reach it, its owner can"
        yield "unreachable_from", f"{workers} {how}"
    if seen := answer["observation"]:
        yield from _observation_lines(seen)


def _reason_lines(reason: ReasonShape) -> Iterator[tuple[str, str]]:
    """Yield what the server said and what to do about it; an older web says neither."""
    sqlstate = reason.get("sqlstate", "")
    detail = reason.get("detail", "")
    yield "said", f"{sqlstate} {detail}".strip()
    yield "next", reason.get("advice", "")


def _observation_lines(seen: ObservationShape) -> Iterator[tuple[str, str]]:
    ago = duration(seen["age_seconds"])
    took, interval = seen["duration_ms"], seen["interval_seconds"]
    text = f"{ago} ago by {seen['worker']} in {took:g} ms, every {interval:g} s"
    waited = seen.get("waited_ms", 0)
    if waited >= WAITED:
        text += f" and {waited / 1000:.1f} s that its login waits its turn at this address"
    if seen["stale"]:
        limit = duration(seen["stale_after_seconds"])
        text += f"  {STALE}: older than {limit}"
    yield "observed", text
    if seen.get("pooled"):
        waiting = "what does not come may be waited for there, or its server may be down"
        yield "pooled", f"a pooler is between: {waiting}"
    for family, reading in seen["families"].items():
        yield family, _family_text(family, reading, seen)


def _family_text(family: str, reading: FamilyShape, seen: ObservationShape) -> str:
    shown = []
    for name, value in seen["values"].items():
        known = GAUGES.get(name)
        if known and known.family == family:
            shown.append(f"{name} {gauge(name, value)}")
    text = " · ".join(shown) or NONE
    if not shown and reading["status"] != "ok":
        text = f"{reading['status']} {reading['code']}".strip()
    ago = duration(reading["age_seconds"])
    text += f"  ({ago} ago)"
    if reading["stale"]:
        text += f"  {STALE}"
    if advice := reading.get("advice"):
        text += f"  {advice}"
    return text


def _cause(answer: LastObservationShape) -> str:
    return answer["reason"]["code"] if answer["reason"] else ""


def _age(seen: ObservationShape | None) -> str:
    if seen is None:
        return "never"
    mark = f" {STALE}" if seen["stale"] else ""
    return duration(seen["age_seconds"]) + mark


def _evidence(seen: SeenShape) -> str:
    return f"{seen['cause']} {seen['worker']} x{seen['rounds']}"


def _labels(labels: dict[str, str]) -> str:
    pairs = []
    for key, value in sorted(labels.items()):
        pairs.append(f"{key}={value}")
    return " ".join(pairs)


def _cleaned(*cells: str) -> Row:
    return tuple(clean(cell) for cell in cells)
