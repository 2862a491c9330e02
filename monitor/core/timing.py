"""The seconds of the protocol: one name, one value and one reason each. Anyone may import this.

What matters is how they relate: `broken` tells which relation does not hold, and why it must. A
Policy is held to `POLICY_RELATIONS` in the same way. Seconds that concern one module alone (a
cache, a page, a pause) stay there.
"""

from typing import NamedTuple

# --- Redis ---
REDIS_TIMEOUT = 1.0  # for a reply or a connection
JOURNAL_TIMEOUT = 6.0  # for a reply that hands out entries: a stall must not cost their reader

# --- workers: presence and freezes ---
PRESENCE_TTL = 7.0  # the failure detector: who is frozen for 5 s before a renewal keeps all it has
ANNOUNCE_EVERY = 1.5  # a worker renews its presence, and learns which generation is open
ID_CLAIM_TTL = 60  # a process frozen for less than this finds its id its own when it comes back
PULSE_EVERY = 0.1  # the loop looks at its clock
STALL = 0.5  # a gap this long makes this worker's own negatives worthless
FREEZE = 3.0  # a gap this long may have cost a worker its databases: it fences itself
CLOCK_STEP = 10.0  # no feel is told this late: the fleet's clock was set back
RECONCILE_EVERY = 2.0  # a worker looks at its assignments, and at what has become durable
RECORD_RETRY = 0.5  # between tries while Redis or the generation is away
RELEASED_KEPT = 600.0  # a released database's Status is kept for a restore
HANDOVER = 5.0  # a leaving worker feels on while its databases find new owners
LAST_WORDS = 2.0  # a leaving worker has to end its parts, and again to say that it is gone
STOP_GRACE = 10.0  # between SIGTERM and SIGKILL

# --- the leader ---
LEASE = 8.0  # a leader leads for so long without renewing
LEASE_RENEW_EVERY = 2.0
SWEEP_EVERY = 1.0  # between sweeps of a leader, and between tries to become one
LEAD_REST = 2 * SWEEP_EVERY  # who led in vain leaves the lead to others for so long
LED_MARK = 20  # a leader's mark stays: longer than a takeover, shorter than a belief in being alone
BUS_MARK = 60  # a leader's sign of the bus's memory stays
FOREIGN_REGISTRY = 30.0  # another registry's name is respected in a Redis that forgot it
ABSENCE_GRACE = 6.0  # Redis must have answered for so long before an absence counts
RESTORE_GRACE = 6.0  # workers get to restore what they remember in a closed generation
FLEET_EVERY = 5.0  # the registry's fleet is read
REVIEW_EVERY = 60.0  # all places are read anew, all indexes rewritten
LISTEN = 1.0  # a read of the journal waits for news
LEADER_ABANDONED = 5.0  # what another leader took and never finished is taken over after this

# --- the historian ---
HISTORIAN_CLAIM_EVERY = 5.0
HISTORIAN_ABANDONED = 10.0  # another historian's unfinished entries are taken over after this
DURABLE_REMEMBERED = 3600.0  # a durable identity is remembered for who retains its event
REPLAY_EVERY = 3600.0  # what is still retained is replayed once more
REPLAY_RETRY = 60.0  # the same where the journal is behind

# --- doubts and moves ---
ASK_AGAIN = 10.0  # between two requests for another worker in one doubt
ASK_A_THIRD = 2.0  # the same while two workers found different things
MOVE_AGAIN = 20.0  # a doubt may be moved again: the former owner's finding has expired by then
MOVES_WITHIN = 600.0  # moves of one database are counted over so long
REFUSED_FOR = 60.0  # a worker that could not reach a database does not get it back for so long
FAULTS_FOR = 10.0  # so long of nothing but our own faults is a cannot_reach
FAULTS_AGAIN = 60.0  # between two such requests of one worker about one database
FAULTS_GRACE = 30.0  # a request that is due again may take so long to come
FAULTS_AWAY = 600.0  # a database stays away from a worker that learned nothing of it
LEARNED_LATELY = 30.0  # whoever has learned anything of any database since can watch
UNPROVEN_FOR = 30.0  # an owner has for its first accepted beat
UNPROVEN_BARRED = 300.0  # a worker that proves nothing at all is given nothing


class AtMost(NamedTuple):
    """Two fields of a Policy: `times` the small one is at most the large one."""

    small: str
    large: str
    why: str
    times: int = 1


Relation = tuple[bool, str]  # whether it holds, and why it must

