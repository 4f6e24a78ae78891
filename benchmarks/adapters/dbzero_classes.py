"""The classes that dbzero stores; a module of its own, as they cannot do without dbzero."""

from __future__ import annotations

from typing import Any

import dbzero  # type: ignore[import-not-found,unused-ignore]

__all__ = ["MemoThing", "Root"]


@dbzero.memo(singleton=True)
class Root:
    """What everything hangs from."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}


@dbzero.memo
class MemoThing:
    """`values.Thing` as dbzero wants it."""

    def __init__(self, attr: int, data: Any) -> None:
        self.attr = attr
        self.data = data
