"""Single values of a Compose file: numbers, durations, sizes, ports, volumes, images, constraints. Text in, value out.

Each function raises ``ValueError`` with a sentence that can stand after the key's path.
"""

from __future__ import annotations

import ipaddress
import re
import shlex
import signal as signals
from decimal import Decimal
from typing import Final

from gary.spec.limits import BYTES_MAX, CAPABILITY, CONSTRAINT_ATTRIBUTE, CPUS_MAX, ITEMS_MAX, PROTOCOLS, SECONDS_MAX
from gary.spec.model import Constraint, Port

_TRUE: Final = frozenset({"true", "yes", "y", "on"})
_FALSE: Final = frozenset({"false", "no", "n", "off"})
_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,18}")
_DURATION: Final = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(h|ms|m|s|us|µs|ns)")
_UNITS_S: Final = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_SIZE: Final = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,18})?) ?([kmgtp]?)i?b?", re.IGNORECASE)
_REALTIME_SIGNAL: Final = re.compile(r"SIGRT(?:MIN\+[0-9]{1,2}|MAX-[0-9]{1,2})")

_COMPONENT: Final = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_HOST: Final = (
    r"(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)*|\[[0-9a-fA-F:]+\])"
)
_IMAGE: Final = re.compile(
    rf"(?:{_HOST}(?::[0-9]+)?/)?{_COMPONENT}(?:/{_COMPONENT})*"
    r"(?::[\w][\w.-]{0,127})?(?:@[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,})?",
    re.ASCII,
)
_PORTS: Final = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")
_CONSTRAINT: Final = re.compile(r"\s*(\S+?)\s*(==|!=)\s*(.*?)\s*", re.DOTALL)


def flag(text: str) -> bool:
    """``true`` or ``false``, or the other words that Compose takes for them."""
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    raise ValueError(f"is {_shown(text)}; it must be true or false")


def integer(text: str, low: int, high: int) -> int:
    """A whole number from ``low`` to ``high``."""
    if not _INTEGER.fullmatch(text):
        raise ValueError(f"is {_shown(text)}; it must be a whole number")
    value = int(text)
    if not low <= value <= high:
        raise ValueError(f"is {value}; it must be from {low} to {high}")
    return value


def cpus(text: str) -> float:
    """A number of CPUs, such as ``0.5``. 0 is no limit."""
    if not re.fullmatch(r"[0-9]{0,9}(?:\.[0-9]{1,9})?|[0-9]{1,9}\.", text) or not text:
        raise ValueError(f"is {_shown(text)}; it must be a number of CPUs, such as 0.5")
    value = float(text)
    if value > CPUS_MAX:
        raise ValueError(f"is {text}; at most {CPUS_MAX:g} CPUs are taken")
    return value


def duration_s(text: str) -> float:
    """Seconds of a duration as Go writes it: ``1m30s``, ``500ms``, ``1.5h``. ``0`` needs no unit."""
    if text == "0":
        return 0.0
    rest, total = text, 0.0
    while rest:
        part = _DURATION.match(rest)
        if part is None or len(text) > 64:
            raise ValueError(f"is {_shown(text)}; it must be a duration with its unit, such as 10s or 1m30s")
        total += float(part[1]) * _UNITS_S[part[2]]
        rest = rest[part.end() :]
    if not text:
        raise ValueError("is empty; it must be a duration with its unit, such as 10s")
    if total > SECONDS_MAX:
        raise ValueError(f"is {text}; at most {SECONDS_MAX / 86_400:g} days are taken")
    # Parts of a nanosecond come from binary fractions only, and would make equal durations different.
    return round(total, 9)