_OUTLIVE = "a former owner's finding must outlive the next one's probes"
POLICY_RELATIONS = (
    AtMost("absent_seconds", "silent_seconds", "a refusal is the quicker proof"),
    AtMost("fast_interval", "opinion_grace", "a peer's finding must last until it is asked again"),
    AtMost("deadline", "handover_grace", _OUTLIVE, times=2),
    AtMost("fast_interval", "handover_grace", _OUTLIVE, times=2),
    AtMost("login_least", "login_most", "they are the two ends of one deadline"),
)


def broken() -> list[str]:
    """Return why each relation must hold that does not."""
    relations = (*_of_workers(), *_of_leaders(), *_of_doubts())
    return [why for holds, why in relations if not holds]


def _of_workers() -> tuple[Relation, ...]:
    two_tries = 2 * (ANNOUNCE_EVERY + REDIS_TIMEOUT)  # one is lost, the next one gets through
    return (
        (two_tries < PRESENCE_TTL, "one lost announcement must cost no worker its databases"),
        (
            FREEZE + ANNOUNCE_EVERY + REDIS_TIMEOUT < PRESENCE_TTL,
            "a frozen worker must fence itself before its databases are another's",
        ),
        (2 * PULSE_EVERY < STALL, "a loop in time must not look like one that stood still"),
        (STALL < FREEZE, "doubting oneself comes before giving everything up"),
        (FREEZE < CLOCK_STEP, "a late observation must not look like a clock that was set back"),
        (PRESENCE_TTL < ID_CLAIM_TTL, "no twin may take an id while its worker seems to be here"),
        (two_tries < ABSENCE_GRACE, "every worker must come back before an absence counts"),
        (
            ABSENCE_GRACE < PRESENCE_TTL,
            "who dies with Redis must be missed no later than who dies alone",
        ),
        (two_tries < RESTORE_GRACE, "every worker must hear of a closed generation and restore"),
        (2 * RECORD_RETRY < RESTORE_GRACE, "a restore that failed must be tried again in time"),
    )


def _of_leaders() -> tuple[Relation, ...]:
    takeover = LEASE + SWEEP_EVERY + RESTORE_GRACE  # from the last renewal to the first sweep
    leaving = HANDOVER + 2 * LAST_WORDS
    return (
        (takeover < RELEASED_KEPT, "what was released must last until the next restore"),
        (3 * LEASE_RENEW_EVERY < LEASE, "two lost renewals must cost no lead"),
        (4 * SWEEP_EVERY < LEASE, "a leader that sweeps slowly must keep its lead"),
        (LEAD_REST < LEASE, "who rests from leading must not prolong a takeover by a lease"),
        (takeover < LED_MARK, "a takeover must not look as if nobody led"),
        (LEASE < BUS_MARK, "a slow leader must not take its own mark's end for lost memory"),
        (LISTEN < LEADER_ABANDONED, "a leader that listens has not abandoned what it took"),
        (HISTORIAN_CLAIM_EVERY <= HISTORIAN_ABANDONED, "what is abandoned must be found soon"),
        (REPLAY_EVERY <= DURABLE_REMEMBERED, "what is durable must be known when it is replayed"),
        (REPLAY_RETRY < REPLAY_EVERY, "a retry comes before the next turn"),
        (
            3 * SWEEP_EVERY + REDIS_TIMEOUT < HANDOVER,
            "a leader must have the time to find owners for what a worker leaves",
        ),
        (leaving < STOP_GRACE, "a worker that leaves in order must not be killed"),
    )


def _of_doubts() -> tuple[Relation, ...]:
    return (
        (SWEEP_EVERY < ASK_A_THIRD, "a request must be served before it is made again"),
        (ASK_A_THIRD < ASK_AGAIN, "who cannot be confirmed must not wait like who may be"),
        (ASK_AGAIN < MOVE_AGAIN, "the new owner of a doubt must be able to ask on"),
        (MOVE_AGAIN < REFUSED_FOR, "a doubt must not go back to who raised it"),
        (
            REFUSED_FOR < MOVES_WITHIN,
            "moves must be counted for longer than a refusal keeps them away",
        ),
        (FAULTS_FOR <= FAULTS_AGAIN, "what is due again must not come before it was due"),
        (
            FAULTS_AGAIN + FAULTS_GRACE < FAULTS_AWAY,
            "who says its faults again must not lose the database once more for the same ones",
        ),
        (LEARNED_LATELY < FAULTS_AWAY, "who learns nothing must count as blind before it forgets"),
        (
            2 * PRESENCE_TTL < UNPROVEN_FOR < UNPROVEN_BARRED,
            "who is absent must be missed before it is blamed, and stay barred for longer",
        ),
    )
