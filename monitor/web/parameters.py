"""What routes share: strict parameters, cursors, and the way to Redis. Reaches no other store.

Dependencies are async even where they await nothing: FastAPI runs plain ones in a thread, 100 us
each.
"""

import base64
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated

from fastapi import Depends, Query, Request

from monitor.core.database import check_name
from monitor.core.errors import InvalidInput
from monitor.live.connections import Live
from monitor.live.observations import Latest
from monitor.secrets import SecretBox
from monitor.web.problems import Problem, quotable, unknown_database

MAX_PAGE = 1000
# What the registry knows of names that Redis does not.
Lookup = Callable[[Sequence[str]], Awaitable[dict[str, Latest]]]


async def live_of(request: Request) -> Live:
    """Return the app's Redis connections."""
    live: Live = request.app.state.live
    return live


async def lookup_of(request: Request) -> Lookup:
    """Return what looks names up in the registry."""
    lookup: Lookup = request.app.state.lookup
    return lookup


async def box_of(request: Request) -> SecretBox:
    """Return what opens and seals addresses."""
    box: SecretBox = request.app.state.box
    return box


async def _strict(request: Request) -> None:
    known = {parameter.alias for parameter in request.scope["route"].dependant.query_params}
    unknown = sorted(set(request.query_params) - known)
    if unknown:
        named = ", ".join(filter(quotable, unknown)) or "One of them"
        allowed = ", ".join(sorted(known)) or "none"
        detail = f"{named}: not a parameter of this resource. Known: {allowed}."
        raise Problem(400, "unknown-parameter", detail)


async def known_name(name: str) -> str:
    """Return a name that may exist, or raise the 404 of one that cannot."""
    try:
        return check_name(name)
    except InvalidInput:
        raise unknown_database(name) from None


def encode_cursor(name: str) -> str:
    """Return the opaque cursor that continues after a name."""
    return base64.urlsafe_b64encode(name.encode()).decode().rstrip("=")


def decode_cursor(cursor: str) -> str:
    """Return the name a cursor continues after; empty at the start."""
    padded = cursor + "=" * (-len(cursor) % 4)
    try:
        name = base64.b64decode(padded, altchars=b"-_", validate=True).decode()
        return check_name(name) if name else ""
    except (ValueError, InvalidInput):
        detail = "Use `next_cursor` of the page before as it came."
        raise Problem(400, "invalid-cursor", detail) from None


STRICT = Depends(_strict)  # a typing error in a filter must not mean "everything"
LiveOf = Annotated[Live, Depends(live_of)]
LookupOf = Annotated[Lookup, Depends(lookup_of)]
BoxOf = Annotated[SecretBox, Depends(box_of)]
Name = Annotated[str, Depends(known_name)]
Limit = Annotated[int, Query(ge=1, le=MAX_PAGE)]
Cursor = Annotated[str, Query(max_length=200, description="`next_cursor` of the page before")]
