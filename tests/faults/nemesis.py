"""The nemesis: for each subject of a lab a stream of faults, drawn from a seed; streams overlap as
they like.

What a seed draws is fixed; what the machine does meanwhile is not.
"""

import asyncio
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from tests.faults import cutting, injecting
from tests.faults.demands import STANDARD
from tests.faults.lab import Lab
from tests.faults.observed import Effect
from tests.servers import PostgresServer
from tests.system.cluster import Role

Fault = Callable[[], AbstractContextManager[Any]]
MOVED, RETIRED, FOREIGN = "address changed", "retired, then added again", "foreign supervisor"


@dataclass(frozen=True, slots=True)
class Draw:
    """One kind of fault: how likely, for how many seconds, and what it does."""

    name: str
    weight: int
    shortest: float
    longest: float
    fault: Fault


@dataclass
class Subject:
    """Somebody who has at most one fault at a time."""

    name: str
    rest: float  # seconds of peace, on average
    draws: Sequence[Draw]


@dataclass
class Nemesis:
    """Hurts its subjects for some seconds; everything is undone at the end."""

    seed: int
    subjects: Sequence[Subject]
    injected: list[str] = field(default_factory=list)

    async def run(self, seconds: float) -> None:
        """Let every subject have its faults until the time is over."""
        until = time.monotonic() + seconds
        await asyncio.gather(
            *(self._torment(subject, until) for subject in self.subjects if subject.draws)
        )

    async def _torment(self, subject: Subject, until: float) -> None:
        lots = random.Random(f"{self.seed} {subject.name}")
        while True:
            await asyncio.sleep(lots.uniform(0.2, 2 * subject.rest))
            draw = lots.choices(subject.draws, [one.weight for one in subject.draws])[0]
            seconds = lots.uniform(draw.shortest, draw.longest)
            if time.monotonic() + seconds > until:
                return
            await self._inject(subject, draw, seconds)

    async def _inject(self, subject: Subject, draw: Draw, seconds: float) -> None:
        stamp = time.strftime("%H:%M:%S")
        self.injected.append(draw.name)
        print(f"{stamp} {subject.name}: {draw.name} for {seconds:.1f} s")
        fault = draw.fault()
        await asyncio.to_thread(fault.__enter__)
        try:
            await asyncio.sleep(seconds)
        finally:
            await asyncio.to_thread(fault.__exit__, None, None, None)


class Place:
    """A place for one process, whoever fills it now."""

    def __init__(self, lab: Lab, role: Role) -> None:
        self._lab, self.role = lab, role

    @contextmanager
    def dead(self) -> Iterator[None]:
        """SIGKILL it; somebody new comes when the block ends."""
        injecting.killed(self._lab, self.role)
        yield
        self.role = self._lab.launch(self.role.name)

    def frozen(self) -> AbstractContextManager[Any]:
        return injecting.frozen(self._lab, self.role)

    def without_redis(self) -> AbstractContextManager[Any]:
        return injecting.without_redis(self._lab, self.role)

    def without(self, server: PostgresServer) -> AbstractContextManager[Any]:
        return injecting.without_target(self._lab, self.role, server)


@contextmanager
def moment(act: Callable[[], object]) -> Iterator[None]:
    """Do what is over in a moment."""
    act()
    yield


def of_process(lab: Lab, role: Role, name: str, hidden: PostgresServer | None = None) -> Subject:
    """Return the faults of one process; `hidden` is a server it alone may lose sight of."""
    place = Place(lab, role)
    draws = [Draw("killed", 2, 0.5, 8, place.dead), Draw("frozen", 2, 0.5, 20, place.frozen)]
    if not cutting.why_not():
        draws.append(Draw("cut off Redis", 1, 1, 15, place.without_redis))
        if hidden:
            draws.append(Draw("cut off a target", 2, 2, 25, partial(place.without, hidden)))
    return Subject(name, 40.0, draws)


def of_redis(lab: Lab) -> Subject:
    """Return the faults of Redis."""
    draws = (
        Draw("FLUSHALL", 3, 0.1, 0.2, lambda: moment(partial(injecting.flushed, lab))),
        Draw("killed, back empty", 2, 0.2, 8, partial(injecting.redis_lost, lab)),
        Draw("killed, back with its file", 2, 0.2, 12, partial(injecting.redis_down, lab)),
        Draw("frozen", 2, 0.5, 12, partial(injecting.redis_frozen, lab)),
        Draw("full", 1, 1, 12, partial(injecting.redis_full, lab)),
    )
    return Subject("redis", 40.0, draws)


