"""How containers that spread over many records are laid out: names, the counted tree, the
directory.

A container that has outgrown its record keeps only a number there, its *spread id*. Its items are
in **pages**, records that hold a plain list, dict or set of some of them, in order. What leads to a
page are **cells**, small values of the engine that are no records:

- of a list: a **counted tree**. An *index* holds the ids of its children, pages or indexes, and how
  many items are below each. What is below the last child of the last index of each level is not
  counted (0 stands there): it is asked of the last page, so that appending to a page touches only
  that page.
- of a dict or set: the **directory**. Ids of pages are in the order of the pages; a cell per key
says
  which page has it, and one cell how many keys there are and which page is the last.

Nothing here is kept anywhere: functions get cells through a `Cells` and put changed ones back. An
index is never changed in place.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator
from hashlib import blake2b
from itertools import accumulate
from typing import Any, Protocol
from zlib import crc32

from richstore.codec import keys, records
from richstore.errors import CorruptionError, KeyTypeError

__all__ = [
    "AFTER_SHARED",
    "CELL",
    "ENTRY",
    "FANOUT",
    "PAGE",
    "RECLAIM",
    "SHARED",
    "STEP",
    "Cells",
    "Directory",
    "Index",
    "Step",
    "Tree",
    "cell_name",
    "delete_pages",
    "entry_form",
    "entry_name",
    "page_name",
    "read_cell",
]

# First bytes of engine keys; a spread id of 8 bytes follows, big-endian, as all ids in names.
PAGE = b"\x20"
ENTRY = b"\x21"
CELL = b"\x22"
SHARED = b"\x23"
AFTER_SHARED = b"\x24"
RECLAIM = b"\x25"

# Children of an index.
FANOUT = 200
# Between the ids of neighbouring pages of a dict or set, so that a page can be split in place.
STEP = 1 << 32

_INDEX = 1
_DIRECTORY = 2
_HEAD = struct.Struct("<BBI")
_DIR = struct.Struct("<BQQ")
_SUM = struct.Struct("<I")


def page_name(cid: int, pid: int) -> bytes:
    """Return the engine key of a page."""
    return PAGE + cid.to_bytes(8, "big") + pid.to_bytes(8, "big")


def cell_name(cid: int, iid: int | None = None) -> bytes:
    """Return the engine key of the root index or directory, or of an index below the root."""
    name = CELL + cid.to_bytes(8, "big")
    return name if iid is None else name + iid.to_bytes(8, "big")


def entry_name(cid: int, form: bytes) -> bytes:
    """Return the engine key of the cell that says which page has a key."""
    return ENTRY + cid.to_bytes(8, "big") + form


# Types whose equality the order-preserving form of a key tells.
_PLAIN = frozenset((str, int, bytes, bool, float, type(None), tuple))


def entry_form(key: Any) -> bytes | None:
    """Return bytes that two keys share iff they are equal; None when that cannot be told.

    Only for types that are equal to nothing outside this set: no other type says it equals one.
    """
    kind = type(key)
    if kind not in _PLAIN or (kind is tuple and not _is_plain(key)):
        return None
    try:
        form = keys.full_key(key)
    except KeyTypeError:
        return None
    if len(form) <= 64:
        return form
    return form[:48] + b"\xff" + blake2b(form, digest_size=16).digest()


def _is_plain(key: tuple[Any, ...]) -> bool:
    return all(
        type(item) in _PLAIN and (type(item) is not tuple or _is_plain(item)) for item in key
    )


class Index:
    """One index of a counted tree.

    Args:
        level: 0 when its children are pages.
        ids: its children.
        counts: the number of items below each.
    """

    __slots__ = ("_sums", "counts", "ids", "level")

    def __init__(self, level: int, ids: list[int], counts: list[int]) -> None:
        self.level = level
        self.ids = ids
        self.counts = counts
        self._sums: list[int] | None = None

    def find(self, at: int) -> tuple[int, int]:
        """Return which child has the item at a position, and its position below that."""
        sums = self._sums
        if sums is None:
            sums = self._sums = list(accumulate(self.counts[:-1]))
        child = bisect_right(sums, at)
        return child, at - (sums[child - 1] if child else 0)

    @property
    def counted(self) -> int:
        """The number of items below all children but the last."""
        sums = self._sums
        if sums is None:
            sums = self._sums = list(accumulate(self.counts[:-1]))
        return sums[-1] if sums else 0

    def to_bytes(self) -> bytes:
        """Return what is stored."""
        numbers = array("Q", (*self.ids, *self.counts))
        if _BIG_ENDIAN:
            numbers.byteswap()
        return _summed(_HEAD.pack(_INDEX, self.level, len(self.ids)) + numbers.tobytes())


class Directory:
    """The root cell of a spread dict or set.

    Args:
        count: the number of keys.
        last: the id of the last page.
    """

    __slots__ = ("count", "last")

    def __init__(self, count: int, last: int) -> None:
        self.count = count
        self.last = last

    def to_bytes(self) -> bytes:
        """Return what is stored."""
        return _summed(_DIR.pack(_DIRECTORY, self.count, self.last))


def _summed(body: bytes) -> bytes:
    """Return the body of a cell with its checksum in front."""
    return _SUM.pack(crc32(body)) + body


_BIG_ENDIAN = struct.pack("=H", 1) == b"\x00\x01"


def read_cell(name: bytes, stored: bytes | None) -> Any:
    """Return the index or directory in a cell, None when there is none.

    Raises:
        CorruptionError: it is neither.
    """
    if stored is None:
        return None
    try:
        (checksum,) = _SUM.unpack_from(stored)
        body = stored[_SUM.size :]
        if crc32(body) != checksum:
            raise CorruptionError(
                f"the cell {name!r} does not have the checksum it was written with"
            )
        if body[0] == _DIRECTORY:
            _, count, last = _DIR.unpack(body)
            return Directory(count, last)
        tag, level, size = _HEAD.unpack_from(body)
        numbers = array("Q")
        numbers.frombytes(body[_HEAD.size :])
        if _BIG_ENDIAN:
            numbers.byteswap()
        if tag == _INDEX and len(numbers) == 2 * size and size:
            return Index(level, numbers[:size].tolist(), numbers[size:].tolist())
    except (struct.error, IndexError, ValueError):
        pass
    raise CorruptionError(f"the cell {name!r} holds neither an index nor a directory")


class Cells(Protocol):
    """Where the cells of a state are."""

    def cell(self, name: bytes) -> Any:
        """Return an index or directory, or None."""

    def set_cell(self, name: bytes, value: Any) -> None:
        """Put one, or None to delete it."""


# A cell's name, the index in it, and which of its children the way goes through.
Step = tuple[bytes, Index, int]


class Tree:
    """The counted tree of one spread list; a B+ tree over the positions of its items.

    Args:
        cells: where its cells are.
        cid: its spread id.
    """

    __slots__ = ("cells", "cid", "root")

    def __init__(self, cells: Cells, cid: int) -> None:
        self.cells = cells
        self.cid = cid
        self.root = cell_name(cid)

    def _index(self, name: bytes) -> Index:
        found = self.cells.cell(name)
        if not isinstance(found, Index):
            raise CorruptionError(f"the index {name!r} of a spread list is missing")
        return found

    def _below(self, index: Index, name: bytes, seen: set[int] | None = None) -> Index:
        """Return an index that another one has as a child: no circle of them, and none twice.

        Args:
            index: the other one.
            name: of the cell.
            seen: those that have been visited, each of which has one place in the tree.
        """
        found = self._index(name)
        known = 0 if seen is None else len(seen)
        if seen is not None:
            seen.add(int.from_bytes(name[-8:], "big"))
        if found.level != index.level - 1 or (seen is not None and len(seen) == known):
            raise CorruptionError(f"the index {name!r} of a spread list is not where it belongs")
        return found

    def locate(self, at: int) -> tuple[int, int, list[Step]]:
        """Return the page that has a position, the position in it, and the way to the page.

        A position beyond the last counted one is in the last page, or beyond its end.
        """
        path: list[Step] = []
        name = self.root
        index = self._index(name)
        while True:
            child, at = index.find(at)
            path.append((name, index, child))
            pid = index.ids[child]
            if index.level == 0:
                return pid, at, path
            name = cell_name(self.cid, pid)
            index = self._below(index, name)

    def last(self) -> tuple[int, int, list[Step]]:
        """Return the last page, how many items are before it, and the way to it."""
        path: list[Step] = []
        name = self.root
        before = 0
        index = self._index(name)
        while True:
            before += index.counted
            path.append((name, index, len(index.ids) - 1))
            pid = index.ids[-1]
            if index.level == 0:
                return pid, before, path
            name = cell_name(self.cid, pid)
            index = self._below(index, name)

    def pages(self, reverse: bool = False) -> Iterator[int]:
        """Yield the ids of the pages in order."""
        yield from self._pages(self._index(self.root), reverse, set())

    def _pages(self, index: Index, reverse: bool, seen: set[int]) -> Iterator[int]:
        ids = reversed(index.ids) if reverse else index.ids
        for child in ids:
            if index.level == 0:
                yield child
            else:
                below = self._below(index, cell_name(self.cid, child), seen)
                yield from self._pages(below, reverse, seen)

    def cells_below(self) -> Iterator[tuple[bytes, Index]]:
        """Yield all indexes, each with its name."""
        seen: set[int] = set()
        found = [(self.root, self._index(self.root))]
        while found:
            name, index = found.pop()
            yield name, index
            if index.level:
                names = [cell_name(self.cid, child) for child in index.ids]
                found += [(name, self._below(index, name, seen)) for name in names]

    def path_to(self, pid: int, hint: list[bytes] | None = None) -> list[Step] | None:
        """Return the way to a page, None when it is not in the tree.

        Args:
            pid: the page.
            hint: the names of the indexes on the way to it some time ago.
        """
        if hint:
            path: list[Step] = []
            wanted = [int.from_bytes(name[-8:], "big") for name in hint[1:]] + [pid]
            for name, child in zip(hint, wanted, strict=True):
                index = self.cells.cell(name)
                if not isinstance(index, Index) or child not in index.ids:
                    break
                path.append((name, index, index.ids.index(child)))
            else:
                if path[-1][1].level == 0 and path[0][1].level == len(path) - 1:
                    return path
        return self._search(self.root, self._index(self.root), pid, set())

    def _search(self, name: bytes, index: Index, pid: int, seen: set[int]) -> list[Step] | None:
        if index.level == 0:
            return [(name, index, index.ids.index(pid))] if pid in index.ids else None
        for at, child in enumerate(index.ids):
            below = cell_name(self.cid, child)
            found = self._search(below, self._below(index, below, seen), pid, seen)
            if found is not None:
                return [(name, index, at), *found]
        return None

    def add(self, path: list[Step], delta: int) -> None:
        """Count items that were put into the page at the end of a way, or taken out of it."""
        rightmost = True
        for name, index, child in path:
            rightmost = rightmost and child == len(index.ids) - 1
            if not rightmost:
                counts = index.counts.copy()
                counts[child] += delta
                self.cells.set_cell(name, Index(index.level, index.ids, counts))

    def replace(
        self,
        path: list[Step],
        upto: int,
        children: list[tuple[int, int]],
        new_id: Callable[[], int],
    ) -> None:
        """Put children in the place of the one at the end of a way.

        Args:
            path: the way.
            upto: the child after the last one that is replaced.
            children: ids, and how many items are below each; the sum stays what it was.
            new_id: gives the ids of new indexes.
        """
        name, index, child = path[-1]
        rightmost = all(at == len(one.ids) - 1 for _, one, at in path[:-1])
        ids = index.ids[:child] + [one for one, _ in children] + index.ids[upto:]
        counts = index.counts[:child] + [count for _, count in children] + index.counts[upto:]
        if not ids:
            self.cells.set_cell(name, None)
            if len(path) > 1:
                self.replace(path[:-1], path[-2][2] + 1, [], new_id)
            return
        if rightmost:
            counts[-1] = 0
        if len(ids) <= FANOUT:
            self.cells.set_cell(name, Index(index.level, ids, counts))
            self._collapse()
            return
        # a tree that grows at its end has full indexes, any other halves
        at_end = rightmost and child >= len(index.ids) - 1
        size = FANOUT if at_end else (len(ids) + 1) // -(-len(ids) // FANOUT)
        groups = [
            Index(index.level, ids[at : at + size], counts[at : at + size])
            for at in range(0, len(ids), size)
        ]
        sums = [sum(group.counts) for group in groups]
        first = new_id() if len(path) == 1 else int.from_bytes(name[-8:], "big")
        numbers = [first] + [new_id() for _ in groups[1:]]
        for number, group in zip(numbers, groups, strict=True):
            self.cells.set_cell(cell_name(self.cid, number), group)
        made = list(zip(numbers, sums, strict=True))
        if len(path) == 1:
            if rightmost:
                sums[-1] = 0
            self.cells.set_cell(name, Index(index.level + 1, numbers, sums))
        else:
            self.replace(path[:-1], path[-2][2] + 1, made, new_id)

    def _collapse(self) -> None:
        """Let a root with one index below it be that index."""
        root = self._index(self.root)
        while root.level and len(root.ids) == 1:
            below = cell_name(self.cid, root.ids[0])
            root = self._index(below)
            self.cells.set_cell(below, None)
            self.cells.set_cell(self.root, root)

    def build(self, pages: list[tuple[int, int]], new_id: Callable[[], int]) -> None:
        """Make the tree of pages, each with its number of items."""
        level = 0
        while len(pages) > FANOUT:
            above: list[tuple[int, int]] = []
            for at in range(0, len(pages), FANOUT):
                group = pages[at : at + FANOUT]
                counts = [count for _, count in group]
                if at + FANOUT >= len(pages):
                    counts[-1] = 0
                number = new_id()
                index = Index(level, [one for one, _ in group], counts)
                self.cells.set_cell(cell_name(self.cid, number), index)
                above.append((number, sum(counts)))
            pages = above
            level += 1
        counts = [count for _, count in pages]
        counts[-1] = 0
        self.cells.set_cell(self.root, Index(level, [one for one, _ in pages], counts))


def delete_pages(engine: Any, cid: int, first: int, last: int) -> None:
    """Delete pages of a spread container that a write transaction has put, and what leads to them.

    Args:
        engine: the write transaction.
        cid: the spread id.
        first: the id of the first page; 0: everything there is of the container.
        last: the id of the last page.
    """
    for name, stored in engine.scan(page_name(cid, first), page_name(cid, last) + b"\0"):
        engine.delete(name)
        content = records.shape(records.parse(name, stored, check=False)) if first else ()
        for key in content if not isinstance(content, list) else ():
            entry = entry_name(cid, entry_form(key) or b"")
            if engine.get(entry) == name[9:]:
                engine.delete(entry)
    if not first:
        for kind in (ENTRY, CELL):
            mark = kind + cid.to_bytes(8, "big")
            end = kind + (cid + 1).to_bytes(8, "big")
            for name, _ in engine.scan(mark, end):
                engine.delete(name)
