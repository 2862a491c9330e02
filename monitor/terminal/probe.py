"""One probe from here, for people: where its time goes and what came out.

cli.py and migration.py import this.
"""

import asyncio
from collections.abc import Iterator
from pathlib import Path

from monitor.config import Settings
from monitor.core.advice import advice, grant
from monitor.core.cause import EVIDENCE, Cause
from monitor.core.database import Address, parse_address
from monitor.core.errors import InvalidInput
from monitor.core.observation import Observation, Reading, ReadingStatus
from monitor.feeler.session import probe
from monitor.registry import fleet
from monitor.registry.store import open_store
from monitor.secrets import SecretBox, load_keys
from monitor.terminal.values import clean, gauge

DRIVER = "postgresql+psycopg:"  # how SQLAlchemy writes the scheme of our own URL


def registered_address(settings: Settings, name: str) -> Address:
    """Return the address of a registered database."""
    keys = load_keys(settings.home, settings.secret_keys, settings.secret_keys_file)
    box = SecretBox(keys)
    store = open_store(settings.database_url)
    try:
        row = fleet.get(store, name)
    finally:
        store.close()
    return box.open_address(name, row.ciphertext)


def why_unreachable(url: str, ca_dir: Path) -> str:
    """Return why our own Postgres lets nobody in, '' where it does now or a probe cannot tell."""
    try:
        address = parse_address(url.replace(DRIVER, "postgresql:", 1))
    except InvalidInput:
        return ""
    found = probe_once(address, ca_dir)
    if found.cause is Cause.OK:
        return ""
    return f"{found.cause}: {clean(found.detail)}".removesuffix(": ")


def probe_once(address: Address, ca_dir: Path) -> Observation:
    """Log in and probe once; a database that cannot be reached is an answer too."""
    return asyncio.run(probe(address, worker="cli", ca_dir=ca_dir))


def lines(address: Address, found: Observation) -> Iterator[str]:
    """Yield what came out, one line each."""
    yield address.redacted()
    for step, milliseconds in found.steps.items():
        yield _timed(step, milliseconds)
    total = found.at - found.sent_at
    yield _timed("total", total * 1000)
    evidence = EVIDENCE[found.cause]
    detail = f": {clean(found.detail)}" if found.detail else ""
    yield _line("cause", f"{found.cause} ({evidence}){detail}")
    if found.cause is not Cause.OK:
        yield _line("next", advice(found.cause))
    if found.access.pooled:
        yield _line("pooled", "a pooler is between: it may answer for the server")
    for reading in found.readings:
        yield _line(reading.family, _reading_text(reading, address.user))


def _reading_text(reading: Reading, user: str) -> str:
    if reading.status is ReadingStatus.OK:
        shown = []
        for name, value in reading.values.items():
            shown.append(f"{name} {gauge(name, value)}")
        return " · ".join(shown)
    text = f"{reading.status} {reading.code}".strip()
    if reading.status is ReadingStatus.DENIED:
        text += f"  {clean(grant(user))}"
    return text


def _timed(step: str, milliseconds: float) -> str:
    return _line(step, f"{milliseconds:8.1f} ms")


def _line(heading: str, text: str) -> str:
    return f"  {heading:<11} {text}"
