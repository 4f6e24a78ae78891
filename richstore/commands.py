"""The commands that look after a file: `check`, `backup`, `restore`, `salvage`."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from richstore.codec.policy import NONE, ClassPolicy
from richstore.codec.records import stored_key
from richstore.copying import restore as restore_file
from richstore.demo.progress import Progress
from richstore.engines.lmdb import structure_problems
from richstore.errors import CorruptionError, RichStoreError, WrongKeyError
from richstore.groups import Group
from richstore.mapping import user_key
from richstore.nodes.salvage import salvage as salvage_value
from richstore.opening import open
from richstore.pages import RECLAIM
from richstore.passphrase import Passphrase
from richstore.spaces import AFTER_VALUES, GROUPED, ROOT, paths_in, place_of, value_in
from richstore.store import Store

# Where the key of an encrypted store is: 64 hexadecimal digits, or a passphrase. It is not an
# argument, since other users of the machine see these.
_KEY = "RICHSTORE_KEY"
_PASSPHRASE = "RICHSTORE_PASSPHRASE"

__all__ = ["backup", "check", "check_here", "restore", "salvage", "salvage_here"]


def check(path: Path) -> int:
    """Verify a store in a process of its own, which a damaged file may bring down.

    Returns:
        0 when all is well, 1 otherwise.
    """
    status = _in_process("check", path)
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
        with open(path, "r", key=_key()) as store:
            # entries of keys are not counted while they are checked, so this is at most the total
            total = _entries(store)
            with Progress(total, "entries") as progress:
                report = store._verify_records(
                    progress=lambda count, size: progress.reach(count, f"{size:,} bytes"),
                    keys=NONE,
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


def _entries(store: Store) -> int:
    """Return how many entries there are, or a number that stands for it."""
    try:
        return max(1, store.stats().records)
    except CorruptionError:
        # the check of the structure has told it
        return 1


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
    with open(path, "r", key=_key()) as store:
        report = store.backup(target, compact=compact, replace=replace)
    print(f"{target}: {report.values:,} values, {target.stat().st_size:,} bytes, verified")
    return 0


def restore(path: Path, target: Path, *, replace: bool) -> int:
    """Put a copy of a backup where a store is to be."""
    report = restore_file(path, target, replace=replace, key=_key())
    print(f"{target}: {report.values:,} values, verified")
    return 0


def salvage(path: Path, target: Path) -> int:
    """Store what can be read in a new store, in a process of its own, and say what cannot.

    Returns:
        0 when nothing was lost, 1 otherwise.
    """
    status = _in_process("salvage", path, target)
    if status < 0:
        name = signal.Signals(-status).name
        print(
            f"{path}: the database library could not read on ({name}); {target} has the values "
            f"that come before in the order of keys"
        )
        return 1
    return status


def salvage_here(path: Path, target: Path) -> int:
    """Store what can be read in a new store, in this process, and say what cannot."""
    whole = parts = lost = 0
    with open(path, "r", key=_key()) as store, _new(target) as new:
        view = store._tracker.engine.read()
        try:
            paths = paths_in(view)
            for name, stored in view.scan(ROOT, AFTER_VALUES):
                if value_in(view.get, name) is None and view.get(RECLAIM + name[:9]) is not None:
                    # the group was cleared
                    continue
                place = _place_in(new, paths, name)
                is_kept, losses = _salvage_value(view, store._tracker.classes, name, stored, place)
                for loss in losses:
                    print(f"{path}: lost {loss}", flush=True)
                whole += is_kept and not losses
                parts += is_kept and bool(losses)
                lost += not is_kept
        except CorruptionError as error:
            print(f"{path}: lost all values that come next, since they cannot be found: {error}")
            lost += 1
        finally:
            view.close()
    print(f"{target}: {whole:,} values kept, {parts:,} kept in part, {lost:,} lost")
    return 1 if parts or lost else 0


def _place_in(
    new: Store, paths: dict[int, tuple[str, ...]], name: bytes
) -> Store | Group[Any, Any]:
    """Return where in a new store the value under an engine key belongs: it, or a group in it."""
    place: Store | Group[Any, Any] = new
    if name[:1] == GROUPED:
        number = int.from_bytes(name[1:9], "big")
        # if it is not there, what the group was called is lost
        for one in paths.get(number, ("salvaged", str(number))):
            place = place.group(one)
    return place


def _salvage_value(
    view: Any, classes: ClassPolicy, name: bytes, stored: bytes, new: Store | Group[Any, Any]
) -> tuple[bool, list[str]]:
    """Store what can be read of a value; return whether there was any, and what was lost.

    Of a file that somebody else may have written, what names classes is not read.
    """
    group = place_of(new.path) if isinstance(new, Group) else ""
    place = f"{group}[{name!r}]"
    try:
        key = user_key(classes, name, stored_key(stored))
        place = f"{group}[{key!r}]"
        made, losses = salvage_value(view, classes, name, stored, place)
    except Exception as error:  # noqa: BLE001 - whatever damage does to a value is its loss
        text = str(error).removeprefix(f"in the value at {place}: ")
        return False, [f"{place}: {text or type(error).__name__}"]
    try:
        new[key] = made
    except RichStoreError as error:
        return False, [f"{place}: {error}"]
    return True, losses


def _key() -> bytes | Passphrase | None:
    """Return the key that the environment gives.

    Raises:
        WrongKeyError: it is not hexadecimal.
    """
    if _KEY in os.environ:
        try:
            return bytes.fromhex(os.environ[_KEY])
        except ValueError:
            raise WrongKeyError(f"{_KEY} must have 64 hexadecimal digits") from None
    return Passphrase(os.environ[_PASSPHRASE]) if os.environ.get(_PASSPHRASE) else None


def _in_process(command: str, *arguments: Path) -> int:
    """Run a command in a process of its own; return its exit code, or minus a signal."""
    words = [sys.executable, "-m", "richstore", command, "--here", *map(str, arguments)]
    return subprocess.run(words, check=False).returncode


def _new(target: Path) -> Store:
    if target.exists():
        raise FileExistsError(
            errno.EEXIST, "the file exists; give the name of a new one", str(target)
        )
    return open(target, "c", key=_key())
