"""Long sequences in parts: what one round trip, statement or script call takes. Anyone may import
this.
"""

from collections.abc import Iterator
from typing import Protocol, Self, TypeVar


class _Sliceable(Protocol):
    def __len__(self) -> int: ...
    def __getitem__(self, part: slice, /) -> Self: ...


S = TypeVar("S", bound=_Sliceable)


def chunks(items: S, size: int) -> Iterator[S]:
    """Cut a sequence into parts of `size`, the last maybe shorter; nothing has no parts."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
