"""What a benchmark asks of a store: open, put, get, change and read inside a value, close.

Every change is committed when the call returns, as durably as `synchronous` says.
"""

from __future__ import annotations

import abc
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

__all__ = ["Adapter", "Place"]

# The steps into a value: dict keys and list indices.
Place: TypeAlias = tuple[Any, ...]


class Adapter(abc.ABC):
    """One open store in a directory of its own.

    Args:
        directory: where its files go.
        synchronous: `"full"`: on the disk, through a power failure, when a call returns. `"off"`:
            handed to the system.
    """

    name: ClassVar[str]
    module: ClassVar[str]

    def __init__(self, directory: Path, synchronous: str) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.open(directory, synchronous)

    @classmethod
    def installed(cls) -> bool:
        """Whether the package is there."""
        return find_spec(cls.module) is not None

    @abc.abstractmethod
    def open(self, directory: Path, synchronous: str) -> None:
        """Open the store."""

    @abc.abstractmethod
    def put(self, key: str, value: Any) -> None:
        """Set a value under a key, in a commit of its own."""

    @abc.abstractmethod
    def get(self, key: str) -> Any:
        """Return the value under a key."""

    @abc.abstractmethod
    def close(self) -> None:
        """Close the store."""

    def change(self, key: str, place: Place, value: Any) -> None:
        """Set an item inside a value, in a commit of its own; here by storing the whole again."""
        whole = self.get(key)
        _walk(whole, place[:-1])[place[-1]] = value
        self.put(key, whole)

    def read(self, key: str, place: Place) -> Any:
        """Return an item inside a value."""
        return _walk(self.get(key), place)

    def __enter__(self) -> Adapter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _walk(value: Any, place: Place) -> Any:
    for step in place:
        value = value[step]
    return value
