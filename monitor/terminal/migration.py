"""`feeler migrate`: the registry's tables brought up to date. Only cli.py imports this.

An upgrade from before the rule that a password goes in clear only to a server TLS proves names,
once, the databases that the rule may meet.
"""

from collections.abc import Iterator, Sequence

from monitor.config import Settings
from monitor.core.database import Address
from monitor.core.errors import FeelerError, StoreUnavailable
from monitor.registry import fleet, store
from monitor.secrets import SecretBox, load_keys
from monitor.terminal.audit import audited
from monitor.terminal.probe import why_unreachable

CLEARTEXT_RULE = "0003"  # the revision that came with the rule
MOST_NAMED = 50  # names in one notice
UNPROVED = "passwords go in clear to no server any more that TLS does not prove"


def pending(settings: Settings) -> Sequence[str]:
    """Return the revisions that are not applied yet."""
    try:
        return store.pending_migrations(settings.database_url)
    except StoreUnavailable as error:
        cause = why_unreachable(settings.database_url, settings.ca_dir)
        raise StoreUnavailable(error.store, cause or error.detail) from None


def apply(settings: Settings, revisions: Sequence[str]) -> None:
    """Apply these revisions, and leave an audit line."""
    with audited(f"migrate:{','.join(revisions) or 'nothing'}"):
        store.migrate(settings.database_url)


def notices(settings: Settings, applied: Sequence[str]) -> Iterator[str]:
    """Yield what people must be told after these revisions were applied."""
    # A registry that began with this upgrade has no databases yet.
    if CLEARTEXT_RULE in applied and "0001" not in applied:
        yield from _cleartext_notice(settings)


def _cleartext_notice(settings: Settings) -> Iterator[str]:
    """Yield whom the rule may meet: which method a server asks for is stored nowhere."""
    try:
        names, sealed = _may_meet(settings)
    except FeelerError as error:
        yield f"{UNPROVED}; whom it meets is unknown: {error}"
        return
    if names:
        rest = len(names) - MOST_NAMED
        more = f" and {rest} more" if rest > 0 else ""
        yield f"{UNPROVED}. Which servers ask for one in clear"
        yield "(password, ldap, pam, radius, a cloud's token) is not known from here;"
        yield "it may be those of"
        yield f"  {', '.join(names[:MOST_NAMED])}{more}"
        yield "`feeler observe NAME` says cleartext_refused where it is so: then"
        yield "`feeler db set-url`, with sslmode=verify-full or allow_cleartext=1"
    if sealed:
        yield f"{sealed} more databases have addresses that no key opens here"


def _may_meet(settings: Settings) -> tuple[list[str], int]:
    """Return the databases that the rule may meet, and how many addresses no key opens here."""
    keys = load_keys(settings.home, settings.secret_keys, settings.secret_keys_file)
    box = SecretBox(keys)
    opened = store.open_store(settings.database_url)
    try:
        rows = fleet.read_fleet(opened).databases
    finally:
        opened.close()
    names, sealed = list[str](), 0
    for row in rows:
        address = box.readable_address(row.name, row.ciphertext)
        if address is None:
            sealed += 1
        elif _may_be_met(address):
            names.append(row.name)
    return names, sealed


def _may_be_met(address: Address) -> bool:
    """Say whether the rule keeps its password from a server; require_auth says it already."""
    return bool(address.password) and not address.tells_password and not address.require_auth
