"""rocksdict: RocksDB, and pickles for what is not a number, a str or bytes."""

# ruff: noqa: D102 - `Adapter` says what the methods do

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

from benchmarks.adapters.base import Keyed

__all__ = ["RocksDict"]


class RocksDict(Keyed):
    """A dict in a log-structured merge tree; a transaction is a write batch."""

    name = "rocksdict"
    module = "rocksdict"
    durable: ClassVar[dict[str, str]] = {
        "full": "write-ahead log, sync at each write",
        "off": "write-ahead log, no sync",
    }
    without: ClassVar[dict[str, str]] = {
        **Keyed.without,
        "processes": "one process has the files locked",
        "snapshot": "not measured: its files shrink by compaction, at times of its own",
    }
    largest: ClassVar[dict[str, tuple[int, str]]] = {
        "list": (10**6, "one value: each change reads and writes all of it"),
        "rows": (10**5, "one value: each change reads and writes all of it"),
    }

    def open(self, directory: Path, synchronous: str) -> None:
        self.module_ = import_module("rocksdict")
        self.table = self.module_.Rdict(str(directory / "data"))
        self.options = self.module_.WriteOptions()
        self.options.sync = synchronous == "full"
        self.table.set_write_options(self.options)
        self.batch: Any = None

    def close(self) -> None:
        self.table.close()

    def commit(self) -> None:
        if self.batch is not None and not self.grouped:
            batch, self.batch = self.batch, None
            self.table.write(batch, self.options)

    def put(self, key: str, value: Any) -> None:
        if not self.grouped:
            self.table[key] = value
            return
        if self.batch is None:
            self.batch = self.module_.WriteBatch()
        self.batch.put(key, value)

    def get(self, key: str) -> Any:
        return self.table[key]

    def delete(self, key: str) -> None:
        if not self.grouped:
            self.table.delete(key)
            return
        if self.batch is None:
            self.batch = self.module_.WriteBatch()
        self.batch.delete(key)
