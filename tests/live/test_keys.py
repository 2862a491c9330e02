from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from monitor.live import keys


@given(st.from_regex(r"[a-z0-9][a-z0-9_-]{0,62}", fullmatch=True))
def test_all_keys_of_a_database_share_one_hash_tag(name: str) -> None:
    number = keys.partition(name)
    assert 0 <= number < keys.PARTITIONS
    found = {
        keys.database_key(name),
        keys.target_key(name),
        keys.index_key(number, "alpha-111111"),
        keys.partition_key(number, "journal"),
    }
    assert {key[key.index("{") + 1 : key.index("}")] for key in found} == {f"p{number:02}"}
    assert all(key.startswith("feeler:{p") for key in found)


def test_partitions_are_for_ever() -> None:
    """Another function would lose every key there is."""
    assert keys.database_key("orders") == "feeler:{p14}:db:orders"
    assert keys.target_key("db1") == "feeler:{p01}:target:db1"


def test_every_key_stands_in_the_table_and_no_script_makes_keys_of_its_own() -> None:
    table = keys.__doc__ or ""
    for kind in (
        "db:D",
        "target:D",
        "index:W",
        "names",
        "generation",
        "term",
        "registry",
        "rest",
        "reports",
        "journal",
        "dead",
        "durable",
        "counters",
    ):
        assert f"feeler:{{pNN}}:{kind}" in table
    for key in (
        keys.presence_key("W"),
        keys.claim_key("W"),
        keys.bus_key("L"),
        keys.WORKERS,
        keys.REQUESTS,
        keys.PROBE,
        keys.LED,
    ):
        assert key in table
    for script in Path(keys.__file__).with_name("scripts").glob("*.lua"):
        assert "feeler:" not in script.read_text(), script.name
