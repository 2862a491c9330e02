"""What libpq's results say, read with suspicion. Pure; for this package alone."""

from collections.abc import Sequence
from dataclasses import dataclass

from psycopg import pq
from psycopg.pq.abc import PGresult

from monitor.feeler.causes import clean
from monitor.feeler.gauges import Query

_UNKNOWN_ERROR = b"XX000"


@dataclass(frozen=True, slots=True)
class Answer:
    """The result of one query; `code` is the SQLSTATE of an error, '' of a row."""

    query: Query
    code: str
    result: PGresult


def aborted(results: Sequence[PGresult]) -> bool:
    """Say whether an error before them kept some statements from running."""
    return bool(results) and results[-1].status == pq.ExecStatus.PIPELINE_ABORTED


def sqlstate(result: PGresult) -> str:
    """Return the code of an error, '' for an answer."""
    if result.status != pq.ExecStatus.FATAL_ERROR:
        return ""
    code = result.error_field(pq.DiagnosticField.SQLSTATE) or _UNKNOWN_ERROR
    return code[:5].decode("ascii", "replace")


def error_text(result: PGresult) -> str:
    """Return an error's code and message for people."""
    message = result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY) or result.error_message
    text = f"{sqlstate(result)}: ".encode() + message
    return clean(text, length=len(message) + 8)  # cut later, where secrets are known


def only_row(result: PGresult) -> dict[bytes | None, bytes | None]:
    """Return the row of a result that should have one; raise ValueError when it has not."""
    if result.ntuples != 1:
        raise ValueError("not one row")
    return {result.fname(column): result.get_value(0, column) for column in range(result.nfields)}
