from pydantic import ConfigDict, TypeAdapter

from monitor.core.cause import Cause
from monitor.core.status import State
from monitor.registry import fleet
from monitor.registry.transitions import write_transitions
from monitor.shapes import TransitionsShape


async def kept(app, fill, count: int = 3) -> list[str]:
    """Make a database change its state some times, durably; return the identities, newest first."""
    fleet.add(app.state.store, "orders", "sealed", {})
    changes = []
    for number in range(count):
        up = number % 2 == 0
        state = State.AVAILABLE if up else State.UNCERTAIN
        cause = Cause.OK if up else Cause.PORT_CLOSED
        changes.append(
            await fill.beat("orders", state=state, cause=cause, rule="first_ok" if up else "doubt")
        )
    write_transitions(app.state.store, changes)
    return [str(change.identity) for change in reversed(changes)]


async def test_transitions_newest_first_with_their_evidence(app, web, fill):
    identities = await kept(app, fill)
    answer = await web.get("/api/v1/databases/orders/transitions")
    TransitionsShape.__pydantic_config__ = ConfigDict(extra="forbid", strict=True)
    body = TypeAdapter(TransitionsShape).validate_json(answer.content)
    assert [row["identity"] for row in body["data"]] == identities
    assert [row["version"] for row in body["data"]] == [3, 2, 1]
    middle = body["data"][1]
    assert (middle["from"], middle["to"], middle["rule"]) == ("available", "uncertain", "doubt")
    assert middle["previous"] == identities[2]
    assert (middle["worker"], middle["observers"], middle["superseded"]) == ("w4", ["w4"], False)
    assert (middle["evidence"][0]["cause"], middle["evidence"][0]["observed_at"]) == (
        "port_closed",
        middle["at"],
    )
    assert body["next_before"] is None


async def test_pages_go_back_in_time(app, web, fill):
    identities = await kept(app, fill, 5)
    seen, before = [], None
    while True:
        query = {"limit": 2} | ({"before": before} if before else {})
        body = (await web.get("/api/v1/databases/orders/transitions", params=query)).json()
        seen += [row["identity"] for row in body["data"]]
        before = body["next_before"]
        if before is None:
            break
    assert seen == identities


async def test_none_yet_is_empty_and_unknown_is_404(app, web):
    fleet.add(app.state.store, "quiet", "sealed", {})
    assert (await web.get("/api/v1/databases/quiet/transitions")).json() == {
        "data": [],
        "next_before": None,
    }
    assert (await web.get("/api/v1/databases/unknown/transitions")).status_code == 404
    for query in ("limit=0", "before=x", "since=1"):
        assert (await web.get(f"/api/v1/databases/quiet/transitions?{query}")).status_code == 400
