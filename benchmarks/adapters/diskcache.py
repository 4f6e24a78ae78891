"""diskcache: SQLite with a write-ahead log, and pickles."""

# ruff: noqa: D102 - `Adapter` says what the methods do

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.adapters.base import Adapter

__all__ = ["DiskCache"]


class DiskCache(Adapter):
    """A cache with nothing thrown out; by itself it syncs only now and then."""

    name = "diskcache"
    module = "diskcache"

    def open(self, directory: Path, synchronous: str) -> None:
        self.cache = import_module("diskcache").Cache(
            str(directory),
            eviction_policy="none",
            sqlite_synchronous=2 if synchronous == "full" else 0,
        )

    def put(self, key: str, value: Any) -> None:
        self.cache[key] = value

    def get(self, key: str) -> Any:
        return self.cache[key]

    def close(self) -> None:
        self.cache.close()
