"""What `sqlitedict` has written: a table of keys and pickles for each dict."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from richstore.transfer.filling import Row
from richstore.transfer.sources.base import (
    Opened,
    files_beside,
    is_sqlite,
    quoted,
    sqlite,
    tables,
)

__all__ = ["files", "is_one", "rows"]

# The table of a dict for which no name was given.
_UNNAMED = "unnamed"
# What the tables of other packages are called, which look alike.
_OTHERS = {"Dict", "store"}


def is_one(path: Path) -> bool:
    """Tell whether a file has tables as sqlitedict makes them."""
    if not is_sqlite(path):
        return False
    with sqlite(path) as database:
        found = tables(database)
    return (
        bool(found)
        and all(columns == ["key", "value"] for columns in found.values())
        and not _OTHERS.issuperset(found)
    )


def files(path: Path) -> list[Path]:
    """Return the files that are read."""
    return files_beside(path)


def rows(opened: Opened) -> Iterator[Row]:
    """Yield the items: those of the table `unnamed`, and each other table as a group."""
    with sqlite(opened.path) as database:
        for table, columns in tables(database).items():
            if columns != ["key", "value"]:
                continue
            group = () if table == _UNNAMED else (table,)
            query = f"SELECT key, value FROM {quoted(table)} ORDER BY rowid"
            for key, stored in database.execute(query):
                place = f"{opened.path}, table {table}, [{key!r}]"
                yield Row(group, key, opened.value(stored, place), place)
