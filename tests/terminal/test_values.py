import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.core.status import State
from monitor.terminal import values


@pytest.mark.parametrize("state", State)
def test_every_state_is_a_word_and_a_glyph_of_its_own(state):
    words = "refusing logins (server is up)" if state is State.REFUSING else state
    assert values.state(state.value) == f"{values.GLYPHS[state]} {words}"
    assert len(set(values.GLYPHS.values())) == len(State)


@pytest.mark.parametrize(
    ("span", "text"),
    [
        (0, "0s"),
        (59.9, "59s"),
        (60, "1m"),
        (252, "4m12s"),
        (3600, "1h"),
        (90_061, "1d1h"),
        (-5, "0s"),
    ],
)
def test_duration(span, text):
    assert values.duration(span) == text


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (4213, "4.21 kB"), (2.5e15, "2,500 TB")]
)
def test_size(count, text):
    assert values.size(count) == text


@given(st.text())
def test_nothing_that_moves_a_cursor_gets_through(text):
    assert values.clean(text).isprintable()


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("db_size", 8_011_111, "8.01 MB"),
        ("cache_hit_rate", 99.683, "99.7%"),
        ("longest_transaction", 61.5, "1m1s"),
        ("row_count", 91_823_711, "91,823,711"),
        ("xact_rate", 2.801, "2.8"),
        ("server_version_num", 150_018, "150018"),
        ("role", "primary", "primary"),
        ("services_available", True, "true"),
    ],
)
def test_gauges_are_shown_in_their_units(name, value, text):
    assert values.gauge(name, value) == text
