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
# How deep containers may be inside each other, and how many of them a page may have.
_DEPTH = 20
_NODES = 4096
# Bytes of a page besides its contents, and of a row of its table.
_ENVELOPE = 48
_ROW = 6
# What the pickler puts around a content that is not part of the page.
_FRAME = 9
_MISSING: Any = object()


def references(values: list[Any]) -> list[int]:
    """Return how many references there are to each value of a list."""
    return list(map(getrefcount, values))


# What `references` says of an object that only the list refers to.
ALONE = references([object()])[0]


def _row(slot: int, head: int) -> bytes:
    """Return the row of a node whose uid is as far from the first of its page as its slot."""
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

    def cut(self, end: int) -> None:
        """Forget what was written from a position on."""
        self._buffer.seek(end)
        self._buffer.truncate()

    def written(self) -> bytes:
        """Return everything that was written."""
        return self._buffer.getvalue()

    def end(self) -> int:
        """Return how much was written."""
        return self._buffer.tell()


class Packer:
    """Packs one page after the other.

    Args:
        builtin: list, dict or set: what the pages hold.
        remembered: ids of objects that are on earlier pages.

    Attributes:
        items: the originals on the page so far, as they were given.
        keys: of a dict, the keys.
        size: about how many bytes it has encoded.
        held: objects on it that may occur again, each with its slot.
    """

    def __init__(self, builtin: type, remembered: Container[int]) -> None:
        self.builtin = builtin
        self.remembered = remembered
        self.pickler = _Pickler()
        self.begin()

    def begin(self) -> None:
        """Begin an empty page."""
        self.pickler.cut(0)
        self.pickler.memo = {}
        self.items: list[Any] = []
        self.keys: list[Any] = []
        self.held: list[tuple[Any, int]] = []
        self.size = _ENVELOPE
        # the heads of its nodes by slot
        self.heads = [_HEADS[self.builtin]]
        # slots in the order in which their contents were written, and where each of these ends
        self.slots: list[int] = []
        self.ends: list[int] = []
        self.faces: dict[int, tuple[int, Any]] = {}
        # how many nodes and held objects there were, and the size, before each item
        self.marks: list[tuple[int, int, int]] = []
        self._contents: bytes | None = None

    @property
    def nodes(self) -> int:
        """How many nodes the page has, its own container included."""
        return len(self.heads)

    def add(self, value: Any, held: bool, key: Any = _MISSING) -> bool:
        """Take an item onto the page; return False, and do nothing, when it is refused.

        Args:
            value: anything.
            held: whether somebody refers to it who may give it to us again.
            key: of a dict, an atom or a tuple of such.
        """
        mark = (len(self.heads), len(self.held), self.size)
        kind = type(value)
        try:
            if kind in _HEADS:
                if not self._pack(value, kind, held, 0):
                    self._back_to(mark)
                    return False
                self.size += 2 if mark[0] < 128 else 5
            elif _is_plain(value):
                self.size += self._weigh(value)
            else:
                return False
            if key is not _MISSING:
                self.size += self._weigh(key)
                self.keys.append(key)
        except Exception:  # noqa: BLE001 - adopting it will say what is wrong, and where
            self._back_to(mark)
            return False
        self.items.append(value)
        self.marks.append(mark)
        return True

    def _pack(self, value: Any, kind: type, held: bool, depth: int) -> bool:
        if held and (id(value) in self.faces or id(value) in self.remembered):
            return False
        # what is looked at is what is written, whoever changes the original meanwhile
        content = value.copy()
        inside = content.values() if kind is dict else content
        is_flat = ATOMS.issuperset(map(type, inside))
        if kind is dict and not ATOMS.issuperset(map(type, content)):
            if not all(map(_is_plain, content)):
                return False
        slot = len(self.heads)
        if slot >= _NODES or depth > _DEPTH:
            return False
        self.heads.append(_HEADS[kind])
        self.faces[id(value)] = (2 * slot + 1, value)
        if held:
            self.held.append((value, slot))
        if not is_flat and not self._pack_inside(inside, kind, held, depth):
            return False
        pickler = self.pickler
        pickler.dump(content)
        start = self.ends[-1] if self.ends else 0
        end = pickler.end()
        self.slots.append(slot)
        self.ends.append(end)
        self.size += end - start - _FRAME + _ROW
        return True

    def _pack_inside(self, inside: Any, kind: type, held: bool, depth: int) -> bool:
        """Pack what is in a container, so that it is referred to when that is written."""
        inner = [one for one in inside if type(one) not in ATOMS]
        memo: dict[int, tuple[int, Any]] = {}
        for one, count in zip(inner, references(inner), strict=True):
            # its container, the copy of that, and `inner` refer to it
            is_held = held or count > ALONE + 2
            if type(one) in _HEADS:
                if kind is set or not self._pack(one, type(one), is_held, depth + 1):
                    return False
                memo[id(one)] = self.faces[id(one)]
            elif not _is_plain(one):
                return False
        self.pickler.memo = memo
        return True

    def _weigh(self, value: Any) -> int:
        """Return about how many bytes an atom has encoded."""
        kind = type(value)
        if kind is str:
            size = len(value) if value.isascii() else 3 * len(value)
            return size + (2 if size < 256 else 5)
        if kind is int:
            if 0 <= value < 65536:
                return 2 if value < 256 else 3
            bits = value.bit_length()
            return 5 if bits < 32 else 3 + bits // 8
        if kind is float:
            return 9
        if value is None or kind is bool:
            return 1
        start = self.pickler.end()
        self.pickler.dump(value)
        size = self.pickler.end() - start
        self.pickler.cut(start)
        return size

    def _back_to(self, mark: tuple[int, int, int]) -> None:
        nodes, held, self.size = mark
        del self.heads[nodes:], self.held[held:]
        while len(self.faces) >= nodes:
            self.faces.popitem()
        while self.slots and self.slots[-1] >= nodes:
            self.slots.pop()
            self.ends.pop()
        self.pickler.cut(self.ends[-1] if self.ends else 0)

    def cut(self, count: int) -> None:
        """Take items off the end of the page, and leave so many."""
        mark = self.marks[count]
        self._back_to(mark)
        del self.items[count:], self.keys[count:], self.marks[count:]

    def encode(self, name: bytes, base: int) -> bytes:
        """Return the encoded page.

        Args:
            name: its engine key.
            base: the number of its container; those of its other nodes follow.

        Raises:
            EncodingError: pickle refuses an item.
        """
        contents = self._contents
        if contents is None:
            contents = self._contents = self.pickler.written()
        fragments: list[bytes] = []
        start = 0
        fill = records.fill_fragment
        for slot, end in zip(self.slots, self.ends, strict=True):
            # protocol, frame, and from the opcode that makes the container to the one before STOP
            body = start + (11 if contents[start + 2] == 0x95 else 2)
            fragments.append(fill(slot, contents[body : end - 1]))
            start = end
        content = (
            dict(zip(self.keys, self.items, strict=True))
            if self.builtin is dict
            else self.builtin(self.items)
        )
        self.pickler.memo = self.faces
        fragments.append(fill(0, self.pickler.body(content)))
        rows = [_row(slot, head) for slot, head in enumerate(self.heads)]
        return _assemble(name, rows, base, fragments)

    def encode_atoms(self, name: bytes, base: int, items: list[Any]) -> bytes:
        """Return an encoded page of a list of atoms.

        Raises:
            EncodingError: pickle refuses an item.
        """
        self.pickler.memo = {}
        body = self.pickler.body(items)
        self.pickler.cut(0)
        fragment = records.fill_fragment(0, body)
        return _assemble(name, [_row(0, records.LIST)], base, [fragment])


def _assemble(name: bytes, rows: list[bytes], base: int, fragments: list[bytes]) -> bytes:
    return records.encode(
        name, None, None, rows, base, (), [], fragments, records.reference(1)
    )
