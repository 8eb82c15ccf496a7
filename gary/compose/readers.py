"""Nodes of the tree as values of the shape that a key asks for. Each reader returns the value or raises ``Wrong``."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from gary.compose.errors import Place, Problems, Wrong
from gary.compose.tree import Items, Node, Table, Text

T = TypeVar("T")


def text(node: Node) -> str:
    """Any scalar, as it is written."""
    if not isinstance(node, Text):
        raise Wrong(node.place, f"is {_shape(node)}; it must be a single value")
    if node.null:
        raise Wrong(node.place, "has no value")
    if "\0" in node.text:
        raise Wrong(node.place, "contains a NUL character")
    return node.text


def parsed(parse: Callable[[str], T]) -> Callable[[Node], T]:
    """A scalar that ``parse`` understands; its ``ValueError`` becomes the reason."""

    def read(node: Node) -> T:
        written = text(node)
        try:
            return parse(written)
        except ValueError as error:
            raise Wrong(node.place, str(error)) from error

    return read


def one_of(*words: str) -> Callable[[Node], str]:
    """One of some words."""

    def parse(written: str) -> str:
        if written not in words:
            raise ValueError(f"is {written[:64]!r}; it must be one of {', '.join(words)}")
        return written

    return parsed(parse)


def absolute_path(node: Node) -> str:
    """A path inside of a container."""
    path = text(node)
    if not path.startswith("/"):
        raise Wrong(node.place, f"is {path[:64]!r}; it must be an absolute path")
    return path


def host_path(path: str, directory: Path, place: Place) -> str:
    """A path of the host that is relative to ``directory``, or to the caller's home (``~/``), as an absolute one."""
    if path.startswith("~"):
        # Only the whole text is looked at: "./~name" is a file of that name.
        expanded = os.path.expanduser(path) if path == "~" or path.startswith("~/") else path  # noqa: PTH111
        if expanded.startswith("~"):
            raise Wrong(place, f"is {path[:64]!r}; of homes only one's own can be named, as ~/")
        path = expanded
    return os.path.normpath(directory / path)


def table(node: Node) -> Table:
    """A mapping."""
    if isinstance(node, Table):
        return node
    raise Wrong(node.place, f"{_is(node)}; it must be a mapping")


def items(node: Node) -> tuple[Node, ...]:
    """A list."""
    if isinstance(node, Items):
        return node.items
    raise Wrong(node.place, f"{_is(node)}; it must be a list")


def texts(node: Node, problems: Problems, read: Callable[[Node], T]) -> tuple[T, ...]:
    """A list, each item read by ``read``; items that are wrong are noted and left out."""
    found = []
    for item in items(node):
        try:
            found.append(read(item))
        except Wrong as wrong:
            problems.add(wrong.place, wrong.reason, wrong.hint)
    return tuple(found)


def _is(node: Node) -> str:
    return "has no value" if isinstance(node, Text) and node.null else f"is {_shape(node)}"


def _shape(node: Node) -> str:
    if isinstance(node, Text):
        return "a single value"
    return "a list" if isinstance(node, Items) else "a mapping"
