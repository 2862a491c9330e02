"""What the registry knows of databases that Redis has not heard of: just added, or watched by
nobody yet.

Imported by app.py, which hands it to the routes: GET /last_observation itself imports no registry.
"""

from collections.abc import Sequence

from monitor.core.errors import Unreadable
from monitor.core.status import Status
from monitor.live.observations import Latest
from monitor.registry import fleet
from monitor.registry.store import Store
from monitor.web.parameters import Registry
from monitor.web.patience import soon


def registry_of(store: Store) -> Registry:
    """Return what answers for names that Redis does not know."""

    async def registered(names: Sequence[str]) -> dict[str, Latest]:
        rows = await soon(fleet.named, store, names)
        if rows.unreadable and not rows:
            raise Unreadable("database", min(rows.unreadable))
        return {
            row.name: Latest(
                database=row.name,
                status=Status(),
                labels=row.labels,
                policy=row.policy,
                ciphertext=row.ciphertext,
            )
            for row in rows
        }

    return registered
