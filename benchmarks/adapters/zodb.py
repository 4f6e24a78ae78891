"""ZODB: a file storage, persistent mappings and lists, one connection."""

# ruff: noqa: D102 - `Adapter` says what the methods do

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.adapters.base import Adapter, Place

__all__ = ["Zodb"]


class Zodb(Adapter):
    """An object database; it syncs at each commit whatever `synchronous` says."""

    name = "ZODB"
    module = "ZODB"

    def open(self, directory: Path, synchronous: str) -> None:
        self.commit = import_module("transaction").commit
        self.mapping = import_module("persistent.mapping").PersistentMapping
        self.list = import_module("persistent.list").PersistentList
        self.database = import_module("ZODB").DB(str(directory / "data.fs"))
        self.connection = self.database.open()
        self.root = self.connection.root()

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

    def change(self, key: str, place: Place, value: Any) -> None:
        found = self.root[key]
        for step in place[:-1]:
            found = found[step]
        found[place[-1]] = value
        self.commit()

    def close(self) -> None:
        self.connection.close()
        self.database.close()
