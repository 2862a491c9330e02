"""Run migrations on the connection feeler hands over, else (the `alembic` command) on
$DATABASE_URL.

This folder has no __init__.py, ever: it would shadow the library.
"""

import os

from alembic import context
from sqlalchemy import Connection

from monitor.config import Settings
from monitor.registry.store import migration
from monitor.registry.tables import Base, include_object


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
    with migration(Settings.from_env(os.environ, stores=False).database_url) as opened:
        run(opened)
