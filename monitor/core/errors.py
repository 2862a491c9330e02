"""The errors feeler raises. Anyone may import them; data travels as attributes, secrets never
do.
"""


class FeelerError(Exception):
    """Something feeler could not do. `permanent` is false where the same call may work later."""

    permanent = True


class InvalidInput(FeelerError):
    """Input nobody can use: says which field of which source is wrong and how to mend it."""

    def __init__(self, field: str, problem: str, fix: str = "", source: str = "") -> None:
        self.field, self.problem, self.fix, self.source = field, problem, fix, source
        place = f"{source}: {field}" if source else field
        super().__init__(f"{place}: {problem}" + (f" ({fix})" if fix else ""))


class NotFound(FeelerError):
    """There is no such thing."""

    def __init__(self, kind: str, name: str) -> None:
        self.kind, self.name = kind, name
        super().__init__(f"no {kind} named {name!r}")


class AlreadyExists(FeelerError):
    """The name is taken, and names are immutable."""

    def __init__(self, kind: str, name: str) -> None:
        self.kind, self.name = kind, name
        super().__init__(f"a {kind} named {name!r} exists already")


class Unreadable(FeelerError):
    """It is there, but not as this version knows it."""

    def __init__(self, kind: str, name: str) -> None:
        self.kind, self.name = kind, name
        super().__init__(
            f"the {kind} {name!r} cannot be read: a newer version wrote it, or it is damaged"
        )


class Outdated(FeelerError):
    """Somebody changed it since the revision that the caller had read."""

    def __init__(self, kind: str, name: str) -> None:
        self.kind, self.name = kind, name
        super().__init__(f"the {kind} {name!r} was changed meanwhile (read it again)")


class StoreUnavailable(FeelerError):
    """One of our own stores ('redis', 'postgres') does not answer; never said of a monitored
    database.
    """

    permanent = False

    def __init__(self, store: str, detail: str) -> None:
        self.store, self.detail = store, detail
        super().__init__(f"{store} is unavailable: {detail}")


class ForeignRedis(FeelerError):
    """The Redis we were given holds the fleet of another registry: leading there would forget that
    fleet.
    """

    permanent = False

    def __init__(self, ours: str, holder: str) -> None:
        self.ours, self.holder = short(ours), short(holder)
        super().__init__(
            f"this Redis holds the fleet of registry {self.holder}, DATABASE_URL is registry {self.ours}:"
            f" give that one a Redis of its own, or this one for good with `feeler redis adopt {self.holder}`"
        )


def short(registry: str) -> str:
    """Return the part of a registry's name that people see and type."""
    return registry[:8]
