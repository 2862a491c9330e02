"""No server that nothing vouches for gets a password in clear, and none has one echoed in what
people read.
"""

import base64
import struct
from pathlib import Path
from urllib.parse import quote

import pytest

from monitor.core.cause import Cause
from monitor.feeler.causes import clean
from tests.feeler import hostile
from tests.feeler.certificates import Authority
from tests.feeler.conftest import MakeSession, feel
from tests.feeler.hostile import Asking, Hostile, Talk

SECRET = "Tr0ub4dor/&30"


class Echoing(Asking):
    """One that says what it got, in all its forms."""

    def __call__(self, talk: Talk) -> None:
        refuse = talk.refuse
        talk.refuse = lambda severity, code, text: refuse(
            severity, code, " ".join(forms(text.rstrip("\0")))
        )  # type: ignore[method-assign]
        super().__call__(talk)


def forms(secret: str) -> list[str]:
    data = secret.encode()
    whole = [
        secret,
        quote(secret, safe=""),
        secret[::-1],
        data.hex(),
        data.hex().upper(),
        data[::-1].hex(),
    ]
    shorter = base64.b64encode(data).decode().rstrip("=")
    return [
        *whole,
        shorter,
        base64.b64encode(data).decode(),
        base64.urlsafe_b64encode(data).decode(),
    ]


async def test_a_server_that_asks_for_it_in_clear_gets_no_password(
    make_session: MakeSession,
) -> None:
    asking = Echoing()
    with Hostile(asking) as server:
        for sslmode in ("prefer", "disable", "allow"):
            session = make_session(server.address(password=SECRET, sslmode=sslmode))
            assert (await feel(session)).cause is Cause.CLEARTEXT_REFUSED
    assert (asking.asked, asking.told) == (3, [])


@pytest.mark.tls
async def test_nor_over_tls_that_proves_nothing(make_session: MakeSession, tmp_path: Path) -> None:
    asking = Asking(SECRET, Authority("nobody's").context("localhost", tmp_path))
    with Hostile(asking) as server:
        for sslmode in ("prefer", "require"):
            session = make_session(server.address(password=SECRET, sslmode=sslmode))
            assert (await feel(session)).cause is Cause.CLEARTEXT_REFUSED, sslmode
        assert (asking.asked > 1, asking.told) == (True, [])
        session = make_session(
            server.address(password=SECRET, sslmode="require", allow_cleartext=True)
        )
        assert (await feel(session)).cause is Cause.OK
    assert asking.told == [SECRET.encode() + b"\0"]


async def test_who_is_allowed_to_ask_gets_it_and_is_not_quoted(make_session: MakeSession) -> None:
    asking = Echoing()
    with Hostile(asking) as server:
        session = make_session(
            server.address(password=SECRET, sslmode="disable", allow_cleartext=True)
        )
        seen = await feel(session)
    assert (seen.cause, asking.told) == (Cause.WRONG_PASSWORD, [SECRET.encode() + b"\0"])
    assert "28P01" in seen.detail
    assert not [form for form in forms(SECRET) if form in seen.detail]


@pytest.mark.parametrize("form", forms(SECRET))
def test_each_form_of_a_password_is_redacted(form: str) -> None:
    assert clean(f"got {form}, thanks", SECRET) == "got ***, thanks"
    assert clean(f'"{form}"', SECRET) == '"***"'


def test_a_password_inside_other_words_stays() -> None:
    assert clean("password authentication failed", "fail") == "password authentication failed"
    assert clean("the pass failed", "fail") == "the pass failed"
    assert clean("it says: fail.", "fail") == "it says: ***."
    assert hostile.address(1).password


@pytest.mark.parametrize(
    "method",
    [struct.pack("!i", 5) + b"salt", struct.pack("!i", 10) + b"SCRAM-SHA-256\0\0"],
    ids=["md5", "scram"],
)
async def test_a_proof_that_does_not_tell_the_password_is_given(
    make_session: MakeSession, method: bytes
) -> None:
    heard: list[tuple[bytes, bytes]] = []

    def ask(talk: Talk) -> None:
        talk.start_up()
        talk.send(b"R", method)
        heard.append(talk.read())
        talk.refuse("FATAL", "28P01")

    with Hostile(ask) as server:
        seen = await feel(make_session(server.address(password=SECRET)))
    assert seen.cause is Cause.WRONG_PASSWORD
    assert [kind for kind, _ in heard] == [b"p"]
    assert SECRET.encode() not in heard[0][1]
