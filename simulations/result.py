"""What a run of a scenario showed: plain data, equal for equal seeds but for ``real_s``.

Times are seconds of virtual time since the cluster was formed, unless a name says otherwise.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

FORMAT: Final = 1
"""Of the JSON. It grows when an older reader would misread it."""


@dataclass(frozen=True, slots=True)
class Sample:
    """The cluster at one moment.

    ``up``: agents that run. ``converged``: the share of them whose view of who is alive is the truth. ``wanted``: slots
    of all deployments; ``kept`` of them run somewhere, ``doubled`` of them more than once; ``lost`` of them ran before
    and do not now. ``bytes_mean`` and ``bytes_max``: sent by an agent in each second since the sample before.
    ``documents``: copies on all agents, ``document_bytes_mean`` and ``document_bytes_max``: how large they are.
    ``faults``: how many are at work.
    """

    at_s: float
    up: int
    converged: float
    wanted: int
    kept: int
    doubled: int
    lost: int
    bytes_mean: float
    bytes_max: float
    documents: int
    document_bytes_mean: float
    document_bytes_max: int
    faults: int


@dataclass(frozen=True, slots=True)
class Recovery:
    """A slot that stopped to run at ``lost_s`` and ran again ``took_s`` later; None: it never did."""

    deployment: str
    slot: str
    lost_s: float
    took_s: float | None


@dataclass(frozen=True, slots=True)
class Happening:
    """A fault, or a command of an operator. ``until_s``: when it was over; None: it has no end."""

    at_s: float
    kind: str
    about: str
    until_s: float | None = None


@dataclass(frozen=True, slots=True)
class Promise:
    """``host`` promised ``slot`` from ``from_s``, and said so until ``until_s``; None: to the end of the run."""

    host: str
    deployment: str
    slot: str
    state: str
    from_s: float
    until_s: float | None


@dataclass(frozen=True, slots=True)
class Finding:
    """What ``check`` found to be wrong, in a sentence."""

    check: str
    at_s: float
    said: str


@dataclass(frozen=True, slots=True)
class Check:
    """A check that ran, and how often it found something."""

    name: str
    about: str
    findings: int


@dataclass(slots=True)
class Result:
    """``replay``: the command that does the same once more. ``counters``: frames, bytes, commands, faults by kind."""

    scenario: str
    about: str
    seed: int
    nodes: int
    deployments: int
    version: str
    replay: str
    formed_s: float = 0.0
    simulated_s: float = 0.0
    real_s: float = 0.0
    is_whole: bool = True
    samples: list[Sample] = field(default_factory=list)
    recoveries: list[Recovery] = field(default_factory=list)
    happenings: list[Happening] = field(default_factory=list)
    promises: list[Promise] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    counters: dict[str, int] = field(default_factory=dict)
    trace: str = ""

    @property
    def is_good(self) -> bool:
        """Whether it ran to its end and no check found anything."""
        return self.is_whole and not self.findings

    def to_json(self, indent: int | None = 1) -> str:
        """One object; ``from_json`` reads it. Without ``indent``: on one line."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=indent)


def from_json(text: str) -> Result:
    """Raises ``ValueError`` if ``text`` is not what this version's ``to_json`` writes."""
    table = json.loads(text)
    if not isinstance(table, dict) or table.pop("format", None) != FORMAT:
        raise ValueError(f"this is no result of format {FORMAT}")
    lists: Mapping[str, type[Any]] = {
        "samples": Sample,
        "recoveries": Recovery,
        "happenings": Happening,
        "promises": Promise,
        "checks": Check,
        "findings": Finding,
    }
    try:
        return Result(**{**table, **{name: [kind(**row) for row in table[name]] for name, kind in lists.items()}})
    except (KeyError, TypeError) as error:
        raise ValueError(f"this is no result: {error}") from error