def of_metadata(lab: Lab, server: PostgresServer) -> Subject:
    """Return the faults of the metadata Postgres."""
    draws = (
        Draw("down", 1, 1, 20, partial(injecting.postgres_down, lab, server)),
        Draw("frozen", 1, 1, 15, partial(injecting.postgres_frozen, lab, server)),
        Draw("read-only", 1, 1, 15, partial(injecting.postgres_read_only, lab, server)),
    )
    return Subject("metadata", 40.0, draws)


def _sessions_ended(lab: Lab, server: PostgresServer) -> Draw:
    ended = partial(injecting.sessions_ended, lab, server)
    return Draw("our sessions ended", 1, 0.1, 0.2, lambda: moment(ended))


def of_target(lab: Lab, server: PostgresServer, name: str) -> Subject:
    """Return the faults of a server that is watched."""
    killed = partial(injecting.target_killed, lab, server)
    draws = (
        Draw("killed", 2, 0.1, 25, killed),
        Draw("postmaster killed", 1, 0.1, 10, partial(killed, PostgresServer.kill_postmaster)),
        Draw("frozen", 2, 0.5, 30, partial(injecting.target_frozen, lab, server)),
        _sessions_ended(lab, server),
    )
    return Subject(name, 20.0, draws)


def of_spared(lab: Lab, server: PostgresServer, name: str) -> Subject:
    """Return the faults of a server, each longer than it may go unnoticed by idle watchers."""
    absent, silent = STANDARD.absent, STANDARD.silent
    draws = (
        Draw("killed", 2, absent + 2, absent + 8, partial(injecting.target_killed, lab, server)),
        Draw("frozen", 1, silent + 2, silent + 8, partial(injecting.target_frozen, lab, server)),
        _sessions_ended(lab, server),
    )
    return Subject(name, 5.0, draws)


def of_busy(lab: Lab, server: PostgresServer, name: str) -> Subject:
    """Return outages that follow close on one another, more than may move a database at once."""
    shortest = STANDARD.absent + 1
    draw = Draw("killed", 1, shortest, shortest + 2, partial(injecting.target_killed, lab, server))
    return Subject(name, 4.0, [draw])


def of_mover(lab: Lab, name: str, home: PostgresServer, away: PostgresServer) -> Subject:
    """Return what happens to a database whose address changes to another server, and back."""
    return Subject(name, 6.0, [Draw(MOVED, 1, 12, 28, partial(_moved, lab, name, home, away))])


def of_guest(lab: Lab, name: str) -> Subject:
    """Return what happens to a database that comes and goes."""
    return Subject(name, 6.0, [Draw(RETIRED, 1, 12, 28, partial(_retired, lab, name))])


def of_foreigner(lab: Lab, database_url: str) -> Subject:
    """Return what another registry does to us: its supervisor is led to our Redis."""
    draw = Draw(FOREIGN, 1, 5, 15, partial(injecting.foreign_supervisor, lab, database_url))
    return Subject("foreigner", 8.0, [draw])


@contextmanager
def _moved(lab: Lab, name: str, home: PostgresServer, away: PostgresServer) -> Iterator[None]:
    lab.move(name, away, name)
    yield
    lab.move(name, home, name)


@contextmanager
def _retired(lab: Lab, name: str) -> Iterator[None]:
    lab.retire(name)
    yield
    lab.monitor_again(name, name)


def of_network(lab: Lab, servers: Sequence[PostgresServer]) -> Subject:
    """Return the faults of the network between us, our stores and some servers."""
    lossy = partial(_lossy, lab, sorted(server.port for server in servers))
    return Subject(
        "network", 40.0, [] if cutting.why_not() else [Draw("5 % of packets lost", 1, 5, 30, lossy)]
    )


@contextmanager
def _lossy(lab: Lab, ports: list[int]) -> Iterator[None]:
    """Lose packets: a fleet at rest does not mind, but a login that loses two may fail."""
    began = time.time()
    with injecting.packets_lost(lab, ports, 0.05, logins=False):
        yield
    everybody = [lab.party(role) for role in lab.roles]
    names = [name for name, port in lab.ports.items() if port in ports]
    lab.note("logins lost", Effect.HIDDEN, names, everybody, began=began, ended=time.time())
