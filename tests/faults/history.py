"""Judges a whole run after it: what was seen against what was done to it, the way Jepsen does.

`check` names every broken promise, `demand` raises on any. Pure: no I/O, no clock. Rows of
tests/faults import this.
"""

import base64
import itertools
import json
import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple
from urllib.parse import quote, quote_plus

from monitor.core.cause import EVIDENCE, Cause, Evidence
from monitor.core.event import Transition, encode
from monitor.core.status import Epoch, Identity, State
from monitor.registry.rows import TransitionRow, storable
from tests.faults.demands import (
    STANDARD,
    Bounds,
    Key,
    Violation,
    chain_of,
    databases_of,
    end,
    no_false_unavailable,
    ours,
    reaches,
    rules,
    told,
)
from tests.faults.moving import ports_of, strays, withdrawn
from tests.faults.observed import Accepted, Connections, Effect, Fault, History, Journaled, Sight

__all__ = ["Bounds", "Violation", "caught_up", "check", "demand", "excuses", "lateness"]

STORES = frozenset({"redis", "postgres"})  # parties that are no processes of ours
LOOK = 0.5  # seconds that a look at Redis takes at most
EACH = 2  # connections to a database: one kept, one while a login is proved


def check(
    history: History, *, forks_allowed: bool = False, bounds: Bounds = STANDARD
) -> list[Violation]:
    """Return every broken promise; `forks_allowed` where split brain was provoked."""
    lost = excuses(history, bounds)
    return [
        *no_false_unavailable(history, bounds),
        *chain(history, lost, forks_allowed=forks_allowed, ahead=bounds.ahead),
        *nothing_lost(history, lost),
        *nothing_doubled(history),
        *epochs(history, lost, bounds, forks_allowed=forks_allowed),
        *terms(history),
        *rules(history, bounds, lost),
        *connections(history, bounds),
        *withdrawn(history, bounds),
        *strays(history, bounds),
        *stalls(history, bounds),
        *secrets(history),
        *counters(history),
    ]


def demand(history: History, *, forks_allowed: bool = False, bounds: Bounds = STANDARD) -> int:
    """Fail with all broken promises; return how many were lost the one documented way."""
    violations = check(history, forks_allowed=forks_allowed, bounds=bounds)
    assert not violations, "\n".join([f"{len(violations)} broken promises:", *map(str, violations)])
    return len(excuses(history, bounds))


# --- loss of memory -------------------------------------------------------------------------------


def _forgot(history: History) -> list[Fault]:
    return [fault for fault in history.faults if fault.effect is Effect.FORGOT]


def _forgot_between(history: History, since: float, until: float) -> bool:
    return any(reaches(fault, since, until) for fault in _forgot(history))


def _reopened(history: History, forgot: Fault) -> float:
    """Return when a generation was opened after a loss of memory: under a name of its own."""
    before = [name for at, name in history.generations if at < forgot.began]
    after = [(at, name) for at, name in history.generations if at >= forgot.began]
    opened = (
        at for at, name in after if name and name not in before
    )  # an older copy holds an older name
    never = math.inf if after else end(forgot)  # the same name all the time: nothing was closed
    return next(opened, never)


def _blurred(history: History, bounds: Bounds) -> list[tuple[float, float]]:
    """Return the stretches in which Redis may hold something older than before."""
    return [
        (fault.began - bounds.before, _reopened(history, fault) + bounds.reopened)
        for fault in _forgot(history)
    ]


class Acceptance(NamedTuple):
    """Who had a transition accepted, and the earliest and latest moment of that."""

    worker: str
    earliest: float
    latest: float


