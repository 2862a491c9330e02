"""Postgres in, Observations out: the one home of psycopg.

Workers and the CLI use `session`; workers also share `login`'s limits and name the urgency of a
proof (`login_queue`).

session      one database felt: which signal to ask, and what it proves
signals      the two signals: the kept session, and a login beside or instead of it
evidence     what each of them proves, and both together
reader       what a database is asked, and the readings its answers become (gauges, queries/*.sql)
login        from an address to a connection: names, TCP, TLS, authentication
wire         a logged-in connection driven by the event loop
admission    whose turn it is at an address, and results that all who come there share
login_queue  whose turn it is to prove a login beside a session, per role and server
servers      what one process's logins learn about a server, for all who keep a session there
backoff      our own storms at a server without a free slot
liveness     proof of life without a login
pooler       whether a pooler is between, and what its silence is worth
keeping      how long a kept session is worth keeping
name_watch   whether the host's name still leads to where we are; names looks it up
threads      what answers a server's authentication, away from the loop, and bounded
causes       how an ending is told from another: SQLSTATE and errno, never English text
"""
