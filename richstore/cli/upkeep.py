"""The commands that look after a file: `check`, `backup`, `restore`, `salvage`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import click

import richstore
from richstore.cli.output import say
from richstore.cli.progress import progress
from richstore.cli.target import Target, on_classes, on_files, on_store
from richstore.errors import CorruptionError, FormatError
from richstore.salvaging import check_file, salvage_file

__all__ = ["backup", "check", "check_here", "restore", "salvage", "salvage_here"]

_HERE = click.option(
    "--here", "is_here", is_flag=True, hidden=True, help="Do it in this process, which may end it."
)
_REPLACE = click.option("--replace", is_flag=True, help="Replace a file that is there already.")


@click.command()
@on_files("FILE")
@on_classes
@_HERE
@click.pass_context
def check(ctx: click.Context, target: Target, is_here: bool) -> None:
    """Walk every record and say what does not fit together.

    It prints a line for each problem; the exit code is 0 when there is none, and 1 otherwise. The
    walk runs in a process of its own, which a damaged file may bring down. Others may go on writing
    meanwhile.
    """
    if is_here:
        ctx.exit(check_here(target))
    status = _in_process("check", target)
    if status < 0:
        name = signal.Signals(-status).name
        say(f"{target.path}: damaged: the database library could not walk through it ({name})")
        ctx.exit(1)
    ctx.exit(status)


def check_here(target: Target) -> int:
    """Verify a store in this process, and print what was found as it is found.

    The records of a file whose structure is damaged are read, too: that may end this process.
    """
    found = []

    def tell(problem: str) -> None:
        found.append(problem)
        say(f"{target.path}: {problem}")

    with progress("Checking") as bar:
        try:
            report = check_file(
                target.path,
                key=target.key(),
                classes=target.classes,
                problem=tell,
                progress=bar,
            )
        except (CorruptionError, FormatError) as error:
            tell(str(error))
            return 1
    for problem in report.problems:
        tell(problem)
    state = f"{len(found):,} problems" if found else "no problems"
    say(
        f"{target.path}: {state}; {report.values:,} values in {report.records:,} records of"
        f" {report.bytes:,} bytes; {report.waiting:,} records of deleted values"
    )
    return 1 if found else 0


@click.command()
@on_files("FILE", "COPY")
@on_classes
@click.option("--compact", is_flag=True, help="Leave out what deleted values have left behind.")
@_REPLACE
def backup(copy: Path, target: Target, compact: bool, replace: bool) -> None:
    """Copy a store to the file COPY, and verify the copy.

    Others may go on writing meanwhile. The copy gets its name when it is complete.
    """
    with progress("Copying"), target.open("r") as store:
        report = store.backup(copy, compact=compact, replace=replace)
    say(f"{copy}: {report.values:,} values, {copy.stat().st_size:,} bytes, verified")


@click.command()
@on_files("COPY", "FILE")
@on_store
@_REPLACE
def restore(copy: Path, target: Target, replace: bool) -> None:
    """Verify the backup COPY and put a copy of it where the store is to be.

    No process may have the store open.
    """
    target.place.prepare("c")
    with progress("Restoring"):
        report = richstore.restore(copy, target.path, replace=replace, key=target.key())
    say(f"{target.path}: {report.values:,} values, verified")


@click.command()
@on_files("FILE", "NEW")
@on_classes
@_HERE
@click.pass_context
def salvage(ctx: click.Context, new: Path, target: Target, is_here: bool) -> None:
    """Store what can be read of a damaged store in the new file NEW.

    It prints a line for each loss; the exit code is 0 when there is none, and 1 otherwise.
    """
    if is_here:
        ctx.exit(salvage_here(target, new))
    status = _in_process("salvage", target, str(new))
    if status < 0:
        name = signal.Signals(-status).name
        say(
            f"{target.path}: the database library could not read on ({name}); {new} has the values "
            f"that come before in the order of keys"
        )
        ctx.exit(1)
    ctx.exit(status)


def salvage_here(target: Target, new: Path) -> int:
    """Store what can be read in a new store, in this process, and say what cannot."""

    def tell(loss: str) -> None:
        say(f"{target.path}: lost {loss}")

    with progress("Salvaging") as bar:
        kept = salvage_file(
            target.path,
            new,
            key=target.key(),
            classes=target.classes,
            lost=tell,
            progress=bar,
        )
    say(f"{new}: {kept.whole:,} values kept, {kept.parts:,} kept in part, {kept.lost:,} lost")
    return 1 if kept.parts or kept.lost else 0


def _in_process(command: str, target: Target, *arguments: str) -> int:
    """Run a command in a process of its own; return its exit code, or minus a signal."""
    # it imports from the working directory if this process does
    flags = [] if os.getcwd() in map(os.path.abspath, sys.path) else ["-P"]
    words = [sys.executable, *flags, "-m", "richstore", command, "--here"]
    words += [*target.words, "--", *arguments]
    status = subprocess.run(words, check=False).returncode
    if status < 0 and sys.stderr.isatty():
        # which a progress bar had hidden
        click.echo("\x1b[?25h", nl=False, err=True)
    return status
