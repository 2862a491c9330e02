"""What a reader has set aside, since it could not be read: each thing is reported once.

Anyone may import this.
"""

from collections.abc import Iterable, Mapping
from typing import TypeVar

MOST = 10_000  # known by name; beyond that they are reported again

W = TypeVar("W")


class Aside:
    """The names one reader has reported."""

    def __init__(self) -> None:
        self._reported: set[tuple[str, str]] = set()  # kind and name

    def news(self, kind: str, bad: Mapping[str, W], good: Iterable[str] = ()) -> dict[str, W]:
        """Return those of the bad ones not reported yet; what is good again will be anew."""
        if self._reported:
            self._reported.difference_update((kind, name) for name in good)
        news: dict[str, W] = {}
        for name, why in bad.items():
            if (kind, name) not in self._reported:
                news[name] = why
        if len(self._reported) > MOST:
            self._reported.clear()
        self._reported.update((kind, name) for name in news)
        return news
