"""The command `find`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from typing import Any

import click

from richstore.cli.failures import Absent
from richstore.cli.inside import children, readable
from richstore.cli.output import json_option, say, say_json
from richstore.cli.paths import Path, write_path
from richstore.cli.progress import Bar, progress
from richstore.cli.show import line
from richstore.cli.target import Target, on_group

__all__ = ["find"]


@click.command()
@click.argument("pattern", metavar="TEXT")
@click.option("-e", "--regex", is_flag=True, help="TEXT is a regular expression of Python.")
@click.option("-i", "--ignore-case", is_flag=True, help="Take A for a.")
@click.option("--keys", "keys_only", is_flag=True, help="Look at keys and names, not at values.")
@click.option(
    "-n", "--limit", type=click.IntRange(min=1), metavar="N", help="Stop after so many matches."
)
@on_group
@json_option
def find(
    pattern: str,
    regex: bool,
    ignore_case: bool,
    keys_only: bool,
    limit: int | None,
    target: Target,
    as_json: bool,
) -> None:
    """Find TEXT in the keys, names and simple values at any depth, and print the paths.

    It reads everything in the store or group, and in the groups inside, whose names stand before
    the path. The exit code is 1 when nothing matches.
    """
    try:
        searched = re.compile(
            pattern if regex else re.escape(pattern), re.IGNORECASE if ignore_case else 0
        )
    except re.error as error:
        raise click.UsageError(f"TEXT is no regular expression: {error}") from None
    found = []
    with target.walking() as top, progress("Searching") as bar:
        matches = (
            {"group": "/".join(group), "path": write_path(path), "value": line(value)}
            for group, place in _all_groups(top, target.group)
            for path, value in _matches(place, searched, keys_only, bar)
        )
        for match in islice(matches, limit):
            found.append(match)
            if not as_json:
                say("  ".join(filter(None, match.values())))
    if as_json:
        say_json(found)
    if not found:
        raise Absent(f"{pattern!r} is nowhere in {target.path}")


def _all_groups(place: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield a store or group and all groups inside it, with the names that lead there."""
    yield path, place
    for name in place.groups():
        yield from _all_groups(place.group(name), (*path, name))


def _matches(
    place: Any, searched: re.Pattern[str], keys_only: bool, bar: Bar
) -> Iterator[tuple[Path, Any]]:
    total = len(place)
    for count, (key, top) in enumerate(readable(place, place.keys())):
        bar(count, total, write_path((key,)))
        for path, value in _all_inside(key, top):
            is_leaf = not keys_only and next(children(value), None) is None
            if searched.search(str(path[-1])) or (is_leaf and searched.search(_leaf_text(value))):
                yield path, value


def _all_inside(key: Any, value: Any) -> Iterator[tuple[Path, Any]]:
    """Yield a value and what is in it at any depth; a large one is never held as a whole."""
    above: list[tuple[Path, Any, Iterator[tuple[Any, Any]]]] = [((), None, iter([(key, value)]))]
    while above:
        path, _, inside = above[-1]
        for name, found in inside:
            place = (*path, name)
            yield place, found
            # a circle is walked once
            if not any(found is one for _, one, _ in above[1:]):
                above.append((place, found, children(found)))
                break
        else:
            above.pop()


def _leaf_text(value: Any) -> str:
    return value if isinstance(value, str) else line(value, 1000)
