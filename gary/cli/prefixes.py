"""The slot's name before each line of output, aligned, each slot in its own colour where a person looks."""

from __future__ import annotations

_COLOURS = (36, 33, 32, 35, 34, 96, 93, 92, 95, 94)
"""SGR codes that can be read on dark and on light ground; red is left for what is wrong."""


class Prefixes:
    """Widens as longer names come; colours are given out in the order of first appearance."""

    def __init__(self, *, coloured: bool) -> None:
        self._coloured = coloured
        self._colours: dict[str, int] = {}
        self._width = 0

    def of(self, slot: str) -> str:
        colour = self._colours.setdefault(slot, _COLOURS[len(self._colours) % len(_COLOURS)])
        self._width = max(self._width, len(slot))
        prefix = f"{slot:<{self._width}} | "
        return f"\x1b[{colour}m{prefix}\x1b[0m" if self._coloured else prefix
