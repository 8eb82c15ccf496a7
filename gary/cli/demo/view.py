"""What a person sees of the demo: who promises what, live in a terminal, as lines anywhere else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from rich import box
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from gary.cli import render
from gary.cli.terminal import is_watched, say, talk_console

Status = Mapping[str, Any]

_THERE = ("alive", "suspect", "no member")
_STATE_STYLES = {"healthy": "green", "starting": "yellow"}


class View(Protocol):
    def tell(self, text: str) -> None:
        """A new chapter of the story."""

    def update(self, status: Status, elapsed_s: float) -> None:
        """How it stands ``elapsed_s`` after the chapter began."""

    def close(self) -> None: ...


def view_for(names: Sequence[str]) -> View:
    return LiveView(names) if is_watched() else LineView()


class LineView:
    """A line for every slot that changes."""

    def __init__(self) -> None:
        self._shown: dict[str, str] = {}

    def tell(self, text: str) -> None:
        say(text)

    def update(self, status: Status, elapsed_s: float) -> None:
        lines = {str(slot.get("slot")): render.slot_line(slot) for slot in status.get("slots", ())}
        lines |= {
            f"member {member.get('name')}": f"{member.get('name')} is {member.get('status')}"
            for member in status.get("members", ())
        }
        for key, line in lines.items():
            if self._shown.get(key) != line:
                say(f"  {elapsed_s:5.2f} s  {line}")
        self._shown = lines

    def close(self) -> None:
        pass


class LiveView:
    """The story so far, and below it one row for each node with what it promises, redrawn in place."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = tuple(names)
        self._live = Live(console=talk_console(), auto_refresh=False)
        self._live.start()

    def tell(self, text: str) -> None:
        self._live.console.print(text, markup=False)

    def update(self, status: Status, elapsed_s: float) -> None:
        self._live.update(self._picture(status, elapsed_s), refresh=True)

    def close(self) -> None:
        self._live.update("", refresh=True)
        self._live.stop()

    def _picture(self, status: Status, elapsed_s: float) -> RenderableType:
        table = Table("NODE", "IS", "PROMISES", box=box.SIMPLE_HEAD, show_edge=False, header_style="bold")
        members = {str(member.get("name")): str(member.get("status")) for member in status.get("members", ())}
        for name in self._names:
            state = members.get(name, "no member")
            table.add_row(Text(name), Text(state, "" if state in _THERE else "red"), _promises(status, name, state))
        unkept = [slot for slot in status.get("slots", ()) if not slot.get("node")]
        if unkept:
            table.add_row(Text("nobody", "red"), "", _slots(unkept, "red"))
        healthy = sum(int(service.get("healthy", 0)) for service in status.get("services", ()))
        wanted = sum(int(service.get("wanted", 0)) for service in status.get("services", ()))
        return Group(table, Text(f"{elapsed_s:5.1f} s   {healthy} of {wanted} healthy", "bold"))


def _promises(status: Status, name: str, state: str) -> Text:
    kept = [slot for slot in status.get("slots", ()) if slot.get("node_name") == name]
    return _slots(kept, None if state in _THERE else "red strike")


def _slots(slots: Sequence[Mapping[str, Any]], style: str | None) -> Text:
    words = [Text(str(slot.get("slot")), style or _STATE_STYLES.get(str(slot.get("state")), "red")) for slot in slots]
    return Text("  ").join(words)
