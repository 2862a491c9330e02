"""Sealed addresses, policies and labels, so that watching outlives the registry. The leader writes, workers read."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields

from monitor.core.policy import Policy
from monitor.live import steps
from monitor.live.connections import Live, unavailable
from monitor.live.keys import database_key, index_key, partition, partition_key, target_key

_PUBLISH = steps.step("publish")
_POLICY = {field.name for field in fields(Policy)}
_FIELDS = ("ciphertext", "policy", "labels", "revision")


@dataclass(frozen=True, slots=True)
class Target:
    """How to reach and feel a database; `revision` rises with every change, unless the registry is set back."""

    ciphertext: str
    policy: Policy
    labels: Mapping[str, str]
    revision: int


async def publish(live: Live, name: str, target: Target, term: int) -> bool:
    """Store a target and tell its owner's index; False when a higher term or revision stands already."""
    number = partition(name)
    keys = (target_key(name), database_key(name), index_key(number, ""), partition_key(number, "term"))
    policy, labels = json.dumps(asdict(target.policy)), json.dumps(dict(target.labels))
    words = (name, target.revision, term, "ciphertext", target.ciphertext, "policy", policy, "labels", labels)
    [published] = await steps.run(live.cache, _PUBLISH, [(keys, words)])
    return bool(published)


async def target(live: Live, name: str) -> Target | None:
    """Return a database's target, if it has one."""
    return (await targets(live, [name])).get(name)


async def targets(live: Live, names: Sequence[str]) -> dict[str, Target]:
    """Return the targets of these databases; those without are left out."""
    pipe = live.cache.pipeline(transaction=False)
    for name in names:
        pipe.hmget(target_key(name), *_FIELDS)
    with unavailable():
        replies = await pipe.execute()
    return {
        name: Target(ciphertext, decode_policy(policy), json.loads(labels), int(revision))
        for name, (ciphertext, policy, labels, revision) in zip(names, replies, strict=True)
        if revision is not None
    }


def decode_policy(text: str) -> Policy:
    """Read a policy as `publish` of this or a newer version wrote it."""
    return Policy(**{key: value for key, value in json.loads(text).items() if key in _POLICY})
