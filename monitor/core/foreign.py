"""How values are read that a newer version may have written: what is not known here is carried or
left out, what does not fit is refused. Only core/ and live/ import this.
"""

import re
from collections.abc import Mapping
from dataclasses import fields
from enum import StrEnum
from typing import Any, Self

from monitor.core.errors import InvalidInput

_WORD = re.compile(r"[a-z][a-z0-9_]{0,31}\Z")
_LATEST = 253_402_300_799.0  # the last second of the year 9999: no calendar goes further
_KINDS: dict[object, tuple[type, ...]] = {
    str: (str,),
    int: (int,),
    float: (int, float),
    bool: (bool,),
}


class OpenWord(StrEnum):
    """A list of words that newer versions lengthen: one that is not in it is itself, and equals no
    other.
    """

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        if not isinstance(value, str) or not _WORD.match(value):
            return None  # not a word at all: ValueError
        word = str.__new__(cls, value)
        word._name_, word._value_ = value.upper(), value
        return word

    def __reduce_ex__(self, _protocol: object) -> tuple[type[Self], tuple[str]]:
        """Copy by value: early Pythons 3.11 look for the name, which a foreign word has not."""
        return type(self), (self.value,)


def moment(told: str | float) -> float:
    """Read fleet seconds; a time that no calendar has is an error."""
    seconds = float(told)
    if not 0 <= seconds <= _LATEST:
        raise InvalidInput("time", "not a moment in seconds since 1970")
    return seconds


def fitting(kind: type, told: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is told of the fields of `kind`, a dataclass; plain ones must be of the type it
    declares.
    """
    if not isinstance(told, Mapping):
        raise InvalidInput(kind.__name__, "not told as fields with names")
    known = {field.name: field.type for field in fields(kind) if field.name in told}
    for name, wanted in known.items():
        allowed = _KINDS.get(wanted)
        if allowed and (
            not isinstance(told[name], allowed)
            or (isinstance(told[name], bool) and wanted is not bool)
        ):
            raise InvalidInput(name, f"not of type {getattr(wanted, '__name__', wanted)}")
    return {name: told[name] for name in known}
