"""How a service of a spec becomes a program of the host: arguments, variables, user, and what is refused."""

from __future__ import annotations

import errno
import grp
import os
import pwd
import shutil
import signal
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gary.runtime.errors import PortTaken, StartRefused
from gary.runtime.linux import MARKER
from gary.spec import Port, Service

SHELL: Final = "/bin/sh"
SEARCH_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# The shell leads the session. A signal to the group must end the program and leave the shell alive to write down the
# code, and a trap that does nothing is reset for the program, where an ignored signal would stay ignored. Its words
# are positional, because every other variable belongs to the program.
_SUPERVISE: Final = """trap : {signals}
run() {{ cd "$2" || return; shift 2; "$@"; }}
run "$@"
set -- "$1" "$?"
umask 077
printf '%s\\n' "$2" >"$1"
"""
_CHECK: Final = 'cd "$1" || exit; shift; exec "$@"'
_TRAPPED: Final = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGALRM,
    signal.SIGTERM,
)
_SOCKETS: Final = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}


@dataclass(frozen=True, slots=True)
class Program:
    """What the service runs, resolved on this host."""

    words: tuple[str, ...]
    directory: str
    as_user: tuple[str, ...]
    environment: Mapping[str, str]

    def supervised(self, container_id: str, exit_file: Path, stop_signal: int) -> tuple[list[str], dict[str, str]]:
        """Arguments and variables of the session leader that runs it and writes its exit code to ``exit_file``."""
        trapped = sorted({*_TRAPPED, stop_signal} - {signal.SIGKILL, signal.SIGSTOP})
        script = _SUPERVISE.format(signals=" ".join(str(int(number)) for number in trapped))
        leader = [SHELL, "-c", script, "gary", str(exit_file), self.directory]
        return [*leader, *self.as_user, *self.words], {**self.environment, MARKER: container_id}

    def check(self, test: tuple[str, ...], container_id: str) -> tuple[list[str], dict[str, str]]:
        """Arguments and variables of a health check, run as the program is run."""
        words = (SHELL, "-c", *test[1:2]) if test[0] == "CMD-SHELL" else test[1:]
        leader = [SHELL, "-c", _CHECK, "gary", self.directory]
        return [*leader, *self.as_user, *words], {**self.environment, MARKER: container_id}


def program_of(service: Service) -> Program:
    """Raises ``StartRefused`` for what a plain process cannot be, or what this host has not got."""
    signal_number(service.stop_signal)
    refused = unhonourable(service)
    if refused:
        raise StartRefused(f"a process cannot have {', '.join(refused)}")
    words = (service.entrypoint or ()) + (service.command or ())
    if not words:
        raise StartRefused("a process needs a command or an entrypoint")
    directory = service.working_dir or "/"
    if not os.path.isdir(directory):  # noqa: PTH112 - a path of the user's, taken as it is
        raise StartRefused(f"working_dir {directory!r} is no directory on this host")
    as_user, home = _user(service.user)
    environment = {"PATH": SEARCH_PATH, "HOME": home, **dict(service.environment)}
    found = shutil.which(os.path.join(directory, words[0]) if "/" in words[0] else words[0], path=environment["PATH"])  # noqa: PTH118
    if found is None:
        raise StartRefused(f"there is no program {words[0]!r} on this host")
    return Program((found, *words[1:]), directory, as_user, environment)


def unhonourable(service: Service) -> list[str]:
    """The keys of the service that only a container can honour, in the words of the Compose file."""
    limits = service.resources
    fixed = all(port.host == port.container for port in service.ports)
    bad_variables = [name for name, _ in service.environment if not _is_variable(name)]
    found = {
        "volumes": bool(service.mounts),
        "network_mode: none": service.network_mode == "none",
        "init": service.init,
        "read_only": service.read_only,
        "cap_add": bool(service.cap_add),
        "cap_drop": bool(service.cap_drop),
        "a limit of cpus": bool(limits.limit_cpus),
        "a limit of memory": bool(limits.limit_memory_bytes),
        "a limit of pids": bool(limits.limit_pids),
        "ports that differ from the host's (it listens on the host itself, so both sides must be the same)": not fixed,
        "ports other than tcp and udp": any(port.protocol not in _SOCKETS for port in service.ports),
        f"the variable {(bad_variables or [''])[0]!r} (a shell passes on letters, digits and _ only)": bool(
            bad_variables
        ),
    }
    return [words for words, present in found.items() if present]


def _is_variable(name: str) -> bool:
    return name.isascii() and name.isidentifier()


def signal_number(text: str) -> int:
    """``SIGTERM``, ``TERM``, ``15``, ``SIGRTMIN+3``; empty: SIGTERM. Raises ``StartRefused``."""
    name = text.upper().removeprefix("SIG") or "TERM"
    base, plus, offset = name.partition("+")
    number = 0
    if name.isdecimal():
        number = int(name)
    elif f"SIG{base}" in signal.Signals.__members__ and (not plus or (base == "RTMIN" and offset.isdecimal())):
        number = signal.Signals[f"SIG{base}"] + int(offset or 0)
    if not 0 < number <= signal.SIGRTMAX:
        raise StartRefused(f"stop_signal {text!r} is no signal on this host")
    return number


def _user(user: str) -> tuple[tuple[str, ...], str]:
    """The words that come before a program to run it as ``user`` (``NAME`` or ``ID``, and ``:GROUP``), and its home."""
    own = os.geteuid()
    if not user:
        return (), _home(own)
    name, _, group = user.partition(":")
    try:
        known = pwd.getpwuid(int(name)) if name.isdecimal() else pwd.getpwnam(name)
    except KeyError:
        known = None
    if known is None and not name.isdecimal():
        raise StartRefused(f"there is no user {name!r} on this host")
    uid = known.pw_uid if known else int(name)
    gid = known.pw_gid if known else uid
    if group:
        try:
            gid = int(group) if group.isdecimal() else grp.getgrnam(group).gr_gid
        except KeyError:
            raise StartRefused(f"there is no group {group!r} on this host") from None
    if own != 0:
        if uid == own and gid == os.getegid():
            return (), _home(uid)
        raise StartRefused(f"to run it as user {user!r} the agent would have to be root")
    changer = shutil.which("setpriv", path=SEARCH_PATH)
    if changer is None:
        raise StartRefused(f"to run it as user {user!r} this host needs the program setpriv (package util-linux)")
    groups = "--init-groups" if known and not group else "--clear-groups"
    return (changer, f"--reuid={uid}", f"--regid={gid}", groups, "--"), _home(uid)


def _home(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_dir
    except KeyError:
        return "/"


def check_ports(service: Service) -> None:
    """Raises ``PortTaken`` when anything on this host has one of the service's ports."""
    for port in service.ports:
        try:
            _bind(port)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise PortTaken(f"{port.container}/{port.protocol}") from error
            if error.errno == errno.EADDRNOTAVAIL:
                raise StartRefused(f"{port.host_ip!r} is no address of this host") from error
            raise StartRefused(f"port {port.container}/{port.protocol}: {error.strerror}") from error


def _bind(port: Port) -> None:
    family = socket.AF_INET6 if ":" in port.host_ip else socket.AF_INET
    with socket.socket(family, _SOCKETS[port.protocol]) as trial:
        if port.protocol == "tcp":
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        trial.bind((port.host_ip or ("::" if family == socket.AF_INET6 else "0.0.0.0"), port.container))
