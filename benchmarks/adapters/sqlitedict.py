"""sqlitedict: SQLite in a thread of its own, and pickles."""

# ruff: noqa: D102 - `Adapter` says what the methods do

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.adapters.base import Adapter

__all__ = ["SqliteDict"]


class SqliteDict(Adapter):
    """A dict in a table; by itself it never syncs, so the adapter tells SQLite to."""

    name = "sqlitedict"
    module = "sqlitedict"

    def open(self, directory: Path, synchronous: str) -> None:
        self.table = import_module("sqlitedict").SqliteDict(
            str(directory / "data"), journal_mode="WAL"
        )
        if synchronous == "full":
            self.table.conn.execute("PRAGMA synchronous=FULL")

    def put(self, key: str, value: Any) -> None:
        self.table[key] = value
        self.table.commit(blocking=True)

    def get(self, key: str) -> Any:
        return self.table[key]

    def close(self) -> None:
        self.table.close()
