"""Bare LMDB and pickle: what nothing on LMDB can be faster than."""

# ruff: noqa: D102 - `Adapter` says what the methods do

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

from benchmarks.adapters.base import Keyed
from benchmarks.values import batches, entry, items

__all__ = ["Floor"]


class Floor(Keyed):
    """One transaction for each call, and pickles; opened with the flags that richstore uses.

    A container is one record for each item: `entry(position)`, the key or the element itself. The
    length of a list is kept by the program.
    """

    name = "lmdb + pickle"
    module = "lmdb"
    durable: ClassVar[dict[str, str]] = {"full": "a sync at each commit", "off": "no sync"}
    without: ClassVar[dict[str, str]] = {
        "insert": "a record for each item would have to be numbered anew",
        "appends": "the length of the list is kept by the program",
    }

    def open(self, directory: Path, synchronous: str) -> None:
        self.env = import_module("lmdb").open(
            str(directory / "data"),
            subdir=False,
            map_size=1 << 36,
            sync=synchronous != "off",
            metasync=synchronous == "full",
            max_dbs=0,
            lib_version=0,
        )
        self.writing: Any = None

    def close(self) -> None:
        self.env.close()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        with self.env.begin(write=True) as self.writing:
            yield
        self.writing = None

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[None]:
        with self.env.begin():
            yield

    def put(self, key: str, value: Any) -> None:
        if self.writing is not None:
            self.writing.put(key.encode(), pickle.dumps(value, 5))
            return
        with self.env.begin(write=True) as transaction:
            transaction.put(key.encode(), pickle.dumps(value, 5))

    def put_many(self, values: dict[str, Any]) -> None:
        """Set many values in one commit."""
        with self.env.begin(write=True) as transaction:
            for key, value in values.items():
                transaction.put(key.encode(), pickle.dumps(value, 5))

    def get(self, key: str) -> Any:
        if self.writing is not None:
            stored = self.writing.get(key.encode())
        else:
            with self.env.begin() as transaction:
                stored = transaction.get(key.encode())
        if stored is None:
            raise KeyError(key)
        return pickle.loads(stored)

    def delete(self, key: str) -> None:
        if self.writing is not None:
            self.writing.delete(key.encode())
            return
        with self.env.begin(write=True) as transaction:
            transaction.delete(key.encode())

    def start_objects(self) -> None:
        with self.transaction():
            self.writing.drop(self.env.open_db(txn=self.writing), delete=False)

    def add_objects(self, objects: dict[str, Any]) -> None:
        self.put_many(objects)

    def read_objects(self) -> int:
        with self.env.begin() as transaction:
            return sum(pickle.loads(stored).attr for _, stored in transaction.cursor())

    def build(self, kind: str, size: int) -> None:
        source = items(kind, size)
        pairs = source if kind == "dict" else ((entry(at), item) for at, item in enumerate(source))
        for batch in batches(pairs):
            with self.env.begin(write=True) as transaction:
                for key, item in batch:
                    transaction.put(key.encode(), pickle.dumps(item, 5), append=True)

    def hold(self) -> Any:
        # the length of a list; a dict does not ask for it
        self.length = self.env.stat()["entries"]
        return self

    def append(self, held: Any, item: Any) -> None:
        self.put(entry(self.length), item)
        self.length += 1

    def pop(self, held: Any) -> None:
        self.length -= 1
        self.delete(entry(self.length))

    def set_item(self, held: Any, at: Any, item: Any) -> None:
        self.put(at if isinstance(at, str) else entry(at), item)

    def item(self, held: Any, at: Any) -> Any:
        return self.get(at if isinstance(at, str) else entry(at))

    def add(self, held: Any, element: int) -> None:
        self.put(entry(element), None)

    def discard(self, held: Any, element: int) -> None:
        self.delete(entry(element))

    def scan(self, held: Any) -> Iterator[Any]:
        with self.env.begin() as transaction:
            for _, stored in transaction.cursor():
                yield pickle.loads(stored)
