"""What `shelve` has written, with every kind of dbm."""

from __future__ import annotations

import dbm
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from richstore.errors import FormatError
from richstore.transfer.filling import Row
from richstore.transfer.sources.base import Opened, files_beside, is_sqlite, sqlite, tables

__all__ = ["files", "is_one", "rows", "stored_rows"]

# What the kinds of dbm call their files.
_SUFFIXES = ("", ".db", ".dat", ".dir", ".bak", ".pag")


def is_one(path: Path) -> bool:
    """Tell whether there is a file of dbm at a path, as it is given to `shelve.open`."""
    if is_sqlite(path):
        with sqlite(path) as database:
            return tables(database) == {"Dict": ["key", "value"]}
    return bool(dbm.whichdb(str(path)))


def files(path: Path) -> list[Path]:
    """Return the files that are read."""
    if is_sqlite(path):
        return files_beside(path)
    named = [path.with_name(path.name + suffix) for suffix in _SUFFIXES]
    return [one for one in named if one.is_file()]


def rows(opened: Opened) -> Iterator[Row]:
    """Yield the items."""
    for key, stored, place in stored_rows(opened):
        yield Row((), key, opened.value(stored, place), place)


def stored_rows(opened: Opened) -> Iterator[tuple[str, bytes, str]]:
    """Yield keys, what is stored under them, and where that is."""
    for name, stored in _pairs(opened.path):
        place = f"{opened.path}, [{name!r}]"
        try:
            key = name.decode()
        except UnicodeDecodeError:
            raise FormatError(f"{place}: the key is not UTF-8, as those of shelve are") from None
        place = f"{opened.path}, [{key!r}]"
        yield key, stored, place


def _pairs(path: Path) -> Iterator[tuple[bytes, bytes]]:
    if is_sqlite(path):
        # Python 3.13 makes these, and any Python can read them
        with sqlite(path) as database:
            yield from database.execute("SELECT key, value FROM Dict ORDER BY rowid")
        return
    errors: Any = dbm.error
    try:
        with closing(dbm.open(str(path), "r")) as found:
            # not all kinds of dbm can be iterated over
            names: Any = found.keys()
            for name in names:
                yield name, found[name]
    except (*errors, ImportError) as error:
        raise FormatError(f"{path}: no module of dbm here can read it ({error})") from error
