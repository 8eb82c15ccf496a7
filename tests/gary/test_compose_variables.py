"""Variables in Compose files and in files of variables, by Compose's rules."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gary.compose.dotenv import parse_dotenv, read_dotenv
from gary.compose.errors import Place, Problems
from gary.compose.interpolation import InterpolationError, interpolate

NOTHING: dict[str, str] = {}
SET = {"A": "a", "B": "b b", "EMPTY": "", "_x1": "under"}


def replaced(text: str) -> str:
    return interpolate(text, SET.get, lambda name: None)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("plain", "plain"),
        ("$A", "a"),
        ("${A}", "a"),
        ("x${A}y$B.", "xayb b."),
        ("$_x1-", "under-"),
        ("$$A $${A}", "$A ${A}"),
        ("$$$A", "$a"),
        ("${UNSET}", ""),
        ("${UNSET:-d}", "d"),
        ("${UNSET-d}", "d"),
        ("${EMPTY:-d}", "d"),
        ("${EMPTY-d}", ""),
        ("${A:-d}", "a"),
        ("${A:?no}", "a"),
        ("${EMPTY?no}", ""),
        ("${A:+alt}", "alt"),
        ("${EMPTY:+alt}", ""),
        ("${EMPTY+alt}", "alt"),
        ("${UNSET+alt}", ""),
        ("${UNSET:-${A}}", "a"),
        ("${UNSET:-${EMPTY:-${B}}}!", "b b!"),
        ("${A:-${REQUIRED:?not reached}}", "a"),
        ("${UNSET:-}", ""),
        ("${UNSET:-a:b-c?d}", "a:b-c?d"),
        ("${UNSET:-{}}", "{}"),
        ("${UNSET:-$$5}", "$5"),
    ],
)
def test_variables_are_replaced_as_compose_does(text: str, value: str) -> None:
    assert replaced(text) == value


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("$", "begins no variable"),
        ("cost: 5$ or", "begins no variable"),
        ("$1", "begins no variable"),
        ("${", "without its"),
        ("${A", "without its"),
        ("${}", "names no variable"),
        ("${1A}", "names no variable"),
        ("${A!}", "no form of variable"),
        ("${A:=x}", "no form of variable"),
        ("${UNSET:?must be given}", "needs the variable UNSET: must be given"),
        ("${EMPTY:?}", "needs the variable EMPTY, which is not set"),
        ("${UNSET?see $A}", "needs the variable UNSET: see a"),
        ("${X:-" * 40 + "}" * 40, "deep"),
    ],
)
def test_what_is_no_variable_or_missing_is_an_error(text: str, reason: str) -> None:
    with pytest.raises(InterpolationError) as raised:
        replaced(text)
    assert reason in raised.value.reason


def test_an_unset_variable_is_told() -> None:
    told: list[str] = []
    interpolate("$NOT ${THERE} ${BUT-d} $A", SET.get, told.append)
    assert told == ["NOT", "THERE"]


def test_replacing_cannot_grow_without_bounds() -> None:
    with pytest.raises(InterpolationError, match="longer"):
        interpolate("$A" * 20, {"A": "x" * 10_000}.get, lambda name: None)


@given(st.text(alphabet="${}:-?+AB_ 1", max_size=40))
def test_any_text_is_replaced_or_an_error(text: str) -> None:
    try:
        replaced(text)
    except InterpolationError as error:
        assert error.reason  # noqa: PT017


def variables(text: str) -> dict[str, str]:
    problems = Problems()
    found = parse_dotenv(text, ".env", {"HOME": "/root", "A": "outer"}.get, problems)
    assert problems.errors == []
    return found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", {}),
        ("\n# comment\n   \n", {}),
        ("X=1", {"X": "1"}),
        ("export X=1\r\nY = 2 \r\n", {"X": "1", "Y": "2"}),
        ("X: yaml", {"X": "yaml"}),
        ("X=", {"X": ""}),
        ("X=a b c", {"X": "a b c"}),
        ("X=a # comment", {"X": "a"}),
        ("X=a#b", {"X": "a#b"}),
        ("X= # comment", {"X": ""}),
        ("X='a # $A \\' b' # comment", {"X": "a # $A ' b"}),
        ('X="a # b"', {"X": "a # b"}),
        ('X="tab\\tline\\nquote\\" back\\\\slash"', {"X": 'tab\tline\nquote" back\\slash'}),
        ('X="two\nlines"\nY=1', {"X": "two\nlines", "Y": "1"}),
        ("X='two\nlines'\nY=1", {"X": "two\nlines", "Y": "1"}),
        ("X=$A-${HOME}", {"X": "outer-/root"}),
        ('X="${MISSING:-d}"', {"X": "d"}),
        ("X=1\nY=${X}2", {"X": "1", "Y": "12"}),
        ("A=inner\nY=$A", {"A": "inner", "Y": "outer"}),
        ("X='$A'", {"X": "$A"}),
        ("X=$$A", {"X": "$A"}),
        ("HOME", {"HOME": "/root"}),
        ("MISSING", {}),
        ("X=1\nX=2", {"X": "2"}),
        ("X=a=b", {"X": "a=b"}),
        ('X=say "hi"', {"X": 'say "hi"'}),
    ],
)
def test_a_file_of_variables_is_read_by_composes_rules(text: str, found: dict[str, str]) -> None:
    assert variables(text) == found


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("OK=1\nno variable", 2, "is not NAME=value"),
        ("1X=1", 1, "is not NAME=value"),
        ("\nX='never\nends", 2, "does not end"),
        ("X='a' b", 1, "something follows"),
        ("X='two\nlines'\nY=${", 3, 'without its "}"'),
    ],
)
def test_a_bad_line_is_told_with_its_number(text: str, line: int, reason: str) -> None:
    problems = Problems()
    parse_dotenv(text, ".env", NOTHING.get, problems)
    (error,) = problems.errors
    assert (error.file, error.line) == (".env", line)
    assert reason in error.reason


def test_good_lines_count_beside_bad_ones_and_all_bad_ones_are_told() -> None:
    problems = Problems()
    assert parse_dotenv("bad line\nX=1\nworse line\nY=2", ".env", NOTHING.get, problems) == {"X": "1", "Y": "2"}
    assert [error.line for error in problems.errors] == [1, 3]


def test_a_file_that_cannot_be_read_blames_who_asked(tmp_path: Path) -> None:
    for content, reason in ((None, "cannot be read"), (b"\xff", "not UTF-8"), (b"#" * (1 << 21), "larger")):
        path = tmp_path / "variables"
        if content is not None:
            path.write_bytes(content)
        problems = Problems()
        assert read_dotenv(path, NOTHING.get, problems, Place("app.yaml", 3, 4, "services.web.env_file")) == {}
        (error,) = problems.errors
        assert (error.file, error.line) == ("app.yaml", 3)
        assert reason in error.reason


@given(st.text(alphabet="AX='\"#$\\\n {}:", max_size=60))
def test_any_text_gives_variables_or_errors(text: str) -> None:
    problems = Problems()
    parse_dotenv(text, ".env", NOTHING.get, problems)
    assert all(1 <= error.line <= text.count("\n") + 1 for error in problems.errors)
