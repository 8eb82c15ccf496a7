"""Real container engines, one ``dockerd`` to a machine, and what the engines themselves say about their containers.

``single_engine`` is all that a test of one runtime needs. The questions go over the engine's socket with the standard
library alone, so that what the tests count does not depend on the client that Gary uses.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import tarfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from tests.engines.namespaces import Machine, Process, Switch, workspace

IMAGE = "busybox:gary"
START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 20.0
NEEDED_PROGRAMS = ("dockerd", "containerd", "iptables", "ip", "busybox", "nsenter", "unshare")

# Of each machine's own: /run/docker, because it does not survive a reboot, and a name server that refuses at once,
# because a silent one costs ten seconds for each container start.
MACHINE_SETUP = """
mkdir -p /run/docker
mount -t tmpfs tmpfs /run/docker
echo nameserver 127.0.0.1 > /run/docker/resolv.conf
mount --bind /run/docker/resolv.conf "$(readlink -f /etc/resolv.conf)"
"""


def missing_for_engines() -> str:
    """Why engines cannot run here, in words; empty when they can."""
    if os.geteuid() != 0:
        return "engines in network namespaces need root"
    missing = [program for program in NEEDED_PROGRAMS if shutil.which(program) is None]
    if missing:
        return f"not installed: {', '.join(missing)} (Debian: docker.io busybox-static iptables iproute2)"
    return ""


class EngineError(Exception):
    """The engine answered with an error status, or did not start."""


@dataclass(frozen=True, slots=True)
class RunningContainer:
    """A container as its engine lists it."""

    id: str
    name: str
    state: str
    labels: Mapping[str, str]

    @property
    def slot(self) -> str:
        return self.labels.get("gary.slot", "")


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: Path, timeout_s: float | None = 30.0) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        try:
            self.sock.connect(str(self._path))
        except OSError:
            self.sock.close()
            raise


def request(
    path: Path, method: str, target: str, body: bytes = b"", content_type: str = "application/json"
) -> tuple[int, bytes]:
    """One HTTP exchange over the unix socket at ``path``: status and body. Raises ``OSError`` when nobody answers."""
    connection = UnixConnection(path)
    with contextlib.closing(connection):
        connection.request(method, target, body or None, {"Content-Type": content_type})
        answer = connection.getresponse()
        return answer.status, answer.read()


class Engine:
    """One ``dockerd`` in a machine. ``directory`` keeps its disk over restarts of engine and machine."""

    def __init__(self, machine: Machine, directory: Path, cgroup: str) -> None:
        self._machine = machine
        self._directory = directory
        self._cgroup = cgroup
        self._process: Process | None = None
        self.socket = directory / "docker.sock"

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    @property
    def log(self) -> Path:
        return self._directory / "dockerd.log"

    def start(self) -> None:
        """Start ``dockerd`` and wait until it answers. Raises ``EngineError`` with the end of its log."""
        self._directory.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._process = self._machine.spawn(
                [
                    "dockerd",
                    f"--host={self.url}",
                    f"--data-root={self._directory / 'data'}",
                    "--exec-root=/run/docker/exec",
                    "--pidfile=/run/docker/dockerd.pid",
                    f"--config-file={self._configuration()}",
                    f"--cgroup-parent=/{self._cgroup}",
                    "--exec-opt=native.cgroupdriver=cgroupfs",
                    "--ip6tables=false",
                    "--log-level=warn",
                ],
                log,
            )
        self.wait_until_it_answers()

    def _configuration(self) -> Path:
        """An empty file: the real machine's /etc/docker/daemon.json is none of these engines' business."""
        path = self._directory / "daemon.json"
        path.write_text("{}")
        return path

    def wait_until_it_answers(self) -> None:
        process = self._process
        assert process is not None
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self.answers():
            if process.exit_code is not None or time.monotonic() > deadline:
                raise EngineError(f"dockerd did not start; the end of its log: {self.log.read_text()[-2000:]}")
            time.sleep(0.02)  # the interval between two looks

    def answers(self) -> bool:
        try:
            status, _ = request(self.socket, "GET", "/_ping")
        except (OSError, http.client.HTTPException):
            return False
        return status == 200

    def stop(self) -> None:
        """Stop it in order, as ``systemctl stop docker`` does: it ends its containers first."""
        if self._process is None:
            return
        self._process.send(signal.SIGTERM)
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.send(signal.SIGKILL)
            self._process.wait(STOP_TIMEOUT_S)
        self._process = None

    def forget_swarm(self) -> None:
        """Drop what Docker Swarm has on the disk of a stopped engine."""
        assert self._process is None, "the engine runs"
        shutil.rmtree(self._directory / "data" / "swarm", ignore_errors=True)

    def gone(self) -> None:
        """The machine was switched off, and ``dockerd`` with it."""
        if self._process is not None:
            self._process.wait(STOP_TIMEOUT_S)
            self._process = None

    def ask(self, method: str, target: str, body: object = None) -> Any:
        """One question to the engine's API, answered with decoded JSON or None. Raises ``EngineError``."""
        status, answer = request(self.socket, method, target, b"" if body is None else json.dumps(body).encode())
        if status >= 400:
            raise EngineError(f"{method} {target}: {status} {answer.decode(errors='replace').strip()}")
        return json.loads(answer) if answer.strip().startswith((b"{", b"[")) else None

    def containers(self, label: str = "", *, running: bool = True) -> list[RunningContainer]:
        """Its containers that carry ``label``, by name; all when ``running`` is False."""
        filters: dict[str, list[str]] = {"label": [label]} if label else {}
        if running:
            filters["status"] = ["running"]
        found = self.ask("GET", "/containers/json?" + urlencode({"all": "1", "filters": json.dumps(filters)}))
        containers = [RunningContainer(c["Id"], c["Names"][0].lstrip("/"), c["State"], c["Labels"]) for c in found]
        return sorted(containers, key=lambda container: container.name)

    def started_at(self, container_id: str) -> str:
        """When the container's process started, in the engine's words: it changes with every restart."""
        started: str = self.ask("GET", f"/containers/{container_id}/json")["State"]["StartedAt"]
        return started

    def environment(self, container_id: str) -> list[str]:
        """The container's environment, ``NAME=value``."""
        found: list[str] = self.ask("GET", f"/containers/{container_id}/json")["Config"]["Env"]
        return found

    def has_created(self, label: str, since_s: float) -> bool:
        """Whether it created a container with this label since then (seconds since 1970), even if it is gone by now."""
        query = {
            "since": f"{since_s:.3f}",
            "until": f"{time.time():.3f}",
            "filters": json.dumps({"type": ["container"], "event": ["create"], "label": [label]}),
        }
        status, answer = request(self.socket, "GET", "/events?" + urlencode(query))
        if status >= 400:
            raise EngineError(f"events: {status} {answer.decode(errors='replace')}")
        return bool(answer.strip())

    def volumes(self) -> list[str]:
        found = self.ask("GET", "/volumes")["Volumes"] or []
        return sorted(volume["Name"] for volume in found)

    def remove_everything(self) -> None:
        """Remove all containers and volumes."""
        for container in self.containers(running=False):
            with contextlib.suppress(EngineError):  # one that another removal is at work on
                self.ask("DELETE", f"/containers/{container.id}?force=1&v=1")
        for volume in self.volumes():
            self.ask("DELETE", f"/volumes/{volume}?force=1")

    def import_image(self, archive: bytes, tag: str = IMAGE) -> None:
        """Make an image of a tar archive of a root file system."""
        name, _, version = tag.partition(":")
        target = f"/images/create?fromSrc=-&repo={quote(name, safe='')}&tag={version}"
        status, answer = request(self.socket, "POST", target, archive, "application/x-tar")
        if status >= 400 or b'"error"' in answer:
            raise EngineError(f"importing {tag}: {status} {answer.decode(errors='replace')}")

    def tag_image(self, tag: str, image: str = IMAGE) -> None:
        """Give an image another name."""
        name, _, version = tag.partition(":")
        self.ask("POST", f"/images/{image}/tag?" + urlencode({"repo": name, "tag": version}))

    def remove_tag(self, tag: str) -> None:
        self.ask("DELETE", f"/images/{tag}")


