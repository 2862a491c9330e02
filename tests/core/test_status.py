from itertools import pairwise

import pytest
from hypothesis import given

from monitor.core.cause import Cause
from monitor.core.errors import InvalidInput
from monitor.core.machine import STEADY, TRANSITIONS
from monitor.core.status import (
    MAX_ROUNDS,
    MAX_TRIED,
    MAX_UNREACHABLE_FROM,
    MAX_WITNESSES,
    STATUS_FIELDS,
    Doubt,
    Epoch,
    Identity,
    State,
    Status,
    Witness,
    decode,
    encode,
    mark,
)
from tests.core.making import examples, identities, statuses


@given(statuses)
@examples(30)
def test_encoding_round_trips(status):
    fields = encode(status)
    assert tuple(fields) == STATUS_FIELDS
    assert decode(fields) == status
    assert decode({name: text for name, text in fields.items() if text}) == status


def test_the_longest_values_stay_within_64_bytes():
    worker = "hostname-00beef1234"
    longest = max(Cause, key=lambda cause: len(cause.value))
    identity = Identity(Epoch(2**31, 2**32 - 1), 999_999_999)
    began, decades_later = 1_763_000_000.123, 3_999_999_999.123
    witness = Witness(worker, MAX_ROUNDS, decades_later - 9_999.999, decades_later, longest)
    named, witnesses = (identity, began, decades_later), (witness,) * MAX_WITNESSES
    tried = (mark("10.0.0.1"),) * MAX_TRIED
    doubt = Doubt(*named, witnesses, began, MAX_ROUNDS, 2**31, tried)
    proofs = decades_later, 10**9, longest
    rest = (worker,) * MAX_UNREACHABLE_FROM, decades_later, 10**9
    state = max(State, key=len)
    for rule in (STEADY, *TRANSITIONS):
        status = Status(state, decades_later, identity, rule.name, doubt, *proofs, *rest)
        fields = encode(status)
        assert len(worker) == 19
        assert max(len(text.encode()) for text in fields.values()) <= 64, fields
        assert decode(fields) == status


def test_nothing_decodes_to_a_new_database():
    assert decode({}) == Status()


@given(identities)
@examples(15)
def test_identities_round_trip(identity):
    assert Identity.parse(str(identity)) == identity


def test_identities_compare_by_term_counter_and_number_not_as_text():
    rising = ["2.1.1", "10.0.1", "10.0.2", "10.1.1"]
    for lower, higher in pairwise(map(Identity.parse, rising)):
        assert lower < higher


@pytest.mark.parametrize("text", ["", "1", "1.2", "1.2.", "1.2.x", "1.2.3.4", "a.b.c"])
def test_a_broken_identity_is_refused(text):
    with pytest.raises(InvalidInput):
        Identity.parse(text)
