"""Transitions: each kept once, contradictions kept apart, numbered like `chain.number` whatever the
order.
"""

import logging
import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, text
from sqlalchemy.dialects import postgresql

from monitor.core import chain
from monitor.core.cause import Cause
from monitor.core.chunks import chunks
from monitor.core.event import Finding, Transition, decode, encode
from monitor.core.status import MAX_WITNESSES, Epoch, Identity, State, Status
from monitor.registry import chains
from monitor.registry.store import Store
from monitor.registry.transitions import last_status, read_transitions, write_transitions
from tests.factories import identity
from tests.registry.making import NOON, line, transition

few = settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
identities = st.builds(
    Identity, st.builds(Epoch, st.integers(1, 2), st.integers(1, 3)), st.integers(1, 3)
)


def versions(store: Store, database: str = "db1") -> dict[str, int | None]:
    """Return the numbering as people see it, newest first."""
    return {
        str(row.transition.identity): row.version
        for row in read_transitions(store, database, limit=1000)
    }


def count(store: Store, table: str) -> int:
    """Count rows."""
    with store.begin() as connection:
        return int(connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one())


def clear(store: Store) -> None:
    """Forget all transitions, for the next example."""
    with store.begin() as connection:
        connection.execute(text("TRUNCATE transitions, transition_conflicts"))


def test_nothing_to_write(store: Store) -> None:
    written = write_transitions(store, [])
    assert (written.durable, written.conflicts) == ((), 0)


def test_a_transition_comes_back_as_it_was(store: Store) -> None:
    first, second = transition("1.1.1"), transition("1.2.1", "1.1.1")
    written = write_transitions(store, [first, second])
    assert written.durable == (("db1", identity("1.1.1")), ("db1", identity("1.2.1")))
    rows = read_transitions(store, "db1")
    assert [row.transition for row in rows] == [second, first]
    assert [(row.version, row.superseded) for row in rows] == [(2, False), (1, False)]
    assert all(row.recorded_at > NOON for row in rows)


floats = st.integers(0, 4_000_000_000_000).map(lambda milliseconds: milliseconds / 1000)
words = st.text("abc019-_", min_size=1, max_size=20)
texts = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=40)
seen = st.builds(Finding, words, floats, floats, st.sampled_from(Cause), st.integers(1, 9), texts)


@few
@given(st.builds(
    Transition, words, identities, st.none() | identities,
    st.sampled_from(State), st.sampled_from(State), words, floats, words,
    st.lists(words, max_size=3).map(tuple), st.lists(seen, max_size=4).map(tuple),
))  # fmt: skip
def test_any_transition_comes_back_as_it_was(store: Store, one: Transition) -> None:
    clear(store)
    write_transitions(store, [one])
    (row,) = read_transitions(store, one.database)
    assert row.transition == one
    again = decode(encode(row.transition))
    assert write_transitions(store, [again]).conflicts == 0  # type: ignore[list-item]


def test_text_postgres_cannot_hold_stops_nobody(store: Store) -> None:
    odd = transition("1.1.1")
    odd = replace(odd, evidence=(replace(odd.evidence[0], detail="a\0b\ud800c"),))
    write_transitions(store, [odd])
    assert read_transitions(store, "db1")[0].transition.evidence[0].detail == "a\ufffdb?c"
    assert write_transitions(store, [odd]).conflicts == 0, "and its replay is no contradiction"


def test_numbers_past_a_double_are_exact(store: Store) -> None:
    name = f"{2**53 + 1}.{2**62 + 1}.{2**53 + 3}"
    write_transitions(store, [transition(name)])
    assert versions(store) == {name: 1}


def test_a_replay_is_durable_and_changes_nothing(store: Store) -> None:
    batch = line("1.1.1", "1.1.2", "1.2.1")
    write_transitions(store, batch)
    before = read_transitions(store, "db1")
    written = write_transitions(store, [batch[2], batch[0], batch[0]])
    assert set(written.durable) == {("db1", identity("1.2.1")), ("db1", identity("1.1.1"))}
    assert written.conflicts == 0
    assert read_transitions(store, "db1") == before


def test_twice_in_one_batch_is_kept_once(store: Store) -> None:
    write_transitions(store, [transition("1.1.1"), transition("1.1.1")])
    assert versions(store) == {"1.1.1": 1}


@pytest.mark.parametrize("together", [True, False])
def test_another_content_under_the_same_identity_is_loud(
    store: Store, caplog: pytest.LogCaptureFixture, together: bool
) -> None:
    one, other = transition("1.1.1"), transition("1.1.1", worker="w9-aaaaaa")
    if together:
        written = write_transitions(store, [one, other])
    else:
        write_transitions(store, [one])
        written = write_transitions(store, [other])
    assert written.conflicts == 1
    assert written.durable == (("db1", identity("1.1.1")),), (
        "durable: it is not to be replayed for ever"
    )
    assert [row.transition for row in read_transitions(store, "db1")] == [one], (
        "the first one stays"
    )
    with store.begin() as connection:
        kept = connection.execute(
            text("SELECT database_name, n, content FROM transition_conflicts")
        ).one()
    assert (kept.database_name, kept.n, decode(kept.content)) == ("db1", 1, other)
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.getMessage() == "action=transition_conflict database=db1 identity=1.1.1"


