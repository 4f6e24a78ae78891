"""The commands that show what is in a store: `ls`, `get`, `tree`, `stats`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from itertools import chain, islice
from typing import Any

import click

from richstore.cli.inside import children, kind, readable, value_at
from richstore.cli.keys import path_argument
from richstore.cli.output import json_option, on_terminal, say, say_json, table
from richstore.cli.paths import Path, write_path
from richstore.cli.show import line, text
from richstore.cli.target import Target, on_group, on_store
from richstore.errors import RichStoreError

__all__ = ["get", "ls", "stats", "tree"]

_NAMES = ("path", "kind", "value")
# In a tree: the level, and these three; and what stands for items that are not shown.
_Row = tuple[int, str, str, str]
_MORE = "…"


@click.command()
@click.option("-l", "--long", is_flag=True, help="Say what each value is; a terminal does anyway.")
@click.option("--prefix", metavar="TEXT", help="Only keys that begin with this text.")
@click.option("--reverse", is_flag=True, help="From the last key to the first.")
@click.option(
    "-n", "--limit", type=click.IntRange(min=0), metavar="N", help="No more than so many keys."
)
@on_group
@json_option
def ls(
    long: bool, prefix: str | None, reverse: bool, limit: int | None, target: Target, as_json: bool
) -> None:
    """List the keys of a store or group, in order.

    Keys are written as other commands take them. Groups come first, with a / behind their names.
    With --json there is an object for each: its path, what it is, and its value on a line.
    """
    with target.walking() as place:
        keys = islice(place.keys(prefix=prefix, reverse=reverse), limit)
        groups = [name for name in place.groups() if name.startswith(prefix or "")]
        if not (long or as_json or on_terminal()):
            for name in groups:
                say(f"{name}/")
            for key in keys:
                say(write_path((key,)))
            return
        rows = chain(
            ((f"{name}/", "group", "") for name in groups),
            ((write_path((key,)), *_told(value)) for key, value in readable(place, keys)),
        )
        if as_json:
            say_json([dict(zip(_NAMES, row, strict=True)) for row in rows])
        else:
            table(("key", *_NAMES[1:]), rows)


def _told(value: Any) -> tuple[str, str]:
    """Return what a value is, and its beginning; a damaged part of it may be met only here."""
    try:
        return kind(value), line(value)
    except RichStoreError as error:
        return kind(value), str(error)


@click.command()
@path_argument()
@click.option("--reveal", is_flag=True, help="Show what a sealed value hides.")
@on_group
@json_option
def get(path: Path, reveal: bool, target: Target, as_json: bool) -> None:
    """Print the value at PATH: config.theme.dark, users[3].name, '["a b"].x'.

    A text is printed as it is, everything else as Python writes it. The exit code is 1 when there
    is none.
    """
    with target.reading(reveal=reveal) as view:
        value = value_at(view, path)
        if as_json:
            say_json(value)
        else:
            say(value if isinstance(value, str) else text(value))


@click.command()
@path_argument(required=False)
@click.option(
    "--depth",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    metavar="N",
    help="How deep it goes.",
)
@click.option(
    "--items",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    metavar="N",
    help="How many items of each container are shown.",
)
@on_group
@json_option
def tree(path: Path | None, depth: int, items: int, target: Target, as_json: bool) -> None:
    """Show what is inside the value at PATH as a tree; without PATH, inside all values.

    With --json there is an object for each place, in order: its path, what it is, and its value on
    a line.
    """
    with target.walking() as place:
        rows = _branches(place, path, depth, items)
        if as_json:
            say_json([dict(zip(_NAMES, row, strict=True)) for _, *row in rows if row[0] != _MORE])
        else:
            for level, *row in rows:
                say("    " * level + "  ".join(filter(None, row)))


def _branches(place: Any, path: Path | None, depth: int, items: int) -> Iterator[_Row]:
    if path is not None:
        yield from _branch(path, value_at(place, path), 0, depth, items)
        return
    for name in place.groups():
        yield 0, f"{name}/", "group", ""
    for key, value in readable(place, place.keys()):
        yield from _branch((key,), value, 0, depth, items)


def _branch(path: Path, value: Any, level: int, depth: int, items: int) -> Iterator[_Row]:
    """Yield the rows of a value and of what is inside."""
    inside = list(islice(children(value), items + 1)) if depth > 1 else []
    yield level, write_path(path), kind(value), "" if inside else line(value)
    for key, child in inside[:items]:
        yield from _branch((*path, key), child, level + 1, depth - 1, items)
    if len(inside) > items:
        yield level + 1, _MORE, "", ""


@click.command()
@on_store
@json_option
def stats(target: Target, as_json: bool) -> None:
    """Show figures on a store: values, bytes, free pages, readers and more."""
    with target.open("r") as store:
        figures = dataclasses.asdict(store.stats())
        found = {"path": store.path, "file_bytes": target.path.stat().st_size, **figures}
    if as_json:
        say_json(found)
        return
    # the process has just begun: its cache tells nothing
    shown = {name: value for name, value in found.items() if not name.startswith("cache")}
    table(("figure", "value"), [(name, _figure(value)) for name, value in shown.items()])


def _figure(value: Any) -> str:
    if value is None:
        return "unknown"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
