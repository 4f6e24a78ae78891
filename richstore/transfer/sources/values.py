"""What `atomic_store`, and many a script, has written: one value in a file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from richstore.documents.formats import resolve
from richstore.transfer.filling import Row
from richstore.transfer.sources.base import Opened

__all__ = ["files", "is_one", "rows"]

_SUFFIXES = (".json", ".pickle", ".pkl", ".bson", ".msgpack", ".mpk")


def is_one(path: Path) -> bool:
    """Tell whether the name of a file says that it has one value."""
    return path.suffix.lower() in _SUFFIXES and path.is_file()


def files(path: Path) -> list[Path]:
    """Return the files that are read."""
    return [path]


def rows(opened: Opened, format: Any = None) -> Iterator[Row]:
    """Yield the items of a dict, or any other value under the name of the file."""
    path = opened.path
    found = resolve(format, path.name)
    value = found.decode(path.read_bytes(), str(path), opened.policy)
    if type(value) is not dict:
        opened.note(f"value is under the key {path.stem!r}, since it is no dict")
        yield Row((), path.stem, value, str(path))
        return
    for key, item in value.items():
        yield Row((), key, item, f"{path}, [{key!r}]")
