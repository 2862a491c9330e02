"""Numbering of transitions: dense, along prev, whatever the order of arrival."""

import itertools
import random

from hypothesis import given
from hypothesis import strategies as st

from monitor.core.chain import Links, extend, number, renumber
from monitor.core.status import Epoch, Identity
from tests.core.making import examples

identities = st.builds(
    Identity, st.builds(Epoch, st.integers(1, 2), st.integers(1, 3)), st.integers(1, 3)
)
links = st.dictionaries(identities, st.none() | identities, max_size=12)


def i(term: int, counter: int, n: int) -> Identity:
    return Identity(Epoch(term, counter), n)


def arrive(
    rows: dict[Identity, Identity | None], versions: dict[Identity, int | None], batch: Links
) -> None:
    """What the registry does with a batch."""
    head = max(rows, default=None)
    version = versions[head] if head else 0
    assert version is not None
    numbers = extend(head, version, batch) or number(rows | dict(batch))
    rows |= batch
    versions |= numbers


def test_a_chain_counts_from_one() -> None:
    first, second, third, fourth = i(1, 1, 1), i(1, 1, 2), i(1, 2, 1), i(2, 1, 1)
    rows = {first: None, second: first, third: second, fourth: third}
    assert number(rows) == {first: 1, second: 2, third: 3, fourth: 4}


def test_a_fork_keeps_the_branch_of_the_highest_identity() -> None:
    root, second, third, other = i(1, 1, 1), i(1, 1, 2), i(1, 1, 3), i(1, 2, 1)
    rows = {root: None, second: root, third: second, other: root}
    assert number(rows) == {root: 1, second: None, third: None, other: 2}


def test_past_a_lost_transition_the_chain_goes_on_below_it() -> None:
    rows = {i(1, 1, 1): None, i(1, 1, 2): i(1, 1, 1), i(1, 1, 4): i(1, 1, 3)}
    assert number(rows) == {i(1, 1, 1): 1, i(1, 1, 2): 2, i(1, 1, 4): 3}
    rows = {i(1, 1, 1): None, i(1, 3, 1): i(1, 1, 1), i(1, 4, 1): i(1, 2, 1)}
    assert number(rows) == {i(1, 1, 1): 1, i(1, 3, 1): None, i(1, 4, 1): 2}, (
        "nothing above the lost one belongs"
    )


def test_a_transition_without_prev_is_a_root() -> None:
    assert number({i(1, 1, 1): None, i(1, 2, 1): None}) == {i(1, 1, 1): None, i(1, 2, 1): 1}


def test_claims_to_build_on_the_future_end() -> None:
    rows = {i(1, 1, 1): i(1, 1, 2), i(1, 1, 2): i(1, 1, 2), i(1, 1, 3): i(9, 9, 9)}
    assert number(rows) == {i(1, 1, 1): 1, i(1, 1, 2): 2, i(1, 1, 3): 3}


@examples(25)
@given(links)
def test_versions_are_dense_and_the_highest_identity_has_the_highest(rows: Links) -> None:
    numbers = number(rows)
    assert numbers.keys() == rows.keys()
    versions = sorted(version for version in numbers.values() if version is not None)
    assert versions == list(range(1, len(versions) + 1))
    if rows:
        assert numbers[max(rows)] == len(versions)


@examples(25)
@given(links)
def test_versions_rise_with_identities_and_follow_prev_where_it_is_there(rows: Links) -> None:
    chain = sorted((version, identity) for identity, version in number(rows).items() if version)
    assert chain == sorted(chain, key=lambda pair: pair[1])
    by_version = {0: None} | dict(chain)
    for version, identity in chain:
        prev = rows[identity]
        if prev is None:
            assert version == 1
        elif prev in rows and prev < identity:
            assert by_version[version - 1] == prev
        elif version > 1:
            below = by_version[version - 1]
            assert below is not None
            assert not [other for other in rows if below < other <= prev and other < identity]


@examples(25)
@given(links, st.randoms(use_true_random=False))
def test_the_order_of_arrival_does_not_matter(rows: Links, chance: random.Random) -> None:
    arrived = list(rows.items())
    chance.shuffle(arrived)
    assert number(dict(arrived)) == number(rows)
    kept: dict[Identity, Identity | None] = {}
    versions: dict[Identity, int | None] = {}
    while arrived:
        cut = chance.randint(1, 3)
        arrive(kept, versions, dict(arrived[:cut]))
        arrived = arrived[cut:]
    assert versions == number(rows)


@examples(25)
@given(st.lists(identities, unique=True, min_size=1), st.data())
def test_followers_of_the_head_take_the_short_way_and_get_the_same_numbers(
    chosen: list[Identity], data: st.DataObject
) -> None:
    chain = sorted(chosen)
    rows = dict(zip(chain, [None, *chain], strict=False))
    cut = data.draw(st.integers(0, len(chain) - 1))
    head = chain[cut - 1] if cut else None
    short = extend(head, cut, {identity: rows[identity] for identity in chain[cut:]})
    assert short == dict(zip(chain[cut:], itertools.count(cut + 1), strict=False))
    assert number(rows) == dict(zip(chain, range(1, len(chain) + 1), strict=True))


def test_what_does_not_follow_the_head_has_no_short_way() -> None:
    assert extend(i(1, 1, 1), 1, {i(1, 1, 3): i(1, 1, 2)}) is None
    assert extend(i(1, 2, 1), 1, {i(1, 1, 9): i(1, 2, 1)}) is None
    assert extend(None, 0, {i(1, 1, 2): i(1, 1, 1)}) is None
    assert extend(i(1, 1, 1), 1, {i(1, 2, 1): None}) is None


@examples(100)
@given(links, links, st.integers(0, 11))
def test_a_tail_is_renumbered_as_the_whole_chain_would_be(
    rows: Links, late: Links, back: int
) -> None:
    before = number(rows)
    members = [one for one in sorted(before) if before[one] and (not late or one < min(late))]
    if not members:
        return
    anchor = members[max(0, len(members) - 1 - back)]
    everything = rows | {one: prev for one, prev in late.items() if one not in rows}
    version = before[anchor]
    assert version
    tail = {one: prev for one, prev in everything.items() if one >= anchor}
    numbers = renumber(tail, anchor, version)
    if numbers is not None:
        whole = number(everything)
        assert numbers == {one: whole[one] for one in numbers}
        assert all(whole[one] == before[one] for one in rows if one < anchor)
