import traceback
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.core.database import Address, check_name, parse_address
from monitor.core.errors import InvalidInput
from tests.core.making import examples

hosts = st.sampled_from(["db.example.com", "10.0.0.1", "::1", "a-b"])
names = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=12)
passwords = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)


def url_of(host: str, user: str, password: str, dbname: str, query: str = "") -> str:
    place = f"[{host}]" if ":" in host else host
    account = f"{quote(user, safe='')}:{quote(password, safe='')}"
    return f"postgresql://{account}@{place}:5433/{quote(dbname, safe='')}{query}"


@given(hosts, names, passwords, names)
@examples(25)
def test_a_percent_encoded_url_is_understood_whatever_it_holds(host, user, password, dbname):
    tls = "?sslmode=verify-full&sslrootcert=our.crt"
    address = parse_address(url_of(host, user, password, dbname, tls))
    assert address == Address(host, 5433, dbname, user, password, "verify-full", "our.crt")
    assert parse_address(address.redacted()) == Address(host, 5433, dbname, user, "***")


@given(passwords.filter(lambda text: len(text) > 3))
@examples(10)
def test_people_never_see_a_password(password):
    address = parse_address(url_of("h", "u", f"secret{password}", "d"))
    assert "secret" not in repr(address) + address.redacted() + str(address)


def test_what_is_left_out_has_a_default():
    assert parse_address(" postgres://me@h\n") == Address("h", 5432, "me", "me", "", "prefer", "")


SECRET = "SEKRET"


@pytest.mark.parametrize(
    "url",
    [
        "",
        SECRET,
        f"mysql://u:{SECRET}@h/d",
        f"host=h user=u password={SECRET}",
        f"postgresql://u:{SECRET}@[bad/d",
        f"postgresql://u:{SECRET}@h:port/d",
        f"postgresql://u:{SECRET}@h:0/d",
        f"postgresql://u:{SECRET}@h:70000/d",
        f"postgresql://u:{SECRET}@/d",
        f"postgresql://u:{SECRET}@h1,h2/d",
        f"postgresql://u:{SECRET}@%2Fvar%2Frun/d",
        f"postgresql://u:{SECRET}@h%00/d",
        f"postgresql://:{SECRET}@h/d",
        f"postgresql://u%00:{SECRET}@h/d",
        f"postgresql://u%0a:{SECRET}@h/d",
        f"postgresql://u:{SECRET}%00@h/d",
        f"postgresql://u:{SECRET}%ff@h/d",
        f"postgresql://u:{SECRET}@h/d%0a",
        f"postgresql://u:{SECRET}@{'h' * 254}/d",
        f"postgresql://{'u' * 254}:{SECRET}@h/d",
        f"postgresql://u:{SECRET}@h/{'d' * 254}",
        f"postgresql://u:{SECRET}{'x' * 8000}@h/d",
        # special characters that ought to be percent-encoded cut the URL in the wrong place
        f"postgresql://u:{SECRET}#x@h/d",
        f"postgresql://u:a@b#{SECRET}@h/d",
        f"postgresql://u:{SECRET}/x@h/d",
        f"postgresql://u:a@b/{SECRET}@h/d",
        f"postgresql://u:{SECRET}?x@h/d",
        f"postgresql://u:{SECRET}\tx@h/d",
        f"postgresql://u:{SECRET}\nx@h/d",
        f"postgresql://u:{SECRET} x@h/d",
        f"postgresql://u:{SECRET}\ud800@h/d",
        # libpq takes these, a user may not
        f"postgresql://u@h/d?password={SECRET}",
        f"postgresql://u@h/d?passfile=/{SECRET}",
        f"postgresql://u@h/d?service={SECRET}",
        f"postgresql://u@h/d?options=-c%20{SECRET}",
        f"postgresql://u@h/d?host=/{SECRET}",
        f"postgresql://u@h/d?sslkey=/{SECRET}",
        f"postgresql://u:{SECRET}@h/d?sslmode=maybe",
        f"postgresql://u:{SECRET}@h/d?sslmode",
        f"postgresql://u:{SECRET}@h/d?sslmode=require&sslmode=disable",
        f"postgresql://u@h/d?sslrootcert=/{SECRET}",
        f"postgresql://u@h/d?sslrootcert=../{SECRET}",
        f"postgresql://u@h/d?sslrootcert={SECRET}%00",
    ],
)
def test_anything_else_is_refused_and_not_echoed(url):
    with pytest.raises(InvalidInput) as caught:
        parse_address(url)
    error = caught.value
    told = "".join(traceback.format_exception(error))
    told += repr((error, error.__cause__, error.__context__))
    assert SECRET not in told + error.field + error.problem + error.fix + error.source
    assert error.field == "url"


@given(st.text(max_size=40) | st.text(max_size=30).map(lambda text: "postgresql://" + text))
@examples(60)
def test_any_text_is_an_address_or_invalid_input(text):
    try:
        address = parse_address(text)
    except InvalidInput:
        return
    assert address.host
    assert address.user
    assert 0 < address.port < 65536


@pytest.mark.parametrize("name", ["a", "0", "db1", "orders-eu_2", "a" * 63])
def test_usable_names(name):
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name", ["", "A", "-a", "_a", "a" * 64, "a b", "a\n", "a:b", "a{b}", "ä", "a/b", "a.b"]
)
def test_unusable_names(name):
    with pytest.raises(InvalidInput):
        check_name(name)


def test_a_url_says_how_we_may_prove_who_we_are():
    plain = parse_address("postgresql://u:p@h/d")
    assert (plain.require_auth, plain.allow_cleartext, plain.verified) == ("", False, False)
    proofs = "require_auth=scram-sha-256,md5&allow_cleartext=1&sslmode=verify-ca"
    said = parse_address(f"postgresql://u:p@h/d?{proofs}")
    assert said.require_auth == "scram-sha-256,md5"
    assert (said.allow_cleartext, said.verified) == (True, True)


@pytest.mark.parametrize(
    "query", ["require_auth=gss", "require_auth=", "require_auth=md5,!none", "allow_cleartext=yes"]
)
def test_what_says_nothing_about_proofs_is_refused(query):
    with pytest.raises(InvalidInput):
        parse_address(f"postgresql://u:p@h/d?{query}")
