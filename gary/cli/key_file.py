"""The key of whoever uses this command: where it lies, and how it comes to be."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from gary.errors import GaryError

if TYPE_CHECKING:
    from gary.trust.keys import KeyPair

VARIABLE = "GARY_OPERATOR_KEY"
FILE_NAME = "operator.key"


class UnusableKey(GaryError):
    """There is no operator's key to be had from that file; the sentence says why, and what to do."""


def default_key_file(environment: Mapping[str, str]) -> Path:
    """``$GARY_OPERATOR_KEY``, or ``gary/operator.key`` in the user's XDG configuration directory."""
    if given := environment.get(VARIABLE):
        return Path(given).expanduser()
    base = environment.get("XDG_CONFIG_HOME") or f"{environment.get('HOME', '~')}/.config"
    return Path(base).expanduser() / "gary" / FILE_NAME


def load_key(file: Path) -> KeyPair:
    """The key pair in ``file``, made when there is none. Raises ``UnusableKey``."""
    from gary.trust.keys import SEED_SIZE_BYTES, KeyPair

    try:
        if not file.exists():
            _make(file, SEED_SIZE_BYTES)
        mode = stat.S_IMODE(file.stat().st_mode)
        text = file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UnusableKey(f"the operator's key {file} cannot be used: {error}") from error
    if mode & 0o077:
        raise UnusableKey(f"others can read the operator's key {file} (mode {mode:04o}): chmod 600 {file}")
    try:
        seed = bytes.fromhex(text)
    except ValueError:
        seed = b""
    if len(seed) != SEED_SIZE_BYTES:
        raise UnusableKey(f"{file} holds no operator's key; move it away, and the next command makes one")
    return KeyPair(seed)


def _make(file: Path, size_bytes: int) -> None:
    """A new key, whole or not at all. Of several commands that make one at once, the first one's stays."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = file.with_name(f"{file.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as content:
            content.write(secrets.token_hex(size_bytes) + "\n")
            content.flush()
            os.fsync(content.fileno())
        try:
            os.link(draft, file)
        except FileExistsError:
            return
    finally:
        draft.unlink()
