"""Files of other packages as stores: `convert`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from richstore.errors import FormatError
from richstore.opening import Classes
from richstore.transfer.filling import Row, count_all, fill
from richstore.transfer.sources import diskcache, saved_instance, shelves, sqlitedict, values, zodb
from richstore.transfer.sources.base import Opened

__all__ = ["KINDS", "Converted", "convert"]

# By name, in the order in which they are tried: the readers of files.
KINDS: dict[str, Any] = {
    "diskcache": diskcache,
    "zodb": zodb,
    "saved_instance": saved_instance,
    "sqlitedict": sqlitedict,
    "atomic_store": values,
    "json": values,
    "shelve": shelves,
}


class Converted(NamedTuple):
    """What `convert` has done.

    Attributes:
        kind: of the files that were read.
        stored: how many items are in the store now.
        notes: what did not come along, and how often.
    """

    kind: str
    stored: int
    notes: list[str]


def convert(
    source: str | os.PathLike[str],
    target: Any,
    *,
    kind: str | None = None,
    classes: Classes | None = None,
    decode: Callable[[Any], Any] | None = None,
    key: str | None = None,
    replace: bool = False,
    atomic: bool = False,
    progress: Callable[[int], object] | None = None,
) -> Converted:
    """Put what another package has stored into a store, or into a group of one.

    The package need not be installed, the files are not changed, and nothing may write to them
    meanwhile. Most of them hold pickles, and who can write a pickle can run any program as the
    user who reads it: so `classes` decides, as it does in `open`, what they may name.

    Args:
        source: the file, or directory, as it was given to the package.
        target: the store, or the group.
        kind: `"shelve"`, `"sqlitedict"`, `"diskcache"`, `"zodb"` (a FileStorage),
            `"saved_instance"`, `"atomic_store"`, `"json"`; None: what it looks like.
        classes: as in `richstore.open`: by default `"any"` if nobody but you may write the files,
            else `"none"`.
        decode: for shelve and sqlitedict: makes a value of what is stored where that is no pickle.
        key: for `"saved_instance"`: the key of a secure storage.
        replace: whether what is there is removed before, groups too; else the items are put beside
            it, or in its place where keys are equal.
        atomic: whether all is one transaction, which needs about 4 KB of memory for each item;
            else up to 10,000 items are one, after all have been read once.
        progress: called with the number of items that are stored.

    Returns:
        What was done.

    Raises:
        FormatError: the files are not of the kind, or damaged, or name what cannot be imported.
        UntrustedClassError: they name a class that is not allowed.

    Example:
        >>> import os, shelve, tempfile, richstore, richstore.transfer
        >>> with tempfile.TemporaryDirectory() as place:
        ...     old = os.path.join(place, "old")
        ...     with shelve.open(old) as file:
        ...         file["shops"] = ["shop1"]
        ...     with richstore.open("memory:") as store:
        ...         richstore.transfer.convert(old, store)
        ...         store.copy()
        Converted(kind='shelve', stored=1, notes=[])
        {'shops': ['shop1']}
    """
    path = Path(source)
    kind = kind or _kind_of(path)
    if kind not in KINDS:
        raise ValueError(f"kind is {kind!r}, and must be one of {', '.join(sorted(KINDS))}")
    files = KINDS[kind].files(path)
    if not files or not all(file.is_file() for file in files):
        raise FileNotFoundError(f"there is nothing of {kind} at {path}")
    opened = Opened(path, files, classes, decode, key)
    count = None
    if not atomic:
        count = count_all(target, _rows(kind, opened))
        opened.notes.clear()
    stored = fill(
        target,
        _rows(kind, opened),
        replace=replace,
        count=count,
        tell=progress or (lambda count: None),
    )
    return Converted(kind, stored, [f"{text}: {times:,}" for text, times in opened.notes.items()])


def _rows(kind: str, opened: Opened) -> Iterator[Row]:
    if kind == "json":
        return values.rows(opened, "json")
    found: Iterator[Row] = KINDS[kind].rows(opened)
    return found


def _kind_of(path: Path) -> str:
    for kind, reader in KINDS.items():
        if reader.is_one(path):
            return kind
    if not path.exists():
        raise FileNotFoundError(f"there is nothing at {path}, and no dbm of that name")
    raise FormatError(f"{path} is nothing that is known; say with kind=… what has written it")
