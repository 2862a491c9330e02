"""The tables of our Postgres. Only registry/ and alembic/env.py import this.

`samples` is partitioned by UTC day; `samples.ensure_partitions` makes the partitions, migrations
never see them.
"""

import re
from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Computed,
    DateTime,
    Double,
    ForeignKey,
    Identity,
    Integer,
    LargeBinary,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    func,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeEngine

from monitor.core.observation import GAUGES, Gauge

_PARTITION = re.compile(r"samples_(\d{8}|default)\Z")
BYTEWISE = Text(collation="C")  # names sort the same on every server, and as in Python


class Base(DeclarativeBase):
    """Where every table registers."""

    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy reads it as a plain dict
        str: Text,
        int: BigInteger,
        float: Double,
        bytes: LargeBinary,
        datetime: DateTime(timezone=True),
        dict[str, str]: JSONB,
        list[dict[str, Any]]: JSONB,
        list[str]: ARRAY(Text),
    }


class Policies(Base):
    """How databases are felt: the fields of core's Policy."""

    __tablename__ = "policies"

    name: Mapped[str] = mapped_column(primary_key=True)
    interval: Mapped[float]
    deadline: Mapped[float]
    fast_interval: Mapped[float]
    fast_seconds: Mapped[float]
    bad_interval: Mapped[float]
    login_interval: Mapped[float]
    # An older version that runs beside writes rows without these.
    login_least: Mapped[float] = mapped_column(server_default="2")
    login_most: Mapped[float] = mapped_column(server_default="5")
    entry_interval: Mapped[float] = mapped_column(server_default="30")
    password_first: Mapped[float] = mapped_column(server_default="60")
    password_interval: Mapped[float] = mapped_column(server_default="300")
    slow_interval: Mapped[float]
    absent_rounds: Mapped[int] = mapped_column(Integer)
    absent_seconds: Mapped[float]
    silent_rounds: Mapped[int] = mapped_column(Integer)
    silent_seconds: Mapped[float]
    alone_seconds: Mapped[float]
    recovery_rounds: Mapped[int] = mapped_column(Integer)
    recovery_seconds: Mapped[float]
    opinion_grace: Mapped[float]
    handover_grace: Mapped[float]
    unreachable_from_seconds: Mapped[float]


class Databases(Base):
    """The fleet. Rows are never deleted and names never change: history hangs on them."""

    __tablename__ = "databases"
    __table_args__ = (
        CheckConstraint("status IN ('active', 'paused', 'retired')", name="databases_status_known"),
        CheckConstraint(
            "(status = 'retired') = (ciphertext = '')", name="databases_retired_without_address"
        ),
    )

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    name: Mapped[str] = mapped_column(BYTEWISE, unique=True)
    ciphertext: Mapped[str]  # of the URL; the keys are never in here
    labels: Mapped[dict[str, str]]
    policy: Mapped[str] = mapped_column(ForeignKey(Policies.name))
    zone: Mapped[str] = mapped_column(server_default="")
    status: Mapped[str] = mapped_column(server_default="active")
    revision: Mapped[int] = mapped_column(server_default="1")  # one higher with each change
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Leadership(Base):
    """One row for ever: who leads, in which term, until when by Postgres's clock."""

    __tablename__ = "leadership"
    __table_args__ = (CheckConstraint("id = 1", name="leadership_single_row"),)

    id: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    term: Mapped[int]
    owner: Mapped[str]
    expires_at: Mapped[datetime]
    registry_name: Mapped[str]  # the name of this registry, for ever


class Transitions(Base):
    """Every change of state, once. `version` numbers them along `prev`; a row off the chain has
    none.
    """

    __tablename__ = "transitions"
    __table_args__ = (
        UniqueConstraint(
            "database_name", "epoch_term", "epoch_counter", "n", name="transitions_identity"
        ),
        # Deferrable, so that it is checked after each statement and not after each row: one UPDATE
        # renumbers a chain.
        UniqueConstraint("database_name", "version", name="transitions_version", deferrable=True),
    )

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    database_name: Mapped[str] = mapped_column(
        BYTEWISE
    )  # no foreign key: an event of an unknown name must not hold up the others
    epoch_term: Mapped[int]
    epoch_counter: Mapped[int]
    n: Mapped[int]
    prev_term: Mapped[int | None]
    prev_counter: Mapped[int | None]
    prev_n: Mapped[int | None]
    version: Mapped[int | None]
    superseded: Mapped[bool] = mapped_column(Computed("version IS NULL", persisted=True))
    source: Mapped[str]
    target: Mapped[str]
    rule: Mapped[str]
    evidence: Mapped[list[dict[str, Any]]]
    observers: Mapped[list[str]]
    worker: Mapped[str]
    at: Mapped[datetime]
    recorded_at: Mapped[datetime] = mapped_column(server_default=func.now())
    digest: Mapped[bytes]  # SHA-256 of the canonical JSON: tells a replay from a contradiction


class TransitionConflicts(Base):
    """Events that came under an identity already taken by another content: kept, counted, never
    mixed in.
    """

    __tablename__ = "transition_conflicts"
    __table_args__ = (
        UniqueConstraint(
            "database_name",
            "epoch_term",
            "epoch_counter",
            "n",
            "digest",
            name="transition_conflicts_once",
        ),
    )

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    database_name: Mapped[str] = mapped_column(BYTEWISE)
    epoch_term: Mapped[int]
    epoch_counter: Mapped[int]
    n: Mapped[int]
    content: Mapped[str]  # the canonical JSON as it came
    digest: Mapped[bytes]
    recorded_at: Mapped[datetime] = mapped_column(server_default=func.now())


def _type(gauge: Gauge) -> TypeEngine[Any]:
    if gauge.name == "role":
        return Text()
    return Double() if gauge.is_fraction else BigInteger()


Samples = Table(
    "samples",
    Base.metadata,
    # No foreign key: ids come from a join with databases, whose rows are never deleted; a check
    # costs CPU per row.
    Column("database_id", BigInteger, primary_key=True, autoincrement=False),
    Column("observed_at", DateTime(timezone=True), primary_key=True),
    Column("state", Text, nullable=False),
    Column("worker", Text, nullable=False),
    *(Column(gauge.name, _type(gauge)) for gauge in GAUGES.values()),
    postgresql_partition_by="RANGE (observed_at)",
)


def include_object(
    _object: object, name: str | None, type_: str, _reflected: bool, _other: object
) -> bool:
    """Keep alembic's comparison away from partitions."""
    return not (type_ == "table" and name and _PARTITION.match(name))
