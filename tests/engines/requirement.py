"""Tests that need real engines are skipped by name where none can run, and fail instead where they are required."""

from __future__ import annotations

import os

import pytest

from tests.engines.agents import fake_time_library
from tests.engines.engines import missing_for_engines


def require_engines() -> None:
    """Where engines cannot run: skip the calling test with the reason, or fail it when ``GARY_REQUIRE_ENGINES=1``."""
    _require(missing_for_engines())


def require_other_clocks() -> None:
    """Likewise where a process cannot be given another clock."""
    _require("" if fake_time_library() else "libfaketime is not installed (Debian: faketime)")


def _require(reason: str) -> None:
    if not reason:
        return
    if os.environ.get("GARY_REQUIRE_ENGINES") == "1":
        pytest.fail(f"engines are required here (GARY_REQUIRE_ENGINES=1), but {reason}", pytrace=False)
    pytest.skip(reason)
