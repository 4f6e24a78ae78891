"""The free pages of a file, read from its bytes; the table of readers, read from LMDB's text.

LMDB keeps a second tree in the file: per commit the numbers of the pages that it freed. They are
written to again as soon as no reader sees an older state. Neither that tree nor the table of
readers is in lmdb's interface, but the first is in the file and the second can be printed.

The rule: nothing is changed, and the file is read only while a read transaction of the same
commit is open, which keeps the tree from being overwritten. Knows LMDB's data format 1 on machines
of 64 bits (`MDB_page`, `MDB_node`, `MDB_meta` in mdb.c) and nothing of transactions.
"""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from richstore.errors import CorruptionError

__all__ = [
    "HEADER",
    "LEAF",
    "NO_PAGE",
    "FreePages",
    "Head",
    "OldestReader",
    "count_free_pages",
    "heads",
    "missing_pages",
    "nodes",
    "oldest_reader",
]

# page: number, pad, flags, end of the node offsets, start of the nodes (or pages of an overflow)
HEADER = struct.Struct("=QHHHH")
LEAF = 0x02
# node: low and high half of the size of the value (of the number of the page below), flags, size
# of the key
_NODE = struct.Struct("=HHHH")
_FAR = 0x01
_WORD = struct.Struct("=Q")
# meta: magic number, version, address, size of the map, then two of these trees, free and main,
# the last page, the commit
_META = struct.Struct("=IIQQ")
# tree: pad, flags, depth, branch pages, leaf pages, overflow pages, entries, root
_TREE = struct.Struct("=IHHQQQQQ")
_TAIL = struct.Struct("=QQ")
NO_PAGE = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class FreePages:
    """What one commit left free, and what it knew of the file."""

    commit: int
    last_page: int
    entries: int
    freed: dict[int, int]
    """How many pages each commit has freed, of those that are still free."""

    def pinned_by(self, commit: int | None) -> int:
        """Return how many free pages wait for a reader on the state after a commit.

        One on the latest state keeps none.
        """
        if commit is None or commit >= self.commit:
            return 0
        return sum(count for freed_by, count in self.freed.items() if freed_by >= commit)


def count_free_pages(fd: int, page_size: int, commit: int) -> FreePages | None:
    """Return what is free after a commit on which a read transaction is open.

    Args:
        fd: a descriptor of the file.
        page_size: bytes.
        commit: the number of the commit.

    Returns:
        None if the file has moved on by two commits since, or is of a machine of 32 bits.

    Raises:
        CorruptionError: the list of free pages is no such list.
    """
    if struct.calcsize("P") != 8:
        return None
    # commits write to the two pages in turn
    meta = os.pread(fd, page_size, commit % 2 * page_size)
    place = HEADER.size + _META.size
    free = _TREE.unpack_from(meta, place)
    main = _TREE.unpack_from(meta, place + _TREE.size)
    last_page, number = _TAIL.unpack_from(meta, place + 2 * _TREE.size)
    if number != commit:
        return None
    freed: dict[int, int] = {}
    waiting = [] if free[-1] == NO_PAGE else [free[-1]]
    for freed_by, _, count in _lists(fd, page_size, waiting, last_page):
        freed[freed_by] = count
    return FreePages(commit, last_page, main[-2], freed)


@dataclass(frozen=True, slots=True)
class Head:
    """One of the two heads of a file: where the state after a commit is."""

    commit: int
    last_page: int
    free_root: int
    main_root: int


def heads(fd: int) -> tuple[int, list[Head]]:
    """Return the size of a page, and the two heads of a file."""
    place = HEADER.size + _META.size
    # the size of a page is where other trees have a pad
    page_size: int = _TREE.unpack_from(os.pread(fd, 512, 0), place)[0]
    found = []
    for at in (0, page_size):
        head = os.pread(fd, 512, at)
        last_page, commit = _TAIL.unpack_from(head, place + 2 * _TREE.size)
        free, main = (_TREE.unpack_from(head, place + skip)[-1] for skip in (0, _TREE.size))
        found.append(Head(commit, last_page, free, main))
    return page_size, found


