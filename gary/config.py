"""What an agent is told by its operator, resolved once and then fixed.

Each setting is looked for in this order: flag, environment (``GARY_`` and the setting's name), ``gary.toml``, default.
``resolve`` either returns a whole ``AgentConfig`` or raises ``ConfigError`` with every problem and where it came from.
Nothing here opens a connection, except ``advertised_address``, which asks the kernel for a route and sends nothing.
"""

from __future__ import annotations

import contextlib
import grp
import json
import os
import pwd
import re
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

from gary.control import ControlSocket
from gary.errors import ConfigError, ConfigProblem

DEFAULT_PORT = 7946
DEFAULT_FILE = Path("/etc/gary/gary.toml")
SOCKET_NAME = "agent.sock"
SOCKET_PATH_BYTES_MAX = 107
"""``sockaddr_un`` holds no more (Linux, unix(7))."""
SHARED_SOCKET = Path("/run/gary") / SOCKET_NAME
"""Where the agent's socket belongs if others than the agent's own user are to reach it."""

PROFILES = ("lan", "wan")
"""The names in ``gossip.PROFILES``, which the command line does without: importing it takes longer than a command."""
LOG_FORMATS = ("text", "json")
LOG_LEVELS = ("debug", "info", "warning", "error")

# Variables with our prefix that are not settings of an agent.
_OTHER_VARIABLES = frozenset({"GARY_CONFIG", "GARY_OPERATOR_KEY", "GARY_REQUIRE_ENGINES"})
_TEST_PREFIX = "GARY_TEST_"

_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,62}[A-Za-z0-9])?")
_LABEL_KEY = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._/-]{0,126}[A-Za-z0-9])?")
_WILDCARDS = frozenset({"0.0.0.0", "::", ""})


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """All settings of one agent.

    ``state_dir``: absolute. ``socket``: the agent's; None: ``agent.sock`` in the state directory. ``socket_owner``,
    ``socket_group``: ids of who may use it; None: the agent's own. ``bind``: ``host:port`` of the probe lane; the bulk
    lane takes the next port. ``advertise``: ``host:port`` that others dial; empty: ``advertised_address``.
    ``runtimes``: names, none means docker if it answers, and process. ``docker_host``: ``unix://``, ``tcp://`` or
    ``ssh://``. ``profile``: timing of gossip, one of ``PROFILES``. ``containers_max``: how many containers this node
    takes on in all. ``metrics_bind``: ``host:port`` at which Prometheus finds ``/metrics`` over TCP; empty: only on the
    agent's socket. ``vouch``: whether this node may hold the secret half of its cluster's root.
    """

    state_dir: Path
    socket: Path | None = None
    socket_owner: int | None = None
    socket_group: int | None = None
    bind: str = f"0.0.0.0:{DEFAULT_PORT}"
    advertise: str = ""
    name: str = "node"
    labels: tuple[tuple[str, str], ...] = ()
    runtimes: tuple[str, ...] = ()
    docker_host: str = "unix:///var/run/docker.sock"
    transport: str = "nng"
    profile: str = "lan"
    containers_max: int = 100
    metrics_bind: str = ""
    vouch: bool = True
    log_format: str = "text"
    log_level: str = "info"

    @property
    def control(self) -> ControlSocket:
        """The agent's socket."""
        return ControlSocket(self.socket or self.state_dir / SOCKET_NAME, self.socket_owner, self.socket_group)

    @property
    def processes_dir(self) -> Path:
        """Where the ``process`` runtime keeps its containers."""
        return self.state_dir / "process"


def resolve(flags: Mapping[str, object], environment: Mapping[str, str]) -> AgentConfig:
    """The configuration from ``flags`` (setting name to text or sequence of text; absent or None when not given).

    ``flags["config"]`` or ``GARY_CONFIG`` names the file; without either ``/etc/gary/gary.toml`` is read if there.
    Raises ``ConfigError``.
    """
    problems: list[ConfigProblem] = []
    file_name, table = _read_file(flags, environment, problems)
    return _build(
        {name: value for name, value in flags.items() if name != "config"}, environment, file_name, table, problems
    )


def encode(config: AgentConfig) -> str:
    """``config`` as one line of JSON, for ``decode`` in the process that becomes the agent."""
    values = {field.name: getattr(config, field.name) for field in fields(config)}
    paths = {"state_dir": str(config.state_dir), "socket": str(config.socket or "")}
    return json.dumps(values | paths | {"labels": dict(config.labels)}, sort_keys=True)