def size_bytes(text: str) -> int:
    """Bytes of a size: ``512m``, ``1.5g``, ``1024``. Units are powers of 1024."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"is {_shown(text)}; it must be a size, such as 512m or 1.5g")
    value = int(Decimal(match[1]) * 1024 ** " kmgtp".index(match[2].lower() or " "))
    if value > BYTES_MAX:
        raise ValueError(f"is {text}, which is more than any machine has")
    return value


def arguments(text: str) -> tuple[str, ...]:
    """A command line split as a shell would split it; nothing is expanded."""
    try:
        return tuple(shlex.split(text, posix=True))
    except ValueError as error:
        raise ValueError(f"cannot be split into arguments: {str(error).lower()}") from error


def image(text: str) -> str:
    """The reference of an image: ``[host[:port]/]path[:tag][@digest]``."""
    if len(text) > 512 or not _IMAGE.fullmatch(text):
        raise ValueError(f"is {_shown(text)}, which is no name of an image, such as nginx:1.27")
    return text


def capability(text: str) -> str:
    """A capability without ``CAP_``, in capitals."""
    name = text.upper().removeprefix("CAP_")
    if not CAPABILITY.fullmatch(name):
        raise ValueError(f"is {_shown(text)}, which is no name of a capability, such as NET_ADMIN")
    return name


def signal(text: str) -> str:
    """The name or number of a signal; the name with ``SIG``."""
    name = text.upper()
    name = name if name.isdigit() or name.startswith("SIG") else f"SIG{name}"
    known = 1 <= int(name) <= 64 if name.isascii() and name.isdigit() else name in signals.Signals.__members__
    if not known and not _REALTIME_SIGNAL.fullmatch(name):
        raise ValueError(f"is {_shown(text)}, which is no signal, such as SIGINT")
    return name


def constraint(text: str) -> Constraint:
    """``node.labels.NAME == value``, ``node.id``, ``node.hostname``; ``!=`` too."""
    match = _CONSTRAINT.fullmatch(text)
    if match is None or not match[3]:
        raise ValueError(f"is {_shown(text)}; it must be ATTRIBUTE == VALUE or ATTRIBUTE != VALUE")
    if not CONSTRAINT_ATTRIBUTE.fullmatch(match[1]):
        raise ValueError(
            f"asks for {match[1][:64]}; nodes can be chosen by node.labels.NAME, node.id and node.hostname"
        )
    return Constraint(match[1], match[2] == "==", match[3])


def ports(text: str) -> tuple[Port, ...]:
    """The short syntax: ``[[ip:]host:]container[/protocol]``; host and container may be ranges of equal length."""
    rest, _, protocol = text.partition("/")
    outside, _, container = rest.rpartition(":")
    if outside.startswith("["):
        address, bracket, host = outside[1:].partition("]")
        if not bracket or (host and not host.startswith(":")):
            raise ValueError(f"is {_shown(text)}; it must be [[ADDRESS:]HOST:]CONTAINER[/PROTOCOL]")
        host = host[1:]
    else:
        address, _, host = outside.rpartition(":")
    if "/" in text and not protocol:
        raise ValueError(f"is {_shown(text)}; a protocol must follow the /")
    return published(container, host, address, protocol or "tcp")


def published(container: str, host: str, host_ip: str, protocol: str) -> tuple[Port, ...]:
    """Ports of the parts of either syntax. ``host`` and ``host_ip`` may be empty."""
    if protocol.lower() not in PROTOCOLS:
        raise ValueError(f"has the protocol {_shown(protocol)}; it must be one of {', '.join(PROTOCOLS)}")
    if host_ip:
        try:
            host_ip = str(ipaddress.ip_address(host_ip))
        except ValueError as error:
            raise ValueError(f"has {_shown(host_ip)} where the address of the host should stand") from error
    inside = port_range(container)
    if not host:
        return tuple(Port(number, protocol.lower(), None, host_ip) for number in inside)
    outside = port_range(host)
    if len(outside) != len(inside):
        raise ValueError(
            f"has {len(outside)} ports of the host for {len(inside)} of the container; "
            "Gary does not choose from a range, so both must be of equal length"
        )
    return tuple(Port(number, protocol.lower(), own, host_ip) for number, own in zip(inside, outside, strict=True))


def port_range(text: str) -> range:
    """``80`` or ``3000-3005``."""
    match = _PORTS.fullmatch(text)
    if match is None:
        raise ValueError(f"has {_shown(text)} where a port or a range of ports should stand")
    first, last = int(match[1]), int(match[2] or match[1])
    if not 1 <= first <= last <= 65_535:
        raise ValueError(f"has {_shown(text)}; ports are from 1 to 65535, the lower one first")
    if last - first >= ITEMS_MAX:
        raise ValueError(f"has a range of {last - first + 1} ports; at most {ITEMS_MAX} are taken")
    return range(first, last + 1)


def _shown(text: str) -> str:
    return repr(text if len(text) <= 64 else f"{text[:61]}...")
