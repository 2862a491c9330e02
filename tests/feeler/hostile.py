"""Servers that speak PostgreSQL's protocol badly: slowly, endlessly, dishonestly, or not at all.

Each listens on a loopback port and treats every connection in a thread of its own, so that no test
shares its loop.
"""

import base64
import contextlib
import json
import re
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

sys.path.insert(0, str(Path(__file__).parents[2]))

from monitor.core.database import Address
from monitor.local.machine import PORTS

AUTH_OK, CLEARTEXT = 0, 3
SSL_REQUEST, GSSENC_REQUEST = struct.pack("!ii", 8, 80877103), struct.pack("!ii", 8, 80877104)
AUTH_SASL, AUTH_SASL_CONTINUE = 10, 11
PID = 4711
GOOD: dict[str, bytes] = {  # what an honest server answers, by gauge or counter
    "connections": b"3",
    "connections_max": b"97",
    "visible": b"t",
    "longest_transaction": b"0.5",
    "longest_idle_in_transaction": b"0",
    "blocked_sessions": b"0",
    "server_version_num": b"150000",
    "role": b"primary",
    "xid_age": b"7",
    "transactions": b"100",
    "hits": b"90",
    "reads": b"10",
    "reset_at": b"0",
    "db_size": b"1",
    "table_count": b"1",
    "row_count": b"1",
    "seq_scans": b"1",
    "index_scans": b"1",
}


