"""Run migrations on the connection feeler hands over, else (the `alembic` command) on
$DATABASE_URL.

This folder has no __init__.py, ever: it would shadow the library.
"""

import os

from alembic import context
from sqlalchemy import Connection

from monitor.config import Settings
from monitor.registry.store import open_store
from monitor.registry.tables import Base, include_object

LONGEST = 86_400.0  # seconds: a step may rewrite a history of years


def run(connection: Connection) -> None:
    """Run what alembic was asked for, in one transaction that the caller commits."""
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        include_object=include_object,
        compare_server_default=True,
    )
    context.run_migrations()


if context.is_offline_mode():
    raise SystemExit("feeler's migrations run on a live database only")
given = context.config.attributes.get("connection")
if given is not None:
    run(given)
else:
    store = open_store(Settings.from_env(os.environ, stores=False).database_url)
    try:
        with store.begin(seconds=LONGEST) as opened:
            opened.exec_driver_sql("SET LOCAL statement_timeout = 0")
            run(opened)
    finally:
        store.close()
