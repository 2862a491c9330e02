"""The functions RQ may call by name: nudges to the patrol of this process, no logic.

Only nudges.ALLOWED names them, as text; the process says who takes them.
"""

from collections.abc import Callable, Sequence

Nudge = Callable[[str, tuple[str, ...]], None]

_nudge: Nudge | None = None


def host(nudge: Nudge) -> None:
    """Say who takes the nudges of this process, before the queue is listened to.

    `nudge` is called from another thread.
    """
    global _nudge
    _nudge = nudge


def watch(databases: Sequence[str]) -> None:
    """Monitor these databases: the assignments in Redis say so, look now."""
    _pass("watch", databases)


def release(databases: Sequence[str]) -> None:
    """Somebody else monitors these databases now: look at the assignments."""
    _pass("release", databases)


def observe_now(databases: Sequence[str]) -> None:
    """Feel these databases at once, logins and slow gauges included."""
    _pass("observe_now", databases)


def _pass(kind: str, databases: Sequence[str]) -> None:
    names = tuple(name for name in databases if isinstance(name, str))
    if _nudge is not None:
        _nudge(kind, names)
