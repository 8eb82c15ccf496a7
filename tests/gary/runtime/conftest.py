"""One real engine for all tests of this directory that want one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.engines.engines import Engine, single_engine
from tests.engines.requirement import require_engines


@pytest.fixture(scope="package")
def engine() -> Iterator[Engine]:
    require_engines()
    with single_engine() as engine:
        yield engine
        engine.stop()
