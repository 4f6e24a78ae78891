"""ZODB: a file storage, one connection; with persistent lists and mappings, and with BTrees."""

# ruff: noqa: D102 - `Adapter` says what the methods do

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

from benchmarks.adapters.base import CONTAINER, Adapter
from benchmarks.values import batches, items

__all__ = ["Zodb", "ZodbBTrees"]

_WHOLE = "one object: each change writes all of it"


class Zodb(Adapter):
    """An object database with `PersistentList` and `PersistentMapping`, which are whole objects."""

    name = "ZODB"
    module = "ZODB"
    durable: ClassVar[dict[str, str]] = {"full": "fsync at each commit; cannot be turned off"}
    without: ClassVar[dict[str, str]] = {
        "set": "it has none",
        "processes": "one process has the file locked; more need a ZEO server",
        "snapshot": "not measured: the file keeps every state until it is packed",
    }
    largest: ClassVar[dict[str, tuple[int, str]]] = {
        "list": (10**6, _WHOLE),
        "dict": (10**6, _WHOLE),
        "rows": (10**5, "an object of its own for each dict: minutes to build"),
    }

    def open(self, directory: Path, synchronous: str) -> None:
        self.commit_now = import_module("transaction").commit
        self.mapping = import_module("persistent.mapping").PersistentMapping
        self.list = import_module("persistent.list").PersistentList
        self.class_ = import_module("benchmarks.adapters.zodb_class").PersistentThing
        # room for every object of the workloads that count as loaded
        self.database = import_module("ZODB").DB(str(directory / "data.fs"), cache_size=5000)
        self.connection = self.database.open()
        self.root = self.connection.root()

    def close(self) -> None:
        self.connection.transaction_manager.abort()
        self.connection.close()
        self.database.close()

    def cool(self) -> None:
        self.connection.cacheMinimize()

    def commit(self) -> None:
        if not self.grouped:
            self.commit_now()

    def put(self, key: str, value: Any) -> None:
        self.root[key] = self.persistent(value)
        self.commit()

    def persistent(self, value: Any) -> Any:
        """Return a value with all its dicts and lists as those that ZODB tracks."""
        if isinstance(value, dict):
            return self.mapping({key: self.persistent(item) for key, item in value.items()})
        if isinstance(value, list):
            return self.list([self.persistent(item) for item in value])
        return value

    def get(self, key: str) -> Any:
        return self.root[key]

    def delete(self, key: str) -> None:
        with contextlib.suppress(KeyError):
            del self.root[key]
        self.commit()

    def thing(self, attr: int, data: Any) -> Any:
        return self.class_(attr, data)

    def build(self, kind: str, size: int) -> None:
        self.put(CONTAINER, {} if kind == "dict" else [])
        held = self.hold()
        if kind == "dict":
            held.update(dict(items(kind, size)))
        else:
            held.extend([self.persistent(item) for item in items(kind, size)])
        self.commit()

    def append(self, held: Any, item: Any) -> None:
        held.append(self.persistent(item))
        self.commit()


class ZodbBTrees(Zodb):
    """The same with BTrees, chosen by hand; a list is an `LOBTree` by position."""

    name = "ZODB, BTrees"
    without: ClassVar[dict[str, str]] = {
        **{key: why for key, why in Zodb.without.items() if key != "set"},
        "insert": "an LOBTree by position would have to be numbered anew",
    }
    largest: ClassVar[dict[str, tuple[int, str]]] = {
        "rows": (10**5, "an object of its own for each dict: minutes to build"),
    }

    def open(self, directory: Path, synchronous: str) -> None:
        super().open(directory, synchronous)
        self.mapping = import_module("BTrees.OOBTree").OOBTree

    def build(self, kind: str, size: int) -> None:
        if kind == "set":
            self.root[CONTAINER] = import_module("BTrees.LLBTree").LLTreeSet()
        elif kind == "dict":
            self.root[CONTAINER] = self.mapping()
        else:
            self.root[CONTAINER] = import_module("BTrees.LOBTree").LOBTree()
        at = 0
        for batch in batches(items(kind, size)):
            held = self.root[CONTAINER]
            if kind == "set":
                held.update(batch)
            elif kind == "dict":
                held.update(dict(batch))
            else:
                held.update({at + n: self.persistent(item) for n, item in enumerate(batch)})
            at += len(batch)
            self.commit()
            self.connection.cacheMinimize()

    def append(self, held: Any, item: Any) -> None:
        held[held.maxKey() + 1 if held else 0] = self.persistent(item)
        self.commit()

    def pop(self, held: Any) -> None:
        del held[held.maxKey()]
        self.commit()

    def last(self, held: Any, size: int) -> Any:
        return held[held.maxKey()]

    def discard(self, held: Any, element: int) -> None:
        held.remove(element)
        self.commit()

    def scan(self, held: Any) -> Iterator[Any]:
        yield from held.itervalues()
