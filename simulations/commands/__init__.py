"""What ``python -m simulations`` can do: a module for each command.

Each has a docstring whose first line is the command's help, ``add_arguments(parser)`` and ``run(options)``, which
returns the exit code. Data goes to stdout, talk to stderr.
"""

from __future__ import annotations

import argparse
from types import ModuleType
from typing import Final

from simulations.commands import churn, growth, life, lifeguard

COMMANDS: Final[dict[str, ModuleType]] = {"life": life, "lifeguard": lifeguard, "growth": growth, "churn": churn}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(
        prog="python -m simulations", description="Clusters in virtual time, equal for equal seeds."
    )
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, module in COMMANDS.items():
        about = (module.__doc__ or "").strip()
        line = about.partition("\n")[0].replace("%", "%%")  # argparse formats this one, and not the other
        module.add_arguments(commands.add_parser(name, help=line, description=about))
    return top


def run(arguments: list[str]) -> int:
    """Run the command that ``arguments`` name; returns its exit code."""
    options = parser().parse_args(arguments)
    code: int = COMMANDS[options.command].run(options)
    return code
