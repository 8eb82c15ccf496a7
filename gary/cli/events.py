"""What happened on the nodes."""

from __future__ import annotations

from typing import Annotated

import typer

from gary.cli.exits import ends_well
from gary.cli.options import Follow, Json, client, example
from gary.cli.terminal import print_json


def add_to(app: typer.Typer) -> None:
    app.command(epilog=example("gary events", "gary events shop -f"))(events)


@ends_well
def events(
    context: typer.Context,
    deployment: Annotated[
        str | None, typer.Argument(metavar="[APP]", help="Only what concerns this deployment.", show_default=False)
    ] = None,
    follow: Follow = False,
    as_json: Json = False,
) -> None:
    """Print what happened, oldest first."""
    from gary.cli import render

    for item in client(context).stream("events", app=deployment, follow=follow):
        if as_json:
            print_json(item)
        else:
            print(render.event(item), flush=True)
