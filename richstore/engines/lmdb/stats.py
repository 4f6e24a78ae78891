"""The statistics of an open LMDB file, put together from what LMDB and `pages` tell.

The rule: nothing is changed but that readers of dead processes are removed, and whatever is told
of keys and pages is told of one commit, if that can be had.
"""

from __future__ import annotations

import errno
import os
import time
import weakref
from collections.abc import Callable

import lmdb

from richstore.engines.base import EngineStats
from richstore.engines.lmdb.pages import FreePages, count_free_pages, oldest_reader
from richstore.engines.lmdb.transactions import ENDED, LmdbReadTransaction

__all__ = ["collect"]

# How often the free pages are looked for when other processes commit all the while.
_ATTEMPTS = 10


def collect(
    env: lmdb.Environment,
    fd: int,
    begin: Callable[[], LmdbReadTransaction],
    own: list[weakref.ref[LmdbReadTransaction]],
) -> EngineStats:
    """Return how the file stands now.

    Args:
        env: its environment, which stays open meanwhile.
        fd: a descriptor of it.
        begin: begins a read transaction.
        own: the readers of this process.
    """
    env.reader_check()
    oldest = oldest_reader(env.readers())
    info, stat = env.info(), env.stat()
    page_size = stat["psize"]
    commit, last_page, entries = info["last_txnid"], info["last_pgno"], stat["entries"]
    free = pinned = None
    pages = _free_pages(begin, fd, page_size)
    if pages is not None:
        commit, last_page, entries = pages.commit, pages.last_page, pages.entries
        pinned = pages.pinned_by(oldest.commit)
        free = sum(pages.freed.values()) - pinned
    return EngineStats(
        commits=commit,
        entries=entries,
        page_size=page_size,
        pages=last_page + 1,
        pages_free=free,
        pages_pinned=pinned,
        file_size=os.fstat(fd).st_size,
        map_size=info["map_size"],
        readers=oldest.readers,
        oldest_reader_commit=oldest.commit,
        oldest_reader_pid=oldest.pid,
        oldest_reader_age=_age(own, oldest.commit),
    )


def _free_pages(
    begin: Callable[[], LmdbReadTransaction], fd: int, page_size: int
) -> FreePages | None:
    """Count in a read transaction of the latest state; None where that cannot be done."""
    for _ in range(_ATTEMPTS):
        try:
            view = begin()
        except OSError as error:
            if error.errno != errno.EAGAIN:
                raise
            # there is no place left for a reader
            return None
        try:
            pages = count_free_pages(fd, page_size, view.id)
        finally:
            view.close()
        if pages is not None:
            return pages
    return None


def _age(own: list[weakref.ref[LmdbReadTransaction]], commit: int | None) -> float | None:
    """Return for how many seconds this process has had a reader on a commit, if it has one."""
    readers = [handle() for handle in own]
    began = [
        reader.began
        for reader in readers
        if reader is not None and reader.txn is not ENDED and reader.id == commit
    ]
    return time.monotonic() - min(began) if began else None
