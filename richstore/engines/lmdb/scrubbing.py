"""Overwriting what is in a file and in no state of it: free pages, and gaps in pages that are used.

LMDB leaves deleted data where it is until the place is needed, and writes pages from memory that it
has used for others before, so a page may have parts of another one in the gap between its node
offsets and its nodes. Whoever has to be sure that something is gone from the file overwrites both.

The rule: nobody writes meanwhile, and no reader is on an older state than the last two. Gaps and
free pages mean nothing to anybody, so a crash in the middle does no harm. Knows what `pages` knows.
"""

from __future__ import annotations

import errno
import os
import struct

from richstore.engines.lmdb.pages import HEADER, LEAF, NO_PAGE, heads, nodes
from richstore.errors import CorruptionError

__all__ = ["overwrite_unused"]

_BRANCH = 0x01
# Bytes that are overwritten at once.
_CHUNK = 1 << 20


def overwrite_unused(fd: int) -> None:
    """Overwrite free pages and gaps with zeros, durably.

    Args:
        fd: a descriptor of the file, open for writing.

    Raises:
        CorruptionError: a page is not what it should be; some may have been overwritten.
        OSError: writing failed; with ENOTSUP: the machine has 32 bits.
    """
    if struct.calcsize("P") != 8:
        raise OSError(errno.ENOTSUP, "free pages can be overwritten on machines of 64 bits alone")
    page_size, states = heads(fd)
    used = bytearray(max(state.last_page for state in states) + 1)
    used[:2] = b"\1\1"
    for state in states:
        for root in (state.free_root, state.main_root):
            if root != NO_PAGE:
                _walk(fd, page_size, root, used)
    # behind the last page there may be some of a transaction that was never committed
    pages = -(-os.fstat(fd).st_size // page_size)
    start = None
    for number in range(pages + 1):
        is_free = number < pages and (number >= len(used) or not used[number])
        if is_free and start is None:
            start = number
        elif not is_free and start is not None:
            _zero(fd, start * page_size, min(number * page_size, os.fstat(fd).st_size))
            start = None
    os.fsync(fd)


def _walk(fd: int, page_size: int, root: int, used: bytearray) -> None:
    """Mark the pages of a tree, and overwrite the gaps in them."""
    waiting = [root]
    while waiting:
        number = waiting.pop()
        if number >= len(used):
            raise CorruptionError("a page lies behind the end of the file; restore it from a copy")
        if used[number]:
            # of the other state as well
            continue
        used[number] = 1
        page = os.pread(fd, page_size, number * page_size)
        _, _, flags, lower, upper = HEADER.unpack_from(page)
        if not flags & (LEAF | _BRANCH) or not HEADER.size <= lower <= upper <= page_size:
            raise CorruptionError(f"page {number} is damaged; restore the file from a copy")
        _zero(fd, number * page_size + lower, number * page_size + upper)
        for node in nodes(page):
            if node.below is not None:
                waiting.append(node.below)
            elif node.far is not None:
                end = node.far * page_size + HEADER.size + node.size
                after = -(-end // page_size)
                used[node.far : after] = b"\1" * (after - node.far)
                _zero(fd, end, after * page_size)


def _zero(fd: int, start: int, end: int) -> None:
    """Overwrite bytes of a file with zeros."""
    while start < end:
        start += os.pwrite(fd, bytes(min(end - start, _CHUNK)), start)
