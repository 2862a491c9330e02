"""New words for what stands here: two rules, a cause, and the policies' `unreachable_from_seconds`.

Digests stay as they are: whoever sends an old transition again sends it in the old words.
"""

import sqlalchemy as sa

from alembic import op

revision = "0004"
down_revision = "0003"

RULES = {"first_light": "first_ok", "alone": "single_observer"}
CAUSES = {"refused": "port_closed"}

# JSON is changed as text: a quote inside a string is escaped there, so a key with its value stands
# nowhere but where it is meant. Only rows that hold the word are written.
EVIDENCE = """
    UPDATE transitions
    SET evidence = CAST(replace(CAST(evidence AS text), :before, :after) AS jsonb)
    WHERE strpos(CAST(evidence AS text), :before) > 0"""
CONFLICTS = """
    UPDATE transition_conflicts SET content = replace(content, :before, :after)
    WHERE strpos(content, :before) > 0"""
RULE = "UPDATE transitions SET rule = :after WHERE rule = :before"
# A policy published under the old name counts as the default, 600: any other is published anew.
PUBLISH = """
    UPDATE databases SET revision = revision + 1
    WHERE status <> 'retired'
        AND policy IN (SELECT name FROM policies WHERE unreachable_from_seconds <> 600)"""


def upgrade() -> None:
    op.alter_column("policies", "doubter_seconds", new_column_name="unreachable_from_seconds")
    op.execute(PUBLISH)
    for before, after in RULES.items():
        _rename_rule(before, after)
    for before, after in CAUSES.items():
        _rename_cause(before, after)


def downgrade() -> None:
    for before, after in CAUSES.items():
        _rename_cause(after, before)
    for before, after in RULES.items():
        _rename_rule(after, before)
    op.execute(PUBLISH)
    op.alter_column("policies", "unreachable_from_seconds", new_column_name="doubter_seconds")


def _rename_rule(before: str, after: str) -> None:
    _execute(RULE, before, after)
    _execute(CONFLICTS, f'"rule":"{before}"', f'"rule":"{after}"')


def _rename_cause(before: str, after: str) -> None:
    _execute(EVIDENCE, f'"cause": "{before}"', f'"cause": "{after}"')
    _execute(CONFLICTS, f'"cause":"{before}"', f'"cause":"{after}"')


def _execute(statement: str, before: str, after: str) -> None:
    op.get_bind().execute(sa.text(statement), {"before": before, "after": after})
