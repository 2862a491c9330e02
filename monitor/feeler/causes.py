"""How the end of a step is told: by SQLSTATE, errno, bytes on the socket; never by English text.

Pure; for this package alone.
"""

import base64
import errno
import functools
import re
import socket
from dataclasses import dataclass
from urllib.parse import quote, quote_plus

from monitor.core.cause import Cause, cause_of_sqlstate

DETAIL_LENGTH = 512  # characters kept of a server's text

# What libpq writes with PQERRORS_VERBOSE: severity (translated by the server), two blanks, the
# code, a colon.
_CODE = re.compile(r":  ([0-9A-Z]{5}): ")
_SQLSTATE = re.compile(rb"[0-9A-Z]{5}")
_ROUTINE = re.compile(r"^\S+:  (\w+), [\w.]+:\d+$")  # LOCATION, translated as well
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]+")
_OURS = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL}
_BY_ERRNO = {
    errno.ECONNREFUSED: Cause.PORT_CLOSED,
    errno.ECONNRESET: Cause.RESET,
    errno.EPIPE: Cause.RESET,
    errno.ETIMEDOUT: Cause.CONNECT_TIMEOUT,
    **dict.fromkeys(_OURS, Cause.DESCRIPTORS),
}
_WANTS_CLEARTEXT = b"R\0\0\0\x08\0\0\0\x03"  # AuthenticationCleartextPassword
NOT_IN_CLEAR = "!gss,!sspi,!password"  # what we require of a server that TLS does not prove
_POSTGRES_SPEAKS = b"RNSKv"  # first bytes of a server's messages before ReadyForQuery, but for E


class Failed(Exception):
    """How a step ended; never leaves this package."""

    def __init__(
        self, cause: Cause, detail: str = "", *, lost: bool = False, sqlstate: str = ""
    ) -> None:
        super().__init__(cause)
        self.cause, self.detail, self.sqlstate = cause, detail, sqlstate
        self.lost = lost  # the session ended under us: no evidence by itself


@dataclass(frozen=True, slots=True)
class GivenUp:
    """What could be seen before the step of a login that libpq then gave up in."""

    heard: bytes = b""  # the first unread bytes
    encrypting: bool = False  # the step belongs to the TLS handshake
    encrypted: bool = False
    sent_before: int = 0  # bytes we had sent
    message: str = ""  # libpq's text afterwards


def cause_of_errno(number: int) -> Cause:
    """Name the cause of a connect that failed; what is not known is a way that is cut."""
    return _BY_ERRNO.get(number, Cause.UNREACHABLE)


def cause_of_handshake(
    seen: GivenUp,
    *,
    sqlstate: str = "",
    routine: str = "",
    sent: bool = False,
    ended: bool = False,
    needs_password: bool = False,
) -> Cause:
    """Name the cause of a login that failed after TCP had connected.

    `sent`: we sent something in the step that failed; `ended`: the server closed or reset.
    """
    first = seen.heard[:1]
    if sqlstate or (first == b"E" and not seen.encrypted):
        return cause_of_sqlstate(sqlstate, routine)
    if needs_password:
        return Cause.NO_CREDENTIALS
    if seen.encrypting and first == b"S" and not sent and not ended:
        # the server said yes and we could not even begin: our CA file is not usable
        return Cause.MISSING_FILE
    # an alert of ours, on which the server may hang up
    refused_by_us = seen.encrypting and sent and first != b"S"
    if ended and not refused_by_us:
        return Cause.RESET
    return _cause_of_giving_up(seen)


def _cause_of_giving_up(seen: GivenUp) -> Cause:
    """Name the cause where neither side failed: one does not want what the other does."""
    first = seen.heard[:1]
    if seen.encrypting:
        return Cause.NO_TLS if first == b"N" else Cause.UNTRUSTED  # an alert, the server's or ours
    if _asked_in_clear(seen):
        return Cause.CLEARTEXT_REFUSED
    # A server that speaks our protocol asked for what we cannot or will not do; any other is no
    # Postgres.
    return Cause.LOCKED_OUT if seen.encrypted or first in _POSTGRES_SPEAKS else Cause.RESET


def _asked_in_clear(seen: GivenUp) -> bool:
    """Say whether libpq gave up since the server asked for the password in clear.

    What TLS hides libpq alone has seen. It quotes our own requirement then; its words are never
    translated here, since nobody calls setlocale. Were they, LOCKED_OUT would be said of the same
    class of evidence.
    """
    if not seen.encrypted:
        return seen.heard[:9] == _WANTS_CLEARTEXT
    return f'"{NOT_IN_CLEAR}"' in seen.message and "cleartext" in seen.message


def sqlstate_of_message(message: str) -> tuple[str, str]:
    """Return the SQLSTATE in libpq's verbose text of a failed connection, and its line.

    With several attempts in it (TLS, then plain) the last one counts; ('', the text) when the
    server sent no error.
    """
    found = "", message
    for line in message.splitlines():
        match = _CODE.search(line)
        if match:
            found = match[1], line
    return found


def routine_of_message(message: str) -> str:
    """Return the server's routine that raised the error of `sqlstate_of_message`, '' for none."""
    routine = ""
    for line in message.splitlines():
        if _CODE.search(line):
            routine = ""
        elif match := _ROUTINE.search(line):
            routine = match[1]
    return routine


def sqlstate_of_packet(data: bytes) -> str:
    """Return field C of an ErrorResponse as it stands on the wire, '' when this is none."""
    if data[:1] != b"E" or len(data) < 6:
        return ""
    length = int.from_bytes(data[1:5])
    for field in data[5 : 1 + length].split(b"\0"):
        if field[:1] == b"C":
            return field[1:].decode("ascii") if _SQLSTATE.fullmatch(field[1:]) else ""
    return ""


def clean(text: str | bytes, secret: str = "", length: int = DETAIL_LENGTH) -> str:
    """Return a server's text fit for people: one line, no control characters, no password.

    It is cut to `length` characters.
    """
    if isinstance(text, bytes):
        text = text[: 8 * DETAIL_LENGTH].decode("utf-8", "replace")
    text = text[: 8 * DETAIL_LENGTH]
    if secret:
        text = _echo(secret).sub("***", text)
    return _CONTROLS.sub(" ", text).strip()[:length]


@functools.lru_cache(maxsize=256)
def _echo(secret: str) -> re.Pattern[str]:
    """Return what finds a password: as it is, percent-encoded, backwards, in hex or base64.

    Whole words only: to cut it out of other words would tell it.
    """
    data = secret.encode("utf-8", "surrogatepass")
    forms = {
        secret,
        secret[::-1],
        quote(data, safe=""),
        quote_plus(data),
        data.hex(),
        data[::-1].hex(),
    }
    padded = {base64.b64encode(part).decode() for part in (data, data[::-1])}
    forms |= padded | {form.rstrip("=") for form in padded}
    forms |= {form.translate(str.maketrans("+/", "-_")) for form in forms}
    longest_first = sorted(forms, key=len, reverse=True)
    return re.compile("|".join(map(_whole, longest_first)), re.IGNORECASE)


def _whole(form: str) -> str:
    before = r"(?<!\w)" if form[:1].isalnum() or form[:1] == "_" else ""
    after = r"(?!\w)" if form[-1:].isalnum() or form[-1:] == "_" else ""
    return before + re.escape(form) + after


def own_shortage() -> Cause | None:
    """Say whether this process is out of descriptors right now."""
    try:
        socket.socket().close()
    except OSError as exc:
        return cause_of_errno(exc.errno or 0)
    return None
