"""sqlitedict: SQLite in a thread of its own, and pickles."""

# ruff: noqa: D102 - `Adapter` says what the methods do

from __future__ import annotations

import contextlib
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

from benchmarks.adapters.base import Keyed

__all__ = ["SqliteDict"]


class SqliteDict(Keyed):
    """A dict in a table; by itself it never syncs, so the adapter tells SQLite to."""

    name = "sqlitedict"
    module = "sqlitedict"
    durable: ClassVar[dict[str, str]] = {
        "full": "SQLite synchronous=FULL",
        "off": "SQLite synchronous=OFF",
    }
    without: ClassVar[dict[str, str]] = {**Keyed.without, "snapshot": "it has none"}
    largest: ClassVar[dict[str, tuple[int, str]]] = {
        "list": (10**6, "one value: each change reads and writes all of it"),
        "rows": (10**5, "one value: each change reads and writes all of it"),
        "dict": (10**5, "a message to another thread for each entry: minutes to build"),
    }

    def open(self, directory: Path, synchronous: str) -> None:
        self.table = import_module("sqlitedict").SqliteDict(
            str(directory / "data"), journal_mode="WAL"
        )
        if synchronous == "full":
            self.table.conn.execute("PRAGMA synchronous=FULL")

    def close(self) -> None:
        self.table.close()

    def commit(self) -> None:
        if not self.grouped:
            self.table.commit(blocking=True)

    def put(self, key: str, value: Any) -> None:
        self.table[key] = value
        self.commit()

    def get(self, key: str) -> Any:
        return self.table[key]

    def delete(self, key: str) -> None:
        with contextlib.suppress(KeyError):
            del self.table[key]
        self.commit()
