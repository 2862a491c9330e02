"""What a newer version may write: fields, types, states and causes this one does not know."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.core import event as events
from monitor.core import status as statuses
from monitor.core.cause import EVIDENCE, Cause, Evidence
from monitor.core.errors import InvalidInput
from monitor.core.event import CannotReach, Transition
from monitor.core.observation import ReadingStatus
from tests.core.making import examples, requests, transitions

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda one: st.lists(one, max_size=3) | st.dictionaries(st.text(max_size=8), one, max_size=3),
    max_leaves=6,
)


def test_a_cause_of_a_newer_version_is_carried_and_proves_nothing():
    cause = Cause("proxy_dreaming")
    assert (cause.value, EVIDENCE[cause]) == ("proxy_dreaming", Evidence.OUR_FAULT)
    assert cause == Cause("proxy_dreaming")
    assert cause not in list(Cause)
    assert json.dumps([cause]) == '["proxy_dreaming"]'
    assert ReadingStatus("postponed") is not ReadingStatus.OK
    for text in ("", "Two words", "a" * 33, "ok;", 7, None):
        with pytest.raises(ValueError, match="is not a valid"):
            Cause(text)


@given(
    transitions | requests,
    st.dictionaries(st.sampled_from(["zone", "v", "blind"]), anything, min_size=1),
)
@examples(30)
def test_fields_of_a_newer_version_are_left_out_of_an_event(event, more):
    assert events.decode(json.dumps(json.loads(events.encode(event)) | more)) == event


@given(transitions)
@examples(10)
def test_a_cause_of_a_newer_version_goes_through_an_event_unchanged(transition):
    told = json.loads(events.encode(transition))
    one = {"worker": "w9", "sent_at": 1.0, "at": 2.0, "cause": "proxy_dreaming"}
    one |= {"rounds": 1, "detail": "", "via": "x"}
    decoded = events.decode(json.dumps(told | {"evidence": [one]}))
    assert isinstance(decoded, Transition)
    assert json.loads(events.encode(decoded))["evidence"][0]["cause"] == "proxy_dreaming"


@pytest.mark.parametrize("change", [
    {"type": "blinded"}, {"type": None}, {"type": ["transition"]}, {"source": "blind"},
    {"target": 7}, {"at": "soon"},
    {"at": 1e300}, {"at": None}, {"at": True}, {"rule": None}, {"identity": "1.2"}, {"identity": 3},
    {"prev": "x"},
    {"database": 5}, {"evidence": 5}, {"evidence": ["x"]}, {"evidence": [{"worker": "w"}]},
    {"observers": None},
])  # fmt: skip
@given(transition=transitions)
@examples(2)
def test_a_type_a_state_and_a_value_of_a_newer_version_are_refused_in_one_way(change, transition):
    with pytest.raises(InvalidInput):
        events.decode(json.dumps(json.loads(events.encode(transition)) | change))


@given(anything)
@examples(60)
def test_whatever_json_it_is_it_is_an_event_or_refused(told):
    for text in (json.dumps(told), "[" * 100_000, "no JSON", ""):
        with pytest.raises(InvalidInput):
            events.decode(text)


@given(requests, anything)
@examples(30)
def test_whatever_a_cry_says_it_is_one_or_refused(request, told):
    for field in ("database", "doubt", "worker", "at", "cause", "type"):
        text = json.dumps(json.loads(events.encode(request)) | {field: told})
        try:
            assert isinstance(events.decode(text), CannotReach)
        except InvalidInput:
            continue


@pytest.mark.parametrize(
    "fields", [{"state": "blind"}, {"since": "9e99"}, {"since": "nan"}, {"identity": "1.2.3.4"}]
)
def test_a_state_of_a_newer_version_is_no_status(fields):
    with pytest.raises((ValueError, InvalidInput)):
        statuses.decode(fields)
