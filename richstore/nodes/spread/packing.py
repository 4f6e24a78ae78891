"""Pages of plain items, encoded straight from the items: no node is made of anything.

What is packed are lists, dicts and sets, and instances of ordinary classes, of atoms and of each
other. Everything else, and what occurs a second time, is refused, and is left to adoption. The
bytes are those that adoption and `encoding` would give.

Whether an object can occur again is told by who refers to it. One that is *held* by somebody
besides the container it is in may come again, and so may all that is below it; its place is
remembered.
"""

from __future__ import annotations

import datetime
import enum
import pathlib
from collections.abc import Callable, Container, Iterable
from sys import getrefcount
from typing import Any

from richstore.codec import records, stream
from richstore.codec.classes import class_to_bytes
from richstore.codec.policy import ANY, ClassPolicy
from richstore.errors import PlacedError
from richstore.nodes.adopt import ATOMS, HANDLERS
from richstore.nodes.instance import kind_of
from richstore.nodes.layout import Layout, layout_of

__all__ = ["ALONE", "Packer", "references"]

_HEADS: dict[type, int] = {list: records.LIST, dict: records.DICT, set: records.SET}
_ROWS: dict[int, list[bytes]] = {}
# Classes whose instances are atoms, though they may have attributes.
_ATOMIC_BASES = (enum.Enum, pathlib.PurePath, datetime.tzinfo)
# Marks a slot that a name has.
_NAME = -1
# How deep containers may be inside each other, how many of them a page may have, and how many
# classes of instances.
_DEPTH = 20
_NODES = 4096
_CLASSES = 16
# Names that a page writes once for all its dicts, and how many keys such a dict has at most.
_NAMES = 48
_FIELDS = 32
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


def _rows(heads: list[int]) -> list[bytes]:
    """Return the rows of nodes whose uids are as far from the first of their page as their
    slots.
    """
    for head in set(heads) - {_NAME}:
        known = _ROWS.setdefault(head, [])
        while len(known) < len(heads):
            known.append(records.row(len(known), len(known), head))
    return [_ROWS[head][slot] for slot, head in enumerate(heads) if head != _NAME]


def _packable(cls: type, classes: ClassPolicy) -> Layout | None:
    """Return the layout of a class whose instances are what their `__dict__` has, and no more.

    Raises:
        PlacedError: the class cannot be stored.
    """
    if cls in HANDLERS or hasattr(cls, "_richstore_node_"):
        return None
    layout = layout_of(cls)
    if layout is None or layout.slots or not layout.has_dict or issubclass(cls, _ATOMIC_BASES):
        return None
    try:
        kind = kind_of(layout)
    except TypeError:
        return None
    if not kind.keeps_fragment:
        return None
    class_to_bytes(cls)
    classes.check_storable(cls)
    return layout


def _is_plain(value: Any) -> bool:
    """Tell whether a value is an atom, or a tuple of plain ones."""
    kind = type(value)
    return kind in ATOMS or (kind is tuple and all(map(_is_plain, value)))


class _Pickler(stream.RecordPickler):
    """Writes many contents one behind the other."""

    def __init__(self) -> None:
        super().__init__()
        # tells how much was written
        self.end: Callable[[], int] = self._buffer.tell

    def cut(self, end: int) -> None:
        """Forget what was written from a position on."""
        self._buffer.seek(end)
        self._buffer.truncate()

    def written(self) -> bytes:
        """Return everything that was written."""
        return self._buffer.getvalue()


