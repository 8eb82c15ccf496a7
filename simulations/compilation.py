"""The same software, compiled: what runs for every input of every agent, made into machine code by mypyc.

The plain form is the default. The compiled one is built once for each state of the sources, beside them in a cache; it
gives equal traces, about one and a half times as fast. It needs a C compiler and mypy, which the extra ``compiled``
brings.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NoReturn

PACKAGES: Final = ("crdt", "gary", "gossip", "simulations")
MODULES: Final = (
    *(
        f"gossip/{name}.py"
        for name in (
            *(
                "antientropy",
                "config",
                "digest",
                "directory",
                "dissemination",
                "effects",
                "health",
                "joining",
                "layered",
                "member",
            ),
            *(
                "membership",
                "messages",
                "outbox",
                "pace",
                "probe",
                "roll",
                "suspicion",
                "swim",
                "traffic",
                "transport",
                "view",
            ),
        )
    ),
    *(
        f"gary/{name}.py"
        for name in (
            *("agent", "clock", "cluster", "engines", "events", "node", "orphans", "requests"),
            *("trust/ledger", "trust/standing"),
        )
    ),
    *(f"simulations/{name}.py" for name in ("clock", "cluster", "driver", "host", "network")),
)
SETTINGS: Final = "[mypy]\nignore_missing_imports = True\nfollow_untyped_imports = True\n"


class CompilationFailed(Exception):
    """The world: what it takes to compile is not there, or does not work."""


def compiled(cache: Path) -> Path:
    """The directory that holds the compiled packages; made if it is not there. Raises ``CompilationFailed``."""
    source = Path(__file__).parents[1]
    made = cache / f"compiled-{_digest(source)}"
    if made.exists():
        return made
    print("compiling; that takes about a minute, once", file=sys.stderr)
    building = cache / f"building-{os.getpid()}"
    try:
        building.mkdir(parents=True)
        for package in PACKAGES:
            shutil.copytree(source / package, building / package, ignore=shutil.ignore_patterns("__pycache__"))
        (building / "mypy.ini").write_text(SETTINGS, encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "-m", "mypyc", *MODULES], cwd=building, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            last = "\n".join((done.stdout + done.stderr).splitlines()[-5:])
            raise CompilationFailed(
                f"the simulations cannot be compiled: {last}\n"
                f"It takes a C compiler, Python's headers and: pip install 'gary[compiled]'"
            )
        shutil.rmtree(building / "build", ignore_errors=True)
        _put(building, made)
    except OSError as error:
        raise CompilationFailed(f"the simulations cannot be compiled in {cache}: {error}") from error
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return made


def _put(building: Path, made: Path) -> None:
    """What was built takes its place, unless another process has just built the same."""
    try:
        building.rename(made)
    except OSError:
        if not made.exists():
            raise


def default_cache(environment: Mapping[str, str]) -> Path:
    """``gary`` in the user's XDG cache directory."""
    return Path(environment.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gary"


def take_over(directory: Path, module: str, arguments: Sequence[str], environment: Mapping[str, str]) -> NoReturn:
    """Go on as ``python -m MODULE`` with the packages in ``directory``."""
    path = os.pathsep.join([str(directory), *filter(None, [environment.get("PYTHONPATH")])])
    # -P: what lies in the working directory does not come before that.
    words = [sys.executable, "-P", "-m", module, *arguments]
    os.execve(words[0], words, {**environment, "PYTHONPATH": path})


def _digest(source: Path) -> str:
    """Of this Python and of all sources."""
    digest = hashlib.sha256(sys.version.encode())
    for package in PACKAGES:
        for file in sorted(f for f in (source / package).rglob("*") if f.is_file() and f.parent.name != "__pycache__"):
            digest.update(str(file.relative_to(source)).encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]
