"""Whom the rule meets that a password goes in clear only to a server TLS proves; told once, by
`feeler migrate`.
"""

from collections.abc import Iterator, Mapping, Sequence

from monitor.config import Settings
from monitor.core.database import Address, parse_address
from monitor.core.errors import FeelerError
from monitor.registry import fleet
from monitor.registry.store import open_store
from monitor.secrets import SecretBox, load_keys

SINCE = "0003"  # the revision that came with the rule
NAMED = 50  # names in one warning


def is_new(pending: Sequence[str]) -> bool:
    """Say whether these revisions upgrade a registry, that has databases maybe, from before the
    rule.
    """
    return SINCE in pending and "0001" not in pending


def warning(settings: Settings, environ: Mapping[str, str]) -> Iterator[str]:
    """Yield what to tell. Which method a server asks for is stored nowhere, so it is told whom it
    may meet.
    """
    try:
        names, sealed = _may_meet(settings, environ)
    except FeelerError as error:
        yield f"passwords go in clear to no server any more that TLS does not prove; whom it meets is unknown: {error}"
        return
    if names:
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        yield "passwords go in clear to no server any more that TLS does not prove. Which servers ask for one in clear"
        yield "(password, ldap, pam, radius, a cloud's token) is not known from here; it may be those of"
        yield f"  {', '.join(names[:NAMED])}{more}"
        yield "`feeler observe NAME` says cleartext_refused where it is so: then `feeler db set-url`, with"
        yield "sslmode=verify-full or allow_cleartext=1"
    if sealed:
        yield f"{sealed} more databases have addresses that no key opens here"


def _may_meet(settings: Settings, environ: Mapping[str, str]) -> tuple[list[str], int]:
    """Return the databases that the rule may meet, and how many addresses cannot be opened here."""
    box = SecretBox(load_keys(environ, settings.home))
    store = open_store(settings.database_url)
    try:
        rows = fleet.fleet(store)
    finally:
        store.close()
    names, sealed = list[str](), 0
    for row in rows:
        try:
            names += (
                [row.name] if _may_be_met(parse_address(box.open(row.name, row.ciphertext))) else []
            )
        except FeelerError:
            sealed += 1
    return names, sealed


def _may_be_met(address: Address) -> bool:
    """Say whether its password is kept from a server that asks for it in clear; a method required
    says its own word.
    """
    return bool(address.password) and not address.tells_password and not address.require_auth
