"""What the contents of all spread containers have in common: from where their items come.

A content is *live* while its node is in the store: cells and pages come from the tracker, or from
the
current transaction. One in a snapshot, or one that has left the store while somebody held it, has a
*view* of the state it belongs to, and its items are frozen.

The rule for live reads: they run with the tracker locked, and run again if another process's commit
was noticed meanwhile, so that what they combine is of one state.
"""

from __future__ import annotations

import os
import sys
from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Iterator
from heapq import merge
from itertools import islice
from typing import Any, ClassVar

from richstore import paging
from richstore.codec import keys, records
from richstore.codec.policy import ClassPolicy
from richstore.codec.records import decode, is_plain, parse
from richstore.errors import (
    ClosedError,
    CorruptionError,
    DetachedError,
    FormatError,
    UntrustedClassError,
    explain,
)
from richstore.node import Node, Spread
from richstore.nodes.base import get_content, get_node, is_face
from richstore.nodes.base import view as visible
from richstore.pages import CELL, PAGE, cell_name, page_name, read_cell
from richstore.spaces import form_in, place_in
from richstore.transaction import Transaction, current

__all__ = ["FrozenView", "SpreadContent"]

# Errors that are told of which value they are.
_EXPLAINED = (CorruptionError, FormatError, UntrustedClassError)
# So many items are believed of any store.
_CERTAIN = 1 << 20
# Pages that the view of a snapshot keeps decoded.
_KEPT = 64
# What part of the cache iterating over a container keeps loaded, of pages as they are stored.
_SHARE = 64
# A container of at most so many pages may have a mirror, after at least so many reads.
_MIRRORED = 256
_READS = 64


class FrozenView:
    """Pages of one committed state, as frozen faces.

    Args:
        view: the engine's read transaction.
        decode: turns the name and bytes of a record into its value.
        classes: finds the classes and functions that records name.
        path: of the file, for what is plausible.
    """

    def __init__(
        self,
        view: Any,
        decode: Callable[[FrozenView, bytes, bytes], Any],
        classes: ClassPolicy,
        path: str | None = None,
    ) -> None:
        self.path = path
        self.view = view
        self.decode = decode
        self.classes = classes
        self.kept: OrderedDict[bytes, Any] = OrderedDict()
        # main nodes of records that others refer to, by uid, and those whose records are still to
        # be read, each with the name of that
        self.shared: dict[int, Node] = {}
        self.todo: list[tuple[Node, bytes]] = []
        # instances of older versions of their classes, each with the version and its state
        self.upgrades: list[tuple[Node, int, Any]] = []
        self.busy = False
        self.cells: dict[bytes, Any] = {}
        # the records that have spread containers, by spread id
        self.owners: dict[int, bytes] = {}

    def place(self, name: bytes) -> str:
        """Return where the value that a record belongs to is, as Python would write it."""
        while name[:1] in (PAGE, CELL):
            owner = self.owners.get(int.from_bytes(name[1:9], "big"))
            if owner is None:
                break
            name = owner
        try:
            key = records.stored_key(self.view.get(name))
            found = (
                keys.decode_key(form_in(name))
                if key is None
                else records.load_blob(key, self.classes)
            )
            return f"{place_in(self.view, name)}[{found!r}]"
        except Exception:  # noqa: BLE001 - a damaged key: the engine's own name says where
            return f"[{name!r}]"

    def explain(self, error: Exception, name: bytes) -> None:
        """Let the error of a record, or of one it refers to, say which value was being read."""
        explain(error, self.place(name))

    def get(self, name: bytes) -> bytes | None:
        """Return what is stored under an engine key."""
        try:
            stored: bytes | None = self.view.get(name)
        except ClosedError:
            raise ClosedError(
                "the snapshot, or the store, that this large value came from is closed, and this "
                "part of it was not loaded before; read what you need inside the with block"
            ) from None
        return stored

    def unreadable(self, node: Node | None, error: Exception) -> Any:
        """Raise the error of a record that others refer to; salvaging goes on without it.

        Args:
            node: the node whose content the record has; None when it is to be made by the record.
            error: what was wrong.

        Returns:
            What stands in its place when `node` is None.
        """
        raise error

    def cell(self, name: bytes) -> Any:
        """Return an index or directory, or None."""
        found = self.cells.get(name)
        if found is None:
            found = self.cells[name] = read_cell(name, self.get(name))
            if len(self.cells) > 4 * _KEPT:
                self.cells.clear()
        return found

    def page(self, name: bytes) -> Any:
        """Return the container on a page, or None."""
        found = self.kept.get(name)
        if found is None:
            stored = self.get(name)
            if stored is None:
                return None
            found = _content_of(self.decode(self, name, stored))
            self.kept[name] = found
            if len(self.kept) > _KEPT:
                self.kept.popitem(last=False)
        return found


