"""What an older version wrote in its words is read in ours after the migration, and goes back."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from alembic import command
from sqlalchemy import text

from monitor.core.cause import Cause
from monitor.core.event import Transition, decode
from monitor.registry import fleet
from monitor.registry import store as store_module
from monitor.registry.store import Store, migrate, migrations, open_store, pending_migrations
from monitor.registry.tables import Base
from monitor.registry.transitions import last_status, read_transitions
from tests.servers import PostgresServer
from tests.waiting import eventually

OLD_WORDS = ("first_light", '"alone"', '"refused"', "doubter")
OLD_ROWS = r"""
    INSERT INTO policies
    SELECT (jsonb_populate_record(policies, '{"name": "patient", "doubter_seconds": 900}')).*
    FROM policies WHERE name = 'default';

    INSERT INTO databases (name, ciphertext, labels, policy) VALUES
        ('db1', 'sealed', '{"rule": "alone"}', 'default'), ('db2', 'sealed', '{}', 'patient');

    INSERT INTO transitions (database_name, epoch_term, epoch_counter, n, prev_term, prev_counter,
        prev_n, version, source, target, rule, evidence, observers, worker, at, digest)
    VALUES
        ('db1', 1, 1, 1, NULL, NULL, NULL, 1, 'new', 'available', 'first_light',
            '[{"worker": "w1", "sent_at": 1, "at": 2, "cause": "ok", "rounds": 1, "detail": ""}]',
            '{w1}', 'w1', to_timestamp(2), '\x01'),
        ('db1', 1, 1, 2, 1, 1, 1, 2, 'available', 'uncertain', 'doubt',
            '[{"worker": "w1", "sent_at": 3, "at": 4, "cause": "refused", "rounds": 2,
               "detail": "\"cause\": \"refused\", he said"},
              {"worker": "w2", "sent_at": 3, "at": 4, "cause": "cleartext_refused", "rounds": 1,
               "detail": "connection refused"}]',
            '{w1}', 'w1', to_timestamp(4), '\x02'),
        ('db1', 1, 1, 3, 1, 1, 2, 3, 'uncertain', 'unavailable', 'alone',
            '[{"worker": "w1", "sent_at": 40, "at": 41, "cause": "refused", "rounds": 9,
               "detail": ""}]',
            '{w1}', 'w1', to_timestamp(41), '\x03'),
        ('db2', 1, 1, 1, NULL, NULL, NULL, 1, 'available', 'uncertain', 'doubt',
            '[{"worker": "w1", "sent_at": 5, "at": 6, "cause": "refused", "rounds": 1,
               "detail": ""}]',
            '{w1}', 'w1', to_timestamp(6), '\x04');

    INSERT INTO transition_conflicts (database_name, epoch_term, epoch_counter, n, content, digest)
    VALUES ('db1', 1, 1, 3,
        '{"at":41.0,"database":"db1","evidence":[{"at":41.0,"cause":"refused",'
        || '"detail":"\"cause\":\"refused\"","rounds":9,"sent_at":40.0,"worker":"w1"}],'
        || '"identity":"1.1.3","observers":["w1"],'
        || '"prev":"1.1.2","rule":"alone","source":"uncertain","target":"unavailable",'
        || '"type":"transition","worker":"w1"}', '\x05');
