"""The record step: who may write, what counts as the same, what is installed."""

import itertools
from dataclasses import replace

import pytest

from monitor.core.beat import Beat
from monitor.core.cause import Cause
from monitor.core.observation import GAUGES, Observation, Reading, ReadingStatus
from monitor.core.status import Doubt, Identity, State, Status, Witness
from monitor.live import connections, generation, journal, observations
from monitor.live.connections import Live
from monitor.live.keys import database_key, partition, partition_key
from tests.factories import (
    DB,
    NOW,
    W1,
    W2,
    beat,
    cannot_reach,
    doubted,
    epoch,
    observation,
    status,
    transition,
)
from tests.fixtures import Become
from tests.live.builders import everything, given, namesakes, opened, reply_to, stored

UP = State.AVAILABLE


async def journaled(live: Live) -> list[str]:
    """Return what the journal of DB's partition holds, in short."""
    rows = await live.cache.xrange(partition_key(partition(DB), "journal"))
    events = [journal.events.decode(row["event"]) for _, row in rows]
    return [
        str(getattr(event, "identity", None) or f"cannot_reach {event.doubt}") for event in events
    ]


async def test_the_first_beat(live: Live, name: str) -> None:
    await given(live, "1.2", seed=Status())
    first = transition("1.2.1")
    assert await reply_to(live, name, W1, beat("1.2", status("1.2.1", UP), first)) == "accepted"
    fields = await stored(live)
    assert fields["owner"] == W1
    assert fields["epoch"] == "1.2"
    assert fields["proven"] == "1"
    assert fields["state"] == "available"
    assert fields["identity"] == "1.2.1"
    assert fields["number"] == "1"
    assert fields["services_available"] == "1"
    assert fields["duration_ms"] == "10"
    assert await journaled(live) == ["1.2.1"]
    assert await observations.counters(live) == {"beats": 1, "transitions": 1}


async def test_steady_beats_are_numbered_and_leave_no_trace_in_the_journal(
    live: Live, name: str
) -> None:
    await given(live, "1.2", seed=Status())
    for i in range(3):
        assert await reply_to(live, name, W1, beat("1.2", status(), at=NOW + i)) == "accepted"
    fields = await stored(live)
    assert fields["number"] == "3"
    assert fields["observed_at"] == "1700000002.000"
    assert await journaled(live) == []


# --- closed ---------------------------------------------------------------------------------------


async def test_closed_without_a_generation(live: Live) -> None:
    await given(live, "1.2")
    assert await reply_to(live, "", W1, beat("1.2", status())) == "closed"
    instance = (await generation.generation(live)).instance
    assert await reply_to(live, f"{instance}:1.1", W1, beat("1.2", status())) == "closed"
    assert (await observations.counters(live))["rejected_closed"] == 2
    assert "observed_at" not in await stored(live)


async def test_closed_under_the_name_of_an_older_opening(live: Live, name: str) -> None:
    await given(live, "1.2")
    await opened(live, "1.9")
    assert await reply_to(live, name, W1, beat("1.2", status())) == "closed"


async def test_closed_where_the_key_was_made_by_another_instance_of_the_server(
    live: Live, name: str
) -> None:
    """A promoted replica holds the old master's key; its own instance says that it is no longer
    true.
    """
    await given(live, "1.2")
    other = "0" * 40 + ":1.1"
    await live.cache.set(partition_key(partition(DB), "generation"), other)
    assert await reply_to(live, other, W1, beat("1.2", status())) == "closed"


async def test_a_partition_that_is_not_open_yet_is_closed_beside_one_that_is(
    live: Live, name: str
) -> None:
    far = next(f"db{i}" for i in range(100) if partition(f"db{i}") != partition(DB))
    await given(live, "1.2")
    await given(live, "1.3", database=far)
    await live.cache.delete(partition_key(partition(far), "generation"))
    verdicts = await observations.record(
        live, name, W1, [beat("1.3", status(), database=far), beat("1.2", status())]
    )
    assert [verdict.value for verdict in verdicts] == ["closed", "accepted"]


