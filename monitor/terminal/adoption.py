"""A Redis changes hands: from one registry to another, by a person's word. Only cli.py imports
this.
"""

import asyncio

from monitor.config import Settings
from monitor.core.errors import FeelerError, InvalidInput, short
from monitor.live import connections, generation
from monitor.registry import leadership
from monitor.registry.store import open_store
from monitor.terminal.auditing import audited


def adopt(settings: Settings, confirmed: str) -> str:
    """Give the Redis of these settings to their registry; `confirmed` is the short name of the one
    that holds it.

    Workers learn of it within seconds and restore the new name from then on.
    """
    store = open_store(settings.database_url)
    try:
        ours = leadership.registry(store)
    finally:
        store.close()
    return asyncio.run(_adopt(settings, ours, confirmed))


async def _adopt(settings: Settings, ours: str, confirmed: str) -> str:
    live = connections.connect(settings.redis_url, settings.cache_url, part="adoption")
    try:
        standing = await generation.standing(live)
        holder = standing.holder(ours)
        if not holder:
            return f"no other registry than ours, {short(ours)}, holds this Redis: nothing to do"
        lost = f"what ours, {short(ours)}, does not list is forgotten"
        unconfirmed = InvalidInput(
            "HOLDER",
            f"registry {short(holder)} holds this Redis; {lost}",
            f"to do it: feeler redis adopt {short(holder)}",
        )
        if not confirmed:
            raise unconfirmed  # a look: nothing to audit
        with audited(f"redis-adopt:{short(holder)}->{short(ours)}"):
            if confirmed != short(holder):
                raise unconfirmed
            if not await generation.take_over(live, ours, standing.signature.takeovers + 1):
                raise FeelerError("somebody else took this Redis over at the same time: look again")
    finally:
        await connections.close(live)
    return f"registry {short(ours)} holds this Redis now, in place of {short(holder)}"
