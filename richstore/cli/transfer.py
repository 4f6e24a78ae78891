"""The commands `export`, `import` and `convert`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import click

from richstore.cli.failures import Failure
from richstore.cli.output import say
from richstore.cli.progress import Bar, progress
from richstore.cli.target import Target, on_group
from richstore.transfer.converting import KINDS, convert
from richstore.transfer.exporting import export
from richstore.transfer.files import FORMATS
from richstore.transfer.importing import load

__all__ = ["convert_command", "export_command", "import_command"]

F = TypeVar("F", bound=Callable[..., Any])

# The key of what is converted; it is not an argument, since other users of the machine see these.
SOURCE_KEY = "RICHSTORE_SOURCE_KEY"


_FORMAT: Callable[[F], F] = click.option(
    "--format",
    type=click.Choice(FORMATS),
    metavar="NAME",
    help="jsonl or json; else what the name of the file says, or jsonl.",
)
_EMPTY: Callable[[F], F] = click.option(
    "--replace", is_flag=True, help="Remove what is there, groups too, before."
)
_ATOMIC: Callable[[F], F] = click.option(
    "--atomic", is_flag=True, help="All or nothing, in one transaction, which takes more memory."
)


@click.command("export")
@click.argument("file", default="-")
@on_group
@_FORMAT
@click.option("--lossy", is_flag=True, help="For json: lists for tuples, and the like.")
@click.option("--replace", is_flag=True, help="Replace a file that is there already.")
def export_command(
    file: str, target: Target, format: str | None, lossy: bool, replace: bool
) -> None:
    """Write the store, or a group, as text to FILE, or to standard output.

    JSON Lines (jsonl) keeps all types and groups; what it cannot keep is an error. Plain json is
    one object, and what it would not give back equal is an error. What is encrypted in the store is
    not encrypted in the file.
    """
    place: Any = sys.stdout.buffer if file == "-" else file
    with progress("Exporting") as bar, target.reading() as view:
        count = export(
            view, place, format=format, lossy=lossy, replace=replace, progress=_teller(bar)
        )
    if file != "-":
        say(f"{file}: {count:,} items")


@click.command("import")
@click.argument("file", default="-")
@on_group
@_FORMAT
@_EMPTY
@_ATOMIC
def import_command(
    file: str, target: Target, format: str | None, replace: bool, atomic: bool
) -> None:
    """Put what export has written to FILE, or standard input, into the store, or into a group.

    Items of the file are put beside what is there, or in its place where keys are equal. The file
    is read to its end before anything is changed. More than 10,000 items are several transactions,
    and running it again does what was interrupted.
    """
    source: Any = sys.stdin.buffer if file == "-" else file
    if file != "-":
        # a name that is misspelt makes no store
        os.stat(file)
    with progress("Importing") as bar, _filling(target) as place:
        count = load(
            source,
            place,
            format=format,
            classes=target.classes,
            replace=replace,
            atomic=atomic,
            progress=_teller(bar),
        )
    say(f"{target.path}: {count:,} items")


@click.command("convert")
@click.argument("source")
@on_group
@click.option(
    "--from",
    "kind",
    type=click.Choice(sorted(KINDS)),
    metavar="KIND",
    help=f"What has written it, if that is not plain: {', '.join(sorted(KINDS))}.",
)
@_EMPTY
@_ATOMIC
def convert_command(
    source: str, target: Target, kind: str | None, replace: bool, atomic: bool
) -> None:
    """Put what another package has stored in SOURCE into the store, or into a group.

    It reads files of shelve, sqlitedict, diskcache, ZODB (FileStorage), saved_instance and
    atomic_store, and JSON; the package need not be installed. Most of these are pickles, and who
    can write a pickle can run any program as the user who reads it: give --classes for a file that
    somebody else has made. The environment variable RICHSTORE_SOURCE_KEY has the key of a secure
    storage of saved_instance.
    """
    with progress("Converting") as bar, _filling(target) as place:
        try:
            done = convert(
                source,
                place,
                kind=kind,
                classes=target.classes,
                key=os.environ.get(SOURCE_KEY),
                replace=replace,
                atomic=atomic,
                progress=_teller(bar),
            )
        except ModuleNotFoundError as error:
            raise Failure(str(error)) from error
    for note in done.notes:
        say(f"{source}: {note}")
    say(f"{target.path}: {done.stored:,} items from {done.kind}")


@contextmanager
def _filling(target: Target) -> Iterator[Any]:
    """Give the store, or the group, to be filled in several transactions."""
    with target.open("c") as store:
        place: Any = store
        for name in target.group:
            place = place.group(name)
        yield place


def _teller(bar: Bar) -> Callable[[int], None]:
    def tell(count: int) -> None:
        if count % 100 == 0:
            bar(count, None, f"{count:,} items")

    return tell
