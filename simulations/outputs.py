"""Where results go. Looked at before a run, which may take hours, and not only after it.

``file``, ``page``, ``plots`` and ``directory`` are the types of arguments that name such a place.
"""

from __future__ import annotations

import os
import sys
from argparse import ArgumentTypeError
from importlib.util import find_spec
from pathlib import Path
from typing import Final

NO_PLOTS: Final = "plots need matplotlib; install it: pip install 'gary[plots]'"


def can_draw() -> bool:
    """Whether the library that draws is installed."""
    return find_spec("matplotlib") is not None


def file(text: str) -> Path:
    """A file that can be written."""
    path = Path(text)
    if path.is_dir():
        raise ArgumentTypeError(f"{path} is a directory; give the name of a file in it")
    if not path.parent.is_dir():
        raise ArgumentTypeError(f"there is no directory {path.parent}; make it, or name another place")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise ArgumentTypeError(f"{path} cannot be written; name another place")
    return path


def page(text: str) -> Path:
    """A file that can be written, for a page with plots."""
    if not can_draw():
        raise ArgumentTypeError(NO_PLOTS)
    return file(text)


def plots(text: str) -> Path:
    """A directory in which plots can be written."""
    if not can_draw():
        raise ArgumentTypeError(NO_PLOTS)
    path = Path(text)
    if not path.is_dir() or not os.access(path, os.W_OK):
        raise ArgumentTypeError(f"{path} is no directory that can be written; make it, or name another one")
    return path


def directory(text: str) -> Path:
    """A directory of the command's own, made if there is none."""
    path = Path(text)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ArgumentTypeError(f"{path} cannot be made: {error.strerror}; name another place") from error
    if not os.access(path, os.W_OK):
        raise ArgumentTypeError(f"{path} cannot be written; name another place")
    return path


def write(what: str, path: Path, text: str) -> int:
    """Write ``text``, and say where on stderr; gives 0, or 2 if the place became unfit meanwhile."""
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        print(f"{what}: {path} could not be written: {error.strerror}", file=sys.stderr)
        return 2
    print(f"{what}: {path}", file=sys.stderr)
    return 0