async def test_a_write_captured_before_a_flush_is_rejected_after_it(live: Live, name: str) -> None:
    """FLUSHALL keeps the instance: the generation's name must differ all the same."""
    await given(live, "1.2", seed=Status())
    beats = [beat("1.2", status("1.2.1", UP), transition("1.2.1"))]
    call = observations._call(partition(DB), (name, W1, 10**9), beats)
    await live.cache.flushall()
    assert await opened(live, "1.7") != name
    await given(live, "1.8", seed=Status())
    before = await everything(live, but=[":counters"])
    assert await observations.steps.run(live.cache, observations._RECORD, [call]) == [["closed"]]
    assert await everything(live, but=[":counters"]) == before
    assert await observations.counters(live) == {"rejected_closed": 1}


# --- fenced ---------------------------------------------------------------------------------------


async def test_fenced_without_an_assignment(live: Live, name: str) -> None:
    assert await reply_to(live, name, W1, beat("1.2", status())) == "fenced"
    assert await stored(live) == {}


async def test_fenced_under_an_old_epoch_even_of_ones_own(live: Live, name: str) -> None:
    await given(live, "1.2", seed=Status())
    await given(live, "1.3", W2)
    assert await reply_to(live, name, W1, beat("1.2", status())) == "fenced"
    await given(live, "1.4", W1)
    before = await stored(live)
    assert (
        await reply_to(live, name, W1, beat("1.2", status("1.2.1", UP), transition("1.2.1")))
        == "fenced"
    )
    assert await stored(live) == before
    assert await journaled(live) == []
    assert (await observations.counters(live))["rejected_fenced"] == 2


async def test_fenced_under_the_right_epoch_of_somebody_else(live: Live, name: str) -> None:
    await given(live, "1.2", W2)
    assert await reply_to(live, name, W1, beat("1.2", status())) == "fenced"


async def test_epochs_are_compared_as_two_integers_not_as_text_or_doubles(
    live: Live, name: str
) -> None:
    await given(live, "1.9")
    await given(live, "1.10", W2)
    big = 2**53 - 1
    await given(live, f"{big - 1}.{big}", W1)
    await given(live, f"{big}.1", W2)
    assert await reply_to(live, name, W2, beat(f"{big}.1", status())) == "accepted"


# --- ahead, conflict ------------------------------------------------------------------------------


async def test_ahead_when_the_hash_holds_a_newer_identity(live: Live, name: str) -> None:
    await given(live, "1.2", seed=status("1.1.5", UP))
    assert await reply_to(live, name, W1, beat("1.2", status("1.1.4", UP))) == "ahead"
    assert await reply_to(live, name, W1, beat("1.2", status())) == "ahead"
    assert (await stored(live))["identity"] == "1.1.5"
    assert (await observations.counters(live))["rejected_ahead"] == 2


async def test_ahead_when_the_first_new_event_does_not_build_on_the_hash(
    live: Live, name: str
) -> None:
    await given(live, "1.3", seed=status("1.2.1", UP))
    side = beat("1.3", status("1.3.1", UP), transition("1.3.1", prev="1.1.4"))
    assert await reply_to(live, name, W1, side) == "ahead"
    root = beat("1.3", status("1.3.1", UP), transition("1.3.1"))
    assert await reply_to(live, name, W1, root) == "ahead"
    gap = beat(
        "1.3",
        status("1.3.3", UP),
        transition("1.3.1", prev="1.2.1"),
        transition("1.3.3", prev="1.3.2"),
    )
    assert await reply_to(live, name, W1, gap) == "ahead"
    assert await journaled(live) == []
    assert (await stored(live))["identity"] == "1.2.1"


async def test_conflict_when_one_identity_has_two_states(live: Live, name: str) -> None:
    await given(live, "1.2", seed=status("1.1.5", UP))
    assert (
        await reply_to(live, name, W1, beat("1.2", status("1.1.5", State.REFUSING))) == "conflict"
    )
    assert (await stored(live))["state"] == "available"
    assert (await observations.counters(live))["rejected_conflict"] == 1