def _acceptances(history: History) -> dict[Key, Acceptance]:
    """Return every transition that Redis accepted, by whatever shows it: journal, logs, hashes."""
    found: dict[Key, Acceptance] = {}

    def note(key: Key, new: Acceptance) -> None:
        old = found.setdefault(key, new)
        earliest, latest = min(old.earliest, new.earliest), min(old.latest, new.latest)
        found[key] = Acceptance(old.worker, earliest, latest)

    for entry in history.journal:
        one = entry.transition
        note((one.database, one.identity), Acceptance(one.worker, one.at, entry.at))
    for told_by in history.accepted:
        note(_key(told_by), Acceptance(told_by.worker, told_by.at, told_by.at))
    for database, sights in _all_sights(history).items():
        for sight in sights:
            if identity := _identity(sight.fields):
                since = float(sight.fields.get("since", sight.at))
                seen = Acceptance(sight.fields.get("seen_by", ""), since, sight.at)
                note((database, identity), seen)
    return found


def _key(accepted: Accepted) -> Key:
    return accepted.database, Identity.parse(accepted.identity)


def _identity(fields: Mapping[str, str]) -> Identity | None:
    return Identity.parse(fields["identity"]) if fields.get("identity") else None


def _all_sights(history: History) -> dict[str, list[Sight]]:
    """Return the sights of each database, the cache at the end as the last one."""
    found = {name: list(history.sights.get(name, [])) for name in databases_of(history)}
    for name in found.keys() & history.cache.keys():
        found[name].append(Sight(history.ended, history.cache[name]))
    return found


def _durable(history: History) -> set[Key]:
    rows_ = ((name, row) for name, some in history.rows.items() for row in some)
    return {(name, row.transition.identity) for name, row in rows_}


def _missing(history: History) -> dict[Key, Acceptance]:
    durable = _durable(history)
    return {key: one for key, one in _acceptances(history).items() if key not in durable}


def excuses(history: History, bounds: Bounds = STANDARD) -> dict[Key, str]:
    """Return what was lost the documented ways, and how.

    Its worker died and Redis forgot before the drain; or Postgres was set back to a time before it
    was accepted.
    """
    found = {key: _excuse(history, one, bounds) for key, one in _missing(history).items()}
    return {key: why for key, why in found.items() if why}


def _excuse(history: History, acceptance: Acceptance, bounds: Bounds) -> str:
    worker, earliest, latest = acceptance
    for fault in history.faults:
        if fault.effect is Effect.RESTORED and fault.began <= latest and earliest <= end(fault):
            return f"accepted before {fault.name} at {end(fault):.3f}"
    kills = [one for one in history.faults if one.effect is Effect.KILLED and worker in one.parties]
    for forgot in _forgot(history):
        replayed = _reopened(history, forgot) + bounds.replay
        untold = [one.began for one in kills if earliest <= one.began <= replayed]
        if end(forgot) >= earliest and untold and not _drained(history, latest, forgot, bounds):
            died = f"{worker} died at {untold[0]:.3f}"
            return f"{died}, Redis forgot in {forgot.name} from {forgot.began:.3f}"
    return ""


def _drained(history: History, accepted_at: float, forgot: Fault, bounds: Bounds) -> bool:
    """Tell whether historians had time enough before Redis forgot, with nothing in their way."""
    free, workers = accepted_at, _workers(history)
    for fault in sorted(ours(history, bounds), key=lambda fault: fault.began):
        processes = fault.parties - STORES
        if fault.began >= forgot.began or (processes and processes <= workers):
            continue  # a worker's trouble is none of the historian's
        if fault.began - free >= bounds.drain:
            return True
        free = max(free, _reopened(history, fault) if fault.effect is Effect.FORGOT else end(fault))
    return forgot.began - free >= bounds.drain


def _workers(history: History) -> set[str]:
    sights = itertools.chain.from_iterable(history.sights.values())
    told_by = {one.worker for one in history.accepted}
    told_by |= {entry.transition.worker for entry in history.journal}
    return told_by | {sight.fields.get("owner", "") for sight in sights}


# --- transitions ----------------------------------------------------------------------------------


