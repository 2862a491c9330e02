"""The historian on real stores: what one database cannot have written holds up nobody else."""

from sqlalchemy import text

from monitor.live import journal
from monitor.live.connections import Live
from monitor.registry import history
from monitor.registry.store import Store
from tests.live.builders import opened, transition
from workers.historian import GROUP, Historian

NAMES = ("flapper", "ledger", "orders")


async def test_a_database_that_cannot_be_written_holds_up_nobody_else(live: Live, store: Store) -> None:
    """Somebody has held its chain for longer than a statement may take."""
    name, historian = await opened(live), Historian(live, store, "one")
    await journal.replay(live, name, [transition("1.2.1", database=one) for one in NAMES])
    with store.begin(seconds=60) as other:
        other.execute(text("SELECT pg_advisory_xact_lock(hashtextextended('feeler.chain flapper', 0))"))
        assert await historian.drain()
    assert [len(history.transitions(store, one)) for one in NAMES] == [0, 1, 1]
    assert (await journal.backlog(live))[f"{GROUP}_pending"] == 1
    left = await journal.claim(live, GROUP, "another", idle=0)
    assert [entry.event.database for entry in left] == ["flapper"]
