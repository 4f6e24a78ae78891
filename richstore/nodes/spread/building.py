"""Building large containers from an iterable, a page at a time, in bounded memory.

Theory of operation
-------------------

A **build** puts items onto new pages of a spread container. A page that is full is encoded, put
into
the engine's transaction (`Transaction.flush`) and let go, nodes and all, so memory holds one page
and some items, however many there are. Pages of plain items are packed without making nodes
(`packing`); all others are adopted as usual.

A page is *kept* in memory, for the commit to arrange, when it refers to nodes outside itself: an
object that was on an earlier page, or that has a place in the store. To know an object again that
was on an earlier page, the build remembers those that somebody else refers to, and so can give it
again.

The rule: a build runs inside a savepoint of its own, and nothing leads to the pages of a list
before the end. Whatever fails, everything is undone.
"""

from __future__ import annotations

import re
import time
import types
from abc import ABC, abstractmethod
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from typing import Any

from richstore import paging
from richstore.encoding import Encoded, encode, reach
from richstore.errors import ConflictError, EncodingError
from richstore.nodes import operations as op
from richstore.nodes.adopt import ATOMS, HANDLERS, Adopter
from richstore.nodes.base import node_of
from richstore.nodes.change import SPREAD, apply, place
from richstore.nodes.spread.operations import dict_set, gather
from richstore.nodes.spread.packing import ALONE, Packer, references
from richstore.pages import (
    ENTRY,
    FANOUT,
    STEP,
    Directory,
    Tree,
    cell_name,
    entry_form,
    entry_name,
    page_name,
)
from richstore.tracker import Node, Record, Spread
from richstore.transaction import Transaction, detached, run

__all__ = ["Progress", "Source", "build_value", "extend", "first_items", "first_pairs", "source_of"]

# More items than these are built in a stream.
LARGE = 2000
# Items that are taken from an iterator at a time.
_BATCH = 512
# A page is full at this part of its size.
_FULL = 0.97
# A kept page has at most so many items.
_KEPT = 32
_SECONDS = 0.1


class Progress:
    """What a transaction has built so far, and whom to tell.

    Args:
        callback: called with items and bytes: when there are four times as many as the last time it
            was called, every 0.1 s, and at the end of each build.
    """

    def __init__(self, callback: Callable[[int, int], Any]) -> None:
        self.callback = callback
        self.items = self.bytes = 0
        self._told = 0
        self._when = time.monotonic()

    def add(self, items: int, size: int) -> None:
        """Count what was built."""
        self.items += items
        self.bytes += size
        if self.items >= 4 * self._told or time.monotonic() - self._when >= _SECONDS:
            self.tell()

    def tell(self) -> None:
        """Call, unless it has been told already."""
        if self.items > self._told:
            self._told = self.items
            self._when = time.monotonic()
            self.callback(self.items, self.bytes)


# --- where items come from ------------------------------------------------------------------------


class Source:
    """Items, a batch at a time.

    Args:
        head: items that were taken already; of a dict a dict.
        rest: all others.
        original: the list, dict or set that they all are in, if any.
    """

    def __init__(self, head: Any, rest: Iterator[Any], original: Any = None) -> None:
        self.head = head
        self.rest = rest
        self.original = original
        self._begun = False
        # pairs that were taken, for errors
        self.taken = 0

    @property
    def is_unique(self) -> bool:
        """Whether no key or element comes twice."""
        return isinstance(self.original, (dict, set))

    def begin(self) -> None:
        """Begin, or begin again after a conflict.

        Raises:
            ConflictError: what has been taken from an iterator cannot be taken again.
        """
        if self._begun:
            original = self.original
            if original is None:
                raise ConflictError(
                    "another writer was faster, and an iterator cannot be read a second time; run "
                    "it again with a new one"
                )
            self.rest = iter(original.items() if isinstance(original, dict) else original)
            self.head = {} if isinstance(original, dict) else []
        self._begun = True

    def take(self, count: int) -> list[Any]:
        """Return the next items, at least one if there are any."""
        head = self.head
        if head:
            self.head = None
            return list(head)
        return list(islice(self.rest, count))

    def take_pairs(self, count: int) -> dict[Any, Any]:
        """Return the next keys with their values, at least one if there are any."""
        head = self.head
        if head:
            self.head = None
            return dict(head)
        self.taken += count
        return _pairs(islice(self.rest, count), self.taken - count)


_ELEMENT = re.compile(r"element #(\d+)")


