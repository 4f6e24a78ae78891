"""Building large lists, dicts and sets from an iterable, in bounded memory.

Items go onto pages as `filling` says; here is what leads to these pages, and what others call.
Nothing leads to the pages of a list before its end. The keys of a dict or set lead to a page once
it is put, so that a key that comes again is found.

Keys that bytes cannot tell apart keep a container whole: when one comes, what was built is
gathered.
"""

from __future__ import annotations

import types
from abc import abstractmethod
from array import array
from collections.abc import Callable
from itertools import islice
from typing import Any

from richstore import paging
from richstore.errors import EncodingError, PlacedError
from richstore.group_commit import run
from richstore.node import Node, Spread
from richstore.nodes import operations as op
from richstore.nodes.adopt import ATOMS, HANDLERS, Adopter
from richstore.nodes.base import node_of
from richstore.nodes.change import SPREAD, apply
from richstore.nodes.spread.filling import BATCH, FULL, Filler, NotPlainError
from richstore.nodes.spread.operations import dict_set, gather
from richstore.nodes.spread.sources import Source
from richstore.pages import (
    FANOUT,
    STEP,
    Directory,
    Tree,
    cell_name,
    entry_form,
    entry_name,
    page_name,
)
from richstore.record import Record
from richstore.transaction import Transaction, detached

__all__ = ["build_inside", "build_value", "extend"]


class _WholeError(Exception):
    """Some keys are not such as bytes can tell apart: the container has to stay whole."""


class _ListBuild(Filler):
    def __init__(self, tx: Transaction, node: Node, source: Source, is_new: bool) -> None:
        super().__init__(tx, node, source, is_new)
        self.start = 0 if self.is_empty else len(node.work)
        self.total = 0
        # the ids of the pages, and how many items each has
        self.pids: array[int] = array("Q")
        self.sizes: array[int] = array("Q")
        # how many atoms are expected to fit on one
        self.fitting = BATCH

    def refill(self) -> bool:
        return self.have(BATCH) > 0

    def have(self, count: int) -> int:
        """Take more items until there are so many to come, or no more; return how many there
        are.
        """
        left = len(self.values) - self.at
        if left < count:
            more = self.source.take(max(count - left, BATCH))
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
        wanted = paging.PAGE * FULL
        pid = self.new_pid()
        name = page_name(self.cid, pid)
        base = 0
        too_many = False
        while True:
            part = self.values[self.at : self.at + count]
            if not ATOMS.issuperset(map(type, part)):
                return False
            base = base or self.tx.tracker.number()
            try:
                data = self.packer.encode_atoms(name, base, part)
            except PlacedError:
                return False
            size = len(data)
            fits = max(1, int(count * wanted / size))
            if size > paging.PAGE and count > 1:
                count = min(fits, count - 1)
                too_many = True
            elif not too_many and size < wanted * 0.8 and self.have(fits) > count < fits:
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
        self.pids.append(pid)
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


class _KeyedBuild(Filler):
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
            part = self.source.take_pairs(BATCH)
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
        while part := self.source.take_pairs(BATCH):
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
            part = dict.fromkeys(self.source.take(BATCH))
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
        while part := self.source.take(BATCH):
            items += part
        apply(self.tx, self.node, op.set_update, (items,), False)


_BUILDS: dict[type, type[Filler]] = {list: _ListBuild, dict: _DictBuild, set: _SetBuild}
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
        while some := source.take_pairs(BATCH):
            items.update(some)
    else:
        items = []
        while part := source.take(BATCH):
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
    page.value = main.face
    tx.born(page, main)
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


def build_inside(adopter: Adopter, node: Node, content: Any) -> bool:
    """Build a large container inside a value that is adopted, if it holds plain items alone.

    Args:
        adopter: the adopter of the value.
        node: the new, empty container.
        content: what it is to hold.

    Returns:
        Whether it was built. If not, nothing has changed: an item needs a node, or may occur
        elsewhere in the value.
    """
    tx = adopter.tx
    if tx is None:
        return False
    is_dict = type(content) is dict
    source = Source(None, iter(content.items() if is_dict else content), content)
    try:
        with tx.nested():
            _spread(tx, node)
            filler = _BUILDS[type(content)](tx, node, source, True)
            filler.only_plain = True
            filler.run()
        return True
    except (_WholeError, NotPlainError):
        return False


def _refuse(adopter: Adopter, original: Any, content: Any) -> Any:
    raise EncodingError(
        "a generator inside a value cannot be stored: it could be read once only; use list(…)"
    )


HANDLERS[types.GeneratorType] = _refuse
