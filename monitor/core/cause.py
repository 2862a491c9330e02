"""Why a feel ended as it did: a closed list of causes, each in one of five classes of evidence.

The codes are PostgreSQL's SQLSTATEs (documentation, appendix A). Anyone may import this.
"""

from enum import StrEnum

from monitor.core.foreign import OpenWord


class Evidence(StrEnum):
    """What one feel proves about the database."""

    OK = "ok"  # logged in, the probe query answered
    ALIVE = "alive"  # the server spoke: it is not down
    ABSENT = "absent"  # the host answers, the service does not
    SILENT = "silent"  # nothing answers
    OUR_FAULT = "our_fault"  # our own fault: says nothing about the database


class Cause(OpenWord):
    """The list of causes; texts of servers never become one. A newer version's prove nothing."""

    OK = "ok"
    STARTING = "starting"
    REFUSING = "refusing"
    ROLE_FULL = "role_full"  # the role's connection limit
    DATABASE_FULL = "database_full"  # the database's
    POOLER_WAITING = "pooler_waiting"  # a pooler answers, and no server connection of its for us
    # The kept session answers, or a proof was asked for; no login ends.
    LOGIN_FAILING = "login_failing"
    LOGIN_NOT_PROVED = "login_not_proved"  # the kept session answers; no login could be tried
    LOCKED_OUT = "locked_out"  # asks for what we cannot do, or turns us away in another way
    WRONG_PASSWORD = "wrong_password"  # noqa: S105 (a name)
    NOT_ADMITTED = "not_admitted"  # no such role, NOLOGIN
    NO_ENTRY = "no_entry"  # pg_hba.conf turns us away
    NO_DATABASE = "no_database"
    CLOSED = "closed"  # allow_connections false
    NO_PRIVILEGE = "no_privilege"  # no CONNECT on the database
    NO_TLS = "no_tls"  # we want TLS, the server has none
    # the server wants the password in clear, and TLS does not prove who it is
    CLEARTEXT_REFUSED = "cleartext_refused"
    UNTRUSTED = "untrusted"  # its certificate is not trusted, or it does not trust ours
    SERVER_ERROR = "server_error"
    PORT_CLOSED = "port_closed"
    RESET = "reset"  # closed or reset in the handshake
    CONNECT_TIMEOUT = "connect_timeout"
    QUERY_TIMEOUT = "query_timeout"
    HUNG = "hung"  # TCP accepts, the server never answers
    UNREACHABLE = "unreachable"
    DNS = "dns"
    DESCRIPTORS = "descriptors"
    LATE_LOOP = "late_loop"
    MISSING_FILE = "missing_file"
    SEVERED = "severed"
    NO_CREDENTIALS = "no_credentials"
    NO_CAPACITY = "no_capacity"  # refused: the worker holds as many databases as it can
    BYTE_BUDGET = "byte_budget"
    NAME_MOVED = "name_moved"  # the name has left the address while we tried it


# No slot is left: on the server, for the role, for the database, in the pool.
FULL = frozenset({Cause.REFUSING, Cause.ROLE_FULL, Cause.DATABASE_FULL, Cause.POOLER_WAITING})

# The server speaks, and lets nobody in as us until somebody changes something.
LOCKS = frozenset(
    {
        Cause.LOCKED_OUT,
        Cause.WRONG_PASSWORD,
        Cause.NOT_ADMITTED,
        Cause.NO_ENTRY,
        Cause.NO_DATABASE,
        Cause.CLOSED,
        Cause.NO_PRIVILEGE,
        Cause.NO_TLS,
        Cause.CLEARTEXT_REFUSED,
        Cause.UNTRUSTED,
    }
)

_KNOWN: dict[Cause, Evidence] = {
    Cause.OK: Evidence.OK,
    Cause.STARTING: Evidence.ALIVE,
    **dict.fromkeys(FULL, Evidence.ALIVE),
    Cause.LOGIN_FAILING: Evidence.ALIVE,
    Cause.LOGIN_NOT_PROVED: Evidence.ALIVE,
    **dict.fromkeys(LOCKS, Evidence.ALIVE),
    Cause.SERVER_ERROR: Evidence.ALIVE,
    Cause.PORT_CLOSED: Evidence.ABSENT,
    Cause.RESET: Evidence.ABSENT,
    Cause.CONNECT_TIMEOUT: Evidence.SILENT,
    Cause.QUERY_TIMEOUT: Evidence.SILENT,
    Cause.HUNG: Evidence.SILENT,
    Cause.UNREACHABLE: Evidence.SILENT,
    Cause.DNS: Evidence.SILENT,
    Cause.DESCRIPTORS: Evidence.OUR_FAULT,
    Cause.LATE_LOOP: Evidence.OUR_FAULT,
    Cause.MISSING_FILE: Evidence.OUR_FAULT,
    Cause.SEVERED: Evidence.OUR_FAULT,
    Cause.NO_CREDENTIALS: Evidence.OUR_FAULT,
    Cause.NO_CAPACITY: Evidence.OUR_FAULT,
    Cause.BYTE_BUDGET: Evidence.OUR_FAULT,
    Cause.NAME_MOVED: Evidence.OUR_FAULT,
}


class _Evidence(dict[Cause, Evidence]):
    def __missing__(self, cause: Cause) -> Evidence:
        # A cause of a newer version: whatever it means, it proves nothing here.
        return Evidence.OUR_FAULT


EVIDENCE = _Evidence(_KNOWN)

_BY_SQLSTATE = {
    "57P03": Cause.STARTING,  # cannot_connect_now
    "53300": Cause.REFUSING,  # too_many_connections
    "28P01": Cause.WRONG_PASSWORD,  # invalid_password
    "28000": Cause.NOT_ADMITTED,  # invalid_authorization_specification
    "3D000": Cause.NO_DATABASE,  # invalid_catalog_name
    "55000": Cause.CLOSED,  # object_not_in_prerequisite_state (sent at login)
    "42501": Cause.NO_PRIVILEGE,  # insufficient_privilege (sent at login)
}

# One code, several reasons: the server's routine that raised it tells them apart in any language.
_BY_ROUTINE = {
    ("53300", "InitializeSessionUserId"): Cause.ROLE_FULL,
    ("53300", "CheckMyDatabase"): Cause.DATABASE_FULL,
    ("28000", "ClientAuthentication"): Cause.NO_ENTRY,
}


def cause_of_sqlstate(sqlstate: str, routine: str = "") -> Cause:
    """Name the cause of an error the server itself sent; whatever its code, the server spoke."""
    return _BY_ROUTINE.get((sqlstate, routine)) or _BY_SQLSTATE.get(sqlstate, Cause.SERVER_ERROR)
