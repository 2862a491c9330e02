"""Sealed addresses and their keys: what opens, what does not, and that nothing is ever shown."""

import multiprocessing
import stat
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.fernet import Fernet
from hypothesis import given
from hypothesis import strategies as st

from monitor.core.database import parse_address
from monitor.core.errors import InvalidInput
from monitor.secrets import KEY_FILE, VARIABLE, SecretBox, has_keys, load_keys, make_key

KEYS = tuple(Fernet.generate_key().decode() for _ in range(3))
CANARY = "c4n4ry-p4ssw0rd"
URL = f"postgresql://u:{CANARY}@db.example/app"
plain = st.text(st.characters(exclude_categories=["Cs"]))


def shown(work: Callable[[], object]) -> str:
    """Return everything a log could show of the InvalidInput this must raise."""
    with pytest.raises(InvalidInput) as caught:
        work()
    return (
        "".join(traceback.format_exception(caught.value))
        + repr(caught.value)
        + repr(vars(caught.value))
    )


@given(plain, plain)
def test_what_was_sealed_opens_under_its_name(name: str, url: str) -> None:
    box = SecretBox(KEYS)
    assert box.open(name, box.seal(name, url)) == url


@given(plain, plain)
def test_a_ciphertext_moved_to_another_database_does_not_open(name: str, other: str) -> None:
    box = SecretBox(KEYS)
    if name != other:
        assert CANARY not in shown(lambda: box.open(other, box.seal(name, URL)))


def test_the_first_key_seals_and_all_open() -> None:
    old = SecretBox(KEYS[1:2]).seal("db1", URL)
    box = SecretBox(KEYS)
    assert box.open("db1", old) == URL
    assert SecretBox(KEYS[:1]).open("db1", box.seal("db1", URL)) == URL


def test_rotation_frees_the_old_key() -> None:
    new = SecretBox(KEYS[:2]).rotate("db1", SecretBox(KEYS[1:2]).seal("db1", URL))
    assert SecretBox(KEYS[:1]).open("db1", new) == URL
    with pytest.raises(InvalidInput):
        SecretBox(KEYS[:2]).rotate("db2", new)


@pytest.mark.parametrize(
    "spoil", [lambda text: text[:-8], lambda text: text[::-1], lambda _: "", lambda _: "\udc80é"]
)
def test_a_spoilt_ciphertext_says_no_more_than_that(spoil: Callable[[str], str]) -> None:
    box = SecretBox(KEYS)
    sealed = spoil(box.seal("db1", URL))
    text = shown(lambda: box.open("db1", sealed))
    assert CANARY not in text
    assert not sealed or sealed not in text


def test_an_address_is_opened_whole() -> None:
    box = SecretBox(KEYS)
    sealed = box.seal("db1", URL)
    assert box.open_address("db1", sealed) == parse_address(URL)
    assert box.readable_address("db1", sealed) == parse_address(URL)


@pytest.mark.parametrize(
    ("name", "url"), [("other", URL), ("db1", f"mysql://u:{CANARY}@db.example/app")]
)
def test_an_address_that_nobody_can_use_here_is_none(name: str, url: str) -> None:
    box = SecretBox(KEYS)
    sealed = box.seal(name, url)
    assert box.readable_address("db1", sealed) is None
    assert CANARY not in shown(lambda: box.open_address("db1", sealed))


def test_a_missing_key_says_so() -> None:
    sealed = SecretBox(KEYS[:1]).seal("db1", URL)
    assert VARIABLE in shown(lambda: SecretBox(KEYS[1:]).open("db1", sealed))


def test_no_plain_text_lies_in_a_ciphertext() -> None:
    assert CANARY not in SecretBox(KEYS).seal("db1", URL)


def test_repr_shows_no_key() -> None:
    box = SecretBox(KEYS)
    assert not any(key in repr(box) + str(box) for key in KEYS)


@pytest.mark.parametrize(
    "bad",
    [CANARY, CANARY * 4, KEYS[0][:-2] + "é=", KEYS[0][:-5]],
    ids=["short", "long", "accent", "cut"],
)
def test_a_malformed_key_is_named_by_its_place_only(bad: str) -> None:
    text = shown(lambda: SecretBox([KEYS[0], bad]))
    assert "key 2 is malformed" in text
    assert bad not in text
    assert CANARY not in text


def test_no_key_at_all() -> None:
    assert "holds no key" in shown(lambda: SecretBox(()))


def test_keys_of_the_environment_come_first(tmp_path: Path) -> None:
    assert load_keys(tmp_path, f" {KEYS[0]} ,{KEYS[1]},") == KEYS[:2]
    assert not list(tmp_path.iterdir())


def test_keys_of_a_mounted_file(tmp_path: Path) -> None:
    mounted = tmp_path / "keys"
    mounted.write_text("\n".join(KEYS) + "\n")
    mounted.chmod(0o444)
    assert load_keys(tmp_path / "home", keys_file=mounted) == KEYS
    assert not (tmp_path / "home").exists()


def made(home: Path) -> tuple[str, ...]:
    """Make a key as `feeler up` does, and load it."""
    make_key(home)
    return load_keys(home)


def test_nobody_makes_a_key_by_loading_it(tmp_path: Path) -> None:
    text = shown(lambda: load_keys(tmp_path))
    assert f"{VARIABLE}: not set" in text
    assert not list(tmp_path.iterdir())
    assert not has_keys(tmp_path)
    assert has_keys(tmp_path, KEYS[0])
    assert has_keys(tmp_path, keys_file=Path("/nowhere"))


def test_the_first_run_makes_a_key_that_stays(tmp_path: Path) -> None:
    home = tmp_path / "share" / "feeler"
    keys = made(home)
    SecretBox(keys)
    assert made(home) == keys
    assert has_keys(home)
    assert stat.S_IMODE((home / KEY_FILE).stat().st_mode) == 0o600
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert [path.name for path in home.iterdir()] == [KEY_FILE]


def test_a_key_added_by_hand_on_top_seals(tmp_path: Path) -> None:
    old = made(tmp_path)
    path = tmp_path / KEY_FILE
    path.write_text(f"{KEYS[0]}\n{path.read_text()}")
    assert load_keys(tmp_path) == (KEYS[0], *old)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_key_file_others_may_touch_is_refused(tmp_path: Path, mode: int) -> None:
    (key,) = made(tmp_path)
    (tmp_path / KEY_FILE).chmod(mode)
    text = shown(lambda: load_keys(tmp_path))
    assert "chmod 600" in text
    assert key not in text


def test_an_unreadable_key_file_is_no_reason_to_make_another(tmp_path: Path) -> None:
    (tmp_path / KEY_FILE).write_bytes(b"\xff\xfe")
    (tmp_path / KEY_FILE).chmod(0o600)
    assert "cannot be read" in shown(lambda: load_keys(tmp_path))
    assert (tmp_path / KEY_FILE).read_bytes() == b"\xff\xfe"


def test_a_home_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "cannot be made" in shown(lambda: make_key(tmp_path / "file" / "home"))


def test_of_many_first_runs_all_get_the_same_key(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    with context.Pool(4) as pool:
        found = pool.map(made, [tmp_path / "home"] * 32, chunksize=1)
    assert len(set(found)) == 1
    assert [path.name for path in (tmp_path / "home").iterdir()] == [KEY_FILE]