def test_the_same_contradiction_again_is_counted_once(store: Store) -> None:
    write_transitions(store, [transition("1.1.1")])
    other = transition("1.1.1", worker="w9-aaaaaa")
    assert [write_transitions(store, [other]).conflicts for _ in range(3)] == [1, 0, 0]
    assert write_transitions(store, [transition("1.1.1", worker="w8-aaaaaa")]).conflicts == 1
    assert count(store, "transition_conflicts") == 2


def test_databases_have_numbers_of_their_own(store: Store) -> None:
    write_transitions(store, line("1.1.1", "1.1.2") + line("1.7.1", "1.7.2", database="db2"))
    write_transitions(
        store, [transition("1.2.1", "1.1.2"), transition("1.8.1", "1.7.2", database="db2")]
    )
    assert versions(store) == {"1.1.1": 1, "1.1.2": 2, "1.2.1": 3}
    assert versions(store, "db2") == {"1.7.1": 1, "1.7.2": 2, "1.8.1": 3}


def test_a_late_arrival_finds_its_place(store: Store) -> None:
    first, second, third = line("1.1.1", "1.1.2", "1.2.1")
    write_transitions(store, [third])
    assert versions(store) == {"1.2.1": 1}
    write_transitions(store, [first])
    assert versions(store) == {"1.2.1": 2, "1.1.1": 1}
    write_transitions(store, [second])
    assert versions(store) == {"1.2.1": 3, "1.1.2": 2, "1.1.1": 1}


def test_a_fork_marks_the_lower_branch(store: Store) -> None:
    write_transitions(store, line("1.1.1", "1.1.2", "1.1.3"))
    write_transitions(store, [transition("1.2.1", "1.1.1")])
    assert versions(store) == {"1.2.1": 2, "1.1.3": None, "1.1.2": None, "1.1.1": 1}
    assert [row.superseded for row in read_transitions(store, "db1")] == [False, True, True, False]


def test_pages_go_through_all_rows_superseded_ones_too(store: Store) -> None:
    write_transitions(store, [*line("1.1.1", "1.1.2", "1.1.3"), transition("1.2.1", "1.1.1")])
    write_transitions(store, line("1.1.1", "1.1.2", database="db2"))
    found, before = [], None
    while page := read_transitions(store, "db1", limit=2, before=before):
        found += [str(row.transition.identity) for row in page]
        before = page[-1].id
    assert found == ["1.2.1", "1.1.3", "1.1.2", "1.1.1"]
    assert read_transitions(store, "db1", before=10**12) == ()


def as_events(links: chain.Links) -> list[Transition]:
    """Make transitions with these identities and prevs."""
    return [transition(str(name), str(prev) if prev else None) for name, prev in links.items()]


