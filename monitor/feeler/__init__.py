"""Postgres in, observations out: the one home of psycopg. Workers and the CLI use `session`,
`probe` and `login`.

session   one database's kept connection, and what a feel of it proves
login     names, TCP, TLS, authentication: from an address to a Wire
wire      a logged-in connection driven by the event loop
causes    how an ending is told from another: SQLSTATE and errno, never English text
gauges    queries/*.sql and the readings their rows become
"""
