"""What can go wrong, sorted by who can do something about it.

``CommandError`` is the answer to whoever asked; the others tell an operator of a node that the world failed. Each says
what happened, why, and what to do next; none of them leaves state half changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum


class ErrorCode(StrEnum):
    """The kinds of refusal a command can end with; the same words in the HTTP answer and in sealed answers.

    ``elsewhere``: nothing was refused; other nodes hold what the command is about, and the answer says which.
    """

    BAD_REQUEST = "bad_request"
    NOT_FOUND = "not_found"
    NAME_TAKEN = "name_taken"
    ELSEWHERE = "elsewhere"
    CONFLICT = "conflict"
    REFUSED = "refused"
    UNAVAILABLE = "unavailable"
    TIMEOUT = "timeout"
    INTERNAL = "internal"


class GaryError(Exception):
    """Root of the errors that Gary raises on purpose."""


class CommandError(GaryError):
    """A command that was not carried out. State is as it was, unless ``code`` is ``timeout``.

    ``details``: what a program needs to go on from there.
    """

    def __init__(
        self, code: ErrorCode, message: str, hint: str = "", details: Mapping[str, object] | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint
        self.details = dict(details or {})

    def to_json(self) -> dict[str, object]:
        """The answer's body: ``{"error": {"code", "message", "hint"}}``, and ``"details"`` if there are any."""
        more = {"details": self.details} if self.details else {}
        return {"error": {"code": self.code.value, "message": self.message, "hint": self.hint, **more}}


def error_in(answer: Mapping[str, object]) -> CommandError | None:
    """The error that an answer is; None for one that is none. Whatever is in it, it can be raised and shown."""
    error = answer.get("error")
    if not isinstance(error, Mapping):
        return CommandError(ErrorCode.INTERNAL, "an error that nobody can read") if "error" in answer else None
    code, details = error.get("code"), error.get("details")
    known = ErrorCode(code) if isinstance(code, str) and code in set(ErrorCode) else ErrorCode.INTERNAL
    message = str(error.get("message", "refused without a reason"))
    return CommandError(known, message, str(error.get("hint", "")), details if isinstance(details, Mapping) else None)


class StorageFailed(GaryError):
    """The disk did not take a write, or cannot be used at all. What was durable before still is, and nothing else."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class ConfigProblem:
    """One thing wrong in the configuration. ``source``: ``--bind``, ``GARY_BIND`` or ``gary.toml: bind``."""

    source: str
    reason: str

    def __str__(self) -> str:
        return f"{self.source}: {self.reason}"


class ConfigError(GaryError):
    """The configuration as a whole is refused; ``problems`` has all of them, in order of the settings."""

    def __init__(self, problems: Sequence[ConfigProblem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = tuple(problems)


class SocketUnusable(GaryError):
    """The agent's socket cannot be made where or as it is configured. Nothing was changed there."""
