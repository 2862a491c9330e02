"""What logins told: how long the next one may take, and when it may be tried."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.core.access import ACCESS_FIELDS, UNKNOWN, Access, decode, encode
from monitor.core.cause import LOCKS, Cause
from monitor.core.policy import Policy
from tests.core.making import examples, moments

NOW, POLICY = 1_763_000_000.0, Policy()
HERE = Access("0123abcd")
accesses = st.builds(
    Access,
    address=st.from_regex(r"[0-9a-f]{8}", fullmatch=True),
    usual=st.none() | st.integers(0, 10_000).map(lambda milliseconds: milliseconds / 1000),
    cause=st.sampled_from(sorted(LOCKS)),
    refusals=st.integers(1, 10**6),
    held_until=moments,
    pooled=st.booleans(),
)


def refused(cause: Cause, times: int) -> Access:
    access = HERE
    for _ in range(times):
        access = access.refused(cause, NOW, POLICY)
    return access


def hold(access: Access) -> float:
    """Return the seconds for which no login may be tried."""
    return max((wait for wait in range(400) if access.held(NOW + wait, POLICY)), default=-1) + 1


@pytest.mark.parametrize("cause", [Cause.WRONG_PASSWORD, Cause.NOT_ADMITTED])
def test_a_password_is_tried_twice_then_after_a_minute_then_every_five(cause):
    assert [hold(refused(cause, times)) for times in (1, 2, 3, 4, 50)] == [0, 60, 300, 300, 300]


@pytest.mark.parametrize("cause", sorted(LOCKS - {Cause.WRONG_PASSWORD, Cause.NOT_ADMITTED}))
def test_a_door_that_is_closed_is_tried_every_half_minute(cause):
    assert [hold(refused(cause, times)) for times in (1, 2, 3, 50)] == [0, 30, 30, 30]


def test_only_a_lock_is_a_reason_to_wait():
    for cause in set(Cause) - LOCKS:
        assert HERE.refused(cause, NOW, POLICY) is HERE
    locked = refused(Cause.WRONG_PASSWORD, 2)
    assert locked.refused(Cause.PORT_CLOSED, NOW, POLICY) is locked, (
        "it was restarted: the password is as wrong as before"
    )


def test_a_login_that_works_and_another_address_end_the_wait():
    locked = refused(Cause.WRONG_PASSWORD, 5)
    assert locked.at(HERE.address) is locked
    assert locked.at("fedc9876").held(NOW, POLICY) is None
    assert hold(locked.entered(0.1)) == 0
    assert hold(locked.entered(0.1).refused(Cause.WRONG_PASSWORD, NOW, POLICY)) == 0


def test_a_wait_that_a_step_of_the_clock_made_long_is_none():
    locked = refused(Cause.WRONG_PASSWORD, 5)
    assert locked.held(NOW - 3600, POLICY) is None


def test_a_login_has_the_time_it_usually_takes():
    assert UNKNOWN.deadline(POLICY) == 5
    assert HERE.entered(0.004).deadline(POLICY) == 2
    assert HERE.entered(1.0).deadline(POLICY) == 3
    assert HERE.entered(4.0).deadline(POLICY) == 5
    assert HERE.entered(1.0).at("fedc9876").deadline(POLICY) == 5


def test_the_usual_time_rises_at_once_and_falls_slowly():
    access = HERE.entered(0.2).entered(1.6)
    assert access.usual == 1.6
    assert access.entered(0.0).usual == 1.2


@given(accesses)
@examples(30)
def test_encoding_round_trips_within_64_bytes(access):
    fields = encode(access)
    assert tuple(fields) == ACCESS_FIELDS
    assert decode(fields) == access
    assert all(len(text) <= 64 for text in fields.values())


def test_that_a_pooler_is_between_holds_for_its_address_alone():
    pooled = replace(HERE, pooled=True)
    assert pooled.entered(0.1).pooled
    assert pooled.refused(Cause.WRONG_PASSWORD, NOW, POLICY).pooled
    assert not pooled.at("fedc9876").pooled
    left_alone = {"login_pooled": encode(pooled)["login_pooled"], "login_at": "fedc9876"}
    assert not decode(left_alone).pooled, "an older version has followed it to another address"
    assert not decode({"login_pooled": ""}).pooled


@pytest.mark.parametrize(
    "text", ["", "a_newer_cause 1 2.0", "wrong_password many", "wrong_password x 2"]
)
def test_what_cannot_be_read_holds_nobody_back(text):
    assert decode({"login_at": "0123abcd", "login_refused": text}).held(NOW, POLICY) is None
