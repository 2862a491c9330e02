import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.shapes import LastObservationShape
from monitor.terminal import rows
from monitor.terminal.values import timestamp

NOW = timestamp("2026-11-21T01:43:24.000Z")


def answer(**changes: object) -> LastObservationShape:
    seen = {
        "observed_at": "2026-11-21T01:43:20.114Z",
        "age_seconds": 3.9,
        "interval_seconds": 5.0,
        "stale": False,
        "stale_after_seconds": 17.0,
        "worker": "w4",
        "cause": "ok",
        "duration_ms": 38.0,
        "values": {
            "services_available": True,
            "connections": 88,
            "db_size": 44_238_471_168,
            "cache_hit_rate": 99.12,
        },
        "units": {"db_size": "bytes"},
        "families": {
            "connections": {
                "status": "ok",
                "observed_at": "",
                "age_seconds": 3.9,
                "stale": False,
                "code": "",
            },
            "size": {
                "status": "ok",
                "observed_at": "",
                "age_seconds": 400.0,
                "stale": True,
                "code": "",
            },
            "tables": {
                "status": "denied",
                "observed_at": "",
                "age_seconds": 3.9,
                "stale": False,
                "code": "42501",
                "advice": "GRANT pg_monitor TO u;",
            },
        },
        "errors": {"tables": "42501"},
    }
    base = {
        "database": {
            "name": "orders-eu",
            "labels": {"env": "prod"},
            "address": "postgresql://u:***@h:5432/d",
        },
        "state": "available",
        "state_since": "2026-11-21T01:39:12.000Z",
        "transition": "3.1.2",
        "rule": "first_ok",
        "reason": {"code": "ok", "sqlstate": "", "detail": "", "advice": "", "revision": 3},
        "unreachable_from": [],
        "observation": seen | changes.pop("seen", {}),  # type: ignore[operator]
        "owner": "w4",
        "links": {},
    }
    return base | changes  # type: ignore[return-value]


def test_a_row_for_people():
    row = list(rows.observation_row(answer(), NOW))
    assert row == ["orders-eu", "✔ available", "4m12s", "3s", "ok", "w4", "88", "44.2 GB", "99.1%"]


def test_a_pooler_between_is_told():
    told = dict(rows.info_lines(answer(seen={"pooled": True})))
    assert told["pooled"].startswith("a pooler is between")
    assert "pooled" not in dict(rows.info_lines(answer()))


def test_a_stale_row_says_so_beside_its_state():
    row = rows.observation_row(answer(seen={"stale": True, "age_seconds": 90.0}), NOW)
    assert row[3] == "1m30s ◌ stale"
    assert rows.plain_row(answer(seen={"stale": True}))[-1] == "yes"


def test_a_database_never_observed():
    new = answer(
        observation=None, state="new", state_since=None, transition=None, reason=None, owner=""
    )
    assert rows.observation_row(new, NOW) == (
        "orders-eu", "· new", "-", "never", "-", "-", "-", "-", "-",
    )  # fmt: skip
    assert rows.plain_row(new) == ("orders-eu", "new", *[""] * 8)
    assert dict(rows.info_lines(new)) == {
        "why": "never observed",
        "address": "postgresql://u:***@h:5432/d",
        "owner": "nobody",
        "labels": "env=prod",
    }


def test_a_row_for_pipes_is_bare_and_as_wide_as_its_header():
    row = rows.plain_row(answer())
    assert row == (
        "orders-eu", "available", "2026-11-21T01:39:12.000Z", "3.9", "ok", "w4",
        "88", "44238471168", "99.12", "no",
    )  # fmt: skip
    assert len(row) == len(rows.PLAIN_COLUMNS)


def test_a_server_that_refuses_logins_reads_as_one_that_is_up_and_machines_read_the_state():
    refusing = answer(state="refusing")
    assert rows.observation_row(refusing, NOW)[1] == "⊖ refusing logins (server is up)"
    assert rows.info_head(refusing, NOW)[1] == "⊖ refusing logins (server is up)"
    assert rows.plain_row(refusing)[1] == "refusing"
    changed = {
        "at": "2026-11-21T01:39:12.000Z",
        "from": "available",
        "to": "refusing",
        "rule": "answered",
        "worker": "w4",
        "evidence": [{"cause": "role_full", "worker": "w4", "rounds": 2}],
        "identity": "3.1.2",
        "superseded": False,
    }
    assert rows.transition_row(changed)[1:3] == (
        "✔ available",
        "⊖ refusing logins (server is up)",
    )
    assert rows.plain_transition_row(changed)[1:6] == (
        "available",
        "refusing",
        "answered",
        "w4",
        "role_full w4 x2",
    )


def test_info_shows_each_family_with_its_own_age_and_failure():
    assert rows.info_head(answer(), NOW) == (
        "orders-eu", "✔ available", "for 4m12s, since 2026-11-21T01:39:12.000Z",
    )  # fmt: skip
    assert dict(rows.info_lines(answer(unreachable_from=["w2"]))) == {
        "why": "ok (rule first_ok, transition 3.1.2)",
        "address": "postgresql://u:***@h:5432/d",
        "owner": "w4",
        "labels": "env=prod",
        "unreachable_from": "w2 cannot reach it, its owner can",
        "observed": "3s ago by w4 in 38 ms, every 5 s",
        "connections": "connections 88  (3s ago)",
        "size": "db_size 44.2 GB  (6m40s ago)  ◌ stale",
        "tables": "denied 42501  (3s ago)  GRANT pg_monitor TO u;",
    }


def test_the_cause_stays_visible_in_info_and_in_the_wide_table():
    reason = {
        "code": "wrong_password",
        "sqlstate": "28P01",
        "detail": "no\x1b[2J",
        "advice": "Do this.",
        "revision": 3,
    }
    told = dict(rows.info_lines(answer(reason=reason)))
    assert (told["said"], told["next"]) == ("28P01 no�[2J", "Do this.")
    row = dict(zip(rows.WIDE_COLUMNS, rows.wide_row(answer(reason=reason), NOW), strict=True))
    assert (row["WHY"], row["SQLSTATE"], row["DETAIL"], row["NEXT"]) == (
        "wrong_password", "28P01", "no�[2J", "Do this.",
    )  # fmt: skip
    assert row["ADDRESS"] == "postgresql://u:***@h:5432/d"
    assert rows.wide_row(answer(reason=None), NOW)[-3:] == ("-", "-", "-")


@pytest.mark.parametrize("state", ["uncertain", "new", "unavailable"])
def test_info_never_says_that_the_owner_reaches_what_it_does_not(state):
    said = dict(rows.info_lines(answer(unreachable_from=["w2"], state=state)))["unreachable_from"]
    assert said == "w2 could not reach it lately"


@given(st.text())
def test_nothing_that_moves_a_cursor_gets_through(text):
    nasty = answer(
        owner=text, reason={"code": text}, database={"name": text, "labels": {text: text}}
    )
    assert all(
        cell.isprintable() for cell in rows.observation_row(nasty, NOW) + rows.plain_row(nasty)
    )
    assert all(cell.isprintable() for cell in rows.wide_row(nasty, NOW))
    assert all(text.isprintable() for line in rows.info_lines(nasty) for text in line)
