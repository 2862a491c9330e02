"""A Postgres that holds nothing: it lets us in and answers feeler's questions with made-up values.

Benches measure against it. `python -m monitor.local.fake_server` prints the port it took and serves
until its standard input ends. Nothing of the product imports this.
"""

import argparse
import asyncio
import base64
import hashlib
import hmac
import re
import secrets
import socket
import struct
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import cast

import uvloop

SSL_REQUEST, GSSENC_REQUEST, CANCEL_REQUEST = 80877103, 80877104, 80877102
AUTH_OK, AUTH_SASL, AUTH_SASL_CONTINUE, AUTH_SASL_FINAL = 0, 10, 11, 12
TEXT = 25  # the type of every column: libpq's texts are all anybody reads
ITERATIONS = 4096
BACKEND_PID = 4711
BACKLOG = 4096
FRESH = 1.0  # seconds that an answer is given again before its values have changed
REMEMBERED = 10_000  # questions whose answers are kept

_COLUMN = re.compile(rb"\bAS (\w+)\s*(?=,|FROM\b|$)")
_SETTINGS = {
    "server_version": "16.4",
    "client_encoding": "UTF8",
    "server_encoding": "UTF8",
    "DateStyle": "ISO, MDY",
    "integer_datetimes": "on",
    "standard_conforming_strings": "on",
    "TimeZone": "UTC",
}
_STILL = {  # by column; what rises is reckoned from the clock
    b"pooled": b"f",
    b"connections": b"12",
    b"connections_max": b"97",
    b"visible": b"t",
    b"longest_transaction": b"0.5",
    b"longest_idle_in_transaction": b"0",
    b"blocked_sessions": b"0",
    b"server_version_num": b"160004",
    b"role": b"primary",
    b"xid_age": b"7000123",
    b"reset_at": b"0",
    b"db_size": b"98765432",
    b"table_count": b"50",
    b"row_count": b"1234567",
}
_PER_SECOND = {  # by column: how many more each second
    b"transactions": 120,
    b"hits": 9000,
    b"reads": 30,
    b"seq_scans": 2,
    b"index_scans": 700,
}


class Refused(Exception):
    """This client is not let in, or says what no client says."""


# --- messages -------------------------------------------------------------------------------------


def message(kind: bytes, payload: bytes = b"") -> bytes:
    """Return one message of the protocol."""
    return kind + struct.pack("!i", len(payload) + 4) + payload


def authentication(code: int, payload: bytes = b"") -> bytes:
    return message(b"R", struct.pack("!i", code) + payload)


def fatal(code: str, text: str) -> bytes:
    """Return the error that ends a connection."""
    return message(b"E", f"SFATAL\0VFATAL\0C{code}\0M{text}\0\0".encode())


def welcome() -> bytes:
    """Return what follows a login that worked."""
    parts = [authentication(AUTH_OK)]
    for name, value in _SETTINGS.items():
        parts.append(message(b"S", f"{name}\0{value}\0".encode()))
    parts.append(message(b"K", struct.pack("!ii", BACKEND_PID, 1)))
    parts.append(message(b"Z", b"I"))
    return b"".join(parts)


def columns(sql: bytes) -> list[bytes]:
    """Return the names of the columns a statement of feeler's asks for."""
    if sql.startswith(b"SELECT pooled"):
        return [b"pooled"]
    return _COLUMN.findall(sql)


def description(sql: bytes) -> bytes:
    """Return the message that describes a statement's row."""
    names = columns(sql)
    parts = [struct.pack("!h", len(names))]
    for name in names:
        parts.append(name + b"\0" + struct.pack("!ihihih", 0, 0, TEXT, -1, -1, 0))
    return message(b"T", b"".join(parts))


def row(sql: bytes, now: float) -> bytes:
    """Return the row that answers a statement at this moment, and its end."""
    names = columns(sql)
    parts = [struct.pack("!h", len(names))]
    for name in names:
        value = _value(name, now)
        if value is None:
            parts.append(struct.pack("!i", -1))
        else:
            parts.append(struct.pack("!i", len(value)) + value)
    return message(b"D", b"".join(parts)) + message(b"C", b"SELECT 1\0")


def _value(column: bytes, now: float) -> bytes | None:
    rises = _PER_SECOND.get(column)
    if rises is None:
        return _STILL.get(column)
    return str(int(now) * rises).encode()