def _pairs(items: Iterator[Any], before: int) -> dict[Any, Any]:
    """Return a dict of pairs; errors say which pair it is, counting those before."""
    try:
        return dict(items)
    except (TypeError, ValueError) as error:
        message = str(error)
        if not before or "sequence element #" not in message or len(error.args) != 1:
            raise
        message = _ELEMENT.sub(lambda found: f"element #{int(found[1]) + before}", message)
        raise type(error)(message) from None


def first_items(items: Iterable[Any]) -> list[Any] | Source:
    """Return a list of items, or a source of them when there are many."""
    if type(items) in (list, tuple, set):
        if len(items) <= LARGE:  # type: ignore[arg-type]
            return list(items)
        return Source([], iter(items), items)
    rest = iter(items)
    head = list(islice(rest, LARGE))
    more = list(islice(rest, 1))
    return Source(head, chain(more, rest)) if more else head


def first_pairs(items: Any, named: dict[str, Any]) -> dict[Any, Any] | Source:
    """Return what `dict.update` would set, or a source of it when that is much."""
    if type(items) is dict:
        if len(items) <= LARGE:
            return {**items, **named} if named else items.copy()
        return Source({}, iter(items.items()), items) if not named else _rest(items.items(), named)
    if isinstance(items, dict):
        pairs: Any = items.items()
    elif hasattr(items, "keys"):
        pairs = ((key, items[key]) for key in items.keys())  # noqa: SIM118 - its keys() decides
    else:
        pairs = items
    return _rest(pairs, named)


def _rest(pairs: Iterable[Any], named: dict[str, Any]) -> dict[Any, Any] | Source:
    rest = iter(pairs)
    head = dict(islice(rest, LARGE))
    more = list(islice(rest, 1))
    if more:
        source = Source(head, chain(more, rest, named.items()))
        source.taken = LARGE
        return source
    head.update(named)
    return head


# --- one build ------------------------------------------------------------------------------------


class _WholeError(Exception):
    """Some keys are not such as bytes can tell apart: the container has to stay whole."""


class _Memo(dict[int, tuple[Any, Any]]):
    """The memo of the adopters of a build: it also knows what is on pages that were let go."""

    def __init__(self, build: _Build) -> None:
        super().__init__()
        self.build: _Build | None = build

    def get(self, key: int, default: Any = None) -> Any:
        """Return what became of the object with an id."""
        found = dict.get(self, key)
        build = self.build
        if found is None and build is not None and key in build.remembered:
            found = build.recall(key)
        return default if found is None else found


