"""Histories of two workers and two leaders on the real steps: pauses, lost and late calls, flushes.

The workers are the product's own recorder and custody; only what goes between them and Redis is
delayed or lost here. Hypothesis picks who takes the next step; a few histories are written by hand,
one for each decision of custody that no other test would miss. Promises checked at every step:
nobody writes but the owner under its epoch, and the first process that did; no write of an older
epoch or batch after a newer one; no hash goes back, and no worker; every new transition builds on
the last one accepted, no identity ever has two contents. And when the faults stop: everybody
agrees, and every accepted transition is durable.
"""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
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
from monitor.core.cause import Cause
from monitor.core.custody import Custody
from monitor.core.event import Event, Transition
from monitor.core.holding import Holding
from monitor.core.machine import Context
from monitor.core.placement import Assigned
from monitor.core.policy import Policy
from monitor.core.status import Doubt, Epoch, Identity, State, Status
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
from workers.worker.recorder import Recorder

# What happens next, as often as it stands here: work most of the time, faults now and then.
STEPS = (
    *("work",) * 6,
    *("look", "learn") * 3,
    *("catch_up", "feel", "lose_reply", "delay", "arrive") * 2,
    *("assign", "move", "recover", "drain", "forget", "replicate") * 2,
    *("elect", "flush", "fail_over", "freeze"),
    *("peek", "delay_reply", "get_reply", "usurp", "overtake", "twin", "withdraw"),
)
CAUSES = (Cause.OK, Cause.STARTING, Cause.PORT_CLOSED)  # each makes a transition of the others
PENDING_MOST = 4  # events; more say nothing new
PARTITION = partition(DB)


class Worker:
    """One process: the product's recorder and custody, and what they do not know yet."""

    def __init__(self, live: Live, name: str) -> None:
        self.id = name
        self.recorder = Recorder(live, name, lambda: None)
        self.felt = observation(worker=name)  # the newest
        self.flight: tuple[Beat, Reply] | None = None  # a reply on its way
        self.peeked: Latest | None = None  # the hash, read some time ago
        self.known: Identity | None = None  # the newest that Redis told to be accepted

    @property
    def custody(self) -> Custody:
        return self.recorder.custody

    @property
    def holding(self) -> Holding | None:
        return self.custody.holdings.get(DB)

    @property
    def accepted(self) -> Status:
        kept = self.custody.restorable().get(DB)
        return kept[0] if kept else Status()

    @property
    def retained(self) -> list[Transition]:
        return list(self.custody.retained.values())


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
    """Return what Postgres can tell of it; a doubt is made anew."""
    doubt = None
    if event.target is State.UNCERTAIN:
        doubt = Doubt(event.identity, event.at, event.at, ())
    return Status(event.target, event.at, event.identity, event.rule, doubt)


