"""Who may come in, and what every answer carries: one ASGI layer around the whole app.

Deny by default: all but PUBLIC needs the token, except for reading on loopback. Imported by
app.py, and by http_limits and databases for a constant each.
"""

import hmac
import logging
import re
import traceback
from uuid import uuid4

from fastapi.security import HTTPBearer
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from monitor.config import Settings, is_loopback
from monitor.web.problems import PATH, Problem, problem_of, response_to

MAX_BODY = 65_536  # bytes
PUBLIC = frozenset({"/livez", "/readyz"})
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
REFUSED = frozenset({401, 403})
# For OpenAPI: Guard does the checking.
BEARER = HTTPBearer(auto_error=False, description="FEELER_TOKEN")
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}\Z")
_FORWARDED = re.compile(r"[0-9A-Fa-f.:, ]{1,200}\Z")
_log, _audit_log = logging.getLogger("feeler.web"), logging.getLogger("feeler.audit")
_audit_log.setLevel(logging.INFO)  # whatever FEELER_LOG says


class Guard:
    """Give each request an id, let it in or not, and let no error out but as a problem."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app, self.settings = app, settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        request_id = given if _REQUEST_ID.match(given) else uuid4().hex
        # Routes know GET only; the server above still sees HEAD and drops the body.
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        state = {**scope.get("state", {}), "request_id": request_id}
        scope = {**scope, "method": method, "state": state}
        reply = _Reply(send, request_id)
        try:
            await self._serve(scope, receive, reply, headers)
        finally:
            if method not in SAFE or reply.status in REFUSED:
                _audit(scope, headers, reply)

    async def _serve(
        self, scope: Scope, receive: Receive, reply: "_Reply", headers: Headers
    ) -> None:
        try:
            self._admit(scope, headers)
            if scope["method"] not in SAFE:
                receive = await _whole_body(receive, headers)
            await self.app(scope, receive, reply)
        except Exception as error:
            if not isinstance(error, Problem):
                _log_failure(scope, error)
            if reply.status:
                raise RuntimeError("the answer broke off") from None
            await response_to(scope, problem_of(error))(scope, receive, reply)

    def _admit(self, scope: Scope, headers: Headers) -> None:
        """Raise the problem of a request that may not come in."""
        reading = scope["method"] in SAFE
        if scope["path"] in PUBLIC and reading:
            return
        # A foreign Host: a proxy in front of us, or a web page that made its own name point here.
        local = is_loopback(self.settings.host) and is_loopback(_hostname(headers.get("host", "")))
        if reading and local:
            return
        if not self.settings.token:
            allowed = "No token is set, so nothing but reading on loopback is allowed."
            fix = "Set FEELER_TOKEN and start again."
            raise Problem(403, "no-token-configured", f"{allowed} {fix}")
        scheme, _, token = headers.get("authorization", "").partition(" ")
        wanted = self.settings.token.encode()
        same = hmac.compare_digest(token.strip().encode(), wanted)
        if scheme.lower() != "bearer" or not same:
            detail = "Send the header `Authorization: Bearer <FEELER_TOKEN>`."
            raise Problem(401, "unauthorized", detail, headers={"WWW-Authenticate": "Bearer"})
        scope["state"]["who"] = "token"


class _Reply:
    """Sends what the app says, with our headers where it set none itself."""

    def __init__(self, send: Send, request_id: str) -> None:
        self.send, self.request_id = send, request_id
        self.status = 0  # until the answer has begun
        self.location = ""  # of what was made

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            self.location = headers.get("location", "")
            headers["X-Request-Id"] = self.request_id
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
        await self.send(message)


async def _whole_body(receive: Receive, headers: Headers) -> Receive:
    """Read the body within its limit, whatever its header claims; return what replays it."""
    too_large = Problem(413, "body-too-large", f"A body may have {MAX_BODY} bytes.")
    length = headers.get("content-length", "0")
    if not length.isdigit() or int(length) > MAX_BODY:
        raise too_large
    body, more = bytearray(), True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":  # half a body may read like a whole one
            raise Problem(400, "body-broke-off", "The connection ended before the body did.")
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > MAX_BODY:
            raise too_large
    waiting = [{"type": "http.request", "body": bytes(body), "more_body": False}]

    async def replay() -> Message:
        return waiting.pop() if waiting else await receive()

    return replay


def _audit(scope: Scope, headers: Headers, reply: _Reply) -> None:
    """Leave a line for every change and every refusal: who, what, from where, but no body."""
    state = scope["state"]
    path = scope["path"] if PATH.match(scope["path"]) else "*"
    client = "{}:{}".format(*scope["client"]) if scope.get("client") else "-"
    forwarded = headers.get("x-forwarded-for", "")  # what a proxy claims, or a liar
    if not _FORWARDED.match(forwarded):
        forwarded = "-"
    _audit_log.info(
        "action=audit who=%s method=%s path=%s status=%d made=%s from=%s forwarded_for=%s"
        " request_id=%s",
        state.get("who", "nobody"),
        scope["method"],
        path,
        reply.status,
        reply.location or "-",
        client,
        forwarded.replace(" ", ""),
        state["request_id"],
    )


def _hostname(host: str) -> str:
    """Return a Host header without its port."""
    if host.endswith("]") or ":" not in host:
        return host
    return host.rpartition(":")[0]


def _log_failure(scope: Scope, error: Exception) -> None:
    """Log where it happened; the message of an error may hold what a client sent."""
    frames = reversed(traceback.extract_tb(error.__traceback__))
    place = " < ".join(f"{frame.name}:{frame.lineno}" for frame in frames)
    request_id = scope["state"]["request_id"]
    _log.error(
        "action=request_failed error=%s request_id=%s at=%s",
        type(error).__name__,
        request_id,
        place[:1000],
    )
