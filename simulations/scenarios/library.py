"""Where scenarios come from: files, and those that come with Gary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path

from simulations.scenarios.model import Deployments, Hosts, Scenario
from simulations.scenarios.reader import Problem, ScenarioError, read

_SHIPPED = files("simulations.scenarios") / "shipped"


@dataclass(frozen=True, slots=True)
class Source:
    """A scenario as it was written: ``text``, ``file`` for errors, and the ``files`` that it names, by their names."""

    file: str
    text: str
    files: dict[str, str] = field(default_factory=dict)

    def read(self, sets: Sequence[tuple[str, str]] = ()) -> Scenario:
        """Raises ``ScenarioError``. Without a name of its own, the scenario has that of its file."""
        scenario = read(self.text, self.file, self._opened, sets)
        return scenario if scenario.name else replace(scenario, name=Path(self.file).stem)

    def _opened(self, name: str) -> str:
        if name not in self.files:
            self.files[name] = (Path(self.file).parent / name).read_text(encoding="utf-8")
        return self.files[name]


def names() -> list[str]:
    """Those that come with Gary, sorted."""
    return sorted(Path(entry.name).stem for entry in _SHIPPED.iterdir() if entry.name.endswith(".toml"))


def find(given: str) -> Source:
    """The scenario of that name, or in that file. Raises ``ScenarioError``."""
    if given in names():
        return Source(f"{given}.toml", (_SHIPPED / f"{given}.toml").read_text(encoding="utf-8"))
    if not given.endswith(".toml"):
        said = f"there is no such scenario; there are {', '.join(names())}, and files that end with .toml"
        raise ScenarioError(given, [Problem(0, "", said)])
    try:
        return Source(given, Path(given).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ScenarioError(given, [Problem(0, "", f"cannot be read: {said}")]) from error


@dataclass(frozen=True, slots=True)
class Changes:
    """What the command line says differently. None: as the scenario says. ``sets``: keys of its file, and values."""

    nodes: int | None = None
    deployments: int | None = None
    for_s: float | None = None
    seed: int | None = None
    chance: bool = False
    """All kinds of faults by chance, too, until a tenth of the time is left."""
    sets: tuple[tuple[str, str], ...] = ()

    def apply(self, source: Source) -> Scenario:
        """The scenario of ``source`` with these changes. Raises ``ScenarioError``."""
        scenario = source.read(self.sets)
        for_s = scenario.for_s if self.for_s is None else self.for_s
        scenario = replace(
            scenario,
            seed=scenario.seed if self.seed is None else self.seed,
            for_s=for_s,
            hosts=scenario.hosts if self.nodes is None else _spread(scenario.hosts, self.nodes),
            deployments=scenario.deployments if self.deployments is None else _several(scenario, self.deployments),
        )
        if self.chance:
            scenario = replace(scenario, chance=replace(scenario.chance, from_s=0.1 * for_s, for_s=0.8 * for_s))
        return scenario


def _spread(groups: tuple[Hosts, ...], nodes: int) -> tuple[Hosts, ...]:
    """So many hosts, in groups as large in proportion, of at least one each."""
    total, left = sum(group.count for group in groups), nodes
    spread = []
    for number, group in enumerate(groups):
        last = number == len(groups) - 1
        count = left if last else max(1, round(nodes * group.count / total))
        spread.append(replace(group, count=max(0, min(count, left))))
        left -= spread[-1].count
    return tuple(spread)


def _several(scenario: Scenario, count: int) -> tuple[Deployments, ...]:
    first = scenario.deployments[0] if scenario.deployments else Deployments()
    return (replace(first, count=count),) if count else ()
