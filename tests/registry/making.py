"""Transitions to write, made short."""

from monitor.core.cause import Cause
from monitor.core.event import Finding, Transition
from monitor.core.status import Identity, State
from tests import factories

NOON = 1_764_000_000.125  # fleet seconds


def transition(
    name: str, prev: str | None = None, *, database: str = "db1", worker: str = "w1-0a0b0c"
) -> Transition:
    """Make the transition of that identity, by default from uncertain to unavailable."""
    at = NOON + Identity.parse(name).n % 1000
    return factories.transition(
        name,
        prev or "",
        State.UNAVAILABLE,
        database,
        source=State.UNCERTAIN,
        rule="confirm_absent",
        at=at,
        worker=worker,
        observers=(worker, "w2-0a0b0c"),
        evidence=(
            Finding(worker, at - 0.5, at, Cause.PORT_CLOSED, 2, "connection refused"),
            Finding("w2", 1.0, 2.0, Cause.RESET),
        ),
    )


def line(*names: str, database: str = "db1") -> list[Transition]:
    """Make transitions that build on one another."""
    return [
        transition(name, prev, database=database)
        for name, prev in zip(names, [None, *names], strict=False)
    ]