class Talk:
    """One connection of a client, from the server's side."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.reader = sock.makefile("rb")
        self.application_name = ""
        self.bound = b""  # the name of the statement that runs

    def send(self, kind: bytes, payload: bytes = b"") -> None:
        self.sock.sendall(message(kind, payload))

    def start_up(self) -> None:
        """Read the start-up message, refusing to encrypt."""
        while True:
            (length,) = struct.unpack("!i", self.reader.read(4))
            first = self.reader.read(length - 4)
            if len(first) > 4:
                break
            self.sock.sendall(b"N")
        words = first[4:].split(b"\0")
        self.application_name = (
            dict(zip(words[::2], words[1::2], strict=False)).get(b"application_name", b"").decode()
        )

    def encrypt(self, context: ssl.SSLContext) -> None:
        """Read the wish to encrypt, and do it."""
        while self.reader.read(8) != SSL_REQUEST:
            self.sock.sendall(b"N")  # to GSSENCRequest, a liveness check
        self.sock.sendall(b"S")
        self.sock = context.wrap_socket(self.sock, server_side=True)
        self.reader = self.sock.makefile("rb")

    def welcome(self, pid: int = PID) -> None:
        """Let the client in without a question."""
        self.send(b"R", struct.pack("!i", AUTH_OK))
        for name, value in (("server_version", "15.0"), ("client_encoding", "UTF8")):
            self.send(b"S", f"{name}\0{value}\0".encode())
        self.send(b"K", struct.pack("!ii", pid, 1))
        self.send(b"Z", b"I")

    def read(self) -> tuple[bytes, bytes]:
        """Return the next message of the client; raise ConnectionError at its end."""
        head = self.reader.read(5)
        if len(head) < 5:
            raise ConnectionError
        return head[:1], self.reader.read(struct.unpack("!i", head[1:])[0] - 4)

    def refuse(self, severity: str, code: str, text: str = "no") -> None:
        self.send(b"E", f"S{severity}\0V{severity}\0C{code}\0M{text}\0\0".encode())

    def serve(self, answer: "Callable[[Talk, str], None]") -> None:
        """Answer extended queries in order; `answer` sends the rows of one statement, or raises
        Refusal.
        """
        statements: dict[bytes, str] = {}
        current, broken = "", False
        while True:
            kind, payload = self.read()
            if kind == b"S":
                self.send(b"Z", b"I")
                broken = False
            elif broken or kind == b"X":
                continue
            elif kind == b"P":
                name, sql = payload.split(b"\0")[:2]
                statements[name] = sql.decode()
                self.send(b"1")
            elif kind == b"B":
                self.bound = payload.split(b"\0")[1]
                current = statements.get(self.bound, "")
                self.send(b"2")
            elif kind == b"E":
                broken = self._try(answer, current)
            elif kind == b"Q":
                self.bound = b""
                any(self._try(answer, sql) for sql in payload.decode().split(";"))
                self.send(b"Z", b"I")

    def _try(self, answer: "Callable[[Talk, str], None]", sql: str) -> bool:
        """Answer a statement; say whether it was refused."""
        try:
            answer(self, sql)
        except Refusal as refusal:
            self.refuse("ERROR", refusal.code)
            return True
        return False

    def row(self, values: dict[str, bytes | None], rows: int = 1) -> None:
        """Send a described row, some times over."""
        self.send(b"T", description(list(values)))
        for _ in range(rows):
            self.send(b"D", data(list(values.values())))
        self.send(b"C", b"SELECT 1\0")


class Refusal(Exception):
    """An ERROR instead of rows."""

    def __init__(self, code: str) -> None:
        self.code = code


class Hostile:
    """A listening socket whose every connection is given to `behave`."""

    def __init__(
        self, behave: Callable[[Talk], None], port: int = 0, host: str = "127.0.0.1"
    ) -> None:
        self.behave = behave
        self.accepted = 0
        self.talks: list[Talk] = []
        self._listener = socket.create_server((host, port))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def address(self, **changes: Any) -> Address:
        return address(self.port, **changes)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.accepted += 1
                self.talks.append(Talk(sock))
                threading.Thread(target=self._treat, args=(self.talks[-1],), daemon=True).start()

    def _treat(self, talk: Talk) -> None:
        with contextlib.suppress(OSError, ValueError, struct.error):
            self.behave(talk)
        with contextlib.suppress(OSError):
            talk.sock.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(OSError):
            talk.reader.close()
        talk.sock.close()

    def stop(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for talk in self.talks:
            with contextlib.suppress(OSError):
                talk.sock.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def address(port: int, **changes: Any) -> Address:
    fields = {
        "host": "127.0.0.1",
        "dbname": "db",
        "user": "u",
        "password": "secret-word",
        "sslmode": "disable",
    }
    return Address(port=port, **{**fields, **changes})


def message(kind: bytes, payload: bytes = b"") -> bytes:
    return kind + struct.pack("!i", len(payload) + 4) + payload


def description(names: Sequence[str]) -> bytes:
    fields = b"".join(
        name.encode() + b"\0" + struct.pack("!ihihih", 0, 0, 25, -1, -1, 0) for name in names
    )
    return struct.pack("!h", len(names)) + fields


def data(values: Sequence[bytes | None]) -> bytes:
    cells = (struct.pack("!i", -1) if v is None else struct.pack("!i", len(v)) + v for v in values)
    return struct.pack("!h", len(values)) + b"".join(cells)


def columns(sql: str) -> Iterator[str]:
    """Name the columns a statement of ours asks for."""
    found = [name for name in GOOD if re.search(rf"\b{name}\b", sql)]
    yield from found


def honest(talk: Talk, sql: str) -> None:
    """Answer as a server should."""
    if "set_config" in sql:
        talk.row(dict.fromkeys(("pooled", "a", "b", "c", "d", "e"), b"f"))
    else:
        talk.row({name: GOOD[name] for name in columns(sql)})


class Asking:
    """A server that asks for the password in clear, over TLS where it has a certificate, and keeps
    what it got.
    """

    def __init__(self, secret: str = "", tls: ssl.SSLContext | None = None) -> None:
        self.secret, self.tls = secret, tls
        self.asked = 0
        self.told: list[bytes] = []

    def __call__(self, talk: Talk) -> None:
        if self.tls:
            talk.encrypt(self.tls)
        talk.start_up()
        self.asked += 1
        talk.send(b"R", struct.pack("!i", CLEARTEXT))
        _, payload = talk.read()
        self.told.append(payload)
        if payload != self.secret.encode() + b"\0":
            talk.refuse("FATAL", "28P01", payload.decode("ascii", "replace"))
        else:
            talk.welcome()
            talk.serve(honest)


def without_gss(talk: Talk) -> None:
    """Close on what it does not know, as some poolers do: GSSENCRequest; else refuse the
    password.
    """
    if talk.sock.recv(8, socket.MSG_PEEK | socket.MSG_WAITALL) != GSSENC_REQUEST:
        talk.start_up()
        talk.refuse("FATAL", "28P01")


def logged_in(answer: Callable[[Talk, str], None]) -> Callable[[Talk], None]:
    """A server that lets everybody in and answers its statements so."""

    def behave(talk: Talk) -> None:
        talk.start_up()
        talk.welcome()
        talk.serve(answer)

    return behave


def after_set_up(attack: Callable[[Talk, str], None]) -> Callable[[Talk], None]:
    """A server that is honest until the gauges are asked for."""
    return logged_in(
        lambda talk, sql: honest(talk, sql) if "set_config" in sql else attack(talk, sql)
    )


def silent(talk: Talk) -> None:
    """Accept, read, never answer."""
    while talk.sock.recv(65536):
        continue


def drip(talk: Talk) -> None:
    """Answer the start-up with one byte each half second."""
    talk.start_up()
    for byte in message(b"R", struct.pack("!i", AUTH_OK)) * 1000:
        talk.sock.sendall(bytes([byte]))
        time.sleep(0.5)


def ask_again_and_again(talk: Talk) -> None:
    """Ask for the password for ever; at the deadline of a second no answer is being made."""
    _ask_every(talk, 0.3)


def ask_without_pause(talk: Talk) -> None:
    """Ask for the password so often that the deadline falls into one of our answers."""
    _ask_every(talk, 0.005)


def _ask_every(talk: Talk, seconds: float) -> None:
    talk.start_up()
    while True:
        talk.send(b"R", struct.pack("!i", CLEARTEXT))
        talk.read()
        time.sleep(seconds)


def chatter_before_login(talk: Talk) -> None:
    """Send notices for ever instead of letting anybody in."""
    talk.start_up()
    talk.send(b"R", struct.pack("!i", AUTH_OK))
    notice = message(b"N", b"SNOTICE\0VNOTICE\0C00000\0M" + b"x" * 400 + b"\0\0") * 50
    while True:
        talk.sock.sendall(notice)


def send_settings(talk: Talk, _: str = "") -> None:
    """Report settings without end: libpq keeps every one of them."""
    number = 0
    while True:
        talk.sock.sendall(
            b"".join(message(b"S", b"s%d\0v\0" % i) for i in range(number, number + 1000))
        )
        number += 1000


def scram(iterations: int) -> Callable[[Talk], None]:
    """Ask for a proof that takes so many rounds to compute."""

    def behave(talk: Talk) -> None:
        talk.start_up()
        talk.send(b"R", struct.pack("!i", AUTH_SASL) + b"SCRAM-SHA-256\0\0")
        nonce = re.search(rb"r=([^,]+)", talk.read()[1])
        assert nonce
        first = b"r=%sx,s=%s,i=%d" % (nonce[1], base64.b64encode(b"salt"), iterations)
        talk.send(b"R", struct.pack("!i", AUTH_SASL_CONTINUE) + first)
        talk.read()

    return behave


def flood_of_rows(talk: Talk, sql: str) -> None:
    names = list(columns(sql))
    talk.send(b"T", description(names))
    row = message(b"D", data([b"1"] * len(names))) * 200
    while True:
        talk.sock.sendall(row)


def one_huge_row(talk: Talk, sql: str) -> None:
    """Announce a row of 400 MB and send it."""
    talk.send(b"T", description(["db_size"]))
    talk.sock.sendall(b"D" + struct.pack("!ihi", 400_000_010, 1, 400_000_000))
    chunk = b"1" * 1_000_000
    for _ in range(400):
        talk.sock.sendall(chunk)


def flood_of_notices(talk: Talk, sql: str) -> None:
    notice = message(b"N", b"SNOTICE\0VNOTICE\0C00000\0M" + b"x" * 100 + b"\0\0") * 200
    while True:
        talk.sock.sendall(notice)


def flood_of_notifications(talk: Talk, sql: str) -> None:
    note = message(b"A", struct.pack("!i", 1) + b"channel\0payload\0") * 200
    while True:
        talk.sock.sendall(note)


def big_error(talk: Talk, sql: str) -> None:
    """Send an error of 20 MB."""
    talk.send(b"E", b"SERROR\0VERROR\0C53100\0M" + b"<b>\x1b[31m" * 2_500_000 + b"\0\0")
    talk.serve(honest)


def lie(talk: Talk, sql: str) -> None:
    """Answer every number with what is none."""
    talk.row({name: b"12 monkeys \x1b[2J" for name in columns(sql)})


def copy_out(talk: Talk, sql: str) -> None:
    """Turn the query into a COPY."""
    talk.send(b"H", struct.pack("!bhh", 0, 1, 0))
    while True:
        talk.send(b"d", b"1\n")
        time.sleep(0.01)


def hang_up(talk: Talk, sql: str) -> None:
    """Send half a row and reset."""
    talk.send(b"T", description(["db_size"]))
    talk.sock.sendall(b"D\0\0\1\0\0\1")
    talk.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    talk.reader.close()
    talk.sock.close()


def never_answer(talk: Talk, sql: str) -> None:
    """Swallow what is asked."""
    while talk.sock.recv(65536):
        continue


def no_postgres(talk: Talk) -> None:
    """Answer as a web server would."""
    talk.sock.recv(65536)
    talk.sock.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")


def huge_notice_before_login(talk: Talk) -> None:
    """Announce a notice of 400 MB in place of a welcome, and send it."""
    talk.start_up()
    talk.send(b"R", struct.pack("!i", AUTH_OK))
    talk.sock.sendall(b"N" + struct.pack("!i", 400_000_000))
    time.sleep(0.05)
    while True:
        talk.sock.sendall(b"M" + b"x" * 1_000_000)


def send_settings_before_login(talk: Talk) -> None:
    talk.start_up()
    talk.send(b"R", struct.pack("!i", AUTH_OK))
    send_settings(talk)


BEFORE_LOGIN = {
    f.__name__: f
    for f in (
        silent,
        drip,
        ask_again_and_again,
        chatter_before_login,
        huge_notice_before_login,
        send_settings_before_login,
        no_postgres,
    )
}
AFTER_LOGIN = {
    f.__name__: f
    for f in (
        never_answer,
        flood_of_rows,
        one_huge_row,
        flood_of_notices,
        flood_of_notifications,
        send_settings,
        big_error,
        copy_out,
        hang_up,
        lie,
    )
}


@contextlib.contextmanager
def all_at_once(proofs: int = 0) -> Iterator[dict[str, int]]:
    """Run one server of each kind in a process of its own, as a real one would; yield their ports
    by name.

    `proofs`: so many more that ask for a proof that takes long to compute.
    """
    with _elsewhere("hostile", proofs) as ports:
        yield ports


@contextlib.contextmanager
def many_honest(count: int) -> Iterator[list[int]]:
    """Run so many honest servers in one process; yield their ports, which follow one another."""
    with _elsewhere("honest", count) as ports:
        yield list(ports.values())


@contextlib.contextmanager
def _elsewhere(what: str, count: int) -> Iterator[dict[str, int]]:
    argv = [sys.executable, __file__, what, str(count)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stdin=subprocess.PIPE) as process:
        assert process.stdout
        try:
            yield json.loads(process.stdout.readline())
        finally:
            process.kill()


def _start_hostile(proofs: int) -> dict[str, Hostile]:
    behaviours = BEFORE_LOGIN | {name: after_set_up(attack) for name, attack in AFTER_LOGIN.items()}
    behaviours |= {f"scram_{number}": scram(10_000_000) for number in range(proofs)}
    return {name: Hostile(behave) for name, behave in behaviours.items()}


def _start_honest(count: int) -> dict[str, Hostile]:
    for first in range(PORTS.start, PORTS.stop - count, count):
        servers: dict[str, Hostile] = {}
        try:
            for port in range(first, first + count):
                servers[str(port)] = Hostile(logged_in(honest), port)
            return servers
        except OSError:  # a port is taken
            for server in servers.values():
                server.stop()
    raise OSError("no free ports in a row")


if __name__ == "__main__":
    start = {"hostile": _start_hostile, "honest": _start_honest}[sys.argv[1]]
    print(
        json.dumps({name: server.port for name, server in start(int(sys.argv[2])).items()}),
        flush=True,
    )
    sys.stdin.read()  # until the test ends
