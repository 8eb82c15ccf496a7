"""What ``gary simulate``, and ``python -m simulations``, can do: a module for each command.

Each has a docstring whose first line is the command's help, ``add_arguments(parser)`` and ``run(options)``, which
returns the exit code. Data goes to stdout, talk to stderr.
"""

from __future__ import annotations

import argparse
import os
import sys
from importlib import import_module
from typing import Any, Final

from simulations.compilation import CompilationFailed, compiled, default_cache, take_over

COMMANDS: Final = ("run", "replay", "sweep", "scenarios", "seeds", "lifeguard", "growth", "churn", "tradeoff")
COMPILED: Final = "--compiled"
DEFAULT: Final = "run"
"""The command of a command line that names none."""


def parser(prog: str, name: str) -> argparse.ArgumentParser:
    """The command line of one command."""
    module = import_module(f"simulations.commands.{name}")
    own: dict[str, Any] = {"prog": prog if name == DEFAULT else f"{prog} {name}"}
    about = (module.__doc__ or "").strip()
    if name == DEFAULT:
        about += (
            "\n\nOther commands: " + ", ".join(other for other in COMMANDS if other != DEFAULT) + " (each has --help)"
        )
    made = argparse.ArgumentParser(
        description=about.replace("%", "%%"), formatter_class=argparse.RawDescriptionHelpFormatter, **own
    )
    made.add_argument(
        COMPILED, action="store_true", help="compile once what runs most, and run that: half as fast again"
    )
    module.add_arguments(made)
    return made


def run(arguments: list[str], prog: str = "python -m simulations") -> int:
    """Run the command that ``arguments`` name; returns its exit code."""
    if COMPILED in arguments:
        try:
            directory = compiled(default_cache(os.environ))
        except CompilationFailed as error:
            print(error, file=sys.stderr)
            return 2
        take_over(directory, "simulations", [argument for argument in arguments if argument != COMPILED], os.environ)
    is_named = bool(arguments) and arguments[0] in COMMANDS
    name, rest = (arguments[0], arguments[1:]) if is_named else (DEFAULT, arguments)
    options = parser(prog, name).parse_args(rest)
    code: int = import_module(f"simulations.commands.{name}").run(options)
    return code