# --- logins ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Verifier:
    """What a server keeps of a password (RFC 5802, SHA-256)."""

    salt: bytes
    stored_key: bytes
    server_key: bytes

    @classmethod
    def of(cls, password: str) -> "Verifier":
        """Derive the keys; takes some milliseconds."""
        salt = secrets.token_bytes(16)
        salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, ITERATIONS)
        client_key = hmac.digest(salted, b"Client Key", "sha256")
        stored_key = hashlib.sha256(client_key).digest()
        return cls(salt, stored_key, hmac.digest(salted, b"Server Key", "sha256"))


class Exchange:
    """One login by SCRAM."""

    def __init__(self, verifier: Verifier) -> None:
        self._verifier = verifier
        self._client_first, self._server_first = b"", b""

    def challenge(self, payload: bytes) -> bytes:
        """Answer the client's first message with salt and iterations."""
        _mechanism, rest = payload.split(b"\0", 1)
        self._client_first = rest[4:].split(b",", 2)[2]
        nonce = _attributes(self._client_first)[b"r"] + base64.b64encode(secrets.token_bytes(18))
        salt = base64.b64encode(self._verifier.salt)
        self._server_first = b"r=%s,s=%s,i=%d" % (nonce, salt, ITERATIONS)
        return authentication(AUTH_SASL_CONTINUE, self._server_first)

    def verify(self, payload: bytes) -> bytes:
        """Answer a client's proof with ours; raise Refused where it is none."""
        without_proof, proof = payload.rsplit(b",p=", 1)
        said = b",".join((self._client_first, self._server_first, without_proof))
        signature = hmac.digest(self._verifier.stored_key, said, "sha256")
        pairs = zip(signature, base64.b64decode(proof), strict=True)
        client_key = bytes(one ^ other for one, other in pairs)
        if hashlib.sha256(client_key).digest() != self._verifier.stored_key:
            raise Refused("28P01", "password authentication failed")
        ours = base64.b64encode(hmac.digest(self._verifier.server_key, said, "sha256"))
        return authentication(AUTH_SASL_FINAL, b"v=" + ours) + welcome()


def _attributes(text: bytes) -> dict[bytes, bytes]:
    return dict(part.split(b"=", 1) for part in text.split(b","))


# --- conversations --------------------------------------------------------------------------------


@dataclass(slots=True)
class Server:
    """What all conversations share; `delay` is in seconds before each answer to a question."""

    verifier: Verifier | None = None
    delay: float = 0.0
    clock: Callable[[], float] = time.time
    statements: dict[bytes, bytes] = field(default_factory=dict)  # the SQL by name, seen first
    # By the bytes of a question: all clients ask the same ones.
    answers: dict[bytes, bytes] = field(default_factory=dict)
    changed_at: float = 0.0

    def remembered(self, question: bytes) -> bytes | None:
        """Return the answer that these bytes had lately."""
        now = self.clock()
        if now - self.changed_at >= FRESH:
            self.answers.clear()
            self.changed_at = now
        return self.answers.get(question)

    def remember(self, question: bytes, answer: bytes) -> None:
        """Give the same answer to the same bytes for a while."""
        if len(self.answers) < REMEMBERED:
            self.answers[question] = answer


