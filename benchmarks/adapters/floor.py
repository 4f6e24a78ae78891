"""Bare LMDB and pickle: what nothing on LMDB can be faster than."""

# ruff: noqa: D102 - `Adapter` says what the methods do

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import lmdb

from benchmarks.adapters.base import Adapter

__all__ = ["Floor"]


class Floor(Adapter):
    """One transaction for each call, and pickles; opened with the flags that richstore uses."""

    name = "lmdb + pickle"
    module = "lmdb"

    def open(self, directory: Path, synchronous: str) -> None:
        self.env = lmdb.open(
            str(directory / "data"),
            subdir=False,
            map_size=1 << 36,
            sync=synchronous != "off",
            metasync=synchronous == "full",
            max_dbs=0,
            lib_version=0,
        )

    def put(self, key: str, value: Any) -> None:
        with self.env.begin(write=True) as transaction:
            transaction.put(key.encode(), pickle.dumps(value, 5))

    def put_many(self, values: dict[str, Any]) -> None:
        """Set many values in one commit."""
        with self.env.begin(write=True) as transaction:
            for key, value in values.items():
                transaction.put(key.encode(), pickle.dumps(value, 5))

    def get(self, key: str) -> Any:
        with self.env.begin() as transaction:
            stored = transaction.get(key.encode())
        if stored is None:
            raise KeyError(key)
        return pickle.loads(stored)

    def close(self) -> None:
        self.env.close()
