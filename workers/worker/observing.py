"""One feel of one watch: what is asked, what is learned of it for the next, what is told.

Only workers/worker imports this.
"""

import time
from collections.abc import Callable
from dataclasses import replace

from monitor.core.cause import Cause
from monitor.core.observation import Observation
from monitor.core.schedule import grid, login_interval, slow_due, wants_login, wants_slow
from monitor.core.status import Status
from monitor.feeler.session import FeelNotes
from workers.worker.clock import FleetClock
from workers.worker.peers import Peers
from workers.worker.pulse import Pulse
from workers.worker.watch import Watch, urgency


class Observer:
    """Feels for one worker; `owned` says how many databases it has now."""

    def __init__(
        self, clock: FleetClock, pulse: Pulse, peers: Peers, owned: Callable[[], int]
    ) -> None:
        self._clock, self._pulse, self._peers, self._owned = clock, pulse, peers, owned

    async def observe(self, watch: Watch, status: Status) -> Observation:
        """Feel one database, and note in the watch when which part is due again."""
        began = time.monotonic()
        policy, access = watch.policy, watch.access
        fresh = wants_login(status) or began >= watch.login_due
        slow = began >= watch.slow_due and wants_slow(status)
        held = None if watch.login_requested else access.held(self._clock.now(), policy)
        seen, notes = await watch.session.feel(
            fresh=fresh,
            slow=slow,
            urgency=urgency(status),
            held=held,
            login_deadline=access.deadline(policy),
            pooled=access.pooled,
        )
        learn_access(watch, seen, notes)
        login_every = self._login_interval(watch)
        self._plan_next(watch, seen, notes, fresh, login_every)
        if slow:
            seconds, complete = notes.slow_seconds, notes.slow_complete
            watch.slow_due = slow_due(policy, began, seconds, complete=complete)
        began = notes.began or began
        return replace(
            seen,
            cause=self._cause(seen, began),
            sent_at=sent_at(seen, time.monotonic() - began),
            login_interval=round(login_every, 1),
            access=watch.access,
        )

    def _login_interval(self, watch: Watch) -> float:
        return login_interval(
            watch.policy,
            owned=self._owned(),
            neighbours=watch.session.neighbours,
            workers=self._peers.eligible,
        )

    def _plan_next(
        self, watch: Watch, seen: Observation, notes: FeelNotes, fresh: bool, login_every: float
    ) -> None:
        """Note when to prove the next login, and whether to feel again at once."""
        had_its_turn = fresh and not notes.login_waiting
        if seen.fresh_login or had_its_turn:
            # Spread by name: one of a server's databases finds out soon, and tells the others.
            now = self._clock.now()
            left = grid(watch.database, login_every, now) - now
            watch.login_due = time.monotonic() + left
        if notes.slots_full:
            # The next beat proves that logins work; at once, where this one did not try.
            watch.login_due = 0.0
            tried = fresh or seen.fresh_login
            watch.feel_again |= not tried
        watch.feel_again |= seen.cause is Cause.NAME_MOVED

    def _cause(self, seen: Observation, began: float) -> Cause:
        """Blame ourselves for a negative that our own standing still may have caused."""
        negative = seen.cause not in (Cause.OK, Cause.LATE_LOOP)
        if negative and self._pulse.stalled_since(began):
            return Cause.LATE_LOOP
        return seen.cause


def learn_access(watch: Watch, seen: Observation, notes: FeelNotes) -> None:
    """Remember what a login told, for the next one's sake: ours, or that of the next owner."""
    if seen.access.pooled or seen.cause is Cause.OK:
        watch.access = replace(watch.access, pooled=seen.access.pooled)
    if not seen.fresh_login:
        return
    watch.login_requested = False
    if notes.login_seconds:
        watch.access = watch.access.entered(notes.login_seconds)
    else:
        watch.access = watch.access.refused(seen.cause, seen.at, watch.policy)


def sent_at(seen: Observation, longest: float) -> float:
    """Return when a feel of at most `longest` seconds began.

    That is by this host's own clock: the fleet's may have been set meanwhile.
    """
    took = round(seen.at - seen.sent_at, 3)
    bounded = min(max(took, 0.0), round(longest, 3))
    return seen.sent_at if took == bounded else round(seen.at - bounded, 3)
