"""What must survive: Postgres of ours. Only this folder (and alembic/env.py) imports sqlalchemy and
alembic.

Doors and workers import its modules; every function is synchronous and raises
StoreUnavailable("postgres", ...) when Postgres does not answer.
"""