def chain(
    history: History, lost: Collection[Key] = (), *, forks_allowed: bool = False, ahead: float = 0.0
) -> Iterator[Violation]:
    """Demand dense versions, an unbroken chain, and the cache at its end."""
    for database in sorted({*history.rows, *history.cache}):
        rows_ = history.rows.get(database, [])
        gone = {identity for name, identity in lost if name == database}
        texts = [
            *_misnumbered(rows_, forks_allowed),
            *_unlinked(chain_of(history, database), gone, ahead),
        ]
        if cached := history.cache.get(database):
            texts += _loose_end(chain_of(history, database), cached, gone)
        yield from (Violation("chain", database, text) for text in texts)


def _misnumbered(rows_: list[TransitionRow], forks_allowed: bool) -> Iterator[str]:
    for row in rows_:
        if row.superseded and not forks_allowed:
            yield f"{row.transition.identity} is superseded"
    versions = sorted(row.version or 0 for row in rows_ if not row.superseded)
    if versions != list(range(1, len(versions) + 1)):
        yield f"versions {versions}"


def _unlinked(links: list[Transition], gone: Collection[Identity], ahead: float) -> Iterator[str]:
    for before, after in itertools.pairwise([None, *links]):
        assert after
        prev = before.identity if before else None
        if after.prev in gone:
            continue
        if after.prev != prev:
            yield f"{after.identity} builds on {after.prev}, not on {prev}"
        if after.source != (expected := before.target if before else State.NEW):
            yield f"{after.identity} comes from {after.source}, not from {expected}"
        if not _follows(after.identity, prev):
            yield f"{after.identity} does not follow {prev}"
        if before and after.at < before.at - ahead:
            yield f"{after.identity} is dated {before.at - after.at:.3f} s before {prev}"


def _follows(identity: Identity, prev: Identity | None) -> bool:
    if prev and identity.epoch == prev.epoch:
        return identity.n == prev.n + 1
    return identity.n == 1 and (prev is None or identity.epoch > prev.epoch)


def _loose_end(
    links: list[Transition], cached: Mapping[str, str], gone: Collection[Identity]
) -> Iterator[str]:
    identity, state = _identity(cached), cached.get("state", State.NEW)
    if identity in gone:
        return
    last, target = (links[-1].identity, links[-1].target) if links else (None, State.NEW)
    if identity != last:
        yield f"the cache holds {identity}, the chain ends with {last}"
    if state != target:
        yield f"the cache says {state}, the chain ends with {target}"


def nothing_lost(history: History, lost: Collection[Key] = ()) -> Iterator[Violation]:
    """Demand that what Redis accepted is durable."""
    for key, (worker, earliest, latest) in _missing(history).items():
        if key not in lost:
            text = (
                f"{key[1]}, accepted from {worker or 'nobody known'} at "
                f"{earliest:.3f}..{latest:.3f}, is not durable"
            )
            yield Violation("nothing_lost", key[0], text)


def nothing_doubled(history: History) -> Iterator[Violation]:
    """Demand one content and row for each identity, journaled once by each memory of Redis."""
    if history.conflicts:
        yield Violation("nothing_doubled", "transition_conflicts", f"{history.conflicts} rows")
    for database, rows_ in history.rows.items():
        counts = Counter(row.transition.identity for row in rows_)
        doubled = {identity: times for identity, times in counts.items() if times > 1}
        for identity, times in doubled.items():
            yield Violation("nothing_doubled", database, f"{identity} stands in {times} rows")
    for (database, identity), contents in told(history).items():
        if len(texts := {encode(_stored(one)) for one in contents}) > 1:
            text = f"{identity} has {len(texts)} contents: {sorted(texts)}"
            yield Violation("nothing_doubled", database, text)
    for before, one in _journal_pairs(history):
        if before.identity == one.identity:
            text = f"{one.identity} was journaled twice"
            yield Violation("nothing_doubled", one.database, text)


def _stored(one: Transition) -> Transition:
    evidence = (replace(seen, detail=storable(seen.detail)) for seen in one.evidence)
    return replace(one, evidence=tuple(evidence))


