"""Filling pages: new pages of a spread container are encoded and put one after the other.

Theory of operation
-------------------

A page that is full is encoded, put into the engine's transaction (`Transaction.flush`) and let go,
nodes and all, so memory holds one page and some items, however many there are. Pages of plain items
are packed without making nodes (`packing`); all others are adopted as usual.

A page is *kept* in memory, for the commit to arrange, when it refers to nodes outside itself: to an
object that was on an earlier page (`recalling`), or that has a place in the store. Large items are
divided at once, as the commit would do it, and so need not be kept.

The rule: everything runs inside a savepoint of its own. Whatever fails, all of it is undone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from itertools import islice
from typing import Any, NamedTuple

from richstore import paging
from richstore.encoding import Encoded, encode, reach
from richstore.errors import PlacedError
from richstore.node import Node
from richstore.nodes.adopt import Adopter
from richstore.nodes.change import place
from richstore.nodes.spread.packing import ALONE, Packer, references
from richstore.nodes.spread.recalling import Recall
from richstore.nodes.spread.sources import Source
from richstore.pages import ENTRY, cell_name, page_name
from richstore.record import Record
from richstore.transaction import Transaction

__all__ = ["BATCH", "FULL", "Filler", "NotPlainError"]

# Items that are taken from an iterator at a time.
BATCH = 512
# A page is full at this part of its size.
FULL = 0.97
# A page that is adopted has at most so many items at first.
_FEW = 32


class NotPlainError(Exception):
    """An item cannot be packed, and is not to be adopted."""


class _Mark(NamedTuple):
    """How much there was before a page was adopted: of the transaction's lists, and remembered."""

    reshaped: int
    recall: int
    cells: int
    built: int