class _Build(ABC):
    """One build.

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
        # by id of an object that may come again: its number; and the objects, to keep the ids taken
        self.remembered: dict[int, int] = {}
        self.held: list[Any] = []
        # the first number and the id of each page
        self.bases: array[int] = array("Q")
        self.pids: array[int] = array("Q")
        self.memo = _Memo(self)
        kind: Any = node.kind
        self.packer = Packer(kind.builtin, self.remembered, paging.PAGE * _FULL)
        # references to an item besides that of `values`
        self.others = 0 if source.original is None else 1
        self.per_page = _KEPT
        if source.original is not None:
            # it may be inside itself
            self.memo[id(source.original)] = (node.face, source.original)

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
        # it refers to this build: without that, nothing is left for the garbage collector
        self.memo.clear()
        self.memo.build = None

    def pack(self) -> None:
        """Pack items until the page is full, or there is one that cannot be packed."""
        values, keys, packer = self.values, self.keys, self.packer
        if self.is_held is None:
            alone = ALONE + self.others
            self.is_held = [count > alone for count in references(values)]
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
        except EncodingError:
            self.unpack(0)
            self.adopt()
            return
        if len(data) > paging.PAGE and packer.faces:
            self.unpack(0)
            self.adopt()
            return
        for original, slot in packer.held:
            self.remembered[id(original)] = base + slot
            self.held.append(original)
        self.put(pid, data, packer.keys or packer.items, base)
        packer.begin()

    def put(self, pid: int, data: bytes, items: Any, base: int) -> None:
        """Put a page into the engine's transaction."""
        entries = self.enter(pid, items)
        entries.append((page_name(self.cid, pid), data))
        self.tx.flush(self.cid, 0 if self.is_new else pid, entries)
        self.bases.append(base)
        self.pids.append(pid)
        self.count(len(items), len(data))

    def count(self, items: int, size: int) -> None:
        """Tell of progress."""
        if self.tx.progress is not None:
            self.tx.progress.add(items, size)
        self.tx.check_open()

    # --- pages with nodes ---

    def adopt(self) -> None:
        """Adopt the next items, as many as fit on a page."""
        tx = self.tx
        count = min(len(self.values) - self.at, self.per_page)
        while True:
            mark = (len(tx.reshaped), len(self.memo))
            record, adopter = self.make_page(count)
            found = reach(tx, record)
            if found.foreign or found.mains or any(one in tx.touched for one in found.nodes):
                self.keep(record, count, mark)
                break
            one = encode(tx, record, found)
            tx.orders.pop(record, None)
            size = len(one.data)
            if size <= paging.PAGE or (count == 1 and len(found.nodes) == 1):
                self.per_page = max(1, int(count * min(4.0, _FULL * paging.PAGE / size)))
                self.let_go(record, one, count, mark)
                break
            if count > 1 and size < count * paging.PAGE // 3:
                self.undo_page(record, adopter, mark)
                count = self.per_page = max(1, int(count * 0.9 * paging.PAGE / size))
                continue
            # large items
            self.per_page = _KEPT
            if sum(len(node.kids or ()) for node in found.nodes) == len(found.nodes) - 1:
                self.divide(record, count, mark)
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
        tx.born(record, main)
        record.value = main.face
        adopter = Adopter(tx, record)
        adopter.memo = self.memo
        try:
            self.fill(main, adopter, self.at, self.at + count)
        except EncodingError as error:
            raise error.inside(place(owner, node)) from error.__cause__
        return record, adopter

    def undo_page(self, record: Record, adopter: Adopter, mark: tuple[int, int]) -> None:
        """Take back a page that has become too large."""
        del self.tx.reshaped[mark[0] :]
        while len(self.memo) > mark[1]:
            self.memo.popitem()
        adopter.undo()
        self.tx.unborn(_main(record))

    def keep(self, record: Record, count: int, mark: tuple[int, int]) -> None:
        """Leave a page to the commit."""
        tx = self.tx
        pid = int.from_bytes(record.name[9:], "big")
        tx.fresh[record.name] = record
        tx.tracker.live[record.name] = record
        self.remember(record, count, mark[1])
        for name, stored in self.enter(pid, _main(record).work):
            tx.set_cell(name, stored)
        assert record.base is not None
        self.bases.append(record.base)
        self.pids.append(pid)
        self.count(count, 0)

    def let_go(self, record: Record, one: Encoded, count: int, mark: tuple[int, int]) -> None:
        """Put an adopted page, and forget its nodes."""
        del self.tx.reshaped[mark[0] :]
        self.remember(record, count, mark[1])
        self.forget(record, one)
        assert record.base is not None
        pid = int.from_bytes(record.name[9:], "big")
        self.put(pid, one.data, _main(record).work, record.base)

    def forget(self, record: Record, one: Encoded) -> None:
        """Let an encoded page be a loaded one like any other, which goes when nobody holds it."""
        tx = self.tx
        births = tx.levels[-1].births
        for node in record.nodes.values():
            births.pop(node, None)
            node.tx = None
            if node.kind.guarded:
                node.kind.settle(node)
        tx.orders.pop(record, None)
        tx.rearranged.pop(record, None)
        record.size = len(one.data)
        tx.tracker.live[record.name] = record

    def divide(self, record: Record, count: int, mark: tuple[int, int]) -> None:
        """Let the large containers on a page spread, and put all pages that come of it."""
        tx = self.tx
        built, cells = len(tx.built), len(tx.cells)
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
        level = tx.levels[-1]
        for name in list(islice(tx.cells, cells, None)):
            cell = tx.cells.pop(name)
            level.cells.pop(name, None)
            if cell is not None:
                stored = cell if name[:1] == ENTRY else cell.to_bytes()
                tx.flush(int.from_bytes(name[1:9], "big"), 0, [(name, stored)])
        for cid in list(islice(tx.built, built, None)):
            del tx.built[cid]
        self.let_go(record, work.encoded[record], count, mark)

    # --- what may come again ---

    def remember(self, record: Record, count: int, mark: int) -> None:
        """Of what was adopted, remember what may come again, and forget all else."""
        made: list[Any] = []
        originals: list[Any] = []
        while len(self.memo) > mark:
            made.append(self.memo.popitem()[1])
            originals.append(made[-1][1])
            made[-1] = made[-1][0]
        expected = _references_among(originals)
        for at in range(self.at, self.at + count):
            key = id(self.values[at])
            expected[key] = expected.get(key, 0) + 1 + self.others
        counts = references(originals)
        todo = [
            originals[at]
            for at, count in enumerate(counts)
            if count > ALONE + expected.get(id(originals[at]), 0)
        ]
        held: set[int] = set()
        while todo:
            one = todo.pop()
            if id(one) not in held:
                held.add(id(one))
                todo += _inside(one)
        base = record.base or 0
        for face, original in zip(made, originals, strict=True):
            if face is original or id(original) not in held:
                continue
            node = node_of(face)
            if node is None or node.record is not record or node.uid < base:
                self.memo[id(original)] = (face, original)
            else:
                self.remembered[id(original)] = node.uid
                self.held.append(original)

    def recall(self, key: int) -> tuple[Any, Any] | None:
        """Return what became of a remembered object."""
        uid = self.remembered[key]
        pid = self.pids[bisect_right(self.bases, uid) - 1]
        record = self.tx.tracker.page(page_name(self.cid, pid), self.node)
        for node in record.nodes.values() if record is not None else ():
            if node.uid == uid:
                return node.face, node.face
        return None


