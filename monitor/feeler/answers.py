"""What libpq's results say, read with suspicion. Pure; for this package alone."""

from collections.abc import Sequence
from dataclasses import dataclass

from psycopg import pq
from psycopg.pq.abc import PGresult

from monitor.core.cause import Cause
from monitor.feeler.causes import clean
from monitor.feeler.gauges import Query


@dataclass(frozen=True, slots=True)
class Answer:
    """The result of one query; `code` is the SQLSTATE of an error, '' of a row."""

    query: Query
    code: str
    result: PGresult


@dataclass(frozen=True, slots=True)
class Answers:
    """What the fast queries brought, and what that proves."""

    cause: Cause
    server_version: int
    answers: tuple[Answer, ...] = ()
    detail: str = ""
    sqlstate: str = ""


def judge(answers: tuple[Answer, ...], server_version: int) -> Answers:
    """Say what the answers prove: one row is enough, and a refusal by rule is an answer."""
    if not answers or any(
        not answer.code or answer.code.startswith(("42", "0A")) for answer in answers
    ):
        return Answers(Cause.OK, server_version, answers)
    return Answers(
        Cause.SERVER_ERROR, server_version, answers, words(answers[0].result), answers[0].code
    )


def aborted(results: Sequence[PGresult]) -> bool:
    """Say whether an error before them kept some statements from running."""
    return results[-1].status == pq.ExecStatus.PIPELINE_ABORTED if results else False


def sqlstate(result: PGresult) -> str:
    """Return the code of an error, '' for an answer."""
    if result.status != pq.ExecStatus.FATAL_ERROR:
        return ""
    return (result.error_field(pq.DiagnosticField.SQLSTATE) or b"XX000")[:5].decode(
        "ascii", "replace"
    )


def words(result: PGresult) -> str:
    """Return an error's code and message for people."""
    message = result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY) or result.error_message
    return clean(
        f"{sqlstate(result)}: ".encode() + message, length=len(message) + 8
    )  # cut where secrets are known


def only_row(result: PGresult) -> dict[bytes | None, bytes | None]:
    """Return the row of a result that should have one; raise ValueError when it has not."""
    if result.ntuples != 1:
        raise ValueError("not one row")
    return {result.fname(column): result.get_value(0, column) for column in range(result.nfields)}