class Filler(ABC):
    """Puts the items of a source onto new pages of a spread container.

    Args:
        tx: the transaction.
        node: a spread container.
        source: what to put into it.
        is_new: whether it became a spread one in the savepoint that the build runs in.
    """

    def __init__(self, tx: Transaction, node: Node, source: Source, is_new: bool) -> None:
        self.tx = tx
        self.node = node
        self.source = source
        self.is_new = is_new
        self.cid: int = node.work.cid
        self.is_empty = tx.cell(cell_name(self.cid)) is None
        # items that were taken and are on no page yet, from a position on, and their keys; and
        # whether somebody else refers to each item, once it is known
        self.values: list[Any] = []
        self.keys: list[Any] = []
        self.at = 0
        self.is_held: list[bool] | None = None
        kind: Any = node.kind
        self.recall = Recall(tx, node)
        self.packer = Packer(
            kind.builtin, self.recall.numbers, paging.PAGE * FULL, tx.tracker.classes
        )
        # references to an item besides that of `values`
        self.others = 0 if source.original is None else 1
        self.per_page = _FEW
        # whether items that cannot be packed, or that somebody else refers to, end it
        self.only_plain = False
        if source.original is not None:
            # it may be inside itself
            self.recall[id(source.original)] = (node.face, source.original)

    # --- what differs between lists, dicts and sets ---

    @abstractmethod
    def refill(self) -> bool:
        """Take more items when there are none left; return whether there were any."""

    @abstractmethod
    def new_pid(self) -> int:
        """Return the id of the next page."""

    @abstractmethod
    def enter(self, pid: int, items: Any) -> list[tuple[bytes, bytes]]:
        """Count a page; return what leads to it and is to be put beside it."""

    @abstractmethod
    def fill(self, main: Node, adopter: Adopter, first: int, last: int) -> None:
        """Adopt some of the items into the container of a page."""

    def step(self) -> None:
        """Put some items on a page."""
        self.pack()

    @abstractmethod
    def finish(self) -> None:
        """Let the pages be reached."""

    # --- the loop ---

    def run(self) -> None:
        """Build everything."""
        while True:
            if self.at >= len(self.values) and not self.refill():
                self.close_page()
                if self.at >= len(self.values):
                    break
                continue
            self.step()
        self.finish()

    def pack(self) -> None:
        """Pack items until the page is full, or there is one that cannot be packed."""
        values, keys, packer = self.values, self.keys, self.packer
        if self.is_held is None:
            alone = ALONE + self.others
            self.is_held = [count > alone for count in references(values)]
            if self.only_plain and any(self.is_held):
                raise NotPlainError
        at = self.at
        while at < len(values):
            at = packer.add_flat(values, self.is_held, keys, at)
            if at < len(values) and not packer.is_full:
                fits = (
                    packer.add(values[at], self.is_held[at], keys[at])
                    if keys
                    else packer.add(values[at], self.is_held[at])
                )
                if not fits:
                    self.at = at
                    self.refuse()
                    return
                at += 1
            if packer.is_full:
                if len(packer.items) > 1:
                    packer.cut(len(packer.items) - 1)
                    at -= 1
                self.at = at
                self.close_page()
                return
        self.at = at

    def refuse(self) -> None:
        """Adopt a page of items, since the next one cannot be packed."""
        if self.packer.size > paging.PAGE // 2:
            self.close_page()
        else:
            self.unpack(0)
        self.adopt()

    def unpack(self, first: int) -> None:
        """Take items off the page that is being packed, and have them to come."""
        packer = self.packer
        self.values = packer.items[first:] + self.values[self.at :]
        self.keys = packer.keys[first:] + self.keys[self.at :]
        self.at = 0
        self.is_held = None
        if first:
            packer.cut(first)
        else:
            packer.begin()

    def close_page(self) -> None:
        """Put the page that is being packed."""
        packer = self.packer
        if not packer.items:
            return
        pid = self.new_pid()
        name = page_name(self.cid, pid)
        base = self.tx.tracker.numbers(packer.numbers)
        try:
            data = packer.encode(name, base)
            while len(data) > paging.PAGE and len(packer.items) > 1:
                count = len(packer.items)
                self.unpack(max(1, min(count - 1, int(count * paging.PAGE / len(data)))))
                data = packer.encode(name, base)
        except PlacedError:
            self.unpack(0)
            self.adopt()
            return
        if len(data) > paging.PAGE and packer.faces:
            self.unpack(0)
            self.adopt()
            return
        for original, slot in packer.held:
            self.recall.keep(original, base + slot)
        self.put(pid, data, packer.keys or packer.items, base)
        packer.begin()

    def put(self, pid: int, data: bytes, items: Any, base: int) -> None:
        """Put a page into the engine's transaction."""
        entries = self.enter(pid, items)
        entries.append((page_name(self.cid, pid), data))
        self.tx.flush(self.cid, 0 if self.is_new else pid, entries)
        self.recall.add_page(base, pid)
        self.count(len(items), len(data))

    def count(self, items: int, size: int) -> None:
        """Tell of progress."""
        if self.tx.progress is not None:
            self.tx.progress.add(items, size)
        self.tx.check_open()

    # --- pages with nodes ---

    def adopt(self) -> None:
        """Adopt the next items, as many as fit on a page."""
        if self.only_plain:
            raise NotPlainError
        tx = self.tx
        count = min(len(self.values) - self.at, self.per_page)
        while True:
            mark = _Mark(len(tx.reshaped), len(self.recall), len(tx.cells), len(tx.built))
            record, adopter = self.make_page(count)
            found = reach(tx, record)
            if found.foreign or found.mains or any(one in tx.touched for one in found.nodes):
                self.keep(record, count, mark)
                break
            one = encode(tx, record, found)
            tx.orders.pop(record, None)
            size = len(one.data)
            if size <= paging.PAGE or (count == 1 and len(found.nodes) == 1):
                self.per_page = max(1, int(count * min(4.0, FULL * paging.PAGE / size)))
                self.let_go(record, one, count, mark)
                break
            if count > 1 and size < count * paging.PAGE // 3:
                self.undo_page(record, adopter, mark)
                count = self.per_page = max(1, int(count * 0.9 * paging.PAGE / size))
                continue
            # large items
            self.per_page = _FEW
            if sum(len(node.kids or ()) for node in found.nodes) == len(found.nodes) - 1:
                self.let_go(record, self.divide(record), count, mark)
            else:
                self.keep(record, count, mark)
            break
        self.at += count

    def make_page(self, count: int) -> tuple[Record, Adopter]:
        """Return a page with the next items adopted into it."""
        tx = self.tx
        node = self.node
        owner = node.record
        assert owner is not None
        kind: Any = node.kind
        record = Record(tx.tracker, page_name(self.cid, self.new_pid()), None, owner.root, node)
        main = kind.make(None, -1, -1, kind.clean)
        record.value = main.face
        tx.born(record, main)
        adopter = Adopter(tx, record)
        adopter.memo = self.recall
        try:
            self.fill(main, adopter, self.at, self.at + count)
        except PlacedError as error:
            raise error.inside(place(owner, node)) from error.__cause__
        return record, adopter

    def undo_page(self, record: Record, adopter: Adopter, mark: _Mark) -> None:
        """Take back a page that has become too large."""
        del self.tx.reshaped[mark.reshaped :]
        self.recall.drop(mark.recall)
        self.undo_inside(mark)
        adopter.undo()
        self.tx.unborn(_main(record))

    def keep(self, record: Record, count: int, mark: _Mark) -> None:
        """Leave a page to the commit."""
        tx = self.tx
        pid = int.from_bytes(record.name[9:], "big")
        tx.fresh[record.name] = record
        tx.tracker.live[record.name] = record
        self.remember(record, count, mark.recall)
        for name, stored in self.enter(pid, _main(record).work):
            tx.set_cell(name, stored)
        assert record.base is not None
        self.recall.add_page(record.base, pid)
        self.count(count, 0)

    def let_go(self, record: Record, one: Encoded, count: int, mark: _Mark) -> None:
        """Put an adopted page, and forget its nodes."""
        del self.tx.reshaped[mark.reshaped :]
        self.put_inside(mark)
        self.remember(record, count, mark.recall)
        self.forget(record, one)
        assert record.base is not None
        pid = int.from_bytes(record.name[9:], "big")
        self.put(pid, one.data, _main(record).work, record.base)

    def forget(self, record: Record, one: Encoded) -> None:
        """Let an encoded page be a loaded one like any other, which goes when nobody holds it."""
        tx = self.tx
        level = tx.levels[-1]
        for node in record.nodes.values():
            level.births.pop(node, None)
            level.saved.pop(node, None)
            node.tx = None
            if node.kind.guarded:
                node.kind.settle(node)
        tx.orders.pop(record, None)
        tx.rearranged.pop(record, None)
        record.size = len(one.data)
        tx.tracker.live[record.name] = record

    def divide(self, record: Record) -> Encoded:
        """Let large containers on a page spread, put their pages, and return the page."""
        tx = self.tx
        work = _Division(tx, record)
        work.divide()
        for dropped in work.dropped:
            for node in list(dropped.nodes.values()):
                tx.unborn(node)
        for page, one in work.encoded.items():
            if page is not record:
                self.forget(page, one)
                cid = int.from_bytes(page.name[1:9], "big")
                tx.flush(cid, 0, [(page.name, one.data)])
                self.count(0, len(one.data))
        return work.encoded[record]

    def put_inside(self, mark: _Mark) -> None:
        """Put what leads to the pages of containers inside the page that was adopted."""
        tx = self.tx
        level = tx.levels[-1]
        inside = list(islice(tx.built, mark.built, None))
        for name in list(islice(tx.cells, mark.cells, None)):
            cid = int.from_bytes(name[1:9], "big")
            if cid in tx.built and cid != self.cid:
                cell = tx.cells.pop(name)
                level.cells.pop(name, None)
                if cell is not None:
                    stored = cell if name[:1] == ENTRY else cell.to_bytes()
                    tx.flush(cid, 0, [(name, stored)])
        for cid in inside:
            # it goes with the page
            del tx.built[cid]

    def undo_inside(self, mark: _Mark) -> None:
        """Take back containers that were built inside the page that was adopted."""
        tx = self.tx
        for cid in list(islice(tx.built, mark.built, None)):
            del tx.built[cid]
            tx.forget_flushed(cid)
        for name in list(islice(tx.cells, mark.cells, None)):
            del tx.cells[name]
            tx.levels[-1].cells.pop(name, None)

    def remember(self, record: Record, count: int, mark: int) -> None:
        """Remember what of a page may come again."""
        others: dict[int, int] = {}
        for at in range(self.at, self.at + count):
            key = id(self.values[at])
            others[key] = others.get(key, 0) + 1 + self.others
        self.recall.settle(record, mark, others)


def _main(record: Record) -> Node:
    main = record.main
    assert main is not None
    return main


class _Division(paging.Commit):
    """The division of one page, before the commit.

    Args:
        transaction: the transaction.
        page: the page, to which nothing leads yet.
    """

    def __init__(self, transaction: Transaction, page: Record) -> None:
        super().__init__(transaction)
        self.page = page
        self.made = {page: None}

    def divide(self) -> None:
        """Divide the page."""
        self._divide([self.page])

    def _is_current(self, record: Record) -> bool:
        # the value that is being built may not be under its key yet
        return self._is_part(record)

    def _fit(self, record: Record, one: Encoded) -> list[Record] | None:
        if record is not self.page:
            return super()._fit(record, one)
        if len(one.data) > paging.PAGE and record not in self.hopeless:
            return self._spread(record, one)
        return None
