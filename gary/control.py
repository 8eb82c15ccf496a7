"""The file by which this host's users reach the agent: a unix socket, and who may open it.

Whoever may open it may do everything, so it is never more open than it will be: it comes into being without any
permission and gets its owner and group before its mode.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from dataclasses import dataclass
from pathlib import Path

from gary.errors import SocketUnusable

MODE = 0o660
DIRECTORY_MODE = 0o755
BACKLOG = 1024
"""How many may wait to be accepted; then connecting fails at once."""
STALE_TIMEOUT_S = 1.0


@dataclass(frozen=True, slots=True)
class ControlSocket:
    """A socket at ``path``, for the user ``owner`` and the group ``group``. None: those that the agent runs as."""

    path: Path
    owner: int | None = None
    group: int | None = None

    def listen(self) -> socket.socket:
        """The socket, non-blocking; who connects waits until it is served. Its directory is made if it is missing.

        A socket that nobody answers at is replaced, anything else is not. Raises ``SocketUnusable``; nothing is left
        at ``path`` then that was not there before.
        """
        self._make_directory()
        _remove_stale(self.path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._bind(listener)
            try:
                self._open_to_its_users()
                listener.listen(BACKLOG)
            except BaseException:
                self.remove()
                raise
        except BaseException:
            listener.close()
            raise
        listener.setblocking(False)
        return listener

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)

    def _make_directory(self) -> None:
        directory = self.path.parent
        try:
            if not directory.exists():
                directory.mkdir(parents=True)
                directory.chmod(DIRECTORY_MODE)
            mode = directory.stat().st_mode
        except OSError as error:
            raise SocketUnusable(f"{directory}, for the agent's socket: {error.strerror}") from error
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            reason = f"anybody may write to {directory}, and so put another socket in the place of {self.path.name}"
            raise SocketUnusable(f"{reason}; forbid it: chmod o-w {directory}")

    def _bind(self, listener: socket.socket) -> None:
        before = os.umask(0o777)
        try:
            listener.bind(str(self.path))
        except OSError as error:
            raise SocketUnusable(f"{self.path}: {error.strerror}") from error
        finally:
            os.umask(before)

    def _open_to_its_users(self) -> None:
        owner = os.geteuid() if self.owner is None else self.owner
        # Said even when it is the agent's own: a directory may hand on a group of its own.
        group = os.getegid() if self.group is None else self.group
        try:
            os.chown(self.path, owner, group, follow_symlinks=False)
        except OSError as error:
            reason = f"{self.path} cannot be given to user {owner} and group {group}: {error.strerror}"
            hint = "only root may give it to another user, or to a group that the agent's user is not in"
            raise SocketUnusable(f"{reason}; {hint}") from error
        self.path.chmod(MODE)


def _remove_stale(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise SocketUnusable(f"{path}: {error.strerror}") from error
    if not stat.S_ISSOCK(mode):
        raise SocketUnusable(f"{path} is in the way: it is not a socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(STALE_TIMEOUT_S)
        try:
            probe.connect(str(path))
        except OSError as error:
            if error.errno != errno.ECONNREFUSED:
                raise SocketUnusable(f"{path} is in the way: {error}") from error
        else:
            raise SocketUnusable(f"an agent answers at {path} already")
    path.unlink()
