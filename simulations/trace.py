"""What was recorded of a run: all that it takes to do it again, and marks by which to see that it is the same.

Lines of JSON. The first one says what was run, by which version. Each of the others is a mark: at this time everything
so far had this digest.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Final

from simulations.scenarios.library import Changes, Source
from simulations.scenarios.model import Scenario

FORMAT: Final = 1


class TraceError(Exception):
    """The user's mistake, or another version's file: this trace cannot be replayed here."""


@dataclass(frozen=True, slots=True)
class Head:
    """What was run."""

    version: str
    source: Source
    changes: Changes

    def scenario(self) -> Scenario:
        """Raises ``ScenarioError``."""
        return self.changes.apply(self.source)

    def encode(self) -> str:
        return json.dumps({"format": FORMAT, **asdict(self)})


@dataclass(frozen=True, slots=True)
class Mark:
    """``at_s``: since the cluster was formed. ``trace``: the digest of everything until then."""

    at_s: float
    trace: str

    def encode(self) -> str:
        return json.dumps(asdict(self))


def decode(lines: Iterable[str], version: str) -> tuple[Head, list[Mark]]:
    """A recorded run, for this ``version`` of the software. Raises ``TraceError``."""
    try:
        first, *rest = [json.loads(line) for line in lines if line.strip()]
        if not isinstance(first, dict) or first.get("format") != FORMAT:
            raise TraceError(f"this is no trace of format {FORMAT}")
        if first["version"] != version:
            raise TraceError(
                f"this trace is of version {first['version']}, and this is version {version}, which may behave "
                f"differently; replay it with that version, or run its scenario anew"
            )
        return Head(version, Source(**first["source"]), _changes(first["changes"])), [Mark(**mark) for mark in rest]
    except (ValueError, TypeError, KeyError) as error:
        raise TraceError(f"this is no trace: {error}") from error


def _changes(fields: dict[str, Any]) -> Changes:
    return Changes(**{**fields, "sets": tuple((key, value) for key, value in fields["sets"])})
