"""Answers as a person reads them. Pure: an answer in, something to print out.

An answer may come from an agent of another version: a field that is not there is an empty cell, never an error.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from gary.doctor import Finding, Verdict

Answer = Mapping[str, Any]

_GOOD, _UNDERWAY, _BAD, _QUIET = "green", "yellow", "red", "dim"
_STYLES = {
    "whole": _GOOD,
    "healthy": _GOOD,
    "alive": _GOOD,
    "open": _GOOD,
    "kept": _GOOD,
    "converging": _UNDERWAY,
    "starting": _UNDERWAY,
    "suspect": _UNDERWAY,
    "held": _UNDERWAY,
    "degraded": _BAD,
    "failing": _BAD,
    "unkept": _BAD,
    "dead": _BAD,
    "down": _BAD,
    "not kept": _BAD,
    "withdrawn": _QUIET,
    "left": _QUIET,
    "ended": _QUIET,
    "revoked": _QUIET,
    "expelled": _BAD,
    "unknown": _QUIET,
}
_ID_SHOWN = 12
_SIGNS = {Verdict.OK: ("✓", _GOOD), Verdict.WARNING: ("!", _UNDERWAY), Verdict.PROBLEM: ("✗", _BAD)}


def nodes(answer: Answer) -> RenderableType:
    table = _table("NAME", "STATUS", "ADDRESS", "CONTAINERS", "CPUS", "MEMORY", "RUNTIMES", "LABELS", "NODE")
    for node in _rows(answer, "nodes"):
        status = _state(node.get("status"))
        if node.get("status") == "alive" and node.get("accepting") is False:
            status.append(", not accepting", _QUIET)
        missed_by = len(list(_list(node.get("missed_by"))))
        if missed_by:
            status.append(f", missed by {missed_by}", _QUIET)
        _add(
            table,
            _own(node),
            status,
            _cell(node.get("address")),
            f"{_cell(node.get('containers'))}/{_cell(node.get('containers_max'))}",
            _cell(node.get("cpus")),
            size(node.get("memory_bytes")),
            ", ".join(_list(node.get("runtimes"))),
            ", ".join(f"{key}={value}" for key, value in sorted(_mapping(node.get("labels")).items())),
            _short(node.get("node")),
        )
    return table


def invitations(answer: Answer) -> RenderableType:
    table = _table("ID", "STATE", "USED", "UNTIL", "LET IN")
    for row in _rows(answer, "invitations"):
        admitted = list(_list(row.get("admitted")))
        _add(
            table,
            _short(row.get("id")),
            _state(row.get("state")),
            f"{len(admitted)}/{_cell(row.get('uses'))}",
            _moment(row.get("expires_at")),
            ", ".join(admitted),
        )
    return table


def deployments(answer: Answer) -> RenderableType:
    table = _table("NAME", "STATE", "HEALTHY", "SERVICES", "MEMBERS")
    for row in _rows(answer, "deployments"):
        services = row.get("services")
        _add(
            table,
            _cell(row.get("name")),
            _state(row.get("state")),
            f"{_cell(row.get('healthy'))}/{_cell(row.get('wanted'))}",
            ", ".join(_list(services)) if isinstance(services, list) else _cell(services),
            ", ".join(_list(row.get("members"))),
        )
    return table


def status(answer: Answer) -> RenderableType:
    resilience = _mapping(answer.get("resilience"))
    head = Text.assemble(
        (_cell(answer.get("name")), "bold"),
        "  ",
        _state(answer.get("state")),
        f"  generation {_cell(answer.get('generation'))}",
        f"  held by {_cell(resilience.get('have'))}, wanted {_cell(resilience.get('wanted'))} or more",
    )
    parts: list[RenderableType] = [head, "", services(answer), "", slots(answer), "", members(answer)]
    if keys := list(_list(answer.get("operators"))):
        parts += ["", Text("Commanded through other nodes by"), *(Text(f"  {key}") for key in keys)]
    if lines := missing(answer):
        parts += ["", Text("Missing", _BAD), *(Text(f"  {line}") for line in lines)]
    return Group(*parts)


def services(answer: Answer) -> RenderableType:
    table = _table("SERVICE", "HEALTHY", "UPDATED", "IMAGE", "RUNTIME")
    for row in _rows(answer, "services"):
        _add(
            table,
            _cell(row.get("name")),
            f"{_cell(row.get('healthy'))}/{_cell(row.get('wanted'))}",
            f"{_cell(row.get('updated'))}/{_cell(row.get('wanted'))}",
            _cell(row.get("image")),
            _cell(row.get("runtime")),
        )
    return table


def slots(answer: Answer) -> RenderableType:
    table = _table("SLOT", "STATE", "NODE", "CURRENT", "RESTARTS", "PORTS", "REASON")
    for row in _rows(answer, "slots"):
        ports = [
            f"{_cell(port.get('host_ip'))}:{_cell(port.get('host_port'))}->"
            f"{_cell(port.get('container_port'))}/{_cell(port.get('protocol'))}"
            for port in _rows(row, "ports")
        ]
        _add(
            table,
            _cell(row.get("slot")),
            _state(row.get("state")),
            _cell(row.get("node_name") or _short(row.get("node"))),
            "yes" if row.get("current") else "no",
            _cell(row.get("restarts")),
            ", ".join(ports),
            _cell(row.get("reason")),
        )
    return table


def slot_line(slot: Answer) -> str:
    """A slot in one line, for output that is read line by line."""
    node = _cell(slot.get("node_name"))
    old = "" if slot.get("current", True) or not slot.get("node") else ", not updated yet"
    reason = f": {_cell(slot['reason'])}" if slot.get("reason") else ""
    return f"{_cell(slot.get('slot'))} {_cell(slot.get('state'))}" + (f" on {node}" if node else "") + old + reason


def progress(answer: Answer) -> RenderableType:
    """A status while it changes: how far it is, and every slot."""
    wanted = sum(row.get("wanted", 0) for row in _rows(answer, "services"))
    healthy = sum(row.get("healthy", 0) for row in _rows(answer, "services"))
    head = Text.assemble(
        (_cell(answer.get("name")), "bold"), "  ", _state(answer.get("state")), f"  {healthy} of {wanted} healthy"
    )
    return Group(head, slots(answer))


def members(answer: Answer) -> RenderableType:
    table = _table("MEMBER", "ROLE", "STATUS")
    for row in _rows(answer, "members"):
        _add(
            table, _cell(row.get("name") or _short(row.get("node"))), _cell(row.get("role")), _state(row.get("status"))
        )
    return table


def missing(answer: Answer) -> list[str]:
    """One line for each slot that is not as it should be, with all that is known about why."""
    lines = []
    asked_about = {_cell(row.get("slot")): row for row in _rows(answer, "missing")}
    for row in _rows(answer, "slots"):
        slot = _cell(row.get("slot"))
        if row.get("state") in ("healthy", "withdrawn") and slot not in asked_about:
            continue
        node = f" on {_cell(row['node_name'])}" if row.get("node_name") else ""
        lines.append(_because(f"{slot} {_cell(row.get('state'))}{node}", row.get("reason"), asked_about.pop(slot, {})))
    lines += [_because(f"{slot} missing", "", row) for slot, row in asked_about.items()]
    return lines


def findings(found: Iterable[Finding]) -> RenderableType:
    """What the doctor says; what it would do about it stands below what it has found."""
    table = _table("", "CHECK", "FOUND")
    for finding in found:
        sign, style = _SIGNS[finding.verdict]
        words = Text(_cell(finding.what))
        if finding.verdict is not Verdict.OK:
            words.append("".join(f"\n{_cell(line)}" for line in (finding.why, finding.remedy) if line), _QUIET)
        _add(table, Text(f"{sign} {finding.verdict.value}", style), _cell(finding.check), words)
    return table


def promises(answer: Answer) -> RenderableType:
    rows = _rows(answer, "promises")
    assessors = sorted({name for row in rows for name in _mapping(row.get("assessments"))})
    table = _table("SLOT", "PROMISED BY", "STATE", "CLAIM", *(f"{name} SAYS" for name in assessors), "REASON")
    for row in rows:
        assessments = _mapping(row.get("assessments"))
        _add(
            table,
            _cell(row.get("slot")),
            _cell(row.get("node_name") or _short(row.get("node"))),
            _state(row.get("state")),
            _cell(row.get("claim")),
            *(_state(assessments.get(name, "")) for name in assessors),
            _cell(row.get("reason")),
        )
    return table


def endpoints(answer: Answer) -> RenderableType:
    table = _table("SERVICE", "SLOT", "NODE", "ENDPOINT", "CONTAINER PORT")
    for row in _rows(answer, "endpoints"):
        _add(
            table,
            _cell(row.get("service")),
            _cell(row.get("slot")),
            _cell(row.get("node_name")),
            f"{_cell(row.get('address'))}:{_cell(row.get('port'))}",
            f"{_cell(row.get('container_port'))}/{_cell(row.get('protocol'))}",
        )
    return table


def changes(answer: Answer) -> list[str]:
    """What a deploy changes, one line a service; nothing for services that stay as they are."""
    signs = {"add": "+", "remove": "-", "replace": "~", "scale": "~"}
    return [
        f"{signs[row['action']]} {_cell(row.get('service'))}: {_cell(row.get('detail') or row['action'])}"
        for row in _rows(answer, "changes")
        if row.get("action") in signs
    ]


def event(item: Answer) -> str:
    """One line: local time, node, kind, what it concerns, message."""
    if "lost" in item:
        return f"({item['lost']} events were lost on the way)"
    stamp = _moment(item.get("at"))
    concerns = "/".join(str(part) for part in (item.get("deployment"), item.get("slot")) if part)
    words = [stamp, _cell(item.get("node_name") or _short(item.get("node"))), _cell(item.get("kind")), concerns]
    return "  ".join(word for word in words if word) + f": {_cell(item.get('message'))}"


def _moment(value: object) -> str:
    """Seconds since 1970 as local time."""
    return datetime.fromtimestamp(value).strftime("%Y-%m-%d %H:%M:%S") if isinstance(value, int | float) else "-"


def size(value: object) -> str:
    """Bytes with a binary unit, three digits at most."""
    if not isinstance(value, int | float):
        return ""
    amount = float(value)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1000:
            return f"{amount:.3g} {unit}"
        amount /= 1024
    return f"{amount:.4g} TiB"


def _because(what: str, reason: object, asked: Answer) -> str:
    declined = _mapping(asked.get("declined"))
    why = [_cell(reason)] if reason else []
    if declined:
        counts = ", ".join(f"{_cell(words)} ({_cell(count)})" for words, count in sorted(declined.items()))
        total = sum(count for count in declined.values() if isinstance(count, int))
        why.append(f"{total} of {_cell(asked.get('asked'))} nodes declined: {counts}")
    if asked.get("detail"):
        why.append(_cell(asked["detail"]))
    return f"{what}: {'; '.join(why)}" if why else what


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _add(table: Table, *cells: str | Text) -> None:
    table.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in cells))


def _rows(answer: Answer, key: str) -> list[Answer]:
    rows = answer.get(key)
    return [row for row in rows if isinstance(row, Mapping)] if isinstance(rows, list) else []


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: object) -> Iterable[str]:
    return [_cell(item) for item in value] if isinstance(value, list) else []


def _cell(value: object) -> str:
    """Plain text: what other hosts say can neither move the cursor nor, as rich markup, change colours."""
    if value is None:
        return ""
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if text.isprintable() else "".join(char if char.isprintable() else " " for char in text)


def _state(value: object) -> Text:
    return Text(_cell(value), _STYLES.get(_cell(value), ""))


def _own(node: Answer) -> Text:
    return Text(
        _cell(node.get("name")) + (" (this node)" if node.get("self") else ""), "bold" if node.get("self") else ""
    )


def _short(value: object) -> str:
    return _cell(value)[:_ID_SHOWN]
