"""The faults: each is a context manager that hurts a lab, notes what it does, and undoes it. Rows
and nemesis use them.

A block's length is the fault's; what is over in a moment (a kill, a flush) takes no block of its
own.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import redis

from monitor.local.machine import own
from tests.faults import cutting
from tests.faults.cutting import Rule
from tests.faults.groups import Group
from tests.faults.lab import Lab
from tests.faults.observed import Effect
from tests.proxy import Mode, Proxy
from tests.servers import PostgresServer, RedisServer
from tests.system.cluster import Role
from tests.system.targets import end_our_sessions, fill_slots, held_in_recovery

# Takes a megabyte at a time, for ever; the kernel may not choose it when memory runs out.
GREEDY = """
open("/proc/self/oom_score_adj", "w").write("-1000")
open(0).read()
taken = []
while True:
    taken.append(b"x" * (1 << 20))
"""


@contextmanager
def _during(hurt: Callable[[], object], heal: Callable[[], object]) -> Iterator[None]:
    """Hurt now; heal when the block ends, however it ends."""
    hurt()
    try:
        yield
    finally:
        heal()


# --- processes of ours ----------------------------------------------------------------------------


def killed(lab: Lab, role: Role) -> None:
    """SIGKILL a process."""
    party = lab.party(role)
    lab.note(f"{role.name} killed", Effect.KILLED, parties=[party])
    role.kill()


@contextmanager
def frozen(lab: Lab, role: Role) -> Iterator[None]:
    """Stop a process in its tracks."""
    with (
        lab.fault(f"{role.name} frozen", Effect.FROZEN, parties=[lab.party(role)]),
        _during(role.freeze, role.thaw),
    ):
        yield


def all_killed(lab: Lab) -> None:
    """SIGKILL every process of ours at once; the stores live on."""
    alive = [role for role in lab.roles if role.alive]
    parties = [lab.party(role) for role in alive]
    lab.note("everything killed", Effect.KILLED, parties=parties)
    for role in alive:
        role.process.kill()
    for role in alive:
        role.process.wait()


@contextmanager
def cut_off(lab: Lab, role: Role, proxy: Proxy, store: str, mode: Mode = "deaf") -> Iterator[None]:
    """Cut a process off a store; what it sent to a deaf proxy arrives at the end."""
    with (
        lab.fault(f"{role.name} cut off {store}", Effect.AWAY, parties=[store, lab.party(role)]),
        _during(lambda: setattr(proxy, "mode", mode), lambda: setattr(proxy, "mode", "pass")),
    ):
        yield


@contextmanager
def starved_of_memory(lab: Lab, role: Role, group: Group) -> Iterator[None]:
    """Let a neighbour take all memory of a process's group: the kernel ends the process."""
    Path(f"/proc/{role.pid}/oom_score_adj").write_text("1000")
    lab.note(f"{role.name} out of memory", Effect.KILLED, parties=[lab.party(role)])
    neighbour = subprocess.Popen([sys.executable, "-c", GREEDY], stdin=subprocess.PIPE)
    try:
        group.take(neighbour.pid)
        neighbour.stdin.close()  # go
        yield
    finally:
        neighbour.kill()
        neighbour.wait()


@contextmanager
def foreign_supervisor(lab: Lab, database_url: str) -> Iterator[None]:
    """Let the supervisor of another registry find our Redis: it may say so, and nothing else."""
    stranger = lab.launch("supervisor", DATABASE_URL=database_url)
    try:
        until = time.monotonic() + 30
        while "feeler redis adopt " not in stranger.text():
            assert time.monotonic() < until, stranger.text()
            time.sleep(0.1)
        yield
        assert "action=leading" not in stranger.text()
    finally:
        stranger.kill()


# --- Redis ----------------------------------------------------------------------------------------


def flushed(lab: Lab) -> None:
    """FLUSHALL."""
    with lab.fault("FLUSHALL", Effect.FORGOT, parties=["redis"]):
        lab.redis.flushall()