class Conversation(asyncio.Protocol):
    """One client's connection."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._exchange: Exchange | None = None
        self._started = False  # its start-up message has come
        self._entered = False  # it is logged in
        self._own_statements: dict[bytes, bytes] = {}
        self._bound = b""  # the SQL of the portal
        self._shares = True  # its names stand for what they stand for everywhere

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        sock = transport.get_extra_info("socket")
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        if self._entered and self._shares and not self._buffer:
            answer = self._server.remembered(data)
            if answer is not None:
                self._send(answer)
                return
        self._buffer += data
        try:
            self._take_messages(data)
        except Refused as refused:
            self._end(fatal(*refused.args))
        except (ValueError, KeyError, IndexError, struct.error):
            self._end(fatal("08P01", "no message that is known here"))

    def _take_messages(self, data: bytes) -> None:
        """Answer every whole message; a whole question is answered from memory the next time."""
        whole = data == self._buffer and self._entered
        answers: list[bytes] = []
        kinds = b""
        while found := self._next_message():
            kind, payload = found
            kinds += kind
            answers.append(self._answer(kind, payload))
        answer = b"".join(answers)
        is_question = whole and not self._buffer and not kinds.strip(b"BDES")
        if is_question and self._shares:
            self._server.remember(data, answer)
        if answer:
            self._send(answer)

    def _next_message(self) -> tuple[bytes, bytes] | None:
        """Take one message off the buffer: its kind ('' before the login) and its payload."""
        kind = 1 if self._started else 0
        if len(self._buffer) < kind + 4:
            return None
        (length,) = struct.unpack_from("!i", self._buffer, kind)
        end = kind + length
        if len(self._buffer) < end:
            return None
        taken, self._buffer = self._buffer[:end], self._buffer[end:]
        return taken[:kind], taken[kind + 4 :]

    def _answer(self, kind: bytes, payload: bytes) -> bytes:
        if not self._started:
            return self._start(payload)
        if not self._entered:
            return self._log_in(payload)
        return _ANSWERS[kind](self, payload)

    def _start(self, payload: bytes) -> bytes:
        (code,) = struct.unpack_from("!i", payload)
        if code in (SSL_REQUEST, GSSENC_REQUEST):
            return b"N"
        if code == CANCEL_REQUEST:
            raise Refused("08P01", "nothing runs for so long")
        self._started = True
        if self._server.verifier is None:
            self._entered = True
            return welcome()
        self._exchange = Exchange(self._server.verifier)
        return authentication(AUTH_SASL, b"SCRAM-SHA-256\0\0")

    def _log_in(self, payload: bytes) -> bytes:
        assert self._exchange
        if payload.startswith(b"SCRAM-SHA-256\0"):
            return self._exchange.challenge(payload)
        self._entered = True
        return self._exchange.verify(payload)

    def _parse(self, payload: bytes) -> bytes:
        name, sql = payload.split(b"\0")[:2]
        self._own_statements[name] = sql
        if name and self._server.statements.setdefault(name, sql) != sql:
            self._shares = False
        return message(b"1")

    def _bind(self, payload: bytes) -> bytes:
        name = payload.split(b"\0")[1]
        self._bound = self._own_statements[name]
        return message(b"2")

    def _describe(self, payload: bytes) -> bytes:
        if payload[:1] == b"S":
            sql = self._own_statements[payload[1:-1]]
            return message(b"t", struct.pack("!h", 0)) + description(sql)
        return description(self._bound)

    def _execute(self, _: bytes) -> bytes:
        return row(self._bound, self._server.clock())

    def _query(self, payload: bytes) -> bytes:
        answers = []
        for sql in payload.rstrip(b"\0").split(b"; "):
            answers.append(description(sql) + row(sql, self._server.clock()))
        return b"".join(answers) + self._sync(b"")

    def _sync(self, _: bytes) -> bytes:
        return message(b"Z", b"I")

    def _close(self, _: bytes) -> bytes:
        return message(b"3")

    def _flush(self, _: bytes) -> bytes:
        return b""

    def _leave(self, _: bytes) -> bytes:
        self._end(b"")
        return b""

    def _send(self, answer: bytes) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if self._server.delay and self._entered:
            asyncio.get_running_loop().call_later(self._server.delay, transport.write, answer)
        else:
            transport.write(answer)

    def _end(self, answer: bytes) -> None:
        if self._transport and not self._transport.is_closing():
            self._transport.write(answer)
            self._transport.close()


_ANSWERS: Mapping[bytes, Callable[[Conversation, bytes], bytes]] = {
    b"P": Conversation._parse,
    b"B": Conversation._bind,
    b"D": Conversation._describe,
    b"E": Conversation._execute,
    b"S": Conversation._sync,
    b"Q": Conversation._query,
    b"C": Conversation._close,
    b"H": Conversation._flush,
    b"X": Conversation._leave,
}


# --- the process ----------------------------------------------------------------------------------


async def serve(server: Server, hosts: list[str], port: int) -> asyncio.Server:
    """Listen at all these addresses on one port (0: any that is free at the first)."""
    loop = asyncio.get_running_loop()
    if not port:
        with socket.create_server((hosts[0], 0)) as free:
            port = free.getsockname()[1]
    return await loop.create_server(
        lambda: Conversation(server), hosts, port, backlog=BACKLOG, reuse_address=True
    )


async def _main(arguments: argparse.Namespace) -> None:
    verifier = Verifier.of(arguments.password) if arguments.password else None
    server = Server(verifier=verifier, delay=arguments.delay / 1000)
    hosts = [f"127.0.{1 + i // 250}.{1 + i % 250}" for i in range(arguments.addresses)]
    listening = await serve(server, hosts, arguments.port)
    sys.stdout.write(f"{listening.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


def main() -> None:
    """Serve until standard input ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--addresses", type=int, default=1, help="127.0.1.1 and on")
    parser.add_argument("--password", default="", help="log in by SCRAM; else nobody is asked")
    parser.add_argument("--delay", type=float, default=0.0, help="milliseconds before each answer")
    uvloop.run(_main(parser.parse_args()))


if __name__ == "__main__":
    main()