def _journal_pairs(history: History) -> Iterator[tuple[Transition, Transition]]:
    """Yield neighbours in a database's journal within one memory of Redis, without replays."""
    last: dict[str, Journaled] = {}
    for entry in history.journal:
        if entry.replayed:
            continue
        before = last.get(entry.transition.database)
        if before and not _forgot_between(history, before.at, entry.at):
            yield before.transition, entry.transition
        last[entry.transition.database] = entry


# --- fencing --------------------------------------------------------------------------------------


def epochs(
    history: History,
    lost: Collection[Key] = (),
    bounds: Bounds = STANDARD,
    *,
    forks_allowed: bool = False,
) -> Iterator[Violation]:
    """Demand one owner for each epoch, that it alone writes, and none after a newer epoch."""
    blurred = _blurred(history, bounds)
    redated = [
        (fault.began, end(fault)) for fault in history.faults if fault.effect is Effect.CLOCK
    ]
    for database, sights in _all_sights(history).items():
        texts = [*_fallen_epochs(sights, blurred), *_strangers(sights, blurred)]
        texts += _fallen_observations(sights, blurred + redated, bounds)
        if not forks_allowed:
            texts += _fallen_identities(
                sights, blurred, {identity for name, identity in lost if name == database}
            )
        yield from (Violation("epochs", database, text) for text in texts)
    yield from _two_owners(history)
    for before, after in _journal_pairs(history):
        if after.identity < before.identity:
            yield Violation(
                "epochs", after.database, f"{after.identity} was journaled after {before.identity}"
            )
    for database in databases_of(history):
        for one, two in itertools.pairwise(chain_of(history, database)):
            if two.identity <= one.identity:
                yield Violation(
                    "epochs", database, f"{two.identity} was numbered after {one.identity}"
                )


class Mark(NamedTuple):
    """How far writing had come: falls when something older was written."""

    epoch: Epoch
    number: int


def _within(at: float, stretches: Iterable[tuple[float, float]]) -> bool:
    return any(since <= at <= until for since, until in stretches)


def _fallen_epochs(sights: list[Sight], blurred: list[tuple[float, float]]) -> Iterator[str]:
    highest: Mark | None = None
    last: Mark | None = None
    for sight in sights:
        if "epoch" not in sight.fields:
            last = None
            continue
        mark = Mark(Epoch.parse(sight.fields["epoch"]), int(sight.fields.get("number", 0)))
        if highest is None or mark >= highest:
            highest = mark
        elif not _within(sight.at, blurred):
            yield (
                f"beat {mark.number} of {mark.epoch} after beat {highest.number} of "
                f"{highest.epoch} at {sight.at:.3f}"
            )
            highest = mark  # named once
        elif last and last < mark:
            yield (
                f"{mark.epoch} wrote beat {mark.number} at {sight.at:.3f}, before a new "
                f"generation was opened"
            )
        last = mark


def _strangers(sights: list[Sight], blurred: list[tuple[float, float]]) -> Iterator[str]:
    """Name who wrote and did not own: from an epoch's first beat on all that is seen is its
    owner's.

    A void says its cause and leaves the last observation, and who made it, as it is.
    """
    for sight in sights:
        owner, seen_by = sight.fields.get("owner"), sight.fields.get("seen_by")
        void = EVIDENCE[Cause(sight.fields.get("cause", "ok"))] is Evidence.OUR_FAULT
        proven = "number" in sight.fields and not void  # an assignment removes it
        if owner and proven and seen_by != owner and not _within(sight.at, blurred):
            yield (
                f"{seen_by} wrote at {sight.at:.3f} what {owner} owns under "
                f"{sight.fields.get('epoch')}"
            )


def _fallen_observations(
    sights: list[Sight], excused: list[tuple[float, float]], bounds: Bounds
) -> Iterator[str]:
    """Name observations that gave way to older ones of the same epoch."""
    seen = [sight for sight in sights if "number" in sight.fields and "observed_at" in sight.fields]
    for before, after in itertools.pairwise(seen):
        fall = float(before.fields["observed_at"]) - float(after.fields["observed_at"])
        same = before.fields.get("epoch") == after.fields.get("epoch")
        if same and fall > bounds.reread and not _within(after.at, excused):
            yield (
                f"the observation seen at {after.at:.3f} is {fall:.3f} s older than the one before"
            )


