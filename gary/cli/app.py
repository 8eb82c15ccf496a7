"""The commands by name; what each does is in the module of its noun."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from gary import __version__
from gary.cli import agent, demo, deployments, doctor, events, nodes, operators, simulate, trust
from gary.config import default_socket

app = typer.Typer(
    name="gary",
    help="Run Compose applications on many hosts, without a control plane.",
    epilog="Every command has an example: gary COMMAND --help. Exit codes: 0 done; 1 tried and failed, or not whole; "
    "2 bad input; 3 no agent answers; 4 not found; 5 refused.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"gary {__version__}")
        raise typer.Exit


@app.callback()
def gary(
    context: typer.Context,
    socket: Annotated[
        Path | None,
        typer.Option(
            help="The agent's socket. Default: GARY_SOCKET, or agent.sock in the state directory or in /run/gary."
        ),
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    context.obj = socket or default_socket(os.environ)


agent.add_to(app)
nodes.add_to(app)
trust.add_to(app)
deployments.add_to(app)
operators.add_to(app)
events.add_to(app)
doctor.add_to(app)
demo.add_to(app)
simulate.add_to(app)
