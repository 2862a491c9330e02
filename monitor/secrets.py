"""Addresses under lock: the only module that imports cryptography. Doors and workers may import it.

Fernet has no associated data, so a ciphertext could be moved to another row: the database's name is
sealed in with its URL and checked on opening. Nothing here ever echoes a key, a URL or a
ciphertext.
"""

import json
import os
import re
import secrets
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from monitor import private
from monitor.core.database import Address, parse_address
from monitor.core.errors import InvalidInput

VARIABLE = "FEELER_SECRET_KEYS"
KEY_FILE = "secret.key"
_MAKE_ONE = "a key is 32 random bytes: openssl rand -base64 32 | tr '+/' '-_'"


class SecretBox:
    """Seals URLs under the first key, opens what any of the keys sealed."""

    __slots__ = ("_fernet",)

    def __init__(self, keys: Sequence[str]) -> None:
        if not keys:
            raise InvalidInput(VARIABLE, "holds no key", _MAKE_ONE)
        fernets = [_fernet(key, number) for number, key in enumerate(keys, start=1)]
        self._fernet = MultiFernet(fernets)

    def __repr__(self) -> str:
        return "SecretBox(***)"

    def seal(self, name: str, url: str) -> str:
        """Return the URL of this database as ciphertext that opens under this name only."""
        text = json.dumps([name, url])
        return self._fernet.encrypt(text.encode()).decode()

    def open(self, name: str, ciphertext: str) -> str:
        """Return the URL; InvalidInput when no key fits or it was sealed for another database."""
        try:
            text = self._fernet.decrypt(ciphertext.encode())
            owner, url = json.loads(text)
        except (InvalidToken, ValueError):
            fix = f"is one missing in {VARIABLE}?"
            raise InvalidInput("ciphertext", "opens with no key of ours", fix) from None
        if owner != name:
            raise InvalidInput("ciphertext", "was sealed for another database")
        return str(url)

    def open_address(self, name: str, ciphertext: str) -> Address:
        """Return the address; InvalidInput where it cannot be opened, or not be used."""
        url = self.open(name, ciphertext)
        return parse_address(url)

    def readable_address(self, name: str, ciphertext: str) -> Address | None:
        """Return the address, None where this process cannot read it."""
        try:
            return self.open_address(name, ciphertext)
        except InvalidInput:
            return None

    def rotate(self, name: str, ciphertext: str) -> str:
        """Return the same URL sealed under the first key."""
        url = self.open(name, ciphertext)
        return self.seal(name, url)


def load_keys(home: Path, keys: str = "", keys_file: Path | None = None) -> tuple[str, ...]:
    """Return the keys, first the one that seals: those given, else of the file `feeler up` made.

    Nobody else makes one: each process would seal under a key of its own, and none could open
    another's.
    """
    if keys:
        return _split(keys)
    if keys_file:
        return _split(_mounted(keys_file))
    made = home / KEY_FILE
    if not made.exists():
        fix = f"the same for web and workers; {_MAKE_ONE}. `feeler up` makes one in FEELER_HOME"
        raise InvalidInput(VARIABLE, "not set", fix, "environment")
    return _split(private.read(made))


def has_keys(home: Path, keys: str = "", keys_file: Path | None = None) -> bool:
    """Say whether there are keys, or would be but for a mistake that `load_keys` names."""
    return bool(keys or keys_file) or (home / KEY_FILE).exists()


def make_key(home: Path) -> None:
    """Leave a new key in this home unless somebody else is quicker; nobody ever sees half a key."""
    _make(home / KEY_FILE)


def _fernet(key: str, number: int) -> Fernet:
    try:
        return Fernet(key)
    except ValueError:
        raise InvalidInput(VARIABLE, f"key {number} is malformed", _MAKE_ONE) from None


def _split(text: str) -> tuple[str, ...]:
    return tuple(key for key in re.split(r"[,\s]+", text) if key)


def _mounted(path: Path) -> str:
    """Read what somebody mounted: in a container it is often world-readable, and root's."""
    try:
        return path.read_text(encoding="ascii")
    except (OSError, ValueError):
        fix = "it must hold the keys, one a line"
        raise InvalidInput("file", "cannot be read", fix, str(path)) from None


def _make(path: Path) -> None:
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(Fernet.generate_key() + b"\n")
            file.flush()
            os.fsync(file.fileno())  # whoever loses this key loses every address
        os.link(draft, path)  # fails where the file exists: the first one wins
    except FileExistsError:
        pass
    except OSError:
        fix = f"set {VARIABLE} or make the folder writable"
        raise InvalidInput("file", "cannot be made", fix, str(path)) from None
    finally:
        with suppress(OSError):
            draft.unlink()
