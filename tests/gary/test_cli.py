"""The command line in front of an agent that answers what a test has prepared."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from gary import __version__
from gary.cli import render, terminal
from gary.cli.app import app
from gary.cli.exits import NotWhole
from gary.cli.key_file import VARIABLE
from gary.cli.prefixes import Prefixes
from gary.cli.reference import reference
from gary.cli.waiting import SETTLE_S, Verdict, Watch, wait_until_whole
from gary.config import decode
from gary.errors import CommandError, ErrorCode
from gary.identity import pseudonym
from tests.gary.agent_double import CLUSTER, AgentDouble, PreparedCommands

REPOSITORY = Path(__file__).parents[2]
SHOP = pseudonym("shop", CLUSTER)
COMPOSE = """\
name: shop
services:
  web:
    image: nginx
    deploy:
      replicas: 2
"""


def _slot(slot: str, state: str, node: str = "a", **more: object) -> dict[str, object]:
    held = {"node": node * 32, "node_name": node and f"node-{node}"}
    return (
        {"slot": slot, "service": slot.split("/")[0], "state": state}
        | held
        | {"generation": "g1", "current": True, "reason": "", "restarts": 0, "ports": []}
        | more
    )


def _status(state: str, *slots: Mapping[str, object], generation: str = "g1", **more: object) -> dict[str, Any]:
    healthy = sum(slot["state"] == "healthy" for slot in slots)
    service = {"name": "web", "wanted": len(slots), "healthy": healthy, "updated": healthy, "image": "nginx"}
    return {
        "name": "shop",
        "id": "0",
        "generation": generation,
        "state": state,
        "services": [service | {"runtime": "docker"}],
        "slots": list(slots),
        "members": [{"node": "a" * 32, "name": "node-a", "role": "runner", "status": "alive"}],
        "missing": [],
        "resilience": {"wanted": 3, "have": 1},
    } | more


DEPLOYED = {
    "name": "shop",
    "id": "0",
    "generation": "g1",
    "created": True,
    "changes": [{"service": "web", "action": "add", "detail": "2 replicas of nginx"}],
    "durable_on": ["node-a", "node-b"],
}
WHOLE = _status("whole", _slot("web/1", "healthy"), _slot("web/2", "healthy", "b"))


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentDouble]:
    with AgentDouble(tmp_path_factory.mktemp("agent") / "agent.sock", PreparedCommands()) as agent:
        yield agent


@pytest.fixture
def commands(agent: AgentDouble) -> PreparedCommands:
    agent.commands.answers = {}
    agent.commands.endless = frozenset()
    agent.commands.asked.clear()
    return agent.commands


@pytest.fixture
def compose_file(tmp_path: Path) -> Path:
    file = tmp_path / "app.yaml"
    file.write_text(COMPOSE)
    return file


def _gary(agent: AgentDouble, *arguments: str | Path, text: str | None = None) -> Result:
    words = ["--socket", str(agent.socket_path), *map(str, arguments)]
    return CliRunner().invoke(app, words, input=text, catch_exceptions=False)


ANSWERS: dict[str, dict[str, object]] = {
    "nodes": {
        "nodes": [
            {"node": "a" * 32, "name": "node-a", "address": "10.0.0.1:7946", "status": "alive", "self": True}
            | {"accepting": True, "labels": {"zone": "z1"}, "runtimes": ["docker"], "cpus": 2.0}
            | {"memory_bytes": 8 << 30, "containers": 3, "containers_max": 100, "deployments": 1},
        ]
    },
    "ps": {
        "deployments": [
            {"name": "shop", "id": "0", "generation": "g1", "services": ["web"], "wanted": 2, "healthy": 1}
            | {"state": "degraded", "members": ["node-a"]},
        ],
        "unanswered": ["1"],
        "withheld": [],
    },
    "status": _status(
        "degraded",
        _slot(
            "web/1",
            "healthy",
            ports=[{"container_port": 80, "protocol": "tcp", "host_ip": "0.0.0.0", "host_port": 8080}],
        ),
        _slot("web/2", "unkept", "", reason="last kept by [bold]node-b"),
        missing=[{"slot": "web/2", "asked": 4, "declined": {"not enough memory": 3}, "detail": ""}],
    ),
    "promises": {
        "promises": [
            {"slot": "web/1", "node": "a" * 32, "node_name": "node-a", "state": "healthy", "generation": "g1"}
            | {"claim": "7", "reason": "", "assessments": {"node-b": "kept", "node-c": "unknown"}},
        ]
    },
    "endpoints": {
        "endpoints": [
            {"service": "web", "slot": "web/1", "node": "a" * 32, "node_name": "node-a", "address": "10.0.0.1"}
            | {"port": 8080, "container_port": 80, "protocol": "tcp"},
        ]
    },
    "release": {"released": "web/1"},
    "remove": {"removed": "shop"},
    "join": {"joined": True, "nodes": 3},
    "invite": {
        "token": "gary1.abc",
        "id": "1" * 32,
        "uses": 2,
        "expires_at": 1_700_000_000,
        "address": "10.0.0.1:7946",
    },
    "invitations": {
        "invitations": [
            {"id": "1" * 32, "state": "open", "uses": 2, "admitted": ["node-b"], "expires_at": 1_700_000_000},
            {"id": "2" * 32, "state": "revoked", "uses": 1, "admitted": [], "expires_at": 1_700_000_000},
        ]
    },
    "revoke": {"revoked": "1" * 32},
    "expel": {"expelled": "b" * 32, "name": "node-b"},
    "rotate": {"root": "gary root 0123", "until": 1_700_000_000, "away": ["node-c"]},
    "version": {"version": "9.9.9", "protocol": 1, "node": "a" * 32, "name": "node-a"},
}
_COMMANDS = {
    "nodes": ["nodes"],
    "ps": ["ps"],
    "status": ["status", "shop"],
    "promises": ["promises", "shop"],
    "endpoints": ["endpoints", "shop"],
    "release": ["release", "shop/web/1"],
    "remove": ["remove", "shop"],
    "join": ["join", "10.0.0.1:7946"],
    "invite": ["invite", "--uses", "2"],
    "invitations": ["invite", "--list"],
    "revoke": ["invite", "--revoke", "1111"],
    "expel": ["expel", "node-b"],
    "rotate": ["rotate", "--overlap", "2d"],
    "version": ["version"],
}
_SHOWN = {
    "nodes": ["node-a (this node)", "alive", "10.0.0.1:7946", "3/100", "8 GiB", "docker", "zone=z1"],
    "ps": ["shop", "degraded", "1/2", "web", "node-a"],
    "status": [
        "held by 1, wanted 3 or more",
        "0.0.0.0:8080->80/tcp",
        "web/2 unkept: last kept by [bold]node-b; 3 of 4 nodes declined: not enough memory (3)",
    ],
    "promises": ["web/1", "node-b SAYS", "kept", "unknown"],
    "endpoints": ["web", "10.0.0.1:8080", "80/tcp"],
    "release": ["released shop/web/1"],
    "remove": ["removed shop"],
    "join": ["the cluster has 3 nodes"],
    "invite": ["gary1.abc"],
    "invitations": ["111111111111", "open", "1/2", "node-b", "revoked", "0/1"],
    "revoke": ["revoked 1111"],
    "expel": ["expelled node-b"],
    "rotate": ["the cluster's root is now gary root 0123"],
    "version": [__version__, "agent 9.9.9, protocol 1, node node-a"],
}


@pytest.mark.parametrize("op", list(_COMMANDS))
def test_a_command_shows_the_answer_to_a_person(agent: AgentDouble, commands: PreparedCommands, op: str) -> None:
    commands.answers = {op: ANSWERS[op]}
    result = _gary(agent, *_COMMANDS[op])
    assert result.exit_code == 0
    for words in _SHOWN[op]:
        assert words in result.stdout
    assert [asked for asked, _ in commands.given] == [op]


@pytest.mark.parametrize("op", list(_COMMANDS))
def test_json_is_exactly_the_agent_s_answer(agent: AgentDouble, commands: PreparedCommands, op: str) -> None:
    commands.answers = {op: ANSWERS[op]}
    result = _gary(agent, *_COMMANDS[op], "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout) == ANSWERS[op]
    assert result.stderr == ""


@pytest.mark.parametrize(
    ("code", "exit_code"),
    [
        (ErrorCode.BAD_REQUEST, 2),
        (ErrorCode.NOT_FOUND, 4),
        (ErrorCode.NAME_TAKEN, 5),
        (ErrorCode.CONFLICT, 5),
        (ErrorCode.REFUSED, 5),
        (ErrorCode.UNAVAILABLE, 1),
        (ErrorCode.TIMEOUT, 1),
        (ErrorCode.INTERNAL, 1),
    ],
)
def test_an_error_has_its_exit_code_and_says_what_to_do(
    agent: AgentDouble, commands: PreparedCommands, code: ErrorCode, exit_code: int
) -> None:
    commands.answers = {"status": CommandError(code, "it is so", "do that")}
    result = _gary(agent, "status", "shop", "--json")
    assert result.exit_code == exit_code
    assert result.stderr == "gary: it is so\n      do that\n"
    assert json.loads(result.stdout) == {"error": {"code": code.value, "message": "it is so", "hint": "do that"}}
    assert _gary(agent, "status", "shop").stdout == ""


def test_without_an_agent_the_command_says_how_to_start_one(tmp_path: Path) -> None:
    stale = tmp_path / "stale.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(stale))
    for path, why in ((tmp_path / "agent.sock", "there is no socket"), (stale, "nobody answers")):
        result = CliRunner().invoke(app, ["--socket", str(path), "nodes"])
        assert result.exit_code == 3
        assert why in result.stderr
        assert f"gary agent --state-dir {tmp_path}" in result.stderr


def test_version_tells_its_own_even_without_an_agent(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["--socket", str(tmp_path / "s"), "version", "--json"])
    assert (result.exit_code, json.loads(result.stdout)) == (0, {"version": __version__})
    assert CliRunner().invoke(app, ["--version"]).stdout == f"gary {__version__}\n"


def test_deploy_tells_the_changes_and_waits_until_all_is_whole(
    agent: AgentDouble, commands: PreparedCommands, compose_file: Path
) -> None:
    converging = _status("converging", _slot("web/1", "healthy"), _slot("web/2", "starting", "b"))
    commands.answers = {"deploy": DEPLOYED, "status": [CommandError(ErrorCode.UNAVAILABLE, ""), converging, WHOLE]}
    result = _gary(agent, "deploy", compose_file)
    assert result.exit_code == 0
    assert result.stdout.startswith("shop: created\n  + web: 2 replicas of nginx\nshop: whole, 2 healthy after ")
    assert "durable on node-a, node-b" in result.stderr
    assert "web/2 starting on node-b\n" in result.stderr
    assert "web/2 healthy on node-b\n" in result.stderr
    op, args = commands.given[0]
    assert (op, args["dry_run"], args["replace"]) == ("deploy", False, False)
    spec = args["spec"]
    assert isinstance(spec, dict)
    assert spec["name"] == "shop"


@pytest.mark.parametrize("flag", ["--dry-run", "--detach"])
def test_a_dry_run_and_a_detached_deploy_do_not_wait(
    agent: AgentDouble, commands: PreparedCommands, compose_file: Path, flag: str
) -> None:
    commands.answers = {"deploy": DEPLOYED}
    result = _gary(agent, "deploy", compose_file, flag)
    assert result.exit_code == 0
    assert [op for op, _ in commands.given] == ["deploy"]
    assert commands.given[0][1]["dry_run"] is (flag == "--dry-run")


def test_an_unchanged_file_changes_nothing(agent: AgentDouble, commands: PreparedCommands, compose_file: Path) -> None:
    kept = [{"service": "web", "action": "keep", "detail": ""}]
    commands.answers = {"deploy": DEPLOYED | {"changes": kept, "created": False}, "status": WHOLE}
    assert _gary(agent, "deploy", compose_file).stdout.startswith("shop: nothing to change\n")


def test_deploy_takes_names_variables_and_standard_input(
    agent: AgentDouble, commands: PreparedCommands, tmp_path: Path
) -> None:
    commands.answers = {"deploy": DEPLOYED}
    (tmp_path / "vars").write_text("IMAGE=from-file\n")
    text = COMPOSE.replace("nginx", "${IMAGE}")
    result = _gary(agent, "deploy", "-", "--name", "other", "--env-file", tmp_path / "vars", "--detach", text=text)
    assert result.exit_code == 0, result.stderr
    spec = commands.given[0][1]["spec"]
    assert isinstance(spec, dict)
    assert spec["name"] == "other"
    assert "from-file" in json.dumps(spec)


def test_every_error_of_a_file_is_told_with_its_line_and_nothing_is_deployed(
    agent: AgentDouble, commands: PreparedCommands, tmp_path: Path
) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text("name: shop\nservices:\n  web:\n    image: nginx\n    build: .\n    prots: []\n")
    result = _gary(agent, "deploy", file)
    assert result.exit_code == 2
    assert f"{file}:5:" in result.stderr
    assert f"{file}:6:" in result.stderr
    assert "2 errors; nothing was deployed" in result.stderr
    assert _gary(agent, "deploy", tmp_path / "nowhere.yaml").exit_code == 2
    assert _gary(agent, "deploy", file, "--env-file", tmp_path / "nowhere").exit_code == 2
    assert commands.asked == []


def test_scale_waits_like_deploy(agent: AgentDouble, commands: PreparedCommands) -> None:
    scaled = {"service": "web", "action": "scale", "detail": "2 -> 3"}
    commands.answers = {"scale": DEPLOYED | {"created": False, "changes": [scaled]}, "status": WHOLE}
    result = _gary(agent, "scale", "shop", "web=3")
    assert (result.exit_code, commands.given[0]) == (0, ("scale", {"app": SHOP, "services": {"web": 3}}))
    assert "shop: changed\n  ~ web: 2 -> 3\n" in result.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["scale", "shop", "web"],
        ["scale", "shop", "web=-1"],
        ["scale", "shop", "web=1", "web=2"],
        ["release", "shop"],
        ["release", "shop/web"],
        ["release", "shop/web/1/2"],
        ["logs", "shop/"],
        ["logs", "a/b/c/d"],
        ["join"],
        ["join", "--token", "gary1.abc", "--token-file", "token"],
        ["join", "--token-file", "/nowhere/token"],
        ["invite", "--expires", "soon"],
        ["expel"],
        ["rotate", "--overlap", "7"],
        ["nodes", "--jsn"],
        ["unknown"],
        ["demo", "--runtime", "memory"],
    ],
)
def test_arguments_that_cannot_be_meant_are_refused_before_anything_is_asked(
    agent: AgentDouble, commands: PreparedCommands, arguments: list[str]
) -> None:
    result = _gary(agent, *arguments)
    assert result.exit_code == 2
    assert result.stderr
    assert commands.asked == []


def test_logs_of_several_slots_are_merged_with_their_names_before_them(
    agent: AgentDouble, commands: PreparedCommands
) -> None:
    lines = [
        {"slot": "web/1", "node_name": "node-a", "stream": "stdout", "line": "one"},
        {"slot": "worker/10", "node_name": "node-b", "stream": "stderr", "line": "two [bold]"},
        {"lost": 3},
        {"slot": "web/1", "node_name": "node-a", "stream": "stdout", "line": ""},
    ]
    commands.answers = {"logs": lines}
    result = _gary(agent, "logs", "shop/web", "--tail", "5")
    assert result.stdout == "web/1 | one\nworker/10 | two [bold]\nweb/1     | \n"
    assert result.stderr == "(3 lines were lost on the way)\n"
    asked = {"app": SHOP, "service": "web", "index": None, "follow": False, "tail": 5}
    assert commands.given == [("logs", asked)]
    assert [json.loads(line) for line in _gary(agent, "logs", "shop", "--json").stdout.splitlines()] == lines


def test_each_slot_has_its_own_colour_where_a_person_looks() -> None:
    prefixes = Prefixes(coloured=True)
    assert prefixes.of("web/1") == "\x1b[36mweb/1 | \x1b[0m"
    assert prefixes.of("web/2") == "\x1b[33mweb/2 | \x1b[0m"
    assert prefixes.of("web/1") == "\x1b[36mweb/1 | \x1b[0m"


def test_events_are_one_line_each(agent: AgentDouble, commands: PreparedCommands) -> None:
    item = {"at": 0, "node": "a" * 32, "node_name": "node-a", "kind": "started", "deployment": "shop", "slot": "web/1"}
    commands.answers = {"events": [item | {"message": "runs"}, {"lost": 2}]}
    first, second = _gary(agent, "events", "shop").stdout.splitlines()
    assert re.fullmatch(r"19(69|70)-\S+ \S+  node-a  started  shop/web/1: runs", first)
    assert second == "(2 events were lost on the way)"


def test_leave_tells_its_progress_and_fails_if_it_ends_before_the_end(
    agent: AgentDouble, commands: PreparedCommands
) -> None:
    commands.answers = {"leave": [{"message": "moving web/1"}, {"left": True}]}
    result = _gary(agent, "leave", "--timeout", "5")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "left the cluster\n", "moving web/1\n")
    assert commands.given == [("leave", {"timeout_s": 5.0})]
    commands.answers = {"leave": [{"message": "moving web/1"}]}
    assert _gary(agent, "leave").exit_code == 1
    commands.answers = {"leave": [{"message": "m"}, CommandError(ErrorCode.TIMEOUT, "not all moved")]}
    assert "not all moved" in _gary(agent, "leave").stderr


# Waiting, in a time of its own.


def test_waiting_goes_on_while_something_is_under_way_and_ends_when_nothing_is() -> None:
    watch = Watch("g1", 300.0, 0.0)
    pulling = _status("converging", _slot("web/1", "starting"))
    failing = _status("degraded", _slot("web/1", "failing", reason="image is missing"))
    assert watch.judge(None, 1.0) is Verdict.GOING_ON
    assert watch.judge(pulling, 100.0) is Verdict.GOING_ON
    assert watch.judge(failing, 101.0) is Verdict.GOING_ON
    assert watch.judge(failing, 101.0 + SETTLE_S - 0.1) is Verdict.GOING_ON
    assert watch.judge(failing, 101.0 + SETTLE_S) is Verdict.STUCK


def test_waiting_ends_at_the_time_limit_and_at_the_asked_generation_only() -> None:
    watch = Watch("g2", 10.0, 0.0)
    assert watch.judge(WHOLE, 1.0) is Verdict.GOING_ON
    assert watch.judge(WHOLE | {"generation": "g2"}, 2.0) is Verdict.WHOLE
    assert watch.judge(_status("converging", _slot("web/1", "starting")), 10.0) is Verdict.LATE


class _Answers:
    """In place of a client."""

    def __init__(self, *answers: object) -> None:
        self._answers = list(answers)

    def call(self, *_operation: str, **_arguments: str) -> Any:
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def _wait(*answers: object, timeout_s: float = 60.0) -> Mapping[str, Any]:
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    client: Any = _Answers(*answers)
    return wait_until_whole(client, "shop", "g1", timeout_s, clock=lambda: now[0], sleep=sleep)


def test_what_is_missing_is_said_with_every_reason() -> None:
    stuck = _status(
        "degraded",
        _slot("web/1", "failing", reason="the image 'ngix' is not on this host"),
        _slot("web/2", "unkept", ""),
        _slot("web/3", "healthy"),
        missing=[{"slot": "web/2", "asked": 4, "declined": {"full": 1, "label": 2}, "detail": "next call in 8 s"}],
    )
    with pytest.raises(NotWhole) as caught:
        _wait(stuck)
    assert str(caught.value).splitlines() == [
        "shop is not whole: nothing more is under way.",
        "  web/1 failing on node-a: the image 'ngix' is not on this host",
        "  web/2 unkept: 3 of 4 nodes declined: full (1), label (2); next call in 8 s",
        "The deployment stays and goes on trying: gary status shop",
    ]


def test_a_deployment_that_nobody_answers_for_is_waited_for_until_the_limit() -> None:
    with pytest.raises(NotWhole, match="no node that holds it answered"):
        _wait(CommandError(ErrorCode.UNAVAILABLE, "away"), timeout_s=5.0)
    assert _wait(CommandError(ErrorCode.UNAVAILABLE, "away"), WHOLE) == WHOLE
    with pytest.raises(CommandError):
        _wait(CommandError(ErrorCode.INTERNAL, "fault"))


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=4,
)


@given(st.data())
def test_an_answer_of_any_other_version_can_be_shown(data: st.DataObject) -> None:
    from rich.console import Console

    op = data.draw(st.sampled_from(["nodes", "ps", "status", "promises", "endpoints"]))
    show = {"ps": render.deployments}.get(op) or getattr(render, op)
    answer: dict[str, Any] = json.loads(json.dumps(ANSWERS[op]))
    for row in answer.values():
        if isinstance(row, list) and row and isinstance(row[0], dict):
            key = data.draw(st.sampled_from(sorted(row[0])))
            row[0][key] = data.draw(_JSON)
    with Path(os.devnull).open("w") as nowhere:
        Console(file=nowhere, width=100).print(show(answer))
    render.missing(answer)


# Real processes.


def _spawn(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("GARY_") or key == VARIABLE}
    return subprocess.Popen(
        [sys.executable, "-m", "gary", *arguments],
        cwd=REPOSITORY,
        env=kept | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Who runs the tests in the background may have made all of them deaf to Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def test_ctrl_c_ends_a_followed_log_without_a_word(agent: AgentDouble, commands: PreparedCommands) -> None:
    commands.answers = {"logs": [{"slot": "web/1", "line": "one"}]}
    commands.endless = frozenset({"logs"})
    with _spawn("--socket", str(agent.socket_path), "logs", "shop", "-f") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "web/1 | one\n"
        process.send_signal(signal.SIGINT)
        output, talk = process.communicate(timeout=10)
    assert (process.returncode, output, talk) == (130, "", "")


def test_a_reader_that_has_enough_ends_the_command_without_a_word(
    agent: AgentDouble, commands: PreparedCommands
) -> None:
    commands.answers = {"logs": [{"slot": "web/1", "line": "x" * 1000}] * 500}
    with _spawn("logs", "shop", GARY_SOCKET=str(agent.socket_path)) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr is not None
        talk = process.stderr.read()
        process.wait(10)
    assert (process.returncode, talk) == (141, "")


def test_the_agent_s_process_has_nothing_of_the_command_line_in_it(tmp_path: Path) -> None:
    code = (
        "import os, sys; from gary.cli import main; "
        "os.execv = lambda program, words: print(*words[1:], sep='\\n'); "
        f"sys.argv = ['gary', 'agent', '--state-dir', {str(tmp_path)!r}, '--label', 'zone=a']; main()"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, timeout=30, check=True
    )
    *_, flag, module, config = ended.stdout.splitlines()
    assert (flag, module) == ("-m", "gary.launch")
    assert decode(config).labels == (("zone", "a"),)


def test_a_wrong_setting_keeps_the_agent_from_starting() -> None:
    result = CliRunner().invoke(app, ["agent", "--bind", "nowhere", "--log-level", "loud"])
    assert result.exit_code == 2
    assert "--bind: 'nowhere' is not HOST:PORT" in result.stderr
    assert "--log-level: 'loud' is none of debug, info, warning, error" in result.stderr


def test_the_command_starts_without_what_it_does_not_need() -> None:
    code = (
        "import sys, gary.cli.app; "
        "heavy = {'rich', 'aiohttp', 'asyncio', 'pynng', 'automerge', 'yaml', 'msgpack', 'pydantic', 'nacl'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, timeout=30, check=True
    )
    assert ended.stdout == "[]\n"


def test_every_command_has_help_with_an_example_and_speaks_json() -> None:
    _, *sections = reference().split("\n## `gary ")
    assert len(sections) == 23
    for section in sections:
        name = section.partition("`")[0]
        assert f"Example:\n    gary {name}" in section
        assert "--json" in section or name == "agent"


def test_the_reference_of_the_command_line_is_current() -> None:
    assert (REPOSITORY / "docs/reference/cli.md").read_text() == reference(), "run: make docs"


def test_something_that_takes_long_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    has_spoken = threading.Event()

    def say(text: str) -> None:
        said.append(text)
        has_spoken.set()

    monkeypatch.setattr(terminal, "say", say)
    with terminal.working("asking 10.0.0.1"):
        pass
    monkeypatch.setattr(terminal, "PATIENCE_S", 0.01)
    with terminal.working("asking 10.0.0.2"):
        assert has_spoken.wait(10)
    assert said == ["asking 10.0.0.2 …"]
