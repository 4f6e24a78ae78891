"""Pages of plain items, encoded straight from the items: no node is made of anything.

What is packed are lists, dicts and sets of atoms and of each other. Everything else, and what occurs
a second time, is refused, and is left to adoption. The bytes are those that adoption and `encoding`
would give.

Whether an object can occur again is told by who refers to it. One that is *held* by somebody besides
the container it is in may come again, and so may all that is below it; its place is remembered.
"""

from __future__ import annotations

from collections.abc import Container
from sys import getrefcount
from typing import Any

from richstore.codec import records
from richstore.nodes.adopt import ATOMS

__all__ = ["ALONE", "Packer", "references"]

_HEADS: dict[type, int] = {list: records.LIST, dict: records.DICT, set: records.SET}
_ROWS: dict[int, list[bytes]] = {head: [] for head in _HEADS.values()}
# How deep containers may be inside each other, and how many there may be on a page.
_DEPTH = 20
_NODES = 4096
# Bytes of a page besides its fragments, of a row of its table, and what frames one pickle.
_ENVELOPE = 48
_ROW = 6


def references(values: list[Any]) -> list[int]:
    """Return how many references there are to each value of a list, that of the list included."""
    return list(map(getrefcount, values))


# What `references` says of an object that only the list refers to.
ALONE = references([object()])[0]


def _row(slot: int, head: int) -> bytes:
    """Return the row of a node whose slot is also its number, counted from that of the page."""
    rows = _ROWS[head]
    while len(rows) <= slot:
        rows.append(records.row(len(rows), len(rows), head))
    return rows[slot]


def _is_plain(value: Any) -> bool:
    """Tell whether a value is an atom, or a tuple of plain ones."""
    kind = type(value)
    return kind in ATOMS or (kind is tuple and all(map(_is_plain, value)))


class _Pickler(records.RecordPickler):
    """Writes many contents one behind the other."""

    def begin_page(self) -> None:
        """Forget what was written."""
        self._buffer.seek(0)
        self._buffer.truncate()

    def written(self) -> bytes:
        """Return everything that was written."""
        return self._buffer.getvalue()

    def end(self) -> int:
        """Return how much was written."""
        return self._buffer.tell()


class Packer:
    """One page after the other.

    Args:
        builtin: list, dict or set.
        remembered: ids of the objects that are on earlier pages.

    Attributes:
        items: what the page holds so far.
        size: bytes it would have encoded, more or less.
        held: objects on it that may occur again, each with its slot.
    """

    def __init__(self, builtin: type, remembered: Container[int]) -> None:
        self.builtin = builtin
        self.remembered = remembered
        self.pickler = _Pickler()
        self.dump = self.pickler.dump
        self.begin()

    def begin(self) -> None:
        """Begin an empty page."""
        self.pickler.begin_page()
        self.items: Any = self.builtin()
        self.held: list[tuple[Any, int]] = []
        self.size = _ENVELOPE
        # heads of its nodes by slot, and where each one's content ends in what was pickled
        self.heads = [_HEADS[self.builtin]]
        self.ends: list[int] = []
        self.faces: dict[int, tuple[int, Any]] = {}
        # slots in the order of their contents
        self.slots: list[int] = []
        self.marks: list[tuple[int, int, int]] = []

    @property
    def nodes(self) -> int:
        """How many nodes the page has, its own container included."""
        return len(self.heads)

    def add(self, value: Any, held: bool) -> bool:
        """Take a value onto the page, to be put among `items`; return False when it is refused.

        Args:
            value: anything.
            held: whether somebody refers to it who may give it to us again.
        """
        mark = (len(self.heads), len(self.held), self.size)
        kind = type(value)
        if kind in ATOMS:
            self.size += self._weigh(value)
        elif kind is tuple:
            if not _is_plain(value):
                return False
            self.size += len(self.pickler.body_of(value)) if False else self._weigh(value)
        elif not self._pack(value, kind, held, 0):
            self._back_to(mark)
            return False
        self.marks.append(mark)
        return True
