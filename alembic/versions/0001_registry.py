"""The registry: fleet, policies, leadership, transitions, samples.

The seeds are literals: a migration must do tomorrow what it did today.
"""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from alembic import op

revision = "0001"
down_revision = None

MOMENT = sa.DateTime(timezone=True)
BYTEWISE = sa.Text(collation="C")
DEFAULT_POLICY = {
    "name": "default",
    "interval": 5.0,
    "deadline": 2.0,
    "fast_interval": 1.0,
    "fast_seconds": 60.0,
    "bad_interval": 2.0,
    "login_interval": 300.0,
    "slow_interval": 60.0,
    "absent_rounds": 2,
    "absent_seconds": 2.0,
    "silent_rounds": 3,
    "silent_seconds": 10.0,
    "alone_seconds": 30.0,
    "recovery_rounds": 2,
    "recovery_seconds": 2.0,
    "opinion_grace": 2.0,
    "handover_grace": 10.0,
    "doubter_seconds": 600.0,
}


def _key() -> sa.Column:
    return sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True)


def _now(name: str) -> sa.Column:
    return sa.Column(name, MOMENT, nullable=False, server_default=sa.func.now())


def _identity() -> list[sa.Column]:
    return [
        sa.Column("database_name", BYTEWISE, nullable=False),
        sa.Column("epoch_term", sa.BigInteger, nullable=False),
        sa.Column("epoch_counter", sa.BigInteger, nullable=False),
        sa.Column("n", sa.BigInteger, nullable=False),
    ]


def upgrade() -> None:
    _fleet()
    _leadership()
    _transitions()
    _samples()


def _fleet() -> None:
    policies = op.create_table(
        "policies",
        sa.Column("name", sa.Text, primary_key=True),
        *(
            sa.Column(name, sa.Integer if isinstance(value, int) else sa.Double, nullable=False)
            for name, value in DEFAULT_POLICY.items()
            if name != "name"
        ),
    )
    op.bulk_insert(policies, [DEFAULT_POLICY])
    op.create_table(
        "databases",
        _key(),
        sa.Column("name", BYTEWISE, nullable=False, unique=True),
        sa.Column("ciphertext", sa.Text, nullable=False),
        sa.Column("labels", JSONB, nullable=False),
        sa.Column("policy", sa.Text, sa.ForeignKey("policies.name"), nullable=False),
        sa.Column("zone", sa.Text, nullable=False, server_default=""),
        sa.Column("status", sa.Text, nullable=False, server_default="active"),
        sa.Column("revision", sa.BigInteger, nullable=False, server_default="1"),
        _now("created_at"),
        sa.CheckConstraint("status IN ('active', 'paused', 'retired')", name="databases_status_known"),
        sa.CheckConstraint("(status = 'retired') = (ciphertext = '')", name="databases_retired_without_address"),
    )


def _leadership() -> None:
    leadership = op.create_table(
        "leadership",
        sa.Column("id", sa.SmallInteger, primary_key=True, autoincrement=False),
        sa.Column("term", sa.BigInteger, nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("expires_at", MOMENT, nullable=False),
        sa.CheckConstraint("id = 1", name="leadership_single_row"),
    )
    op.execute(sa.insert(leadership).values(id=1, term=0, owner="", expires_at=sa.func.now()))


def _transitions() -> None:
    op.create_table(
        "transitions",
        _key(),
        *_identity(),
        sa.Column("prev_term", sa.BigInteger),
        sa.Column("prev_counter", sa.BigInteger),
        sa.Column("prev_n", sa.BigInteger),
        sa.Column("version", sa.BigInteger),
        sa.Column("superseded", sa.Boolean, sa.Computed("version IS NULL", persisted=True), nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("target", sa.Text, nullable=False),
        sa.Column("rule", sa.Text, nullable=False),
        sa.Column("evidence", JSONB, nullable=False),
        sa.Column("observers", ARRAY(sa.Text), nullable=False),
        sa.Column("worker", sa.Text, nullable=False),
        sa.Column("at", MOMENT, nullable=False),
        _now("recorded_at"),
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.UniqueConstraint("database_name", "epoch_term", "epoch_counter", "n", name="transitions_identity"),
        sa.UniqueConstraint("database_name", "version", name="transitions_version", deferrable=True),
    )
    op.create_table(
        "transition_conflicts",
        _key(),
        *_identity(),
        sa.Column("content", sa.Text, nullable=False),
        sa.Column("digest", sa.LargeBinary, nullable=False),
        _now("recorded_at"),
        sa.UniqueConstraint(
            "database_name", "epoch_term", "epoch_counter", "n", "digest", name="transition_conflicts_once"
        ),
    )


def _samples() -> None:
    op.create_table(
        "samples",
        sa.Column("database_id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("observed_at", MOMENT, primary_key=True),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("worker", sa.Text, nullable=False),
        sa.Column("connections", sa.BigInteger),
        sa.Column("connections_max", sa.BigInteger),
        sa.Column("longest_transaction", sa.Double),
        sa.Column("longest_idle_in_transaction", sa.Double),
        sa.Column("blocked_sessions", sa.BigInteger),
        sa.Column("cache_hit_rate", sa.Double),
        sa.Column("xact_rate", sa.Double),
        sa.Column("xid_age", sa.BigInteger),
        sa.Column("role", sa.Text),
        sa.Column("replication_lag", sa.Double),
        sa.Column("server_version_num", sa.BigInteger),
        sa.Column("row_count", sa.BigInteger),
        sa.Column("table_count", sa.BigInteger),
        sa.Column("seq_scans", sa.BigInteger),
        sa.Column("index_scans", sa.BigInteger),
        sa.Column("db_size", sa.BigInteger),
        postgresql_partition_by="RANGE (observed_at)",
    )


def downgrade() -> None:
    for table in ("samples", "transition_conflicts", "transitions", "leadership", "databases", "policies"):
        op.drop_table(table)
