"""What `diskcache` has written: a directory with a database, and files for large values.

`Cache` and `Index` are such a directory, `FanoutCache` is one of several. The items of a `Deque`
have numbers as keys, in their order.
"""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from richstore.errors import FormatError
from richstore.transfer.filling import Row
from richstore.transfer.sources.base import Opened, files_beside, said, sqlite

__all__ = ["files", "is_one", "rows"]

_DATABASE = "cache.db"
# How a value is stored: as it is, bytes in a file, text in a file, a pickle here or in a file.
_RAW, _BINARY, _TEXT, _PICKLE = 1, 2, 3, 4


def is_one(path: Path) -> bool:
    """Tell whether a directory is a cache."""
    return bool(_databases(path))


def files(path: Path) -> list[Path]:
    """Return the files that are read first; those of large values are looked at one by one."""
    return [file for database in _databases(path) for file in files_beside(database)]


def _databases(path: Path) -> list[Path]:
    if (path / _DATABASE).is_file():
        return [path / _DATABASE]
    return sorted(path.glob(f"[0-9][0-9][0-9]/{_DATABASE}"))


def rows(opened: Opened) -> Iterator[Row]:
    """Yield the items that have not expired, in the order in which they came."""
    for path in _databases(opened.path):
        with sqlite(path) as database:
            keys = database.execute("SELECT key, raw FROM Cache LIMIT 100").fetchall()
            is_json = all(raw and _is_json(key) for key, raw in keys)
            query = "SELECT key, raw, expire_time, tag, mode, filename, value FROM Cache"
            for key, raw, expires, tag, *stored in database.execute(f"{query} ORDER BY rowid"):
                if not isinstance(expires, (int, float, type(None))):
                    raise FormatError(f"{path}, [{key!r}]: {expires!r} is no time to expire at")
                if expires is not None and expires < time.time():
                    opened.note("items left out, since they had expired")
                    continue
                if expires is not None:
                    opened.note("items kept for good, which would have expired")
                if tag is not None:
                    opened.note("tags left out")
                if not raw:
                    key = opened.unpickled(key, f"{path}, a key")
                row = _row(opened, path.parent, key, stored)
                yield _from_json(row) if is_json else row


def _row(opened: Opened, directory: Path, key: Any, stored: list[Any]) -> Row:
    mode, name, value = stored
    place = f"{directory}, [{key!r}]"
    policy = opened.policy
    if name is not None:
        with said(place):
            path = directory / name
            if not path.resolve().is_relative_to(directory.resolve()):
                raise FormatError(f"its file {name} is not in the directory of the cache")
            # a FIFO would wait for its other end
            if not path.is_file():
                raise FormatError(f"its file {name} is missing, or is no file")
            value = path.read_bytes()
            policy = opened.policy_of(path)
    if mode == _TEXT:
        with said(place):
            value = bytes.decode(value)
    elif mode == _PICKLE:
        value = opened.unpickled(value, place, policy=policy)
    elif mode not in (_RAW, _BINARY):
        raise FormatError(f"{place}: it is stored in an unknown way, {mode!r}")
    return Row((), key, value, place)


def _is_json(key: Any) -> bool:
    """Tell whether a key is as `JSONDisk` writes it; nothing else says that a cache has one."""
    try:
        json.loads(zlib.decompress(key))
    except (TypeError, ValueError, zlib.error):
        return False
    return True


def _from_json(row: Row) -> Row:
    """Return an item of a cache whose disk is `JSONDisk`."""
    with said(row.place):
        key, value = (json.loads(zlib.decompress(one)) for one in (row.key, row.value))
    return Row((), key, value, row.place.replace(f"[{row.key!r}]", f"[{key!r}]"))
