from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.fixtures import StartRedis
from tests.system.cluster import Cluster


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.system)


@pytest.fixture
def make_cluster(
    tmp_path: Path, database_url: str, start_redis: StartRedis
) -> Iterator[Callable[..., Cluster]]:
    """Start supervisors and workers on stores of their own; everything is gone after the test."""
    clusters = []

    def make(*, workers: int = 3, supervisors: int = 1) -> Cluster:
        cluster = Cluster(tmp_path, database_url, start_redis())
        clusters.append(cluster)
        for _ in range(supervisors):
            cluster.start("supervisor")
        for _ in range(workers):
            cluster.start("worker")
        return cluster

    yield make
    for cluster in clusters:
        cluster.close()
