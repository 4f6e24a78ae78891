"""The commands that change what is in a store: `set`, `append`, `del`."""

from __future__ import annotations

from collections import deque
from typing import Any

import click

from richstore.cli.failures import Absent, Failure
from richstore.cli.inside import kind, put, remove, value_at
from richstore.cli.keys import path_argument
from richstore.cli.output import say
from richstore.cli.paths import Path, write_path
from richstore.cli.show import line
from richstore.cli.target import Target, on_group
from richstore.cli.values import given_value, value_options

__all__ = ["append", "delete", "set_value"]

# a value such as -5 is no option
NEGATIVE = {"ignore_unknown_options": True}

_TIMEOUT = click.option(
    "--timeout",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="How long to wait for another writer; else until it has ended.",
)


def _flag(path: Path) -> str:
    """Return how to open the store: what leads into a value is in no store that is new."""
    return "c" if len(path) == 1 else "w"


@click.command("set", context_settings=NEGATIVE)
@path_argument()
@value_options
@on_group
@_TIMEOUT
def set_value(
    path: Path, value: str, as_str: bool, as_json: bool, target: Target, timeout: float | None
) -> None:
    """Set the value at PATH to VALUE, and print what was set.

    VALUE is JSON, else a Python literal, else a text as it is: 1, true, '{"a": [1]}', "(1, 2)",
    'date("2026-01-31")', hello. A - takes it from standard input. The store is made if it is
    missing.
    """
    given = given_value(value, as_str, as_json)
    with target.changing(_flag(path), timeout) as place:
        put(place, path, given)
    say(f"{write_path(path)} = {line(given)}")


@click.command(context_settings=NEGATIVE)
@path_argument()
@value_options
@on_group
@_TIMEOUT
def append(
    path: Path, value: str, as_str: bool, as_json: bool, target: Target, timeout: float | None
) -> None:
    """Append VALUE to the list at PATH, or add it to the set there.

    VALUE is read as by set. A list is made where there is nothing at PATH.
    """
    given = given_value(value, as_str, as_json)
    with target.changing(_flag(path), timeout) as place:
        try:
            found: Any = value_at(place, path)
        except Absent:
            put(place, path, [])
            found = value_at(place, path)
        if isinstance(found, (list, deque)):
            found.append(given)
            said = f"{write_path((*path, len(found) - 1))} = {line(given)}"
        elif isinstance(found, set):
            try:
                found.add(given)
            except TypeError as error:
                raise Failure(f"{line(given)} cannot be in a set: {error}") from None
            said = f"{write_path(path)} has {line(given)}"
        else:
            raise Failure(f"{write_path(path)} is a {kind(found)}; append works on lists and sets")
    say(said)


@click.command("del")
@path_argument("paths", nargs=-1, required=True, metavar="PATH...")
@on_group
@_TIMEOUT
def delete(paths: tuple[Path, ...], target: Target, timeout: float | None) -> None:
    """Remove what is at each PATH: all of them or, when one is not there, none."""
    with target.changing("w", timeout) as place:
        for path in paths:
            remove(place, path)