def _main(record: Record) -> Node:
    main = record.main
    assert main is not None
    return main


def _inside(value: Any) -> list[Any]:
    """Return what an object refers to, as far as that is easily told."""
    found: list[Any] = []
    if isinstance(value, dict):
        found += [*value, *value.values()]
    elif isinstance(value, (list, tuple, set, frozenset)):
        found += value
    found += getattr(value, "__dict__", {}).values()
    return [one for one in found if type(one) not in ATOMS]


def _references_among(values: list[Any]) -> dict[int, int]:
    """Return by id how often objects are referred to by those in a list."""
    counts: dict[int, int] = {}
    for value in values:
        for one in _inside(value):
            counts[id(one)] = counts.get(id(one), 0) + 1
    return counts


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

    def _fit(self, record: Record, one: Encoded) -> list[Record] | None:
        if record is not self.page:
            return super()._fit(record, one)
        if len(one.data) > paging.PAGE and record not in self.hopeless:
            return self._spread(record, one)
        return None


# --- lists, dicts and sets ------------------------------------------------------------------------


class _ListBuild(_Build):
    def __init__(self, tx: Transaction, node: Node, source: Source, is_new: bool) -> None:
        super().__init__(tx, node, source, is_new)
        self.start = 0 if self.is_empty else len(node.work)
        self.total = 0
        # how many items each page has
        self.sizes: array[int] = array("Q")
        # how many atoms are expected to fit on one
        self.fitting = _BATCH

    def refill(self) -> bool:
        return self.have(_BATCH) > 0

    def have(self, count: int) -> int:
        """Take more items until there are so many to come, or no more; return how many there
        are.
        """
        left = len(self.values) - self.at
        if left < count:
            more = self.source.take(max(count - left, _BATCH))
            if more:
                self.values = self.values[self.at :] + more if left else more
                self.at = 0
                self.is_held = None
                left += len(more)
        return left

    def step(self) -> None:
        if not self.packer.items and type(self.values[self.at]) in ATOMS and self.put_atoms():
            return
        self.pack()

    def put_atoms(self) -> bool:
        """Put a page of the next items, if these are atoms."""
        count = min(self.have(self.fitting), self.fitting)
        wanted = paging.PAGE * _FULL
        pid = self.new_pid()
        name = page_name(self.cid, pid)
        base = 0
        while True:
            part = self.values[self.at : self.at + count]
            if not ATOMS.issuperset(map(type, part)):
                return False
            base = base or self.tx.tracker.number()
            try:
                data = self.packer.encode_atoms(name, base, part)
            except EncodingError:
                return False
            size = len(data)
            fits = max(1, int(count * wanted / size))
            if size > paging.PAGE and count > 1:
                count = min(fits, count - 1)
            elif size < wanted * 0.8 and self.have(fits) > count:
                count = min(fits, len(self.values) - self.at)
            else:
                break
        self.fitting = fits
        self.at += count
        self.put(pid, data, part, base)
        return True

    def new_pid(self) -> int:
        return int(self.tx.tracker.number())

    def enter(self, pid: int, items: Any) -> list[tuple[bytes, bytes]]:
        self.sizes.append(len(items))
        self.total += len(items)
        return []

    def fill(self, main: Node, adopter: Adopter, first: int, last: int) -> None:
        work = main.work
        start = self.start + self.total
        for at in range(first, last):
            work.append(adopter(self.values[at], f"[{start + len(work)}]"))

    def finish(self) -> None:
        pages = list(zip(self.pids, self.sizes, strict=True))
        tree = Tree(self.tx, self.cid)
        number = self.tx.tracker.number
        if self.tx.cell(tree.root) is None:
            tree.build(pages, number)
            return
        pid, before, path = tree.last()
        last = (pid, len(self.node.work) - before)
        for at in range(0, len(pages), FANOUT):
            _, _, path = tree.last()
            some = pages[at : at + FANOUT]
            tree.replace(path, path[-1][2] + 1, [last, *some], number)
            last = some[-1]