# --- the same again, carried over, installed ------------------------------------------------------


async def test_an_event_resent_because_its_reply_was_lost_is_accepted_once(
    live: Live, name: str
) -> None:
    await given(live, "1.2", seed=Status())
    one = beat(
        "1.2", doubted("1.2.1"), transition("1.2.1", target=State.UNCERTAIN), cannot_reach("1.2.1")
    )
    assert await reply_to(live, name, W1, one) == "accepted"
    assert await reply_to(live, name, W1, one) == "accepted"
    assert await journaled(live) == ["1.2.1", "cannot_reach 1.2.1"]
    later = beat(
        "1.2", status("1.2.2", UP), *one.events, transition("1.2.2", prev="1.2.1"), at=NOW + 1
    )  # with what came since
    assert await reply_to(live, name, W1, later) == "accepted"
    assert await journaled(live) == ["1.2.1", "cannot_reach 1.2.1", "1.2.2"]


async def test_a_request_repeated_in_the_same_doubt_is_journaled_again(
    live: Live, name: str
) -> None:
    await given(live, "1.2", seed=Status())
    first = transition("1.2.1", target=State.UNCERTAIN)
    assert (
        await reply_to(live, name, W1, beat("1.2", doubted("1.2.1"), first, cannot_reach("1.2.1")))
        == "accepted"
    )
    again = beat("1.2", doubted("1.2.1"), cannot_reach("1.2.1", NOW + 20), at=NOW + 20)
    assert await reply_to(live, name, W1, again) == "accepted"
    assert await reply_to(live, name, W1, again) == "accepted"
    assert (
        await reply_to(
            live, name, W1, beat("1.2", doubted("1.2.1"), cannot_reach("1.2.1"), at=NOW + 21)
        )
        == "accepted"
    )
    assert await journaled(live) == ["1.2.1", "cannot_reach 1.2.1", "cannot_reach 1.2.1"]
    assert (await stored(live))["asked"] == "1.2.1 1700000020.000"


async def test_a_request_is_journaled_after_the_clock_was_set_back(live: Live, name: str) -> None:
    now = await connections.now(live)
    await given(live, "1.2", seed=Status())
    first, ahead = transition("1.2.1", target=State.UNCERTAIN), cannot_reach("1.2.1", now + 3600)
    assert await reply_to(live, name, W1, beat("1.2", doubted("1.2.1"), first, ahead)) == "accepted"
    again = beat("1.2", doubted("1.2.1"), cannot_reach("1.2.1", now + 10), at=now + 10)
    assert await reply_to(live, name, W1, again) == "accepted"
    assert await reply_to(live, name, W1, again) == "accepted"
    assert await journaled(live) == ["1.2.1", "cannot_reach 1.2.1", "cannot_reach 1.2.1"]


async def test_a_rejected_row_leaves_no_request_behind(live: Live, name: str) -> None:
    await given(live, "1.2", seed=status("1.1.5", UP))
    assert (
        await reply_to(live, name, W1, beat("1.2", doubted("1.1.3"), cannot_reach("1.1.3")))
        == "ahead"
    )
    assert await journaled(live) == []
    assert "asked" not in await stored(live)


async def test_a_batch_that_arrives_after_a_later_one_changes_nothing(
    live: Live, name: str
) -> None:
    """A call that timed out on a frozen server may be executed when the server thaws, after its
    successor.
    """
    await given(live, "1.2", seed=Status())
    late = observations._call(
        partition(DB), (name, W1, 1, observations.PROCESS), [beat("1.2", status(), at=NOW)]
    )
    assert await reply_to(live, name, W1, beat("1.2", status(), at=NOW + 5)) == "accepted"
    before, counted = await everything(live, but=["counters"]), await observations.counters(live)
    assert await observations.steps.run(live.cache, observations._RECORD, [late]) == [["accepted"]]
    assert await everything(live, but=["counters"]) == before
    assert await observations.counters(live) == counted | {"duplicates": 1}


