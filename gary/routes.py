"""The agent's HTTP API as data: which request stands for which operation, and what its arguments may be.

The agent serves it and the command line asks by it, so this imports nothing that makes either slow to start.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gary.config import split_address

TOKEN_LENGTH_MAX = 8192
LEAVE_TIMEOUT_S = 120.0
ENVELOPE_LENGTH_MAX = 3 * 1024 * 1024
RELAY_TIMEOUT_S = 30.0

Read = Callable[[object], object]
REQUIRED = object()


@dataclass(frozen=True, slots=True)
class Field:
    """One argument. ``read`` takes JSON or the text of a query, and raises ``ValueError`` with what it should be."""

    name: str
    read: Read
    default: object = REQUIRED


@dataclass(frozen=True, slots=True)
class Route:
    method: str
    path: str
    op: str
    query: tuple[Field, ...] = ()
    body: tuple[Field, ...] = ()
    streams: bool = False


def _text(length_max: int) -> Read:
    def read(value: object) -> str:
        if not isinstance(value, str) or not 0 < len(value) <= length_max or not value.isprintable():
            raise ValueError(f"a text of 1 to {length_max} printable characters")
        return value

    return read


def _flag(value: object) -> bool:
    words = {"1": True, "true": True, "": True, "0": False, "false": False, True: True, False: False}
    if not isinstance(value, str | bool) or value not in words:
        raise ValueError("true or false")
    return words[value]


def _count(value: object) -> int:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1_000_000_000:
        raise ValueError("a whole number, 0 or more")
    return value


def _seconds(value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 86_400:
        raise ValueError("a number of seconds, at most a day")
    return float(value)


def _overlap(value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 366 * 86_400:
        raise ValueError("a number of seconds, at most a year")
    return float(value)


def _object(value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        raise ValueError("an object")
    return value


def _replicas(value: object) -> dict[str, int]:
    if not isinstance(value, dict) or not value:
        raise ValueError("an object of services and their numbers of replicas")
    name = _text(255)
    return {str(name(service)): _count(replicas) for service, replicas in value.items()}


def _address(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError('a text "HOST:PORT"')
    split_address(value)
    return value


PATH_FIELDS = (Field("app", _text(255)), Field("node", _text(255)), Field("invitation", _text(64)))

ROUTES = (
    Route("GET", "/v1/version", "version"),
    Route("GET", "/v1/nodes", "nodes"),
    Route("GET", "/v1/doctor", "doctor"),
    Route("GET", "/v1/deployments", "ps"),
    Route(
        "POST",
        "/v1/deployments",
        "deploy",
        body=(
            Field("spec", _object),
            Field("dry_run", _flag, False),
            Field("replace", _flag, False),
            Field("operator", _text(255), None),
        ),
    ),
    Route("GET", "/v1/deployments/{app}", "status"),
    Route("DELETE", "/v1/deployments/{app}", "remove"),
    Route("GET", "/v1/deployments/{app}/promises", "promises"),
    Route("GET", "/v1/deployments/{app}/endpoints", "endpoints"),
    Route("GET", "/v1/deployments/{app}/holders", "holders"),
    Route(
        "POST",
        "/v1/deployments/{app}/grant",
        "grant",
        body=(Field("operator", _text(255)), Field("revoke", _flag, False)),
    ),
    Route("POST", "/v1/deployments/{app}/scale", "scale", body=(Field("services", _replicas),)),
    Route("POST", "/v1/deployments/{app}/release", "release", body=(Field("slot", _text(512)),)),
    Route(
        "GET",
        "/v1/deployments/{app}/logs",
        "logs",
        query=(
            Field("service", _text(255), None),
            Field("index", _text(255), None),
            Field("follow", _flag, False),
            Field("tail", _count, None),
        ),
        streams=True,
    ),
    Route(
        "GET",
        "/v1/events",
        "events",
        query=(Field("app", _text(255), None), Field("follow", _flag, False)),
        streams=True,
    ),
    Route(
        "POST",
        "/v1/join",
        "join",
        body=(Field("peer", _address, None), Field("token", _text(TOKEN_LENGTH_MAX), None)),
    ),
    Route(
        "POST",
        "/v1/relay",
        "relay",
        body=(
            Field("node", _text(64)),
            Field("envelope", _text(ENVELOPE_LENGTH_MAX)),
            Field("timeout_s", _seconds, RELAY_TIMEOUT_S),
        ),
        streams=True,
    ),
    Route("GET", "/v1/trust", "trust"),
    Route("GET", "/v1/invitations", "invitations"),
    Route(
        "POST",
        "/v1/invitations",
        "invite",
        body=(Field("uses", _count, 1), Field("expires_s", _count, 3600), Field("vouch", _flag, True)),
    ),
    Route("DELETE", "/v1/invitations/{invitation}", "revoke"),
    Route("POST", "/v1/nodes/{node}/expel", "expel"),
    Route(
        "POST", "/v1/rotate", "rotate", body=(Field("overlap_s", _overlap, 604_800.0), Field("urgent", _flag, False))
    ),
    Route("POST", "/v1/operators", "admit", body=(Field("key", _text(64)),)),
    Route("POST", "/v1/leave", "leave", body=(Field("timeout_s", _seconds, LEAVE_TIMEOUT_S),), streams=True),
)
