"""What libpq is told: everything, so that neither the environment nor a file of ours has a say."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg import pq

from monitor.core.cause import Cause
from monitor.core.database import Address
from monitor.feeler.causes import Failed
from monitor.feeler.conninfo import _KNOWN as KNOWN
from monitor.feeler.conninfo import conninfo
from monitor.feeler.login import strip_pg_environment

ADDRESS = Address("db.example.com", 6543, "app", "reader", "s3 cr'et\\")


def options(address: Address, ca_dir: Path | None = None) -> dict[str, str]:
    parsed = pq.Conninfo.parse(conninfo(address, "192.0.2.1", "w-000001", ca_dir))
    return {
        option.keyword.decode(): option.val.decode() for option in parsed if option.val is not None
    }


def test_the_address_arrives_as_it_is() -> None:
    told = options(ADDRESS)
    assert (told["host"], told["hostaddr"], told["port"]) == ("db.example.com", "192.0.2.1", "6543")
    assert (told["dbname"], told["user"], told["password"]) == ("app", "reader", "s3 cr'et\\")
    assert told["application_name"] == "feeler/w-000001"


def test_every_keyword_the_environment_could_set_is_told() -> None:
    told = options(ADDRESS)
    left = {
        option.keyword.decode() for option in pq.Conninfo.get_defaults() if option.envvar
    } - told.keys()
    assert left <= {
        "service",
        "servicefile",
    }  # named at all they make libpq read a file: the environment is stripped
    assert told["options"] == ""
    assert told["gssencmode"] == "disable"


def test_no_file_of_the_home_folder_is_read() -> None:
    told = options(ADDRESS)
    for keyword in ("passfile", "sslcert", "sslkey", "sslrootcert", "sslcrl", "sslcrldir"):
        assert told[keyword]
        assert not Path(told[keyword]).exists()


texts = st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), min_size=1)


@given(texts, texts, texts)
def test_no_value_becomes_another_keyword(dbname: str, user: str, password: str) -> None:
    told = options(replace(ADDRESS, dbname=dbname, user=user, password=password))
    assert (told["dbname"], told["user"], told["password"]) == (dbname, user, password)
    assert told["host"] == "db.example.com"


def test_a_named_ca_is_a_file_of_the_ca_folder(tmp_path: Path) -> None:
    (tmp_path / "ours.pem").touch()
    told = options(replace(ADDRESS, sslmode="verify-ca", sslrootcert="ours.pem"), tmp_path)
    assert (told["sslmode"], told["sslrootcert"]) == ("verify-ca", str(tmp_path / "ours.pem"))


@pytest.mark.parametrize(
    ("sslmode", "sslrootcert"), [("verify-ca", ""), ("verify-full", ""), ("prefer", "system")]
)
def test_the_systems_roots_are_only_used_with_the_name_verified(
    sslmode: str, sslrootcert: str
) -> None:
    told = options(replace(ADDRESS, sslmode=sslmode, sslrootcert=sslrootcert))
    assert told["sslmode"] == "verify-full"
    assert Path(told["sslrootcert"]).is_file()


@pytest.mark.parametrize("name", ["absent.pem", "../secret", "/etc/passwd", "folder"])
def test_a_missing_ca_is_our_fault(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(Failed) as failed:
        options(replace(ADDRESS, sslmode="verify-full", sslrootcert=name), tmp_path)
    assert failed.value.cause is Cause.MISSING_FILE


def test_the_environment_loses_what_libpq_would_read() -> None:
    environ = {
        "PGSERVICE": "x",
        "PGPASSFILE": "/x",
        "PGHOST": "x",
        "PATH": "/bin",
        "FEELER_PG": "kept",
    }
    strip_pg_environment(environ)
    assert environ == {"PATH": "/bin", "FEELER_PG": "kept"}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, "!gss,!sspi,!password"),
        ({"sslmode": "require"}, "!gss,!sspi,!password"),
        ({"sslmode": "prefer", "sslrootcert": "ours.pem"}, "!gss,!sspi,!password"),
        ({"sslmode": "require", "sslrootcert": "ours.pem"}, "!gss,!sspi"),
        ({"sslmode": "verify-full"}, "!gss,!sspi"),
        ({"allow_cleartext": True}, "!gss,!sspi"),
        ({"require_auth": "scram-sha-256"}, "scram-sha-256"),
    ],
)
def test_a_password_goes_in_clear_only_to_whom_tls_proves_or_its_owner_lets(
    changes: dict[str, str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ours.pem").touch()
    address = replace(ADDRESS, **changes)
    assert options(address, tmp_path)["require_auth"] == told
    monkeypatch.setattr("monitor.feeler.conninfo._KNOWN", KNOWN - {"require_auth"})
    known = options(address, tmp_path).get("password")
    assert known == (ADDRESS.password if told == "!gss,!sspi" else ""), (
        "an older libpq tells it to any server"
    )
