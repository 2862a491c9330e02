"""Shifts the wall clock of a Python process by FEELER_TEST_SKEW seconds; for the PYTHONPATH of a
process under test.

Logs keep the machine's time: histories are judged by it.
"""

import datetime
import logging
import os
import sys
import time
import types

SKEW = float(os.environ.get("FEELER_TEST_SKEW", "0"))
true_time, true_time_ns, true_datetime = time.time, time.time_ns, datetime.datetime

logging.time = types.SimpleNamespace(**vars(time))


class _SkewedType(type(true_datetime)):
    def __instancecheck__(cls, thing: object) -> bool:
        return isinstance(thing, true_datetime)


class Skewed(true_datetime, metaclass=_SkewedType):
    """A datetime whose now() is shifted; all it makes are plain datetimes."""

    __slots__ = ()  # extension modules look at its size

    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> true_datetime:
        return true_datetime.fromtimestamp(time.time(), tz)

    def __new__(cls, *args: object, **kwargs: object) -> true_datetime:
        return true_datetime(*args, **kwargs)


time.time = lambda: true_time() + SKEW
time.time_ns = lambda: true_time_ns() + round(SKEW * 1e9)
datetime.datetime = Skewed
sys.stderr.write(f"skewed={time.time() - true_time():.0f}\n")
