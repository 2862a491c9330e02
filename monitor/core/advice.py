"""What to do next about a cause, for people. Anyone may import this.

Every cause has its advice: a test compares the table with core/cause.py.
"""

from monitor.core.cause import Cause

ADVICE: dict[Cause, str] = {
    Cause.OK: "",
    Cause.STARTING: (
        "The server is starting up, recovering or shutting down. Wait; read its log if it does "
        "not end."
    ),
    Cause.REFUSING: (
        "The server has no slot left for us. Close idle sessions, or raise max_connections."
    ),
    Cause.ROLE_FULL: (
        "The role has no connection left. ALTER ROLE ... CONNECTION LIMIT: per server, feeler "
        "needs one for each database it watches there, and two for each worker: to prove "
        "logins, and to look at another's database."
    ),
    Cause.DATABASE_FULL: (
        "The database has no connection left. ALTER DATABASE ... CONNECTION LIMIT, or close "
        "sessions."
    ),
    Cause.POOLER_WAITING: (
        "The pooler answers and gives us no server connection: its pool is used up or paused, "
        "or the server behind it is down. Look at SHOW POOLS and SHOW SERVERS on its console, "
        "then at the server itself."
    ),
    Cause.LOGIN_FAILING: (
        "The server speaks, sessions that were open may still work, and new logins fail: so "
        "will applications that reconnect. Look at the server's log and processes, and at a "
        "pooler between."
    ),
    Cause.LOGIN_NOT_PROVED: (
        "Sessions that were open still work. Whether new logins do is not known yet: they wait "
        "for their turn, or the server has no slot to try one. If that stays, give the role a "
        "higher CONNECTION LIMIT."
    ),
    Cause.LOCKED_OUT: (
        "The server does not let feeler in: it asks for a way to prove who we are that feeler "
        "does not have or does not use here. Check its pg_hba.conf; a password in clear takes "
        "sslmode=verify-full or allow_cleartext=1. A new address goes in with `feeler db "
        "set-url NAME -`."
    ),
    Cause.WRONG_PASSWORD: (
        "The server refuses this password. Give the right one: `feeler db set-url NAME -`."
    ),
    Cause.NOT_ADMITTED: (
        "The server does not admit this role: there is no such role, or it may not log in "
        "(NOLOGIN)."
    ),
    Cause.NO_ENTRY: (
        "pg_hba.conf turns us away, or has no line for role, database, the worker's address and "
        "TLS."
    ),
    Cause.NO_DATABASE: (
        "The server has no database of this name. Give the right one: `feeler db set-url NAME -`."
    ),
    Cause.CLOSED: "This database takes no connections: ALTER DATABASE ... ALLOW_CONNECTIONS true.",
    Cause.NO_PRIVILEGE: (
        "The role may not enter this database: GRANT CONNECT ON DATABASE ... TO ..."
    ),
    Cause.NO_TLS: (
        "The URL wants TLS and the server has none. Turn ssl on there, or choose another sslmode."
    ),
    Cause.CLEARTEXT_REFUSED: (
        "The server asks for the password in clear (password, ldap, pam, radius, a cloud's "
        "token), and nothing proves that it is yours: use sslmode=verify-full, or add "
        "allow_cleartext=1 to the URL."
    ),
    Cause.UNTRUSTED: (
        "The server's certificate is not trusted: it expired, names another host, or another CA "
        "signed it. Renew it, or give the right CA as sslrootcert."
    ),
    Cause.SERVER_ERROR: (
        "The server answers every question with an error. Look its code up in the server's log."
    ),
    Cause.PORT_CLOSED: (
        "The host answers and nothing listens on this port. Start the server, or check the port."
    ),
    Cause.RESET: (
        "The connection is cut before the server speaks. It may be crashing (its log says so), "
        "a proxy or a firewall may do it, or it is no Postgres."
    ),
    Cause.CONNECT_TIMEOUT: (
        "Nothing answers at this address. Check host, security group, firewall and route."
    ),
    Cause.QUERY_TIMEOUT: (
        "The server took the login and does not answer the probe. Look for locks, slow I/O, a "
        "full disk."
    ),
    Cause.HUNG: (
        "The port is open and the server says nothing. It may hang, or a proxy has lost its "
        "backend."
    ),
    Cause.UNREACHABLE: (
        "There is no way to this address from the worker. Check route, firewall and network."
    ),
    Cause.DNS: (
        "The host name does not resolve on the worker. Check the name and the worker's resolver."
    ),
    Cause.DESCRIPTORS: (
        "Our fault: the worker is out of descriptors, ports or memory. Raise `ulimit -n`, or "
        "start more workers."
    ),
    Cause.LATE_LOOP: (
        "Our fault: the worker was too busy to look in time. Give it more CPU, or start more "
        "workers."
    ),
    Cause.MISSING_FILE: (
        "Our fault: the CA file that sslrootcert names is missing or unreadable in "
        "FEELER_CA_DIR on this worker."
    ),
    Cause.SEVERED: "Our fault: the worker gave its look up. If that stays, read the worker's log.",
    Cause.NO_CAPACITY: (
        "Our fault: the worker holds as many databases as it can. Start more workers, or raise "
        "FEELER_CAPACITY and `ulimit -n` (two open files a database)."
    ),
    Cause.NO_CREDENTIALS: (
        "Our fault: the address holds no password, or opens with no key of ours. Check "
        "FEELER_SECRET_KEYS of all processes, else give the address anew: `feeler db set-url "
        "NAME -`."
    ),
    Cause.NAME_MOVED: (
        "The host name leads to another address since a moment ago: the next look goes there."
    ),
    Cause.BYTE_BUDGET: (
        "Our limit: it sent far more than a probe needs, and nothing of it was believed. Check "
        "that it is a Postgres."
    ),
}


def advice(cause: Cause) -> str:
    """Return what to do next, '' where nothing is wrong."""
    return ADVICE.get(cause, "")


def grant(role: str) -> str:
    """Return the statement that ends a `denied`; for an unknown role, with a gap to fill."""
    simple = role.isascii() and role.isidentifier() and role == role.lower()
    quoted = role if simple else '"' + role.replace('"', '""') + '"'
    return f"GRANT pg_monitor TO {quoted if role else '...'};"
