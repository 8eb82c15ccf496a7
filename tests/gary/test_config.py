"""Settings: where they come from, and how all that is wrong is said in one go."""

from __future__ import annotations

import io
import json
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gossip
from gary.config import (
    PROFILES,
    AgentConfig,
    advertised_address,
    decode,
    default_socket,
    encode,
    join_address,
    nearest_socket,
    resolve,
    split_address,
)
from gary.control import ControlSocket
from gary.errors import ConfigError
from gary.logs import configure_logging


def test_without_anything_the_defaults_hold(tmp_path: Path) -> None:
    config = resolve({"state_dir": str(tmp_path)}, {})
    assert config == AgentConfig(state_dir=tmp_path, name=socket.gethostname())
    assert config.bind == "0.0.0.0:7946"
    assert config.control == ControlSocket(tmp_path / "agent.sock")


def test_a_flag_wins_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "gary.toml"
    file.write_text('name = "file"\nbind = "127.0.0.1:1"\nadvertise = "10.0.0.1:1"\n[labels]\nzone = "a"\n')
    flags = {"config": str(file), "name": "flag", "labels": None}
    config = resolve(flags, {"GARY_NAME": "variable", "GARY_BIND": "127.0.0.1:2", "GARY_STATE_DIR": str(tmp_path)})
    assert (config.name, config.bind, config.advertise) == ("flag", "127.0.0.1:2", "10.0.0.1:1")
    assert config.labels == (("zone", "a"),)
    assert config.state_dir == tmp_path


def test_lists_can_be_given_in_each_source_s_own_way(tmp_path: Path) -> None:
    file = tmp_path / "gary.toml"
    file.write_text('runtimes = ["docker", "process"]\nlabels = {b = "2", a = "1"}\n')
    expected = ((("a", "1"), ("b", "2")), ("docker", "process"))
    for flags, environment in (
        ({"labels": ["b=2", "a=1"], "runtimes": ["docker", "process"]}, {}),
        ({}, {"GARY_LABELS": "b=2, a=1", "GARY_RUNTIMES": "docker,process"}),
        ({"config": str(file)}, {}),
    ):
        config = resolve({"state_dir": str(tmp_path), **flags}, environment)
        assert (config.labels, config.runtimes) == expected


def test_all_that_is_wrong_is_said_at_once_with_its_source(tmp_path: Path) -> None:
    file = tmp_path / "gary.toml"
    file.write_text('log_level = "loud"\nport = 7946\ncontainers_max = -1\n')
    with pytest.raises(ConfigError) as caught:
        resolve(
            {"config": str(file), "bind": "nowhere", "advertise": "0.0.0.0:7946", "labels": ["zone"]},
            {"GARY_LOG_FORMAT": "xml", "GARY_BINDD": "x", "GARY_SOCKET": "/s", "GARY_TEST_ANY": "1"},
        )
    sources = [problem.source for problem in caught.value.problems]
    assert sources == [
        "GARY_BINDD",
        "gary.toml: port",
        "--bind",
        "--advertise",
        "--label",
        "gary.toml: containers_max",
        "GARY_LOG_FORMAT",
        "gary.toml: log_level",
    ]
    assert "there is no such setting" in str(caught.value)


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        ({"bind": "127.0.0.1:65535"}, "next port"),
        ({"bind": "::1:7946"}, "brackets"),
        ({"bind": "127.0.0.1:0"}, "from 1 to 65535"),
        ({"name": "a b"}, "not a node name"),
        ({"labels": ["a=1", "a=2"]}, "twice"),
        ({"runtimes": ["docker", "docker"]}, "twice"),
        ({"docker_host": "/var/run/docker.sock"}, "engine's address"),
        ({"state_dir": "/" + "long/" * 30}, "107"),
        ({"state_dir": "~nobody-of-this-name/gary"}, "home directory"),
        ({"state_dir": "x" * 300}, "too long"),
        ({"state_dir": "a\0b"}, "not a path"),
        ({"socket": "/run/" + "long/" * 30}, "--socket-path: .* 107"),
        ({"socket": "/run/x/s", "socket_group": "no-such-group"}, "--socket-group: there is no group 'no-such-group'"),
        ({"socket": "/run/x/s", "socket_owner": "no-such-user"}, "--socket-owner: there is no user 'no-such-user'"),
        ({"socket": "/run/x/s", "socket_owner": "9" * 10}, "not the number of a user"),
        ({"socket_group": os.getegid() + 1}, "--socket-group: nobody but the agent's own user .* --socket-path /run"),
        ({"socket_owner": os.geteuid() + 1}, "--socket-owner: nobody but the agent's own user"),
        ({"config": "/nowhere/gary.toml"}, "cannot be read"),
    ],
)
def test_a_wrong_value_is_refused_with_its_reason(flags: dict[str, object], reason: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=reason):
        resolve({"state_dir": str(tmp_path), **flags}, {})


@pytest.mark.parametrize("content", [b"\xff\xfe", b"= 1", b"[labels]\nzone = 1"])
def test_a_broken_file_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "gary.toml").write_bytes(content)
    with pytest.raises(ConfigError, match=r"gary\.toml"):
        resolve({"config": str(tmp_path / "gary.toml"), "state_dir": str(tmp_path)}, {})


