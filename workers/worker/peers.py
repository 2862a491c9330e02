"""Who else is there to form an opinion of a database. Only workers/worker imports this."""

from dataclasses import dataclass


@dataclass(slots=True)
class Peers:
    """The workers that can watch, as this one saw them last."""

    eligible: int = 1  # this one included
    # monotonic; None unless exactly one worker is, without a break, where somebody leads
    alone_since: float | None = None

    def meet(self, others: int, *, led: bool, now: float) -> None:
        """Note who is here. At a Redis that nobody leads we may be the ones left behind."""
        self.eligible = 1 + others
        if others or not led:
            self.alone_since = None
        elif self.alone_since is None:
            self.alone_since = now

    def lose_sight(self) -> None:
        """Note that nobody can be seen now: whoever was alone starts anew."""
        self.alone_since = None
