"""Adoption: plain values become nodes of a record, copied, never taken over.

Mutables are copied into nodes; immutables stay as they are, unless they hold mutables. A face of
the same record stays itself (an alias, or a move); a face of anything else is copied as its
value. An object that occurs twice becomes one node.
"""

from __future__ import annotations

import datetime
import decimal
import enum
import fractions
import pathlib
import re
import sys
import types
import uuid
from collections.abc import Callable
from typing import Any, TypeAlias

from richstore.codec.missing import MissingType, kept_of
from richstore.codec.sealed import Sealed
from richstore.codec.stream import dump_blob
from richstore.errors import EncodingError, PlacedError
from richstore.node import Node, Spread
from richstore.nodes.base import node_of
from richstore.record import Record
from richstore.transaction import Transaction

__all__ = ["ATOMS", "FEW", "Adopter", "is_atom", "is_plain"]

# Steps from the value that is adopted, innermost last.
Path: TypeAlias = "tuple[Path, str] | None"

# Exact types whose instances are immutable and hold nothing.
ATOMS: frozenset[type] = frozenset(
    (
        int, str, float, bool, type(None), bytes, complex, range, slice, type(...),
        type(NotImplemented), types.GenericAlias, types.UnionType,
        datetime.date, datetime.datetime, datetime.time, datetime.timedelta, datetime.timezone,
        decimal.Decimal, fractions.Fraction, uuid.UUID, re.Pattern, type(pathlib.PurePath()),
        pathlib.PurePosixPath, pathlib.PureWindowsPath, pathlib.PosixPath, pathlib.WindowsPath,
    )
)  # fmt: skip

# So many items are looked at without a thought.
FEW = 32

_CODE = (type, types.FunctionType, types.BuiltinFunctionType, types.MethodType, types.ModuleType)
_IMMUTABLE_BASES = (int, str, float, bytes, complex, datetime.date, datetime.time, decimal.Decimal)


# What `is_plain` looks at before it says no.
_MANY = 1000


def is_plain(value: Any) -> bool:
    """Tell whether a value is a few built-in containers and atoms, so that none runs code."""
    todo = [value]
    seen = 0
    while todo:
        one = todo.pop()
        kind = type(one)
        if kind in ATOMS:
            continue
        if kind is dict:
            todo += one
            todo += one.values()
        elif kind in _BUILTIN:
            todo += one
        else:
            return False
        seen += len(one) + 1
        if seen > _MANY:
            return False
    return True


_BUILTIN = frozenset((list, tuple, set, frozenset))


def is_atom(value: Any) -> bool:
    """Tell whether a value is immutable and holds nothing that is not."""
    kind = type(value)
    if (
        kind in ATOMS
        or kind is Sealed
        or isinstance(value, (enum.Enum, pathlib.PurePath, datetime.tzinfo))
    ):
        return True
    if issubclass(kind, _IMMUTABLE_BASES):
        return not getattr(value, "__dict__", None)
    if type(kind) is MissingType and not kept_of(value).is_node:
        return True
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, numpy.generic)