class _KeyedBuild(_Build):
    def __init__(self, tx: Transaction, node: Node, source: Source, is_new: bool) -> None:
        super().__init__(tx, node, source, is_new)
        self.directory = cell_name(self.cid)
        self.looks = not (self.is_empty and source.is_unique)
        # the engine keys of the entries of keys that are on no page yet
        self.names: dict[Any, bytes] = {}
        # what was taken and has to stay out: the rest, from a key on that bytes cannot tell
        self.rest: dict[Any, Any] | None = None

    def is_there(self, key: Any, name: bytes) -> bool:
        """Tell whether the container has a key."""
        if key in self.names:
            self.close_page()
        return self.tx.entry(name) is not None

    def new_pid(self) -> int:
        root = self.tx.cell(self.directory)
        return STEP if root is None else int(root.last) + STEP

    def enter(self, pid: int, items: Any) -> list[tuple[bytes, bytes]]:
        tx = self.tx
        root = tx.cell(self.directory)
        count = len(items) + (0 if root is None else root.count)
        tx.set_cell(self.directory, Directory(count, pid))
        stored = pid.to_bytes(8, "big")
        take = self.names.pop
        names = [take(key) for key in items]
        known = tx.cells
        for name in names:
            if name in known:
                tx.set_cell(name, stored)
        return [(name, stored) for name in names if name not in known]

    def finish(self) -> None:
        if self.rest is None:
            return
        if self.source.original is not None:
            raise _WholeError
        tx, node = self.tx, self.node
        gather(tx, node)
        self.add_rest(self.rest)

    @abstractmethod
    def add_rest(self, rest: dict[Any, Any]) -> None:
        """Put everything that is left into the container, which is whole now."""


class _DictBuild(_KeyedBuild):
    def refill(self) -> bool:
        if self.rest is not None:
            return False
        self.values, self.keys, self.at, self.is_held = [], [], 0, None
        cid = self.cid
        found = True
        while found and not self.values:
            part = self.source.take_pairs(_BATCH)
            found = bool(part)
            for key, value in part.items():
                form = entry_form(key)
                if form is None:
                    self.rest = dict(islice(part.items(), list(part).index(key), None))
                    return bool(self.values)
                name = entry_name(cid, form)
                if self.looks and self.is_there(key, name):
                    dict_set(self.tx, self.node, key, value)
                    continue
                self.names[key] = name
                self.keys.append(key)
                self.values.append(value)
        return found

    def fill(self, main: Node, adopter: Adopter, first: int, last: int) -> None:
        work = main.work
        for at in range(first, last):
            key = self.keys[at]
            work[key] = adopter(self.values[at], f"[{key!r}]")

    def add_rest(self, rest: dict[Any, Any]) -> None:
        while part := self.source.take_pairs(_BATCH):
            rest.update(part)
        apply(self.tx, self.node, op.dict_update, (rest,), False)


class _SetBuild(_KeyedBuild):
    def refill(self) -> bool:
        if self.rest is not None:
            return False
        self.values, self.at, self.is_held = [], 0, None
        cid = self.cid
        found = True
        while found and not self.values:
            part = dict.fromkeys(self.source.take(_BATCH))
            found = bool(part)
            for key in part:
                form = entry_form(key)
                if form is None:
                    self.rest = dict.fromkeys(islice(part, list(part).index(key), None))
                    return bool(self.values)
                name = entry_name(cid, form)
                if self.looks and self.is_there(key, name):
                    continue
                self.names[key] = name
                self.values.append(key)
        return found

    def fill(self, main: Node, adopter: Adopter, first: int, last: int) -> None:
        for at in range(first, last):
            main.work.add(adopter.hashed(self.values[at], "{…}"))

    def add_rest(self, rest: dict[Any, Any]) -> None:
        items = [*rest]
        while part := self.source.take(_BATCH):
            items += part
        apply(self.tx, self.node, op.set_update, (items,), False)


