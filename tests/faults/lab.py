"""A cluster to be hurt: faults are noted, all is watched, and a history is left to judge."""

import asyncio
import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from monitor.core.errors import AlreadyExists, NotFound, StoreUnavailable
from monitor.live import presence
from monitor.live.keys import PARTITIONS, partition_key
from monitor.registry import fleet, store
from monitor.registry.store import open_store
from tests.faults import demands, evidence, moving, replaying
from tests.faults.demands import Outage
from tests.faults.groups import Group, new_group
from tests.faults.observed import Change, Effect, Fault, History
from tests.faults.watching import Eye
from tests.proxy import Proxy
from tests.servers import PostgresServer
from tests.system.cluster import KEY, ROOT, Cluster, Role
from tests.waiting import eventually

INTERVAL = 5.0  # seconds: the default policy's
SETTLE = 40.0  # seconds the fleet gets to come to rest once the faults are over


@dataclass
class Lab(Cluster):
    """A cluster with its faults, its eye and its judge."""

    targets: dict[str, PostgresServer] = field(default_factory=dict)  # by database
    ports: dict[str, int] = field(default_factory=dict)  # by database, as workers see it
    faults: list[Fault] = field(default_factory=list)
    groups: dict[int, Group] = field(default_factory=dict)  # by process id
    secrets: set[str] = field(default_factory=lambda: {KEY})
    tap: Proxy | None = None  # between the first worker and Redis
    retired: set[str] = field(default_factory=set)  # nothing but their history is left of them
    changes: list[Change] = field(default_factory=list)  # of databases that moved, or came and went

    def __post_init__(self) -> None:
        super().__post_init__()
        self.began = time.time()
        self.eye = Eye(self)

    # --- parties ----------------------------------------------------------------------------------

    def launch(self, role: str, group: Group | None = None, **more: str) -> Role:
        """Start a process of ours in a control group of its own, where that can be had."""
        if role == "worker" and not self.tap:
            url = more.get("REDIS_URL", self.redis_url)
            self.tap = replaying.tap(urlsplit(url).port or 0)
            more["REDIS_URL"] = self.tap.url(url)
        group = group or new_group()
        started = self.start(role, group.enter if group else None, **more)
        if group:
            self.groups[started.pid] = group
        return started

    def monitor(self, name: str, server: PostgresServer, url: str = "", **options: Any) -> None:
        """Have a database of a server monitored; `url` where the way leads through a proxy."""
        url = url or server.url(**options)
        parts = urlsplit(url)
        self.targets[name], self.ports[name] = server, parts.port or 0
        self.secrets.add(str(parts.password))
        self.eye.watch(name)
        self.add(name, url)

    def monitor_many(
        self, count: int, server: PostgresServer, prefix: str = "db", way: Proxy | None = None
    ) -> list[str]:
        """Have `count` new databases of a server monitored, `way` between; return their names."""
        names = [f"{prefix}-{number:02}" for number in range(count)]
        for name in names:
            server.execute(f'create database "{name}"')
            self.monitor(name, server, way.url(server.url(name)) if way else server.url(name))
        return names

    def move(self, name: str, server: PostgresServer, dbname: str = "postgres") -> None:
        """Have a database monitored at another server from now on."""
        url = server.url(dbname)
        self.secrets.add(str(urlsplit(url).password))
        with self._changed(name, server.port):
            self._insist(
                lambda: fleet.change(self.store, name, ciphertext=self.box.seal(name, url))
            )
        self.targets[name], self.ports[name] = server, server.port

    def retire(self, name: str) -> None:
        """Have a database monitored no longer."""
        with self._changed(name, None):
            self._insist(lambda: fleet.remove(self.store, name))
        self.retired.add(name)

    def monitor_again(self, name: str, dbname: str = "postgres") -> None:
        """Have a database monitored that was retired."""
        self.retired.discard(name)
        with self._changed(name, self.ports[name]):
            self._insist(lambda: self.add(name, self.targets[name].url(dbname)))

    @contextlib.contextmanager
    def _changed(self, name: str, port: int | None) -> Iterator[None]:
        """Note where the registry has a database once the block is over."""
        began = time.time()
        if not any(one.database == name for one in self.changes):
            self.changes.append(Change(name, self.began, self.began, self.ports[name]))
        yield
        self.changes.append(Change(name, began, time.time(), port))

    def _insist(self, act: Callable[[], object]) -> None:
        """Do it as soon as our Postgres takes it; it may have taken it without a word."""
        tries = 0
        while True:
            try:
                act()
                return
            except StoreUnavailable:
                tries += 1
                time.sleep(0.2)
            except (NotFound, AlreadyExists):
                if not tries:
                    raise
                return

    def replace_registry(self, url: str, dropped: Collection[str]) -> None:
        """Go on with another registry of the same databases but those `dropped`, unannounced."""
        self.store.close()
        self.database_url, self.store = url, open_store(url)
        for name in self.targets.keys() - set(dropped):
            self.add(name, self.targets[name].url(name))
        self.retired.update(dropped)

    def feeler(self, *words: str) -> int:
        """Run the command line and return its exit code."""
        argv = [sys.executable, "-m", "monitor.cli", *words]
        return subprocess.run(argv, env=self.environment(), cwd=ROOT, check=False).returncode

    def workers(self) -> list[Role]:
        """Return the worker processes that live."""
        return [role for role in self.roles if role.name == "worker" and role.alive]

    def supervisors(self) -> list[Role]:
        """Return the supervisor processes that live."""
        return [role for role in self.roles if role.name == "supervisor" and role.alive]

    def owner(self, name: str) -> str:
        return self.hash(name).get("owner", "")

    def owner_of(self, name: str) -> Role:
        """Return the worker process that owns a database."""
        return self.worker_of(self.owner(name))

    def owned_by(self, role: Role, names: Collection[str]) -> list[str]:
        """Return which of these databases a worker owns."""
        worker = self.id_of(role)
        return [name for name in names if self.owner(name) == worker]

    def party(self, role: Role) -> str:
        """Return the id a process goes by."""
        return evidence.party(role)

    # --- faults -----------------------------------------------------------------------------------

    @contextlib.contextmanager
    def fault(
        self,
        name: str,
        effect: Effect,
        databases: Collection[str] = (),
        parties: Collection[str] = (),
        port: int = 0,
    ) -> Iterator[None]:
        """Note a fault that lasts as long as the block."""
        began = time.time()
        try:
            yield
        finally:
            self.note(name, effect, databases, parties, began=began, ended=time.time(), port=port)

    def note(
        self,
        name: str,
        effect: Effect,
        databases: Collection[str] = (),
        parties: Collection[str] = (),
        *,
        began: float | None = None,
        ended: float | None = None,
        port: int = 0,
    ) -> None:
        """Note a fault; one that never ends where `ended` is None."""
        began = time.time() if began is None else began
        self.faults.append(
            Fault(name, effect, began, ended, frozenset(databases), frozenset(parties), port)
        )

    # --- waiting ----------------------------------------------------------------------------------

    async def all_in(self, names: Sequence[str], state: str, within: float) -> float:
        """Wait until each database is in `state`; return the seconds it took."""
        began = time.monotonic()

        def there() -> bool:
            return all(self.state(name) == state for name in names)

        await eventually(lambda: self.tolerantly(there), within=within, every=0.05)
        return time.monotonic() - began

    async def observed_again(
        self, names: Collection[str], within: float, since: float | None = None
    ) -> float:
        """Wait until each database is observed after `since`; return the seconds."""
        since = time.time() if since is None else since

        def again() -> bool:
            return all(float(self.hash(name).get("observed_at", 0)) > since for name in names)

        await eventually(lambda: self.tolerantly(again), within=within, every=0.05)
        return time.time() - since

    async def observed_by_others(
        self, names: Collection[str], worker: Role, within: float
    ) -> float:
        """Wait until others have recorded new observations of all these; return the seconds."""
        since, former = time.time(), self.party(worker)

        def others() -> bool:
            rows = [self.hash(name) for name in names]
            return all(
                row["seen_by"] != former and float(row["observed_at"]) > since for row in rows
            )

        await eventually(lambda: self.tolerantly(others), within=within, every=0.05)
        return time.time() - since

    def tolerantly(self, probe: Callable[[], Any], otherwise: Any = False) -> Any:
        """Return what `probe` says, `otherwise` while a store does not answer."""
        with contextlib.suppress(*evidence.AWAY):
            return probe()
        return otherwise

    def retained(self) -> int:
        """Return how many accepted transitions workers hold, not knowing them durable."""
        texts = self.redis.mget(self.redis.keys("feeler:presence:*") or ["-"])
        return sum(one.retained for one in (presence.decode(text) for text in texts if text))

    async def settle(self, within: float = SETTLE) -> None:
        """Wait until everything accepted is durable and the cache says what history says."""
        deadline = time.monotonic() + within
        while unrest := self.tolerantly(self._unrest, "a store is away"):
            assert time.monotonic() < deadline, (
                f"no rest within {within} s: {unrest}{self.last_words()}"
            )
            await asyncio.sleep(0.25)

    def last_words(self) -> str:
        """Return the end of every process's log."""
        return "".join(
            f"\n--- {role.name} {role.pid}\n{role.text()[-3000:]}" for role in self.roles
        )

    def _unrest(self) -> str:
        if retained := self.retained():
            return f"{retained} transitions are retained"
        return ", ".join(filter(None, map(self._disagreement, self.targets.keys() - self.retired)))

    def _disagreement(self, name: str) -> str:
        rows = [row for row in self.transitions(name) if not row.superseded]
        durable = str(rows[-1].transition.identity) if rows else ""
        cached = self.hash(name).get("identity", "")
        if durable and durable == cached:
            return ""
        return f"{name}: {cached!r} in the cache, {durable!r} durable"

    # --- judging ----------------------------------------------------------------------------------

    async def finish(self) -> History:
        """Let the fleet come to rest and return everything that was seen."""
        try:
            await self.settle()
            self._send_again()
            await asyncio.sleep(0.3)  # one more look of the eye
        finally:
            self.eye.close()
        return evidence.gather(self)

    def _send_again(self) -> None:
        """Demand that records sent before the faults change nothing any more."""
        late = replaying.records(self.tap.captured if self.tap else ())
        over, wrong = replaying.send_again(self.redis_url, late)
        print(f"{len(late)} records sent again late, {over} of them of epochs that are over")
        assert not wrong, "\n".join([f"{len(wrong)} late records were not dropped:", *wrong])

    def outages(self) -> list[Outage]:
        """Return the outages so far that the judge will demand to have been called in time."""
        so_far = History(
            self.began, time.time(), self.faults, changes=self.changes, sights=self.eye.sights
        )
        so_far.faults = moving.resolved(so_far)
        return demands.outages(so_far)

    def close(self) -> None:
        self.eye.close()
        for role in self.roles:
            if role.alive:
                role.thaw()
        super().close()
        if self.tap:
            self.tap.stop()
        for group in self.groups.values():
            group.remove()


def new_registry(server: PostgresServer, name: str = "feeler") -> str:
    """Make a registry on a server and return its address; a copy of one would bear its name."""
    server.execute(f"create database {name}")
    store.migrate(server.url(name))
    return server.url(name)


def partition_keys(kind: str) -> list[str]:
    """Return the keys of one kind in all partitions."""
    return [partition_key(number, kind) for number in range(PARTITIONS)]
