"""shelve, of the standard library: pickles in the `dbm` that this Python has."""

# ruff: noqa: D102 - `Adapter` says what the methods do

from __future__ import annotations

import contextlib
import dbm
import os
import shelve
from pathlib import Path
from typing import Any, ClassVar

from benchmarks.adapters.base import Keyed

__all__ = ["Shelve"]


def _makes() -> str:
    """Return the module that `dbm` takes: the first of its list that this Python has."""
    for name in getattr(dbm, "_names", ["dbm.dumb"]):
        with contextlib.suppress(ImportError):
            __import__(name)
            return str(name)
    return "dbm"


class Shelve(Keyed):
    """A shelf; by itself it does not sync its files, so the adapter does."""

    name = "shelve"
    module = "shelve"
    durable: ClassVar[dict[str, str]] = {
        "full": f"{_makes()}; every file synced by the adapter at each commit",
        "off": f"{_makes()}; its index written at each commit",
    }
    without: ClassVar[dict[str, str]] = {
        **Keyed.without,
        "processes": "it has no locks",
        "snapshot": "it has none",
    }
    largest: ClassVar[dict[str, tuple[int, str]]] = {
        "list": (10**6, "one value: each change reads and writes all of it"),
        "rows": (10**5, "one value: each change reads and writes all of it"),
        "dict": (10**4, f"{_makes()} writes the index of all keys at each commit"),
    }

    def open(self, directory: Path, synchronous: str) -> None:
        self.directory = directory
        self.full = synchronous == "full"
        self.shelf = shelve.open(str(directory / "data"), protocol=5)  # noqa: SIM115 - see close

    def close(self) -> None:
        self.shelf.close()

    def commit(self) -> None:
        if self.grouped:
            return
        self.shelf.sync()
        if self.full:
            for path in self.directory.iterdir():
                fd = os.open(path, os.O_RDWR)
                os.fsync(fd)
                os.close(fd)

    def put(self, key: str, value: Any) -> None:
        self.shelf[key] = value
        self.commit()

    def get(self, key: str) -> Any:
        return self.shelf[key]

    def delete(self, key: str) -> None:
        with contextlib.suppress(KeyError):
            del self.shelf[key]
        self.commit()
