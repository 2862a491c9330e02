"""What a person does to the Redis that holds the fleet: adopt it, read and replay dead letters.

Only cli.py imports this. Every change leaves an audit line.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from monitor.config import Settings
from monitor.core.errors import FeelerError, InvalidInput, short
from monitor.live import connections, generation, letters
from monitor.live.connections import Live
from monitor.live.letters import Letter
from monitor.registry import leadership
from monitor.registry.store import open_store
from monitor.terminal.audit import audited


def adopt(settings: Settings, confirmed: str) -> str:
    """Give the Redis of these settings to their registry; return what came of it.

    `confirmed` is the short name of the registry that holds it. Workers learn of it within seconds
    and restore the new name from then on.
    """
    store = open_store(settings.database_url)
    try:
        ours = leadership.registry(store)
    finally:
        store.close()
    return asyncio.run(_adopt(settings, ours, confirmed))


def dead_letters(settings: Settings) -> list[Letter]:
    """Return the journal's entries that some process could not read."""
    return asyncio.run(_dead_letters(settings))


def replay_dead_letters(settings: Settings) -> tuple[int, int]:
    """Give the readable ones to the journal again; return how many, and how many are left."""
    return asyncio.run(_replay(settings))


async def _adopt(settings: Settings, ours: str, confirmed: str) -> str:
    async with _connected(settings) as live:
        standing = await generation.standing(live)
        holder = standing.holder(ours)
        if not holder:
            return f"no other registry than ours, {short(ours)}, holds this Redis: nothing to do"
        lost = f"what ours, {short(ours)}, does not list is forgotten"
        problem = f"registry {short(holder)} holds this Redis; {lost}"
        fix = f"to do it: feeler redis adopt {short(holder)}"
        unconfirmed = InvalidInput("HOLDER", problem, fix)
        if not confirmed:
            raise unconfirmed  # a look: nothing to audit
        with audited(f"redis-adopt:{short(holder)}->{short(ours)}"):
            if confirmed != short(holder):
                raise unconfirmed
            if not await generation.take_over(live, ours, standing.signature.takeovers + 1):
                raise FeelerError("somebody else took this Redis over at the same time: look again")
    return f"registry {short(ours)} holds this Redis now, in place of {short(holder)}"


async def _dead_letters(settings: Settings) -> list[Letter]:
    async with _connected(settings) as live:
        return await letters.dead_letters(live)


async def _replay(settings: Settings) -> tuple[int, int]:
    async with _connected(settings) as live:
        found = await letters.dead_letters(live)
        readable = [letter for letter in found if letter.readable]
        opened = await generation.generation(live)
        with audited(f"journal-replay:{len(readable)}"):
            if not await letters.revive(live, opened.name, readable):
                wait = "a supervisor has opened the generation"
                raise FeelerError(f"nothing can be replayed before {wait}: try again")
    return len(readable), len(found) - len(readable)


@asynccontextmanager
async def _connected(settings: Settings) -> AsyncIterator[Live]:
    live = connections.connect(settings.redis_url, settings.cache_url, part="cli")
    try:
        yield live
    finally:
        await connections.close(live)
