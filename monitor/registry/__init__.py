"""What must survive: our Postgres. Only this room and alembic/env.py import sqlalchemy or alembic.

Doors and workers import its modules; every function is synchronous and raises
StoreUnavailable("postgres", ...) when Postgres does not answer.
"""
