"""diskcache: SQLite with a write-ahead log, and pickles."""

# ruff: noqa: D102 - `Adapter` says what the methods do

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

from benchmarks.adapters.base import Keyed
from benchmarks.values import batches, items

__all__ = ["DiskCache"]


class DiskCache(Keyed):
    """A cache with nothing thrown out; lists are its `Deque`, with a row for each item."""

    name = "diskcache"
    module = "diskcache"
    durable: ClassVar[dict[str, str]] = {
        "full": "SQLite synchronous=FULL",
        "off": "SQLite synchronous=OFF",
    }
    without: ClassVar[dict[str, str]] = {
        "set": "it has none",
        "insert": "its Deque has no insert",
        "snapshot": "it has none",
    }
    largest: ClassVar[dict[str, tuple[int, str]]] = dict.fromkeys(
        ("list", "rows", "dict"), (10**5, "an insert into a table for each item: minutes to build")
    )

    def open(self, directory: Path, synchronous: str) -> None:
        module = import_module("diskcache")
        self.cache = module.Cache(
            str(directory),
            eviction_policy="none",
            sqlite_synchronous=2 if synchronous == "full" else 0,
        )
        self.deque = module.Deque.fromcache(self.cache)

    def close(self) -> None:
        self.cache.close()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        with self.cache.transact():
            yield

    def put(self, key: str, value: Any) -> None:
        self.cache[key] = value

    def get(self, key: str) -> Any:
        return self.cache[key]

    def delete(self, key: str) -> None:
        self.cache.delete(key)

    def build(self, kind: str, size: int) -> None:
        if kind == "dict":
            super().build(kind, size)
            return
        for batch in batches(items(kind, size)):
            with self.transaction():
                self.deque.extend(batch)

    def hold(self) -> Any:
        return self.deque

    def append(self, held: Any, item: Any) -> None:
        held.append(item)

    def pop(self, held: Any) -> None:
        held.pop()

    def set_item(self, held: Any, at: Any, item: Any) -> None:
        (self.cache if isinstance(at, str) else held)[at] = item

    def item(self, held: Any, at: Any) -> Any:
        return (self.cache if isinstance(at, str) else held)[at]

    def last(self, held: Any, size: int) -> Any:
        return held.peek()

    def scan(self, held: Any) -> Iterator[Any]:
        yield from held
