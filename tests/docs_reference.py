"""The parts of the documents that say what the code, or a file of results beside them, says.

``python -m tests.docs_reference`` writes them anew.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path

from rich.console import Console
from typer.main import get_command

from gary.api import STATUS
from gary.cli.app import app
from gary.config import SETTING_NAMES, AgentConfig
from gary.routes import ROUTES
from simulations.faults.catalogue import KINDS
from simulations.lifeguard_report import (
    Result,
    accuracy_markdown,
    cost_markdown,
    from_json,
    origins_markdown,
    verdicts_markdown,
)
from simulations.report.text import summary
from simulations.run import Run
from simulations.scenarios.library import find, names
from simulations.scenarios.reader import key_of
from simulations.units import in_words
from tests.docs_tour import with_block

REPOSITORY = Path(__file__).parents[1]
DOCS = REPOSITORY / "docs"
REFERENCE = DOCS / "reference"
LIFEGUARD = DOCS / "internals" / "lifeguard.json"

_TOLD_BY_THE_HOST = {
    "state_dir": "`/var/lib/gary` for root, else `gary` in `$XDG_STATE_HOME`, which is `~/.local/state` if not set",
    "name": "the host's name",
    "runtimes": "`docker` if it answers, and `process`",
    "socket": "`agent.sock` in the state directory",
    "socket_owner": "the agent's user",
    "socket_group": "the agent's group",
    "advertise": "the bound address, or that of the default route",
}


def settings() -> str:
    """Every setting of an agent: its three names, its default, its meaning."""
    command = get_command(app).commands["agent"]  # type: ignore[attr-defined]
    options = {parameter.name: parameter for parameter in command.params}
    defaults = {field.name: field.default for field in fields(AgentConfig)}
    rows = ["| `gary.toml` | flag | environment | default | meaning |", "| --- | --- | --- | --- | --- |"]
    for name in SETTING_NAMES:
        option = options[name]
        default = _TOLD_BY_THE_HOST.get(name) or (f"`{defaults[name]}`" if defaults[name] not in ("", ()) else "none")
        meaning = re.sub(r" ?Default: .*$", "", option.help) or f"One of {', '.join(option.metavar.split('|'))}."
        rows.append(f"| `{name}` | `{option.opts[0]}` | `GARY_{name.upper()}` | {default} | {meaning} |")
    return "\n".join(rows) + "\n"


def routes() -> str:
    """Every route of the API with its arguments."""
    rows = ["| method | path | query | body | answer |", "| --- | --- | --- | --- | --- |"]
    for route in ROUTES:
        query = ", ".join(f"`{field.name}`" for field in route.query)
        body = ", ".join(f"`{field.name}`" for field in route.body)
        answer = "JSON lines" if route.streams else "JSON"
        rows.append(f"| {route.method} | `{route.path}` | {query} | {body} | {answer} |")
    rows.append("| GET | `/metrics` | | | Prometheus text |")
    return "\n".join(rows) + "\n"


def statuses() -> str:
    """The HTTP status of every code of an error."""
    rows = ["| status | code |", "| --- | --- |"]
    by_status: dict[int, list[str]] = {}
    for code, status in STATUS.items():
        by_status.setdefault(status, []).append(f"`{code.value}`")
    rows += [f"| {status} | {', '.join(codes)} |" for status, codes in sorted(by_status.items())]
    return "\n".join(rows) + "\n"


def lifeguard(part: Callable[[Sequence[Result]], str]) -> Callable[[], str]:
    """A part of the Lifeguard experiment's results, as they are committed."""
    return lambda: part(from_json(LIFEGUARD.read_text(encoding="utf-8")))


def scenarios() -> str:
    """Those that ship."""
    rows = ["| scenario | hosts | time | what happens |", "| --- | ---: | --- | --- |"]
    for name in names():
        scenario = find(name).read()
        rows.append(f"| `{name}` | {scenario.nodes} | {in_words(scenario.for_s)} | {scenario.about} |")
    return "\n".join(rows) + "\n"


def faults() -> str:
    """Every kind of fault, with its measures."""
    rows = ["| `kind` | what | measures |", "| --- | --- | --- |"]
    for name, kind in KINDS.items():
        measures = ", ".join(f"`{key_of(field.name)}`" for field in fields(kind.make))  # type: ignore[arg-type]
        rows.append(f"| `{name}` | {kind.make.about} | {measures} |")
    return "\n".join(rows) + "\n"


def played() -> str:
    """What a run of a scenario prints; how long it took here is left out."""
    run = Run(find("zone-loss").read())
    for _ in run.steps():
        pass
    console = Console(width=80, file=io.StringIO(), record=True)
    console.print(summary(run.report()))
    lines = [line.rstrip() for line in console.export_text().splitlines()]
    return "```\n" + "\n".join(lines) + "\n```\n"


BLOCKS: dict[str, tuple[tuple[str, Callable[[], str]], ...]] = {
    "reference/config.md": (("settings", settings),),
    "reference/api.md": (("routes", routes), ("statuses", statuses)),
    "operating/simulating.md": (("run", played), ("scenarios", scenarios), ("faults", faults)),
    "internals/lifeguard.md": (
        ("accuracy", lifeguard(accuracy_markdown)),
        ("cost", lifeguard(cost_markdown)),
        ("verdicts", lifeguard(verdicts_markdown)),
        ("origins", lifeguard(origins_markdown)),
    ),
}


def written(name: str) -> str:
    """The page ``name`` as it ought to be."""
    text = (DOCS / name).read_text(encoding="utf-8")
    for marker, content in BLOCKS[name]:
        text = with_block(text, marker, content())
    return text


def main() -> None:
    for name in BLOCKS:
        (DOCS / name).write_text(written(name), encoding="utf-8")
        print(os.fspath(DOCS.relative_to(REPOSITORY) / name))


if __name__ == "__main__":
    main()
