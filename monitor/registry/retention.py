"""How long transitions are kept: old ones go from the lower end of each chain, a few at a time.

The newest of a database stays, and all since it was `available` last: what is still going on.
Versions are not changed. Supervisors import this.
"""

from dataclasses import dataclass

from sqlalchemy import text

from monitor.registry import chains
from monitor.registry.store import Store

NAMES = 100  # databases looked at in one transaction
MOST = 100  # rows of each that go in it

# One probe of the index per name.
_NAMES = text("""
    WITH RECURSIVE found (name) AS (
        SELECT min(database_name) FROM transitions WHERE database_name > :after
        UNION ALL
        SELECT (SELECT min(database_name) FROM transitions WHERE database_name > found.name)
        FROM found WHERE found.name IS NOT NULL)
    SELECT name FROM found WHERE name IS NOT NULL LIMIT :most""")
_PRUNE = text("""
    DELETE FROM transitions USING unnest(CAST(:names AS text[])) AS given (name),
        LATERAL (
            SELECT epoch_term, epoch_counter, n FROM transitions
            WHERE database_name = given.name AND target = 'available' AND NOT superseded
            ORDER BY epoch_term DESC, epoch_counter DESC, n DESC LIMIT 1) AS well,
        LATERAL (
            SELECT id, bool_and(
                newest < least(now(), to_timestamp(:now)) - make_interval(days => :days))
                OVER (ORDER BY epoch_term, epoch_counter, n) AS old
            FROM (
                SELECT id, greatest(at, recorded_at) AS newest, epoch_term, epoch_counter, n
                FROM transitions WHERE database_name = given.name
                ORDER BY epoch_term, epoch_counter, n LIMIT :most) AS lowest) AS lower_end
    WHERE transitions.id = lower_end.id AND lower_end.old
        AND (transitions.epoch_term, transitions.epoch_counter, transitions.n)
            < (well.epoch_term, well.epoch_counter, well.n)""")


@dataclass(frozen=True, slots=True)
class Pruned:
    """How many rows went, and the name to go on after, '' at the end of a round."""

    rows: int
    after: str


def prune(store: Store, days: int, now: float, after: str = "") -> Pruned:
    """Delete some of what is older than so many days by Postgres's clock and the fleet's, `now`.

    One clock that is or was wrong deletes nothing.
    """
    with store.begin() as connection:
        found = connection.execute(_NAMES, {"after": after, "most": NAMES})
        names = list(found.scalars())
        chains.lock(connection, names)
        given = {"names": names, "days": days, "now": now, "most": MOST}
        done = connection.execute(_PRUNE, given)
    if done.rowcount:
        return Pruned(done.rowcount, after)  # there may be more of the same databases
    if len(names) < NAMES:
        return Pruned(0, "")
    return Pruned(0, names[-1])
