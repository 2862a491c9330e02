"""The errors feeler raises; anyone may import them. Data travels as attributes, secrets never."""

from typing import ClassVar


class FeelerError(Exception):
    """Something feeler could not do. `permanent` is false where the same call may work later."""

    permanent = True


class InvalidInput(FeelerError):
    """Input nobody can use: says which field of which source is wrong and how to mend it."""

    def __init__(self, field: str, problem: str, fix: str = "", source: str = "") -> None:
        self.field = field
        self.problem = problem
        self.fix = fix
        self.source = source
        place = f"{source}: {field}" if source else field
        advice = f" ({fix})" if fix else ""
        super().__init__(f"{place}: {problem}{advice}")


class _AboutOne(FeelerError):
    """An error about one thing of some kind."""

    message: ClassVar[str]

    def __init__(self, kind: str, name: str) -> None:
        self.kind = kind
        self.name = name
        super().__init__(self.message.format(kind=kind, name=name))


class NotFound(_AboutOne):
    """There is no such thing."""

    message = "no {kind} named {name!r}"


class AlreadyExists(_AboutOne):
    """The name is taken, and names are immutable."""

    message = "a {kind} named {name!r} exists already"


class Unreadable(_AboutOne):
    """It is there, but not as this version knows it."""

    message = "the {kind} {name!r} cannot be read: a newer version wrote it, or it is damaged"


class Outdated(_AboutOne):
    """Somebody changed it since the revision that the caller had read."""

    message = "the {kind} {name!r} was changed meanwhile (read it again)"


class StoreUnavailable(FeelerError):
    """A store of ours ('redis', 'postgres') does not answer; never said of a monitored database."""

    permanent = False

    def __init__(self, store: str, detail: str) -> None:
        self.store = store
        self.detail = detail
        super().__init__(f"{store} is unavailable: {detail}")


class ForeignRedis(FeelerError):
    """Our Redis holds the fleet of another registry: leading there would forget that fleet."""

    permanent = False

    def __init__(self, ours: str, holder: str) -> None:
        self.ours = short(ours)
        self.holder = short(holder)
        super().__init__(
            f"this Redis holds the fleet of registry {self.holder}, "
            f"DATABASE_URL is registry {self.ours}: give that one a Redis of its own, "
            f"or this one for good with `feeler redis adopt {self.holder}`"
        )


def short(registry: str) -> str:
    """Return the part of a registry's name that people see and type."""
    return registry[:8]
