"""A name of its own for each registry: terms that Redis has seen count for the registry that gave them alone."""

import sqlalchemy as sa

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    unique = sa.text("md5(random()::text || clock_timestamp()::text)")
    op.add_column("leadership", sa.Column("registry_name", sa.Text, nullable=False, server_default=unique))
    op.alter_column("leadership", "registry_name", server_default=None)


def downgrade() -> None:
    op.drop_column("leadership", "registry_name")
