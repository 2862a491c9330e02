"""What FEELER_HOME holds of `feeler up`: one lock, one token."""

import os
import stat
from pathlib import Path

import pytest

from monitor.core.errors import FeelerError
from monitor.local.home import TOKEN_FILE, has_token, keep_token, locked


def test_the_token_is_made_once_for_our_eyes_alone(tmp_path: Path) -> None:
    assert not has_token(tmp_path)
    token = keep_token(tmp_path)
    assert has_token(tmp_path)
    assert keep_token(tmp_path) == token
    assert stat.S_IMODE((tmp_path / TOKEN_FILE).stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [TOKEN_FILE]


def test_a_home_is_held_by_one_at_a_time(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(FeelerError, match=f"as process {os.getpid()}"):
        locked(tmp_path).__enter__()
    with locked(tmp_path):
        pass
