"""Random histories of two workers and two leaders on the real steps: pauses, lost and late calls,
flushes, failovers.

Hypothesis picks who takes the next step. Promises checked at every step: nobody writes but the
owner under its epoch, and the first process that did; no write of an older epoch or batch after a
newer one; no hash goes back; every new transition builds on the last one accepted, no identity ever
has two contents. And when the faults stop: everybody agrees, and every accepted transition is
durable.
"""

import asyncio
import logging
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from monitor.core.assignment import Assignment
from monitor.core.beat import Beat, Reply
from monitor.core.event import Transition
from monitor.core.placement import Assigned
from monitor.core.status import Epoch, Identity, State, Status
from monitor.live import (
    assignments,
    connections,
    durability,
    generation,
    journal,
    observations,
    steps,
)
from monitor.live.connections import Live
from monitor.live.generation import Restored
from monitor.live.keys import PARTITIONS, partition, partition_key
from monitor.live.observations import Latest
from tests.factories import DB, NOW, W1, W2, observation

# What happens next, as often as it stands here: work most of the time, faults now and then.
STEPS = (
    *("work",) * 6, *("look", "learn") * 3, *("settle", "feel", "lose_reply", "delay", "arrive") * 2,
    *("assign", "move", "recover", "drain", "replicate") * 2, "elect", "flush", "fail_over",
    *("usurp", "overtake", "twin", "withdraw"),
)  # fmt: skip
STATES = (State.AVAILABLE, State.REFUSING, State.UNAVAILABLE)
PARTITION = partition(DB)


@dataclass
class Worker:
    """A worker as section 4 wants it: tentative until accepted."""

    id: str
    epoch: Epoch | None = None
    held: Epoch | None = None  # the last epoch, released or not
    accepted: Status = field(default_factory=Status)
    pending: list[Transition] = field(default_factory=list)
    retained: list[Transition] = field(default_factory=list)
    generation: str = ""
    stopped: bool = False

    @property
    def tentative(self) -> Status:
        return status_after(self.pending[-1]) if self.pending else self.accepted

    def feel(self, state: State) -> None:
        last = self.tentative.identity
        assert self.epoch
        n = last.n + 1 if last and last.epoch == self.epoch else 1
        named = Identity(self.epoch, n)
        source = self.tentative.state
        self.pending.append(
            Transition(DB, named, last, source, state, "rule", NOW, self.id, (self.id,), ())
        )

    def accept(self, events: tuple[Transition, ...], after: Status) -> None:
        self.retained += [event for event in self.pending if event in events]
        self.pending = [event for event in self.pending if event not in events]
        self.accepted = after

    def learn(self, epoch: Epoch, stored: Status) -> None:
        known = [event.identity for event in self.pending]
        if stored.identity in known:
            cut = known.index(stored.identity) + 1
            self.retained += self.pending[:cut]
            self.pending = self.pending[cut:]
        elif not self.pending or self.pending[0].prev != stored.identity:
            self.pending = []
        self.epoch = self.held = epoch
        self.accepted, self.stopped = stored, False

    def release(self) -> None:
        self.epoch, self.pending = None, []


@dataclass
class Leader:
    """A leader that may be paused between any two steps of an opening."""

    id: str
    term: int = 0
    counter: int = 0
    stage: int = 0

    def epoch(self) -> Epoch:
        self.counter += 1
        return Epoch(self.term, self.counter)


def status_after(event: Transition) -> Status:
    return Status(event.target, event.at, event.identity, event.rule)


