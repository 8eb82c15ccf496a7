"""``gary doctor``: what is wrong with this host, as its agent and its peers see it, or as it looks without an agent."""

from __future__ import annotations

import http.client
import os
from collections.abc import Mapping
from pathlib import Path

import typer

from gary.cli.client import Answer, UnixConnection
from gary.cli.exits import FAILED, AgentUnreachable, ends_well
from gary.cli.options import Json, client, example
from gary.cli.terminal import print_json, show, working
from gary.doctor import EngineFacts, Facts, SocketFacts, Verdict, examine, finding_from, worst
from gary.errors import ConfigError

ENGINE_TIMEOUT_S = 2.0


def add_to(app: typer.Typer) -> None:
    app.command(epilog=example("gary doctor", "gary doctor --json"))(doctor)


@ends_well
def doctor(context: typer.Context, as_json: Json = False) -> None:
    """Look for what is wrong with this host, and say what to do about it.

    Peers are asked for the time, and to connect to this node's address. Where no agent answers, what can be seen
    without one is looked at. The exit code is 1 if anything is a problem.
    """
    agent = client(context)
    with working("looking, and asking peers"):
        try:
            told = agent.call("doctor")
        except AgentUnreachable as error:
            findings = examine(_seen_without_an_agent(error, os.environ))
        else:
            findings = [*examine(_seen_of_an_agent(agent.socket_path)), *map(finding_from, _rows(told))]
    verdict = worst(finding.verdict for finding in findings)
    if as_json:
        print_json({"verdict": verdict.value, "findings": [finding.to_json() for finding in findings]})
    else:
        from gary.cli import render

        show(render.findings(findings))
    if verdict is Verdict.PROBLEM:
        raise typer.Exit(FAILED)


def _rows(answer: Answer) -> list[Mapping[str, object]]:
    rows = answer.get("findings")
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []


def _seen_of_an_agent(path: Path) -> Facts:
    return Facts(socket=SocketFacts(True, f"it answers at {path}"))


def _seen_without_an_agent(error: AgentUnreachable, environment: Mapping[str, str]) -> Facts:
    """What an agent would find that is started here without flags."""
    from gary.config import resolve
    from gary.inspection import inspect_disk

    socket = SocketFacts(False, error.message, error.hint)
    try:
        config = resolve({}, environment)
    except ConfigError as wrong:
        return Facts(socket, settings=tuple(str(problem) for problem in wrong.problems))
    disk = inspect_disk(config.state_dir) if os.path.lexists(config.state_dir) else None
    names = config.runtimes or ("docker", "process")
    engines = [_engine(config.docker_host) if name == "docker" else EngineFacts(name, True, True) for name in names]
    return Facts(socket, settings=(), disk=disk, engines=tuple(engine for engine in engines if engine is not None))


def _engine(address: str) -> EngineFacts | None:
    """Whether Docker answers at ``address``; None if it is not on this host."""
    scheme, _, path = address.partition("://")
    if scheme != "unix":
        return None
    connection = UnixConnection(Path(path), ENGINE_TIMEOUT_S)
    try:
        connection.request("GET", "/_ping")
        connection.getresponse().close()
    except (OSError, http.client.HTTPException) as error:
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
        return EngineFacts("docker", False, False, f"{path}: {reason.lower()}")
    else:
        return EngineFacts("docker", True, True)
    finally:
        connection.close()
