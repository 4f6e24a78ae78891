"""dbzero: objects and containers in a file, in C++."""

# ruff: noqa: D102 - `Adapter` says what the methods do

from __future__ import annotations

import contextlib
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

from benchmarks.adapters.base import CONTAINER, Adapter
from benchmarks.values import batches, items

__all__ = ["Dbzero"]

_SLOW = "tens of microseconds for each entry: minutes to build"


class Dbzero(Adapter):
    """One prefix with a singleton, committed by hand; a process has one such store open."""

    name = "dbzero"
    module = "dbzero"
    durable: ClassVar[dict[str, str]] = {"full": "fsync at each commit; cannot be turned off"}
    without: ClassVar[dict[str, str]] = {
        "insert": "its list has no insert",
        "processes": "one process may write",
        "snapshot": "not measured: the file keeps earlier states by itself",
    }
    largest: ClassVar[dict[str, tuple[int, str]]] = {
        "dict": (10**5, _SLOW),
        "set": (10**5, _SLOW),
        "rows": (10**5, _SLOW),
    }

    def open(self, directory: Path, synchronous: str) -> None:
        self.api = import_module("dbzero")
        classes = import_module("benchmarks.adapters.dbzero_classes")
        self.class_ = classes.MemoThing
        self.api.init(str(directory), prefix="main", autocommit=False)
        exists = self.api.exists(classes.Root)
        self.root = self.api.fetch(classes.Root) if exists else classes.Root()
        self.commit()

    def close(self) -> None:
        self.root = None
        self.api.close()

    def cool(self) -> None:
        self.api.clear_cache()

    def commit(self) -> None:
        if not self.grouped:
            self.api.commit()

    def put(self, key: str, value: Any) -> None:
        self.root.values[key] = value
        self.commit()

    def get(self, key: str) -> Any:
        return self.root.values[key]

    def delete(self, key: str) -> None:
        with contextlib.suppress(KeyError):
            del self.root.values[key]
        self.commit()

    def thing(self, attr: int, data: Any) -> Any:
        return self.class_(attr, data)

    def build(self, kind: str, size: int) -> None:
        self.put(CONTAINER, {} if kind == "dict" else set() if kind == "set" else [])
        held = self.hold()
        for batch in batches(items(kind, size)):
            if kind == "dict":
                held.update(dict(batch))
            elif kind == "set":
                held.update(batch)
            else:
                held.extend(batch)
            self.commit()

    def discard(self, held: Any, element: int) -> None:
        held.remove(element)
        self.commit()
