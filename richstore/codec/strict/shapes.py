"""Reading without classes: a record's value with stand-ins for whatever is made of classes."""

from __future__ import annotations

from typing import Any

from richstore.codec import records
from richstore.codec.policy import StrictPolicy
from richstore.codec.strict.opcodes import Reader
from richstore.codec.strict.parts import rows

__all__ = ["shape"]


class _Anything:
    """Stands for whatever a stream would make of classes."""

    __slots__ = ()


class _ShapeReader(Reader):
    """Reads containers alone, and makes nothing of classes."""

    def find(self, module: Any, qualname: Any) -> Any:
        return _ANYTHING

    def call(self, function: Any, arguments: Any) -> Any:
        return _Anything()

    def new(self, cls: Any, arguments: Any, named: Any) -> Any:
        return _Anything()

    def extend(self, target: Any, items: list[Any]) -> None:
        if type(target) is not _Anything:
            super().extend(target, items)

    def put(self, target: Any, items: list[Any]) -> None:
        if type(target) is not _Anything:
            super().put(target, items)

    def add(self, target: Any, items: list[Any]) -> None:
        if type(target) is not _Anything:
            super().add(target, items)

    def build(self, target: Any, state: Any) -> None:
        """Forget the state."""


_ANYTHING = _Anything()


def shape(parts: records.Parts, policy: StrictPolicy) -> Any:
    """Return a record's value with stand-ins for instances; see `records.shape`."""
    memo: dict[int, Any] = {}
    for slot, _, head in rows(parts):
        if head < records.BUILT:
            memo[2 * slot] = memo[2 * slot + 1] = (list, dict, set)[head]()
        elif head != records.BUILT:
            memo[2 * slot + 1] = _Anything()
    return _ShapeReader(parts.stream, policy, memo).run()
