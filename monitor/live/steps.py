"""The protocol's Lua steps: read from scripts/ once, run by EVALSHA. Only live/ imports this.

Each script says in its head what its KEYS and ARGV are and when it refuses; refusals are answers,
never errors. All keys of one call are of one partition.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha1
from pathlib import Path
from typing import Any

from hiredis import pack_command
from redis.asyncio import Redis
from redis.exceptions import NoScriptError, ResponseError

from monitor.live.connections import wrap_store_errors

_FOLDER = Path(__file__).parent / "scripts"

Args = Sequence[str | int]
Call = tuple[Sequence[str], Args]  # KEYS, ARGV


@dataclass(frozen=True, slots=True)
class Step:
    """One Lua script and the name Redis keeps it under."""

    text: str
    sha: str


def step(name: str) -> Step:
    """Read a script, with what all scripts share in front of it."""
    shared = (_FOLDER / "prelude.lua").read_text()
    text = shared + (_FOLDER / f"{name}.lua").read_text()
    return Step(text, sha1(text.encode(), usedforsecurity=False).hexdigest())


async def run(client: Redis, script: Step, calls: Sequence[Call]) -> list[Any]:
    """Run a step once for each call, in one round trip, and return the answers.

    A server that forgot the script is taught it again. An error of one call raises only after all
    calls have run.
    """
    with wrap_store_errors():
        replies = await _send(client, script, calls)
        untaught: list[int] = []
        for i, reply in enumerate(replies):
            if isinstance(reply, NoScriptError):
                untaught.append(i)
        if untaught:
            await client.script_load(script.text)
            repeated = [calls[i] for i in untaught]
            again = await _send(client, script, repeated)
            for i, reply in zip(untaught, again, strict=True):
                replies[i] = reply
        for reply in replies:
            if isinstance(reply, Exception):
                raise reply
    return replies


async def _send(client: Redis, script: Step, calls: Sequence[Call]) -> list[Any]:
    """Send all calls at once, read a reply for each.

    Cost: hiredis packs the arguments at 1/8 of what redis-py's own pipeline takes.
    """
    commands: list[Any] = []
    for keys, args in calls:
        commands.append(("EVALSHA", script.sha, len(keys), *keys, *args))
    pool: Any = client.connection_pool
    connection = await pool.get_connection()
    try:
        packed = [pack_command(command) for command in commands]
        await connection.send_packed_command(packed)
        return [await _reply(connection) for _ in calls]
    finally:
        await pool.release(connection)


async def _reply(connection: Any) -> Any:
    try:
        # Whatever else it raises, cancellation included, it hangs up first: no reply of ours is
        # left on the connection for the next one to read.
        return await connection.read_response()
    except ResponseError as exc:
        return exc
