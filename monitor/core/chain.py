"""How transitions of one database are numbered for people: 1, 2, ... along `prev`.

Anyone may import this. Each transition names the one it builds on. After faults two may build on
the same one, or one on a transition that was lost. The highest identity was decided last, so it is
the head, and the chain is the way back from it.
"""

from bisect import bisect_right
from collections.abc import Mapping

from monitor.core.status import Identity

Links = Mapping[Identity, Identity | None]  # each transition and the one it builds on
Versions = dict[Identity, int | None]  # None: superseded


def number(links: Links) -> Versions:
    """Return each transition's version; the order of arrival does not matter."""
    return _versions(links, _chain(links), first=1)


def extend(head: Identity | None, version: int, links: Links) -> dict[Identity, int] | None:
    """Return what `number` would for new transitions that follow the head one by one.

    None when they do not.
    """
    versions: dict[Identity, int] = {}
    for identity in sorted(links):
        older = head is not None and identity <= head
        if older or links[identity] != head:
            return None
        head = identity
        version += 1
        versions[identity] = version
    return versions


def renumber(
    links: Links, anchor: Identity, version: int, *, last: bool = False
) -> Versions | None:
    """Return what `number` would from `anchor` on, a member of the chain under this version.

    None where the chain leaves them below it: the fork lies further back. Where nothing is known of
    what lies there (`last`) it counts as at `anchor`.
    """
    chain = _chain(links)
    if chain[-1] != anchor:
        if not last:
            return None
        chain.append(anchor)
    return _versions(links, chain, first=version)


def _versions(links: Links, chain: list[Identity], first: int) -> Versions:
    versions: Versions = dict.fromkeys(links)
    for version, identity in enumerate(reversed(chain), start=first):
        versions[identity] = version
    return versions


def _chain(links: Links) -> list[Identity]:
    """Walk from the highest identity back to the root.

    Past a lost one it goes on at the highest that lies below it.
    """
    ordered = sorted(links)
    chain: list[Identity] = []
    at = len(ordered) - 1
    while at >= 0:
        identity = ordered[at]
        chain.append(identity)
        prev = links[identity]
        if prev is None:
            break
        # min: one that claims to build on itself or on a later one must not send us in circles.
        at = min(bisect_right(ordered, prev), at) - 1
    return chain
