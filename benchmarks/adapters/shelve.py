"""shelve, of the standard library: pickles in the `dbm` that this Python has."""

# ruff: noqa: D102 - `Adapter` says what the methods do

from __future__ import annotations

import os
import shelve
from pathlib import Path
from typing import Any

from benchmarks.adapters.base import Adapter

__all__ = ["Shelve"]


class Shelve(Adapter):
    """A shelf; by itself it does not sync its files, so the adapter does."""

    name = "shelve"
    module = "shelve"

    def open(self, directory: Path, synchronous: str) -> None:
        self.directory = directory
        self.full = synchronous == "full"
        self.shelf = shelve.open(str(directory / "data"))  # noqa: SIM115 - closed below

    def put(self, key: str, value: Any) -> None:
        self.shelf[key] = value
        self.shelf.sync()
        if self.full:
            for path in self.directory.iterdir():
                fd = os.open(path, os.O_RDWR)
                os.fsync(fd)
                os.close(fd)

    def get(self, key: str) -> Any:
        return self.shelf[key]

    def close(self) -> None:
        self.shelf.close()
