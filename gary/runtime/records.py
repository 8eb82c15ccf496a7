"""What the process runtime keeps on disk: one directory for each container, readable after any death.

``record.json``: what was asked for. ``process.json``: who runs it. ``exit``: the code that it ended with, written by
the container's own supervisor. ``health``: what the last checks came to. ``stdout``, ``stderr``: what it wrote.

Every file is replaced as a whole. A directory that cannot be read is renamed, reported and left for somebody to look
at; one whose removal was interrupted is removed on the next look.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from gary.runtime.base import Health, Labels, StartRequest
from gary.runtime.linux import Identity
from gary.spec import Service, Spec, SpecError, from_json, to_json

_log = logging.getLogger(__name__)

_FORMAT: Final = 1
_SET_ASIDE: Final = "set-aside-"
_REMOVED: Final = "removed-"
_UNFINISHED: Final = "unfinished-"


class CorruptRecordError(Exception):
    """A file of a container's directory does not hold what it should."""


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a container: its supervisor, and when that started (seconds since 1970)."""

    process: Identity
    started_at_s: float


@dataclass(frozen=True, slots=True)
class Record:
    """One container's directory. Values that change are read when they are asked for."""

    id: str
    path: Path
    name: str
    application: str
    labels: Labels
    service: Service

    @property
    def stdout(self) -> Path:
        return self.path / "stdout"

    @property
    def stderr(self) -> Path:
        return self.path / "stderr"

    @property
    def exit(self) -> Path:
        return self.path / "exit"

    @property
    def check_output(self) -> Path:
        return self.path / "check"

    def run(self) -> Run | None:
        """None: it has not run yet. Raises ``CorruptRecordError``."""
        try:
            body = _read(self.path / "process.json")
            process = Identity(int(body["pid"]), int(body["started_ticks"]), str(body["boot"]))
            return Run(process, float(body["started_at_s"]))
        except FileNotFoundError:
            return None
        except (KeyError, TypeError, ValueError, OSError) as error:
            raise CorruptRecordError(f"process.json: {error!r}") from error

    def started(self, run: Run) -> None:
        body = {
            "pid": run.process.pid,
            "started_ticks": run.process.started_ticks,
            "boot": run.process.boot,
            "started_at_s": run.started_at_s,
        }
        _replace(self.path / "process.json", json.dumps(body))

    def forget_run(self) -> None:
        """Make ready for the next run; what was written so far stays."""
        for name in ("process.json", "exit", "health"):
            self.path.joinpath(name).unlink(missing_ok=True)

    def exit_code(self) -> tuple[int, float] | None:
        """The code and the time of the end (seconds since 1970); None: nobody saw how it ended."""
        try:
            text = self.exit.read_text()
            ended_at_s = self.exit.stat().st_mtime
        except (OSError, ValueError):
            return None
        whole = text.endswith("\n") and text.strip().isdecimal()
        return (int(text), ended_at_s) if whole else None

    def health(self) -> Health:
        try:
            return Health(self.path.joinpath("health").read_text())
        except (OSError, ValueError):
            return Health.STARTING  # the next check will tell

    def found(self, health: Health) -> None:
        _replace(self.path / "health", health.value)


def ids(directory: Path) -> list[str]:
    """The ids of the containers under ``directory``, sorted; none if it is not there.

    Only looks, so it may be asked beside the agent whose directory it is. Raises ``OSError``.
    """
    return [name for name in _directories(directory) if not name.startswith((_REMOVED, _UNFINISHED, _SET_ASIDE))]


def _directories(directory: Path) -> list[str]:
    if not directory.exists():
        return []
    with os.scandir(directory) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))


class Records:
    """All containers under ``directory``, which is made when it is needed. Methods raise ``OSError``."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._known: dict[str, Record] = {}

    def refresh(self) -> Mapping[str, Record]:
        """Read what is new, forget what is gone, and give all by id, sorted by name."""
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        known: dict[str, Record] = {}
        for name in _directories(self._directory):
            if name.startswith((_REMOVED, _UNFINISHED)):
                # If it cannot be removed now, then on the next look.
                shutil.rmtree(self._directory / name, ignore_errors=True)
            elif not name.startswith(_SET_ASIDE):
                record = self._known.get(name) or self._load(name)
                if record is not None:
                    known[name] = record
        self._known = dict(sorted(known.items(), key=lambda item: item[1].name))
        return self._known

    def create(self, request: StartRequest) -> Record:
        """A new directory, complete before it can be seen. Raises ``SpecError`` for what could not be read again."""
        container_id = os.urandom(8).hex()
        spec = to_json(Spec(name=request.application, services=(request.service,)))
        from_json(spec)
        body = {
            "format": _FORMAT,
            "name": request.name,
            "application": request.application,
            "labels": {name: getattr(request.labels, name) for name in _LABELS},
            "spec": spec,
        }
        unfinished = self._directory / f"{_UNFINISHED}{container_id}"
        unfinished.mkdir(parents=True, mode=0o700)
        _replace(unfinished / "record.json", json.dumps(body))
        path = unfinished.rename(self._directory / container_id)
        record = Record(container_id, path, request.name, request.application, request.labels, request.service)
        self._known[container_id] = record
        return record

    def remove(self, record: Record) -> None:
        """Remove it; one that is gone is no error."""
        self._known.pop(record.id, None)
        gone = self._directory / f"{_REMOVED}{record.id}"
        try:
            record.path.rename(gone)
        except FileNotFoundError:
            return
        shutil.rmtree(gone)

    def set_aside(self, container_id: str, reason: str) -> None:
        """Take a directory that cannot be read out of the way, and say so."""
        self._known.pop(container_id, None)
        path = self._directory / container_id
        aside = self._directory / f"{_SET_ASIDE}{container_id}-{os.urandom(4).hex()}"
        path.rename(aside)
        _log.error("the record of a container cannot be read (%s); it was set aside as %s", reason, aside)

    def _load(self, container_id: str) -> Record | None:
        path = self._directory / container_id
        try:
            body = _read(path / "record.json")
            if body["format"] != _FORMAT:
                raise ValueError(f"format {body['format']!r} is not known")
            spec = from_json(body["spec"])
            (service,) = spec.services
            labels = Labels(**{name: _text(body["labels"][name]) for name in _LABELS})
            record = Record(container_id, path, _text(body["name"]), _text(body["application"]), labels, service)
            record.run()
        except (KeyError, TypeError, ValueError, OSError, RecursionError, SpecError, CorruptRecordError) as error:
            self.set_aside(container_id, repr(error))
            return None
        return record


_LABELS: Final = ("deployment", "slot", "generation", "fingerprint", "node")


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def _read(path: Path) -> dict[str, Any]:
    value = json.loads(path.read_bytes())
    if not isinstance(value, dict):
        raise TypeError("no object")
    return value


def _replace(path: Path, text: str) -> None:
    # Without fsync: after a power failure there is no process left that a record could be about.
    temporary = path.with_name(f".{path.name}")
    with open(temporary, "w", encoding="utf-8", opener=_private) as file:
        file.write(text)
    temporary.replace(path)


def _private(path: str, flags: int) -> int:
    """Opens a file that is made for the agent's user alone."""
    return os.open(path, flags, 0o600)
