"""``gary simulate``: clusters in virtual time. Another package does it; this one only knows where to find it."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Annotated

import typer

from gary.cli.exits import ends_well
from gary.cli.options import example

GROUP = "gary.commands"


def add_to(app: typer.Typer) -> None:
    app.command(
        context_settings={"ignore_unknown_options": True, "help_option_names": []},
        epilog=example(
            "gary simulate zone-loss",
            "gary simulate zone-loss --json",
            "gary simulate --nodes 2000 --deployments 200 --for 10m --seed 7 --report run.html",
        ),
    )(simulate)


@ends_well
def simulate(
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="...", help="gary simulate --help says all about them.")
    ] = None,
) -> None:
    """Play a cluster's life in virtual time: agents by the thousand, faults, and what becomes of applications.

    Scenarios come with Gary, and others can be written. Every run can be replayed.
    """
    (found,) = entry_points(group=GROUP, name="simulate")
    raise typer.Exit(found.load()(arguments or [], "gary simulate"))
