"""Classes of a user of ZODB: as they were, and as they are without it."""

from __future__ import annotations

from typing import Any

try:
    from persistent import Persistent
except ImportError:
    Persistent = object


class PersistentAccount(Persistent):  # type: ignore[misc, valid-type]
    def __init__(self, name: str) -> None:
        self.name = name
        self.friend: Any = None


class Account:
    name: str
    friend: Any
