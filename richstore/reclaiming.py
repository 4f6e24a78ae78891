"""Reclaiming: what has left the store is deleted, a bounded number of records at a time.

The reclaim list names containers and spaces of groups whose records are to go, and shared records
that may be part of a circle which nothing else refers to. A commit deletes a few; `compact` all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import islice
from typing import Any

from richstore import pages
from richstore.codec import records

__all__ = ["Circle", "Reclaimer", "compact", "links_of"]

# How many values of a group that was cleared are read at a time.
_ROWS = 1000


def links_of(parts: records.Parts) -> list[tuple[int, bytes]]:
    """Return the links of a record, each with the head of its row."""
    heads = [head for head in parts.table[2::3] if records.EXTERNAL <= head < records.FIRST_CLASS]
    return list(zip(heads, parts.links, strict=True))


class Circle:
    """Looks for shared records that only refer to each other, from one of which a reference has
    gone.

    Trial deletion: among the records below the suspect, those that are referred to from elsewhere
    are
    alive, and what these refer to; all others are lost. It looks at `_CIRCLE` records at most. A
    larger circle is left: `mark` puts it on the reclaim list as a suspect, for `compact()`.

    Args:
        engine: a write transaction.
        suspect: the engine key of a shared record.
    """

    def __init__(self, engine: Any, suspect: bytes, limit: int | None = 500) -> None:
        self.engine = engine
        self.suspect = suspect
        self.limit = limit

    def lost(self) -> dict[bytes, bytes] | None:
        """Return the shared records that are lost, with their bytes; None if it is too much."""
        shared: dict[bytes, bytes] = {}
        below: dict[bytes, set[bytes]] = {}
        counts: Counter[bytes] = Counter()
        todo = [self.suspect]
        seen = 0
        while todo:
            name = todo.pop()
            if name in shared:
                continue
            stored = self.engine.get(name)
            if stored is None:
                continue
            shared[name] = stored
            found: set[bytes] = set()
            for linked in self._linked(name, stored):
                if linked is None:
                    seen += 1
                    if self.limit is not None and seen > self.limit:
                        self.engine.put(pages.RECLAIM + self.suspect, b"")
                        return None
                else:
                    counts[linked] += 1
                    found.add(linked)
            below[name] = found
            todo += found
        alive = [name for name in shared if (records.count_of(shared[name]) or 0) > counts[name]]
        while alive:
            name = alive.pop()
            if shared.pop(name, None) is not None:
                alive += below[name]
        return shared

    def _linked(self, name: bytes, stored: bytes) -> Iterator[bytes | None]:
        """Yield the shared records that a record refers to, itself or on its pages; None: a
        page.
        """
        todo = [stored]
        while todo:
            yield None
            for head, link in links_of(records.parse(b"", todo.pop(), check=False)):
                if head == records.EXTERNAL:
                    other = records.read_external(link)[3]
                    if other[:1] == pages.SHARED:
                        yield other
                    continue
                cid = int.from_bytes(link, "big")
                first, last = pages.page_name(cid, 0), pages.page_name(cid + 1, 0)
                for _, page in self.engine.scan(first, last):
                    todo.append(page)
                    if len(todo) % 64 == 0:
                        yield None


class Reclaimer:
    """Deletes the records of containers that have left the store.

    Args:
        tracker: the tracker.
        engine: the write transaction to do it in.
    """

    def __init__(self, tracker: Any, engine: Any) -> None:
        self.tracker = tracker
        self.engine = engine
        # the work done, which is bounded, and the records among what was deleted
        self.deleted = 0
        self.records = 0
        # shared records that are referred to less often now
        self.counts: dict[bytes, int] = {}

    def run(self, limit: int | None) -> int:
        """Delete at most so many records; None: all there are. Return how much was done."""
        engine = self.engine
        after = bytes((pages.RECLAIM[0] + 1,))
        while limit is None or self.deleted < limit:
            # some at a time: what is reclaimed may mark more
            marks = [name for name, _ in islice(engine.scan(pages.RECLAIM, after), limit or 10_000)]
            if not marks:
                self.tracker.reclaimable = False
                break
            for mark in marks:
                if limit is not None and self.deleted >= limit:
                    break
                if mark[1:2] == pages.SHARED and len(mark) == 10:
                    if limit is not None:
                        # a large circle, perhaps: only `compact` has the time
                        self.tracker.reclaimable = False
                        return self.deleted
                    engine.delete(mark)
                    self._delete_all(Circle(engine, mark[1:], None).lost() or {})
                elif len(mark) == 10:
                    if self._reclaim_space(mark[1:], limit):
                        engine.delete(mark)
                elif self._reclaim(mark[1:9], limit):
                    engine.delete(mark)
        return self.deleted

    def _reclaim(self, cid: bytes, limit: int | None) -> bool:
        """Delete records of one container; return whether none is left."""
        engine = self.engine
        end = (int.from_bytes(cid, "big") + 1).to_bytes(8, "big")
        for first in (pages.PAGE, pages.ENTRY, pages.CELL):
            # entries are small: many of them take the time of one record
            share = 32 if first == pages.ENTRY else 1
            room = None if limit is None else (limit - self.deleted) * share
            names: list[bytes] = []
            for name, stored in engine.scan(first + cid, first + end):
                if room is not None and len(names) >= room:
                    break
                names.append(name)
                if first == pages.PAGE:
                    self._leave(name, stored)
            for name in names:
                engine.delete(name)
            self.deleted += -(-len(names) // share)
            self.records += len(names) if first == pages.PAGE else 0
            if room is not None and len(names) >= room:
                return False
        return True

    def _reclaim_space(self, prefix: bytes, limit: int | None) -> bool:
        """Delete values of a group that was cleared; return whether none is left."""
        engine = self.engine
        after = (int.from_bytes(prefix, "big") + 1).to_bytes(len(prefix), "big")
        while limit is None or self.deleted < limit:
            # some at a time: they need not fit into memory
            room = _ROWS if limit is None else limit - self.deleted
            rows = list(islice(engine.scan(prefix, after), room))
            for name, stored in rows:
                self._leave(name, stored)
                engine.delete(name)
            self.deleted += len(rows)
            self.records += len(rows)
            if len(rows) < room:
                return True
        return False

    def _leave(self, name: bytes, stored: bytes) -> None:
        engine = self.engine
        for head, link in links_of(records.parse(name, stored)):
            if head != records.EXTERNAL:
                engine.put(pages.RECLAIM + link, b"")
                continue
            other = records.read_external(link)[3]
            kept = engine.get(other) if other[:1] == pages.SHARED else None
            if kept is None:
                continue
            count = (records.count_of(kept) or 0) - 1
            if count > 0:
                engine.put(other, records.with_count(other, kept, count))
                self.counts[other] = count
                self._delete_all(Circle(engine, other, 50).lost() or {})
            else:
                self._delete_all({other: kept})

    def _delete_all(self, lost: dict[bytes, bytes]) -> None:
        for name in lost:
            self.engine.delete(name)
            self.counts[name] = 0
        for name, stored in lost.items():
            self.deleted += 1
            self.records += 1
            self._leave(name, stored)


def compact(transaction: Any) -> int:
    """Delete everything that waits to be reclaimed, in a transaction; return how many records."""
    transaction.written = True
    reclaimer = Reclaimer(transaction.tracker, transaction.engine)
    reclaimer.run(None)
    transaction.reclaimed |= reclaimer.counts
    return reclaimer.records