@contextmanager
def _redis_killed(lab: Lab, name: str) -> Iterator[None]:
    """SIGKILL Redis; the block starts it again."""
    with lab.fault(name, Effect.FORGOT, parties=["redis"]), _redis_away(lab):
        lab.server.kill()
        yield


@contextmanager
def redis_lost(lab: Lab) -> Iterator[None]:
    """SIGKILL Redis; it comes back empty."""
    with _redis_killed(lab, "Redis killed, restarted empty"):
        yield
        lab.server.start(empty=True)


@contextmanager
def redis_down(lab: Lab) -> Iterator[None]:
    """SIGKILL Redis; it comes back with what it had on disk, which may lack the last second."""
    with _redis_killed(lab, "Redis down"):
        yield
        lab.server.start()


@contextmanager
def redis_frozen(lab: Lab) -> Iterator[None]:
    """Stop Redis in its tracks: it accepts and never answers."""
    with _redis_away(lab), _during(lab.server.freeze, lab.server.thaw):
        yield


def redis_copied(lab: Lab) -> Path:
    """Copy what Redis has on disk, as a backup would."""
    files = lab.server.folder / "appendonlydir"
    copy = files.with_name(f"copy-{time.time_ns()}")
    subprocess.run(["cp", "-a", str(files), str(copy)], check=True)
    return copy


@contextmanager
def redis_set_back(lab: Lab, copy: Path) -> Iterator[None]:
    """SIGKILL Redis; it comes back with an older copy of its disk."""
    with _redis_killed(lab, "Redis restarted from a copy"):
        yield
        shutil.rmtree(lab.server.folder / "appendonlydir")
        copy.rename(lab.server.folder / "appendonlydir")
        lab.server.start()


@contextmanager
def redis_full(lab: Lab, room: float = 0.9) -> Iterator[None]:
    """Give Redis less memory than it uses, by this factor: it reads, and refuses to write."""
    used = lab.redis.info("memory")["used_memory"]
    limit = partial(lab.redis.config_set, "maxmemory")
    with _redis_away(lab), _during(lambda: limit(round(used * room)), lambda: limit(0)):
        yield


@contextmanager
def redis_on_small_disk(server: RedisServer) -> Iterator[Path]:
    """Have a Redis write to a small disk of its own; yield its folder. Needs root."""
    folder, copy = server.folder, server.folder.with_name(f"{server.folder.name}-copy")
    server.stop()
    subprocess.run(["cp", "-a", folder, copy], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "feeler", folder], check=True)
    subprocess.run(["cp", "-a", f"{copy}/.", folder], check=True)
    shutil.rmtree(copy)
    own(folder)
    server.start()
    try:
        yield folder
    finally:
        server.stop()
        subprocess.run(["umount", folder], check=True)


@contextmanager
def redis_disk_full(lab: Lab, disk: Path) -> Iterator[None]:
    """Fill the disk of Redis: it answers reads and refuses to write."""
    ballast = disk / "ballast"
    with _redis_away(lab), _during(lambda: _fill(ballast), ballast.unlink):
        yield


def redis_failed_over(lab: Lab, pair: "RedisPair") -> RedisServer:
    """Promote the replica and lead everybody to it; return the old master, none the wiser."""
    with lab.fault("failover to the replica", Effect.FORGOT, parties=["redis"]), _redis_away(lab):
        return pair.fail_over()


def left_behind(lab: Lab, role: Role) -> AbstractContextManager[None]:
    """Note that a process talks to another Redis than everybody else."""
    return lab.fault("left with the old master", Effect.AWAY, parties=[lab.party(role)])


def replies_lost(lab: Lab) -> AbstractContextManager[None]:
    """Note that replies of Redis get lost: what was asked has been done all the same."""
    return lab.fault("replies of Redis lost", Effect.AWAY, parties=["redis"])


def _redis_away(lab: Lab) -> AbstractContextManager[None]:
    return lab.fault("Redis away", Effect.AWAY, parties=["redis"])


