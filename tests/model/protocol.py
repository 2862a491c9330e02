"""The fencing protocol as a model: the steps, gathered from the modules of those who take them.

One pure function per step, named like the Lua scripts and functions it stands for: it takes the
world, who acts and the repairs left out, and returns the next world, or None where it cannot happen
or would change nothing. `begin` stands for the leader's own mark among the reports, `seed` for its
restore of what Postgres knows.

Bounds: one database, two or three workers, two leaders; at most two transitions felt, both of them
pending if need be; one fault of each kind; as many assignments and elections as the test says.
Pauses are free: anybody may just wait, so a worker may restore too late, a live owner be taken for
dead, a leader act on a lease it lost. What takes several requests is one step, or cut in its parts,
as the bounds say.

Another registry's supervisor is one step, allowed or not. Not modelled: take-overs by a person's
word, the index and the nudges, requests for second opinions, retirement, eviction of single keys, a
Postgres that loses rows (but in a start), clocks, ids of journal entries (a historian that
acknowledges by an id of another instance). A worker never comes back under its id; a twin, that
draws the id of a live one, reports as itself.

Only tests/model may import this.
"""

from tests.model.draining import ack, drain, expire, gather, mark_durable, trim, trim_by_force
from tests.model.leading import (
    acquire,
    assign,
    assign_move,
    assign_restored,
    begin,
    give_up,
    mark_complete,
    named,
    open,
    open_half,
    seed,
    unassign,
)
from tests.model.restoring import close, report_part, restore
from tests.model.watching import (
    Reply,
    adopt,
    apply_reply,
    arrive,
    enter,
    forget,
    judge,
    learn,
    look,
    observe,
    record,
    repeat,
    replay,
    replay_only,
)

__all__ = [
    "Reply", "ack", "acquire", "adopt", "apply_reply", "arrive", "assign", "assign_move",
    "assign_restored", "begin", "close", "drain", "enter", "expire", "forget", "gather",
    "give_up", "judge", "learn", "look", "mark_complete", "mark_durable", "named", "observe",
    "open", "open_half", "record", "repeat", "replay", "replay_only", "report_part", "restore",
    "seed", "trim", "trim_by_force", "unassign",
]  # fmt: skip
