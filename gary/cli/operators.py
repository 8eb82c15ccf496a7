"""Who may command a deployment from anywhere: one's own key, and granting others theirs."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from gary.cli.exits import BadInput, ends_well
from gary.cli.key_file import default_key_file, load_key
from gary.cli.options import Json, client, example
from gary.cli.terminal import print_json, working


def add_to(app: typer.Typer) -> None:
    app.command(epilog=example("gary key", "gary key shop"))(key)
    app.command(
        epilog=example("gary grant shop 5f1c…:9a04…", "gary grant shop 5f1c… --revoke", "gary grant --cluster 5f1c…")
    )(grant)


@ends_well
def key(
    context: typer.Context,
    app: Annotated[
        str | None,
        typer.Argument(metavar="[APP]", help="Print what can be granted for this deployment.", show_default=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """Print your operator's key, made when there is none yet.

    With APP it prints what somebody who may command that deployment needs for 'gary grant': the key, and a watchword
    by which your commands will know the nodes that hold it. Hand it on in private.
    """
    public = load_key(default_key_file(os.environ)).public.hex()
    credential = client(context).credential(app) if app else ""
    if as_json:
        print_json({"key": public, **({"credential": credential} if app else {})})
    else:
        print(credential or public)


@ends_well
def grant(
    context: typer.Context,
    app: Annotated[
        str | None, typer.Argument(metavar="[APP]", help="The deployment's name.", show_default=False)
    ] = None,
    operator: Annotated[
        str | None,
        typer.Argument(metavar="[KEY]", help="What 'gary key APP' prints for its owner.", show_default=False),
    ] = None,
    revoke: Annotated[bool, typer.Option("--revoke", help="Take it back; the key alone will do.")] = False,
    cluster: Annotated[
        str | None,
        typer.Option(metavar="KEY", help="Let this key, as 'gary key' prints it, expel and rotate through any node."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Let another operator's key command a deployment, or the cluster."""
    if cluster is not None:
        if app or operator or revoke:
            raise BadInput("--cluster KEY stands alone; what it grants is for ever")
        with working("telling the cluster"):
            answer = client(context).call("admit", key=cluster)
        subject = "the cluster"
    elif app and operator:
        with working(f"telling the members of {app}"):
            answer = client(context).call("grant", app=app, operator=operator, revoke=revoke)
        subject = app
    else:
        raise BadInput("say which deployment and which key: gary grant APP KEY")
    if as_json:
        print_json(answer)
    elif answer.get("granted", True):
        print(f"{answer.get('operator') or answer.get('admitted')} may command {subject}")
    else:
        print(f"{answer.get('operator')} may not command {subject} any more")
