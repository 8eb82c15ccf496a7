"""One cluster of engines for each process that tests: starting it costs more than cleaning it between two tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engines.hosts import Cluster, cluster
from tests.engines.requirement import require_engines

HOSTS = 8
KEEP_LOGS = "GARY_TEST_KEEP_LOGS"
"""The environment variable that names a directory in which the logs of failed tests are kept."""

_failed = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    if report.failed:  # type: ignore[attr-defined]  # what the hook's implementations return is not in its type
        item.stash[_failed] = True
    return report


@pytest.fixture(scope="session")
def engines() -> Iterator[Cluster]:
    """Eight hosts with engines, without agents."""
    require_engines()
    with cluster(HOSTS) as hosts:
        yield hosts


@pytest.fixture
def hosts(engines: Cluster, request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """The hosts, all on and linked, without agents or containers."""
    engines.replay = f"python -m pytest '{request.node.nodeid}'"
    engines.reset()
    yield engines
    directory = os.environ.get(KEEP_LOGS)
    if directory and request.node.stash.get(_failed, False):
        engines.keep_logs(Path(directory) / request.node.name)
    engines.reset()
