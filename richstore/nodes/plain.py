"""Faces as plain data: `plain()`, and what copy and pickle get to see of a face.

The rule: what leaves the store holds no faces. Aliases and cycles come out as they are inside.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from richstore.codec import stream
from richstore.codec.missing import MissingType, kept_of, reduction
from richstore.node import Node
from richstore.nodes.base import is_face, node_of

__all__ = ["SAME", "Plain", "plain", "reduce_plain"]

T = TypeVar("T")


def plain(value: T) -> T:
    """Return a deep copy of a value in which nothing belongs to a store any more.

    Args:
        value: a value from a store or snapshot, or anything that holds such values.

    Returns:
        An equal value made of ordinary lists, dicts, sets and instances. It is one consistent
        state, even while others commit.

    Example:
        >>> import richstore
        >>> with richstore.open("memory:") as store:
        ...     store["config"] = {"theme": {"dark": True}}
        ...     config = richstore.plain(store["config"])
        >>> type(config), config
        (<class 'dict'>, {'theme': {'dark': True}})
    """
    node = node_of(value)
    record = node.record if node is not None else None
    if record is None:
        result: T = Plain({})(value)
        return result
    with record.tracker.lock:
        result = Plain({}, alone=True)(value)
        return result


class Plain:
    """One run of `plain`: remembers what was copied already.

    Args:
        memo: copies by the id of the original, as `copy.deepcopy` keeps them.
        alone: whether nothing is copied but one face and what is inside it.
    """

    def __init__(self, memo: dict[int, Any], *, alone: bool = False) -> None:
        self.memo = memo
        # then nothing but their own page can refer to the containers on it, and these need no faces
        self.alone = alone
        # copies that are made but not filled yet, so that depth costs no stack
        self.queue: list[Callable[[], None]] | None = None

    def __call__(self, value: Any) -> Any:
        """Return the plain copy of a value."""
        if type(value) in SAME:
            return value
        if self.queue is None:
            return self.complete(value)
        return self._copy(value)

    def complete(self, value: Any) -> Any:
        """Return the plain copy, filled, as is needed before it can be hashed or used."""
        if type(value) in SAME:
            return value
        outer = self.queue
        queue: list[Callable[[], None]] = []
        self.queue = queue
        try:
            made = self._copy(value)
            for fill in queue:
                fill()
        finally:
            self.queue = outer
        return made

    def _copy(self, value: Any) -> Any:
        memo = self.memo
        known = memo.get(id(value), memo)
        if known is not memo:
            return known
        node = node_of(value)
        if node is not None:
            kind: Any = node.kind
            return kind.plain(node, self)
        handler = _HANDLERS.get(type(value))
        if handler is not None:
            return handler(self, value)
        # deepcopy knows all other types, and comes back here for the faces inside
        return copy.deepcopy(value, memo)

    def keep(self, original: Any, made: Any) -> None:
        """Remember a copy; the original is kept alive so that its id stays taken."""
        self.memo[id(original)] = made
        self.memo.setdefault(id(self.memo), []).append(original)

    def later(self, fill: Callable[[], None]) -> None:
        """Fill a copy once the one that holds it is made."""
        assert self.queue is not None
        self.queue.append(fill)

    def as_list(self, original: Any, items: Any) -> list[Any]:
        """Copy a list-like original with these items."""
        made: list[Any] = []
        self.keep(original, made)

        def fill() -> None:
            for part, is_plain in self.parts(items):
                if is_plain:
                    made.extend(part)
                else:
                    made.extend([item if type(item) in SAME else self(item) for item in part])

        self.later(fill)
        return made

    def parts(self, content: Any) -> Iterable[tuple[Any, bool]]:
        """Return a content in parts, and whether these are plain data already."""
        pages = getattr(type(content), "plain_pages", None) if self.alone else None
        return ((content, False),) if pages is None else pages(content)

    def as_dict(self, original: Any, content: dict[Any, Any]) -> dict[Any, Any]:
        """Copy a dict-like original with this content."""
        made: dict[Any, Any] = {}
        self.keep(original, made)

        def fill() -> None:
            for part, is_plain in self.parts(content):
                if is_plain:
                    made.update(part)
                    continue
                for key, value in part.items():
                    made[key if type(key) in SAME else self.complete(key)] = (
                        value if type(value) in SAME else self(value)
                    )

        self.later(fill)
        return made

    def as_set(self, original: Any, items: Any) -> set[Any]:
        """Copy a set-like original with these items."""
        made: set[Any] = set()
        self.keep(original, made)

        def fill() -> None:
            for part, is_plain in self.parts(items):
                made.update(part if is_plain else [self.complete(item) for item in part])

        self.later(fill)
        return made

    def as_state(self, state: dict[str, Any]) -> dict[str, Any]:
        """Copy the attributes of an instance."""
        return {name: self(value) for name, value in state.items()}

    def as_tuple(self, value: tuple[Any, ...]) -> tuple[Any, ...]:
        """Copy a tuple, or return the same one when nothing in it had to be copied."""
        made = tuple([item if type(item) in SAME else self(item) for item in value])
        # a cycle through the tuple may have copied it meanwhile
        known = self.memo.get(id(value))
        if known is not None:
            done: tuple[Any, ...] = known
            return done
        if all(a is b for a, b in zip(made, value, strict=True)):
            made = value
        self.keep(value, made)
        return made


# Types whose values are their own copies.
SAME = frozenset((int, str, float, bool, type(None), bytes, complex))

_HANDLERS: dict[type, Callable[[Plain, Any], Any]] = {
    list: lambda plain, value: plain.as_list(value, value),
    dict: lambda plain, value: plain.as_dict(value, value),
    set: lambda plain, value: plain.as_set(value, value),
    tuple: Plain.as_tuple,
}


def reduce_plain(face: Any, protocol: Any = 2) -> Any:
    """Reduce a face for pickle: what is pickled is the plain copy."""
    return _as_is, (plain(face),)


def _as_is(value: Any) -> Any:
    return value


def nodes_in(value: Any) -> list[Node]:
    """Return the nodes that a face, tuple or frozenset refers to directly."""
    node = node_of(value)
    if node is not None:
        return [node]
    if isinstance(value, (tuple, frozenset)):
        return [node for item in value for node in nodes_in(item)]
    if type(type(value)) is MissingType:
        # it stands for what may hold mutables as a tuple does
        found = stream.faces_in(reduction(type(value), kept_of(value)), is_face)
        return [node for face in found if (node := node_of(face)) is not None]
    return []
