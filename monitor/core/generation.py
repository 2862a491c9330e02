"""What a look at Redis tells of the generation and of whose it is. Anyone may import this."""

from dataclasses import dataclass

from monitor.core.status import Epoch


@dataclass(frozen=True, slots=True, order=True)
class Signature:
    """Whose a Redis is: which registry gave the terms in it ('' while nobody said so), after how
    many take-overs.
    """

    takeovers: int = 0
    registry: str = ""

    def __str__(self) -> str:
        return f"{self.registry} {self.takeovers}" if self.registry else ""

    @classmethod
    def parse(cls, text: str) -> "Signature":
        """Read what stands in a partition; a newer version may say more."""
        registry, takeovers = [*text.split(), "", ""][:2]
        return cls(int(takeovers) if takeovers.isdecimal() else 0, registry)


@dataclass(frozen=True, slots=True)
class Generation:
    """What one look found; `name` is '' while closed."""

    name: str
    instance: str  # the replication id of the server
    signature: Signature

    @property
    def open(self) -> bool:
        return bool(self.name)

    @property
    def epoch(self) -> Epoch | None:
        """The leader's epoch that opened it: never go back to a generation with a lower one."""
        return Epoch.parse(self.name.partition(":")[2]) if self.name else None
