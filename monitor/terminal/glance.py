"""One feel from here, for people: where its time goes and what came out. Only cli.py imports
this.
"""

import asyncio
from collections.abc import Iterator, Mapping
from pathlib import Path

from monitor.config import Settings
from monitor.core.advice import advice, grant
from monitor.core.cause import EVIDENCE, Cause
from monitor.core.database import Address, parse_address
from monitor.core.errors import InvalidInput
from monitor.core.observation import ReadingStatus
from monitor.feeler.session import Feeling, probe
from monitor.registry import fleet
from monitor.registry.store import open_store
from monitor.secrets import SecretBox, load_keys
from monitor.terminal.rendering import clean, gauge


def registered(settings: Settings, name: str, environ: Mapping[str, str]) -> Address:
    """Return the address of a registered database."""
    box = SecretBox(load_keys(environ, settings.home))
    store = open_store(settings.database_url)
    try:
        return parse_address(box.open(name, fleet.get(store, name).ciphertext))
    finally:
        store.close()


def why_not(url: str, ca_dir: Path) -> str:
    """Return why our own Postgres lets nobody in, '' where it does now or the look cannot tell."""
    try:
        feeling = feel(parse_address(url.replace("postgresql+psycopg:", "postgresql:", 1)), ca_dir)
    except InvalidInput:
        return ""
    return (
        ""
        if feeling.cause is Cause.OK
        else f"{feeling.cause}: {clean(feeling.detail)}".removesuffix(": ")
    )


def feel(address: Address, ca_dir: Path) -> Feeling:
    """Log in and feel once; a database that cannot be felt is an answer too."""
    return asyncio.run(probe(address, worker="cli", ca_dir=ca_dir))


def lines(address: Address, feeling: Feeling) -> Iterator[str]:
    """Yield what came out, one line each."""
    yield f"{address.redacted()}"
    for step, milliseconds in feeling.steps.items():
        yield f"  {step:<11} {milliseconds:8.1f} ms"
    yield f"  {'total':<11} {(feeling.at - feeling.sent_at) * 1000:8.1f} ms"
    detail = f": {clean(feeling.detail)}" if feeling.detail else ""
    yield f"  {'cause':<11} {feeling.cause} ({EVIDENCE[feeling.cause]}){detail}"
    if feeling.cause is not Cause.OK:
        yield f"  {'next':<11} {advice(feeling.cause)}"
    if feeling.pooled:
        yield f"  {'pooled':<11} a pooler is between: what it says of logins is its own word"
    for reading in feeling.readings:
        if reading.status is ReadingStatus.OK:
            shown = " · ".join(
                f"{name} {gauge(name, value)}" for name, value in reading.values.items()
            )
        else:
            shown = f"{reading.status} {reading.code}".strip()
        if reading.status is ReadingStatus.DENIED:
            shown += f"  {clean(grant(address.user))}"
        yield f"  {reading.family:<11} {shown}"
