"""Data goes to stdout, talk goes to stderr; colours and moving things only where a person looks at them."""

from __future__ import annotations

import contextlib
import io
import json
import sys
import threading
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

WIDE = 10_000
"""Columns when nobody looks: nothing is cut off in a file or a pipe."""
PATIENCE_S = 1.0


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def print_json(value: Mapping[str, object]) -> None:
    """One object on one line of stdout, at once, so that streams can be read line by line."""
    print(json.dumps(value, ensure_ascii=False), flush=True)


def show(*renderables: RenderableType) -> None:
    """Print to stdout, as wide as the terminal, or as wide as it takes when stdout is none."""
    from rich.console import Console

    if sys.stdout.isatty():
        Console(file=sys.stdout, highlight=False).print(*renderables, sep="\n")
        return
    page = io.StringIO()
    Console(file=page, width=WIDE, highlight=False, color_system=None).print(*renderables, sep="\n")
    for line in page.getvalue().splitlines():
        print(line.rstrip())


def talk_console() -> Console:
    from rich.console import Console

    return Console(file=sys.stderr, highlight=False)


def is_watched() -> bool:
    """Whether a person sees what goes to stderr as it happens."""
    return sys.stderr.isatty()


@contextlib.contextmanager
def working(message: str) -> Iterator[None]:
    """Say ``message`` on stderr if the body takes longer than a person waits without wondering."""
    timer = threading.Timer(PATIENCE_S, say, [f"{message} …"])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
