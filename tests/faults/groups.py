"""Control groups, one per process, to cut off, freeze or starve it. Needs root."""

import contextlib
import itertools
import os
from pathlib import Path

_numbers = itertools.count(1)


def _mounts(kind: str, word: str = "") -> list[Path]:
    """Return where file systems of this kind are mounted, with `word` among their options."""
    rows = (line.split() for line in Path("/proc/self/mounts").read_text().splitlines())
    return [
        Path(row[1]) for row in rows if row[2] == kind and (not word or word in row[3].split(","))
    ]


class Group:
    """The control group of one process; `path` is its name for iptables' cgroup match."""

    def __init__(self, root: Path) -> None:
        self.path = f"feeler-tests-{os.getpid()}-{next(_numbers)}"
        self._folders = [root / self.path]
        self._folders[0].mkdir()

    def limit_memory(self, size: int) -> bool:
        """Let the kernel kill what grows beyond `size` bytes; False without a memory controller."""
        for root, file in [(root, "memory.limit_in_bytes") for root in _mounts("cgroup", "memory")]:
            with contextlib.suppress(OSError):
                folder = root / self.path
                folder.mkdir(exist_ok=True)
                (folder / file).write_text(str(size))
                self._folders.append(folder)
                return True
        with contextlib.suppress(OSError):
            (self._folders[0] / "memory.max").write_text(str(size))
            (self._folders[0] / "memory.swap.max").write_text("0")
            return True
        return False

    def killed_for_memory(self) -> int:
        """Return how many processes the kernel has ended because the group's memory ran out."""
        pairs = itertools.product(self._folders, ("memory.oom_control", "memory.events"))
        texts = [(folder / name).read_text() for folder, name in pairs if (folder / name).exists()]
        rows = (line.split() for text in texts for line in text.splitlines())
        return sum(int(row[1]) for row in rows if row[0] == "oom_kill")

    def enter(self) -> None:
        """Put the calling process into the group."""
        self.take(os.getpid())

    def take(self, pid: int) -> None:
        """Put a process into the group."""
        for folder in self._folders:
            (folder / "cgroup.procs").write_text(str(pid))

    def remove(self) -> None:
        """Remove the group; its processes have ended."""
        for folder in self._folders:
            with contextlib.suppress(OSError):
                folder.rmdir()


def new_group() -> Group | None:
    """Return a control group of its own, None where this user or machine cannot have one."""
    for root in _mounts("cgroup2"):
        with contextlib.suppress(OSError):
            return Group(root)
    return None
