"""Look after a file that may be damaged: check all of it, or salvage what can be read of it.

Both read files whose structure is damaged, which may bring the process down: the command line runs
them in a process of their own.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from richstore.codec.policy import NONE, ClassPolicy
from richstore.codec.records import stored_key
from richstore.engines.lmdb import structure_problems
from richstore.errors import CorruptionError, RichStoreError
from richstore.groups import Group
from richstore.mapping import user_key
from richstore.nodes.salvage import salvage as salvage_value
from richstore.opening import Classes, open
from richstore.pages import RECLAIM
from richstore.passphrase import KeySource
from richstore.spaces import AFTER_VALUES, GROUPED, ROOT, paths_in, place_of, value_in
from richstore.store import Store
from richstore.verification import Report

__all__ = ["Salvaged", "check_file", "salvage_file"]

# How far it is: steps done, steps in all when these are known, and what is at hand.
Progress = Callable[[int, int | None, str], None]


@dataclass(frozen=True)
class Salvaged:
    """How many values were kept whole, kept in part, and lost."""

    whole: int
    parts: int
    lost: int


def check_file(
    path: Path,
    *,
    key: KeySource | None,
    classes: Classes | None = None,
    problem: Callable[[str], None],
    progress: Progress,
) -> Report:
    """Verify a store, its records too when its structure is damaged; nothing of it is run.

    Args:
        path: the file.
        key: as for `richstore.open`.
        classes: likewise.
        problem: told what is wrong with the structure, before the records are read.
        progress: told how far it is.

    Returns:
        What the walk through the records found.

    Raises:
        RichStoreError: the file is none that can be opened.
        OSError: as `richstore.open` raises it.
    """
    progress(0, None, "the structure of the file")
    for found in structure_problems(str(path)):
        problem(f"the structure of the file is damaged: {found}")
    with open(path, "r", key=key, classes=classes) as store:
        # entries of keys are not counted while they are checked, so this is at most the total
        total = _figure(store, "records")
        return store._verify_records(
            progress=lambda count, size: progress(count, total, f"{size:,} bytes"), keys=NONE
        )


def _figure(store: Store, name: str) -> int | None:
    """Return one of the figures on a store; None: what leads to them is damaged."""
    try:
        found: int = getattr(store.stats(), name)
    except CorruptionError:
        return None
    return found


def salvage_file(
    path: Path,
    target: Path,
    *,
    key: KeySource | None,
    classes: Classes | None = None,
    lost: Callable[[str], None],
    progress: Progress,
) -> Salvaged:
    """Store what can be read in a new store.

    Args:
        path: the damaged file.
        target: the new file, which has the same key.
        key: as for `richstore.open`.
        classes: likewise; of the new file all are allowed.
        lost: told what is lost, as it is found.
        progress: told how far it is.

    Raises:
        FileExistsError: the new file is there already.
        RichStoreError: the file is none that can be opened.
    """
    whole = parts = gone = 0
    with open(path, "r", key=key, classes=classes) as store, _new(target, key) as new:
        view = store._tracker.engine.read()
        total = _figure(store, "values")
        try:
            paths = paths_in(view)
            for name, stored in view.scan(ROOT, AFTER_VALUES):
                if value_in(view.get, name) is None and view.get(RECLAIM + name[:9]) is not None:
                    # the group was cleared
                    continue
                place = _place_in(new, paths, name)
                is_kept, losses = _salvage_value(view, store._tracker.classes, name, stored, place)
                for loss in losses:
                    lost(loss)
                whole += is_kept and not losses
                parts += is_kept and bool(losses)
                gone += not is_kept
                progress(whole + parts + gone, total, "values")
        except CorruptionError as error:
            lost(f"all values that come next, since they cannot be found: {error}")
            gone += 1
        finally:
            view.close()
    return Salvaged(whole, parts, gone)


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


def _new(target: Path, key: KeySource | None) -> Store:
    if target.exists():
        raise FileExistsError(
            errno.EEXIST, "the file exists; give the name of a new one", str(target)
        )
    return open(target, "c", key=key)
