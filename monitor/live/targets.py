"""Sealed addresses, policies and labels, so that watching outlives the registry.

The leader writes, workers read.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from monitor.core.foreign import fitting
from monitor.core.policy import Policy, stored
from monitor.live import quarantine, steps
from monitor.live.connections import Live, wrap_store_errors
from monitor.live.keys import database_key, index_key, partition, partition_keys, target_key
from monitor.live.quarantine import Rows

_PUBLISH = steps.step("publish")
_FIELDS = ("ciphertext", "policy", "labels", "revision")


@dataclass(frozen=True, slots=True)
class Target:
    """How to reach and feel a database; `revision` rises with every change, unless the registry is
    set back.
    """

    ciphertext: str
    policy: Policy
    labels: Mapping[str, str]
    revision: int


async def publish(live: Live, name: str, target: Target, term: int, registry: str) -> bool:
    """Store a target and tell its owner's index.

    False when a higher term or revision stands already, or Redis is another registry's.
    """
    number = partition(name)
    keys = (
        target_key(name),
        database_key(name),
        index_key(number, ""),
        *partition_keys(number, "term", "registry"),
    )
    policy = json.dumps(asdict(target.policy))
    labels = json.dumps(dict(target.labels))
    args: list[str | int] = [name, target.revision, term, registry]
    args += ("ciphertext", target.ciphertext)
    args += ("policy", policy)
    args += ("labels", labels)
    call = (keys, args)
    [published] = await steps.run(live.cache, _PUBLISH, [call])
    return bool(published)


async def target(live: Live, name: str) -> Target | None:
    """Return a database's target, if it has one."""
    found = await targets(live, [name])
    return found.get(name)


async def targets(live: Live, names: Sequence[str]) -> Rows[Target]:
    """Return the targets of these databases; absent and unreadable ones are left out."""
    pipe = live.cache.pipeline(transaction=False)
    for name in names:
        pipe.hmget(target_key(name), *_FIELDS)
    with wrap_store_errors():
        replies = await pipe.execute()
    rows = []
    for name, row in zip(names, replies, strict=True):
        *_, revision = row
        if revision is not None:
            rows.append((name, row))
    return await quarantine.decode(live, "target", rows, _target)


def _target(name: str, row: Sequence[str]) -> Target:
    ciphertext, policy, labels, revision = row
    return Target(
        ciphertext=ciphertext,
        policy=decode_policy(policy),
        labels=decode_labels(labels),
        revision=int(revision),
    )


def decode_labels(text: str) -> Mapping[str, str]:
    """Read labels as `publish` wrote them."""
    labels: dict[str, str] = {}
    for key, value in json.loads(text).items():
        labels[str(key)] = str(value)
    return labels


def decode_policy(text: str) -> Policy:
    """Read a policy as `publish` of this or a newer version wrote it."""
    fields = fitting(Policy, json.loads(text))
    policy, _ = stored(fields)
    return policy
