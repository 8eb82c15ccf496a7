"""The nodes of the cluster: see them, join them, leave them."""

from __future__ import annotations

from typing import Annotated

import typer

from gary.cli.exits import AgentUnreachable, NotWhole, ends_well
from gary.cli.options import Json, client, example
from gary.cli.terminal import print_json, say, show, working


def add_to(app: typer.Typer) -> None:
    app.command(epilog=example("gary nodes"))(nodes)
    app.command(epilog=example("gary join 10.0.0.11:7946"))(join)
    app.command(epilog=example("gary leave --timeout 300"))(leave)
    app.command(epilog=example("gary version"))(version)


@ends_well
def nodes(context: typer.Context, as_json: Json = False) -> None:
    """List the nodes of the cluster as this node sees them."""
    answer = client(context).get("nodes")
    if as_json:
        print_json(answer)
        return
    from gary.cli import render

    show(render.nodes(answer))


@ends_well
def join(
    context: typer.Context,
    peer: Annotated[str, typer.Argument(metavar="HOST:PORT", help="Where any node of the cluster is bound.")],
    as_json: Json = False,
) -> None:
    """Make this host's node one of the cluster of PEER."""
    with working(f"asking {peer}"):
        answer = client(context).post("join", body={"peer": peer})
    if as_json:
        print_json(answer)
    else:
        print(f"joined; the cluster has {answer.get('nodes', '?')} nodes")


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
    for item in client(context).stream("POST", "leave", body={"timeout_s": timeout_s}):
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
        answer = client(context).get("version")
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
