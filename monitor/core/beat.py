"""What a worker sends of one database, and what Redis answers. Anyone may import this."""

from dataclasses import dataclass
from enum import StrEnum

from monitor.core.event import Event
from monitor.core.observation import Observation
from monitor.core.status import Epoch, Status


class Reply(StrEnum):
    """What Redis answers to a beat."""

    ACCEPTED = "accepted"
    CLOSED = "closed"  # the generation is not open, or another one is
    TWIN = "twin"  # another process of the same id records under this epoch
    FENCED = "fenced"  # the epoch is not the assignment's, or somebody else owns the database
    AHEAD = "ahead"  # the hash holds a newer identity, or one my first new event does not build on
    CONFLICT = "conflict"  # same identity, other state


@dataclass(frozen=True, slots=True)
class Beat:
    """One observation, `events` still to be accepted (oldest first), and the Status after them."""

    database: str
    epoch: Epoch
    status: Status
    observation: Observation
    events: tuple[Event, ...] = ()
