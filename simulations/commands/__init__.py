"""What ``gary simulate``, and ``python -m simulations``, can do: a module for each command.

Each has a docstring whose first line is the command's help, ``add_arguments(parser)`` and ``run(options)``, which
returns the exit code. Data goes to stdout, talk to stderr.
"""

from __future__ import annotations

import argparse
from importlib import import_module
from typing import Any, Final

COMMANDS: Final = ("run", "replay", "sweep", "scenarios", "seeds", "lifeguard", "growth", "churn", "tradeoff")
DEFAULT: Final = "run"
"""The command of a command line that names none."""


def parser(prog: str, command: str) -> argparse.ArgumentParser:
    """The command line of one command."""
    module = import_module(f"simulations.commands.{command}")
    own: dict[str, Any] = {"prog": prog if command == DEFAULT else f"{prog} {command}"}
    about = (module.__doc__ or "").strip()
    if command == DEFAULT:
        about += "\n\nOther commands: " + ", ".join(name for name in COMMANDS if name != DEFAULT) + " (each has --help)"
    made = argparse.ArgumentParser(
        description=about.replace("%", "%%"), formatter_class=argparse.RawDescriptionHelpFormatter, **own
    )
    module.add_arguments(made)
    return made


def run(arguments: list[str], prog: str = "python -m simulations") -> int:
    """Run the command that ``arguments`` name; returns its exit code."""
    command, rest = (
        (arguments[0], arguments[1:]) if arguments[:1] and arguments[0] in COMMANDS else (DEFAULT, arguments)
    )
    options = parser(prog, command).parse_args(rest)
    code: int = import_module(f"simulations.commands.{command}").run(options)
    return code
