"""Paths and values as they are written on the command line."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from richstore.cli.literals import LiteralError, read_literal, write_key
from richstore.cli.paths import PathError, read_path, write_path

ATOMS = (
    st.text()
    | st.text("ab.[]()'\"\\ -\n", max_size=6)
    | st.integers()
    | st.floats(allow_nan=False)
    | st.booleans()
    | st.none()
    | st.binary(max_size=8)
    | st.dates()
    | st.datetimes().map(lambda moment: moment.replace(fold=0))
    | st.uuids()
)
KEYS = st.recursive(
    ATOMS | st.decimals(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3).map(tuple) | st.frozensets(inner, max_size=1),
    max_leaves=4,
)


@given(st.lists(KEYS, min_size=1, max_size=5).map(tuple))
def test_a_path_that_is_written_is_read_back(path: tuple[Any, ...]) -> None:
    """What `write_path` gives is read as the same path, with keys of the same types."""
    again = read_path(write_path(path))
    assert again == path
    assert repr(again) == repr(path)


@given(st.text() | st.text("ab.[]()'\"\\, 1-", max_size=12))
def test_any_text_is_a_path_or_refused(text: str) -> None:
    """Any text is read as a path, which can be written again, or refused with `PathError`."""
    try:
        path = read_path(text)
    except PathError:
        return
    assert repr(read_path(write_path(path))) == repr(path)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("config.theme.dark", ("config", "theme", "dark")),
        ("users[3].name", ("users", 3, "name")),
        ('["a b"].x', ("a b", "x")),
        ("['a b'].x", ("a b", "x")),
        ("[7]", (7,)),
        ("7", ("7",)),
        ("log[-1]", ("log", -1)),
        ('["alice", 7].tags[0]', (("alice", 7), "tags", 0)),
        ('[("alice",)]', (("alice",),)),
        ("user:7/x", ("user:7/x",)),
        ("größe.ü", ("größe", "ü")),
        ('[date("2026-01-02")]', (date(2026, 1, 2),)),
        ('a["]"]["\\""]', ("a", "]", '"')),
        ("[None][True][()]", (None, True, ())),
    ],
)
def test_what_people_write(text: str, path: tuple[Any, ...]) -> None:
    """Words, positions, quoted names, numbers and tuples are read as they look."""
    assert read_path(text) == path


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "begins with a key"),
        (".a", "a name cannot have '.' in it"),
        ("a.", "missing at the end"),
        ("a..b", "a name cannot have '.'"),
        ("a b", "'.' or '['"),
        ("a[b]", "quotes"),
        ("a[", "']' is missing"),
        ('a["b]', 'a closing " is missing'),
        ("a[1]b", "'.' or '['"),
        ("a[[1]]", "a list is no key"),
        ("a[open('x')]", "no key"),
        ("[...]", "no key"),
    ],
)
def test_what_is_no_path(text: str, said: str) -> None:
    """What is no path is refused, and the message says what is wrong with it."""
    with pytest.raises(PathError) as caught:
        read_path(text)
    assert said in str(caught.value)


def test_names_that_look_like_something_else_are_quoted() -> None:
    """A key that could be taken for an option, or is empty, is written in quotes."""
    assert write_path(("-x",)) == '["-x"]'
    assert write_path(("a", "", "it's")) == 'a[""]["it\'s"]'
    assert write_path(("alice", ("a", 7))) == 'alice["a", 7]'


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("(1, 'a')", (1, "a")),
        ("{1: [2, {3}]}", {1: [2, {3}]}),
        ("set()", set()),
        ("frozenset({1})", frozenset({1})),
        ("-1.5", -1.5),
        (r"'\d'", r"\d"),
        ("1+2j", 1 + 2j),
        ("-inf", -math.inf),
        ('datetime("2026-01-02T03:04:05+00:00")', datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
        (f'UUID("{UUID(int=1)}")', UUID(int=1)),
    ],
)
def test_literals(text: str, value: Any) -> None:
    """Python literals are read, and so are the standard types that keys may be of."""
    assert read_literal(text) == value
    assert type(read_literal(text)) is type(value)


@pytest.mark.parametrize(
    "text",
    ["", "x", "1 +", "[*a]", "{**{}}", "f'{x}'", "print(1)", "date(1)", "(lambda: 1)()", "{[]: 1}"]
    + ["date('x')", "UUID('x')", "Decimal('x')", "__import__('os')", "...", "a.b", "-'a'"]
    + ["[" * 100_000, "(" * 150 + ")" * 150 + "x", "9" * 5000, "\0", "1if 1else 2"],
)
def test_no_literals(text: str) -> None:
    """Everything else is refused, however it is made, and nothing of it is run."""
    with pytest.raises(LiteralError):
        read_literal(text)


@given(KEYS)
def test_a_key_that_is_written_is_read_back(key: Any) -> None:
    """What `write_key` gives is read as the same key."""
    assert repr(read_literal(write_key(key))) == repr(key)