def decode(text: str) -> AgentConfig:
    """The inverse of ``encode``; the same checks as ``resolve``. Raises ``ConfigError``."""
    try:
        table = json.loads(text)
    except ValueError as error:
        raise ConfigError([ConfigProblem("configuration", f"is no JSON: {error}")]) from error
    if not isinstance(table, dict):
        raise ConfigError([ConfigProblem("configuration", "is no JSON object")])
    given = {name: value for name, value in table.items() if value not in ("", [])}
    return _build(given, {}, "configuration", {}, [])


def default_state_dir(environment: Mapping[str, str]) -> Path:
    """``/var/lib/gary`` for root, otherwise ``gary`` in the user's XDG state directory."""
    if os.geteuid() == 0:
        return Path("/var/lib/gary")
    base = environment.get("XDG_STATE_HOME") or f"{environment.get('HOME', '~')}/.local/state"
    return Path(base).expanduser() / "gary"


def default_socket(environment: Mapping[str, str]) -> Path:
    """Where a client looks for the agent when it is not told: at the user's own, else at the one that is shared."""
    if given := environment.get("GARY_SOCKET"):
        return Path(given)
    if state_dir := environment.get("GARY_STATE_DIR"):
        return Path(state_dir) / SOCKET_NAME
    return nearest_socket(default_state_dir(environment) / SOCKET_NAME, SHARED_SOCKET)


def nearest_socket(own: Path, shared: Path) -> Path:
    """``own``, unless only ``shared`` is there, as far as this user may know."""
    for path in (own, shared):
        with contextlib.suppress(OSError):
            if path.exists():
                return path
    return own


def advertised_address(config: AgentConfig) -> str:
    """``advertise``, else ``bind`` when it names one address, else this host's address on its default route.

    Raises ``ConfigError`` when the host has no route, because then nobody could dial what would be advertised.
    """
    if config.advertise:
        return config.advertise
    host, port = split_address(config.bind)
    if host not in _WILDCARDS:
        return config.bind
    family, far = (socket.AF_INET6, "2001:db8::1") if ":" in host else (socket.AF_INET, "192.0.2.1")
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((far, 9))  # Documentation addresses; connecting a datagram socket only looks up the route.
        except OSError as error:
            reason = (
                f"no default route tells which address others can dial ({error}); say it with --advertise HOST:PORT"
            )
            raise ConfigError([ConfigProblem("--advertise", reason)]) from error
        return join_address(probe.getsockname()[0], port)


def split_address(text: str) -> tuple[str, int]:
    """``host:port`` or ``[ipv6]:port`` in parts. Raises ``ValueError`` with the reason."""
    host, colon, port = text.rpartition(":")
    if not colon or not host:
        raise ValueError(f"{text!r} is not HOST:PORT")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"{text!r}: put an IPv6 address in brackets, [{host}]:{port}")
    if not port.isascii() or not port.isdigit() or not 1 <= int(port) <= 65535:
        raise ValueError(f"{text!r}: the port must be a number from 1 to 65535")
    return host, int(port)


