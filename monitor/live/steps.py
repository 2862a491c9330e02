"""The protocol's Lua steps: read from scripts/ once, run by EVALSHA. Only live/ imports this.

Each script says in its head what its KEYS and ARGV are and when it refuses; refusals are answers,
never errors.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha1
from pathlib import Path
from typing import Any

from hiredis import pack_command
from redis.asyncio import Redis
from redis.exceptions import NoScriptError, ResponseError

from monitor.live.connections import wrap_store_errors

_FOLDER = Path(__file__).parent / "scripts"

Words = Sequence[str | int]
Call = tuple[Sequence[str], Words]  # KEYS, ARGV


@dataclass(frozen=True, slots=True)
class Step:
    """One Lua script and the name Redis keeps it under."""

    text: str
    sha: str


def step(name: str) -> Step:
    """Read a script, with what all scripts share in front of it."""
    text = (_FOLDER / "prelude.lua").read_text() + (_FOLDER / f"{name}.lua").read_text()
    return Step(text, sha1(text.encode(), usedforsecurity=False).hexdigest())


async def run(client: Redis, script: Step, calls: Sequence[Call]) -> list[Any]:
    """Run a step once for each call, in one round trip; a server that forgot the script is taught
    it again.
    """
    with wrap_store_errors():
        replies = await _send(client, script, calls)
        untaught = [i for i, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        if untaught:
            await client.script_load(script.text)
            again = await _send(client, script, [calls[i] for i in untaught])
            for i, reply in zip(untaught, again, strict=True):
                replies[i] = reply
        for reply in replies:
            if isinstance(reply, Exception):
                raise reply
    return replies


async def _send(client: Redis, script: Step, calls: Sequence[Call]) -> list[Any]:
    """Send all calls at once and read a reply for each: a pipeline whose words hiredis packs, at
    1/8 of the cost.
    """
    commands: list[Any] = [
        ("EVALSHA", script.sha, len(keys), *keys, *words) for keys, words in calls
    ]
    pool: Any = client.connection_pool
    connection = await pool.get_connection()
    try:
        await connection.send_packed_command([pack_command(command) for command in commands])
        return [await _reply(connection) for _ in calls]
    finally:
        await pool.release(connection)


async def _reply(connection: Any) -> Any:
    try:
        return (
            await connection.read_response()
        )  # whatever else it raises, cancellation included, it hangs up first
    except ResponseError as exc:
        return exc


def chunks(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Cut a sequence into lists of at most `size`."""
    chunk = []
    for item in items:
        chunk.append(item)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
