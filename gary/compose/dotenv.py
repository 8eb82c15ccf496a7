"""Files of variables (``.env``, ``env_file``) with Compose's rules.

A line is ``NAME=value``, ``NAME: value``, ``export NAME=value``, or ``NAME`` alone, which takes the variable from the
environment. An unquoted value ends at a ``#`` after a space; in single quotes everything is literal; in double quotes
``\\n``, ``\\r``, ``\\t``, ``\\"`` and ``\\\\`` are escapes. Quoted values may span lines. Variables are replaced except
in single quotes, by the environment first and the file's earlier lines next.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from gary.compose.errors import Place, Problems
from gary.compose.interpolation import InterpolationError, Lookup, interpolate
from gary.spec.limits import SIZE_BYTES_MAX

_STATEMENT: Final = re.compile(r"[ \t]*(?:export[ \t]+)?(?P<name>[A-Za-z_][A-Za-z0-9_.-]*)[ \t]*(?P<sign>[=:])?[ \t]*")
_COMMENT: Final = re.compile(r"(?:^|[ \t])#.*$")
_ESCAPE: Final = re.compile(r"\\(.)", re.DOTALL)
_ESCAPES: Final = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\", "'": "'"}


def read_dotenv(path: Path, lookup: Lookup, problems: Problems, place: Place) -> dict[str, str]:
    """The variables in the file at ``path``. ``place``: who asked, blamed if the file cannot be read."""
    try:
        with path.open("rb") as file:
            data = file.read(SIZE_BYTES_MAX + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        problems.add(place, f"the file {path} cannot be read: {reason}")
        return {}
    if len(data) > SIZE_BYTES_MAX:
        problems.add(place, f"the file {path} is larger than {SIZE_BYTES_MAX} bytes")
        return {}
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        problems.add(place, f"the file {path} is not UTF-8 text")
        return {}
    return parse_dotenv(text, str(path), lookup, problems)


def parse_dotenv(text: str, file: str, lookup: Lookup, problems: Problems) -> dict[str, str]:
    """The variables in ``text``; lines that cannot be read are noted in ``problems`` and skipped."""
    found: dict[str, str] = {}

    def known(name: str) -> str | None:
        value = lookup(name)
        return found.get(name) if value is None else value

    text = text.replace("\r\n", "\n")
    position, line = 0, 1
    while position < len(text):
        place = Place(file, line, 1, "")
        end = _line_end(text, position)
        try:
            end = _statement(text, position, end, found, lookup, known)
        except _Unreadable as error:
            problems.add(place, error.reason, error.hint)
            end = max(end, error.end)
        line += text.count("\n", position, end + 1)
        position = end + 1
    return found


class _Unreadable(Exception):
    def __init__(self, reason: str, hint: str = "", end: int = 0) -> None:
        super().__init__(reason)
        self.reason, self.hint, self.end = reason, hint, end


def _statement(text: str, start: int, end: int, found: dict[str, str], lookup: Lookup, known: Lookup) -> int:
    """Put what the line from ``start`` to ``end`` says into ``found``; return where its last line ends."""
    line = text[start:end]
    if not line.strip() or line.lstrip().startswith("#"):
        return end
    statement = _STATEMENT.match(text, start, end)
    rest = text[statement.end() : end].rstrip() if statement else ""
    if statement is None or (statement["sign"] is None and rest and not rest.startswith("#")):
        raise _Unreadable("is not NAME=value", "Begin a comment with #")
    name = statement["name"]
    if statement["sign"] is None:
        inherited = lookup(name)
        if inherited is not None:
            found[name] = inherited
        return end
    quote, value = rest[:1], _COMMENT.sub("", rest).rstrip()
    if quote and quote in "'\"":
        closing = _closing(text, statement.end())
        if closing < 0:
            raise _Unreadable(f"the value of {name} begins with {quote} and does not end", end=len(text))
        end = _line_end(text, closing)
        after = text[closing + 1 : end].strip()
        if after and not after.startswith("#"):
            raise _Unreadable(f"something follows the quoted value of {name}", end=end)
        value = text[statement.end() + 1 : closing]
    try:
        found[name] = _unquoted(value, quote, known)
    except InterpolationError as error:
        raise _Unreadable(f"the value of {name} {error.reason}", end=end) from error
    return end


def _line_end(text: str, position: int) -> int:
    end = text.find("\n", position)
    return len(text) if end < 0 else end


def _unquoted(value: str, quote: str, known: Lookup) -> str:
    if quote == "'":
        return value.replace("\\'", "'")
    if quote == '"':
        value = _ESCAPE.sub(lambda match: _ESCAPES.get(match[1], match[0]), value)
    return interpolate(value, known, lambda name: None)


def _closing(text: str, opening: int) -> int:
    """Where the quote that opens at ``opening`` ends; -1 if it does not."""
    position = opening + 1
    while position < len(text):
        if text[position] == "\\":
            position += 1
        elif text[position] == text[opening]:
            return position
        position += 1
    return -1