def join_address(host: str, port: int) -> str:
    """The inverse of ``split_address``."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Setting(Generic[T]):
    """``parse`` takes what a flag, a variable or TOML gives and raises ``ValueError`` with a reason."""

    name: str
    flag: str
    parse: Callable[[object], T]
    default: Callable[[Mapping[str, str]], T]


def _text(given: object) -> str:
    if not isinstance(given, str) or not given:
        raise ValueError(f"{given!r} is not a text")
    return given


def _path(given: object) -> Path:
    text = _text(given)
    try:
        if b"\0" in os.fsencode(text):
            raise ValueError(f"{given!r} is not a path")
        return Path(text).expanduser().absolute()
    except UnicodeEncodeError as error:
        raise ValueError(f"{given!r} is not a path") from error
    except RuntimeError as error:
        raise ValueError(f"{given!r}: whose home directory this is cannot be found out") from error


def _directory(given: object) -> Path:
    path = _path(given)
    try:
        is_other = path.exists() and not path.is_dir()
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from error
    if is_other:
        raise ValueError(f"{path} is not a directory")
    return path


def _id(what: str, by_name: Callable[[str], int]) -> Callable[[object], int]:
    """Reads the name of a ``what``, or its number, as a number."""

    def parse(given: object) -> int:
        text = str(given) if isinstance(given, int) and not isinstance(given, bool) else _text(given)
        if text.isascii() and text.isdigit():
            if len(text) > 9:
                raise ValueError(f"{text} is not the number of a {what}")
            return int(text)
        try:
            return by_name(text)
        except (KeyError, ValueError) as error:
            raise ValueError(f"there is no {what} {text!r} on this host") from error

    return parse


def _address(given: object) -> str:
    return join_address(*split_address(_text(given)))


def _gossip_address(given: object) -> str:
    host, port = split_address(_text(given))
    if port == 65535:
        raise ValueError(f"{given!r}: the highest port is 65534, because the next port is used as well")
    return join_address(host, port)


def _dialled_address(given: object) -> str:
    address = _gossip_address(given)
    if split_address(address)[0] in _WILDCARDS:
        raise ValueError(f"{given!r} is not an address that others can dial")
    return address


def _node_name(given: object) -> str:
    if not _NAME.fullmatch(text := _text(given)):
        raise ValueError(f"{text!r} is not a node name: up to 64 letters, digits, dots, dashes and underscores")
    return text


def _labels(given: object) -> tuple[tuple[str, str], ...]:
    """From ``{"k": "v"}`` (TOML), ``["k=v", …]`` (flags) or ``"k=v,k=v"`` (environment)."""
    if isinstance(given, Mapping):
        pairs = [(str(key), value) for key, value in given.items()]
    else:
        pairs = []
        for part in _texts(given):
            key, equals, value = part.partition("=")
            if not equals:
                raise ValueError(f"{part!r} is not KEY=VALUE")
            pairs.append((key, value))
    labels: dict[str, str] = {}
    for key, value in pairs:
        if not _LABEL_KEY.fullmatch(key):
            raise ValueError(f"{key!r} is not a label: letters, digits, dots, dashes, slashes and underscores")
        if not isinstance(value, str) or len(value) > 256 or not value.isprintable():
            raise ValueError(f"the value of label {key!r} must be a text of at most 256 printable characters")
        if key in labels:
            raise ValueError(f"label {key!r} is given twice")
        labels[key] = value
    return tuple(sorted(labels.items()))


def _names(given: object) -> tuple[str, ...]:
    names = _texts(given)
    for name in names:
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is not a name")
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{', '.join(repeated)} is given twice")
    return tuple(names)


def _texts(given: object) -> list[str]:
    if isinstance(given, str):
        return [part.strip() for part in given.split(",") if part.strip()]
    if isinstance(given, Sequence) and all(isinstance(part, str) for part in given):
        return list(given)
    raise ValueError(f"{given!r} is not a list of texts")


def _choice(*choices: str) -> Callable[[object], str]:
    def parse(given: object) -> str:
        if given not in choices:
            raise ValueError(f"{given!r} is none of {', '.join(choices)}")
        return str(given)

    return parse


def _count(given: object) -> int:
    if isinstance(given, str) and given.isascii() and given.isdigit() and len(given) < 7:
        given = int(given)
    if not isinstance(given, int) or isinstance(given, bool) or not 0 <= given <= 100_000:
        raise ValueError(f"{given!r} is not a number from 0 to 100000")
    return given


def _flag(given: object) -> bool:
    words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if isinstance(given, bool):
        return given
    if not isinstance(given, str) or given.lower() not in words:
        raise ValueError(f"{given!r} is neither true nor false")
    return words[given.lower()]


def _engine(given: object) -> str:
    text = _text(given)
    scheme, separator, rest = text.partition("://")
    if not separator or not rest or scheme not in ("unix", "tcp", "ssh", "http", "https"):
        raise ValueError(f"{text!r} is not an engine's address such as unix:///var/run/docker.sock")
    return text


def _always(value: T) -> Callable[[Mapping[str, str]], T]:
    return lambda _environment: value


def _own_name(_environment: Mapping[str, str]) -> str:
    return _node_name(socket.gethostname())


_SETTINGS: tuple[_Setting[Any], ...] = (
    _Setting("state_dir", "--state-dir", _directory, default_state_dir),
    _Setting("socket", "--socket-path", _path, _always(None)),
    _Setting("socket_owner", "--socket-owner", _id("user", lambda name: pwd.getpwnam(name).pw_uid), _always(None)),
    _Setting("socket_group", "--socket-group", _id("group", lambda name: grp.getgrnam(name).gr_gid), _always(None)),
    _Setting("bind", "--bind", _gossip_address, _always(f"0.0.0.0:{DEFAULT_PORT}")),
    _Setting("advertise", "--advertise", _dialled_address, _always("")),
    _Setting("name", "--name", _node_name, _own_name),
    _Setting("labels", "--label", _labels, _always(())),
    _Setting("runtimes", "--runtime", _names, _always(())),
    _Setting("docker_host", "--docker-host", _engine, _always("unix:///var/run/docker.sock")),
    _Setting("transport", "--transport", _node_name, _always("nng")),
    _Setting("profile", "--profile", _choice(*PROFILES), _always("lan")),
    _Setting("containers_max", "--containers-max", _count, _always(100)),
    _Setting("metrics_bind", "--metrics-bind", _address, _always("")),
    _Setting("vouch", "--vouch", _flag, _always(True)),
    _Setting("log_format", "--log-format", _choice(*LOG_FORMATS), _always("text")),
    _Setting("log_level", "--log-level", _choice(*LOG_LEVELS), _always("info")),
)
SETTING_NAMES = tuple(setting.name for setting in _SETTINGS)


def _build(
    flags: Mapping[str, object],
    environment: Mapping[str, str],
    file_name: str,
    table: Mapping[str, object],
    problems: list[ConfigProblem],
) -> AgentConfig:
    problems = problems + _unknown(flags, environment, file_name, table)
    values: dict[str, object] = {}
    sources: dict[str, str] = {}
    for setting in _SETTINGS:
        source, given = _find(setting.name, setting.flag, flags, environment, file_name, table)
        sources[setting.name] = source
        try:
            values[setting.name] = setting.default(environment) if given is None else setting.parse(given)
        except ValueError as error:
            problems.append(ConfigProblem(source, str(error)))
    problems += _inconsistencies(values, sources)
    if problems:
        raise ConfigError(problems)
    return AgentConfig(**cast("dict[str, Any]", values))


def _find(
    name: str,
    flag: str,
    flags: Mapping[str, object],
    environment: Mapping[str, str],
    file_name: str,
    table: Mapping[str, object],
) -> tuple[str, object | None]:
    """Where the setting comes from, and what was given there; None when it is given nowhere."""
    if flags.get(name) is not None:
        return flag, flags[name]
    variable = f"GARY_{name.upper()}"
    if environment.get(variable):  # An empty variable is how a shell or a unit file says "not set".
        return variable, environment[variable]
    if name in table:
        return f"{file_name}: {name}", table[name]
    return flag, None


def _read_file(
    flags: Mapping[str, object], environment: Mapping[str, str], problems: list[ConfigProblem]
) -> tuple[str, Mapping[str, object]]:
    asked = flags.get("config") or environment.get("GARY_CONFIG")
    if not asked and not DEFAULT_FILE.exists():
        return "gary.toml", {}
    import tomllib  # Here, because the agent itself is given its settings and reads no file.

    path = Path(str(asked or DEFAULT_FILE))
    try:
        return path.name, tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        problems.append(ConfigProblem(str(path), f"cannot be read: {error.strerror}"))
    except ValueError as error:  # No UTF-8, or no TOML.
        problems.append(ConfigProblem(str(path), f"is not TOML: {error}"))
    return path.name, {}


def _unknown(
    flags: Mapping[str, object], environment: Mapping[str, str], file_name: str, table: Mapping[str, object]
) -> list[ConfigProblem]:
    known = frozenset(SETTING_NAMES)
    settings = ", ".join(SETTING_NAMES)
    unknown = [f"--{name}" for name in sorted(flags.keys() - known)]
    for variable in sorted(environment):
        ours = variable.startswith("GARY_") and not variable.startswith(_TEST_PREFIX)
        if ours and variable not in _OTHER_VARIABLES and variable[5:].lower() not in known:
            unknown.append(variable)
    unknown += [f"{file_name}: {key}" for key in table if key not in known]
    return [ConfigProblem(source, f"there is no such setting; settings are {settings}") for source in unknown]


def _inconsistencies(values: Mapping[str, object], sources: Mapping[str, str]) -> list[ConfigProblem]:
    state_dir, given = values.get("state_dir"), values.get("socket")
    if not isinstance(state_dir, Path):
        return []
    path = given if isinstance(given, Path) else state_dir / SOCKET_NAME
    problems = []
    length = len(os.fsencode(path))
    if length > SOCKET_PATH_BYTES_MAX:
        reason = (
            f"the agent's socket {path} would have a path of {length} bytes; the system allows {SOCKET_PATH_BYTES_MAX}"
        )
        problems.append(ConfigProblem(sources["socket" if given else "state_dir"], reason))
    if Path(os.path.realpath(path)).is_relative_to(os.path.realpath(state_dir)):
        reason = (
            f"nobody but the agent's own user and root can reach {path}, because it is in the state directory; "
            f"put it elsewhere, for example --socket-path {SHARED_SOCKET}"
        )
        for name, own in (("socket_owner", os.geteuid()), ("socket_group", os.getegid())):
            if values.get(name) not in (None, own):
                problems.append(ConfigProblem(sources[name], reason))
    return problems
