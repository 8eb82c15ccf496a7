"""What the doctor concludes: every verdict of every check, from facts."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from gary.cli.app import app
from gary.cli.demo.cluster import free_ports
from gary.commands.command import Command
from gary.commands.doctor import DIALS_MAX, Doctor
from gary.doctor import (
    CHECKS,
    FREE_BYTES_LOW,
    FREE_BYTES_MIN,
    FREE_FILES_LOW,
    FREE_FILES_MIN,
    ClockFacts,
    DialFacts,
    DiskFacts,
    EngineFacts,
    Facts,
    Finding,
    HealthFacts,
    PeerFacts,
    SocketFacts,
    TrustFacts,
    Verdict,
    examine,
    finding_from,
    worst,
)
from gary.errors import CommandError
from gary.inspection import dial, inspect_disk
from gossip import Member, Status
from gossip.member import Incarnation
from tests.gary.agent_double import AgentDouble, PreparedCommands

OK, WARNING, PROBLEM = Verdict
YEAR_S = 365.25 * 86_400.0
DISK = DiskFacts("/var/lib/gary", FREE_BYTES_LOW, FREE_FILES_LOW)
PEER = PeerFacts("node-b", "1.0", 1)
OTHER = PeerFacts("node-c", "1.0", 1)
DOCKER, PROCESS = EngineFacts("docker", True, True), EngineFacts("process", True, True)
HERE = Facts(version="1.0", protocol=1)


def _clocks(*ahead_s: float, error_s: float = 0.001) -> Facts:
    return Facts(clocks=tuple(ClockFacts(f"node-{n}", ahead, error_s) for n, ahead in enumerate(ahead_s)))


def _dials(*failures: tuple[str, ...]) -> Facts:
    dials = tuple(DialFacts(f"node-{n}", failed) for n, failed in enumerate(failures))
    return Facts(address="10.0.0.1:7946", dials=dials)


def _trust(age_s: float = 1 * YEAR_S, **facts: Any) -> Facts:
    return Facts(trust=TrustFacts(age_s, 10 * YEAR_S, **{"is_present": True, "vouches": True, **facts}))


REFUSED = ("10.0.0.1:7947: connection refused",)


@pytest.mark.parametrize(
    ("facts", "check", "verdict", "says"),
    [
        (Facts(socket=SocketFacts(True, "it answers at /s")), "agent", OK, "/s"),
        (Facts(socket=SocketFacts(False, "there is no socket", "start it")), "agent", PROBLEM, "start it"),
        (Facts(settings=()), "settings", OK, "can be read"),
        (Facts(settings=("gary.toml: port: there is no such setting",)), "settings", PROBLEM, "gary.toml: port"),
        (Facts(disk=DISK), "disk", OK, "1.0 GiB and 10000 files free"),
        (Facts(disk=replace(DISK, free_bytes=FREE_BYTES_LOW - 1)), "disk", WARNING, "make room"),
        (Facts(disk=replace(DISK, free_bytes=FREE_BYTES_MIN - 1)), "disk", PROBLEM, "make room"),
        (Facts(disk=replace(DISK, free_files=FREE_FILES_LOW - 1)), "disk", WARNING, "9999 files"),
        (Facts(disk=replace(DISK, free_files=FREE_FILES_MIN - 1)), "disk", PROBLEM, "999 files"),
        (Facts(disk=replace(DISK, free_files=None)), "disk", OK, "1.0 GiB free"),
        (Facts(disk=replace(DISK, failure="Permission denied")), "disk", PROBLEM, "Permission denied"),
        (Facts(write_failure="no space left"), "disk", PROBLEM, "writing fails: no space left"),
        (Facts(disk=DISK), "privacy", OK, "for the agent's user alone"),
        (Facts(disk=replace(DISK, exposed=("/var/lib/gary/lock (0644)",))), "privacy", PROBLEM, "lock (0644)"),
        (Facts(engines=(DOCKER, PROCESS)), "engine docker", OK, "it answers"),
        (
            Facts(engines=(EngineFacts("docker", False, False, "no such file"), PROCESS)),
            "engine docker",
            WARNING,
            "no such file",
        ),
        (Facts(engines=(EngineFacts("docker", False, True), PROCESS)), "engine docker", PROBLEM, "after 30 s"),
        (Facts(engines=(EngineFacts("docker", False, False, "refused"),)), "engine docker", PROBLEM, "refused"),
        (Facts(clocks=()), "clock", OK, "no peer"),
        (_clocks(0.02, -0.03, 0.01), "clock", OK, "within 0.1 s of node-0, node-1, node-2"),
        (_clocks(1.2, 1.3, 1.4), "clock", WARNING, "1.3 s behind"),
        (_clocks(-70.0, -75.0), "clock", PROBLEM, "70.0 s ahead of"),
        (_clocks(1.2, 1.3, 1.4, error_s=0.4), "clock", OK, "within"),
        (_clocks(0.0, 0.0, 500.0), "clock", WARNING, "node-2 (+500.0 s) are not"),
        (replace(HERE, peers=()), "versions", OK, "1.0 here"),
        (replace(HERE, peers=(PEER, OTHER)), "versions", OK, "1.0 here and everywhere"),
        (replace(HERE, peers=(PEER, replace(OTHER, version="2.0"))), "versions", WARNING, "node-c has 2.0"),
        (replace(HERE, peers=(replace(PEER, protocol=2), OTHER)), "versions", PROBLEM, "node-b (protocol 2)"),
        (replace(HERE, unspoken=3), "versions", PROBLEM, "3 frames"),
        (replace(HERE, peers=(replace(PEER, version="0.9", away_s=9.0),)), "versions", OK, "1.0 here"),
        (Facts(health=HealthFacts(0, 0)), "health", OK, "in time"),
        (Facts(health=HealthFacts(2, 3)), "health", OK, "stood still 3 times"),
        (Facts(health=HealthFacts(7, 3)), "health", WARNING, "stood still 3 times"),
        (_trust(), "certificate", OK, "good for 9 years"),
        (_trust(age_s=9.5 * YEAR_S), "certificate", WARNING, "it ends in 183 days"),
        (_trust(age_s=9.99 * YEAR_S), "certificate", PROBLEM, "gary rotate"),
        (_trust(age_s=11 * YEAR_S), "certificate", PROBLEM, "it has ended"),
        (_trust(is_present=False), "certificate", WARNING, "a root that was replaced"),
        (_trust(is_refused=True), "certificate", PROBLEM, "gary invite"),
        (_trust(), "roots", OK, "this node vouches"),
        (_trust(vouches=False), "roots", OK, "does not vouch"),
        (_trust(vouches=False, lacks_secret=True), "roots", WARNING, "gary invite"),
        (_trust(others_until_s=(7200.0,)), "roots", OK, "trusted for 2 hours more"),
        (replace(_trust(others_until_s=(60.0,)), peers=(replace(PEER, away_s=9.0),)), "roots", WARNING, "node-b"),
        (_trust(), "expulsions", OK, "none"),
        (_trust(expelled=("node-x",)), "expulsions", OK, "out for ever: node-x"),
        (_trust(contested=(("a", "b"),)), "expulsions", WARNING, "a and b have expelled each other"),
        (_trust(is_expelled=True), "expulsions", PROBLEM, "gary leave"),
        (_dials(), "address", OK, "no peer"),
        (_dials((), ()), "address", OK, "10.0.0.1:7946 is reached by node-0, node-1"),
        (_dials((), REFUSED), "address", WARNING, "node-1 (10.0.0.1:7947: connection refused)"),
        (_dials(REFUSED, REFUSED), "address", PROBLEM, "--advertise"),
        (Facts(peers=()), "members", OK, "cluster of one"),
        (Facts(peers=(PEER,)), "members", OK, "the other one is alive"),
        (Facts(peers=(PEER, OTHER)), "members", OK, "all 2 others are alive"),
        (Facts(peers=(PEER, replace(OTHER, away_s=7200.0))), "members", WARNING, "node-c (for 2 hours)"),
        (Facts(peers=(replace(PEER, away_s=5.0),)), "members", PROBLEM, "node-b (for 5 s)"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.value if isinstance(value, Verdict) else "",
)
def test_each_verdict_has_its_facts(facts: Facts, check: str, verdict: Verdict, says: str) -> None:
    [found] = [finding for finding in examine(facts) if finding.check == check]
    assert found.verdict is verdict
    assert says in f"{found.what} {found.why} {found.remedy}"


def test_of_what_is_not_known_nothing_is_said() -> None:
    assert examine(Facts()) == []


def test_a_failing_write_does_not_hide_how_full_the_disk_is() -> None:
    found = [finding for finding in examine(Facts(disk=DISK, write_failure="broken")) if finding.check == "disk"]
    assert [finding.verdict for finding in found] == [PROBLEM, OK]


_TEXT = st.text(max_size=8)
_SECONDS = st.floats(-1e9, 1e9)
_FACTS = st.builds(
    Facts,
    socket=st.none() | st.builds(SocketFacts, st.booleans(), st.just("it"), st.just("do so")),
    settings=st.none() | st.tuples() | st.tuples(_TEXT),
    disk=st.none()
    | st.builds(
        DiskFacts,
        _TEXT,
        st.integers(0, 2**60),
        st.none() | st.integers(0, 2**60),
        st.lists(_TEXT, max_size=9).map(tuple),
        _TEXT,
    ),
    write_failure=st.none() | _TEXT,
    engines=st.lists(st.builds(EngineFacts, _TEXT, st.booleans(), st.booleans(), _TEXT), max_size=3).map(tuple),
    version=_TEXT,
    protocol=st.integers(0, 3),
    unspoken=st.none() | st.integers(0, 3),
    peers=st.none()
    | st.lists(st.builds(PeerFacts, _TEXT, _TEXT, st.integers(0, 3), st.none() | _SECONDS), max_size=9).map(tuple),
    clocks=st.none() | st.lists(st.builds(ClockFacts, _TEXT, _SECONDS, st.floats(0, 10)), max_size=9).map(tuple),
    health=st.none() | st.builds(HealthFacts, st.integers(0, 7), st.integers(0, 9)),
    address=_TEXT,
    dials=st.none()
    | st.lists(st.builds(DialFacts, _TEXT, st.lists(_TEXT, max_size=2).map(tuple)), max_size=4).map(tuple),
)


@given(_FACTS)
def test_whatever_is_wrong_there_is_something_to_do_about_it(facts: Facts) -> None:
    findings = examine(facts)
    for finding in findings:
        assert (finding.verdict is OK) == (not finding.remedy)
        assert finding_from(finding.to_json()) == finding
    assert worst(finding.verdict for finding in findings) in Verdict
    assert findings == [finding for check in CHECKS for finding in check(facts)]


def test_the_words_of_another_version_are_shown_as_far_as_they_are_understood() -> None:
    told = {"check": "moon", "verdict": "eclipsed", "what": "it is dark", "more": 1}
    assert finding_from(told) == Finding("moon", WARNING, "it is dark")


# What is seen of a host


def test_what_others_may_use_in_a_state_directory_is_seen(tmp_path: Path) -> None:
    state_dir = tmp_path / "state"
    (state_dir / "process").mkdir(parents=True)
    for path, mode in ((state_dir, 0o700), (state_dir / "process", 0o750)):
        path.chmod(mode)
    for name, mode in (("lock", 0o600), ("gary.sqlite", 0o640), ("process/exit", 0o604)):
        (state_dir / name).touch()
        (state_dir / name).chmod(mode)
    with closing(socket.socket(socket.AF_UNIX)) as listener:
        listener.bind(str(state_dir / "agent.sock"))
        (state_dir / "agent.sock").chmod(0o660)
        (state_dir / "link").symlink_to("/")
        disk = inspect_disk(state_dir)
    wrong = {Path(text.split()[0]).name for text in disk.exposed}
    assert (disk.failure, wrong) == ("", {"process", "gary.sqlite", "exit"})
    assert f"{state_dir}/gary.sqlite (0640)" in disk.exposed
    assert disk.free_bytes > 0


def test_a_directory_that_is_not_there_is_said_to_be_so(tmp_path: Path) -> None:
    assert inspect_disk(tmp_path / "none").failure == "No such file or directory"


async def test_both_ports_are_dialled_and_what_failed_is_told_for_each() -> None:
    [port] = free_ports(1)
    with socket.create_server(("127.0.0.1", port)):
        assert await dial(f"127.0.0.1:{port}", ports=2) == [f"127.0.0.1:{port + 1}: connection refused"]
        with socket.create_server(("127.0.0.1", port + 1)):
            assert await dial(f"127.0.0.1:{port}", ports=2) == []
    assert len(await dial(f"127.0.0.1:{port}", ports=2)) == 2


# What peers do for it


@dataclass
class _Host:
    """As much of a node as ``dial_back`` needs."""

    members: dict[str, Member]
    dialling: list[tuple[str, Callable[[Sequence[str]], None]]] = field(default_factory=list)

    @property
    def swim(self) -> _Host:
        return self

    def member(self, node: str) -> Member | None:
        return self.members.get(node)

    def dial(self, address: str, dialled: Callable[[Sequence[str]], None]) -> None:
        self.dialling.append((address, dialled))


@dataclass
class _Responder:
    """What became of the answers."""

    answers: list[object]
    is_cancelled: bool = False

    def item(self, item: Mapping[str, Any]) -> None:
        raise AssertionError("an answer has no items")

    def end(self, item: Mapping[str, Any]) -> None:
        self.answers.append(item)

    def fail(self, error: CommandError) -> None:
        self.answers.append(error)


def _member(node: str, status: Status) -> Member:
    return Member(node, f"10.0.0.{ord(node)}:7946", Incarnation(1, 0), status)


def _ask(peer: Doctor, asker: str, answers: list[object]) -> None:
    arguments = {"address": "192.0.2.1:22", "peer": "192.0.2.1:22"}
    peer.dial_back(Command("dial_back", arguments, _Responder(answers), asker))


def test_a_peer_dials_the_address_that_membership_has_and_none_that_it_is_told() -> None:
    host, answers = _Host({"a": _member("a", Status.ALIVE)}), list[object]()
    _ask(Doctor(cast(Any, host)), "a", answers)
    [(address, dialled)] = host.dialling
    assert address == "10.0.0.97:7946"
    dialled(["it failed"])
    assert answers == [{"failures": ["it failed"]}]


@pytest.mark.parametrize("asker", ["", "stranger", "suspect", "dead", "left"])
def test_for_whoever_is_not_alive_nobody_is_dialled(asker: str) -> None:
    host, answers = (
        _Host({status.value: replace(_member("b", status), node=status.value) for status in Status}),
        list[object](),
    )
    with pytest.raises(CommandError, match="only for a node that is alive"):
        _ask(Doctor(cast(Any, host)), asker, answers)
    assert (host.dialling, answers) == ([], [])


def test_a_peer_dials_a_few_at_a_time() -> None:
    host, answers = _Host({"a": _member("a", Status.ALIVE)}), list[object]()
    peer = Doctor(cast(Any, host))
    for _ in range(DIALS_MAX):
        _ask(peer, "a", answers)
    with pytest.raises(CommandError, match="at the moment"):
        _ask(peer, "a", answers)
    host.dialling[0][1]([])
    _ask(peer, "a", answers)
    assert len(host.dialling) == DIALS_MAX + 1


# How it is told


def _gary(socket_path: Path, *words: str, **variables: str) -> Result:
    return CliRunner().invoke(app, ["--socket", str(socket_path), "doctor", *words], env=variables)


@pytest.mark.parametrize(
    ("verdict", "sign", "code"), [(OK, "✓ ok", 0), (WARNING, "! warning", 0), (PROBLEM, "✗ problem", 1)]
)
def test_findings_are_told_with_what_to_do_and_only_a_problem_is_a_failure(
    tmp_path: Path, verdict: Verdict, sign: str, code: int
) -> None:
    finding = Finding("moon", verdict, "it is dark", "nobody sees", "light it")
    told = {"findings": [finding.to_json()]}
    with AgentDouble(tmp_path / "s", PreparedCommands({"doctor": told})) as agent:
        shown, as_json = _gary(agent.socket_path), _gary(agent.socket_path, "--json")
    assert (shown.exit_code, as_json.exit_code) == (code, code)
    assert re.search(rf"^{sign} +moon +it is dark$", shown.stdout, re.MULTILINE)
    assert ("light it" in shown.stdout) == (verdict is not OK)
    assert "✓ ok" in shown.stdout, "that the agent answers"
    answer = json.loads(as_json.stdout)
    assert (answer["verdict"], answer["findings"][1]) == (verdict.value, finding.to_json())


def test_without_an_agent_it_tells_what_can_be_seen(tmp_path: Path) -> None:
    state_dir = tmp_path / "state"
    state_dir.mkdir(mode=0o755)
    settings = {"GARY_STATE_DIR": str(state_dir), "GARY_DOCKER_HOST": f"unix://{tmp_path}/docker.sock"}
    result = _gary(tmp_path / "s", "--json", **settings)
    findings = {finding["check"]: finding for finding in json.loads(result.stdout)["findings"]}
    assert result.exit_code == 1
    assert list(findings) == ["agent", "settings", "engine docker", "engine process", "disk", "privacy"]
    assert "there is no socket" in findings["agent"]["what"]
    assert "gary agent" in findings["agent"]["remedy"]
    assert "docker.sock: no such file" in findings["engine docker"]["what"]
    assert str(state_dir) in findings["privacy"]["what"]


def test_without_an_agent_wrong_settings_are_told_first(tmp_path: Path) -> None:
    result = _gary(tmp_path / "s", "--json", GARY_BIND="nowhere")
    findings = json.loads(result.stdout)["findings"]
    assert [finding["check"] for finding in findings] == ["agent", "settings"]
    assert "GARY_BIND" in findings[1]["what"]
