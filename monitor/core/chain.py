"""How transitions of one database are numbered for people: 1, 2, ... along `prev`. Anyone may
import this.

Each transition names the one it builds on. After faults two may build on the same one, or one on a
transition that was lost. The highest identity was decided last, so it is the head, and the chain is
the way back from it.
"""

from bisect import bisect_right
from collections.abc import Mapping

from monitor.core.status import Identity

Links = Mapping[Identity, Identity | None]  # each transition and the one it builds on


def number(links: Links) -> dict[Identity, int | None]:
    """Return each transition's version, None where it is superseded; the order of arrival does not
    matter.
    """
    chain = _chain(links)
    return dict.fromkeys(links) | {
        identity: version for version, identity in enumerate(reversed(chain), start=1)
    }


def extend(head: Identity | None, version: int, links: Links) -> dict[Identity, int] | None:
    """Return what `number` would for new transitions that follow the head one by one; None when
    they do not.
    """
    versions: dict[Identity, int] = {}
    for identity in sorted(links):
        if links[identity] != head or (head is not None and identity <= head):
            return None
        head, version = identity, version + 1
        versions[identity] = version
    return versions


def renumber(
    links: Links, anchor: Identity, version: int, *, last: bool = False
) -> dict[Identity, int | None] | None:
    """Return what `number` would for the transitions from `anchor` on, a member of the chain under
    this version.

    None where the chain leaves them below it: then the fork lies further back; where nothing is
    known of what lies there it counts as at `anchor`.
    """
    chain = _chain(links)
    if chain[-1] != anchor:
        if not last:
            return None
        chain.append(anchor)
    return dict.fromkeys(links) | {
        identity: at for at, identity in enumerate(reversed(chain), start=version)
    }


def _chain(links: Links) -> list[Identity]:
    """Walk from the highest identity back to the root; past a lost one, on at the highest that lies
    below it.
    """
    ordered = sorted(links)
    at, chain = len(ordered) - 1, list[Identity]()
    while at >= 0:
        identity = ordered[at]
        chain.append(identity)
        prev = links[identity]
        # min: a transition that claims to build on itself or on a later one must not send us round
        # in circles.
        at = -1 if prev is None else min(bisect_right(ordered, prev), at) - 1
    return chain
