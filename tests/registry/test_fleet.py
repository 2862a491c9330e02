"""The fleet: registered, listed, changed, retired."""

from dataclasses import replace

import pytest
from sqlalchemy import text

from monitor.core.database import DatabaseStatus
from monitor.core.errors import AlreadyExists, InvalidInput, NotFound, Outdated, Unreadable
from monitor.core.policy import Policy
from monitor.registry import fleet
from monitor.registry.store import Store

SLOW = Policy(name="slow", interval=60.0, absent_rounds=5)


def names(rows: tuple[fleet.Database, ...]) -> list[str]:
    """Return what is listed."""
    return [row.name for row in rows]


def test_what_is_added_is_there(store: Store) -> None:
    added = fleet.add(store, "db1", "sealed", {"team": "ünïted"}, zone="eu-1")
    assert added == fleet.get(store, "db1") == fleet.read_fleet(store).databases[0]
    assert (added.name, added.ciphertext, added.labels) == ("db1", "sealed", {"team": "ünïted"})
    assert added.zone == "eu-1"
    assert (added.policy, added.status, added.revision) == (Policy(), DatabaseStatus.ACTIVE, 1)
    assert added.created_at > 1_700_000_000


def test_repr_shows_no_ciphertext(store: Store) -> None:
    assert "c4n4ry" not in repr(fleet.add(store, "db1", "c4n4ry", {}))


def test_a_name_is_given_once(store: Store) -> None:
    fleet.add(store, "db1", "sealed", {})
    with pytest.raises(AlreadyExists):
        fleet.add(store, "db1", "another", {})
    assert fleet.get(store, "db1").ciphertext == "sealed"


def test_a_retired_name_is_taken_up_again_as_the_same_database(store: Store) -> None:
    first = fleet.add(store, "db1", "sealed", {"a": "b"}, zone="eu")
    fleet.remove(store, "db1")
    again = fleet.add(store, "db1", "another", {})
    assert again == replace(first, ciphertext="another", labels={}, zone="", revision=3)
    assert names(fleet.read_fleet(store).databases) == ["db1"]
    with pytest.raises(AlreadyExists):
        fleet.add(store, "db1", "a third", {})


def test_a_change_is_made_at_the_revision_it_was_meant_for(store: Store) -> None:
    fleet.add(store, "db1", "sealed", {})
    assert fleet.change(store, "db1", labels={"a": "b"}, revision=1).revision == 2
    with pytest.raises(Outdated):
        fleet.change(store, "db1", ciphertext="late", revision=1)
    assert fleet.get(store, "db1").ciphertext == "sealed"
    with pytest.raises(NotFound):
        fleet.change(store, "db2", ciphertext="late", revision=1)


@pytest.mark.parametrize("name", ["", "DB", "a b", "-a", "a" * 64, "a\n"])
def test_an_unusable_name(store: Store, name: str) -> None:
    with pytest.raises(InvalidInput):
        fleet.add(store, name, "sealed", {})


def test_what_is_unknown(store: Store) -> None:
    with pytest.raises(NotFound, match="no database"):
        fleet.get(store, "db1")
    with pytest.raises(NotFound, match="no database"):
        fleet.remove(store, "db1")
    with pytest.raises(NotFound, match="no policy"):
        fleet.add(store, "db1", "sealed", {}, policy="odd")
    fleet.add(store, "db1", "sealed", {})
    with pytest.raises(NotFound, match="no policy"):
        fleet.change(store, "db1", policy="odd")


def test_the_fleet_is_listed_page_by_page(store: Store) -> None:
    every = sorted(f"db{n}" for n in range(7))
    for name in reversed(every):
        fleet.add(store, name, "sealed", {})
    assert names(fleet.read_fleet(store).databases) == every
    pages, after = [], ""
    while page := names(fleet.list_databases(store, after=after, limit=3)):
        pages.append(page)
        after = page[-1]
    assert pages == [every[:3], every[3:6], every[6:]]


def test_a_fleet_of_more_than_one_page(store: Store) -> None:
    rows = (
        f"SELECT 'db' || i, 'sealed', '{{}}', 'default' FROM generate_series(1, {fleet.PAGE}) AS i"
    )
    with store.begin() as connection:
        connection.execute(text(f"INSERT INTO databases (name, ciphertext, labels, policy) {rows}"))
    assert len(fleet.read_fleet(store).databases) == fleet.PAGE
    fleet.add(store, "a", "sealed", {})
    fleet.add(store, "z", "sealed", {})
    listed = names(fleet.read_fleet(store).databases)
    assert (len(listed), listed[0], listed[-1]) == (fleet.PAGE + 2, "a", "z")
    assert listed == sorted(set(listed))


def test_a_retired_database_is_out_of_the_fleet_and_its_address_forgotten(store: Store) -> None:
    fleet.add(store, "db1", "sealed", {})
    fleet.add(store, "db2", "sealed", {})
    fleet.remove(store, "db1")
    assert names(fleet.read_fleet(store).databases) == names(fleet.list_databases(store)) == ["db2"]
    gone = fleet.get(store, "db1")
    assert (gone.status, gone.ciphertext, gone.revision) == (DatabaseStatus.RETIRED, "", 2)


