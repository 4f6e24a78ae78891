"""richstore itself."""

# ruff: noqa: D102 - `Adapter` says what the methods do

from __future__ import annotations

from pathlib import Path
from typing import Any

import richstore
from benchmarks.adapters.base import Adapter, Place

__all__ = ["RichStore"]


class RichStore(Adapter):
    """A store; an item inside a value is set in place."""

    name = "richstore"
    module = "richstore"

    def open(self, directory: Path, synchronous: str) -> None:
        self.store = richstore.open(directory / "data", synchronous=synchronous)

    def put(self, key: str, value: Any) -> None:
        self.store[key] = value

    def get(self, key: str) -> Any:
        return self.store[key]

    def change(self, key: str, place: Place, value: Any) -> None:
        found = self.store[key]
        for step in place[:-1]:
            found = found[step]
        found[place[-1]] = value

    def close(self) -> None:
        self.store.close()
