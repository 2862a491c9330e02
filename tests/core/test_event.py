import json
from dataclasses import replace

from hypothesis import given

from monitor.core.event import decode, encode
from tests.core.making import examples, requests, transitions


@given(transitions | requests)
@examples(30)
def test_encoding_round_trips(event):
    text = encode(event)
    assert decode(text) == event
    assert encode(decode(text)) == text
    assert text.isascii()


@given(transitions)
@examples(10)
def test_people_and_scripts_can_read_it(transition):
    fields = json.loads(encode(transition))
    assert fields["type"] == "transition"
    assert fields["identity"] == str(transition.identity)
    assert fields["target"] == transition.target.value


@given(transitions)
@examples(10)
def test_other_content_is_another_text(transition):
    assert encode(replace(transition, at=transition.at + 1)) != encode(transition)