class History(RuleBasedStateMachine):
    """One history on one Redis."""

    url = ""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.live: Live = self.runner.get_loop().run_until_complete(self._connect())
        self.workers = [Worker(self.live, W1), Worker(self.live, W2)]
        self.now = NOW
        self.leaders = [Leader("one"), Leader("two")]
        self.terms = 0
        self.late: list[tuple[steps.Call, Beat]] = []
        self.replica: dict[str, bytes] = {}
        self.durable: list[Transition] = []
        self.chain: list[Transition] = []  # what was accepted, as far as somebody can know
        self.orphans: set[Identity] = set()
        self.promised: set[Identity] = set()  # some worker was told that they are accepted
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
        self.catch_up(0, CAUSES[0])

    @rule(step=st.sampled_from(STEPS), i=st.integers(0, 1), cause=st.sampled_from(CAUSES))
    def happen(self, step: str, i: int, cause: Cause) -> None:
        getattr(self, step)(i, cause)

    def catch_up(self, i: int, cause: Cause) -> None:
        """Everybody does its part for a while."""
        for _ in range(5):
            for one in (0, 1):
                self.look(one)
            self.recover(i, cause)
        self.assign(i, cause)
        for one in (0, 1):
            self.look(one)
            self.learn(one)

    def work(self, i: int, cause: Cause) -> None:
        """Feel and record on what this worker believes; look again where Redis refuses."""
        self.feel(i, cause)
        if not self.record(i):
            self.look(i)
            self.learn(i)

    # --- workers ----------------------------------------------------------------------------------

    def look(self, i: int, _: Any = None) -> None:
        """Follow the generation; no beat is on its way then."""
        self.get_reply(i)
        self.run(self.workers[i].recorder.follow_generation())

    def peek(self, i: int, _: Any = None) -> None:
        """Read the hash for the next `learn`, and pause."""
        self.workers[i].peeked = self.run(self._hash())

    async def _hash(self) -> Latest | None:
        return (await observations.latest(self.live, [DB])).get(DB)

    def learn(self, i: int, _: Any = None) -> None:
        self.run(self._learn(self.workers[i]))

    async def _learn(self, worker: Worker) -> None:
        """Learn from the hash as the patrol does from the index: it is ours, or it is not."""
        found, worker.peeked = worker.peeked or await self._hash(), None
        if not found or not worker.recorder.generation:
            return
        if found.owner != worker.id:
            self._promise_found(worker, found)
            worker.recorder.release(DB, found.status if found.seeded else None)
        elif found.epoch and found.seeded:
            held = worker.holding
            if held and (held.stopped or held.epoch != found.epoch):
                self._promise_found(worker, found)
            worker.recorder.learn(DB, found.epoch, found.status)

    def _promise_found(self, worker: Worker, found: Latest) -> None:
        """What the hash shows of what a worker waits for is accepted, and the worker knows."""
        waiting = _identities(worker.holding.pending if worker.holding else ())
        if found.seeded and found.status.identity in waiting:
            self.promised |= set(waiting[: waiting.index(found.status.identity) + 1])

    def feel(self, i: int, cause: Cause) -> None:
        worker = self.workers[i]
        holding = worker.holding
        if holding is None or len(holding.pending) >= PENDING_MOST:
            return
        for _ in range(2):  # what a server says counts when it says it twice
            self.now += 10
            worker.felt = observation(worker=worker.id, at=self.now, cause=cause)
            context = Context(worker=worker.id, epoch=holding.epoch, policy=Policy(), eligible=2)
            holding.observe(worker.felt, context)

    def record(self, i: int, _: Any = None) -> bool:
        self.delay_reply(i)
        flight = self.workers[i].flight
        self.get_reply(i)
        return flight is not None and flight[1] is Reply.ACCEPTED

    def delay_reply(self, i: int, _: Any = None) -> None:
        """The call is executed; its sender may learn and release before it has the reply."""
        self.get_reply(i)
        if call := self._call(self.workers[i]):
            self.workers[i].flight = call[1], self.run(self._execute(*call))

    def get_reply(self, i: int, _: Any = None) -> None:
        """Get the reply to the last beat."""
        worker = self.workers[i]
        if worker.flight is None:
            return
        (beat, reply), worker.flight = worker.flight, None
        worker.custody.apply_reply(beat, reply)
        if reply is Reply.ACCEPTED:
            self.promised |= set(_identities(beat.events))
            worker.known = _newest(worker.known, beat.status.identity)

    def freeze(self, i: int, _: Any = None) -> None:
        """Stand still for so long that nothing is sure any more."""
        self.workers[i].custody.stop()

    def forget(self, i: int, _: Any = None) -> None:
        self.run(self.workers[i].recorder.forget_durable())

    def lose_reply(self, i: int, _: Any = None) -> None:
        """The call is executed, its sender hears nothing."""
        if call := self._call(self.workers[i]):
            self.run(self._execute(*call))

    def delay(self, i: int, _: Any = None) -> None:
        """The sender gives up; the call lies in a socket of a frozen server."""
        if call := self._call(self.workers[i]):
            self.late = [*self.late, call][-3:]

    def arrive(self, _: int, __: Any = None) -> None:
        if self.late:
            self.run(self._execute(*self.late.pop(0)))

    def usurp(self, i: int, cause: Cause) -> None:
        """The other worker is given the database and records; this one has not noticed."""
        leader = self._leading()
        if not leader or not self.run(self._give(leader, self.workers[1 - i].id, False, None)):
            return
        self.look(1 - i)
        self.learn(1 - i)
        self.record(1 - i)
        self.work(i, cause)

    def _leading(self) -> "Leader | None":
        idle = (one for one in self.leaders if one.term == self.terms and one.stage == 0)
        return next(idle, None)

    def overtake(self, i: int, _: Any = None) -> None:
        """A request arrives after a later one of the same sender."""
        call = self._call(self.workers[i])
        self.record(i)
        if call:
            self.run(self._execute(*call))

    def twin(self, i: int, _: Any = None) -> None:
        """Another process goes by this worker's id, and knows all it knows."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(observations, "PROCESS", "twin")
            call = self._call(self.workers[i])
        if call:
            self.run(self._execute(*call))

    def withdraw(self, i: int, cause: Cause) -> None:
        """Nobody shall watch it for a while; its owner has not noticed."""
        leader = self._leading()
        if leader and self.run(assignments.unassign(self.live, DB, leader.term, "")):
            self.work(i, cause)

    def _call(self, worker: Worker) -> tuple[steps.Call, Beat] | None:
        beat = worker.custody.beat(worker.felt)
        if beat is None:
            return None
        batch = next(observations._batches)
        head = (worker.recorder.generation, worker.id, batch, observations.PROCESS)
        return observations._call(PARTITION, head, [beat]), beat

    async def _execute(self, call: steps.Call, beat: Beat) -> Reply:
        epoch = beat.epoch
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

    def _note(self, event: Event) -> None:
        if not isinstance(event, Transition):
            return
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

    def assign(self, i: int, cause: Cause) -> None:
        """An owner seems lost."""
        self._to(i, cause, planned=False)

    def move(self, i: int, cause: Cause) -> None:
        self._to(i, cause, planned=True)

    def _to(self, i: int, cause: Cause, *, planned: bool) -> None:
        leader = self.leaders[i]
        if leader.term and leader.stage == 0:
            self.run(self._assign(leader, self.workers[CAUSES.index(cause) % 2].id, planned))

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

    def recover(self, i: int, cause: Cause) -> None:
        """Take the next step or two of an opening, then be paused."""
        for _ in range(1 + CAUSES.index(cause)):
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
        said = [entry.event for entry in entries if isinstance(entry.event, Transition)]
        for event in said:
            kept = [one for one in self.durable if one.identity == event.identity]
            assert not kept or kept[0].target == event.target, "Postgres would see a conflict"
            self.durable += [] if kept else [event]
        self.durable.sort(key=lambda event: event.identity)
        await durability.mark_durable(self.live, [(DB, event.identity) for event in said], self.now)
        await journal.ack(self.live, "historian", entries)

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
        for worker in self.workers:
            worker.peeked = None  # a look at this instance is of no use for the next
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
        promised anything. A reply on its way still will be a promise.
        """
        found = await self._hash()
        known = [found.status.identity] if found else []
        known += [worker.accepted.identity for worker in self.workers]
        known += [event.identity for event in self.durable]
        known += self.promised
        under_way = [worker.flight for worker in self.workers if worker.flight]
        known += [beat.status.identity for beat, reply in under_way if reply is Reply.ACCEPTED]
        highest = max((one for one in known if one), default=None)
        self.chain = [event for event in self.chain if highest and event.identity <= highest]
        await self._note_orphans()

    async def _note_orphans(self) -> None:
        """Of these only the name is known, from a hash: their owner lost the reply and then the
        database, Redis the journal. Two faults; the promise is for one."""
        rows = await self.live.cache.xrange(partition_key(PARTITION, "journal"))
        kept = [journal.events.decode(row["event"]) for _, row in rows] + self.durable
        kept += [event for worker in self.workers for event in worker.retained]
        self.orphans |= set(_identities(self.chain)) - set(_identities(kept)) - self.promised

    # --- when the faults stop ---------------------------------------------------------------------

    async def _heal(self) -> None:
        self.terms += 1
        leader = Leader(f"leader-{self.terms}", self.terms)
        await generation.lead(self.live, leader.term, "")
        for _ in range(12):
            for i, worker in enumerate(self.workers):
                self.get_reply(i)
                await worker.recorder.follow_generation()
                await self._learn(worker)
                if call := self._call(worker):
                    worker.flight = call[1], await self._execute(*call)
                    self.get_reply(i)
                await worker.recorder.forget_durable()
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
        durable = set(_identities(self.durable))
        accepted = set(_identities(self.chain)) - self.orphans
        assert accepted | self.promised <= durable
        assert not any(worker.retained for worker in self.workers)

    @invariant()
    def nobody_is_sure_of_more_than_was_accepted(self) -> None:
        names = _identities(self.chain)
        for worker in self.workers:
            assert worker.accepted.identity is None or worker.accepted.identity in names

    @invariant()
    def nobody_takes_back_what_was_accepted(self) -> None:
        for worker in self.workers:
            assert worker.accepted.identity == _newest(worker.known, worker.accepted.identity)