"""
LONG_WAIT = """
    SELECT pid FROM pg_stat_activity
    WHERE datname = 'older' AND wait_event_type = 'Lock' AND now() - query_start > '0.6s'"""


@pytest.fixture
def store(postgres_server: PostgresServer) -> Iterator[Store]:
    """A store on a database of the version before, with what that wrote."""
    postgres_server.execute("CREATE DATABASE older")
    opened = open_store(postgres_server.url("older"))
    with opened.begin() as connection:
        command.upgrade(migrations(connection), "0003")
        connection.exec_driver_sql(OLD_ROWS)
    yield opened
    opened.close()
    postgres_server.execute("DROP DATABASE older WITH (FORCE)")


@pytest.fixture
def migrated(store: Store, postgres_server: PostgresServer) -> Store:
    """The same store after `feeler migrate`."""
    migrate(postgres_server.url("older"))
    return store


def contents(store: Store) -> dict[str, list[str]]:
    """Return every row of every table as text, without revisions."""
    with store.begin() as connection:
        return {
            name: sorted(
                connection.execute(
                    text(f"SELECT CAST(to_jsonb({name}) - 'revision' AS text) FROM {name}")
                ).scalars()
            )
            for name in Base.metadata.tables
        }


def without_people(row: str) -> str:
    """Return a row without what people and servers wrote: labels, and texts with escaped quotes."""
    return row.replace('"labels": {"rule": "alone"}', "").replace(r"\"", "")


def test_no_old_word_is_left(migrated: Store) -> None:
    rows = [row for every in contents(migrated).values() for row in map(without_people, every)]
    assert len(rows) == 10
    assert [(word, row) for row in rows for word in OLD_WORDS if word in row] == []


def test_rows_of_before_hold_old_words_and_come_back_to_them(store: Store, migrated: Store) -> None:
    new = contents(migrated)
    with migrated.begin() as connection:
        command.downgrade(migrations(connection), "0003")
    old = contents(store)
    told = "".join(without_people(row) for every in old.values() for row in every)
    assert [word for word in OLD_WORDS if word not in told] == []
    with store.begin() as connection:
        command.upgrade(migrations(connection), "head")
    assert contents(store) == new


def test_transitions_are_read_in_our_words(migrated: Store) -> None:
    rows = [row.transition for row in read_transitions(migrated, "db1")]
    assert [row.rule for row in rows] == ["single_observer", "doubt", "first_ok"]
    causes = [[seen.cause for seen in row.evidence] for row in rows]
    assert causes == [[Cause.PORT_CLOSED], [Cause.PORT_CLOSED, Cause.CLEARTEXT_REFUSED], [Cause.OK]]
    quoting, refused = (seen.detail for seen in rows[1].evidence)
    assert (quoting, refused) == ('"cause": "refused", he said', "connection refused")


def test_a_status_is_made_of_them(migrated: Store) -> None:
    found = last_status(migrated, ["db1", "db2"])
    down, doubted = found["db1"], found["db2"]
    assert down is not None
    assert down.rule == "single_observer"
    assert doubted is not None
    assert doubted.doubt is not None
    assert [one.cause for one in doubted.doubt.witnesses] == [Cause.PORT_CLOSED]


def test_a_conflict_is_read_in_our_words_and_quotes_nobody_anew(migrated: Store) -> None:
    with migrated.begin() as connection:
        content = connection.execute(text("SELECT content FROM transition_conflicts")).scalar_one()
    event = decode(content)
    assert isinstance(event, Transition)
    assert event.rule == "single_observer"
    [seen] = event.evidence
    assert (seen.cause, seen.detail) == (Cause.PORT_CLOSED, '"cause":"refused"')


def test_a_policy_keeps_its_seconds_and_is_published_anew(migrated: Store) -> None:
    kept = {policy.name: policy.unreachable_from_seconds for policy in fleet.policies(migrated)}
    assert kept == {"default": 600, "patient": 900}
    assert {one.name: one.revision for one in fleet.read_fleet(migrated).databases} == {
        "db1": 1,
        "db2": 2,
    }


def by_alembic(url: str) -> None:
    """Upgrade as the `alembic` command does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATABASE_URL", url)
        command.upgrade(migrations(), "head")


@pytest.mark.parametrize("upgrade", [migrate, by_alembic])
async def test_a_long_migration_ends_and_the_fleet_is_read_meanwhile(
    upgrade: Callable[[str], None],
    store: Store,
    postgres_server: PostgresServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(store_module, "STATEMENT_MS", 300)
    with ThreadPoolExecutor(1) as pool:
        with store.begin() as connection:
            connection.exec_driver_sql("SELECT FROM transitions WHERE rule = 'alone' FOR UPDATE")
            done = pool.submit(upgrade, postgres_server.url("older"))
            await eventually(lambda: postgres_server.execute(LONG_WAIT))
            with store.begin() as other:
                other.exec_driver_sql("SELECT FROM policies, databases")
        done.result(10)
    assert pending_migrations(postgres_server.url("older")) == ()
