from collections import Counter
from pathlib import Path
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.crc import key_slot

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
    assert {key[key.index("{") + 1 : key.index("}")] for key in found} == {keys.TAGS[number]}


def test_partitions_are_for_ever() -> None:
    """Another function would lose every key there is."""
    assert keys.database_key("orders") == "feeler:{14ho}:db:orders"
    assert keys.target_key("db1") == "feeler:{17te}:target:db1"
    assert crc32(" ".join(keys.TAGS).encode()) == 0x754DEFBD


def test_partitions_lie_evenly_in_the_hash_slots_of_a_cluster() -> None:
    assert len(set(keys.TAGS)) == keys.PARTITIONS == 32
    for number in range(keys.PARTITIONS):
        wanted = number * 512 + 256
        assert abs(key_slot(keys.partition_key(number, "journal").encode()) - wanted) <= 25


@pytest.mark.parametrize("shards", range(1, 33))
def test_no_shard_of_a_cluster_gets_more_partitions_than_it_must(shards: int) -> None:
    """Shards as `redis-cli --cluster create` cuts them: equal ranges of slots."""
    slots = [key_slot(tag.encode()) for tag in keys.TAGS]
    shares = Counter(slot * shards // 16384 for slot in slots)
    fewest, most = min(shares.get(n, 0) for n in range(shards)), max(shares.values())
    assert (fewest, most) == (keys.PARTITIONS // shards, -(-keys.PARTITIONS // shards))
    if shards == 12:
        assert most <= 1.13 * keys.PARTITIONS / shards


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
        "complete",
        "reports",
        "journal",
        "dead",
        "durable",
        "counters",
    ):
        assert f"feeler:{{tag}}:{kind}" in table
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
