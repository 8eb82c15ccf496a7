"""The Hypothesis profile of all tests: few examples, no deadline (a machine may be busy), failures can be replayed.

And an operator's key for them, so that no test makes or uses that of whoever runs them.
"""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from gary.cli.key_file import VARIABLE

settings.register_profile("gary", max_examples=60, deadline=None, print_blob=True)
settings.load_profile("gary")


@pytest.fixture(scope="session", autouse=True)
def operator_key() -> Iterator[Path]:
    """Where the operator's key of this run lies; commands of the tests and their children look there."""
    with tempfile.TemporaryDirectory() as directory:
        os.environ[VARIABLE] = str(Path(directory) / "operator.key")
        yield Path(directory) / "operator.key"
        del os.environ[VARIABLE]
