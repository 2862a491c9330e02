"""What a server said: told beside the hash, read back for the cause it speaks of."""

from monitor.core.cause import Cause
from monitor.core.observation import Observation
from monitor.core.status import Status
from monitor.live import reasons
from monitor.live.connections import Live
from monitor.live.keys import reason_key
from monitor.live.observations import Latest
from monitor.live.reasons import KEPT, LENGTH, Reason, reason_of


def seen(cause: Cause, detail: str = "", sqlstate: str = "") -> Observation:
    return Observation(
        database="a", worker="w1", sent_at=1, at=2, cause=cause, detail=detail, sqlstate=sqlstate
    )


def known(cause: Cause | None, name: str = "a") -> Latest:
    return Latest(database=name, status=Status(), cause=cause)


def test_only_what_is_not_ok_has_something_to_tell():
    assert reason_of(seen(Cause.OK, "words")) is None
    assert reason_of(seen(Cause.PORT_CLOSED)) is None
    assert reason_of(seen(Cause.PORT_CLOSED, "x" * 999)) == Reason(
        "port_closed", "", "x" * LENGTH, "w1"
    )


async def test_a_reason_is_kept_for_a_while_and_speaks_for_its_cause_alone(live: Live):
    told = Reason("wrong_password", "28P01", "FATAL:  28P01: no \u2713", "w1")
    await reasons.tell(live, {"a": told})
    assert KEPT - 5 < await live.cache.ttl(reason_key("a")) <= KEPT
    assert await reasons.reasons(
        live, [known(Cause.WRONG_PASSWORD), known(Cause.PORT_CLOSED, "b")]
    ) == {"a": told}
    for other in (Cause.OK, Cause.PORT_CLOSED, None):
        assert await reasons.reasons(live, [known(other)]) == {}


async def test_what_a_newer_version_wrote_is_read_as_far_as_it_is_known(live: Live):
    for text in (
        '{"cause": "port_closed", "sqlstate": "", "detail": "d", "worker": "w", "new": [1]}',
        "[]",
        "7",
        "{",
        "",
    ):
        await live.cache.set(reason_key("a"), text)
        found = await reasons.reasons(live, [known(Cause.PORT_CLOSED)])
        assert found == ({"a": Reason("port_closed", "", "d", "w")} if "new" in text else {})
