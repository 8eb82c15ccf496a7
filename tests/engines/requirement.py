"""Tests that need real engines are skipped by name where none can run, and fail instead where they are required."""

from __future__ import annotations

import os

import pytest

from tests.engines.engines import missing_for_engines


def require_engines() -> None:
    """Where engines cannot run: skip the calling test with the reason, or fail it when ``GARY_REQUIRE_ENGINES=1``."""
    reason = missing_for_engines()
    if not reason:
        return
    if os.environ.get("GARY_REQUIRE_ENGINES") == "1":
        pytest.fail(f"engines are required here (GARY_REQUIRE_ENGINES=1), but {reason}", pytrace=False)
    pytest.skip(reason)
