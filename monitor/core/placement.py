"""Who owns a database, as its hash in Redis says it. Values only; anyone may import this."""

from dataclasses import dataclass
from enum import StrEnum

from monitor.core.status import Epoch, Identity, State


class Assigned(StrEnum):
    """What Redis says to an assignment."""

    ASSIGNED = "assigned"
    FOREIGN = "foreign"  # this Redis is another registry's: step down
    STALE = "stale"  # a higher term was seen, or the epoch is not higher: step down
    UNPROVEN = "unproven"  # a planned move before the owner's first accepted beat under its epoch
    CLOSED = "closed"  # a planned move while the generation is closed
    SETTLED = "settled"  # the doubt this move was for is not open any more


@dataclass(frozen=True, slots=True)
class Place:
    """The leader's view of one hash."""

    database: str
    owner: str = ""
    epoch: Epoch | None = None
    proven: bool = False
    state: State = State.NEW
    seeded: bool = False  # the hash holds a state
    identity: Identity | None = None
    doubt: Identity | None = None
    claimant: str = ""  # who held the highest epoch, by what was restored
    claim: Epoch | None = None
    moved_for: Identity | None = None  # the doubt of the last cannot_reach move
    moves: tuple[float, ...] = ()  # when the last three of them were, unix seconds