def _fallen_identities(
    sights: list[Sight], blurred: list[tuple[float, float]], gone: Collection[Identity]
) -> Iterator[str]:
    highest: Identity | None = None
    for sight in sights:
        if "state" not in sight.fields:
            continue
        identity = _identity(sight.fields)
        if highest is None or highest in gone or (identity and identity >= highest):
            highest = identity
        elif not _within(sight.at, blurred):
            yield f"{identity} was seen after {highest} at {sight.at:.3f}"
            highest = identity


def _two_owners(history: History) -> Iterator[Violation]:
    owners: dict[tuple[str, Epoch], set[str]] = defaultdict(set)
    for database, sights in _all_sights(history).items():
        for sight in sights:
            if "epoch" in sight.fields and sight.fields.get("owner"):
                owners[database, Epoch.parse(sight.fields["epoch"])].add(sight.fields["owner"])
    for (database, identity), contents in told(history).items():
        owners[database, identity.epoch] |= {one.worker for one in contents}
    for (database, epoch), workers in owners.items():
        if len(workers) > 1:
            yield Violation("epochs", database, f"{epoch} was given to {sorted(workers)}")


def terms(history: History) -> Iterator[Violation]:
    """Demand that each leader takes a higher term than all before."""
    for (_, before, old), (at, who, new) in itertools.pairwise(history.terms):
        if new <= old:
            yield Violation("terms", who, f"took term {new} at {at:.3f}, after {before} took {old}")


# --- processes ------------------------------------------------------------------------------------


def connections(history: History, bounds: Bounds = STANDARD) -> Iterator[Violation]:
    """Demand at most two connections to each database, of each worker and, at rest, of all."""
    ports = (ports_of(history, database) for database in history.ports)
    allowed = Counter([*itertools.chain.from_iterable(ports)] * EACH)
    looks: dict[tuple[float, int], list[Connections]] = defaultdict(list)
    for one in history.connections:
        looks[one.at, one.port].append(one)
        if one.count > allowed[one.port]:
            text = f"{one.count} to port {one.port} at {one.at:.3f}, {allowed[one.port]} are enough"
            yield Violation("connections", one.worker, text)
    unsteady = {port: _unsteady(history, port, bounds) for port in allowed}
    for (at, port), held in looks.items():
        total = sum(one.count for one in held)
        if total > allowed[port] and not _within(at, unsteady.get(port, [])):
            by = {one.worker: one.count for one in held}
            text = f"{total} to port {port} at {at:.3f}, {allowed[port]} are enough: {by}"
            yield Violation("connections", "all workers", text)


def _unsteady(history: History, port: int, bounds: Bounds) -> list[tuple[float, float]]:
    """Return when two workers may hold connections to the databases of a port."""
    found = [
        (
            fault.began - bounds.change,
            (fault.began if fault.effect is Effect.KILLED else end(fault)) + bounds.change,
        )
        for fault in history.faults
        if fault.effect in (Effect.FROZEN, Effect.KILLED)
        or (fault.effect is Effect.AWAY and "postgres" not in fault.parties)
    ]
    for database in history.ports:
        if port in ports_of(history, database):
            owned = [sight for sight in history.sights.get(database, []) if "owner" in sight.fields]
            for before, after in itertools.pairwise(owned):
                if before.fields["owner"] != after.fields["owner"]:
                    found.append((before.at - bounds.change, after.at + bounds.change))
    return found


def stalls(history: History, bounds: Bounds = STANDARD) -> Iterator[Violation]:
    """Demand that no loop stands still unless the machine or a fault made it."""
    for stall in history.stalls:
        own = stall.seconds - stall.starved
        its = [one for one in history.faults if stall.worker in one.parties]
        frozen = [one for one in its if one.effect is Effect.FROZEN]
        began, thaw = stall.at - stall.seconds, bounds.thaw
        excused = any(reaches(fault, began, stall.at, after=thaw) for fault in frozen)
        if own > bounds.stall and not excused:
            besides = f"besides {stall.starved:.3f} s without a processor"
            text = f"{own:.3f} s until {stall.at:.3f} ({besides})"
            yield Violation("stalls", stall.worker, text)


