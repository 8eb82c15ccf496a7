"""What a service must have, and may not have, for the runtime that it asks for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from gary.compose.errors import Place, Problems
from gary.compose.tree import Entry, Table
from gary.spec.model import RuntimeName, Service

CONTAINER_ONLY: Final[Mapping[str, str]] = {
    "volumes": "a process sees the host's own files",
    "read_only": "a process sees the host's own files",
    "cap_add": "a process has the rights of its user",
    "cap_drop": "a process has the rights of its user",
    "init": "the process runtime looks after child processes itself",
}
"""Keys that only a container can honour, and what a process has instead."""


def check_runtime(service: Service, place: Place, entries: Mapping[str, Entry], problems: Problems) -> None:
    """Note what does not fit ``service.runtime``: ``any`` must fit each runtime."""
    imageless = "image" not in entries and not _refused_build(place, problems)
    if service.runtime is not RuntimeName.PROCESS and imageless:
        problems.add(place, "has no image to run", "Add image, or x-gary: {runtime: process} and a command")
    if service.runtime is not RuntimeName.DOCKER:
        _check_process(service, place, entries, problems)


def _refused_build(place: Place, problems: Problems) -> bool:
    # Whoever wrote "build" is told about that; that there is no image is its consequence.
    return any(error.key == f"{place.key}.build" for error in problems.errors)


def _check_process(service: Service, place: Place, entries: Mapping[str, Entry], problems: Problems) -> None:
    runtime = f"x-gary.runtime: {service.runtime}"
    hint = "Remove it, or use runtime: docker"
    if not service.command and not service.entrypoint and "command" not in entries and "entrypoint" not in entries:
        problems.add(place, f"has no command, which {runtime} needs", "Add command")
    for key, instead in CONTAINER_ONLY.items():
        if key in entries:
            problems.add(entries[key].place, f"does not go with {runtime}: {instead}", hint)
    if "network_mode" in entries and service.network_mode != "host":
        reason = f"does not go with {runtime}: a process is on the host's network"
        problems.add(entries["network_mode"].place, reason, "Write host, or leave it out")
    _check_process_limits(service, entries, runtime, problems)
    if any(port.host != port.container for port in service.ports):
        reason = f"do not go with {runtime}: a process opens its ports on the host itself"
        problems.add(entries["ports"].place, reason, "Give the same number for host and container, such as 8080:8080")
    if any(port.protocol not in ("tcp", "udp") for port in service.ports):
        problems.add(entries["ports"].place, f"do not go with {runtime}: only tcp and udp ports do", hint)
    for name, _ in service.environment:
        if not (name.isascii() and name.isidentifier()):
            source = entries["environment" if "environment" in entries else "env_file"]
            problems.add(
                source.place, f"has the variable {name[:64]!r}; with {runtime} names are letters, digits and _"
            )


def _check_process_limits(service: Service, entries: Mapping[str, Entry], runtime: str, problems: Problems) -> None:
    limits = service.resources
    if not (limits.limit_cpus or limits.limit_memory_bytes or limits.limit_pids):
        return
    reason = f"does not go with {runtime}: only a container can be limited"
    hint = "Use deploy.resources.reservations, or runtime: docker"
    for key in ("cpus", "mem_limit"):
        if key in entries:
            problems.add(entries[key].place, reason, hint)
    nested = entries.get("deploy")
    for key in ("resources", "limits"):
        nested = nested.value.entries.get(key) if nested and isinstance(nested.value, Table) else None
    if nested:
        problems.add(nested.place, reason, hint)