_BUILDS: dict[type, type[_Build]] = {list: _ListBuild, dict: _DictBuild, set: _SetBuild}
_WHOLE: dict[Any, Callable[..., Any]] = {
    list: op.list_extend,
    dict: op.dict_update,
    set: op.set_update,
}


# --- what others call -----------------------------------------------------------------------------


def extend(face: Any, source: Source) -> None:
    """Put items into a stored list, dict or set, in the current transaction or one of its own.

    Args:
        face: the container.
        source: the items.

    Raises:
        DetachedError: the face has left the store.
        EncodingError: an item cannot be stored.
        ConflictError: another writer was faster, and the items come from an iterator.
    """
    node = node_of(face)
    assert node is not None
    record = node.record
    if record is None:
        raise detached(node)
    tracker = record.tracker
    run(tracker, tracker.timeout, lambda tx: _extend(tx, node, source))


def _extend(tx: Transaction, node: Node, source: Source) -> None:
    source.begin()
    tx.check(node)
    kind: Any = node.kind
    builtin: type = kind.builtin
    content = node.work
    whole = not isinstance(content, Spread)
    if not whole or builtin is list or all(entry_form(key) is not None for key in content):
        try:
            with tx.nested():
                if whole:
                    _spread(tx, node)
                _build(tx, node, source, whole)
            return
        except _WholeError:
            source.begin()
    if builtin is dict:
        items: Any = {}
        while some := source.take_pairs(_BATCH):
            items.update(some)
    else:
        items = []
        while part := source.take(_BATCH):
            items += part
    operation = _WHOLE[builtin]
    if isinstance(node.work, Spread):
        SPREAD[operation](tx, node, items)
    else:
        apply(tx, node, operation, (items,), False)


def _build(tx: Transaction, node: Node, source: Source, is_new: bool) -> None:
    kind: Any = node.kind
    _BUILDS[kind.builtin](tx, node, source, is_new).run()
    if tx.progress is not None:
        tx.progress.tell()


def _spread(tx: Transaction, node: Node) -> None:
    """Let a whole container be a spread one, of one page or none."""
    kind: Any = node.kind
    tracker = tx.tracker
    content = node.work
    tx.take(node)
    content = node.work
    cid = tracker.number()
    kind.spread(node, cid)
    node.kids = []
    tx.built[cid] = node
    record = node.record
    assert record is not None
    if record in tx.reach:
        tx.removed(record)
    if not content:
        return
    is_list = kind.builtin is list
    pid = tracker.number() if is_list else STEP
    page = Record(tracker, page_name(cid, pid), None, record.root, node)
    main = kind.make(None, -1, -1, kind.clean, content.copy())
    tx.born(page, main)
    page.value = main.face
    tx.fresh[page.name] = page
    tracker.live[page.name] = page
    if is_list:
        Tree(tx, cid).build([(pid, len(content))], tracker.number)
        return
    tx.set_cell(cell_name(cid), Directory(len(content), pid))
    for key in content:
        tx.set_cell(entry_name(cid, entry_form(key) or b""), pid.to_bytes(8, "big"))


def build_value(tx: Transaction, record: Record, source: Source) -> Any:
    """Return a new list, dict or set with the items, the value of a root record.

    Args:
        tx: the transaction.
        record: the record, which has no value yet.
        source: the items.

    Raises:
        EncodingError: an item cannot be stored; it has the whole way to it.
    """
    original = source.original
    source.begin()
    empty: Any = [] if original is None else type(original)()
    try:
        with tx.nested():
            record.value = face = Adopter(tx, record)(empty)
            node = node_of(face)
            assert node is not None
            _spread(tx, node)
            _build(tx, node, source, True)
        return face
    except _WholeError:
        return Adopter(tx, record)(original)


def source_of(value: Any) -> Any:
    """Return the source of a value that is to be built; a value that is not, as it is.

    A generator of few items gives a list.
    """
    kind = type(value)
    if kind is types.GeneratorType:
        return first_items(value)
    if kind in (list, dict, set) and len(value) > LARGE:
        return Source(None, iter(value.items() if kind is dict else value), value)
    return value


def _refuse(adopter: Adopter, original: Any, content: Any) -> Any:
    raise EncodingError(
        "a generator inside a value cannot be stored: it could be read once only; use list(…)"
    )


HANDLERS[types.GeneratorType] = _refuse