def counters(history: History) -> Iterator[Violation]:
    """Demand that counters only rise in one memory, and that those of the impossible stay 0."""
    for before, after in itertools.pairwise(history.counted):
        # A look is dated when it begins: Redis may have forgotten before it was answered.
        if _forgot_between(history, before.at, after.at + LOOK):
            continue
        for what, count in before.counters.items():
            if after.counters.get(what, 0) < count:
                text = f"fell from {count} to {after.counters.get(what, 0)} at {after.at:.3f}"
                yield Violation("counters", what, text)
    most: Counter[str] = Counter()
    for counted in history.counted:
        most |= Counter(counted.counters)
    wrong = ((what, count) for what, count in most.items() if _is_impossible(what))
    yield from (Violation("counters", what, f"{count}") for what, count in wrong)


def _is_impossible(counter: str) -> bool:
    return "conflict" in counter or counter == "trimmed_unacknowledged"


# --- secrets --------------------------------------------------------------------------------------


def secrets(history: History) -> Iterator[Violation]:
    """Demand that no secret stands anywhere, in whatever form."""
    forms = [
        (i, form, text) for i, secret in enumerate(history.secrets) for form, text in _forms(secret)
    ]
    for place, written in history.written.items():
        lowered = written.lower()
        found = {
            (i, form): None
            for i, form, text in forms
            if text in (lowered if form in ("hex", "percent-encoded") else written)
        }
        for i, form in found:
            # never the secret itself
            yield Violation("secrets", place, f"holds secret {i}, {form}")


def _forms(secret: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield what a secret may look like; small letters where case does not matter."""
    if not secret:
        return
    yield "plain", secret
    yield "hex", secret.hex().encode()
    percents = {quote(secret, safe=""), quote(secret), quote_plus(secret)}
    percents.add("".join(f"%{byte:02x}" for byte in secret))
    changed = {one for one in percents if one.encode() != secret}
    yield from (("percent-encoded", one.lower().encode()) for one in changed)
    text = secret.decode(errors="replace")
    escaped = {json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1]}
    escaped |= {repr(text)[1:-1], repr(secret)[2:-1]}
    yield from (("escaped", one.encode()) for one in escaped if one.encode() != secret)
    for before in range(3):  # the bytes that may stand before it in the same group of three
        whole = base64.b64encode(b"\0" * before + secret)
        core = whole[(0, 2, 3)[before] : (before + len(secret)) * 8 // 6]
        yield "base64", core
        yield "base64", core.replace(b"+", b"-").replace(b"/", b"_")


# --- feeling goes on ------------------------------------------------------------------------------


def lateness(
    history: History,
    databases: Iterable[str],
    between: tuple[float, float],
    *,
    interval: float = 5.0,
) -> list[float]:
    """Return by how many seconds each observation came later than `interval` after the one before.

    The ends of the stretch count as observations: what was never felt in it is late by all of it.
    """
    since, until = between
    found = []
    for database in databases:
        sights = [one.fields for one in history.sights[database]]
        moments = {float(one["observed_at"]) for one in sights if "observed_at" in one}
        felt = sorted({since, until, *(at for at in moments if since < at < until)})
        found += [max(0.0, after - before - interval) for before, after in itertools.pairwise(felt)]
    return found


def caught_up(history: History, database: str, moment: float) -> float:
    """Return the seconds from `moment` to the first sight of a newer observation, or infinity."""
    after = (sight for sight in history.sights.get(database, []) if sight.at >= moment)
    newer = (one for one in after if float(one.fields.get("observed_at", 0)) > moment)
    return next((sight.at - moment for sight in newer), math.inf)
