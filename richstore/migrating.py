"""`Store.migrate()`: records that name old classes, or have old versions of them, written anew.

What is outdated shows when a record is read: its names are looked up, its states upgraded. So each
record that could have any is read, value by value and page by page, and those that were outdated
are written in transactions of bounded size. What others have done since is seen there, since a
record that has changed is read again. Done twice, or after it was killed, it finds what is left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from richstore import pages
from richstore.codec import keys, records
from richstore.codec.missing import Missing
from richstore.codec.notes import Notes, reading
from richstore.mapping import stored_key, user_key
from richstore.node import Node, Spread
from richstore.nodes.adopt import Adopter
from richstore.nodes.plain import plain
from richstore.record import Record
from richstore.spaces import AFTER_VALUES, ROOT, form_in, value_in
from richstore.tracker import Tracker
from richstore.transaction import Transaction

__all__ = ["migrate"]

# Records and bytes that one transaction rewrites.
_RECORDS = 64
_BYTES = 1 << 20
# How often all is gone through, for what others write in the meantime.
_PASSES = 5
# How many records are read before progress is told again.
_TOLD = 32


def migrate(
    tracker: Tracker,
    run: Callable[[Callable[[Transaction], int]], int],
    progress: Callable[[int, int], None] | None,
) -> int:
    """Rewrite all outdated records; return how many there were.

    Args:
        tracker: of the store.
        run: runs work in a transaction of its own.
        progress: is told the records and bytes so far, now and then and at the end.
    """
    with tracker.lock:
        # what is loaded may have been read before a class was said to be renamed
        tracker.expire_all()
    work = _Migration(tracker, run, progress)
    total = 0
    for _ in range(_PASSES):
        done = work.once()
        total += done
        if not done:
            break
    work.tell()
    return total


class _Migration:
    def __init__(
        self,
        tracker: Tracker,
        run: Callable[[Callable[[Transaction], int]], int],
        progress: Callable[[int, int], None] | None,
    ) -> None:
        self.tracker = tracker
        self.run = run
        self.progress = progress
        self.records = self.bytes = 0
        # outdated records, loaded, until there are enough for a transaction; and their bytes
        self.found: dict[Record, None] = {}
        self.size = 0
        self.rewritten = 0

    def tell(self) -> None:
        if self.progress is not None:
            self.progress(self.records, self.bytes)

    def once(self) -> int:
        """Go through all values; return how many records were rewritten."""
        self.records = self.bytes = self.rewritten = 0
        for name in list(self._names(ROOT, AFTER_VALUES)):
            self._value(name)
        self._write()
        return self.rewritten

    def _names(self, first: bytes, last: bytes) -> Iterator[bytes]:
        view = self.tracker.engine.read()
        try:
            yield from [name for name, _ in view.scan(first, last)]
        finally:
            view.close()

    def _stored(self, name: bytes) -> bytes | None:
        with self.tracker.lock, self.tracker.view() as view:
            stored = value_in(view.get, name)
        if stored is not None:
            self.records += 1
            self.bytes += len(stored)
            if self.records % _TOLD == 0:
                self.tell()
        return stored

    def _value(self, name: bytes) -> None:
        """Read the records of a value; those that are outdated are remembered."""
        stored = self._stored(name)
        if stored is None:
            return
        parts = self.tracker.parse(name, stored)
        if self._has_old_key(name, parts.key):
            self._write()
            self.rewritten += self.run(lambda transaction: self._move(transaction, name))
            return
        if not parts.table:
            notes = Notes()
            with reading(notes):
                self.tracker.decode_plain(name, parts)
            if notes.outdated:
                self.rewritten += self.run(lambda transaction: self._assign(transaction, name))
            return
        self.tracker.read(name)
        root = self.tracker.live.get(name)
        if root is None:
            return
        todo: list[Record] = [root]
        seen = {root.name}
        while todo:
            record = todo.pop()
            if record.stale:
                self.tracker.reload(record)
            if record.outdated:
                self._remember(record)
            for node in list(record.nodes.values()):
                if isinstance(node.work, Spread):
                    self._pages(node, todo, seen)
            for main in list(record.externals):
                other = main.record
                if other is not None and other.root is root and other.name not in seen:
                    seen.add(other.name)
                    self._stored(other.name)
                    todo.append(other)

    def _pages(self, owner: Node, todo: list[Record], seen: set[bytes]) -> None:
        """Read the pages of a spread container; the ones that may be outdated are to be seen."""
        content: Any = owner.work
        cid = content.cid
        for name in self._names(pages.page_name(cid, 0), pages.page_name(cid + 1, 0)):
            stored = self._stored(name)
            if stored is None or name in seen:
                continue
            seen.add(name)
            if not records.may_name(records.parse(name, stored)):
                continue
            page = self.tracker.page(name, owner, remember=False)
            if page is not None:
                todo.append(page)

    def _remember(self, record: Record) -> None:
        self.found[record] = None
        self.size += record.size
        if len(self.found) >= _RECORDS or self.size >= _BYTES:
            self._write()

    def _write(self) -> None:
        """Rewrite what was found, in one transaction."""
        found, self.found, self.size = self.found, {}, 0
        if found:
            self.rewritten += self.run(lambda transaction: self._rewrite(transaction, found))

    def _rewrite(self, transaction: Transaction, found: dict[Record, None]) -> int:
        count = 0
        for record in found:
            if record.stale:
                self.tracker.reload(record)
            # somebody else may have written it meanwhile, or taken it out of the store
            if record.outdated and self.tracker.live.get(record.name) is record:
                transaction.rewrite(record)
                count += 1
        return count

    def _has_old_key(self, name: bytes, key: bytes | None) -> bool:
        if key is None:
            return False
        notes = Notes()
        with reading(notes):
            found = user_key(self.tracker.classes, name, key)
        return notes.outdated and not isinstance(found, Missing)

    def _move(self, transaction: Transaction, name: bytes) -> int:
        """Put the value of a key with a class that is called otherwise now where it belongs."""
        # its group may have been cleared meanwhile
        stored = value_in(transaction.engine.get, name)
        kept = None if stored is None else records.stored_key(stored)
        if kept is None:
            return 0
        key = user_key(self.tracker.classes, name, kept)
        form = keys.encode_key(key)
        new = name.removesuffix(form_in(name)) + form
        if new != name and transaction.engine.get(new) is not None:
            # what was stored under the new name is the newer one
            transaction.set_root(name, None, True)
            return 1
        value = plain(self.tracker.read(name)[1])
        transaction.set_root(name, None, True)
        kept = stored_key(self.tracker.classes, key, form)
        self._put(transaction, new, kept, value, new == name)
        return 1

    def _assign(self, transaction: Transaction, name: bytes) -> int:
        """Write a value that is one immutable one."""
        found, value = self.tracker.read(name)
        if not found:
            return 0
        stored = transaction.engine.get(name)
        kept = None if stored is None else records.stored_key(stored)
        self._put(transaction, name, kept, value, True)
        return 1

    def _put(
        self, transaction: Transaction, name: bytes, kept: bytes | None, value: Any, existed: bool
    ) -> None:
        record = Record(self.tracker, name, kept)
        record.value = Adopter(transaction, record)(value)
        transaction.set_root(name, record, existed)
