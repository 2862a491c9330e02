"""Every error as an RFC 9457 problem; none repeats what was sent. web/ alone imports this."""

import json
import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import TypeAdapter
from starlette.exceptions import HTTPException
from starlette.types import Scope

from monitor.core.errors import (
    AlreadyExists,
    FeelerError,
    InvalidInput,
    NotFound,
    Outdated,
    StoreUnavailable,
    Unreadable,
)
from monitor.shapes import ErrorShape, ProblemShape

# Whoever pastes a URL in the wrong place does not get it back.
_QUOTABLE = re.compile(r"[A-Za-z0-9_.-]{1,63}\Z")
PATH = re.compile(r"[A-Za-z0-9_./-]{1,200}\Z")

_CONTENT = {"application/problem+json": {"schema": TypeAdapter(ProblemShape).json_schema()}}
DOCUMENTED: dict[int | str, dict[str, Any]] = {
    "4XX": {"description": "A problem with the request", "content": _CONTENT},
    "5XX": {"description": "A problem of ours", "content": _CONTENT},
}


class Problem(Exception):
    """An answer other than the wanted one."""

    def __init__(
        self,
        status: int,
        slug: str,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        errors: Sequence[tuple[str, str]] = (),
    ) -> None:
        super().__init__(slug)
        self.status, self.slug, self.detail = status, slug, detail
        self.headers, self.errors = dict(headers or {}), errors


def unknown_database(name: str) -> Problem:
    """Return the 404 of a database feeler does not know."""
    called = f" named {name}" if quotable(name) else " of this name"
    detail = f"There is no database{called}. `feeler db add` registers one."
    return Problem(404, "unknown-database", detail)


def unreadable_database(name: str) -> Problem:
    """Return the 503 of a database whose row this version cannot read; a store knows `name`."""
    why = "a newer one wrote it, or it is damaged"
    detail = f"This version cannot read what is stored of {name}: {why}."
    return Problem(503, "unreadable", f"{detail} Nothing is known to be wrong with your database.")


def rebuilding() -> Problem:
    """Return the 503 of a name that a Redis which lost its data may learn again within seconds."""
    sources = "from what workers and registry remember"
    detail = f"Redis is new or being rebuilt by a supervisor, {sources}. Ask again."
    return Problem(503, "rebuilding", detail, headers={"Retry-After": "2"})


def quotable(text: str) -> bool:
    """Say whether a text from the request may be repeated in an answer."""
    return bool(_QUOTABLE.match(text))


def response_to(scope: Scope, problem: Problem) -> Response:
    """Return the response a problem makes."""
    path = str(scope.get("path", ""))
    errors: list[ErrorShape] = [
        {"pointer": pointer, "detail": detail} for pointer, detail in problem.errors
    ]
    body: ProblemShape = {
        "type": f"urn:feeler:problem:{problem.slug}",
        "title": problem.slug.replace("-", " ").capitalize(),
        "status": problem.status,
        "detail": problem.detail,
        "instance": path if PATH.match(path) else "",
        "request_id": str(scope.get("state", {}).get("request_id", "")),
        "errors": errors,
    }
    return Response(json.dumps(body), problem.status, problem.headers, "application/problem+json")


def install(app: FastAPI) -> None:
    """Make every error of the app a problem."""
    for kind in (Problem, FeelerError, HTTPException, RequestValidationError):
        app.add_exception_handler(kind, _handle)


async def _handle(request: Request, error: Exception) -> Response:
    return response_to(request.scope, problem_of(error))


def problem_of(error: Exception) -> Problem:
    """Translate an error; what nobody expected becomes a 500 that tells nothing."""
    problem = Problem(500, "internal-error", "The web's log has the details under this request_id.")
    match error:
        case Problem():
            problem = error
        case Outdated():
            detail = f"Somebody changed this {error.kind} since that revision. Read it again."
            problem = Problem(412, "precondition-failed", detail)
        case Unreadable():
            problem = unreadable_database(error.name)
        case FeelerError():
            problem = _of_feeler(error) or problem
        case RequestValidationError():
            problem = _invalid_request(error)
        case HTTPException():
            phrase = HTTPStatus(error.status_code).phrase
            slug = phrase.lower().replace(" ", "-")
            problem = Problem(error.status_code, slug, f"{phrase}.", headers=error.headers)
    return problem


def _of_feeler(error: FeelerError) -> Problem | None:
    match error:
        case InvalidInput():
            detail = error.problem + (f" ({error.fix})" if error.fix else "")
            return _unchanged([(f"/{error.field}", detail)])
        case NotFound(kind="database"):
            return unknown_database(error.name)
        case NotFound():  # what a body refers to
            return _unchanged([(f"/{error.kind}", f"there is no such {error.kind}")])
        case AlreadyExists():
            detail = f"The name of this {error.kind} is taken."
            patch = "PATCH changes what is registered under it."
            return Problem(409, "already-exists", f"{detail} {patch}")
        case StoreUnavailable():
            detail = f"{error.store.capitalize()} does not answer."
            yours = "Nothing is known to be wrong with your databases."
            retry = {"Retry-After": "2"}
            return Problem(503, "store-unavailable", f"{detail} {yours}", headers=retry)
    return None


def _unchanged(errors: Sequence[tuple[str, str]]) -> Problem:
    return Problem(422, "invalid-input", "Nothing was changed.", errors=errors)


def _invalid_request(error: RequestValidationError) -> Problem:
    errors = [_pointer(item["loc"], item["type"], item["msg"]) for item in error.errors()]
    if any(item["loc"][0] == "body" for item in error.errors()):
        return _unchanged(errors)
    detail = "A parameter of the request is not usable."
    return Problem(400, "invalid-parameter", detail, errors=errors)


def _pointer(location: Sequence[str | int], kind: str, message: str) -> tuple[str, str]:
    """Name the place of an error, but no key we did not ask for: it may be a secret gone astray."""
    parts = [str(part) for part in location[1:]]
    if kind == "extra_forbidden":
        return "/" + "/".join(parts[:-1]), "holds a field that is not known here"
    named = (part if quotable(part) else "*" for part in parts)
    return "/" + "/".join(named), message
