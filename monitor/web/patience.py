"""How routes reach the registry: the store, and how long to wait for it. Only routes that need
Postgres import this.
"""

import asyncio
from collections.abc import Callable
from typing import Annotated, ParamSpec, TypeVar

from anyio import to_thread
from fastapi import Depends, Request

from monitor.core.errors import StoreUnavailable
from monitor.registry.store import Store

SOON = 3.0  # seconds: /readyz and /metrics must answer while Postgres hangs

P = ParamSpec("P")
T = TypeVar("T")


async def store_of(request: Request) -> Store:
    """Return the app's registry."""
    store: Store = request.app.state.store
    return store


async def soon(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a function of the registry in a thread; StoreUnavailable when it takes too long (it goes
    on unseen).
    """
    try:
        async with asyncio.timeout(SOON):
            return await to_thread.run_sync(
                lambda: function(*args, **kwargs), abandon_on_cancel=True
            )
    except TimeoutError:
        raise StoreUnavailable("postgres", "slow") from None


StoreOf = Annotated[Store, Depends(store_of)]
