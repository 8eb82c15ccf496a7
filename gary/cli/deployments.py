"""Deployments: make them, see them, change them, remove them."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gary.cli.client import Client
from gary.cli.exits import BadInput, ends_well
from gary.cli.options import App, Follow, Json, client, example, split_replicas, split_slot, split_source
from gary.cli.terminal import print_json, say, show, working

if TYPE_CHECKING:
    from gary.cli.client import Answer
    from gary.spec import Spec

WAIT_TIMEOUT_S = 300.0

Detach = Annotated[bool, typer.Option("--detach", "-d", help="Do not wait until all is healthy.")]


def add_to(app: typer.Typer) -> None:
    app.command(
        epilog=example(
            "gary deploy app.yaml", "gary deploy app.yaml --dry-run", "gary deploy app.yaml --name shop-test"
        )
    )(deploy)
    app.command(epilog=example("gary ps"))(ps)
    app.command(epilog=example("gary status shop"))(status)
    app.command(epilog=example("gary promises shop"))(promises)
    app.command(epilog=example("gary endpoints shop"))(endpoints)
    app.command(epilog=example("gary scale shop web=5 worker=2"))(scale)
    app.command(epilog=example("gary release shop/web/1"))(release)
    app.command(epilog=example("gary remove shop"))(remove)
    app.command(epilog=example("gary logs shop/web -f", "gary logs shop/web/1 --tail 100"))(logs)


@ends_well
def deploy(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A Compose file; - is standard input.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would change, and change nothing.")] = False,
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="End as soon as the deployment is durable on enough nodes.")
    ] = False,
    name: Annotated[str | None, typer.Option(help="The deployment's name, instead of the file's.")] = None,
    env_files: Annotated[
        list[Path] | None,
        typer.Option("--env-file", metavar="FILE", help="Variables for the file, before those in .env; repeatable."),
    ] = None,
    timeout_s: Annotated[
        float, typer.Option("--timeout", metavar="SECONDS", help="Wait at most this long until all is healthy.")
    ] = WAIT_TIMEOUT_S,
    replace: Annotated[
        bool, typer.Option("--replace", help="Update a deployment of this name even if it came from another file.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Run a Compose file on the cluster, or update what runs."""
    from gary.spec import to_json

    spec = _load(file, name, tuple(env_files or ()))
    body = {"spec": to_json(spec), "dry_run": dry_run, "replace": replace}
    with working(f"asking the cluster to take on {spec.name}"):
        answer = client(context).call("deploy", **body)
    _tell_changes(answer, as_json, dry_run=dry_run)
    if not dry_run and not detach:
        _wait(client(context), answer, timeout_s, as_json)


@ends_well
def ps(context: typer.Context, as_json: Json = False) -> None:
    """List the deployments of the cluster."""
    answer = client(context).call("ps")
    if as_json:
        print_json(answer)
        return
    from gary.cli import render

    show(render.deployments(answer))
    if unanswered := answer.get("unanswered"):
        say(f"{len(unanswered)} more: no node that holds them answered in time")
    if withheld := answer.get("withheld"):
        say(f"{len(withheld)} more {'deployment is' if len(withheld) == 1 else 'deployments are'} not yours to see")


@ends_well
def status(context: typer.Context, app: App, as_json: Json = False) -> None:
    """Show a deployment's slots, and what is missing and why."""
    answer = client(context).call("status", app=app)
    if as_json:
        print_json(answer)
        return
    from gary.cli import render

    show(render.status(answer))


@ends_well
def promises(context: typer.Context, app: App, as_json: Json = False) -> None:
    """Show who promises what, and what others say about it."""
    with working("asking the members"):
        answer = client(context).call("promises", app=app)
    if as_json:
        print_json(answer)
        return
    from gary.cli import render

    show(render.promises(answer))


@ends_well
def endpoints(context: typer.Context, app: App, as_json: Json = False) -> None:
    """List where a deployment's ports can be reached now."""
    answer = client(context).call("endpoints", app=app)
    if as_json:
        print_json(answer)
        return
    from gary.cli import render

    show(render.endpoints(answer))


