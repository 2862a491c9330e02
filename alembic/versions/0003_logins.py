"""Logins are proved each minute, have a deadline of their own, and back off where they are refused."""

import sqlalchemy as sa

from alembic import op

revision = "0003"
down_revision = "0002"

ADDED = {"login_least": "2", "login_most": "5", "entry_interval": "30", "password_first": "60", "password_interval": "300"}


def upgrade() -> None:
    for name, default in ADDED.items():
        op.add_column("policies", sa.Column(name, sa.Double, nullable=False, server_default=default))
    op.execute("UPDATE policies SET login_interval = 60 WHERE name = 'default' AND login_interval = 300")
    op.execute("UPDATE databases SET revision = revision + 1 WHERE policy = 'default' AND status <> 'retired'")


def downgrade() -> None:
    op.execute("UPDATE policies SET login_interval = 300 WHERE name = 'default' AND login_interval = 60")
    for name in ADDED:
        op.drop_column("policies", name)
