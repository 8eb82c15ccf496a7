"""How a command ends: exit codes that mean something, and errors that say what happened, why, and what to do."""

from __future__ import annotations

import functools
import os
import signal
import sys
from collections.abc import Callable
from typing import NoReturn, ParamSpec

import typer

from gary.cli.terminal import print_json, say
from gary.errors import CommandError, ConfigError, ErrorCode, GaryError

FAILED = 1
"""It was tried and failed, or is not whole."""
BAD_INPUT = 2
UNREACHABLE = 3
NOT_FOUND = 4
REFUSED = 5
INTERRUPTED = 128 + signal.SIGINT
READER_GONE = 128 + signal.SIGPIPE

EXIT_CODES = {
    ErrorCode.BAD_REQUEST: BAD_INPUT,
    ErrorCode.NOT_FOUND: NOT_FOUND,
    ErrorCode.NAME_TAKEN: REFUSED,
    ErrorCode.CONFLICT: REFUSED,
    ErrorCode.REFUSED: REFUSED,
    ErrorCode.ELSEWHERE: FAILED,
    ErrorCode.UNAVAILABLE: FAILED,
    ErrorCode.TIMEOUT: FAILED,
    ErrorCode.INTERNAL: FAILED,
}


class AgentUnreachable(GaryError):
    """No agent answers on this host's socket."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class NotWhole(GaryError):
    """What was asked for was begun and is not all there; the sentence says what is missing."""


class BadInput(GaryError):
    """A file or an argument that cannot be meant; ``problems`` are whole lines."""

    def __init__(self, message: str, problems: tuple[str, ...] = (), hint: str = "") -> None:
        super().__init__(message)
        self.problems = problems
        self.hint = hint


P = ParamSpec("P")


def ends_well(command: Callable[P, None]) -> Callable[P, None]:
    """Translate every expected failure of ``command`` into words on stderr and an exit code.

    A command with ``as_json=True`` also gets the error as JSON on stdout, so that a program has it in one place.
    """

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
            sys.stdout.flush()
        except CommandError as error:
            if kwargs.get("as_json"):
                print_json(error.to_json())
            fail(EXIT_CODES[error.code], error.message, error.hint)
        except AgentUnreachable as error:
            if kwargs.get("as_json"):
                print_json(CommandError(ErrorCode.UNAVAILABLE, error.message, error.hint).to_json())
            fail(UNREACHABLE, error.message, error.hint)
        except BadInput as error:
            for problem in error.problems:
                say(problem)
            fail(BAD_INPUT, str(error), error.hint)
        except ConfigError as error:
            say(str(error))
            fail(BAD_INPUT, "the agent was not started: its configuration is wrong", "gary agent --help")
        except NotWhole as error:
            fail(FAILED, str(error))
        except GaryError as error:
            fail(FAILED, str(error))
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            # Whoever read our output has enough. The interpreter must not fail again when it flushes at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(READER_GONE) from None

    return run


def fail(code: int, message: str, hint: str = "") -> NoReturn:
    say(f"gary: {message}")
    if hint:
        say(f"      {hint}")
    raise typer.Exit(code)