async def test_a_pending_event_is_carried_over_a_reassignment_under_its_old_identity(
    live: Live, name: str
) -> None:
    await given(live, "1.2", seed=status("1.1.4", UP))
    carried = transition("1.2.1", prev="1.1.4", target=State.REFUSING)
    await given(live, "1.3", W1)
    assert (
        await reply_to(live, name, W1, beat("1.2", status("1.2.1", State.REFUSING), carried))
        == "fenced"
    )
    after = beat("1.3", status("1.3.1", UP), carried, transition("1.3.1", prev="1.2.1"))
    assert await reply_to(live, name, W1, after) == "accepted"
    assert await journaled(live) == ["1.2.1", "1.3.1"]


async def test_a_pending_event_that_another_owner_overtook_is_not_taken_for_one_accepted_before(
    live: Live, name: str
) -> None:
    await given(live, "1.4", seed=status("1.3.1", UP))
    overtaken = transition("1.2.1", prev="1.1.4", target=State.REFUSING)
    assert (
        await reply_to(live, name, W1, beat("1.4", status("1.2.1", State.REFUSING), overtaken))
        == "ahead"
    )
    grown = beat("1.4", status("1.4.1", UP), overtaken, transition("1.4.1", prev="1.2.1"))
    assert await reply_to(live, name, W1, grown) == "ahead"
    assert await journaled(live) == []


@pytest.mark.parametrize(
    "seed", [None, Status(), status("1.1.2", State.REFUSING)], ids=["absent", "new", "older"]
)
async def test_a_hash_that_is_behind_is_installed_under_a_valid_epoch(
    live: Live, name: str, seed: Status | None
) -> None:
    await given(live, "1.2", seed=seed)
    assert await reply_to(live, name, W1, beat("1.2", status("1.1.4", UP))) == "accepted"
    fields = await stored(live)
    assert fields["identity"] == "1.1.4"
    assert fields["state"] == "available"
    assert await journaled(live) == []


async def test_installing_journals_what_is_new(live: Live, name: str) -> None:
    await given(live, "1.2", seed=status("1.1.2", UP))
    ahead = beat(
        "1.2",
        status("1.2.1", State.REFUSING),
        transition("1.2.1", prev="1.1.4", target=State.REFUSING),
    )
    assert await reply_to(live, name, W1, ahead) == "accepted"
    assert await journaled(live) == ["1.2.1"]


# --- batches and fields ---------------------------------------------------------------------------


async def test_rows_of_one_partition_are_judged_one_by_one(live: Live, name: str) -> None:
    names = namesakes(4)
    for i, database in enumerate(names[:3]):
        await given(
            live, f"1.{i + 2}", database=database, seed=status("1.1.9", UP) if i == 1 else Status()
        )
    beats = [
        beat("1.2", status("1.2.1", UP), transition("1.2.1", database=names[0]), database=names[0]),
        beat("1.3", status(), database=names[1]),
        beat("1.3", status(), database=names[2]),
        beat("1.5", status(), database=names[3]),
    ]
    verdicts = await observations.record(live, name, W1, beats)
    assert [verdict.value for verdict in verdicts] == ["accepted", "ahead", "fenced", "fenced"]
    assert await observations.counters(live) == {
        "beats": 1, "transitions": 1, "rejected_ahead": 1, "rejected_fenced": 2,
    }  # fmt: skip


async def test_a_batch_over_all_partitions_keeps_its_order(live: Live, name: str) -> None:
    names = [f"db{i}" for i in range(60)]
    for i, database in enumerate(names):
        await given(live, f"1.{i + 2}", owner=W1 if i % 3 else W2, database=database, seed=Status())
    beats = [beat(f"1.{i + 2}", status(), database=database) for i, database in enumerate(names)]
    verdicts = await observations.record(live, name, W1, beats)
    assert [verdict.value for verdict in verdicts] == [
        "accepted" if i % 3 else "fenced" for i in range(60)
    ]