def _identities(events: Sequence[Event]) -> list[Identity]:
    return [event.identity for event in events if isinstance(event, Transition)]


def _newest(*identities: Identity | None) -> Identity | None:
    return max((one for one in identities if one), default=None)


def history(url: str) -> type[History]:
    class Here(History):
        pass

    Here.url = url
    return Here


# step, who, and what it finds; a leader's STARTING means the other worker
LATE_AND_LOST = {
    "pending_keeps_its_identity": (
        ("feel", 0, Cause.OK),
        ("delay", 0),
        ("freeze", 0),
        ("learn", 0),
        ("feel", 0, Cause.PORT_CLOSED),
        ("arrive", 0),
        ("drain", 0),
        ("record", 0),
        ("learn", 0),
    ),
    "old_read": (
        ("feel", 0, Cause.OK),
        ("peek", 0),
        ("record", 0),
        ("freeze", 0),
        ("learn", 0),
    ),
    "late_reply": (
        ("feel", 0, Cause.OK),
        ("delay_reply", 0),
        ("move", 0, Cause.STARTING),
        ("learn", 1),
        ("work", 1, Cause.PORT_CLOSED),
        ("learn", 0),
        ("get_reply", 0),
        ("flush", 0),
    ),
    "lost_before_its_reply": (
        ("feel", 0, Cause.OK),
        ("delay_reply", 0),
        ("flush", 0),
        ("get_reply", 0),
    ),
    "released": (
        ("work", 0, Cause.OK),
        ("move", 0, Cause.STARTING),
        ("learn", 0),
        ("flush", 0),
    ),
    "found": (
        ("feel", 0, Cause.OK),
        ("lose_reply", 0),
        ("move", 0, Cause.STARTING),
        ("learn", 1),
        ("flush", 0),  # the other one restores the Status; the event is in no journal
        ("catch_up", 0, Cause.OK),
    ),
    "found_at_the_release": (
        ("feel", 0, Cause.OK),
        ("lose_reply", 0),
        ("move", 0, Cause.STARTING),
        ("learn", 1),
        ("flush", 0),
        ("catch_up", 0, Cause.STARTING),
    ),
    "durable_each_by_itself": (
        ("work", 0, Cause.OK),
        ("drain", 0),
        ("work", 0, Cause.PORT_CLOSED),
        ("forget", 0),
        ("flush", 0),
    ),
}


@pytest.mark.parametrize("steps", LATE_AND_LOST.values(), ids=LATE_AND_LOST)
def test_what_comes_late_or_never(redis_url: str, steps: Sequence[tuple[Any, ...]]) -> None:
    machine = history(redis_url)()
    try:
        machine.begin()
        for step, *who in steps:
            getattr(machine, step)(*who)
            machine.nobody_is_sure_of_more_than_was_accepted()
            machine.nobody_takes_back_what_was_accepted()
    finally:
        machine.teardown()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_random_histories(redis_url: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR, logger="feeler.live")
    run_state_machine_as_test(
        history(redis_url),
        settings=settings(
            max_examples=25,
            stateful_step_count=60,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
            phases=[Phase.reuse, Phase.generate],  # to make a failure small takes minutes
        ),
    )