def missing_pages(fd: int) -> int:
    """Return how many pages that are in use lie beyond the end of the file; nobody may write.

    A file may rightly end before its last page, if that is free.

    Raises:
        CorruptionError: the list of free pages is no such list.
    """
    if struct.calcsize("P") != 8:
        return 0
    page_size, states = heads(fd)
    last = max(states, key=lambda state: state.commit)
    last_page, root = last.last_page, last.free_root
    missing = set(range(os.fstat(fd).st_size // page_size, last_page + 1))
    waiting = [] if root == NO_PAGE or not missing else [root]
    for _, start, count in _lists(fd, page_size, waiting, last_page):
        missing.difference_update(struct.unpack(f"={count}Q", os.pread(fd, 8 * count, start)))
    return len(missing)


def _lists(
    fd: int, page_size: int, waiting: list[int], last_page: int
) -> Iterator[tuple[int, int, int]]:
    """Yield for each list of free pages: the commit, where its numbers are, how many they are."""
    try:
        for _ in range(last_page + 1):
            if not waiting:
                return
            yield from _walk(fd, page_size, waiting)
    except (struct.error, OverflowError):
        pass
    # what cannot be read, or leads in a circle
    raise CorruptionError("the list of free pages is damaged; restore the file from a copy")


def _walk(fd: int, page_size: int, waiting: list[int]) -> Iterator[tuple[int, int, int]]:
    """Take a page of the tree of free pages: yield the lists on it, note the pages below it."""
    number = waiting.pop()
    page = os.pread(fd, page_size, number * page_size)
    for node in nodes(page):
        if node.below is not None:
            waiting.append(node.below)
            continue
        (commit,) = _WORD.unpack_from(page, node.key)
        # the value is a list of numbers, and begins with how many they are
        start = number * page_size + node.value
        if node.far is not None:
            start = node.far * page_size + HEADER.size
        (size,) = _WORD.unpack(os.pread(fd, 8, start))
        yield commit, start + 8, size


class Node(NamedTuple):
    """One node of a page of a tree."""

    below: int | None
    """The page below it, on a page that is no leaf."""
    key: int
    """Where in the page its key begins."""
    value: int
    """Where in the page its value begins, unless that is far."""
    size: int
    """How long its value is."""
    far: int | None
    """The first page that has its value, if that is not on this page."""


def nodes(page: bytes) -> Iterator[Node]:
    """Yield the nodes of a page of a tree."""
    _, _, page_flags, lower, _ = HEADER.unpack_from(page)
    count = (lower - HEADER.size) // 2
    for place in struct.unpack_from(f"={count}H", page, HEADER.size):
        low, high, flags, key_size = _NODE.unpack_from(page, place)
        if sys.byteorder == "big":
            low, high = high, low
        size, key = low | high << 16, place + _NODE.size
        value = key + key_size
        if not page_flags & LEAF:
            yield Node(size | flags << 32, key, value, 0, None)
        elif flags & _FAR:
            yield Node(None, key, value, size, *_WORD.unpack_from(page, value))
        else:
            yield Node(None, key, value, size, None)


@dataclass(frozen=True, slots=True)
class OldestReader:
    """How many readers there are, and the oldest of them."""

    readers: int
    commit: int | None
    pid: int | None


def oldest_reader(table: str) -> OldestReader:
    r"""Read the table of readers as LMDB prints it; among the oldest, one of this process is taken.

    >>> oldest_reader("    pid     thread     txnid\n        17 7f0 5\n        19 7f1 -\n")
    OldestReader(readers=1, commit=5, pid=17)
    >>> oldest_reader("(no active readers)\n")
    OldestReader(readers=0, commit=None, pid=None)
    """
    here = os.getpid()
    rows = []
    for line in table.splitlines():
        fields = line.split()
        # a place with `-` is kept for the next reader of its process
        if len(fields) == 3 and fields[2].isdecimal():
            pid = int(fields[0])
            rows.append((int(fields[2]), pid != here, pid))
    if not rows:
        return OldestReader(0, None, None)
    commit, _, pid = min(rows)
    return OldestReader(len(rows), commit, pid)