async def test_a_database_twice_in_a_batch_is_a_mistake(live: Live, name: str) -> None:
    with pytest.raises(ValueError, match="once only"):
        await observations.record(live, name, W1, [beat("1.2", status()), beat("1.2", status())])


async def test_nothing_to_record(live: Live, name: str) -> None:
    assert await observations.record(live, name, W1, []) == []


def full_beat(worker: str = W1) -> Beat:
    """As large as a beat gets: every gauge, a doubt with four witnesses, long names."""
    big = Identity(epoch("2147483647.2147483647"), 2147483647)
    witnesses = tuple(
        Witness(f"abcdefghijkl-{i}23456", 999, NOW, NOW + 99, Cause.CONNECT_TIMEOUT)
        for i in range(4)
    )
    doubt = Doubt(big, NOW, NOW + 9, witnesses)
    after = Status(
        State.UNCERTAIN,
        NOW,
        big,
        "confirm_absent",
        doubt,
        NOW,
        5,
        Cause.LOGIN_FAILING,
        (W1, W2),
        NOW,
    )
    readings: dict[str, dict[str, float]] = {}
    for gauge in GAUGES.values():
        readings.setdefault(gauge.family, {})[gauge.name] = 123456789.123456
    seen = Observation(
        database=DB, worker=worker, sent_at=NOW, at=NOW + 2, cause=Cause.OK,
        readings=tuple(Reading(family, NOW, ReadingStatus.OK, values)
                       for family, values in readings.items()),
    )  # fmt: skip
    return Beat(DB, epoch("2147483647.2147483647"), after, seen, (cannot_reach(str(big)),))


async def test_the_fullest_hash_stays_a_listpack(live: Live, name: str) -> None:
    one = full_beat()
    await given(live, str(one.epoch))
    assert await reply_to(live, name, W1, one) == "accepted"
    fields = await stored(live)
    assert max(len(value.encode()) for value in fields.values()) <= 64
    assert 45 <= len(fields) <= 100
    assert await live.cache.object("encoding", database_key(DB)) == "listpack"
    found = (await observations.latest(live, [DB]))[DB]
    assert (found.status, found.readings) == (one.status, one.observation.readings)
    assert found.epoch == one.epoch


async def test_what_there_is_none_of_any_more_is_no_field(live: Live, name: str) -> None:
    one = full_beat()
    await given(live, str(one.epoch))
    await reply_to(live, name, W1, one)
    calm = replace(
        one, status=replace(one.status, state=State.UNCERTAIN, doubt=None, alive=None), events=()
    )
    for _ in range(2):
        assert await reply_to(live, name, W1, calm) == "accepted"
        assert not {"doubt", "alive", "witness_1", "witness_4"} & (await stored(live)).keys()
    assert await reply_to(live, name, W1, one) == "accepted"
    assert (await observations.latest(live, [DB]))[DB].status == one.status


async def test_a_failed_feel_leaves_the_last_gauges_with_their_own_age(
    live: Live, name: str
) -> None:
    await given(live, "1.2", seed=Status())
    size = Reading("size", NOW, ReadingStatus.OK, {"db_size": 4213})
    lag = Reading(
        "database",
        NOW,
        ReadingStatus.OK,
        {"role": "standby", "replication_lag": 0.25, "xid_age": 7},
    )
    seen = replace(observation(), readings=(size, lag))
    await reply_to(live, name, W1, Beat(DB, epoch("1.2"), status(), seen))
    assert await live.cache.hget(database_key(DB), "db_size") == "4213"
    down = observation(at=NOW + 5, cause=Cause.PORT_CLOSED)
    await reply_to(live, name, W1, Beat(DB, epoch("1.2"), status(), down))
    found = (await observations.latest(live, [DB]))[DB]
    assert (await stored(live))["services_available"] == "0"
    assert found.cause is Cause.PORT_CLOSED
    assert found.at == NOW + 5
    assert list(found.readings) == [lag, size]
    primary = Reading("database", NOW + 9, ReadingStatus.OK, {"role": "primary", "xid_age": 8})
    denied = Reading("size", NOW + 9, ReadingStatus.DENIED, code="42501")
    seen = replace(observation(at=NOW + 9), readings=(primary, denied))
    await reply_to(live, name, W1, Beat(DB, epoch("1.2"), status(), seen))
    assert list((await observations.latest(live, [DB]))[DB].readings) == [primary, denied]
    assert not {"db_size", "replication_lag"} & (await stored(live)).keys()


