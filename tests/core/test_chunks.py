"""A long sequence is cut into parts without loss, each of its own kind."""

import pytest

from monitor.core.chunks import chunks


@pytest.mark.parametrize(
    ("items", "parts"),
    [
        ("", []),
        ([], []),
        (["a"], [["a"]]),
        ((1, 2, 3), [(1, 2, 3)]),
        (b"abcd", [b"abc", b"d"]),
        ([1, 2, 3, 4, 5, 6], [[1, 2, 3], [4, 5, 6]]),
        ("abcdefg", ["abc", "def", "g"]),
    ],
)
def test_every_item_is_in_one_part_in_order(items, parts):
    assert list(chunks(items, 3)) == parts
