"""``gary agent``: read the settings, then become the agent.

The agent gets a process image of its own: what this command needed to read its flags would otherwise stay in the
memory of a process that runs for months.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from gary.cli.exits import ends_well
from gary.cli.options import example
from gary.config import LOG_FORMATS, LOG_LEVELS, PROFILES, encode, resolve


def add_to(app: typer.Typer) -> None:
    app.command(
        epilog=example(
            "gary agent",
            "gary agent --name rack1-a --label zone=a --bind 10.0.0.11:7946",
            "GARY_STATE_DIR=/srv/gary gary agent --config /etc/gary/gary.toml",
        )
    )(agent)


@ends_well
def agent(
    config: Annotated[
        Path | None, typer.Option(help="Settings as TOML. Default: GARY_CONFIG, or /etc/gary/gary.toml if it is there.")
    ] = None,
    state_dir: Annotated[str | None, typer.Option(help="Where the node keeps its identity and its documents.")] = None,
    socket: Annotated[
        str | None,
        typer.Option("--socket-path", metavar="PATH", help="The agent's socket. Default: agent.sock in STATE_DIR."),
    ] = None,
    socket_owner: Annotated[
        str | None,
        typer.Option(metavar="USER", help="Whose the socket is, by name or number. Default: the agent's user."),
    ] = None,
    socket_group: Annotated[
        str | None,
        typer.Option(metavar="GROUP", help="Who else may use it, by name or number. Default: the agent's group."),
    ] = None,
    bind: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Listen here for other nodes; PORT+1 is used as well.")
    ] = None,
    advertise: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="The address that other nodes dial, if it is not the bound one."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="The node's name. Default: the host's.")] = None,
    labels: Annotated[
        list[str] | None, typer.Option("--label", metavar="KEY=VALUE", help="For placement constraints; repeatable.")
    ] = None,
    runtimes: Annotated[
        list[str] | None,
        typer.Option(
            "--runtime",
            metavar="NAME",
            help="docker or process; repeatable. Default: docker if it answers, and process.",
        ),
    ] = None,
    docker_host: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="The engine's address, unix://PATH.")
    ] = None,
    transport: Annotated[str | None, typer.Option(help="How nodes talk to each other. Default: nng.")] = None,
    profile: Annotated[
        str | None,
        typer.Option(
            metavar="|".join(PROFILES),
            help="Timing for the network between nodes, the same on all: wan for round trips of up to some hundred "
            "milliseconds, with slower failover. Default: lan.",
        ),
    ] = None,
    containers_max: Annotated[
        str | None, typer.Option(metavar="N", help="Take on at most N containers. Default: 100.")
    ] = None,
    metrics_bind: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Serve /metrics over TCP as well. Default: only on the socket."),
    ] = None,
    vouch: Annotated[
        bool | None,
        typer.Option(
            "--vouch/--no-vouch",
            help="Whether this node may hold the key that lets others into the cluster. Default: it may.",
        ),
    ] = None,
    log_format: Annotated[str | None, typer.Option(metavar="|".join(LOG_FORMATS), help="Default: text.")] = None,
    log_level: Annotated[str | None, typer.Option(metavar="|".join(LOG_LEVELS), help="Default: info.")] = None,
) -> None:
    """Run this host's agent in the foreground.

    Each flag can also be set in the environment (GARY_STATE_DIR, GARY_BIND, GARY_LABELS=k=v,k=v, …) and in gary.toml
    (state_dir, bind, labels, …). A flag wins over the environment, and that over the file.
    """
    flags: dict[str, object] = {
        "config": str(config) if config else None,
        "state_dir": state_dir,
        "socket": socket,
        "socket_owner": socket_owner,
        "socket_group": socket_group,
        "bind": bind,
        "advertise": advertise,
        "name": name,
        "labels": labels or None,
        "runtimes": runtimes or None,
        "docker_host": docker_host,
        "transport": transport,
        "profile": profile,
        "containers_max": containers_max,
        "metrics_bind": metrics_bind,
        "vouch": vouch,
        "log_format": log_format,
        "log_level": log_level,
    }
    resolved = encode(resolve(flags, os.environ))
    # -P: the directory in which an agent happens to be started must not be able to lend it modules.
    isolation = ["-P"] if sys.flags.safe_path or not _is_imported_from_here() else []
    arguments = [sys.executable, *isolation, "-m", "gary.launch", resolved]
    os.execv(sys.executable, arguments)


def _is_imported_from_here() -> bool:
    """Whether Gary was found in the working directory itself: a checkout that is not installed."""
    return Path(__file__).resolve().is_relative_to(Path.cwd())
