"""A newer feeler beside this one: what it writes and nobody here reads stops nothing."""

import json
import time

import pytest

from monitor.live.keys import (
    REQUESTS,
    WORKERS,
    database_key,
    partition,
    partition_key,
    presence_key,
    target_key,
)
from tests.faults import injecting
from tests.faults.asserting import durable, terms
from tests.faults.conftest import Row
from tests.faults.history import lateness
from tests.faults.lab import Lab
from tests.faults.observed import History
from tests.waiting import eventually

BLINDED = '{"type": "blinded", "database": "orders", "by": ["w9"]}'
TYPES = [BLINDED, "[]", '{"type": "transition"}', "\x00"]


@pytest.mark.row(
    "a newer version's states, causes, fields, presences, requests and events in Redis; then the "
    "leader is killed, and a server",
    "a standby leads within 12 s; the outage is called within 12 s; the others observed at most 1 "
    "s late all along; every event that nobody can read is kept as a dead letter",
)
async def test_written_by_a_newer_version(row: Row) -> None:
    lab, mortal = row.make_lab(supervisors=2), row.start_postgres()
    names = lab.monitor_many(6, row.start_postgres())
    lab.monitor("doomed", mortal)
    await lab.all_in([*names, "doomed"], "available", within=30)
    began = time.time()
    write_the_future(lab, names[0])
    injecting.killed(lab, lab.leader())
    killed = time.time()
    await eventually(lambda: len(terms(lab)) == 2, within=30)
    row.figure("takeover after", time.time() - killed, most=12)
    killed = time.time()
    with injecting.target_killed(lab, mortal):
        await lab.all_in(["doomed"], "unavailable", within=30)
        row.figure("unavailable after", time.time() - killed, most=12)
    await lab.all_in(["doomed"], "available", within=20)
    await eventually(lambda: buried(lab) >= set(TYPES), within=20)
    seen = History(lab.began, time.time(), sights=lab.eye.sights)
    late = lateness(seen, names, (began, seen.ended))
    row.figure("others late by", max(late), most=1)
    for name in names:
        await durable(lab, name, "first_ok")  # what the dead historian had taken comes late


def write_the_future(lab: Lab, name: str) -> None:
    """Write what a version to come may write, where a process of this one reads it."""
    here = json.loads(lab.redis.get(presence_key(lab.id_of(lab.workers()[0]))))
    lab.redis.hset(
        database_key(name), mapping={"cause": "quantum", "weather": "7", "family:tides": "ok 1.0"}
    )
    lab.redis.hset(target_key(name), "colour", "blue")
    lab.redis.hset(
        database_key("atlantis"), mapping={"state": "blind", "owner": "w9", "epoch": "99.1"}
    )
    lab.redis.sadd(partition_key(partition("atlantis"), "names"), "atlantis")
    here |= {"worker": "w9", "capacity": "many", "mood": "calm"}
    lab.redis.set(presence_key("w9"), json.dumps(here), px=7000)
    lab.redis.zadd(WORKERS, {"w9": time.time()})
    lab.redis.xadd(REQUESTS, {"kind": "dance", "database": name})
    for text in TYPES:
        lab.redis.xadd(partition_key(partition(name), "journal"), {"event": text})


def buried(lab: Lab) -> set[str]:
    """Return the texts of all dead letters."""
    keys = lab.redis.keys("feeler:*:dead")
    return {row["event"] for key in keys for _, row in lab.redis.xrange(key)}
