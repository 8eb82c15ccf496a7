"""The reference of Compose keys, as Markdown, made from the table that decides."""

from __future__ import annotations

from typing import Final

from gary.compose import keys
from gary.compose.keys import KEYS, Honoured, Refused
from gary.compose.runtimes import CONTAINER_ONLY

_TITLES: Final = {
    keys.TOP: "The file",
    keys.X_GARY: "x-gary of the file",
    keys.VOLUME: "A volume",
    keys.SERVICE: "A service",
    keys.SERVICE_X_GARY: "x-gary of a service",
    keys.ENV_FILE: "An env_file, long syntax",
    keys.PORT: "A port, long syntax",
    keys.MOUNT: "A mount, long syntax",
    keys.MOUNT_BIND: "bind of a mount",
    keys.MOUNT_TMPFS: "tmpfs of a mount",
    keys.HEALTHCHECK: "healthcheck",
    keys.DEPLOY: "deploy",
    keys.RESOURCES: "deploy.resources",
    keys.LIMITS: "deploy.resources.limits",
    keys.RESERVATIONS: "deploy.resources.reservations",
    keys.RESTART_POLICY: "deploy.restart_policy",
    keys.PLACEMENT: "deploy.placement",
    keys.UPDATE_CONFIG: "deploy.update_config",
}

_INTRODUCTION: Final = """\
# Compose files

<!-- Made by `python -m gary.compose reference`; do not edit. -->

`gary deploy` reads a [Compose file](https://github.com/compose-spec/compose-spec/blob/main/spec.md). Each key of the
specification is either honoured in full or refused by name, with its line and the reason; nothing is ignored. All
errors of a file are reported at once, and nothing is deployed.

- Variables are replaced as Compose does it: `$NAME`, `${NAME}`, `${NAME:-default}`, `${NAME-default}`,
  `${NAME:?error}`, `${NAME?error}`, `${NAME:+other}`, `${NAME+other}`, nested, and `$$` for a dollar sign. They come
  from the environment of `gary deploy` and, where that is silent, from `.env` beside the file.
- Anchors, aliases and merge keys (`<<`) work. A key that is given twice is an error.
- A value is what the file shows: `1.10` stays `1.10`, `no` is a text where a text is wanted, `22:22` is no number.
- Keys that begin with `x-` are left alone, as in Compose, apart from `x-gary`.
"""


def reference() -> str:
    """The whole document."""
    return "\n".join([_INTRODUCTION, *(_section(scope) for scope in KEYS), _process()])


def _section(scope: str) -> str:
    rules = KEYS[scope]
    where = f"Under `{scope}`.\n\n" if scope else ""
    rows = ["| key | meaning |", "| --- | --- |"]
    rows += [
        f"| `{key}` | {rule.meaning or 'As in Compose.'} |" for key, rule in rules.items() if isinstance(rule, Honoured)
    ]
    refused = {key: rule for key, rule in rules.items() if isinstance(rule, Refused)}
    if refused:
        rows += ["", "Refused:", "", "| key | reason | instead |", "| --- | --- | --- |"]
        rows += [f"| `{key}` | {_sentence(rule.reason)} | {rule.hint}. |" for key, rule in refused.items()]
    return f"## {_TITLES[scope]}\n\n{where}" + "\n".join(rows) + "\n"


def _process() -> str:
    rows = [f"| `{key}` | {_sentence(reason)} |" for key, reason in CONTAINER_ONLY.items()]
    return "\n".join(
        [
            "## What a process cannot have",
            "",
            "With `x-gary: {runtime: process}` a service is a plain program of the host: `command` or `entrypoint` is",
            "needed, `image` is not. `runtime: any` must fit both. Refused then:",
            "",
            "| key | reason |",
            "| --- | --- |",
            *rows,
            "| limits of `cpus`, `memory`, `pids` | Only a container can be limited. Reservations count. |",
            "| `network_mode` other than `host` | A process is on the host's network. |",
            "| `ports` whose two sides differ, or with `sctp` | A process opens its ports on the host itself. |",
            "| names of variables with more than letters, digits and `_` | A shell passes on no others. |",
            "",
        ]
    )


def _sentence(reason: str) -> str:
    words = reason.replace("|", "\\|")
    return f"{words[0].upper()}{words[1:]}."
