"""The shapes of the answers: the contract with automation.

The web writes them, terminal/client.py reads them; they import core alone.
"""

from typing_extensions import TypedDict  # pydantic cannot read typing.TypedDict before Python 3.12

from monitor.core.observation import Value


class DatabaseShape(TypedDict):
    """`address` has no password; it is empty where no key of ours opens it."""

    name: str
    labels: dict[str, str]
    address: str


class ReasonShape(TypedDict):
    """`detail` is what the server said, `advice` what to do next: for people, and may change.

    `revision` is the registered database's when it was probed: a lower one is about the address
    before.
    """

    code: str
    sqlstate: str
    detail: str
    advice: str
    revision: int


class FamilyShape(TypedDict):
    status: str
    observed_at: str
    age_seconds: float
    stale: bool
    code: str
    advice: str


class ObservationShape(TypedDict):
    observed_at: str
    age_seconds: float
    interval_seconds: float
    login_interval_seconds: float
    stale: bool
    stale_after_seconds: float
    worker: str
    cause: str
    duration_ms: float
    waited_ms: int
    dns_stale: bool
    pooled: bool
    values: dict[str, Value]
    units: dict[str, str]
    families: dict[str, FamilyShape]
    errors: dict[str, str]


class LastObservationShape(TypedDict):
    """`stale` is feeler's fault, whatever `state`; a gauge that failed is absent from `values`."""

    database: DatabaseShape
    state: str
    state_since: str | None
    transition: str | None
    rule: str
    reason: ReasonShape | None
    unreachable_from: list[str]
    observation: ObservationShape | None
    owner: str
    links: dict[str, str]


class ListMetaShape(TypedDict):
    """`total` counts all databases asked for, `states` and the age only those in this page.

    `trouble` says why observations may not be coming: nobody watches, or nobody leads; empty where
    all is well.
    """

    total: int
    oldest_age_seconds: float | None
    states: dict[str, int]
    trouble: list[str]


class ObservationsShape(TypedDict):
    """A page may be shorter than its limit: go on while there is a `next_cursor`.

    `unreadable` names databases whose rows this version cannot read; those asked for by name are in
    `missing` too.
    """

    data: list[LastObservationShape]
    meta: ListMetaShape
    missing: list[str]
    unreadable: list[str]
    next_cursor: str | None


class RegisteredShape(TypedDict):
    name: str
    url: str
    labels: dict[str, str]
    policy: str
    zone: str
    status: str
    revision: int  # one higher with each change, and the ETag


class FleetShape(TypedDict):
    data: list[RegisteredShape]
    next_cursor: str | None


class SeenShape(TypedDict):
    worker: str
    sent_at: str
    observed_at: str
    cause: str
    rounds: int
    detail: str


# `from` is a keyword: the call form is the only one that can name it.
TransitionShape = TypedDict(
    "TransitionShape",
    {
        "version": int | None,
        "superseded": bool,
        "identity": str,
        "previous": str | None,
        "from": str,
        "to": str,
        "rule": str,
        "at": str,
        "worker": str,
        "observers": list[str],
        "evidence": list[SeenShape],
    },
)


class TransitionsShape(TypedDict):
    data: list[TransitionShape]
    next_before: int | None


class WorkerShape(TypedDict):
    """`replaced`: observations that newer ones replaced before they could leave; `unjudged`: those
    that changed no state, as too many events waited for Redis."""

    id: str
    host: str
    zone: str
    capacity: int
    owned: int
    age_seconds: float
    started_at: str
    lateness_seconds: float
    rejected: int
    retained: int
    replaced: int
    unjudged: int
    leaving: bool
    able: bool  # False: lately it could look at no database at all, for faults of its own
    given_up: dict[str, int]  # databases that it could not look at lately, by cause


class WorkersShape(TypedDict):
    data: list[WorkerShape]


class AcceptedShape(TypedDict):
    request: str
    database: str


class ErrorShape(TypedDict):
    pointer: str
    detail: str


class ProblemShape(TypedDict):
    """RFC 9457; `request_id` is in the web's log too."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    request_id: str
    errors: list[ErrorShape]
