"""`Store.stats()`: figures on a store, its file and this process's cache."""

from __future__ import annotations

from dataclasses import dataclass

from richstore.spaces import COUNTER
from richstore.tracker import Tracker

__all__ = ["Stats", "stats"]


@dataclass(frozen=True)
class Stats:
    """How a store stands.

    Attributes:
        values: the number of values, those in groups included.
        records: the number of engine keys: records, and what leads to them.
        bytes: the bytes that these take in the file, in whole pages of the engine.
        pages_free: pages of the file that later writes will use again.
        pages_pinned: pages that will be free once their readers end; None when it cannot be told.
        readers: read transactions and snapshots that are open, of all processes.
        oldest_reader_age: seconds since the oldest of them began, when it is of this process.
        oldest_reader_pid: the process it belongs to.
        cache_bytes: the memory, more or less, of records that are kept loaded.
        cache_hit_rate: the share of accesses to records, from 0 to 1, that needed no reading; None
            before
            the first.
        commits: the number of commits in the life of the store.
        rekeying: whether `rekey(reencrypt=True)` was begun and has not come to its end.

    Example:
        >>> import richstore
        >>> with richstore.open("memory:") as store:
        ...     store["shops"] = ["shop1"]
        ...     stats = store.stats()
        >>> stats.values
        1
    """

    values: int
    records: int
    bytes: int
    pages_free: int | None
    pages_pinned: int | None
    readers: int
    oldest_reader_age: float | None
    oldest_reader_pid: int | None
    cache_bytes: int
    cache_hit_rate: float | None
    commits: int
    rekeying: bool


def stats(tracker: Tracker) -> Stats:
    """Return the figures of a tracker and its engine."""
    engine = tracker.engine
    found = engine.stats()
    with tracker.lock, tracker.view() as view:
        counters = view.scan(COUNTER, bytes((COUNTER[0] + 1,)))
        in_groups = sum(int.from_bytes(stored, "little") for _, stored in counters)
        values = tracker.count(view.get) + in_groups
        if found.pages is None and found.file_size is None:
            # an engine without a file
            size = sum(len(name) + len(value) for name, value in view.scan(b"", None))
        else:
            used = (found.pages or 0) - (found.pages_free or 0) - (found.pages_pinned or 0)
            size = used * (found.page_size or 0)
    accesses = tracker.hits + tracker.misses
    return Stats(
        values=values,
        records=found.entries,
        bytes=size,
        pages_free=found.pages_free,
        pages_pinned=found.pages_pinned,
        readers=found.readers,
        oldest_reader_age=found.oldest_reader_age,
        oldest_reader_pid=found.oldest_reader_pid,
        cache_bytes=tracker.recent_size,
        cache_hit_rate=tracker.hits / accesses if accesses else None,
        commits=found.commits,
        rekeying=not getattr(engine, "is_clean", True),
    )
