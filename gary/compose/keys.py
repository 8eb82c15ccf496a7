"""Every key of the Compose specification: honoured, with what it means here, or refused, with the reason and a way out.

This table decides: what it does not list is no key, and nothing is ignored in silence. ``docs/reference/compose.md`` is
made from it.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from gary.compose.errors import Problems
from gary.compose.tree import Entry, Table


@dataclass(frozen=True, slots=True)
class Honoured:
    """``meaning``: what Gary does with it, as far as that is not plain from the Compose specification."""

    meaning: str


@dataclass(frozen=True, slots=True)
class Refused:
    """``reason``: a sentence without subject and full stop; ``hint``: what to do instead."""

    reason: str
    hint: str = "Remove the key"


Rule = Honoured | Refused

_LATER_DEPENDS = Refused("is not supported yet: services start independently of each other", "Let the program retry")
_LATER_SECRETS = Refused(
    "is not supported yet: Gary cannot keep secrets and configs apart from the spec",
    "Mount a file that is on every node, with volumes",
)
_LATER_BUILD = Refused(
    "is not supported yet: Gary runs images and does not build them", "Build and push, and name it in image"
)
_LATER_ROLLBACK = Refused(
    "is not supported yet: a failed update is not taken back by itself", "Deploy the former file again"
)
_LATER_UPDATE = Refused(
    "is not supported yet: of an update only its parallelism can be set",
    "A slot moves once those before it were healthy",
)
_NETWORK = Refused(
    "is not supported: there is no network across nodes",
    "Publish ports; gary endpoints tells where each replica answers",
)
_ONE_HOST = Refused(
    "ties a container to others on its host, and replicas move between hosts", "Use published ports and gary endpoints"
)
_HOST_NAMES = Refused(
    "is not supported: names inside of the container are left to the engine", "Pass the address in environment"
)
_NAMESPACE = Refused("is not supported: containers get the namespaces that the engine gives by default")
_SECURITY = Refused(
    "is not supported: containers run with the engine's default confinement",
    "Use cap_add, cap_drop, user and read_only",
)
_DEVICE = Refused(
    "is not supported: Gary does not know which nodes have which devices",
    "Bind what is needed with volumes, and use constraints",
)
_TUNING = Refused("is not supported: of CPU only the number can be limited", "Use deploy.resources.limits.cpus")
_MEMORY = Refused("is not supported: of memory only limit and reservation can be set", "Use deploy.resources")
_TERMINAL = Refused("is not supported: nobody is attached to a container that may run anywhere", "Use gary logs")
_PULL = Refused(
    "is not supported: a local image is used first and pulled if it is missing", "Use a tag or digest of its own"
)
_HOOK = Refused("is not supported: Gary runs nothing but the container's own program", "Do it in the entrypoint")

TOP: Final = ""
SERVICE: Final = "services.*"
DEPLOY: Final = "services.*.deploy"
RESOURCES: Final = "services.*.deploy.resources"
LIMITS: Final = "services.*.deploy.resources.limits"
RESERVATIONS: Final = "services.*.deploy.resources.reservations"
RESTART_POLICY: Final = "services.*.deploy.restart_policy"
PLACEMENT: Final = "services.*.deploy.placement"
UPDATE_CONFIG: Final = "services.*.deploy.update_config"
HEALTHCHECK: Final = "services.*.healthcheck"
ENV_FILE: Final = "services.*.env_file[]"
PORT: Final = "services.*.ports[]"
MOUNT: Final = "services.*.volumes[]"
MOUNT_BIND: Final = "services.*.volumes[].bind"
MOUNT_TMPFS: Final = "services.*.volumes[].tmpfs"
VOLUME: Final = "volumes.*"
X_GARY: Final = "x-gary"
SERVICE_X_GARY: Final = "services.*.x-gary"

KEYS: Final[Mapping[str, Mapping[str, Rule]]] = {
    TOP: {
        "name": Honoured("The application's name. Default: the name of the file's directory, as Compose makes it."),
        "services": Honoured("At least one. Names: 1 to 63 of a-z, 0-9, `_`, `-`. `witness` is Gary's own."),
        "version": Honoured("No effect, as in Compose, which calls it obsolete; Gary warns."),
        "volumes": Honoured("The named volumes; each lives on the node that runs the container, and does not move."),
        "x-gary": Honoured("Gary's own settings of the application."),
        "networks": _NETWORK,
        "secrets": _LATER_SECRETS,
        "configs": _LATER_SECRETS,
        "include": Refused("is not supported: one file is one application", "Put all services into this file"),
        "models": Refused("is not supported: Gary runs containers only", "Run the model as a service"),
    },
    X_GARY: {
        "resilience": Honoured("How many live nodes shall hold the application's document; 1 to 128, default 3."),
        "runtime": Refused("belongs to a service", "Put it under x-gary of each service"),
        "partition": Refused("belongs to a service", "Put it under x-gary of each service"),
    },
    VOLUME: {
        "name": Honoured("The volume's name in the engine, instead of one that begins with the application's name."),
        "external": Honoured(
            "The volume's name in the engine is `name`, or the key; Gary does not put its own before it."
        ),
        "driver": Honoured("`local` only."),
        "driver_opts": Refused(
            "is not supported: volumes are plain local ones", "Create it on the nodes, and use external"
        ),
        "labels": Refused("is not supported: volumes carry no labels", "Create it on the nodes, and use external"),
    },
    SERVICE: {
        "image": Honoured("Local image first, then pulled. Needed unless `x-gary.runtime` is `process`."),
        "command": Honoured("Text is split as a shell does; empty clears the image's own."),
        "entrypoint": Honoured("Text is split as a shell does; empty clears the image's own."),
        "environment": Honoured("Map or list. A name without a value is taken from the environment of `gary deploy`."),
        "env_file": Honoured("Read by `gary deploy`, relative to the file; `environment` wins."),
        "labels": Honoured("Labels of the container. `gary.*` are Gary's own."),
        "ports": Honoured("Without a host port the engine chooses one. With one, a node runs one replica at most."),
        "expose": Honoured("As in Compose; it tells, and opens nothing."),
        "volumes": Honoured(
            "Bind mounts, named volumes, tmpfs; short and long syntax. Named ones must be declared; "
            "the path of a bind mount must exist on the node."
        ),
        "network_mode": Honoured("`bridge` (default), `host` or `none`."),
        "user": Honoured(""),
        "working_dir": Honoured("An absolute path."),
        "healthcheck": Honoured("Decides when a replica is healthy; without one it is when it has run for a moment."),
        "restart": Honoured("`no`, `always`, `on-failure[:n]`, `unless-stopped` (as `always`). Default: `always`."),
        "stop_grace_period": Honoured("Default 10s."),
        "stop_signal": Honoured(""),
        "init": Honoured(""),
        "read_only": Honoured(""),
        "cap_add": Honoured(""),
        "cap_drop": Honoured(""),
        "cpus": Honoured("As `deploy.resources.limits.cpus`; both must agree."),
        "mem_limit": Honoured("As `deploy.resources.limits.memory`; both must agree."),
        "deploy": Honoured(""),
        "x-gary": Honoured("Gary's own settings of the service."),
        "annotations": Refused("is not supported: containers carry labels only", "Use labels"),
        "attach": _TERMINAL,
        "blkio_config": Refused("is not supported: disk bandwidth is not limited"),
        "build": _LATER_BUILD,
        "cgroup": _NAMESPACE,
        "cgroup_parent": _NAMESPACE,
        "configs": _LATER_SECRETS,
        "container_name": Refused("is not supported: a service may have many containers, which Gary names itself"),
        "cpu_count": _TUNING,
        "cpu_percent": _TUNING,
        "cpu_period": _TUNING,
        "cpu_quota": _TUNING,
        "cpu_rt_period": _TUNING,
        "cpu_rt_runtime": _TUNING,
        "cpu_shares": _TUNING,
        "cpuset": _TUNING,
        "credential_spec": Refused(
            "is not supported yet: Gary has no credentials", "Pull the image on the nodes beforehand"
        ),
        "depends_on": _LATER_DEPENDS,
        "develop": Refused("is for work on one machine, which Gary is not made for", "Use docker compose for it"),
        "device_cgroup_rules": _DEVICE,
        "devices": _DEVICE,
        "dns": _HOST_NAMES,
        "dns_opt": _HOST_NAMES,
        "dns_search": _HOST_NAMES,
        "domainname": _HOST_NAMES,
        "extends": Refused("is not supported: a service stands in one place", "Use a YAML anchor and <<"),
        "external_links": _ONE_HOST,
        "extra_hosts": _HOST_NAMES,
        "gpus": _DEVICE,
        "group_add": _SECURITY,
        "hostname": _HOST_NAMES,
        "ipc": _NAMESPACE,
        "isolation": _NAMESPACE,
        "label_file": Refused("is not supported: labels stand in the file", "Use labels"),
        "links": _ONE_HOST,
        "logging": Refused(
            "is not supported: gary logs reads what the engine keeps", "Set the log driver in the engine"
        ),
        "mac_address": _NETWORK,
        "mem_reservation": Refused("is the old form of a reservation", "Use deploy.resources.reservations.memory"),
        "mem_swappiness": _MEMORY,
        "memswap_limit": _MEMORY,
        "models": Refused("is not supported: Gary runs containers only", "Run the model as a service"),
        "networks": _NETWORK,
        "oom_kill_disable": _MEMORY,
        "oom_score_adj": _MEMORY,
        "pid": _NAMESPACE,
        "pids_limit": Refused("is the old form of a limit", "Use deploy.resources.limits.pids"),
        "platform": Refused("is not supported: the engine takes the image for its own architecture", "Use constraints"),
        "post_start": _HOOK,
        "pre_stop": _HOOK,
        "privileged": _SECURITY,
        "profiles": Refused("is not supported: all services of a file are deployed", "Use a file per application"),
        "provider": Refused("is not supported: Gary runs containers only"),
        "pull_policy": _PULL,
        "pull_refresh_after": _PULL,
        "runtime": Refused(
            "is not supported: the engine's default runtime is used", "Gary's own choice is x-gary: runtime"
        ),
        "scale": Refused("is the old form of a number of replicas", "Use deploy.replicas"),
        "secrets": _LATER_SECRETS,
        "security_opt": _SECURITY,
        "shm_size": _MEMORY,
        "stdin_open": _TERMINAL,
        "storage_opt": Refused("is not supported: disk space is not limited"),
        "sysctls": _SECURITY,
        "tmpfs": Refused(
            "is the short form of a mount", "Use volumes: [{type: tmpfs, target: PATH, tmpfs: {size: 64m}}]"
        ),
        "tty": _TERMINAL,
        "ulimits": _SECURITY,
        "use_api_socket": _SECURITY,
        "userns_mode": _NAMESPACE,
        "uts": _NAMESPACE,
        "volumes_from": _ONE_HOST,
    },
    SERVICE_X_GARY: {
        "runtime": Honoured("`docker` (default), `process` or `any`: what a node must have to run it."),
        "partition": Honoured(
            "`heal`: replicas on nodes that cannot be seen are replaced; `hold`: their places are kept. "
            "Default: `hold` if the service has bind mounts or named volumes, else `heal`."
        ),
        "resilience": Refused("belongs to the whole application", "Put it under x-gary at the top of the file"),
    },
    ENV_FILE: {
        "path": Honoured(""),
        "required": Honoured("`false`: the file may be missing."),
        "format": Refused("is not supported: files are read with Compose's own rules"),
    },
    PORT: {
        "target": Honoured("A port or a range."),
        "published": Honoured("A port or a range of equal length. Without it the engine chooses."),
        "host_ip": Honoured(""),
        "protocol": Honoured("`tcp` (default), `udp` or `sctp`."),
        "mode": Honoured("`host` only, which is the default here: there is no routing mesh."),
        "name": Refused("is not supported: ports are known by their numbers"),
        "app_protocol": Refused("is not supported: Gary does not look into traffic"),
    },
    MOUNT: {
        "type": Honoured("`bind`, `volume` or `tmpfs`."),
        "source": Honoured("Relative paths and `~` are resolved by `gary deploy`."),
        "target": Honoured("An absolute path."),
        "read_only": Honoured(""),
        "bind": Honoured(""),
        "tmpfs": Honoured(""),
        "volume": Refused("is not supported: volumes are mounted whole, in the engine's own way"),
        "consistency": Refused("is not supported: it has no meaning on Linux"),
        "image": Refused("is not supported: images cannot be mounted"),
    },
    MOUNT_BIND: {
        "create_host_path": Honoured("`false` only, which is the default here: the path must exist on the node."),
        "propagation": Refused("is not supported: mounts have the engine's default propagation"),
        "recursive": Refused("is not supported: mounts are recursive as the engine makes them"),
        "selinux": Refused("is not supported: labels of files are left alone", "Label the directory on the nodes"),
    },
    MOUNT_TMPFS: {
        "size": Honoured("Default: no limit."),
        "mode": Refused("is not supported: a tmpfs has the engine's default mode"),
    },
    HEALTHCHECK: {
        "test": Honoured("Text runs in a shell; a list begins with `CMD`, `CMD-SHELL` or `NONE`."),
        "interval": Honoured("Default 30s."),
        "timeout": Honoured("Default 30s."),
        "retries": Honoured("Default 3."),
        "start_period": Honoured("Default 0s."),
        "start_interval": Honoured("Default: the engine's."),
        "disable": Honoured("As `test: [NONE]`."),
    },
    DEPLOY: {
        "mode": Honoured("`replicated` (default), or `global`: one on every node that satisfies the constraints."),
        "replicas": Honoured("0 to 10000, default 1."),
        "resources": Honoured(""),
        "restart_policy": Honoured("As `restart`, in detail; both must agree."),
        "placement": Honoured(""),
        "update_config": Honoured(""),
        "labels": Refused(
            "is not supported: a service carries no labels, its containers do", "Use labels of the service"
        ),
        "endpoint_mode": _NETWORK,
        "rollback_config": _LATER_ROLLBACK,
    },
    RESOURCES: {
        "limits": Honoured("What the container may use."),
        "reservations": Honoured("What a node must have free."),
    },
    LIMITS: {"cpus": Honoured(""), "memory": Honoured(""), "pids": Honoured("")},
    RESERVATIONS: {
        "cpus": Honoured(""),
        "memory": Honoured(""),
        "devices": _DEVICE,
        "generic_resources": _DEVICE,
    },
    RESTART_POLICY: {
        "condition": Honoured("`none`, `on-failure` or `any` (default)."),
        "delay": Honoured("The first delay, default 1s; it doubles with each failure in a row."),
        "max_attempts": Honoured("Default 0: without end."),
        "window": Honoured("How long it must run to count as started; default 0s."),
    },
    PLACEMENT: {
        "constraints": Honoured("`node.labels.NAME`, `node.id`, `node.hostname` (the node's name) with `==` or `!=`."),
        "max_replicas_per_node": Honoured("Default 0: no limit."),
        "preferences": Refused("is not supported: replicas are spread over all nodes", "Use constraints"),
    },
    UPDATE_CONFIG: {
        "parallelism": Honoured("How many replicas an update may take down at a time; default 1, 0 is all at once."),
        "delay": _LATER_UPDATE,
        "failure_action": _LATER_UPDATE,
        "max_failure_ratio": _LATER_UPDATE,
        "monitor": _LATER_UPDATE,
        "order": _LATER_UPDATE,
    },
}


def honoured(table: Table, scope: str, problems: Problems) -> dict[str, Entry]:
    """The entries of ``table`` that are honoured in ``scope``; others are noted, extensions (``x-``) left out."""
    rules = KEYS[scope]
    kept = {}
    for key, entry in table.entries.items():
        rule = rules.get(key)
        if isinstance(rule, Honoured):
            kept[key] = entry
        elif rule is not None:
            problems.add(entry.place, rule.reason, rule.hint)
        elif not key.startswith("x-") or scope in (X_GARY, SERVICE_X_GARY):
            close = difflib.get_close_matches(key[:64], rules, 1)
            where = f"under {table.place.key[:64]}" if table.place.key else "at the top of the file"
            problems.add(entry.place, f"is not a key that is known {where}", f"Is it {close[0]}?" if close else "")
    return kept
