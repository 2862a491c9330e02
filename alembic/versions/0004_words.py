"""New words for what stands here: two rules, a cause, and the policies' `unreachable_from_seconds`.

Digests stay as they are: whoever sends an old transition again sends it in the old words.
"""

import json

import sqlalchemy as sa

from alembic import op

revision = "0004"
down_revision = "0003"

RULES = {"first_light": "first_ok", "alone": "single_observer"}
CAUSE, CAUSE_NOW = "refused", "port_closed"

# JSON is changed as text: a quote inside a string is escaped there, so a key with its value stands
# nowhere but where it is meant. Only rows that hold the word are written.
EVIDENCE = """
    UPDATE transitions
    SET evidence = CAST(replace(CAST(evidence AS text), :before, :after) AS jsonb)
    WHERE strpos(CAST(evidence AS text), :before) > 0"""
CONFLICTS = """
    UPDATE transition_conflicts SET content = replace(content, :before, :after)
    WHERE strpos(content, :before) > 0"""
RULE = """
    UPDATE transitions SET rule = CAST(:words AS jsonb) ->> rule
    WHERE CAST(:words AS jsonb) ? rule"""
# A policy published under the old name counts as the default, 600: any other is published anew.
PUBLISH = """
    UPDATE databases SET revision = revision + 1
    WHERE status <> 'retired'
        AND policy IN (SELECT name FROM policies WHERE unreachable_from_seconds <> 600)"""


def upgrade() -> None:
    _rename_rules(RULES)
    _rename_cause(CAUSE, CAUSE_NOW)
    # Last: it locks the policies, and whoever reads the fleet, until the transaction ends.
    op.alter_column("policies", "doubter_seconds", new_column_name="unreachable_from_seconds")
    op.execute(PUBLISH)


def downgrade() -> None:
    _rename_rules({after: before for before, after in RULES.items()})
    _rename_cause(CAUSE_NOW, CAUSE)
    op.execute(PUBLISH)
    op.alter_column("policies", "unreachable_from_seconds", new_column_name="doubter_seconds")


def _rename_rules(words: dict[str, str]) -> None:
    _execute(RULE, words=json.dumps(words))
    for before, after in words.items():
        _execute(CONFLICTS, before=f'"rule":"{before}"', after=f'"rule":"{after}"')


def _rename_cause(before: str, after: str) -> None:
    _execute(EVIDENCE, before=f'"cause": "{before}"', after=f'"cause": "{after}"')
    _execute(CONFLICTS, before=f'"cause":"{before}"', after=f'"cause":"{after}"')


def _execute(statement: str, **values: str) -> None:
    op.get_bind().execute(sa.text(statement), values)