async def test_latest_of_unknown_and_of_not_yet_observed_databases(live: Live, name: str) -> None:
    await given(live, "1.2")
    found = await observations.latest(live, [DB, "nobody"])
    assert set(found) == {DB}
    assert not found[DB].seeded
    assert found[DB].owner == W1
    assert found[DB].at is None
    assert found[DB].number == 0
    assert await observations.names(live) == [DB]


async def test_the_script_is_taught_again_to_a_server_that_forgot_it(live: Live, name: str) -> None:
    names = [f"db{i}" for i in range(20)]
    for i, database in enumerate(names):
        await given(live, f"1.{i + 2}", database=database, seed=Status())
    for _ in range(2):
        await live.cache.script_flush()
        beats = [
            beat(f"1.{i + 2}", status(), database=database) for i, database in enumerate(names)
        ]
        assert {v.value for v in await observations.record(live, name, W1, beats)} == {"accepted"}
    assert (await observations.counters(live))["beats"] == 40


async def test_a_bug_in_a_step_stays_an_exception(live: Live, name: str) -> None:
    await live.cache.set(database_key(DB), "not a hash")
    with pytest.raises(Exception, match="WRONGTYPE"):
        await reply_to(live, name, W1, beat("1.2", status()))


async def test_values_are_what_people_would_type(live: Live, name: str) -> None:
    """The talk's own line: HSET db1 db_size 4213."""
    await given(live, "1.2", seed=Status())
    reading = Reading("size", NOW, ReadingStatus.OK, {"db_size": 4213})
    await reply_to(
        live,
        name,
        W1,
        Beat(DB, epoch("1.2"), status(), replace(observation(), readings=(reading,))),
    )
    assert await live.cache.hincrby(database_key(DB), "db_size", 1) == 4214


# --- twins ----------------------------------------------------------------------------------------


async def test_a_process_of_the_same_id_is_told_apart(
    live: Live, name: str, become: Become, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither its first transition, nor one the other's batch number would hide, nor a beat without
    events counts.
    """
    await given(live, "1.2", seed=Status())
    for batch in (1000, 1):  # the twin has run for longer, or for shorter
        monkeypatch.setattr(observations, "_batches", itertools.count(batch))
        become(f"process-{batch}")
        after = status("1.2.1", UP if batch == 1000 else State.REFUSING)
        first = transition("1.2.1", target=after.state)
        reply = await reply_to(live, name, W1, beat("1.2", after, first))
        assert reply == ("accepted" if batch == 1000 else "twin")
    assert await reply_to(live, name, W1, beat("1.2", status("1.2.1", UP))) == "twin"
    fields = await stored(live)
    assert (fields["state"], fields["number"]) == ("available", "1")
    assert fields["process"] == "1.2 process-1000"
    assert await journaled(live) == ["1.2.1"]
    assert (await observations.counters(live))["rejected_twin"] == 2


async def test_the_next_epoch_is_anybodys(live: Live, name: str, become: Become) -> None:
    """An epoch binds one process; what an older leader leaves of it in the hash binds nobody to the
    next.
    """
    await given(live, "1.2", seed=Status())
    become("one")
    assert await reply_to(live, name, W1, beat("1.2", status())) == "accepted"
    await given(live, "1.3")
    become("two")
    assert await reply_to(live, name, W1, beat("1.3", status())) == "accepted"
    become("one")
    assert await reply_to(live, name, W1, beat("1.3", status())) == "twin"
    assert await reply_to(live, name, W1, beat("1.2", status())) == "fenced"
