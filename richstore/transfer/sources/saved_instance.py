"""What `saved_instance` has written: shelves, encrypted or not, and a table of nested proxies."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from richstore.errors import FormatError
from richstore.transfer.filling import Row
from richstore.transfer.sources import shelves
from richstore.transfer.sources.base import Opened, files_beside, is_sqlite, said, sqlite, tables

__all__ = ["files", "is_one", "rows"]


# What an encrypted value begins with: the version of its format, and the first years in seconds.
_TOKEN = b"gAAAAA"


class _StandIn:
    """Stands for a class of saved_instance."""

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError("a part of saved_instance is left in the value")


class _Proxy(_StandIn):
    """Stands for a list or dict that reports its changes; `data` is what it holds."""

    data: Any


class _Machinery(_StandIn):
    """Stands for what proxies report to."""

    def __init__(self, *arguments: Any) -> None:
        """Take what a lock of another process is found by."""

    def __setstate__(self, state: Any) -> None:
        """Forget the state."""


def _method(owner: Any, name: str) -> Any:
    """Stand for `getattr`, with which the method is found that changes are reported to."""
    if type(owner) is not _Machinery:
        raise ValueError(f"it asks for the attribute {name!r} of an object")
    return None


_STAND_INS: dict[tuple[str, str], Any] = {
    ("saved_instance.rich_storage", "ProxyMapping"): _Proxy,
    ("saved_instance.rich_storage", "ProxyList"): _Proxy,
    ("saved_instance.rich_storage", "RichStorage"): _Machinery,
    ("saved_instance.db.sqllite_repo", "SqliteRepo"): _Machinery,
    ("builtins", "getattr"): _method,
    # the lock of a storage that is safe for processes
    ("multiprocessing.managers", "RebuildProxy"): _Machinery,
    ("multiprocessing.managers", "AcquirerProxy"): _Machinery,
    ("multiprocessing.managers", "Token"): _Machinery,
}


def is_one(path: Path) -> bool:
    """Tell whether a file has the table of a rich storage; the others are shelves."""
    if not is_sqlite(path):
        return False
    with sqlite(path) as database:
        return tables(database) == {"store": ["key", "value"]}


def files(path: Path) -> list[Path]:
    """Return the files that are read."""
    return files_beside(path) if is_one(path) else shelves.files(path)


def rows(opened: Opened) -> Iterator[Row]:
    """Yield the items, with lists and dicts for the proxies."""
    if not is_one(opened.path):
        for key, stored, place in shelves.stored_rows(opened):
            value = opened.unpickled(stored, place)
            if opened.key is None and type(value) is bytes and value.startswith(_TOKEN):
                opened.note("values that look encrypted, and stay so without a key")
            elif opened.key is not None:
                value = opened.unpickled(_decrypted(value, opened.key, place), place)
            yield Row((), key, value, place)
        return
    with sqlite(opened.path) as database:
        for key, stored in database.execute("SELECT key, value FROM store ORDER BY rowid"):
            place = f"{opened.path}, [{key!r}]"
            value = opened.unpickled(stored, place, stand_ins=_STAND_INS)
            yield Row((), key, _without_proxies(value, {}), place)


def _without_proxies(value: Any, memo: dict[int, Any]) -> Any:
    """Return a value with a list or dict in place of each proxy; what is one object stays one."""
    if id(value) in memo:
        return memo[id(value)]
    kind = type(value)
    inside = value.data if kind is _Proxy else value
    made: Any
    if type(inside) is list:
        made = memo[id(value)] = []
        made += [_without_proxies(item, memo) for item in inside]
    elif type(inside) is dict:
        made = memo[id(value)] = {}
        made.update((key, _without_proxies(item, memo)) for key, item in inside.items())
    elif type(inside) is tuple:
        made = tuple([_without_proxies(item, memo) for item in inside])
    else:
        made = inside
    return made


def _decrypted(token: Any, key: str, place: str) -> bytes:
    try:
        from cryptography.fernet import Fernet, InvalidToken
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "values of a secure storage need a package more: pip install 'richstore[secure]'",
            name="cryptography",
        ) from error
    if type(token) is not bytes:
        raise FormatError(f"{place}: it is not encrypted; leave out the key")
    with said(place):
        try:
            return Fernet(key).decrypt(token)
        except InvalidToken:
            raise ValueError("it is not encrypted with this key") from None