class RedisPair:
    """A master and its replica behind one address: for a lab, the server everybody means."""

    def __init__(
        self, master: RedisServer, replica: RedisServer, start_proxy: Callable[[int], Proxy]
    ) -> None:
        self.master, self.replica, self._start_proxy = master, replica, start_proxy
        self._password = master.password
        # one address, one password
        self._ask(replica, "ACL", "SETUSER", "default", f">{self._password}")
        self._address = start_proxy(master.port)
        self.url = self._address.url(master.url)
        self.replicate()

    @property
    def folder(self) -> Path:
        return self.master.folder

    def replicate(self) -> None:
        """Let the replica follow the master by a link that can be cut; wait until it caught up."""
        self.link = self._start_proxy(self.master.port)
        self._ask(self.replica, "CONFIG", "SET", "masterauth", self._password)
        self._ask(self.replica, "REPLICAOF", self.link.host, str(self.link.port))
        while self._info(self.replica)["master_link_status"] != "up":
            time.sleep(0.05)

    def cut(self) -> None:
        """Keep the replica from following any further."""
        self.link.mode = "refuse"

    def fail_over(self) -> RedisServer:
        """Promote the replica and move the address to it; return the old master."""
        self._ask(self.replica, "REPLICAOF", "NO", "ONE")
        self._address.retarget(self.replica.port)
        self.master, self.replica = self.replica, self.master
        return self.replica

    def way_to(self, server: RedisServer) -> Proxy:
        """Return a way of one's own to one of the two."""
        return self._start_proxy(server.port)

    def _ask(self, server: RedisServer, *words: str) -> None:
        with redis.Redis.from_url(server.url) as client:
            client.execute_command(*words)

    def _info(self, server: RedisServer) -> dict[str, Any]:
        with redis.Redis.from_url(server.url) as client:
            return client.info("replication")


# --- the metadata Postgres ------------------------------------------------------------------------


def _postgres_away(lab: Lab, how: str) -> AbstractContextManager[None]:
    return lab.fault(f"metadata Postgres {how}", Effect.AWAY, parties=["postgres"])


@contextmanager
def postgres_down(lab: Lab, server: PostgresServer) -> Iterator[None]:
    """SIGKILL every process of the metadata Postgres."""
    with _postgres_away(lab, "down"), _during(server.kill_all, server.start):
        yield


@contextmanager
def postgres_frozen(lab: Lab, server: PostgresServer) -> Iterator[None]:
    """Stop every process of the metadata Postgres."""
    with _postgres_away(lab, "frozen"), _during(server.freeze, server.thaw):
        yield


@contextmanager
def postgres_read_only(lab: Lab, server: PostgresServer) -> Iterator[None]:
    """Let the metadata Postgres take no writes, as a standby does after a failover."""

    def alter(words: str) -> None:
        server.execute(f"alter system {words}")
        server.execute("select pg_reload_conf()")

    setting = "default_transaction_read_only"
    change = _during(lambda: alter(f"set {setting} = on"), lambda: alter(f"reset {setting}"))
    with _postgres_away(lab, "read-only"), change:
        yield


@contextmanager
def postgres_switched_over(
    lab: Lab, way: "Proxy", old: PostgresServer, new: PostgresServer
) -> Iterator[None]:
    """Make `new` a copy of the metadata Postgres and `old` a standby; its name leads to `new` when
    the block ends.

    Connections that were made in the block stay where they are: the old server lives on.
    """
    with _postgres_away(lab, "switched over"):
        way.mode = "refuse"
        old.stop()
        new.stop()
        shutil.rmtree(new.data)
        subprocess.run(["cp", "-a", old.data, new.data], check=True)
        new.password = old.password
        new.start()
        old.start()
        old.demote()
        way.mode = "pass"
        yield
        way.target = (way.host, new.port)


def _fill(ballast: Path) -> None:
    """Leave no byte free."""
    with ballast.open("wb") as file, contextlib.suppress(OSError):
        while True:
            os.write(file.fileno(), bytes(4096))


