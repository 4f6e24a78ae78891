"""The command `watch`: print what other processes change."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import click

import richstore
from richstore.cli.failures import Absent
from richstore.cli.inside import children, value_at
from richstore.cli.keys import path_argument
from richstore.cli.output import json_option, say, say_json_line
from richstore.cli.paths import Path, write_path
from richstore.cli.show import line, text
from richstore.cli.target import Target, on_group

__all__ = ["changes", "watch"]

# What stands for a value that is not there.
NOTHING: Any = object()


@click.command()
@path_argument(required=False)
@click.option(
    "--interval",
    type=click.FloatRange(min=0.01),
    default=0.5,
    show_default=True,
    metavar="SECONDS",
    help="The time between two looks.",
)
@click.option(
    "-n", "--limit", type=click.IntRange(min=1), metavar="N", help="End after so many changes."
)
@on_group
@json_option
def watch(
    path: Path | None, interval: float, limit: int | None, target: Target, as_json: bool
) -> None:
    """Print what others change, as they commit it, until Ctrl-C.

    It watches the value at PATH, or all of the store or group. What it watches is read at each
    commit and kept in memory, so name a PATH in a large store. Changes that follow each other
    between two looks are one change. With --json each change is an object on a line.
    """
    count = 0
    with target.open("r") as store:
        commit, before = _look(store, target, path)
        if not as_json:
            say(f"Watching {target.path}")
        while True:
            time.sleep(interval)
            store.refresh()
            if store.stats().commits == commit:
                continue
            commit, now = _look(store, target, path)
            for place, old, new in changes(before, now, path or ()):
                _tell(place, old, new, as_json)
                count += 1
                if count == limit:
                    return
            before = now


def _look(store: richstore.Store, target: Target, path: Path | None) -> tuple[int, Any]:
    """Return the number of commits, and a copy of what is watched, which is at least as new."""
    commit = store.stats().commits
    with store.snapshot() as view:
        place = target.group_of(view)
        if path is None:
            return commit, {key: richstore.plain(value) for key, value in place.items()}
        try:
            return commit, richstore.plain(value_at(place, path))
        except Absent:
            return commit, NOTHING


def changes(old: Any, new: Any, path: Path) -> Iterator[tuple[Path, Any, Any]]:
    """Yield what differs between two values: the path, and what was and is there."""
    if old is not NOTHING and new is not NOTHING and old.__class__ is new.__class__:
        inside, inside_new = dict(children(old)), dict(children(new))
        if inside or inside_new:
            for key in inside | inside_new:
                both = inside.get(key, NOTHING), inside_new.get(key, NOTHING)
                yield from changes(*both, (*path, key))
            return
    if not _is_same(old, new):
        yield path, old, new


def _is_same(old: Any, new: Any) -> bool:
    if old is NOTHING or new is NOTHING:
        return old is new
    # arrays compare by items, and some classes not at all
    return old.__class__ is new.__class__ and text(old) == text(new)


def _tell(path: Path, old: Any, new: Any, as_json: bool) -> None:
    moment = datetime.now().astimezone().isoformat(timespec="seconds")
    if as_json:
        row = {"time": moment, "path": write_path(path)}
        row |= {"old": old} if old is not NOTHING else {}
        say_json_line(row | ({"new": new} if new is not NOTHING else {}))
    elif new is NOTHING:
        say(f"{moment}  {write_path(path)}  deleted")
    elif old is NOTHING:
        say(f"{moment}  {write_path(path)} = {line(new)}")
    else:
        say(f"{moment}  {write_path(path)} = {line(new)}  (was {line(old)})")