def busybox_archive() -> bytes:
    """A tar archive of a root file system with busybox and a link for each of its programs."""
    busybox = shutil.which("busybox")
    assert busybox is not None
    programs = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for directory in ("bin", "etc", "tmp", "data"):
            entry = tarfile.TarInfo(directory)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if directory == "tmp" else 0o755
            archive.addfile(entry)
        content = Path(busybox).read_bytes()
        binary = tarfile.TarInfo("bin/busybox")
        binary.size, binary.mode = len(content), 0o755
        archive.addfile(binary, io.BytesIO(content))
        for program in sorted(set(programs) - {"busybox"}):
            link = tarfile.TarInfo(f"bin/{program}")
            link.type, link.linkname, link.mode = tarfile.SYMTYPE, "busybox", 0o777
            archive.addfile(link)
        users = b"root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n"
        passwd = tarfile.TarInfo("etc/passwd")
        passwd.size, passwd.mode = len(users), 0o644
        archive.addfile(passwd, io.BytesIO(users))
    return buffer.getvalue()


@contextlib.contextmanager
def single_engine() -> Iterator[Engine]:
    """One engine on a machine of its own, with the image ``IMAGE``; all of it is gone afterwards.

    Containers with bridge networking work; their published ports answer inside the machine only.
    """
    with workspace() as directory:
        switch, machine = Switch(), Machine(MACHINE_SETUP)
        try:
            switch.start()
            machine.power_on()
            switch.plug_in(machine, 1)
            engine = Engine(machine, directory / "engine", directory.name)
            engine.start()
            engine.import_image(busybox_archive())
            yield engine
        finally:
            machine.power_off()
            switch.stop()