class SmallDisk:
    """A file system of its own for a server's data, with little room."""

    ROOM = 8  # megabytes, besides what is there

    def __init__(self, server: PostgresServer) -> None:
        self.server, self._mount = server, server.folder / "disk"
        server.stop()
        measured = subprocess.run(["du", "-sm", server.data], check=True, capture_output=True)
        size = f"size={int(measured.stdout.split()[0]) + self.ROOM}m"
        self._mount.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", size, "feeler", self._mount], check=True)
        shutil.copystat(server.folder, self._mount)
        own(self._mount)
        subprocess.run(["cp", "-a", server.data, self._mount], check=True)
        server.data = self._mount / server.data.name
        server.pid_file = server.data / server.pid_file.name
        server.start()

    def fill(self) -> None:
        """Leave no byte free."""
        _fill(self._mount / "ballast")

    def empty(self) -> None:
        """Take the ballast away, and start the server where it gave up."""
        (self._mount / "ballast").unlink(missing_ok=True)
        if not self.server.pid:
            self.server.start()

    def remove(self) -> None:
        """Stop the server and unmount its disk."""
        self.server.stop()
        subprocess.run(["umount", self._mount], check=True)


@contextmanager
def postgres_disk_full(lab: Lab, disk: SmallDisk) -> Iterator[None]:
    """Fill the disk of the metadata Postgres."""
    with _postgres_away(lab, "without room on its disk"), _during(disk.fill, disk.empty):
        yield


@contextmanager
def postgres_set_back(lab: Lab, server: PostgresServer) -> Iterator[None]:
    """Copy the metadata Postgres's data now, and put the copy back when the block ends: what the
    block wrote is gone.

    The fault that is noted is the block: transitions that became durable in it are the ones that
    are lost.
    """
    copy = server.folder / "copy"
    with _postgres_away(lab, "stopped for a copy"):
        server.stop()
        subprocess.run(["cp", "-a", server.data, copy], check=True)
        server.start()
    with lab.fault("metadata Postgres set back", Effect.RESTORED, parties=["postgres"]):
        yield
        server.stop()
    with _postgres_away(lab, "restored"):
        shutil.rmtree(server.data)
        copy.rename(server.data)
        server.start()


# --- targets --------------------------------------------------------------------------------------


def databases_of(lab: Lab, server: PostgresServer) -> list[str]:
    """Return the monitored databases of a server."""
    return [name for name, its in lab.targets.items() if its is server]


@contextmanager
def target_killed(
    lab: Lab,
    server: PostgresServer,
    how: Callable[[PostgresServer], None] = PostgresServer.kill_all,
) -> Iterator[None]:
    """SIGKILL a server that is watched; it is started again when the block ends."""
    with lab.fault("target killed", Effect.ABSENT, databases_of(lab, server), port=server.port):
        how(server)
        yield
        server.start()


@contextmanager
def target_frozen(lab: Lab, server: PostgresServer) -> Iterator[None]:
    """Stop every process of a server that is watched: it accepts and never answers."""
    with (
        lab.fault("target frozen", Effect.SILENT, databases_of(lab, server), port=server.port),
        _during(server.freeze, server.thaw),
    ):
        yield


@contextmanager
def target_recovering(lab: Lab, server: PostgresServer) -> Iterator[None]:
    """Crash a watched server; until the block ends it says 57P03, in recovery."""
    with (
        lab.fault("target in recovery", Effect.SPEAKS, databases_of(lab, server)),
        held_in_recovery(server),
    ):
        yield


@contextmanager
def target_full(lab: Lab, server: PostgresServer, user: str, password: str) -> Iterator[None]:
    """Let sessions of this role take every slot of a server that is watched."""
    with lab.fault("no slot left", Effect.SPEAKS, databases_of(lab, server)), ExitStack() as stack:
        for hog in fill_slots(server, user, password):
            stack.callback(hog.close)
        yield


@contextmanager
def target_slow(lab: Lab, proxy: Proxy, seconds: float, names: Collection[str]) -> Iterator[None]:
    """Let every answer through a proxy come so much later."""

    def delay(each: float) -> None:
        proxy.delay = each / 2  # it is paid both ways

    late = lab.fault(f"answers {seconds:g} s late", Effect.HARMLESS, names)
    with late, _during(lambda: delay(seconds), lambda: delay(0.0)):
        yield