def test_only_adding_it_again_brings_a_retired_one_back(store: Store) -> None:
    fleet.add(store, "db1", "sealed", {})
    fleet.remove(store, "db1")
    for work in (
        lambda: fleet.remove(store, "db1"),
        lambda: fleet.set_status(store, "db1", DatabaseStatus.ACTIVE),
        lambda: fleet.change(store, "db1", ciphertext="new"),
    ):
        with pytest.raises(NotFound):
            work()
    assert fleet.get(store, "db1").ciphertext == ""


def test_pausing_is_a_change_and_keeps_it_in_the_fleet(store: Store) -> None:
    fleet.add(store, "db1", "sealed", {})
    fleet.set_status(store, "db1", DatabaseStatus.PAUSED)
    (row,) = fleet.read_fleet(store).databases
    assert (row.status, row.revision) == (DatabaseStatus.PAUSED, 2)
    fleet.set_status(store, "db1", DatabaseStatus.ACTIVE)
    assert fleet.get(store, "db1").revision == 3
    with pytest.raises(InvalidInput, match="remove"):
        fleet.set_status(store, "db1", DatabaseStatus.RETIRED)


def test_only_what_is_given_changes(store: Store) -> None:
    before = fleet.add(store, "db1", "sealed", {"a": "b"}, zone="eu")
    fleet.put_policy(store, SLOW)
    fleet.change(store, "db1", ciphertext="new")
    assert fleet.get(store, "db1") == replace(before, ciphertext="new", revision=2)
    fleet.change(store, "db1", labels={}, policy="slow", zone="")
    assert fleet.get(store, "db1") == replace(
        before, ciphertext="new", labels={}, policy=SLOW, zone="", revision=3
    )


def test_a_changed_policy_is_a_change_of_its_databases_only(store: Store) -> None:
    fleet.put_policy(store, SLOW)
    fleet.add(store, "db1", "sealed", {}, policy="slow")
    fleet.add(store, "db2", "sealed", {})
    quicker = replace(SLOW, interval=30.0)
    fleet.put_policy(store, quicker)
    assert fleet.policies(store) == (Policy(), quicker)
    assert (fleet.get(store, "db1").policy, fleet.get(store, "db1").revision) == (quicker, 2)
    assert fleet.get(store, "db2").revision == 1


@pytest.mark.parametrize(
    "bad",
    [
        {"interval": 0.0},
        {"deadline": -1.0},
        {"deadline": float("nan")},
        {"name": "A B"},
        {"alone_seconds": 20.0},
    ],
)
def test_a_policy_nobody_can_follow(store: Store, bad: dict[str, float]) -> None:
    with pytest.raises(InvalidInput):
        fleet.put_policy(store, replace(SLOW, **bad))  # type: ignore[arg-type]
    assert fleet.policies(store) == (Policy(),)


def damage(store: Store, change: str, *names: str) -> None:
    with store.begin() as connection:
        connection.execute(
            text(f"UPDATE databases SET {change} WHERE name = ANY(:names)"), {"names": list(names)}
        )


@pytest.mark.parametrize("labels", ["[]", '"prod"', '{"env": 1}', "null"])
def test_a_row_that_cannot_be_read_stops_no_other(
    store: Store, labels: str, caplog: pytest.LogCaptureFixture
) -> None:
    every = [f"db{n}" for n in range(5)]
    for name in every:
        fleet.add(store, name, "sealed", {"env": "prod"})
    damage(store, f"labels = '{labels}'", "db1", "db2", "db4")
    for _ in range(2):
        found = fleet.read_fleet(store)
        assert (names(found.databases), found.unreadable) == (["db0", "db3"], {"db1", "db2", "db4"})
    assert caplog.text.count("action=row_unreadable kind=database name=db1") == 1, "told once"
    assert names(fleet.list_databases(store, limit=2)) == ["db0", "db3"], (
        "a page is full unless it is the last one"
    )
    with pytest.raises(Unreadable, match="db1"):
        fleet.get(store, "db1")
    damage(store, """labels = '{"env": "dev"}'""", *every)
    assert (names(fleet.read_fleet(store).databases), fleet.get(store, "db1").labels) == (
        every,
        {"env": "dev"},
    )


def test_a_row_that_cannot_be_read_can_be_retired_and_registered_again(store: Store) -> None:
    fleet.add(store, "db1", "sealed", {})
    damage(store, "labels = '[]'", "db1")
    fleet.set_status(store, "db1", DatabaseStatus.PAUSED)
    fleet.remove(store, "db1")
    assert fleet.add(store, "db1", "sealed", {"env": "dev"}).labels == {"env": "dev"}


def test_a_page_of_nothing_but_rows_that_cannot_be_read_ends_no_list(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet, "PAGE", 2)
    for n in range(5):
        fleet.add(store, f"db{n}", "sealed", {})
    damage(store, "labels = '[]'", "db0", "db1", "db2")
    assert names(fleet.read_fleet(store).databases) == ["db3", "db4"]


def test_a_policy_that_nobody_may_use_is_told_once(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    fleet.put_policy(store, Policy(name="hasty"))
    fleet.add(store, "db1", "sealed", {}, policy="hasty")
    with store.begin() as connection:
        connection.execute(text("UPDATE policies SET alone_seconds = 3 WHERE name = 'hasty'"))
    for _ in range(3):
        assert fleet.get(store, "db1").policy == Policy(name="hasty")
    [told] = [one.getMessage() for one in caplog.records]
    assert told.startswith(
        "action=policy_unusable name=hasty used=default error=policy/alone_seconds: must be more"
    )