class _Borrowed:
    """A view that somebody else closes."""

    def __init__(self, view: Any) -> None:
        self.view = view

    def __getattr__(self, name: str) -> Any:
        return getattr(self.view, name)

    def close(self) -> None:
        """Nothing."""


def _content_of(value: Any) -> Any:
    """Return the container of a page."""
    if not is_face(value):
        raise CorruptionError("a page of a large container holds none")
    return visible(value)


class SpreadContent(Spread):
    """The content of a spread container; a subclass per kind has the reading methods."""

    __slots__ = ("cost", "frozen", "reads", "wait")
    builtin: ClassVar[type]

    def __init__(self, node: Node | None, cid: int, frozen: FrozenView | None = None) -> None:
        super().__init__(node, cid)
        self.frozen = frozen
        # reads since the last change, and how many there are to be before a mirror is thought of
        self.reads = 0
        self.wait = _READS
        # bytes of memory that the mirror keeps loaded
        self.cost = 0

    # --- where things are ---

    def view(self) -> FrozenView | None:
        """Return the view to read from; None: live."""
        if self.frozen is not None:
            return self.frozen
        if self.before is None:
            return None
        if self.before is False:
            raise DetachedError(
                f"this {self.builtin.__name__} is no longer part of the store, and was not read "
                f"before, or too large to be kept in memory; take what you need with "
                f"richstore.plain(…) before it is deleted or overwritten"
            )
        from richstore.nodes.frozen import frozen_value

        self.frozen = FrozenView(self.before, frozen_value, self.classes)
        return self.frozen

    @property
    def is_strict(self) -> bool:
        """Whether what is stored may come from a stranger."""
        frozen = self.frozen
        strict: bool = (self._tracker() if frozen is None else frozen).classes.strict
        return strict

    def plausible(self, count: int) -> int:
        """Return a number of items that is stored; Python makes room for so many.

        Raises:
            CorruptionError: the store is too small for them.
        """
        if count > _CERTAIN and self.is_strict:
            path = self._tracker().engine.path if self.frozen is None else self.frozen.path
            if path is not None and os.path.exists(path) and count > os.path.getsize(path):
                raise CorruptionError(
                    f"a {self.builtin.__name__} says that it has {count} items, which are more "
                    f"than the bytes of the file"
                )
        return count

    def cell(self, name: bytes) -> Any:
        """Return an index or directory as the caller is to see it."""
        frozen = self.frozen
        if frozen is not None:
            return frozen.cell(name)
        tracker = self._tracker()
        transaction = current(tracker)
        if transaction is not None and not transaction.ended:
            return transaction.cell(name)
        return tracker.cell(name)

    def set_cell(self, name: bytes, value: Any) -> None:
        """Refuse: cells are changed through the transaction."""
        raise AssertionError(name)

    def _tracker(self) -> Any:
        node = self.node
        assert node is not None and node.record is not None
        return node.record.tracker

    def page(self, pid: int, *, remember: bool = True) -> Any:
        """Return the container on a page as the caller is to see it.

        Raises:
            CorruptionError: there is none.
        """
        name = page_name(self.cid, pid)
        frozen = self.frozen
        if frozen is not None:
            kept = self.kept.get(pid)
            found = _content_of(kept.value) if kept is not None else frozen.page(name)
        else:
            record = self._tracker().page(name, self.node, remember=remember)
            found = None if record is None else _content_of(record.value)
        if found is None:
            raise CorruptionError(f"page {name!r} of a {self.builtin.__name__} is missing")
        if type(found) is not self.builtin:
            raise CorruptionError(f"page {name!r} holds no {self.builtin.__name__}")
        return found

    @property
    def root(self) -> Any:
        """The root index or directory.

        Raises:
            CorruptionError: there is none.
        """
        found = self.cell(cell_name(self.cid))
        if found is None:
            raise CorruptionError(
                f"the index of a {self.builtin.__name__} is missing (spread id {self.cid})"
            )
        return found

    def read(self, method: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """Run a read on one state.

        Args:
            method: the name of the method that the caller called.
            function: what does it, given the content that is current.
            arguments: handed on.
        """
        try:
            return self._read(method, function, *arguments)
        except _EXPLAINED as error:
            self._explain(error)
            raise

    def _explain(self, error: Exception) -> None:
        """Let an error say of which value this is a part."""
        if self.frozen is not None:
            self.frozen.explain(error, cell_name(self.cid))
        elif self.node is not None and self.node.record is not None:
            explain(error, self.node.record.path)

    def _read(self, method: str, function: Callable[..., Any], *arguments: Any) -> Any:
        if self.frozen is not None:
            return function(self, *arguments)
        node = self.node
        assert node is not None
        record = node.record
        if record is None:
            self.view()
            return function(self, *arguments)
        tracker = record.tracker
        with tracker.lock:
            while True:
                record = node.record
                if record is None:
                    self.view()
                    return function(self, *arguments)
                if record.stale and node.tx is None:
                    tracker.reload(record)
                    continue
                content = visible(node.face)
                if content is not self:
                    if not isinstance(content, SpreadContent):
                        return getattr(content, method)(*arguments)
                    return content.read(method, function, *arguments)
                seen = tracker.seen
                try:
                    result = function(self, *arguments)
                except BaseException:
                    if tracker.seen == seen:
                        raise
                    continue
                if tracker.seen == seen:
                    self.reads += 1
                    if self.reads > self.wait:
                        self._make_mirror(tracker)
                    return result

    def _make_mirror(self, tracker: Any) -> None:
        """Let the face show a built-in container, so that reads run in C, if that is worth it.

        The container must be read more than an eighth of its items before it changes again, fit
        into some pages, and have no transaction at work.
        """
        node = self.node
        assert node is not None
        kind: Any = node.kind
        if (
            tracker.transaction is not None
            or type(node.face) is not kind.clean
            or node.tx is not None
        ):
            self.wait = self.reads + _READS
            return
        # what is read from here on is not counted
        reads, self.wait = self.reads, sys.maxsize
        sized: Any = self
        length = len(sized)
        if reads < length // 8:
            self.wait = length // 8
            return
        seen = tracker.seen
        pids = list(islice(self.page_ids(), _MIRRORED + 1))
        if len(pids) > _MIRRORED:
            return
        mirror = self.builtin()
        add = mirror.extend if self.builtin is list else mirror.update
        for pid in pids:
            add(self.page(pid))
        record = node.record
        if tracker.seen == seen and tracker.transaction is None and record is not None:
            self.mirror = mirror
            kind.show(node.face, mirror)
            # it keeps all pages loaded as long as the record of the container is
            costs = tracker.costs
            names = [page_name(self.cid, pid) for pid in pids]
            self.cost = sum(costs.get(name, 8 * paging.PAGE) for name in names)
            record.mirrored += self.cost
            tracker.remember(record)
        else:
            self.wait = reads + _READS

    def drop_mirror(self) -> None:
        """Let the face show this content itself: something in it changes."""
        node = self.node
        self.forget_mirror()
        self.reads = 0
        self.wait = _READS
        if node is not None and node.content is self:
            kind: Any = node.kind
            kind.show(node.face, self)

    def forget_mirror(self) -> None:
        """Have no mirror."""
        self.mirror = None
        node = self.node
        if self.cost and node is not None and node.record is not None:
            node.record.mirrored = max(0, node.record.mirrored - self.cost)
        self.cost = 0

    def settled(self, node: Node) -> Any:
        """Return the tracker if what it has loaded is what the caller is to see, else None.

        That is so where no transaction is open in this process. To be asked with the tracker
        locked, and good for reads that load nothing.
        """
        record = node.record
        if record is None or record.stale or node.content is not self:
            return None
        tracker = record.tracker
        if tracker.transaction is not None or self.reads >= self.wait:
            # `read` knows how; and it makes a mirror when there are enough reads
            return None
        self.reads += 1
        return tracker

    def loaded_page(self, tracker: Any, pid: int) -> Any:
        """Return the face of the container on a page if that is loaded and current, else None."""
        name = PAGE + self.cid.to_bytes(8, "big") + pid.to_bytes(8, "big")
        record = tracker.recent.get(name)
        if record is None or record.stale:
            return None
        tracker.used(name, record)
        tracker.hits += 1
        return record.value

    # --- iteration ---

    def transaction(self) -> Transaction | None:
        """Return the transaction that the caller is in, if any."""
        if self.frozen is not None or self.node is None or self.node.record is None:
            return None
        transaction = current(self.node.record.tracker)
        return None if transaction is None or transaction.ended else transaction

    @abstractmethod
    def page_ids(self, reverse: bool = False) -> Iterator[int]:
        """Yield the ids of the pages, in order, of the state that the caller is to see."""

    def contents(self, reverse: bool = False) -> Iterator[Any]:
        """Yield the container on each page, in order, all of one state.

        Outside a transaction of the caller's own it is the state at the beginning, whatever is
        committed meanwhile.
        """
        try:
            yield from self._contents(reverse)
        except _EXPLAINED as error:
            self._explain(error)
            raise

    def _contents(self, reverse: bool) -> Iterator[Any]:
        node = self.node
        if self.before is False and node is not None and node.record is not None:
            # replaced between the call of iter() and the first item
            content = visible(node.face)
            if content is not self:
                whole = (content,)
                yield from (
                    content.contents(reverse) if isinstance(content, SpreadContent) else whole
                )
                return
        if self.view() is not None or node is None or node.record is None:
            self.view()
            for pid in self.page_ids(reverse):
                yield self.page(pid)
            return
        if self.transaction() is not None:
            for pid in list(self.page_ids(reverse)):
                yield self.page(pid)
            return
        tracker = node.record.tracker
        past = self._past_content()
        if not isinstance(past, SpreadContent):
            yield past
            return
        assert past.frozen is not None
        view = past.frozen.view
        # pages to keep loaded for the next time; all of a large container would push out the rest
        room = tracker.cache_size // (_SHARE * paging.PAGE)
        count = 0
        try:
            for pid in past.page_ids(reverse):
                content = self._content_of(pid, view, past, tracker, room > 0)
                yield content
                room -= 1
                count += len(content)
            self.reads += count
            if self.reads > self.wait and room >= 0:
                with tracker.lock:
                    if tracker.seen == view.id and node.content is self:
                        self._make_mirror(tracker)
        finally:
            if past is not self:
                view.close()

    def _past_content(self) -> Any:
        """Return a content of the state that others see now, with a view of its own.

        When another process has made it a whole one just now: that.
        """
        from richstore.nodes.frozen import frozen_value

        node = self.node
        assert node is not None
        tracker = self._tracker()
        with tracker.lock:
            while True:
                with tracker.view():
                    content = visible(node.face)
                    if node.record is None:
                        # another process has deleted it just now
                        self.view()
                        return self
                    if not isinstance(content, SpreadContent):
                        return content
                    if tracker.upgrade_view is None:
                        view = tracker.engine.read()
                    else:
                        view = _Borrowed(tracker.upgrade_view)
                    if view.id == tracker.seen or tracker.upgrade_view is not None:
                        frozen = FrozenView(
                            view, frozen_value, tracker.classes, tracker.engine.path
                        )
                        frozen.owners[content.cid] = node.record.root.name
                        return type(content)(None, content.cid, frozen)
                    view.close()

    def plain_pages(self) -> Iterator[tuple[Any, bool]]:
        """Yield the container on each page as `contents` does, and whether it is plain data.

        It is where the page holds lists, dicts and sets alone: then no faces are made.
        """
        try:
            yield from self._plain_pages()
        except _EXPLAINED as error:
            self._explain(error)
            raise

    def _plain_pages(self) -> Iterator[tuple[Any, bool]]:
        past: Any = None
        tracker: Any = None
        if self.view() is not None:
            past = self
        elif self.transaction() is None:
            tracker = self._tracker()
            past = self._past_content()
        if not isinstance(past, SpreadContent) or past.kept:
            yield from ((content, False) for content in self.contents())
            return
        assert past.frozen is not None
        view = past.frozen.view
        try:
            for pid in past.page_ids():
                name = page_name(past.cid, pid)
                stored = past.frozen.get(name)
                parts = None if stored is None else parse(name, stored)
                if parts is not None and is_plain(parts):
                    content = decode(parts, [], past.frozen.classes, plain=True)
                    if type(content) is not self.builtin:
                        raise CorruptionError(f"page {name!r} holds no {self.builtin.__name__}")
                    yield content, True
                elif tracker is None:
                    yield past.page(pid), False
                else:
                    yield self._content_of(pid, view, past, tracker, False), False
        finally:
            if past is not self:
                view.close()

    def _content_of(
        self, pid: int, view: Any, past: SpreadContent, tracker: Any, remember: bool
    ) -> Any:
        """Return the container on a page as it was in a view, with live faces where there are."""
        name = page_name(past.cid, pid)
        node = self.node
        assert node is not None
        with tracker.lock:
            if node.record is None:
                return past.page(pid)
            if tracker.seen != view.id:
                with tracker.view() as now:
                    if now.get(name) != view.get(name):
                        return self._past(pid, name, view, past, tracker)
            if tracker.seen == view.id:
                record = tracker.page(name, node, remember=remember, view=view)
            else:
                record = tracker.page(name, node, remember=remember)
            if record is None:
                return past.page(pid)
            if record.asleep is not None:
                return get_content(record.value)
            return get_node(record.value).content

    def _past(self, pid: int, name: bytes, view: Any, past: SpreadContent, tracker: Any) -> Any:
        """Return an older state of a page in which the nodes that are still there are live."""
        frozen = past.page(pid)
        record = tracker.page(name, self.node, remember=False)
        if record is None:
            return frozen
        live = {node.uid: node.face for node in record.nodes.values()}

        def current_face(item: Any) -> Any:
            get = getattr(type(item), "_richstore_node_", None)
            return item if get is None else live.get(get(item).uid, item)

        if isinstance(frozen, dict):
            return {key: current_face(value) for key, value in frozen.items()}
        if isinstance(frozen, list):
            return [current_face(item) for item in frozen]
        return frozen

    def walk_pages(self, first: bytes, last: bytes, reverse: bool) -> Iterator[int]:
        """Yield the ids of the pages of a dict or set, in order."""
        transaction = self.transaction()
        if self.frozen is not None:
            scan = self.frozen.view.scan(first, last, reverse=reverse)
        elif transaction is not None:
            scan = transaction.engine.scan(first, last, reverse=reverse)
        else:
            # inside `read`: the pages of this very state
            tracker = self._tracker()
            with tracker.lock, tracker.view() as view:
                yield from [
                    int.from_bytes(name[9:], "big")
                    for name, _ in view.scan(first, last, reverse=reverse)
                ]
                return
        stored = (int.from_bytes(name[9:], "big") for name, _ in scan)
        fresh = [] if transaction is None else transaction.fresh_pages(self.cid)
        # those that are kept for the commit may be between those that are put already
        yield from merge(stored, sorted(fresh, reverse=reverse), reverse=reverse)

    # --- copies ---

    def whole(self) -> Any:
        """Return a container of the built-in class with the items."""
        return self.builtin(self)

    def copy(self) -> Any:
        """Return a shallow copy, as the built-in class does."""
        return self.whole()

    def __copy__(self) -> Any:
        return self.whole()

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.whole().__reduce_ex__(protocol)

    def __sizeof__(self) -> int:
        return object.__sizeof__(self)

    @property
    def __class__(self) -> Any:
        """The class that it stands for: the proxy around it asks."""
        return self.builtin

    @__class__.setter
    def __class__(self, cls: type) -> None:
        self.builtin().__class__ = cls
