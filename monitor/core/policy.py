"""How a database is felt and how much evidence a verdict needs: values only.

Anyone may import this.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from monitor.core.cause import EVIDENCE, Cause, Evidence
from monitor.core.errors import InvalidInput
from monitor.core.timing import LED_MARK, POLICY_RELATIONS, AtMost


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Cadences, deadlines and patience of one kind of database; all times in seconds."""

    name: str = "default"
    interval: float = 5.0  # between beats while all is well
    deadline: float = 2.0  # a probe that takes longer is severed
    fast_interval: float = 1.0  # while uncertain, and for fast_seconds after a change for the worse
    fast_seconds: float = 60.0
    bad_interval: float = 2.0  # in a bad state after that
    # Proof that fresh logins work; stretched where that costs too much.
    login_interval: float = 60.0
    # A login that takes longer is severed: between these, by the database's own usual login.
    login_least: float = 2.0
    login_most: float = 5.0  # this one where none is known
    # Between logins at a server that lets us in nowhere: no such database, pg_hba, TLS.
    entry_interval: float = 30.0
    password_first: float = 60.0  # from the second refusal of a password to the next login ...
    password_interval: float = 300.0  # ... and between all later ones
    slow_interval: float = 60.0  # table sums and sizes; stretched by their measured cost
    absent_rounds: int = 2
    absent_seconds: float = 2.0
    silent_rounds: int = 3
    silent_seconds: float = 10.0
    alone_seconds: float = 30.0
    recovery_rounds: int = 2
    recovery_seconds: float = 2.0  # between the first and the last ok of a recovery
    opinion_grace: float = 2.0  # a peer's newest negative may be older than one deadline by this
    handover_grace: float = 10.0  # the same for a former owner, who no longer probes
    # How long a worker that could not reach it is remembered.
    unreachable_from_seconds: float = 600.0

    def __post_init__(self) -> None:
        """Refuse what breaks a relation: it would call well databases down, or never decide."""
        for field, value in asdict(self).items():
            if field != "name" and not (math.isfinite(value) and value > 0):
                raise InvalidInput(f"policy/{field}", "must be more than zero")
        if self.alone_seconds <= LED_MARK:
            why = "so long a leader that is gone seems to be there"
            problem = f"must be more than {LED_MARK} s: {why}"
            raise InvalidInput("policy/alone_seconds", problem, "30 is the default")
        for relation in POLICY_RELATIONS:
            self._hold(relation)

    def _hold(self, relation: AtMost) -> None:
        small, large = relation.small, relation.large
        lower, upper = getattr(self, small), getattr(self, large)
        if lower * relation.times <= upper:
            return
        least = f"{relation.times} x {small}" if relation.times > 1 else small
        problem = f"{upper:g} is less than {least} ({lower:g}): {relation.why}"
        raise InvalidInput(f"policy/{large}", problem, f"raise {large} or lower {small}")

    def seconds_required(self, cause: Cause | None) -> float:
        """Return how long the rule for such negatives waits; the longer one for no known cause."""
        if cause and EVIDENCE[cause] is Evidence.ABSENT:
            return self.absent_seconds
        return self.silent_seconds

    @property
    def stale_after(self) -> float:
        """Seconds until an observation speaks for now no more: two beats missed and a deadline."""
        return 3 * self.interval + self.deadline


def stored(fields: Mapping[str, Any]) -> tuple[Policy, str]:
    """Return a policy that was stored, and ''; or the default's values and what is wrong with it.

    An older version, or a hand, may have stored what nobody may use.
    """
    try:
        return Policy(**fields), ""
    except InvalidInput as exc:
        return Policy(name=fields.get("name", "default")), str(exc)
