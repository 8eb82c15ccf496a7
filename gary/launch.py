"""The process that becomes an agent: ``python -m gary.launch CONFIG``, the settings in JSON as ``gary agent`` resolved
them.

It runs for months, and what it has imported stays in its memory, so libraries are loaded here without those of their
own that they can do without and an agent has no use for. Nothing of this changes what an agent does. Where a library
does not do without any longer, its import fails and no agent starts.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import cast

from gary.config import AgentConfig, decode
from gary.errors import ConfigError


def main() -> int:
    """Become the agent. Returns the exit code."""
    try:
        config = decode("".join(sys.argv[1:2]))
    except ConfigError as error:
        sys.stderr.write(f"error: {error}\nhint: this is what 'gary agent' starts; use that\n")
        return 2
    load(config)
    from gary.daemon import run

    return run(config)


def load(config: AgentConfig) -> None:
    """Import ``gary.daemon`` without what an agent with these settings has no use for."""
    # The compiled one is all that needs the C++ library, 1 MB; aiohttp keeps a dozen short lists that hardly change.
    with _variable("FROZENLIST_NO_EXTENSIONS", "1"):
        if is_without_tls(config):
            _load_without_tls()
        else:
            importlib.import_module("gary.daemon")


def is_without_tls(config: AgentConfig) -> bool:
    """Whether nothing in such an agent speaks TLS through Python: its transport and its runtimes are Gary's own, and
    the engine answers on a unix socket.
    """
    own = config.transport == "nng" and set(config.runtimes) <= {"docker", "process"}
    return own and config.docker_host.startswith("unix:")


def _load_without_tls() -> None:
    """Python's TLS and the authorities that the host trusts are 4 MB, which asyncio and aiohttp would load at once.

    They do without on a Python that has none. Everybody else gets it when something of it is first used:
    prometheus_client at the first scrape, and aiodocker if it ever should.
    """
    stand_in = sys.modules["ssl"] = _loaded_when_used("ssl")
    importlib.import_module("urllib.request")  # While there is TLS, so that it has HTTPS for those who come later.
    sys.modules["ssl"] = cast(ModuleType, None)  # This is how the import system is told that there is no such module.
    importlib.import_module("gary.daemon")
    sys.modules["ssl"] = stand_in


def _loaded_when_used(name: str) -> ModuleType:
    """A stand-in that imports the module when something of it is first asked for."""

    def look_up(attribute: str) -> object:
        if attribute.startswith("__"):
            raise AttributeError(attribute)  # Asked of every module by who looks for one; nobody uses this one yet.
        if sys.modules.get(name) is stand_in:
            del sys.modules[name]
        return getattr(importlib.import_module(name), attribute)

    stand_in = ModuleType(name)
    vars(stand_in)["__getattr__"] = look_up
    return stand_in


@contextmanager
def _variable(name: str, value: str) -> Iterator[None]:
    """Set it here, and not for what the agent will start."""
    former = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        del os.environ[name]
        if former is not None:
            os.environ[name] = former


if __name__ == "__main__":
    sys.exit(main())