class Adopter:
    """Adopts values into one record, within one transaction.

    Args:
        transaction: the one in which nodes are born; None while a record is being read.
        record: where they live.
    """

    __slots__ = ("aliases", "births", "checks", "memo", "path", "queue", "record", "tx")

    def __init__(self, transaction: Transaction | None, record: Record) -> None:
        self.tx = transaction
        self.record = record
        # whether a face that existed before has been put somewhere
        self.aliases = False
        self.births: list[Node] = []
        # by id: what an original became, and the original, to keep its id taken
        shared = None if transaction is None else transaction.memo
        self.memo: dict[int, tuple[Any, Any]] = {} if shared is None else shared
        # containers that have a node but no content yet, so that depth costs no stack
        self.queue: list[tuple[Callable[[], None], Path]] | None = None
        # what is done when all of them have
        self.checks: list[tuple[Callable[[], None], Path]] = []
        self.path: Path = None

    def __call__(self, value: Any, step: str = "") -> Any:
        """Return what stands for a value inside the record.

        Args:
            value: anything.
            step: how Python would write the way to it from its container, for errors.

        Raises:
            EncodingError: it cannot be stored.
        """
        kind = type(value)
        if kind in ATOMS:
            return value
        known = self.memo.get(id(value))
        if known is not None:
            self.aliases = True
            return known[0]
        simple = SIMPLE.get(kind)
        if simple is not None and simple.only_atoms(value):
            face = simple.adopt_atoms(self, value)
            self.memo[id(value)] = (face, value)
            return face
        outer = self.path
        self.path = (outer, step)
        try:
            if self.queue is None:
                return self.complete(value)
            result = self._adopt(value, kind)
        except PlacedError as error:
            # once: what comes from inside a deferred container has its whole path already
            if error.path or not self.path:
                raise
            raise error.inside(_written(self.path)) from error.__cause__
        finally:
            self.path = outer
        self.memo[id(value)] = (result, value)
        return result

    def complete(self, value: Any) -> Any:
        """Adopt a value with everything inside, as is needed before it can be hashed."""
        known = self.memo.get(id(value))
        if known is not None:
            return known[0]
        outer_queue, outer_path = self.queue, self.path
        queue: list[tuple[Callable[[], None], Path]] = []
        self.queue = queue
        try:
            result = self._adopt(value, type(value))
            self.memo[id(value)] = (result, value)
            self._run(queue)
            if outer_queue is None:
                self._run(self.checks)
        finally:
            self.queue, self.path = outer_queue, outer_path
            if outer_queue is None:
                self.checks = []
        return result

    def _run(self, queue: list[tuple[Callable[[], None], Path]]) -> None:
        """Do what was put off, and what is put off meanwhile."""
        for fill, path in queue:
            self.path = path
            try:
                fill()
            except PlacedError as error:
                if error.path:
                    raise
                raise error.inside(_written(path)) from error.__cause__

    def at_last(self, check: Callable[[], None]) -> None:
        """Call a function when everything is adopted, with the path that there is now."""
        self.checks.append((check, self.path))

    def later(self, fill: Callable[[], None]) -> None:
        """Fill a container once the one that holds it has its node."""
        assert self.queue is not None
        self.queue.append((fill, self.path))

    def _adopt(self, value: Any, kind: type) -> Any:
        node = node_of(value)
        if node is not None:
            return self._adopt_face(value, node)
        handler = HANDLERS.get(kind)
        if handler is not None:
            return handler(self, value, value)
        if kind is Sealed:
            if not self.record.tracker.seals:
                raise EncodingError(
                    "a Sealed is kept in stores that are opened with key=… alone (and in no "
                    "document); store what it reveals"
                )
            value.check(self.record.tracker.classes)
        if isinstance(value, (tuple, frozenset)) and not getattr(value, "__dict__", None):
            return self._adopt_immutable(value)
        if type(type(value)) is MissingType and not kept_of(value).is_node:
            return INSIDE[0](self, value)
        if is_atom(value):
            return value
        if isinstance(value, _CODE):
            if isinstance(value, types.MethodType):
                raise EncodingError(
                    "a bound method would be stored apart from its object; store the object"
                )
            dump_blob(value, self.record.tracker.classes)
            return value
        refusal = getattr(kind, "_richstore_unstorable", None)
        if refusal is not None:
            # a store, or the like
            raise EncodingError(refusal)
        return HANDLERS[object](self, value, value)

    def _adopt_face(self, face: Any, node: Node) -> Any:
        self.aliases = True
        root = self.record.root
        if node.record is not None and node.record.root is root:
            return face
        home = node.home
        if node.record is None and home is not None and home.root is root and self.tx is not None:
            self._whole_again(node)
            self.tx.revive(self.record, node)
            self.births.append(node)
            self.later(lambda: self._revive_inside(node))
            return face
        return node.kind.adopt(self, face, node)

    @staticmethod
    def _whole_again(node: Node) -> None:
        """Let a spread container that had left the store hold its items itself."""
        content = node.content
        if isinstance(content, Spread):
            kind: Any = node.kind
            whole = content.copy()
            node.content = node.work = whole
            kind.show(node.face, whole)

    def undo(self) -> None:
        """Undo all births: the operation that needed them has failed."""
        if self.tx is not None and not self.tx.ended:
            for node in self.births:
                self.tx.unborn(node)

    def _revive_inside(self, node: Node) -> None:
        for kid in node.kind.scan(node, self):
            self._adopt_face(kid.face, kid)

    def _adopt_immutable(self, value: Any) -> Any:
        if isinstance(value, tuple):
            items: Any = [self(item, f"[{at}]") for at, item in enumerate(value)]
        else:
            items = [self.hashed(item, "{…}") for item in value]
        if all(a is b for a, b in zip(items, value, strict=True)):
            return value
        made = (tuple if isinstance(value, tuple) else frozenset).__new__(type(value), items)
        return made

    def hashed(self, value: Any, step: str) -> Any:
        """Adopt a value that is about to be hashed: a key, or an element of a set."""
        if type(value) in ATOMS:
            return value
        outer = self.path
        self.path = (outer, step)
        try:
            return self.complete(value)
        finally:
            self.path = outer

    def remember(self, original: Any, face: Any) -> None:
        """Note what an original became before its content is adopted, for cycles."""
        self.memo[id(original)] = (face, original)

    def place(self, node: Node) -> None:
        """Give a new node its place in the record."""
        if self.tx is not None:
            self.tx.born(self.record, node)
            self.births.append(node)
        else:
            # not on disk yet, so no other process may take it for one of its nodes
            self.record.take_in(node)
            node.uid = -1


# Filled by `nodes.missing`: what adopts a placeholder that is a part of an immutable value.
INSIDE: list[Callable[[Adopter, Any], Any]] = []

# Also filled by the kinds: built-in container → what adopts one that holds only atoms.
SIMPLE: dict[type, Any] = {}

# Filled by the kinds: exact type → (adopter, original, content) → face; `object` for all others.
HANDLERS: dict[type, Callable[[Adopter, Any, Any], Any]] = {
    tuple: lambda adopter, value, _: adopter._adopt_immutable(value),
    frozenset: lambda adopter, value, _: adopter._adopt_immutable(value),
}


def _written(path: Path) -> str:
    steps = []
    while path is not None:
        path, step = path
        steps.append(step)
    return "".join(reversed(steps))