class Packer:
    """Packs one page after the other.

    Args:
        builtin: list, dict or set: what the pages hold.
        remembered: ids of objects that are on earlier pages.
        limit: bytes of a page that is full.
        classes: says what may be stored.

    Attributes:
        items: the originals on the page so far, as they were given.
        keys: of a dict, the keys.
        size: about how many bytes it has encoded.
        held: objects on it that may occur again, each with its slot.
    """

    def __init__(
        self,
        builtin: type,
        remembered: Container[int],
        limit: float,
        classes: ClassPolicy = ANY,
    ) -> None:
        self.builtin = builtin
        self.remembered = remembered
        self.limit = limit
        self.classes = classes
        self.pickler = _Pickler()
        self.pickler.classes = classes
        self.names: dict[str, int] = {}
        self.candidates: dict[str, int] = {}
        # what gives the attributes of an instance of each class that was met; None: not packed
        self.states: dict[type, Callable[[Any], dict[str, Any]] | None] = {}
        self.begin()

    def begin(self) -> None:
        """Begin an empty page."""
        self.pickler.cut(0)
        self.items: list[Any] = []
        self.keys: list[Any] = []
        self.held: list[tuple[Any, int]] = []
        self.size = _ENVELOPE
        # the heads of its nodes by slot
        self.heads = [_HEADS[self.builtin]]
        self.class_table: dict[type, int] = {}
        # slots in the order in which their contents were written, and where each of these ends
        self.slots: list[int] = []
        self.ends: list[int] = []
        self.faces: dict[int, tuple[int, Any]] = {}
        # how many nodes there were before each item
        self.marks: list[int] = []
        self.written: bytes | None = None
        self._begin_names()

    def _begin_names(self) -> None:
        """Choose the names of the page: keys that dicts on the page before had in common."""
        names = [*self.names, *(name for name, count in self.candidates.items() if count > 1)]
        self.names = {}
        for slot, name in enumerate(names[:_NAMES], 1):
            self.size += len(name) + 5
            if self.size > self.limit / 2:
                break
            self.names[name] = 2 * slot
            self.heads.append(_NAME)
        self.candidates = {}
        # the pickler's memo, by ids of equal strings; and ids that there is nothing to do about
        self.memo = {id(name): (place, name) for name, place in self.names.items()}
        self.pickler.memo = self.memo

    def _note(self, content: dict[Any, Any]) -> None:
        """Look at keys of a dict that are not known to be names."""
        memo, names, candidates = self.memo, self.names, self.candidates
        known = len(memo)
        for key in content:
            if type(key) is not str or id(key) in memo:
                continue
            place = names.get(key)
            if place is not None:
                if known < 4 * _NAMES:
                    memo[id(key)] = (place, key)
            elif key in candidates or len(candidates) < _NAMES:
                candidates[key] = candidates.get(key, 0) + 1
        if len(memo) != known:
            self.pickler.memo = memo

    @property
    def is_full(self) -> bool:
        """Whether the page should take no more."""
        return self.size > self.limit and bool(self.items)

    @property
    def numbers(self) -> int:
        """How many numbers the page takes for its nodes."""
        return len(self.heads)

    def add_flat(self, values: list[Any], held: list[bool], keys: list[Any], at: int) -> int:
        """Take flat containers onto the page until it is full; return where that ends.

        It does what `add` does, faster, and ends before an item that is not a list or dict of
        atoms.

        Args:
            values: what may be taken.
            held: whether somebody refers to each, see `add`.
            keys: of a dict, the keys.
            at: the position of the first.
        """
        heads, faces, slots, ends = self.heads, self.faces, self.slots, self.ends
        items, marks, memo, remembered = self.items, self.marks, self.memo, self.remembered
        dump, tell = self.pickler.dump, self.pickler.end
        is_atoms = ATOMS.issuperset
        size = self.size
        slot = len(heads)
        end = ends[-1] if ends else 0
        limit = self.limit
        for at in range(at, len(values)):  # noqa: B020 - goes on from where it is
            value = values[at]
            kind = type(value)
            if (size > limit and items) or slot >= _NODES:
                break
            if kind is dict:
                # what is looked at is what is written, whoever changes the original meanwhile
                content = value.copy()
                if not (is_atoms(map(type, content.values())) and is_atoms(map(type, content))):
                    break
                if len(content) <= _FIELDS and not all(map(memo.__contains__, map(id, content))):
                    self._note(content)
                head = records.DICT
            elif kind is list:
                content = value.copy()
                if not is_atoms(map(type, content)):
                    break
                head = records.LIST
            else:
                head = self._class_head(kind)
                state = self.states[kind]
                if not head or state is None:
                    break
                content = state(value).copy()
                if not (is_atoms(map(type, content.values())) and is_atoms(map(type, content))):
                    break
                if len(content) <= _FIELDS and not all(map(memo.__contains__, map(id, content))):
                    self._note(content)
            if held[at]:
                if id(value) in faces or id(value) in remembered:
                    break
                self.held.append((value, slot))
            try:
                dump(content)
            except Exception:  # noqa: BLE001 - adopting it will say what is wrong, and where
                self._back_to(slot)
                break
            start, end = end, tell()
            if keys:
                self.keys.append(keys[at])
                size += self._weigh(keys[at])
            heads.append(head)
            faces[id(value)] = (2 * slot + 1, value)
            slots.append(slot)
            ends.append(end)
            items.append(value)
            marks.append(slot)
            size += end - start + (_ROW - _FRAME + 2 if slot < 128 else _ROW - _FRAME + 5)
            slot += 1
        else:
            at = len(values)
        self.size = size
        return at

    def _class_head(self, cls: type) -> int:
        """Return the head of instances of a class; 0: they cannot be packed."""
        head = self.class_table.get(cls)
        if head is not None:
            return head
        if cls not in self.states:
            try:
                layout = None if self.builtin is set else _packable(cls, self.classes)
            except PlacedError:
                layout = None
            self.states[cls] = None if layout is None else layout.dict_descriptor.__get__
        if self.states[cls] is None or len(self.class_table) >= _CLASSES:
            return 0
        head = self.class_table[cls] = records.FIRST_CLASS + len(self.class_table)
        return head

    def add(self, value: Any, held: bool, key: Any = _MISSING) -> bool:
        """Take an item onto the page; return False, and do nothing, when it is refused.

        Args:
            value: anything.
            held: whether somebody refers to it who may give it to us again.
            key: of a dict, an atom or a tuple of such.
        """
        mark = len(self.heads)
        kind = type(value)
        try:
            if _is_plain(value):
                self.size += self._weigh(value)
            elif self._pack(value, kind, held, 0):
                self.size += 2 if mark < 128 else 5
            else:
                self._back_to(mark)
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
        head = _HEADS.get(kind) or self._class_head(kind)
        if not head or (held and (id(value) in self.faces or id(value) in self.remembered)):
            return False
        # what is looked at is what is written, whoever changes the original meanwhile
        state = self.states.get(kind)
        content = (value if state is None else state(value)).copy()
        is_dict = type(content) is dict
        inside = content.values() if is_dict else content
        is_flat = ATOMS.issuperset(map(type, inside))
        odd = is_dict and not ATOMS.issuperset(map(type, content))
        if odd and not all(map(_is_plain, content)):
            return False
        if is_dict and len(content) <= _FIELDS:
            self._note(content)
        slot = len(self.heads)
        if slot >= _NODES or depth > _DEPTH:
            return False
        self.heads.append(head)
        self.faces[id(value)] = (2 * slot + 1, value)
        if held:
            self.held.append((value, slot))
        if not is_flat and not self._pack_inside(inside, kind, held, depth):
            return False
        pickler = self.pickler
        pickler.dump(content)
        if not is_flat:
            pickler.memo = self.memo
        start = self.ends[-1] if self.ends else 0
        end = pickler.end()
        self.slots.append(slot)
        self.ends.append(end)
        self.size += end - start - _FRAME + _ROW
        return True

    def _pack_inside(self, inside: Any, kind: type, held: bool, depth: int) -> bool:
        """Pack what is in a container, so that it is referred to when that is written."""
        inner = [one for one in inside if type(one) not in ATOMS]
        memo = self.memo.copy()
        for one, count in zip(inner, references(inner), strict=True):
            # its container, the copy of that, and `inner` refer to it
            is_held = held or count > ALONE + 2
            if _is_plain(one):
                continue
            if kind is set or not self._pack(one, type(one), is_held, depth + 1):
                return False
            memo[id(one)] = self.faces[id(one)]
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

    def _back_to(self, nodes: int) -> None:
        """Take everything off the page from a slot on."""
        while self.held and self.held[-1][1] >= nodes:
            self.held.pop()
        while len(self.heads) > nodes:
            self.heads.pop()
            self.faces.popitem()
        while self.slots and self.slots[-1] >= nodes:
            self.slots.pop()
            self.ends.pop()
        self.pickler.cut(self.ends[-1] if self.ends else 0)
        self.pickler.memo = self.memo

    def cut(self, count: int) -> None:
        """Take items off the end of the page, and leave so many; it takes no more after that."""
        if self.written is None:
            self.written = self.pickler.written()
        self._back_to(self.marks[count])
        del self.items[count:], self.keys[count:], self.marks[count:]

    def encode(self, name: bytes, base: int) -> bytes:
        """Return the encoded page; it takes no more after that.

        Args:
            name: its engine key.
            base: the number of its container; those of its other nodes follow.

        Raises:
            EncodingError: pickle refuses an item.
        """
        written = self.written
        if written is None:
            written = self.written = self.pickler.written()
        # what looks like a reference may be part of a string; one that is missing is not there
        self.names = {
            name: place for name, place in self.names.items() if stream.reference(place) in written
        }
        fragments = [stream.name_fragment(place, name) for name, place in self.names.items()]
        is_object = [self.heads[slot] >= records.FIRST_CLASS for slot in self.slots]
        fragments += stream.written_fragments(self.slots, self.ends, is_object, written)
        content = (
            dict(zip(self.keys, self.items, strict=True))
            if self.builtin is dict
            else self.builtin(self.items)
        )
        self.pickler.memo = self.faces
        fragments.append(stream.fill_fragment(0, self.pickler.body(content)))
        return _assemble(name, _rows(self.heads), base, fragments, self.class_table)

    def encode_atoms(self, name: bytes, base: int, items: list[Any]) -> bytes:
        """Return an encoded page of a list of atoms.

        Raises:
            EncodingError: pickle refuses an item.
        """
        body = self.pickler.body(items)
        self.pickler.cut(0)
        fragment = stream.fill_fragment(0, body)
        return _assemble(name, _rows([records.LIST]), base, [fragment])


def _assemble(
    name: bytes,
    rows: list[bytes],
    base: int,
    fragments: list[bytes],
    classes: Iterable[type] = (),
) -> bytes:
    root = stream.reference(1)
    table = [class_to_bytes(cls) for cls in classes]
    return records.encode(name, None, None, rows, len(rows), base, table, [], fragments, root)
