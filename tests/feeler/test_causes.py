"""How an ending is told from another."""

import errno
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from monitor.core.cause import Cause
from monitor.feeler import causes
from monitor.feeler.causes import GivenUp

PLAIN = GivenUp()
TLS = GivenUp(encrypting=True)
AT = 'connection to server at "127.0.0.1", port 5432 failed: '


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (
            AT
            + "FATAL:  28P01: password authentication failed\nLOCATION:  auth_failed, auth.c:342\n",
            "28P01",
        ),
        (
            AT + "FATAL:  3D000: Datenbank »x« existiert nicht\nORT:  InitPostgres, postinit.c:1\n",
            "3D000",
        ),
        (AT + "ВАЖНО:  57P03: система баз данных запускается\n", "57P03"),
        (AT + "致命错误:  53300: 对不起, 已经有太多的客户\n", "53300"),
        # sslmode=prefer: refused over TLS, then refused in plain; the last attempt decides
        (
            AT + "FATAL:  28000: no pg_hba.conf entry\n" + AT + "FATAL:  28P01: wrong password\n",
            "28P01",
        ),
        (AT + "SSL error: certificate verify failed\n", ""),
        (AT + "server closed the connection unexpectedly\n\tThis probably means ...\n", ""),
        ("", ""),
    ],
)
def test_the_code_stands_after_the_severity_whatever_the_language(message: str, code: str) -> None:
    assert causes.sqlstate_of_message(message)[0] == code


def test_people_are_told_the_line_with_the_code() -> None:
    message = AT + "FATAL:  3D000: database does not exist\nLOCATION:  InitPostgres, postinit.c:1\n"
    assert causes.sqlstate_of_message(message)[1] == AT + "FATAL:  3D000: database does not exist"
    assert causes.sqlstate_of_message("no code\nat all")[1] == "no code\nat all"


def packet(fields: bytes) -> bytes:
    return b"E" + (len(fields) + 4).to_bytes(4) + fields


def test_the_code_is_read_from_the_packet_itself() -> None:
    assert causes.sqlstate_of_packet(packet(b"SFATAL\0VFATAL\0C57P03\0Mno\0\0")) == "57P03"
    assert causes.sqlstate_of_packet(packet(b"SFATAL\0VFATAL\0Mno C57P03\0\0")) == ""
    assert causes.sqlstate_of_packet(packet(b"C57\x1b03\0\0")) == ""


@given(st.binary(max_size=200))
@example(b"E")
@example(b"E\xff\xff\xff\xff" + b"C28P01\0" * 3)
def test_no_packet_confuses_the_reader(data: bytes) -> None:
    assert len(causes.sqlstate_of_packet(data)) in (0, 5)
    assert len(causes.sqlstate_of_packet(packet(data))) in (0, 5)


@given(st.text(max_size=2000) | st.binary(max_size=2000))
@example("\x1b[31m<b>\x00\x9b\u202e" * 1000)
@example(b"\xff\xfe" * 5000)
def test_texts_for_people_are_short_single_lines_without_controls(text: str | bytes) -> None:
    cleaned = causes.clean(text, "hunter2")
    assert len(cleaned) <= causes.DETAIL_LENGTH
    assert not any(ord(char) < 32 or 0x7F <= ord(char) < 0xA0 for char in cleaned)


def test_a_server_that_echoes_the_password_is_not_quoted() -> None:
    assert "hunter2" not in causes.clean(
        AT + "FATAL:  28P01: wrong password hunter2, hunter2!", "hunter2"
    )


@pytest.mark.parametrize(
    ("number", "cause"),
    [
        (errno.ECONNREFUSED, Cause.PORT_CLOSED),
        (errno.ECONNRESET, Cause.RESET),
        (errno.ETIMEDOUT, Cause.CONNECT_TIMEOUT),
        (errno.EHOSTUNREACH, Cause.UNREACHABLE),
        (errno.ENETUNREACH, Cause.UNREACHABLE),
        (errno.EPERM, Cause.UNREACHABLE),
        (errno.EMFILE, Cause.DESCRIPTORS),
        (errno.ENFILE, Cause.DESCRIPTORS),
    ],
)
def test_errno_names_the_cause_of_a_failed_connect(number: int, cause: Cause) -> None:
    assert causes.cause_of_errno(number) is cause


def test_a_code_outweighs_everything_else_seen_of_a_login() -> None:
    assert (
        causes.cause_of_handshake(PLAIN, sqlstate="53300", ended=True, needs_password=True)
        is Cause.REFUSING
    )


@pytest.mark.parametrize(
    ("seen", "sent", "ended", "cause"),
    [
        (replace(TLS, heard=b"N"), False, False, Cause.NO_TLS),  # it has no TLS, we want some
        (replace(TLS, heard=b"S"), False, False, Cause.MISSING_FILE),  # our roots cannot be read
        (replace(TLS, heard=b"S"), False, True, Cause.RESET),
        (replace(TLS, heard=b"S"), True, True, Cause.RESET),  # it hung up on our hello
        (
            replace(TLS, heard=b"\x16"),
            True,
            False,
            Cause.UNTRUSTED,
        ),  # we sent an alert: not trusted
        (
            replace(TLS, heard=b"\x16"),
            True,
            True,
            Cause.UNTRUSTED,
        ),  # and the server hung up on reading it
        (replace(TLS, heard=b"\x15"), False, False, Cause.UNTRUSTED),  # the server's alert
        (TLS, False, True, Cause.RESET),
        (
            replace(TLS, heard=b"E"),
            False,
            True,
            Cause.SERVER_ERROR,
        ),  # an error before encryption, without fields
        (replace(PLAIN, heard=b"R"), False, False, Cause.LOCKED_OUT),  # a method we do not have
        (replace(PLAIN, heard=b"R"), False, True, Cause.RESET),
        (replace(PLAIN, heard=b"H"), False, False, Cause.RESET),  # HTTP
        (replace(PLAIN, encrypted=True), False, False, Cause.LOCKED_OUT),
        (replace(PLAIN, encrypted=True), False, True, Cause.RESET),
    ],
)
def test_a_login_without_a_code_is_told_by_bytes(
    seen: GivenUp, sent: bool, ended: bool, cause: Cause
) -> None:
    assert causes.cause_of_handshake(seen, sent=sent, ended=ended) is cause


@pytest.mark.parametrize(
    ("message", "routine"),
    [
        (
            AT + "FATAL:  53300: zu viele\nORT:  InitializeSessionUserId, miscinit.c:780\n",
            "InitializeSessionUserId",
        ),
        (
            AT
            + "FATAL:  28000: a\nLOCATION:  One, a.c:1\n"
            + AT
            + "FATAL:  28000: b\nLOCATION:  Two, a.c:1\n",
            "Two",
        ),
        (AT + "FATAL:  28000: a\nLOCATION:  One, a.c:1\n" + AT + "FATAL:  53300: a pooler's\n", ""),
        ("no code\nat all", ""),
    ],
)
def test_the_routine_is_found_in_every_language(message: str, routine: str) -> None:
    assert causes.routine_of_message(message) == routine
