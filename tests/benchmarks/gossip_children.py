"""Processes of gossip alone (``tests.benchmarks.gossip_agents``) and credentials for them, from the outside."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import IO, Any

from gary.trust.notary import Certified, Certify, Found, Founded, Keys, MakeKeys, answer
from gossip.transport import Credentials
from tests.benchmarks.gossip_agents import Plan


class Authority:
    """Makes credentials of one root, as the notary does."""

    def __init__(self) -> None:
        made = answer(Found("gary root benchmark", "0" * 32))
        assert isinstance(made, Founded)
        self._root = made

    def credentials(self, node: str) -> Credentials:
        keys = answer(MakeKeys((1).to_bytes(32, "big")))
        assert isinstance(keys, Keys)
        leaf = answer(Certify(self._root.root_certificate, self._root.root_key, keys.tls_public, node))
        assert isinstance(leaf, Certified)
        return Credentials(leaf.certificate, keys.tls_key, (self._root.root_certificate,))

    def shown(self, node: str) -> tuple[str, str, tuple[str, ...]]:
        """The same in a form for ``Plan``."""
        made = self.credentials(node)
        return made.certificate, made.key, made.roots


class Child:
    """A process with some agents in it."""

    def __init__(
        self, plans: Sequence[Plan], entering: Callable[[Sequence[str]], Sequence[str]] = lambda command: command
    ) -> None:
        """``entering(command)`` gives the command line that runs ``command`` where it is meant to run."""
        self._process = subprocess.Popen(
            entering([sys.executable, "-m", "tests.benchmarks.gossip_agents"]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._say(json.dumps([asdict(plan) for plan in plans]))

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def output(self) -> IO[str]:
        """What it writes; for those who read it themselves."""
        assert self._process.stdout is not None
        return self._process.stdout

    def wait_until_ready(self) -> None:
        assert self._hear() == "ready"

    def report(self) -> list[dict[str, Any]]:
        self._say("report")
        found: list[dict[str, Any]] = json.loads(self._hear())
        return found

    def restart(self) -> None:
        """End all agents in it and start them anew, each with its next epoch; does not wait."""
        self._say("restart")

    def wait_until_restarted(self) -> None:
        assert self._hear() == "restarted"

    def join(self, address: str) -> None:
        """Have all agents in it join at ``address``; does not wait."""
        self._say(f"join {address}")

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def _hear(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()
