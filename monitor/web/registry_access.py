"""How routes reach the registry: its store, how long to wait for it, and look-ups of names.

Only routes that need Postgres import this; GET /last_observation is handed the look-up by app.py.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Annotated, ParamSpec, TypeVar

from anyio import to_thread
from fastapi import Depends, Request

from monitor.core.errors import StoreUnavailable, Unreadable
from monitor.core.status import Status
from monitor.live.observations import Latest
from monitor.registry import fleet
from monitor.registry.fleet import Database
from monitor.registry.store import Store
from monitor.web.parameters import Lookup

DEADLINE = 3.0  # seconds: /readyz and /metrics must answer while Postgres hangs

P = ParamSpec("P")
T = TypeVar("T")


async def store_of(request: Request) -> Store:
    """Return the app's registry."""
    store: Store = request.app.state.store
    return store


StoreOf = Annotated[Store, Depends(store_of)]


async def within_deadline(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a function of the registry in a thread, or raise StoreUnavailable when it takes too long.

    One that takes too long goes on unseen.
    """
    try:
        async with asyncio.timeout(DEADLINE):
            return await to_thread.run_sync(
                lambda: function(*args, **kwargs), abandon_on_cancel=True
            )
    except TimeoutError:
        raise StoreUnavailable("postgres", "slow") from None


def lookup_in(store: Store) -> Lookup:
    """Return what answers for names that Redis does not know: just added, or not watched yet."""

    async def lookup(names: Sequence[str]) -> dict[str, Latest]:
        found = await within_deadline(fleet.read_named, store, names)
        if found.unreadable and not found.databases:
            raise Unreadable("database", min(found.unreadable))
        return {row.name: _unobserved(row) for row in found.databases}

    return lookup


def _unobserved(row: Database) -> Latest:
    return Latest(
        database=row.name,
        status=Status(),
        labels=row.labels,
        policy=row.policy,
        ciphertext=row.ciphertext,
    )
