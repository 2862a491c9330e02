"""Fills Redis as supervisor and workers would: by assign, publish and record, never by hand."""

from dataclasses import dataclass, field

from monitor.core.access import UNKNOWN, Access
from monitor.core.assignment import Assignment
from monitor.core.beat import Beat, Reply
from monitor.core.cause import Cause
from monitor.core.event import Finding, Transition
from monitor.core.observation import FAMILIES, GAUGES, Observation, Reading, ReadingStatus
from monitor.core.policy import Policy
from monitor.core.status import Epoch, Identity, State, Status
from monitor.live import assignments, connections, generation, observations, presence, targets
from monitor.live.connections import Live
from monitor.live.targets import Target
from tests.factories import here

GOOD = {
    "connections": 88, "connections_max": 97, "blocked_sessions": 0, "cache_hit_rate": 99.1,
    "role": "primary", "table_count": 97, "row_count": 91_823_711, "db_size": 44_238_471_168,
}  # fmt: skip


@dataclass
class Filler:
    """A leader and its workers in one."""

    live: Live
    generation: str = ""
    counter: int = 0
    statuses: dict[str, tuple[Epoch, Status]] = field(default_factory=dict)

    async def open(self) -> None:
        await generation.restore(self.live, "leader", [], 1, "")
        self.generation = (
            await generation.open_generation(self.live, self.epoch(), ["leader"], "") or ""
        )
        assert self.generation

    def epoch(self) -> Epoch:
        self.counter += 1
        return Epoch(1, self.counter)

    async def target(
        self, name: str, *, policy: Policy | None = None, labels: dict[str, str] | None = None
    ) -> None:
        await targets.publish(
            self.live,
            name,
            Target("sealed", policy or Policy(), labels or {}, 1),
            term=9,
            registry="",
        )

    async def give(self, name: str, owner: str = "w4", **target: object) -> None:
        """Publish and assign a database that nobody has observed yet."""
        await self.target(name, **target)  # type: ignore[arg-type]
        await self.assign(name, owner)

    async def assign(self, name: str, owner: str = "w4") -> None:
        """Assign a database whose target is published."""
        epoch = self.epoch()
        now = await connections.now(self.live)
        await assignments.assign(
            self.live,
            Assignment(name, owner, epoch),
            planned=False,
            now=now,
            seed=Status(),
            registry="",
        )
        self.statuses[name] = epoch, Status()

    async def beat(
        self,
        name: str,
        *,
        owner: str = "w4",
        cause: Cause = Cause.OK,
        age: float = 0.0,
        took: float = 0.038,
        readings: tuple[Reading, ...] | None = None,
        state: State | None = None,
        rule: str = "first_ok",
        unreachable_from: tuple[str, ...] = (),
        access: Access = UNKNOWN,
        **target: object,
    ) -> Transition | None:
        """Record one observation made `age` seconds ago, with a transition where the state
        changes.
        """
        if name not in self.statuses:
            await self.give(name, owner, **target)
        epoch, status = self.statuses[name]
        at = round(await connections.now(self.live) - age, 3)
        seen = Observation(
            database=name,
            worker=owner,
            sent_at=round(at - took, 3),
            at=at,
            cause=cause,
            access=access,
            readings=readings if readings is not None else good_readings(at),
        )
        change = (
            self._change(status, epoch, seen, state, rule)
            if state and state is not status.state
            else None
        )
        if change:
            status = Status(
                state=change.target,
                since=at,
                identity=change.identity,
                rule=rule,
                unreachable_from=unreachable_from,
            )
        beat = Beat(name, epoch, status, seen, (change,) if change else ())
        assert await observations.record(self.live, self.generation, owner, [beat]) == [
            Reply.ACCEPTED
        ]
        self.statuses[name] = epoch, status
        return change

    def _change(
        self, status: Status, epoch: Epoch, seen: Observation, state: State, rule: str
    ) -> Transition:
        same = status.identity is not None and status.identity.epoch == epoch
        identity = Identity(epoch, status.identity.n + 1 if same and status.identity else 1)
        evidence = (Finding(seen.worker, seen.sent_at, seen.at, seen.cause),)
        return Transition(
            seen.database,
            identity,
            status.identity,
            status.state,
            state,
            rule,
            seen.at,
            seen.worker,
            (seen.worker,),
            evidence,
        )

    async def watchers(self) -> None:
        """Have a worker and a leader present, for as long as a test takes."""
        await self.worker("w4")
        await presence.mark_swept(self.live, "leader")

    async def worker(self, worker: str, **changes: object) -> None:
        now = await connections.now(self.live)
        fields = {"host": "h1", "zone": "eu-1", "owned": 3, "generation": self.generation}
        told = here(worker, now, **fields | {"lateness": 0.012} | changes)
        await presence.announce(self.live, told)


def good_readings(at: float) -> tuple[Reading, ...]:
    families = {
        family: {k: v for k, v in GOOD.items() if GAUGES[k].family == family} for family in FAMILIES
    }
    return tuple(
        Reading(family, at, ReadingStatus.OK, values) for family, values in families.items()
    )
