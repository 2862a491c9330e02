"""How values are read that a newer version may have written. Only core/ and live/ import this.

What is not known here is carried or left out, what does not fit is refused.
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
}  # JSON's values of a plain field


class OpenWord(StrEnum):
    """A list of words that newer versions lengthen: one not in it is itself, equal to no other."""

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


def moment(value: str | float) -> float:
    """Read fleet seconds; a time that no calendar has is an error."""
    seconds = float(value)
    if not 0 <= seconds <= _LATEST:
        raise InvalidInput("time", "not a moment in seconds since 1970")
    return seconds


def fitting(kind: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of the dataclass `kind` that `values` has.

    Plain ones must be of the type that it declares, else InvalidInput.
    """
    if not isinstance(values, Mapping):
        raise InvalidInput(kind.__name__, "not told as fields with names")
    found: dict[str, Any] = {}
    for field in fields(kind):
        if field.name not in values:
            continue
        value = values[field.name]
        if not _fits(value, field.type):
            wanted = getattr(field.type, "__name__", field.type)
            raise InvalidInput(field.name, f"not of type {wanted}")
        found[field.name] = value
    return found


def _fits(value: object, wanted: object) -> bool:
    allowed = _KINDS.get(wanted)
    if allowed is None:
        return True  # no plain field: whoever reads it looks
    if isinstance(value, bool) and wanted is not bool:
        return False  # to Python a bool is an int
    return isinstance(value, allowed)
