"""The lease: one leader at a time, a new term each time, nobody comes back under an old one."""

import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from monitor.core.errors import ForeignRedis
from monitor.registry.leadership import Lease, acquire, current, registry, release, renew
from monitor.registry.store import Store
from tests.waiting import eventually

SHORT = 0.05  # seconds


def expire(store: Store) -> None:
    """Let the lease run out, as its holder's long pause would."""
    with store.begin() as connection:
        connection.execute(text("UPDATE leadership SET expires_at = clock_timestamp()"))


def test_the_first_term_is_one(store: Store) -> None:
    assert current(store) is None
    assert acquire(store, "a") == Lease("a", 1)
    assert current(store) == Lease("a", 1)


def test_while_a_lease_runs_nobody_gets_one(store: Store, other_store: Store) -> None:
    assert acquire(store, "a")
    assert acquire(other_store, "b") is None
    assert acquire(store, "a") is None, "not even its holder, who has it"


def test_the_holder_renews(store: Store) -> None:
    lease = acquire(store, "a", seconds=60)
    assert lease
    assert renew(store, lease, seconds=0.0)
    assert current(store) is None, "the lease now ends when the renewal says"


async def test_after_expiry_another_takes_the_next_term(store: Store, other_store: Store) -> None:
    old = acquire(store, "a", seconds=SHORT)
    assert old == Lease("a", 1)
    assert await eventually(lambda: acquire(other_store, "b")) == Lease("b", 2)
    assert not renew(store, old), "a paused holder finds out at its next renewal"
    release(store, old)
    assert current(store) == Lease("b", 2), "and cannot give away what is another's"


async def test_ones_own_expired_lease_is_not_renewed_but_taken_anew(store: Store) -> None:
    old = acquire(store, "a", seconds=SHORT)
    assert old
    await eventually(lambda: current(store) is None)
    assert not renew(store, old)
    assert acquire(store, "a") == Lease("a", 2)
    assert not renew(store, old), "the old term stays lost although the owner leads"


def test_a_term_lies_above_all_that_redis_has_seen_of_this_registry(store: Store) -> None:
    first = acquire(store, "a")
    assert first
    release(store, first)
    lease = acquire(
        store, "a", seen=40, signed={first.registry}
    )  # Postgres was restored from an older copy
    assert lease == Lease("a", 41)
    assert acquire(store, "b", seen=90) is None, "a lease that runs keeps its term"
    release(store, lease)
    assert acquire(store, "b", seen=7) == Lease("b", 42)


def test_nobody_leads_where_another_registry_is_named(store: Store) -> None:
    """A supervisor that reaches somebody else's Redis by mistake, in whole or in part."""
    ours = registry(store)
    for signed in ({"another's"}, {"", "another's"}, {ours, "another's"}):
        with pytest.raises(ForeignRedis, match=r"feeler redis adopt another'"):
            acquire(store, "a", seen=500, signed=signed)
    assert current(store) is None
    assert acquire(store, "a", seen=500, signed={ours, ""}) == Lease("a", 501)


def test_a_lease_dated_in_the_future_is_nobodys(store: Store) -> None:
    """Postgres's clock was an hour ahead when its holder renewed for the last time."""
    dead = acquire(store, "dead")
    assert dead
    with store.begin() as connection:
        connection.execute(
            text("UPDATE leadership SET expires_at = clock_timestamp() + interval '1 hour'")
        )
    assert current(store) is None
    assert acquire(store, "standby") == Lease("standby", dead.term + 1)
    assert not renew(store, dead)


def test_who_renews_after_the_clock_was_set_back_goes_on(store: Store) -> None:
    lease = acquire(store, "a")
    assert lease
    with store.begin() as connection:
        connection.execute(
            text("UPDATE leadership SET expires_at = clock_timestamp() + interval '1 hour'")
        )
    assert renew(store, lease)
    assert current(store) == lease
    assert acquire(store, "b") is None


def test_a_term_that_no_leader_can_have_given_is_nobodys(store: Store) -> None:
    first = acquire(store, "a")
    assert first
    release(store, first)
    assert acquire(store, "a", seen=1 << 60) == Lease("a", 2)


def test_release_lets_the_next_one_in_at_once(store: Store, other_store: Store) -> None:
    lease = acquire(store, "a", seconds=60)
    assert lease
    release(store, lease)
    assert current(store) is None
    assert acquire(other_store, "b") == Lease("b", 2)


def test_of_many_racing_for_an_expired_lease_one_wins(store: Store, other_store: Store) -> None:
    with ThreadPoolExecutor(8) as pool:
        for term in range(1, 21):
            stores = [store, other_store] * 4
            taken = [
                lease
                for lease in pool.map(acquire, stores, [str(uuid.uuid4()) for _ in stores])
                if lease
            ]
            assert [lease.term for lease in taken] == [term]
            assert current(store) == taken[0]
            expire(store)


class Model:
    """What the lease row must do, beside the row itself: who holds which term, and which lease
    still runs.
    """

    def __init__(self, store: Store) -> None:
        expire(store)
        with store.begin() as connection:
            self.term = connection.execute(text("SELECT term FROM leadership")).scalar_one()
        self.store, self.valid, self.held = store, None, dict[str, Lease]()

    def acquire(self, owner: str) -> None:
        """Succeeds when no lease runs, in the next term."""
        lease = acquire(self.store, owner)
        assert (lease is None) == (self.valid is not None)
        if lease:
            self.term += 1
            assert lease == Lease(owner, self.term)
            self.valid = self.held[owner] = lease

    def renew(self, owner: str) -> None:
        """Succeeds for the lease that runs."""
        if owner in self.held:
            assert renew(self.store, self.held[owner]) == (self.valid == self.held[owner])

    def release(self, owner: str) -> None:
        """Ends the lease that runs if it is this owner's."""
        if owner in self.held:
            release(self.store, self.held[owner])
            self.valid = None if self.valid == self.held[owner] else self.valid

    def expire(self, _owner: str) -> None:
        """Whoever holds the lease sleeps too long."""
        expire(self.store)
        self.valid = None


moves = st.tuples(
    st.sampled_from([Model.acquire, Model.renew, Model.release, Model.expire]),
    st.sampled_from("ab"),
)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(moves, max_size=25))
def test_terms_only_rise_and_one_lease_is_valid(
    store: Store, moves: list[tuple[Callable[[Model, str], None], str]]
) -> None:
    model = Model(store)
    for move, owner in moves:
        move(model, owner)
        assert current(store) == model.valid