@ends_well
def scale(
    context: typer.Context,
    app: App,
    services: Annotated[list[str], typer.Argument(metavar="SERVICE=N…", help="How many replicas each service has.")],
    detach: Detach = False,
    timeout_s: Annotated[
        float, typer.Option("--timeout", metavar="SECONDS", help="Wait at most this long until all is healthy.")
    ] = WAIT_TIMEOUT_S,
    as_json: Json = False,
) -> None:
    """Change how many replicas services have."""
    replicas = split_replicas(services)
    with working(f"scaling {app}"):
        answer = client(context).call("scale", app=app, services=replicas)
    _tell_changes(answer, as_json, dry_run=False)
    if not detach:
        _wait(client(context), answer, timeout_s, as_json)


@ends_well
def release(
    context: typer.Context,
    slot: Annotated[
        str, typer.Argument(metavar="APP/SERVICE/INDEX", help="A slot that is held for a node out of sight.")
    ],
    as_json: Json = False,
) -> None:
    """Let others take on a slot held for a node out of sight."""
    app, name = split_slot(slot)
    answer = client(context).call("release", app=app, slot=name)
    if as_json:
        print_json(answer)
    else:
        print(f"released {app}/{answer.get('released', name)}")


@ends_well
def remove(context: typer.Context, app: App, as_json: Json = False) -> None:
    """Stop a deployment everywhere. Named volumes stay."""
    with working(f"removing {app}"):
        answer = client(context).call("remove", app=app)
    if as_json:
        print_json(answer)
    else:
        print(f"removed {answer.get('removed', app)}")


@ends_well
def logs(
    context: typer.Context,
    source: Annotated[str, typer.Argument(metavar="APP[/SERVICE[/INDEX]]", help="Whose output.")],
    follow: Follow = False,
    tail: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Only the last N lines of each container. Default: all.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Print what the containers wrote, wherever they run."""
    from gary.cli.prefixes import Prefixes

    app, service, index = split_source(source)
    prefixes = Prefixes(coloured=sys.stdout.isatty())
    items = client(context).stream("logs", app=app, service=service, index=index, follow=follow, tail=tail)
    for item in items:
        if as_json:
            print_json(item)
        elif "lost" in item:
            say(f"({item['lost']} lines were lost on the way)")
        else:
            print(f"{prefixes.of(str(item.get('slot', '')))}{item.get('line', '')}", flush=True)


def _load(file: Path, name: str | None, env_files: tuple[Path, ...]) -> Spec:
    """The spec in ``file`` (``-``: standard input); every error in it at once, as ``BadInput``."""
    from gary.compose import ComposeErrors, load

    piped = str(file) == "-"
    try:
        return load(
            None if piped else file,
            _environment(env_files),
            text=sys.stdin.buffer.read() if piped else None,
            name=name,
            warn=lambda warning: say(f"warning: {warning}"),
        )
    except ComposeErrors as errors:
        count = len(errors.errors)
        message = f"{file} has {count} error{'s' if count > 1 else ''}; nothing was deployed"
        raise BadInput(message, tuple(str(error) for error in errors.errors)) from errors


def _environment(env_files: tuple[Path, ...]) -> Mapping[str, str]:
    """This process's environment over the variables in ``env_files``, of which the later wins."""
    from gary.compose.dotenv import read_dotenv
    from gary.compose.errors import Place, Problems

    problems = Problems()
    found: dict[str, str] = {}
    for file in env_files:
        known = {**found, **os.environ}
        found |= read_dotenv(file, known.get, problems, Place(str(file), 0, 0, ""))
    problems.check()
    return {**found, **os.environ}


def _tell_changes(answer: Answer, as_json: bool, *, dry_run: bool) -> None:
    if as_json:
        print_json(answer)
        return
    from gary.cli import render

    lines = render.changes(answer)
    name = answer.get("name")
    if not lines:
        print(f"{name}: nothing to change")
        return
    verb = "would be " if dry_run else ""
    print(f"{name}: {verb}{'created' if answer.get('created') else 'changed'}")
    for line in lines:
        print(f"  {line}")
    if not dry_run and (durable_on := answer.get("durable_on")):
        say(f"durable on {', '.join(map(str, durable_on))}")


def _wait(client: Client, answer: Answer, timeout_s: float, as_json: bool) -> None:
    from gary.cli.waiting import wait_until_whole

    started = time.monotonic()
    status = wait_until_whole(client, str(answer.get("name")), answer.get("generation"), timeout_s)
    healthy = sum(int(service.get("healthy", 0)) for service in status.get("services", ()))
    if not as_json:
        print(f"{answer.get('name')}: whole, {healthy} healthy after {time.monotonic() - started:.1f} s")
