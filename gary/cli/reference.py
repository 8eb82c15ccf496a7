"""``docs/reference/cli.md``, written from the commands themselves: ``python -m gary.cli.reference``."""

from __future__ import annotations

import re
from typing import Any

import typer
from typer.main import get_command

from gary.cli.app import app

WIDTH = 100


def reference() -> str:
    """Every command's help, as Markdown. The same on every machine."""
    root = get_command(app)
    settings: dict[str, Any] = {
        "max_content_width": WIDTH,
        "terminal_width": WIDTH,
        "help_option_names": ["-h", "--help"],
    }
    top = typer.Context(root, info_name="gary", **settings)
    parts = [
        "# The `gary` command",
        "Written by `make docs` from the commands themselves; `gary --help` and `gary COMMAND --help` say the same.",
        _block(root.get_help(top)),
    ]
    for name in root.list_commands(top):  # type: ignore[attr-defined]
        command = root.get_command(top, name)  # type: ignore[attr-defined]
        context = typer.Context(command, info_name=name, parent=top, **settings)
        parts += [f"## `gary {name}`", _block(command.get_help(context))]
    return "\n\n".join(parts) + "\n"


def _block(text: str) -> str:
    return "```text\n" + re.sub(r"(?m) +$", "", text) + "\n```"


if __name__ == "__main__":
    print(reference(), end="")
