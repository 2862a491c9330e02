"""What a reader has set aside, since it could not be read: each thing is told once. Anyone may
import this.
"""

from collections.abc import Iterable, Mapping
from typing import TypeVar

MOST = 10_000  # known by name; beyond that they are told again

W = TypeVar("W")


class Aside:
    """The memory of one reader."""

    def __init__(self) -> None:
        self._told: set[tuple[str, str]] = set()  # kind and name

    def news(self, kind: str, bad: Mapping[str, W], good: Iterable[str] = ()) -> dict[str, W]:
        """Return those of the bad ones that were not told yet; what is good again will be told
        anew.
        """
        if self._told:
            self._told.difference_update((kind, name) for name in good)
        news = {name: why for name, why in bad.items() if (kind, name) not in self._told}
        if len(self._told) > MOST:
            self._told.clear()
        self._told.update((kind, name) for name in news)
        return news
