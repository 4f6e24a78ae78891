"""The class of objects that ZODB stores; a module of its own, as it cannot do without ZODB."""

from __future__ import annotations

from typing import Any

from persistent import Persistent  # type: ignore[import-not-found,unused-ignore]

__all__ = ["PersistentThing"]


class PersistentThing(Persistent):  # type: ignore[misc,unused-ignore]
    """`values.Thing` as ZODB wants it."""

    def __init__(self, attr: int, data: Any) -> None:
        self.attr = attr
        self.data = data
