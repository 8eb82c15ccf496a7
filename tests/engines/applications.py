"""The applications that the tests deploy, as Compose files. JSON is YAML, so they are written as JSON."""

from __future__ import annotations

from typing import Any

from tests.engines.engines import IMAGE

SLEEP = ("sleep", "1000000")


def application(
    replicas: int,
    *,
    name: str = "shop",
    image: str = IMAGE,
    command: tuple[str, ...] = SLEEP,
    environment: dict[str, str] | None = None,
    labels: dict[str, str] | None = None,
    volumes: tuple[str, ...] = (),
    constraints: tuple[str, ...] = (),
    per_node_max: int = 0,
    parallelism: int = 0,
) -> dict[str, Any]:
    """One service, ``web``, on the host's network; it ends at once when asked to."""
    placement: dict[str, Any] = {"constraints": list(constraints)} if constraints else {}
    if per_node_max:
        placement["max_replicas_per_node"] = per_node_max
    deploy: dict[str, Any] = {"replicas": replicas}
    if placement:
        deploy["placement"] = placement
    if parallelism:
        deploy["update_config"] = {"parallelism": parallelism}
    service: dict[str, Any] = {
        "image": image,
        "command": list(command),
        "network_mode": "host",
        "stop_signal": "SIGKILL",  # a shell as first process ignores SIGTERM, and nothing here needs time to end
        "deploy": deploy,
    }
    if environment:
        service["environment"] = environment
    if labels:
        service["labels"] = labels
    file: dict[str, Any] = {"name": name, "services": {"web": service}}
    if volumes:
        service["volumes"] = list(volumes)
        file["volumes"] = {volume.partition(":")[0]: {} for volume in volumes}
    return file


def slots(count: int, service: str = "web") -> list[str]:
    """The slots of a service with so many replicas."""
    return [f"{service}/{index}" for index in range(1, count + 1)]
