"""Flat fields and back; nothing may grow beyond a listpack's 64 bytes."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from monitor.core import status as statuses
from monitor.core.cause import Cause, Evidence
from monitor.core.observation import FAMILIES, GAUGES, Observation, Reading, ReadingStatus
from monitor.core.status import MAX_WITNESSES, Doubt, Epoch, Identity, State, Status, Witness
from monitor.live import fields
from monitor.live.fields import observation_fields, readings, status_fields

moments = st.integers(0, 2**42).map(lambda ms: ms / 1000)
workers = st.from_regex(r"[a-z0-9]{1,8}-[0-9a-f]{10}", fullmatch=True)
epochs = st.builds(Epoch, st.integers(1, 2**31), st.integers(0, 2**31))
identities = st.builds(Identity, epochs, st.integers(1, 2**31))
numbers = st.one_of(
    st.booleans(), st.integers(-(2**63), 2**63), st.floats(allow_nan=False, allow_infinity=False)
)


@st.composite
def all_readings(draw: st.DrawFn) -> tuple[Reading, ...]:
    found = []
    for family in FAMILIES:
        if draw(st.booleans()):
            status = draw(st.sampled_from(ReadingStatus))
            names = [gauge.name for gauge in GAUGES.values() if gauge.family == family]
            values = (
                draw(st.dictionaries(st.sampled_from(names), numbers))
                if status is ReadingStatus.OK
                else {}
            )
            code = (
                "" if status is ReadingStatus.OK else draw(st.sampled_from(["", "42501", "57014"]))
            )
            found.append(Reading(family, draw(moments), status, values, code))
    return tuple(found)


@st.composite
def all_statuses(draw: st.DrawFn) -> Status:
    doubt, origin = None, draw(moments)
    if draw(st.booleans()):
        offsets = st.integers(0, 10**6).map(lambda ms: round(origin + ms / 1000, 3))
        witness = st.builds(
            Witness, workers, st.integers(1, 999), offsets, offsets, st.sampled_from(Cause)
        )
        witnesses = draw(st.lists(witness, max_size=MAX_WITNESSES))
        doubt = Doubt(draw(identities), origin, draw(moments), tuple(witnesses))
    return draw(
        st.builds(
            Status,
            state=st.sampled_from(State), since=moments, identity=st.none() | identities,
            doubt=st.just(doubt),
            ok_since=st.none() | moments, ok_rounds=st.integers(0, 9),
            alive=st.none() | st.sampled_from(Cause),
            unreachable_from=st.lists(workers, max_size=2, unique=True).map(tuple),
            unreachable_at=moments,
        )
    )  # fmt: skip


def present(texts: dict[str, str]) -> dict[str, str]:
    return {name: text for name, text in texts.items() if text}


@given(all_statuses())
def test_a_status_comes_back_as_it_went(status: Status) -> None:
    texts = status_fields(status)
    assert tuple(texts) == statuses.STATUS_FIELDS
    assert statuses.decode(present(texts)) == status
    assert all(len(text) <= fields.MOST_BYTES for text in texts.values())


@given(all_readings())
def test_readings_come_back_as_they_went(some: tuple[Reading, ...]) -> None:
    seen = Observation(
        database="db", worker="w-000000", sent_at=1.0, at=2.0, cause=Cause.OK, readings=some
    )
    texts = observation_fields(seen)
    found = readings(present(texts))
    assert found == some
    for one, other in zip(found, some, strict=True):
        assert {name: type(value) for name, value in one.values.items()} == {
            name: type(value) for name, value in other.values.items()
        }
    assert all(len(text) <= fields.MOST_BYTES for text in texts.values())


@given(st.text())
def test_a_long_text_is_cut_to_what_a_listpack_holds(text: str) -> None:
    reading = Reading("database", 1.0, ReadingStatus.OK, {"role": text})
    seen = Observation(
        database="db", worker="w", sent_at=1.0, at=2.0, cause=Cause.OK, readings=(reading,)
    )
    role = observation_fields(seen)["role"]
    assert len(role.encode()) <= fields.MOST_BYTES
    assert text.startswith(role)


@given(st.sampled_from(Cause))
def test_services_are_available_only_by_evidence(cause: Cause) -> None:
    seen = Observation(database="db", worker="w", sent_at=1.0, at=2.0, cause=cause)
    texts = observation_fields(seen)
    if (
        seen.evidence is Evidence.OUR_FAULT
    ):  # it saw nothing: the last observation stays, with its age
        assert texts == {"cause": cause.value, "revision": ""}
    else:
        assert texts["services_available"] == ("1" if seen.evidence is Evidence.OK else "0")


def test_a_family_that_failed_takes_its_gauges_along_and_leaves_the_others_alone() -> None:
    seen = Observation(
        database="db", worker="w", sent_at=1.0, at=2.0, cause=Cause.OK,
        readings=(Reading("size", 2.0, ReadingStatus.TIMED_OUT, {"db_size": 1}, "57014"),),
    )  # fmt: skip
    texts = observation_fields(seen)
    assert texts["family:size"] == "timed_out 2.000 57014"
    assert texts["db_size"] == ""
    assert "connections" not in texts
    assert replace(seen, readings=())
    assert "db_size" not in observation_fields(replace(seen, readings=()))
