"""Databases registered, changed and retired: sealed, stored, and the leader asked for a look.

The only writer of the fleet beside tests. The web imports this.
"""

import logging
from dataclasses import dataclass
from functools import partial
from typing import Any

from anyio import to_thread

from monitor.core.database import DatabaseStatus
from monitor.core.errors import InvalidInput, StoreUnavailable
from monitor.live import requests
from monitor.live.connections import Live
from monitor.registration.given import Changes, NewDatabase
from monitor.registry import fleet
from monitor.registry.fleet import Database
from monitor.registry.store import Store
from monitor.secrets import SecretBox

log = logging.getLogger("feeler.registration")


@dataclass(frozen=True, slots=True)
class Registration:
    """The fleet as its writers reach it: the registry, the keys, and Redis for the leader."""

    store: Store
    box: SecretBox
    live: Live

    async def register(self, given: NewDatabase) -> Database:
        """Store a new database under a sealed address."""
        new = given.checked()
        sealed = self.box.seal(new.name, new.url)
        add = partial(fleet.add, self.store, new.name, sealed, new.labels, new.policy, new.zone)
        row = await to_thread.run_sync(add)
        await self._ask_for_look()
        return row

    async def change(
        self, before: Database, changes: Changes, revision: int | None = None
    ) -> Database:
        """Store what is new, where told only at this revision; the same once more changes nothing.

        A retired database goes to the registry all the same, which knows the right error.
        """
        values = self._new_values(before, changes.checked())
        if not values and before.status is not DatabaseStatus.RETIRED:
            return before
        change = partial(fleet.change, self.store, before.name, **values, revision=revision)
        row = await to_thread.run_sync(change)
        await self._ask_for_look()
        return row

    async def retire(self, name: str) -> None:
        """End the watching of a database and forget its address."""
        await to_thread.run_sync(fleet.remove, self.store, name)
        await self._ask_for_look()

    def _new_values(self, before: Database, changes: Changes) -> dict[str, Any]:
        values: dict[str, Any] = {}
        if changes.url is not None:
            # The same URL, sealed again, would look new: no two ciphertexts are the same.
            known = self._readable_url(before)
            if changes.url != known:
                values["ciphertext"] = self.box.seal(before.name, changes.url)
        if changes.labels not in (None, before.labels):
            values["labels"] = changes.labels
        if changes.policy not in (None, before.policy.name):
            values["policy"] = changes.policy
        if changes.zone not in (None, before.zone):
            values["zone"] = changes.zone
        return values

    def _readable_url(self, row: Database) -> str | None:
        try:
            return self.box.open(row.name, row.ciphertext)
        except InvalidInput:
            return None

    async def _ask_for_look(self) -> None:
        """Nudge the leader; without Redis it finds the change by itself a little later."""
        try:
            await requests.ask(self.live, "fleet_changed")
        except StoreUnavailable as error:
            log.warning("action=nudge_failed store=%s", error.store)
