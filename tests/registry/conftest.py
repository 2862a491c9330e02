"""Fixtures of the registry's tests: stores on a fresh database of ours."""

from collections.abc import Iterator

import pytest

from monitor.registry.store import Store, open_store


@pytest.fixture
def other_store(database_url: str) -> Iterator[Store]:
    """Another process's store on the same database."""
    opened = open_store(database_url)
    yield opened
    opened.close()
