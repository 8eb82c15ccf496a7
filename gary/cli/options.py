"""What commands have in common: how arguments are written, and the client they talk through."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from gary.cli.client import Client
from gary.cli.exits import BadInput
from gary.cli.key_file import default_key_file

Json = Annotated[bool, typer.Option("--json", help="Print the agent's answer as JSON.")]
App = Annotated[str, typer.Argument(metavar="APP", help="The deployment's name.")]
Follow = Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes, until Ctrl-C.")]


def example(*lines: str) -> str:
    """An epilog; the marker keeps its lines as they are."""
    return "\b\nExample:\n" + "\n".join(f"  {line}" for line in lines)


def client(context: typer.Context) -> Client:
    return Client(context.obj, default_key_file(os.environ))


def split_slot(text: str) -> tuple[str, str]:
    """``APP/SERVICE/INDEX`` into the deployment's name and the slot."""
    app, slash, slot = text.partition("/")
    if not app or not slash or slot.count("/") != 1 or slot.startswith("/") or slot.endswith("/"):
        raise BadInput(f"{text!r} is not APP/SERVICE/INDEX, such as shop/web/1")
    return app, slot


def split_source(text: str) -> tuple[str, str | None, str | None]:
    """``APP``, ``APP/SERVICE`` or ``APP/SERVICE/INDEX``; what is not said is None."""
    parts = text.split("/")
    if not 1 <= len(parts) <= 3 or not all(parts):
        raise BadInput(f"{text!r} is not APP, APP/SERVICE or APP/SERVICE/INDEX")
    app, service, index = (*parts, None, None)[:3]
    assert app is not None
    return app, service, index


def split_replicas(texts: list[str]) -> dict[str, int]:
    """``SERVICE=N`` words as a mapping."""
    replicas: dict[str, int] = {}
    for text in texts:
        service, equals, count = text.partition("=")
        if not service or not equals or not (count.isascii() and count.isdigit() and len(count) < 7):
            raise BadInput(f"{text!r} is not SERVICE=N, such as web=3")
        if service in replicas:
            raise BadInput(f"the service {service!r} is given twice")
        replicas[service] = int(count)
    return replicas
