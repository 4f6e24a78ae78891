"""The commands that look after a file: `check`, `backup`, `restore`, `salvage`."""

from __future__ import annotations

import errno
import signal
import subprocess
import sys
from pathlib import Path

from richstore.copying import restore as restore_file
from richstore.demo.progress import Progress
from richstore.engines.lmdb import structure_problems
from richstore.errors import RichStoreError
from richstore.nodes import plain
from richstore.store import Store, open

__all__ = ["backup", "check", "check_here", "restore", "salvage"]


def check(path: Path) -> int:
    """Verify a store in a process of its own, which a damaged file may bring down.

    Returns:
        0 when all is well, 1 otherwise.
    """
    command = [sys.executable, "-m", "richstore", "check", "--here", str(path)]
    status = subprocess.run(command, check=False).returncode
    if status < 0:
        name = signal.Signals(-status).name
        print(f"{path}: damaged: the database library could not walk through it ({name})")
        return 1
    return status


def check_here(path: Path) -> int:
    """Verify a store in this process, and print what was found as it is found.

    The records of a file whose structure is damaged are read, too: that may end this process.
    """
    try:
        problems = _check_structure(path)
        with open(path, "r") as store:
            # entries of keys are not counted while they are checked, so this is at most the total
            total = store.stats().records
            with Progress(total, "entries") as progress:
                report = store._verify_records(
                    progress=lambda count, size: progress.reach(count, f"{size:,} bytes")
                )
                progress.reach(total, "all")
    except (RichStoreError, OSError) as error:
        print(f"{path}: {error}")
        return 1
    for problem in report.problems:
        print(f"{path}: {problem}")
    problems += len(report.problems)
    state = f"{problems:,} problems" if problems else "no problems"
    print(
        f"{path}: {state}; {report.values:,} values in {report.records:,} records of"
        f" {report.bytes:,} bytes; {report.waiting:,} records of deleted values"
    )
    return 1 if problems else 0


def _check_structure(path: Path) -> int:
    """Check the pages of the database library; print and count what is wrong."""
    pages = max(1, path.stat().st_size >> 12)
    with Progress(pages, "pages") as progress:
        progress.reach(0, "the structure of the file")
        broken = structure_problems(str(path))
        progress.reach(pages, "the structure of the file")
    for problem in broken:
        print(f"{path}: the structure of the file is damaged: {problem}", flush=True)
    return len(broken)


def backup(path: Path, target: Path, *, compact: bool, replace: bool) -> int:
    """Copy a store, also while others write to it."""
    with open(path, "r") as store:
        report = store.backup(target, compact=compact, replace=replace)
    print(f"{target}: {report.values:,} values, {target.stat().st_size:,} bytes, verified")
    return 0


def restore(path: Path, target: Path, *, replace: bool) -> int:
    """Put a copy of a backup where a store is to be."""
    report = restore_file(path, target, replace=replace)
    print(f"{target}: {report.values:,} values, verified")
    return 0


def salvage(path: Path, target: Path) -> int:
    """Store every value that can be read in a new store, and say what cannot.

    Returns:
        0 when nothing was lost, 1 otherwise.
    """
    kept, lost = 0, 0
    with open(path, "r") as store, store.snapshot() as view, _new(target) as new:
        for key in view:
            try:
                new[key] = plain(view[key])
                kept += 1
            except Exception as error:  # noqa: BLE001 - whatever damage does to a value is its loss
                print(f"{path}: lost [{key!r}]: {error}")
                lost += 1
    print(f"{target}: {kept:,} values kept, {lost:,} lost")
    return 0 if not lost else 1


def _new(target: Path) -> Store:
    if target.exists():
        raise FileExistsError(
            errno.EEXIST, "the file exists; give the name of a new one", str(target)
        )
    return open(target, "c")
