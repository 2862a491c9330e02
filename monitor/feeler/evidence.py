"""What a feel proves: the kept session alone, a fresh login alone, and the two together.

Pure; for this package alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from monitor.core.cause import EVIDENCE, FULL, LOCKS, Cause, Evidence
from monitor.feeler.answers import Answer, error_text
from monitor.feeler.causes import Failed

# What a fresh login may prove though the kept session answers; any other end is a login that fails.
_LOGINS_OWN = LOCKS | FULL | {Cause.STARTING}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the fast queries brought, and what that proves."""

    cause: Cause
    server_version: int = 0  # 0 where nobody was asked
    answers: tuple[Answer, ...] = ()
    detail: str = ""
    sqlstate: str = ""

    @property
    def ok(self) -> bool:
        return self.cause is Cause.OK


def of_answers(answers: Sequence[Answer], server_version: int) -> Outcome:
    """Judge a session's answers: one row is enough, and a refusal by rule is an answer."""
    answers = tuple(answers)
    if not answers or any(_is_answer(answer.code) for answer in answers):
        return Outcome(Cause.OK, server_version, answers)
    first = answers[0]
    detail = error_text(first.result)
    return Outcome(Cause.SERVER_ERROR, server_version, answers, detail, first.code)


def _is_answer(code: str) -> bool:
    refused_by_rule = code.startswith(("42", "0A"))  # no privilege, no such object or feature
    return not code or refused_by_rule


def of_failure(failed: Failed) -> Outcome:
    """Return what a step proves that failed."""
    return Outcome(failed.cause, detail=failed.detail, sqlstate=failed.sqlstate)


def beside_failed_login(kept: Outcome, failed: Failed) -> Outcome:
    """Return what it proves that a login failed and the kept session answered."""
    return replace(
        kept,
        cause=cause_beside_kept(failed.cause),
        detail=failed.detail,
        sqlstate=failed.sqlstate,
    )


def with_report(kept: Outcome, failed: Failed | None) -> Outcome:
    """Return what it proves that others' logins fail so, or (None) work, and we are answered."""
    if failed is None:
        return kept
    return beside_failed_login(kept, failed)


def cause_beside_kept(login: Cause) -> Cause:
    """Name what a feel proves when the kept session answered and a fresh login ended so."""
    if EVIDENCE[login] is Evidence.OUR_FAULT:
        return Cause.OK  # our own fault says nothing, and the kept session spoke
    if login in _LOGINS_OWN:
        return login
    return Cause.LOGIN_FAILING


def without_login(kept: Outcome) -> Outcome:
    """Return what a session's answers prove where a login was wanted and none could be tried."""
    if not kept.ok:
        return kept
    return replace(kept, cause=Cause.LOGIN_NOT_PROVED)


def under_refusal(alive: Outcome, refusal: Outcome) -> Outcome:
    """Return what a sign of life proves while logins are refused and none may be tried."""
    if not alive.ok:
        return alive
    return replace(
        alive,
        cause=refusal.cause,
        detail=refusal.detail,
        sqlstate=refusal.sqlstate,
    )


def is_negative(cause: Cause) -> bool:
    """Say whether this speaks against the database: it is absent, or silent."""
    return EVIDENCE[cause] in (Evidence.ABSENT, Evidence.SILENT)


def is_our_fault(cause: Cause) -> bool:
    """Say whether this proves nothing about the database."""
    return EVIDENCE[cause] is Evidence.OUR_FAULT
