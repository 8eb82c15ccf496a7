"""Who may open the agent's socket, from its first moment on."""

from __future__ import annotations

import errno
import os
import socket
import stat
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from gary.control import ControlSocket
from gary.errors import SocketUnusable
from tests.gary.agent_double import AgentDouble, PreparedCommands

NOBODY = 65534
STRANGERS, FRIENDS = 54321, 54322
"""Groups that need no name."""
REQUEST = b"GET /v1/version HTTP/1.1\r\nHost: gary\r\n\r\n"

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that everybody may enter, unlike those of pytest."""
    with tempfile.TemporaryDirectory(prefix="g-") as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


def _ask_as(user: int, groups: list[int], path: Path) -> tuple[int, bytes]:
    """What ``user`` gets at ``path``: the error of connecting (0: none), and the beginning of the answer."""
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # The child has one thread, and does not need the others.
        child = os.fork()
    if child == 0:
        error, answer = 0, b""
        try:
            os.setgroups(groups)
            os.setgid(STRANGERS)
            os.setuid(user)
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(10)
                client.connect(str(path))
                client.sendall(REQUEST)
                answer = client.recv(15)
        except OSError as failure:
            error = failure.errno or -1
        finally:
            os.write(writer, error.to_bytes(2, "big", signed=True) + answer)
            os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader, "rb") as told:
        said = told.read()
    return int.from_bytes(said[:2], "big", signed=True), said[2:]


@as_root
def test_the_kernel_lets_in_the_owner_the_group_and_nobody_else(place: Path) -> None:
    path = place / "agent.sock"
    with AgentDouble(path, PreparedCommands({"version": {"version": "1"}}), group=FRIENDS) as agent:
        assert _ask_as(NOBODY, [], path) == (errno.EACCES, b"")
        assert _ask_as(NOBODY, [FRIENDS], path) == (0, b"HTTP/1.1 200 OK")
        assert _ask_as(0, [], path) == (0, b"HTTP/1.1 200 OK")
        assert agent.commands.asked == [("version", {})] * 2


@as_root
def test_it_has_the_owner_and_the_group_that_were_asked_for(place: Path) -> None:
    path = place / "agent.sock"
    with AgentDouble(path, PreparedCommands(), owner=NOBODY, group=FRIENDS):
        found = path.stat()
        assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (NOBODY, FRIENDS, 0o660)
        assert _ask_as(NOBODY, [], path) == (0, b"HTTP/1.1 200 OK")


@as_root
def test_a_directory_that_hands_on_its_group_does_not_hand_on_the_socket(place: Path) -> None:
    os.chown(place, 0, FRIENDS)
    place.chmod(0o2755)
    with ControlSocket(place / "agent.sock").listen():
        assert (place / "agent.sock").stat().st_gid == os.getegid()


def test_it_is_never_more_open_than_it_will_be(place: Path) -> None:
    path, seen, is_watching = place / "agent.sock", [], True

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        if is_watching and event in ("os.chown", "os.chmod") and str(arguments[0]) == str(path):
            seen.append((event, stat.S_IMODE(path.stat().st_mode), path.stat().st_gid == os.getegid()))

    sys.addaudithook(watch)
    before = os.umask(0)
    try:
        with ControlSocket(path).listen():
            assert stat.S_IMODE(path.stat().st_mode) == 0o660
    finally:
        os.umask(before)
        is_watching = False
    assert seen == [("os.chown", 0, True), ("os.chmod", 0, True)]


def test_its_directory_is_made_for_all_to_enter_whatever_the_umask(place: Path) -> None:
    before = os.umask(0o077)
    try:
        with ControlSocket(place / "run" / "agent.sock").listen():
            assert stat.S_IMODE((place / "run").stat().st_mode) == 0o755
    finally:
        os.umask(before)


def test_a_directory_in_which_anybody_could_replace_it_is_refused(place: Path) -> None:
    place.chmod(0o777)
    with pytest.raises(SocketUnusable, match="chmod o-w"):
        ControlSocket(place / "agent.sock").listen()
    place.chmod(0o1777)
    ControlSocket(place / "agent.sock").listen().close()


def test_a_directory_that_cannot_be_made_is_named(place: Path) -> None:
    (place / "file").write_text("")
    with pytest.raises(SocketUnusable, match="file/run, for the agent's socket"):
        ControlSocket(place / "file" / "run" / "agent.sock").listen()


@as_root
def test_whoever_may_not_give_it_away_is_told_to_whom_and_leaves_nothing(place: Path) -> None:
    path = place / "agent.sock"
    place.chmod(0o1777)
    os.setegid(NOBODY)
    os.seteuid(NOBODY)
    try:
        with pytest.raises(SocketUnusable, match=f"cannot be given to user {NOBODY} and group {FRIENDS}: .*only root"):
            ControlSocket(path, group=FRIENDS).listen()
    finally:
        os.seteuid(0)
        os.setegid(0)
    assert not path.exists()
