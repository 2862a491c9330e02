"""Files whose word we take: whoever else owns one would choose where passwords and tokens go."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from monitor import private
from monitor.config import RUNTIME_FILE, Settings, write_runtime
from monitor.core.errors import InvalidInput
from monitor.secrets import KEY_FILE, load_keys, make_key

SOMEBODY = 65_534


@pytest.fixture
def give_away(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Give a file to another user, or become one where only root may give files away."""

    def give(path: Path) -> None:
        if os.geteuid() == 0:
            os.chown(path, SOMEBODY, -1, follow_symlinks=False)
        else:
            monkeypatch.setattr(os, "geteuid", lambda: SOMEBODY)

    return give


def test_a_runtime_file_of_another_user_sends_no_address_anywhere(tmp_path, give_away):
    write_runtime(
        tmp_path, {"FEELER_URL": "http://thief.example", "FEELER_TOKEN": "0123456789abcdef"}
    )
    give_away(tmp_path / RUNTIME_FILE)
    with pytest.raises(InvalidInput, match="belongs to another user"):
        Settings.from_env({"FEELER_HOME": str(tmp_path)}, stores=False)


def test_a_key_of_another_user_seals_nothing(tmp_path, give_away):
    make_key(tmp_path)
    give_away(tmp_path / KEY_FILE)
    with pytest.raises(InvalidInput, match="belongs to another user"):
        load_keys(tmp_path)


def test_a_link_that_another_user_laid_is_not_followed(tmp_path, give_away):
    (tmp_path / "mine").write_text("secret")
    (tmp_path / "mine").chmod(0o600)
    (tmp_path / "link").symlink_to("mine")
    assert private.read(tmp_path / "link") == "secret"
    give_away(tmp_path / "link")
    with pytest.raises(InvalidInput, match="belongs to another user"):
        private.read(tmp_path / "link")


def test_users_whose_word_we_take(tmp_path, give_away):
    (tmp_path / "theirs").write_text("secret")
    (tmp_path / "theirs").chmod(0o600)
    give_away(tmp_path / "theirs")
    assert private.read(tmp_path / "theirs", also=[(tmp_path / "theirs").stat().st_uid]) == "secret"


def test_what_anybody_may_read_is_trusted_where_nobody_else_may_change_it(tmp_path, give_away):
    roots = tmp_path / "ca.pem"
    roots.touch()
    for mode, trusted in ((0o644, True), (0o664, False), (0o646, False), (0o444, True)):
        roots.chmod(mode)
        assert private.is_trusted(roots) is trusted
    give_away(roots)
    assert not private.is_trusted(roots)


def test_what_is_written_is_whole_and_for_our_eyes_alone(tmp_path):
    (tmp_path / "secret").write_text("old, and for all to read")
    private.write(tmp_path / "secret", "new")
    assert private.read(tmp_path / "secret") == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["secret"]
