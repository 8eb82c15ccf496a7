"""Who may be in the cluster: invite nodes, expel them, change the root, let operators command it."""

from __future__ import annotations

import datetime
import re
from typing import Annotated

import typer

from gary.cli.exits import BadInput, ends_well
from gary.cli.options import Json, client, example
from gary.cli.terminal import print_json, say, show, working

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def add_to(app: typer.Typer) -> None:
    app.command(
        epilog=example(
            "gary invite > token",
            "gary invite --uses 10 --expires 1d",
            "gary invite --list",
            "gary invite --revoke 3f9a",
        )
    )(invite)
    app.command(epilog=example("gary expel node-3"))(expel)
    app.command(epilog=example("gary rotate", "gary rotate --no-overlap"))(rotate)


@ends_well
def invite(
    context: typer.Context,
    uses: Annotated[int, typer.Option(metavar="N", help="So many nodes may come with it.")] = 1,
    expires: Annotated[str, typer.Option(metavar="DURATION", help="How long it is good for: 30m, 1h, 2d.")] = "1h",
    vouch: Annotated[
        bool,
        typer.Option(
            "--vouch/--no-vouch",
            help="Whether the nodes that come may hold the key that lets others in, like this one.",
        ),
    ] = True,
    list_all: Annotated[bool, typer.Option("--list", help="List the invitations of this node instead.")] = False,
    revoke: Annotated[str | None, typer.Option(metavar="ID", help="End an invitation of this node instead.")] = None,
    as_json: Json = False,
) -> None:
    """Print a token with which other nodes join this one's cluster.

    Only this node redeems it: it has to be up, and reachable at its address, when the others come. Whoever has the
    token can join, so treat it like a password.
    """
    agent = client(context)
    if list_all:
        answer = agent.call("invitations")
    elif revoke is not None:
        answer = agent.call("revoke", invitation=revoke)
    else:
        answer = agent.call("invite", uses=uses, expires_s=seconds(expires), vouch=vouch)
    if as_json:
        print_json(answer)
    elif list_all:
        from gary.cli import render

        show(render.invitations(answer))
    elif revoke is not None:
        print(f"revoked {answer.get('revoked')}")
    else:
        print(answer.get("token"))
        until = datetime.datetime.fromtimestamp(int(answer.get("expires_at", 0))).strftime("%Y-%m-%d %H:%M")
        whom = "one node" if uses == 1 else f"{uses} nodes"
        say(f"for {whom}, until {until}; on the other host: gary join --token-file FILE")


@ends_well
def expel(
    context: typer.Context,
    node: Annotated[str, typer.Argument(metavar="NODE", help="Its name, or how its id begins.")],
    as_json: Json = False,
) -> None:
    """Put a node out of the cluster for ever.

    Every node refuses it from then on, and what it kept is replaced. It can come back only as another node: with an
    empty state directory and an invitation.
    """
    with working(f"expelling {node}"):
        answer = client(context).call("expel", node=node)
    if as_json:
        print_json(answer)
    else:
        print(f"expelled {answer.get('name')} ({answer.get('expelled')})")


@ends_well
def rotate(
    context: typer.Context,
    overlap: Annotated[
        str, typer.Option(metavar="DURATION", help="How long the old root is trusted as well: 1h, 7d.")
    ] = "7d",
    no_overlap: Annotated[
        bool,
        typer.Option(
            "--no-overlap", help="The old root's key was stolen: trust it only until all that are there are over."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Put a new root key in the place of the cluster's present one.

    Every node gets a new certificate by itself. A node that is away for longer than the overlap needs an invitation to
    come back. Expel nodes that you do not know first.
    """
    with working("making a new root"):
        answer = client(context).call("rotate", overlap_s=float(seconds(overlap)), urgent=no_overlap)
    if as_json:
        print_json(answer)
        return
    until = datetime.datetime.fromtimestamp(int(answer.get("until", 0))).strftime("%Y-%m-%d %H:%M:%S")
    print(f"the cluster's root is now {answer.get('root')}; the old one is trusted until {until}")
    if away := answer.get("away"):
        say(f"away, and to be invited anew if not back by then: {', '.join(away)}")


def seconds(text: str) -> int:
    """A duration such as ``30m`` or ``2d`` in seconds."""
    found = re.fullmatch(r"([0-9]{1,6})([smhd])", text.strip())
    if found is None:
        raise BadInput(f"{text!r} is no duration such as 30m, 1h or 2d")
    return int(found[1]) * _UNITS_S[found[2]]
