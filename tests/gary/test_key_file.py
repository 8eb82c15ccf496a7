"""The file with the operator's key: made once, for its owner's eyes only."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gary.cli.app import app
from gary.cli.key_file import VARIABLE, UnusableKey, default_key_file, load_key


def test_it_lies_where_the_environment_says() -> None:
    assert default_key_file({VARIABLE: "/keys/mine"}) == Path("/keys/mine")
    assert default_key_file({"XDG_CONFIG_HOME": "/x", "HOME": "/h"}) == Path("/x/gary/operator.key")
    assert default_key_file({"HOME": "/h"}) == Path("/h/.config/gary/operator.key")


def test_a_key_is_made_when_there_is_none_and_stays(tmp_path: Path) -> None:
    file = tmp_path / "new" / "gary" / "operator.key"
    made = load_key(file)
    assert load_key(file).public == made.public
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700
    assert list(file.parent.iterdir()) == [file]


def test_many_commands_at_once_make_one_key(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as pool:
        keys = {key.public for key in pool.map(load_key, [tmp_path / "gary" / "operator.key"] * 50)}
    assert len(keys) == 1


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o666])
def test_a_key_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "operator.key"
    load_key(file)
    file.chmod(mode)
    with pytest.raises(UnusableKey, match="chmod 600"):
        load_key(file)


@pytest.mark.parametrize("content", [b"", b"00", b"g" * 64, b"\xff\xfe", b"0" * 66])
def test_anything_else_in_the_file_is_refused_and_left_there(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "operator.key"
    file.write_bytes(content)
    file.chmod(0o600)
    with pytest.raises(UnusableKey):
        load_key(file)
    assert file.read_bytes() == content


def test_a_place_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UnusableKey, match=r"file/operator\.key"):
        load_key(tmp_path / "file" / "operator.key")


def test_only_the_public_half_is_printed(tmp_path: Path) -> None:
    environment = {**os.environ, VARIABLE: str(tmp_path / "operator.key")}
    printed = CliRunner().invoke(app, ["key"], env=environment)
    as_json = CliRunner().invoke(app, ["key", "--json"], env=environment)
    public = load_key(tmp_path / "operator.key").public.hex()
    assert (printed.exit_code, printed.output) == (0, f"{public}\n")
    assert json.loads(as_json.stdout) == {"key": public}
    secret = (tmp_path / "operator.key").read_text().strip()
    assert secret not in printed.output + as_json.output
