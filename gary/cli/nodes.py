"""The nodes of the cluster: see them, join them, leave them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from gary.cli.exits import AgentUnreachable, BadInput, NotWhole, ends_well
from gary.cli.options import Json, client, example
from gary.cli.terminal import print_json, say, show, working

TOKEN_LENGTH_MAX = 8192


def add_to(app: typer.Typer) -> None:
    app.command(epilog=example("gary nodes"))(nodes)
    app.command(
        epilog=example(
            "gary join --token-file token",
            "ssh node-1 gary invite | gary join --token-file -",
            "gary join 192.0.2.7:7946 --token-file token",
        )
    )(join)
    app.command(epilog=example("gary leave --timeout 300"))(leave)
    app.command(epilog=example("gary version"))(version)


@ends_well
def nodes(context: typer.Context, as_json: Json = False) -> None:
    """List the nodes of the cluster as this node sees them."""
    answer = client(context).call("nodes")
    if as_json:
        print_json(answer)
        return
    from gary.cli import render

    show(render.nodes(answer))


@ends_well
def join(
    context: typer.Context,
    peer: Annotated[
        str | None,
        typer.Argument(
            metavar="[HOST:PORT]", help="Where the node that made the invitation is bound, if not as it says."
        ),
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(help="What 'gary invite' printed. Others on this host may see it: --token-file is better."),
    ] = None,
    token_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A file with it; - reads it from standard input.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Make this host's node one of another node's cluster."""
    given = _token(token, token_file)
    if given is None and peer is None:
        raise BadInput("no token is given: --token-file FILE", hint="'gary invite' on a node of the cluster makes one")
    with working(f"asking {peer or 'the node that made the invitation'}"):
        answer = client(context).call("join", peer=peer, token=given)
    if as_json:
        print_json(answer)
    else:
        print(f"joined; the cluster has {answer.get('nodes', '?')} nodes")


def _token(token: str | None, file: Path | None) -> str | None:
    if token is not None and file is not None:
        raise BadInput("both --token and --token-file are given; one is enough")
    if file is None:
        return token
    try:
        text = sys.stdin.read(TOKEN_LENGTH_MAX) if str(file) == "-" else file.read_text()[:TOKEN_LENGTH_MAX]
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"the token cannot be read from {file}: {error}") from error
    if not text.strip():
        raise BadInput(f"there is no token in {'standard input' if str(file) == '-' else file}")
    return "".join(text.split())


@ends_well
def leave(
    context: typer.Context,
    timeout_s: Annotated[
        float,
        typer.Option(
            "--timeout", metavar="SECONDS", help="How long it may take; if not all has moved by then, the node stays."
        ),
    ] = 120.0,
    as_json: Json = False,
) -> None:
    """Move this node's containers elsewhere, then leave."""
    left = False
    for item in client(context).stream("leave", timeout_s=timeout_s):
        left = bool(item.get("left", left))
        if as_json:
            print_json(item)
        elif "message" in item and not left:
            say(str(item["message"]))
    if not left:
        raise NotWhole("the agent ended the conversation before it had left; gary nodes on another node tells")
    if not as_json:
        print("left the cluster")


@ends_well
def version(context: typer.Context, as_json: Json = False) -> None:
    """Print the versions of this command and of the agent."""
    from gary import __version__

    try:
        answer = client(context).call("version")
    except AgentUnreachable as error:
        if as_json:
            print_json({"version": __version__})
        else:
            print(f"gary {__version__}")
            say(error.message)
        return
    if as_json:
        print_json(answer)
        return
    print(f"gary {__version__}")
    print(f"agent {answer.get('version')}, protocol {answer.get('protocol')}, node {answer.get('name')}")
    print(f"node id {answer.get('node')}")
