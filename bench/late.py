"""What a late arrival costs in a long history, beside numbering it all anew: `python bench/late.py
[URL [ROWS ...]]`.

For one database with 100,000 and 600,000 rows: the milliseconds to write a transition that follows
the head, one that comes 50 versions late and one that is as late as can be; and the naive way,
which numbers every row after it anew. Without a URL it starts a Postgres of its own. ROWS: other
lengths.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from sqlalchemy import text

from monitor.core.cause import Cause
from monitor.core.event import Finding, Transition
from monitor.core.status import Epoch, Identity, State
from monitor.local.embedded import Postgres
from monitor.registry import chains
from monitor.registry.store import Store, migrate, open_store
from monitor.registry.transitions import write_transitions

LENGTHS, ROUNDS = (100_000, 600_000), 5
_FILL = text("""
    INSERT INTO transitions (database_name, epoch_term, epoch_counter, n, prev_term, prev_counter,
        prev_n, version, source, target, rule, evidence, observers, worker, at, digest)
    SELECT :name, 1, 1, 10 * i, CASE WHEN i > 1 THEN 1 END, CASE WHEN i > 1 THEN 1 END,
        CASE WHEN i > 1 THEN 10 * i - 5 END, i, 'uncertain', 'available', 'false_alarm', '[]',
        '{w1,w2}', 'w1',
        now() - make_interval(secs => :length - i), sha256(i::text::bytea)
    FROM generate_series(:first, :last) AS i""")
_NAIVE = text("""
    UPDATE transitions SET version = numbered.version FROM (
        SELECT id, row_number() OVER (ORDER BY epoch_term, epoch_counter, n) AS version
        FROM transitions WHERE database_name = :name) AS numbered
    WHERE transitions.id = numbered.id AND transitions.version <> numbered.version""")


def fill(store: Store, name: str, length: int) -> None:
    for first in range(1, length + 1, 50_000):
        with store.begin(120) as connection:
            connection.execute(text("SET LOCAL statement_timeout = 0"))
            last = min(length, first + 49_999)
            connection.execute(
                _FILL, {"name": name, "length": length, "first": first, "last": last}
            )
    with store.begin(120) as connection:  # as autovacuum would have by then
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        connection.execute(text("ANALYZE transitions"))


def one(name: str, n: int, prev: int) -> Transition:
    epoch, at = Epoch(1, 1), time.time()
    seen = (Finding("w1", at - 0.1, at, Cause.OK, 1),)
    after, before = Identity(epoch, n), Identity(epoch, prev)
    states = State.UNCERTAIN, State.AVAILABLE
    return Transition(name, after, before, *states, "false_alarm", at, "w1", ("w1",), seen)


def milliseconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) * 1000


def late(name: str, after: int) -> Transition:
    """Make what the row after this one builds on: all rows from there on get another number."""
    return one(name, after + 5, after)


def naive(store: Store, name: str) -> None:
    """Make room after the first row, then number all of the chain anew, with no limit on its
    time.
    """
    with store.begin(600) as connection:
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        connection.execute(text("SET CONSTRAINTS transitions_version DEFERRED"))
        raised = "UPDATE transitions SET version = version + 1"
        room = text(f"{raised} WHERE database_name = :name AND version > 1")
        connection.execute(room, {"name": name})
        connection.execute(_NAIVE, {"name": name})


def measure(store: Store, length: int) -> None:
    name, head = f"db{length}", 10 * length
    fill(store, name, length)
    rows: dict[str, list[float]] = {"follows": [], "50 late": [], "all late": []}
    for turn in range(ROUNDS):
        follows = one(name, head + 1, head)
        head += 1
        rows["follows"].append(milliseconds(partial(write_transitions, store, [follows])))
        near = late(name, 10 * (length - 50 - turn))
        rows["50 late"].append(milliseconds(partial(write_transitions, store, [near])))
        far = late(name, 10 * (1 + turn))
        rows["all late"].append(milliseconds(partial(write_transitions, store, [far])))
    renumbered = milliseconds(lambda: naive(store, name))
    told = "   ".join(f"{what} {statistics.median(taken):8.1f}" for what, taken in rows.items())
    ratio = renumbered / statistics.median(rows["all late"])
    print(f"{length:>7} rows, ms   {told}   naive {renumbered:8.0f}   ratio {ratio:.0f}")


def main(url: str, lengths: tuple[int, ...]) -> None:
    migrate(url)
    store = open_store(url)
    chains.log.setLevel("ERROR")
    for length in lengths:
        measure(store, length)
    store.close()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1], tuple(map(int, sys.argv[2:])) or LENGTHS)
    else:
        with tempfile.TemporaryDirectory() as folder:
            Path(folder).chmod(0o755)
            server = Postgres(Path(folder) / "postgres")
            server.prepare()
            server.start()
            try:
                server.wait_ready()
                main(server.url(), LENGTHS)
            finally:
                server.stop()
