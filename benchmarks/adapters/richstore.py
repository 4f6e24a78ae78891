"""richstore itself."""

# ruff: noqa: D102 - `Adapter` says what the methods do

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

from benchmarks.adapters.base import CONTAINER, Adapter
from benchmarks.values import items

__all__ = ["RichStore"]


class RichStore(Adapter):
    """A store; an item inside a value is set in place."""

    name = "richstore"
    module = "richstore"
    durable: ClassVar[dict[str, str]] = {"full": "a sync at each commit", "off": "no sync"}

    def open(self, directory: Path, synchronous: str) -> None:
        self.file = directory / "data"
        # not before: a process that has another store open does not need it
        self.api = import_module("richstore")
        self.store = self.api.open(self.file, synchronous=synchronous)
        self.reading: Any = None

    def close(self) -> None:
        if self.reading is not None:
            self.reading.close()
        self.store.close()

    def cool(self) -> None:
        # a handle that reads has nodes of its own, over the file that the other one has open
        if self.reading is not None:
            self.reading.close()
        self.reading = self.api.open(self.file, "r")

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        with self.store.transaction():
            yield

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[None]:
        with self.store.snapshot():
            yield

    def put(self, key: str, value: Any) -> None:
        self.store[key] = value

    def get(self, key: str) -> Any:
        return self.store[key]

    def delete(self, key: str) -> None:
        with contextlib.suppress(KeyError):
            del self.store[key]

    def read_objects(self) -> int:
        store = self.store if self.reading is None else self.reading
        return sum(each.attr for each in store["objects"].values())

    def build(self, kind: str, size: int) -> None:
        with self.store.transaction():
            if kind == "set":
                self.store[CONTAINER] = set()
                self.store[CONTAINER].update(items(kind, size))
            elif kind == "dict":
                self.store[CONTAINER] = {}
                self.store[CONTAINER].update(items(kind, size))
            else:
                self.store[CONTAINER] = []
                self.store[CONTAINER].extend(items(kind, size))

    def last(self, held: Any, size: int) -> Any:
        return held[-1]

    def scan_plain(self) -> Iterator[Any]:
        """Yield the items of the list as plain data."""
        yield from self.api.plain(self.store[CONTAINER])