class History(RuleBasedStateMachine):
    """One history on one Redis."""

    url = ""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.live: Live = self.runner.get_loop().run_until_complete(self._connect())
        self.workers = [Worker(W1), Worker(W2)]
        self.leaders = [Leader("one"), Leader("two")]
        self.terms = 0
        self.late: list[tuple[steps.Call, Epoch]] = []
        self.replica: dict[str, bytes] = {}
        self.durable: list[Transition] = []
        self.chain: list[Transition] = []  # what was accepted, as far as somebody can know
        self.orphans: set[Identity] = set()
        self.contents: dict[Identity, State] = {}
        self.seen = "0-0"
        self.newest = Epoch(0, 0)
        self.processes: dict[Epoch, str] = {}  # the first that wrote under an epoch
        self.batches: dict[Epoch, int] = {}  # the latest written under an epoch

    async def _connect(self) -> Live:
        live = connections.connect(self.url)
        await live.cache.flushall()
        return live

    def teardown(self) -> None:
        try:
            self.run(self._heal())
        finally:
            self.run(connections.close(self.live))
            self.runner.close()

    def run(self, step: Any) -> Any:
        return self.runner.run(step)

    @initialize()
    def begin(self) -> None:
        self.elect(0)
        self.settle(0, STATES[0])

    @rule(step=st.sampled_from(STEPS), i=st.integers(0, 1), state=st.sampled_from(STATES))
    def happen(self, step: str, i: int, state: State) -> None:
        getattr(self, step)(i, state)

    def settle(self, i: int, state: State) -> None:
        """Everybody does its part for a while."""
        for _ in range(5):
            for one in (0, 1):
                self.look(one)
            self.recover(i, state)
        self.assign(i, state)
        for one in (0, 1):
            self.look(one)
            self.learn(one)

    def work(self, i: int, state: State) -> None:
        """Feel and record on what this worker believes; look again where Redis refuses."""
        self.feel(i, state)
        if not self.record(i):
            self.look(i)
            self.learn(i)

    # --- workers ----------------------------------------------------------------------------------

    def look(self, i: int, _: Any = None) -> None:
        self.run(self._look(self.workers[i]))

    async def _look(self, worker: Worker) -> None:
        found = await generation.generation(self.live)
        if not found.open:
            worker.generation = ""
            if worker.id not in await generation.reported(self.live):
                kept = (
                    [Restored(DB, worker.accepted, worker.held, worker.id)] if worker.held else []
                )
                term = worker.held.term if worker.held else 0
                await generation.restore(self.live, worker.id, kept, term, "")
        elif found.name != worker.generation and await durability.replay(
            self.live, found.name, worker.retained
        ):
            worker.generation = found.name

    def learn(self, i: int, _: Any = None) -> None:
        self.run(self._learn(self.workers[i]))

    async def _learn(self, worker: Worker) -> None:
        found = (await observations.latest(self.live, [DB])).get(DB)
        if not found or not worker.generation:
            return
        if found.owner != worker.id:
            worker.release()
        elif found.epoch and found.seeded and (found.epoch != worker.epoch or worker.stopped):
            worker.learn(found.epoch, found.status)

    def feel(self, i: int, state: State) -> None:
        worker = self.workers[i]
        if worker.epoch and not worker.stopped and len(worker.pending) < 3:
            worker.feel(state)

    def record(self, i: int) -> bool:
        call = self._call(self.workers[i])
        if not call:
            return False
        verdict = self.run(self._execute(*call[:2]))
        self._hear(self.workers[i], call[2], verdict)
        return verdict is Reply.ACCEPTED

    def lose_reply(self, i: int, _: Any = None) -> None:
        """The call is executed, its sender hears nothing."""
        if call := self._call(self.workers[i]):
            self.run(self._execute(*call[:2]))

    def delay(self, i: int, _: Any = None) -> None:
        """The sender gives up; the call lies in a socket of a frozen server."""
        if call := self._call(self.workers[i]):
            self.late = [*self.late, call[:2]][-3:]

    def arrive(self, _: int, __: Any = None) -> None:
        if self.late:
            self.run(self._execute(*self.late.pop(0)))

    def usurp(self, i: int, state: State) -> None:
        """The other worker is given the database and records; this one has not noticed."""
        leader = next(
            (one for one in self.leaders if one.term == self.terms and one.stage == 0), None
        )
        if not leader or not self.run(self._give(leader, self.workers[1 - i].id, False, None)):
            return
        self.look(1 - i)
        self.learn(1 - i)
        self.record(1 - i)
        self.work(i, state)

    def overtake(self, i: int, _: Any = None) -> None:
        """A request arrives after a later one of the same sender."""
        call = self._call(self.workers[i])
        self.record(i)
        if call:
            self.run(self._execute(*call[:2]))

    def twin(self, i: int, _: Any = None) -> None:
        """Another process goes by this worker's id, and knows all it knows."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(observations, "PROCESS", "twin")
            call = self._call(self.workers[i])
        if call:
            self.run(self._execute(*call[:2]))

    def withdraw(self, i: int, state: State) -> None:
        """Nobody shall watch it for a while; its owner has not noticed."""
        leader = next(
            (one for one in self.leaders if one.term == self.terms and one.stage == 0), None
        )
        if leader and self.run(assignments.unassign(self.live, DB, leader.term, "")):
            self.work(i, state)

    def _call(self, worker: Worker) -> tuple[steps.Call, Epoch, Beat] | None:
        if not worker.generation or not worker.epoch or worker.stopped:
            return None
        beat = Beat(
            DB, worker.epoch, worker.tentative, observation(worker=worker.id), tuple(worker.pending)
        )
        head = (worker.generation, worker.id, next(observations._batches), observations.PROCESS)
        return observations._call(PARTITION, head, [beat]), worker.epoch, beat

    def _hear(self, worker: Worker, beat: Beat, verdict: Reply) -> None:
        if verdict is Reply.ACCEPTED:
            worker.accept(tuple(worker.pending), beat.status)
        elif verdict is Reply.CLOSED:
            worker.generation = ""
        else:
            worker.stopped = True

    async def _execute(self, call: steps.Call, epoch: Epoch) -> Reply:
        beats = (await observations.counters(self.live)).get("beats", 0)
        before = (await observations.latest(self.live, [DB])).get(DB)
        [[word]] = await steps.run(self.live.cache, observations._RECORD, [call])
        if (await observations.counters(self.live)).get("beats", 0) > beats:
            assert epoch >= self.newest, "a write of an older epoch after a newer one"
            self.newest = epoch
            assert before
            await self._judge(before, call, epoch)
        for id_, row in await self.live.cache.xrange(
            partition_key(PARTITION, "journal"), f"({self.seen}"
        ):
            self.seen = id_
            if "replayed" not in row:
                self._note(journal.events.decode(row["event"]))
        return Reply(word)

    async def _judge(self, before: Latest, call: steps.Call, epoch: Epoch) -> None:
        """Judge from outside a beat that was written."""
        _, worker, batch, process, *_ = call[1]
        assert (before.owner, before.epoch) == (worker, epoch), "somebody else's database"
        assert self.processes.setdefault(epoch, str(process)) == process, (
            "two processes under one epoch"
        )
        assert int(batch) > self.batches.get(epoch, 0), "an older batch after a newer one"
        self.batches[epoch] = int(batch)
        after = (await observations.latest(self.live, [DB]))[DB].status
        identity = before.status.identity
        assert identity is None or (after.identity and after.identity >= identity), (
            "the hash went back"
        )
        if identity and after.identity == identity:
            assert after.state is before.status.state, "one identity, two states"

    def _note(self, event: Any) -> None:
        tip = self.chain[-1].identity if self.chain else None
        assert event.prev == tip, f"{event.identity} builds on {event.prev}, accepted was {tip}"
        assert self.contents.setdefault(event.identity, event.target) is event.target, (
            "one identity, two contents"
        )
        self.chain.append(event)

    # --- leaders ----------------------------------------------------------------------------------

    def elect(self, i: int, _: Any = None) -> None:
        self.terms += 1
        self.leaders[i] = Leader(f"leader-{self.terms}", self.terms)
        self.run(generation.lead(self.live, self.terms, ""))

    def assign(self, i: int, state: State) -> None:
        """An owner seems lost."""
        self._to(i, state, planned=False)

    def move(self, i: int, state: State) -> None:
        self._to(i, state, planned=True)

    def _to(self, i: int, state: State, *, planned: bool) -> None:
        leader = self.leaders[i]
        if leader.term and leader.stage == 0:
            self.run(self._assign(leader, self.workers[STATES.index(state) % 2].id, planned))

    async def _assign(self, leader: Leader, owner: str, planned: bool) -> None:
        if not planned and not (await generation.generation(self.live)).open:
            return
        place = (await assignments.places(self.live, [DB]))[DB]
        seed = (
            None if place.seeded else (status_after(self.durable[-1]) if self.durable else Status())
        )
        await self._give(leader, owner, planned, seed)

    async def _give(self, leader: Leader, owner: str, planned: bool, seed: Status | None) -> bool:
        answer = await assignments.assign(
            self.live,
            Assignment(DB, owner, leader.epoch()),
            planned=planned,
            now=NOW,
            seed=seed,
            registry="",
        )
        if answer is Assigned.STALE:
            leader.term = leader.stage = 0
        return answer is Assigned.ASSIGNED

    def recover(self, i: int, state: State) -> None:
        """Take the next step or two of an opening, then be paused."""
        for _ in range(1 + STATES.index(state)):
            if self.leaders[i].term:
                self.run(self._recover(self.leaders[i]))

    async def _recover(self, leader: Leader) -> None:
        if leader.stage == 0 and (await generation.generation(self.live)).open:
            return
        stages = (self._mark, self._wait, self._seed, self._place, self._open)
        if await stages[leader.stage](leader):
            leader.stage = (leader.stage + 1) % len(stages)
        elif leader.stage != 1:
            leader.stage = 0

    async def _mark(self, leader: Leader) -> bool:
        return await generation.restore(self.live, leader.id, (), leader.term, "")

    async def _wait(self, leader: Leader) -> bool:
        """Nobody is given up in this test."""
        return await generation.reported(self.live) >= {W1, W2}

    async def _seed(self, leader: Leader) -> bool:
        rows = [
            Restored(DB, status_after(self.durable[-1]) if self.durable else Status(), None, "")
        ]
        return await generation.restore(self.live, f"{leader.id}-seeds", rows, leader.term, "")

    async def _place(self, leader: Leader) -> bool:
        place = (await assignments.places(self.live, [DB]))[DB]
        return await self._give(leader, place.claimant or place.owner or W1, False, None)

    async def _open(self, leader: Leader) -> bool:
        reports = {W1, W2, leader.id, f"{leader.id}-seeds"}
        return await generation.open_generation(self.live, leader.epoch(), reports, "") is not None

    # --- Postgres and the faults ------------------------------------------------------------------

    def drain(self, _: int, __: Any = None) -> None:
        self.run(self._drain())

    async def _drain(self) -> None:
        entries = await journal.read(self.live, "historian", "one", count=1000, block=0)
        for entry in entries:
            assert isinstance(entry.event, Transition)
            kept = [one for one in self.durable if one.identity == entry.event.identity]
            assert not kept or kept[0].target == entry.event.target, "Postgres would see a conflict"
            self.durable += [] if kept else [entry.event]
        self.durable.sort(key=lambda event: event.identity)
        await journal.ack(self.live, "historian", entries)
        durable = {event.identity for event in self.durable}
        for worker in self.workers:
            worker.retained = [event for event in worker.retained if event.identity not in durable]

    def flush(self, _: int, __: Any = None) -> None:
        self.replica = {}
        self.run(self._lose({}))

    def replicate(self, _: int, __: Any = None) -> None:
        self.run(self._replicate())

    async def _replicate(self) -> None:
        binary = await self._binary()
        self.replica = {key: await binary.dump(key) for key in await binary.keys("*")}
        await binary.aclose()

    async def _binary(self) -> Any:
        return connections.redis.asyncio.Redis.from_url(self.url)

    def fail_over(self, _: int, __: Any = None) -> None:
        """The replica has the writes up to `replicate`; its life is another, so what is open there
        is not.
        """
        self.run(self._lose(self.replica))

    async def _lose(self, kept: dict[str, bytes]) -> None:
        await self.live.cache.flushall()
        binary = await self._binary()
        for key, value in kept.items():
            await binary.restore(key, 0, value)
        await binary.aclose()
        for number in range(PARTITIONS):
            await self.live.cache.delete(partition_key(number, "reports"))
            if await self.live.cache.exists(partition_key(number, "generation")):
                await self.live.cache.set(partition_key(number, "generation"), "0" * 40 + ":1.1")
        rows = await self.live.cache.xrevrange(partition_key(PARTITION, "journal"), count=1)
        self.seen = rows[0][0] if rows else "0-0"
        await self._forget_what_nobody_knows()

    async def _forget_what_nobody_knows(self) -> None:
        """An event whose reply was lost, lost by Redis as well before it was durable: nobody was
        promised anything.
        """
        found = (await observations.latest(self.live, [DB])).get(DB)
        known = [found.status.identity] if found else []
        known += [worker.accepted.identity for worker in self.workers] + [
            event.identity for event in self.durable
        ]
        highest = max((one for one in known if one), default=None)
        self.chain = [event for event in self.chain if highest and event.identity <= highest]
        await self._note_orphans()

    async def _note_orphans(self) -> None:
        """Of these only the name is known, from a hash: their owner lost the reply and then the
        database, Redis the journal. Two faults; the promise is for one."""
        rows = await self.live.cache.xrange(partition_key(PARTITION, "journal"))
        kept = [journal.events.decode(row["event"]) for _, row in rows] + self.durable
        kept += [event for worker in self.workers for event in worker.retained]
        self.orphans |= {event.identity for event in self.chain} - {
            event.identity for event in kept
        }

    # --- when the faults stop ---------------------------------------------------------------------

    async def _heal(self) -> None:
        self.terms += 1
        leader = Leader(f"leader-{self.terms}", self.terms)
        await generation.lead(self.live, leader.term, "")
        for _ in range(12):
            for worker in self.workers:
                await self._look(worker)
                await self._learn(worker)
                if call := self._call(worker):
                    self._hear(worker, call[2], await self._execute(*call[:2]))
            await self._recover(leader)
            place = (await assignments.places(self.live, [DB]))[DB]
            if leader.stage == 0 and (
                not place.owner or not place.epoch or place.epoch.term < leader.term
            ):
                await self._assign(leader, W1, False)
            await self._drain()
        assert leader.term, "nobody else leads"
        found = (await observations.latest(self.live, [DB]))[DB]
        owner = next(worker for worker in self.workers if worker.id == found.owner)
        tip = self.chain[-1].identity if self.chain else None
        assert found.status.identity == owner.accepted.identity == tip
        assert found.status.state is owner.accepted.state
        assert {event.identity for event in self.chain} - self.orphans <= {
            event.identity for event in self.durable
        }

    @invariant()
    def nobody_is_sure_of_more_than_was_accepted(self) -> None:
        names = {event.identity for event in self.chain}
        for worker in self.workers:
            assert worker.accepted.identity is None or worker.accepted.identity in names


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_random_histories(redis_url: str, caplog: pytest.LogCaptureFixture) -> None:
    class Here(History):
        url = redis_url

    caplog.set_level(logging.ERROR, logger="feeler.live")
    run_state_machine_as_test(
        Here,
        settings=settings(
            max_examples=25,
            stateful_step_count=60,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
            phases=[Phase.reuse, Phase.generate],  # to make a failure small takes minutes
        ),
    )