def test_the_socket_may_be_for_others_where_they_can_reach_it(tmp_path: Path) -> None:
    others = {"socket_owner": os.geteuid() + 1, "socket_group": "0"}
    config = resolve({"state_dir": str(tmp_path / "state"), "socket": str(tmp_path / "run" / "s"), **others}, {})
    assert config.control == ControlSocket(tmp_path / "run" / "s", os.geteuid() + 1, 0)
    assert decode(encode(config)) == config


def test_a_link_into_the_state_directory_is_seen_through(tmp_path: Path) -> None:
    (tmp_path / "state" / "run").mkdir(parents=True)
    (tmp_path / "run").symlink_to(tmp_path / "state" / "run")
    socket_there = {"socket": str(tmp_path / "run" / "s"), "socket_group": os.getegid() + 1}
    with pytest.raises(ConfigError, match="in the state directory"):
        resolve({"state_dir": str(tmp_path / "state"), **socket_there}, {})


def test_the_agent_s_own_user_and_group_need_no_other_place(tmp_path: Path) -> None:
    own = {"socket_owner": os.geteuid(), "socket_group": os.getegid()}
    assert resolve({"state_dir": str(tmp_path), **own}, {}).control.path == tmp_path / "agent.sock"


def test_the_configuration_survives_the_way_to_the_agent_s_process(tmp_path: Path) -> None:
    flags = {"labels": ["a=1"], "runtimes": ["process"], "bind": "[::1]:7000", "metrics_bind": "127.0.0.1:9000"}
    config = resolve({"state_dir": str(tmp_path), **flags}, {})
    assert decode(encode(config)) == config


@settings(max_examples=50)
@given(st.text() | st.dictionaries(st.sampled_from(["bind", "labels", "state_dir", "x"]), st.text()).map(json.dumps))
def test_any_text_is_a_configuration_or_an_error(text: str) -> None:
    try:
        config = decode(text)
    except ConfigError as error:
        assert error.problems  # noqa: PT017
    else:
        assert decode(encode(config)) == config


@given(st.text(max_size=30))
@settings(max_examples=50)
def test_an_address_is_split_and_joined_or_refused(text: str) -> None:
    try:
        host, port = split_address(text)
    except ValueError:
        return
    assert split_address(join_address(host, port)) == (host, port)


def test_the_client_looks_where_the_agent_would_put_its_socket(tmp_path: Path) -> None:
    assert default_socket({"GARY_SOCKET": "/x"}) == Path("/x")
    assert default_socket({"GARY_STATE_DIR": str(tmp_path)}) == tmp_path / "agent.sock"
    assert default_socket({"HOME": "/home/u"}).name == "agent.sock"
    assert resolve({"state_dir": str(tmp_path)}, {"GARY_SOCKET": "/x"}).control.path == Path("/x")


def test_the_client_takes_the_shared_socket_where_the_user_has_none(tmp_path: Path) -> None:
    own, shared = tmp_path / "state" / "agent.sock", tmp_path / "run" / "agent.sock"
    assert nearest_socket(own, shared) == own
    shared.parent.mkdir()
    shared.touch()
    assert nearest_socket(own, shared) == shared
    own.parent.mkdir()
    own.touch()
    assert nearest_socket(own, shared) == own


def test_the_address_to_advertise_is_the_one_that_was_given_or_bound(tmp_path: Path) -> None:
    bound = AgentConfig(state_dir=tmp_path, bind="127.0.0.1:7946")
    assert advertised_address(bound) == "127.0.0.1:7946"
    assert advertised_address(AgentConfig(state_dir=tmp_path, advertise="10.1.2.3:1")) == "10.1.2.3:1"


@pytest.fixture
def _restored_logging() -> Iterator[None]:
    root = logging.getLogger()
    before = (list(root.handlers), root.level)
    yield
    root.handlers[:], root.level = before


@pytest.mark.usefixtures("_restored_logging")
def test_a_log_line_can_be_read_and_cannot_be_forged() -> None:
    stream = io.StringIO()
    configure_logging("text", "info", stream)
    logging.getLogger("gary.test").info("peer said %s", "x\nforged \x1b[2J", extra={"node": "n\n1"})
    logging.getLogger("gary.test").debug("not shown")
    (line,) = stream.getvalue().splitlines()
    assert line.endswith(r"info     gary.test: peer said x\nforged \x1b[2J  node=n\n1")


@pytest.mark.usefixtures("_restored_logging")
def test_json_logs_are_one_object_a_line_with_the_exception_inside() -> None:
    stream = io.StringIO()
    configure_logging("json", "debug", stream)
    try:
        raise ValueError("cause")
    except ValueError:
        logging.getLogger("gary.test").exception("it failed", extra={"slot": "web/1", "path": Path("/x")})
    entry = json.loads(stream.getvalue())
    assert (entry["level"], entry["message"], entry["slot"], entry["path"]) == ("error", "it failed", "web/1", "/x")
    assert "ValueError: cause" in entry["exception"]


def test_neither_configuration_nor_logs_load_what_the_daemon_does_not_need() -> None:
    forbidden = {"typer", "rich", "pydantic", "compose_spec", "click"}
    code = f"import sys, gary.config, gary.logs, gary.storage; print(sorted({forbidden!r} & set(sys.modules)))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert ended.stdout == "[]\n"


def test_the_profiles_that_can_be_configured_are_those_that_gossip_has() -> None:
    assert set(PROFILES) == set(gossip.PROFILES)