def sessions_ended(lab: Lab, server: PostgresServer) -> int:
    """Terminate the sessions feeler keeps at a server; return how many there were."""
    with lab.fault("sessions ended", Effect.HARMLESS, databases_of(lab, server), port=server.port):
        return end_our_sessions(server)


@contextmanager
def hidden(
    lab: Lab, names: Collection[str], workers: Collection[str], cut: Callable[[bool], None]
) -> Iterator[None]:
    """Cut some workers off some targets; `cut(True)` does it, `cut(False)` takes it back."""
    fault = lab.fault("target hidden from a worker", Effect.HIDDEN, names, workers)
    with fault, _during(lambda: cut(True), lambda: cut(False)):
        yield


# --- the network ----------------------------------------------------------------------------------


@contextmanager
def without_redis(lab: Lab, role: Role) -> Iterator[Rule]:
    """Let nothing a process sends reach Redis."""
    ports = [urlsplit(lab.redis_url).port or 0, *([lab.tap.port] if lab.tap else [])]
    fault = lab.fault(f"{role.name} cut off Redis", Effect.AWAY, parties=["redis", lab.party(role)])
    with fault, cutting.cut_off(lab.groups[role.pid].path, ports) as rule:
        yield rule


@contextmanager
def without_target(lab: Lab, role: Role, server: PostgresServer) -> Iterator[Rule]:
    """Let nothing a worker sends reach a server that is watched."""
    names, parties = databases_of(lab, server), [lab.party(role)]
    fault = lab.fault("target hidden from a worker", Effect.HIDDEN, names, parties, server.port)
    with fault, cutting.cut_off(lab.groups[role.pid].path, [server.port]) as rule:
        yield rule


@contextmanager
def target_closed(
    lab: Lab, server: PostgresServer, effect: Effect, answer: Sequence[str]
) -> Iterator[Rule]:
    """Let the network answer for a server, see `cutting`."""
    fault = lab.fault(f"target closed by {answer[-1]}", effect, databases_of(lab, server))
    with fault, cutting.closed(server.port, answer) as rule:
        yield rule


FIRST_ANSWER = 9  # bytes by which a server lets us in


@contextmanager
def answers_cut(lab: Lab, proxies: Mapping[str, tuple[Proxy, int]]) -> Iterator[None]:
    """Let each connection to these databases fall silent after so many more bytes of answers."""
    silent = [name for name, (_, count) in proxies.items() if count < FIRST_ANSWER]
    spoken = proxies.keys() - silent
    workers = [lab.party(role) for role in lab.workers()]
    with (
        lab.fault("answers stall", Effect.SILENT, silent),
        lab.fault("answers stall later", Effect.SPEAKS, spoken),
        lab.fault("answers of open sessions stall", Effect.HIDDEN, spoken, workers),
    ):
        for proxy, count in proxies.values():
            proxy.cut_after(count)
        try:
            yield
        finally:
            for proxy, _ in proxies.values():
                proxy.cut_after(None)
                proxy.sever()


@contextmanager
def packets_lost(
    lab: Lab, ports: Collection[int], share: float, *, logins: bool
) -> Iterator[list[Rule]]:
    """Lose this share of all packets to and from the stores and these ports.

    A probe may be lost with all its repeats; where many packets are, two `logins` in a row, too.
    """
    names = [name for name, port in lab.ports.items() if port in ports]
    stores = [urlsplit(url).port or 0 for url in (lab.redis_url, lab.database_url)]
    workers = [lab.party(role) for role in lab.workers()]
    what = f"{share:.0%} of packets lost"
    with (
        lab.fault(what, Effect.HIDDEN, names, workers),
        lab.fault(what, Effect.AWAY, parties=["redis", "postgres"]),
        lab.fault(what, Effect.SPEAKS, names) if logins else nullcontext(),
        cutting.lossy([*ports, *stores], share) as rules,
    ):
        yield rules