@few
@given(
    st.dictionaries(identities, st.none() | identities, max_size=12),
    st.randoms(use_true_random=False),
)
def test_the_numbers_are_those_of_the_chain_in_any_order_and_batching(
    store: Store, links: chain.Links, chance: random.Random
) -> None:
    clear(store)
    events = as_events(links)
    chance.shuffle(events)
    events += chance.sample(events, len(events) // 3)
    while events:
        cut = chance.randint(1, 4)
        write_transitions(store, events[:cut])
        events = events[cut:]
    assert versions(store) == {str(name): version for name, version in chain.number(links).items()}


def test_competing_historians_lose_and_double_nothing(store: Store, other_store: Store) -> None:
    names = [f"1.{counter}.{n}" for counter in range(1, 6) for n in range(1, 6)]
    events = [one for number in range(6) for one in line(*names, database=f"db{number}")]
    chance = random.Random(7)
    batches = []
    for _ in range(2):  # every event twice, in batches that overlap in databases and in order
        chance.shuffle(events)
        batches += chunks(events, 15)
    with ThreadPoolExecutor(4) as pool:
        written = list(pool.map(write_transitions, [store, other_store] * len(batches), batches))
    assert sum(one.conflicts for one in written) == 0
    for number in range(6):
        assert versions(store, f"db{number}") == {
            name: version for version, name in enumerate(names, 1)
        }


def test_a_batch_is_written_whole_or_not_at_all(store: Store) -> None:
    broken = replace(transition("1.1.2", "1.1.1"), at=float("1e30"))
    with pytest.raises((OverflowError, ValueError)):
        write_transitions(store, [transition("1.1.1"), broken])
    assert versions(store) == {}


def test_the_last_status_is_that_of_the_highest_identity(store: Store) -> None:
    write_transitions(store, line("1.1.1", "1.2.1")[::-1] + line("1.1.1", database="db2"))
    found = last_status(store, ["db1", "db2", "db3", "db1"])
    assert found.keys() == {"db1", "db2"}
    assert found["db1"] == Status(
        state=State.UNAVAILABLE, since=NOON + 1, identity=identity("1.2.1"), rule="confirm_absent"
    )
    assert last_status(store, []) == {}


def test_the_last_status_of_an_open_doubt_says_who_doubted(store: Store) -> None:
    at = NOON
    one = replace(
        transition("1.2.3"),
        source=State.AVAILABLE,
        target=State.UNCERTAIN,
        rule="doubt",
        at=at,
        evidence=tuple(Finding(f"w{n}", at - n, at, Cause.HUNG, n) for n in range(1, 7)),
    )
    write_transitions(store, [one])
    status = last_status(store, ["db1"])["db1"]
    assert status.doubt is not None
    assert (status.doubt.identity, status.doubt.sent_at) == (one.identity, at - 6)
    assert status.doubt.asked_at == at
    assert [witness.worker for witness in status.doubt.witnesses] == [
        f"w{n}" for n in range(1, MAX_WITNESSES + 1)
    ]
    write_transitions(store, [replace(one, database="db2", evidence=())])
    assert last_status(store, ["db2"])["db2"].doubt is not None


def test_a_state_of_a_newer_version_hides_no_other_transition(store: Store) -> None:
    write_transitions(
        store, [*line("1.1.1", "1.1.2", "1.1.3", "1.1.4"), transition("1.1.1", database="db2")]
    )
    with store.begin() as connection:
        connection.execute(
            text(
                "UPDATE transitions SET target = 'blind'"
                " WHERE database_name = 'db1' AND n IN (2, 4)"
            )
        )
    assert list(versions(store)) == ["1.1.3", "1.1.1"]
    [first] = read_transitions(store, "db1", limit=1)
    assert [
        str(one.transition.identity) for one in read_transitions(store, "db1", 1, first.id)
    ] == ["1.1.1"]
    found = last_status(store, ["db1", "db2", "db3"])
    assert (found["db1"], found["db2"] is not None, "db3" in found) == (None, True, False)


@pytest.fixture
def _short_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chains, "WINDOWS", (5, 10))


def test_the_head_of_a_chain_is_one_probe_of_an_index(store: Store) -> None:
    """A million rows of a flapper must not be read for each transition of anybody's."""
    wanted = chains.ends(["db1", "db2"], chains.NEWEST_FIRST).compile(
        dialect=postgresql.dialect(), compile_kwargs={"literal_binds": True}
    )
    with store.begin() as connection:
        connection.execute(text("SET LOCAL enable_seqscan = off"))
        connection.execute(text("SET LOCAL enable_sort = off"))
        plan = "\n".join(connection.exec_driver_sql(f"EXPLAIN {wanted}").scalars())
    assert "Index Scan Backward using transitions_identity" in plan, plan
    assert "Index Cond: (database_name = " in plan, plan


@pytest.mark.usefixtures("_short_windows")
def test_a_late_arrival_near_the_head_reads_no_more_than_the_tail(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flapper's history may have a million rows."""
    chain = line(*(f"1.1.{n}" for n in range(1, 31)))
    write_transitions(store, [one for one in chain if one is not chain[27]])
    monkeypatch.setattr("monitor.core.chain.number", None)
    newest, read = chains._newest, list[int]()

    def counted(connection: Connection, database: str, most: int) -> dict[Identity, Any]:
        found = newest(connection, database, most)
        read.append(len(found))
        return found

    monkeypatch.setattr(chains, "_newest", counted)
    write_transitions(store, [chain[27]])
    assert read == [5]
    assert [row.version for row in read_transitions(store, "db1")] == list(range(30, 0, -1))


@pytest.mark.usefixtures("_short_windows")
def test_what_comes_later_than_can_be_numbered_is_kept_without_a_number(store: Store) -> None:
    chain = line(*(f"1.1.{n}" for n in range(1, 31)))
    missing = [chain[2], chain[27]]
    write_transitions(store, [one for one in chain if one not in missing])
    assert write_transitions(store, missing).conflicts == 0
    found = versions(store)
    assert found.pop("1.1.3") is None
    assert list(found.values()) == list(range(29, 0, -1)), "dense along the rest"
    write_transitions(store, [transition("1.1.31", "1.1.30")])
    assert versions(store)["1.1.31"] == 30


@pytest.mark.usefixtures("_short_windows")
def test_a_fork_from_further_back_than_is_read_counts_as_from_there(store: Store) -> None:
    write_transitions(store, line(*(f"1.1.{n}" for n in range(1, 31))))
    write_transitions(store, [transition("1.2.1", "1.1.3")])
    found = versions(store)
    assert list(found.values())[:10] == [22, *[None] * 9]
    assert list(found.values())[10:] == list(range(21, 0, -1))
    write_transitions(store, line("1.3.1", "1.3.2")[::-1])
    assert max(filter(None, versions(store).values())) == len(
        [one for one in versions(store).values() if one]
    )
