"""A client that follows no rules."""

from __future__ import annotations

import contextlib
import json
import socket
from pathlib import Path
from typing import Any

WAIT_S = 10.0


class Raw:
    """A client that says what it is told to say."""

    def __init__(self, address: Path | tuple[str, int]) -> None:
        if isinstance(address, Path):
            self._socket = socket.socket(socket.AF_UNIX)
            self._socket.connect(str(address))
        else:
            self._socket = socket.create_connection(address)
        self._socket.settimeout(WAIT_S)

    def say(self, *words: bytes) -> Raw:
        """Whoever is cut off in the midst of it hears why all the same."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for word in words:
                self._socket.sendall(word)
        return self

    def hear(self) -> bytes:
        """All that comes until the other end hangs up."""
        heard = b""
        with contextlib.suppress(ConnectionResetError):
            while part := self._socket.recv(65536):
                heard += part
        return heard

    def answer(self) -> tuple[int, Any]:
        """The status of the one answer, and its JSON."""
        head, _, body = self.hear().partition(b"\r\n\r\n")
        return int(head.split()[1]), json.loads(body)

    def is_answered(self, within_s: float) -> bool:
        self._socket.settimeout(within_s)
        try:
            return bool(self._socket.recv(1, socket.MSG_PEEK))
        except TimeoutError:
            return False
        finally:
            self._socket.settimeout(WAIT_S)

    def close(self) -> None:
        self._socket.close()
