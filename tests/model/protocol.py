"""The fencing protocol as a model: the steps, gathered from the modules of those who take them.

One pure function per step, named like the Lua scripts and functions it stands for: it takes the world, who acts and the
repairs left out, and returns the next world, or None where it cannot happen or would change nothing. `begin` stands for
the leader's own mark among the reports, `seed` for its restore of what Postgres knows.

Bounds: one database, two workers, two leaders; at most two transitions felt, both of them pending if need be; one fault
of each kind; as many assignments and elections as the test says. Pauses are free: anybody may just wait, so a worker
may restore too late, a live owner be taken for dead, a leader act on a lease it lost.

Not modelled: partitions (a restore or an opening that stops half-way), a third worker, the index and the nudges, cries
and second opinions, retirement, eviction of single keys, two masters at a time, a Postgres that loses rows, a historian
that holds entries in its hands, forced trims, clocks. A worker never comes back under its id.

Only tests/model may import this.
"""

from tests.model.draining import acknowledge, drain, trim
from tests.model.leading import acquire, assign, assign_move, assign_restored, begin, named, open, seed
from tests.model.watching import Verdict, arrive, feel, forget, judge, learn, record, replay, restore

__all__ = [
    "Verdict",
    "acknowledge",
    "acquire",
    "arrive",
    "assign",
    "assign_move",
    "assign_restored",
    "begin",
    "drain",
    "feel",
    "forget",
    "judge",
    "learn",
    "named",
    "open",
    "record",
    "replay",
    "restore",
    "seed",
    "trim",
]
