"""The root tracker: which node lives in which record, which records are loaded, and how fresh.

Theory of operation
-------------------

A **node** stands for one mutable container or instance inside a stored value; users hold its
*face* (a proxy or a tracked instance). A **record** is the unit of storage: some nodes that are
read
and written together. A small value is one record, its *root*; a large one is a root, *pages* that
hold the items of containers that have outgrown theirs, and *shared* records, each for a node that
several records refer to. A **tracker** holds the records of one open engine.

The invariant: *every loaded record that is not marked stale equals what the engine held after
commit `seen`*. Everything that reads the engine goes through `view()`, which first brings `seen`
up to the state it is about to read: the change log says which records other processes changed
since, and those are marked stale (their faces then load them again on first use).

A commit of this process is invisible until it is *installed* (`pending` bridges the moment between
the engine's commit and that), so that other threads never see half of it.

The tracker does not know what kinds of nodes there are; `kind` objects and the `Faces` functions,
handed in by the layer above, do that work. It does not know transactions beyond `node.tx`.
"""

from __future__ import annotations

import sys
import threading
import uuid
import weakref
from array import array
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from richstore import pages
from richstore.codec import log, records
from richstore.codec.classes import class_from_bytes
from richstore.engines.base import Engine, ReadTransaction, WriteTransaction
from richstore.errors import ClosedError, CorruptionError, FormatError

__all__ = ["Faces", "Kind", "Node", "Record", "Spread", "Tracker"]

T = TypeVar("T")
View = ReadTransaction | WriteTransaction

# The key space of an engine, by first byte; `pages` has that of what is below the roots.
META = b"\x00"
FORMAT_KEY = META + b"format"
COUNT_KEY = META + b"count"
NUMBERS_KEY = META + b"numbers"
ROOT = b"\x10"
AFTER_ROOT = b"\x11"
# behind the pages, so that the two records of an append at the end of a list, the page and the log,
# are neighbours in the engine's tree
LOG_KEY = b"\x30log"

# How many numbers (of nodes, pages and the like) a process takes for itself at a time.
NUMBERS = 1 << 16
# Bytes that an encoded byte, and a node, take in memory: containers, faces, fragments.
_BYTE_COST = 8
_NODE_COST = 900
# Decoded cells that are kept, and commits of other processes whose changes are.
_CELLS = 4096
_CHANGES = 1000
# First bytes of the engine keys of records.
_RECORDS = (ROOT, pages.PAGE, pages.SHARED)

_FORMAT = b"richstore\x00\x01"


class Node:
    """One mutable container or instance inside a stored value.

    Attributes:
        record: the record it lives in; None once it has left the store.
        slot: its place in the record; reused after its death.
        uid: its identity in the record; never reused.
        kind: how nodes like it are copied, encoded and shown.
        face: what users hold.
        content: the committed content.
        work: the working copy while `tx` is open.
        tx: the transaction that has a working copy of it.
        fragment, kids: the kept encoding of the current content, and the nodes it refers to; None
            when they have to be made again.
        row: its kept row of the node table.
        home: the last record it lived in.
    """

    __slots__ = (
        "__weakref__",
        "content",
        "face",
        "fragment",
        "home",
        "kids",
        "kind",
        "record",
        "row",
        "slot",
        "tx",
        "uid",
        "work",
    )

    face: Any
    content: Any
    work: Any
    kind: Kind
    fragment: bytes | None
    kids: list[Node] | None
    row: bytes | None

    def __init__(self, record: Record | None, slot: int, uid: int, kind: Kind) -> None:
        self.record = self.home = record
        self.slot = slot
        self.uid = uid
        self.kind = kind
        self.tx: Any = None
        self.work = self.fragment = self.kids = self.row = None


class Spread:
    """The content of a container whose items are in pages; what `nodes` shows is made of this.

    Attributes:
        cid: its spread id.
        node: the node of the container; None in a snapshot.
        before: a view of the last state in which it was in the store, once it has left.
        kept: the pages that were loaded then, by id.
        mirror: a built-in container with all items, which the face shows while nothing changes;
            None
            when there is none.
    """

    __slots__ = ("__weakref__", "before", "cid", "kept", "mirror", "node")

    def __init__(self, node: Node | None, cid: int) -> None:
        self.node = node
        self.cid = cid
        self.before: Any = None
        self.kept: dict[int, Record] = {}
        self.mirror: Any = None

    def drop_mirror(self) -> None:
        """Let the face show this content itself: something in it changes."""
        raise NotImplementedError

    def copy(self) -> Any:
        """Return a whole container with the items."""
        raise NotImplementedError


class Kind(Protocol):
    """What the tracker and transactions ask of a kind of nodes.

    Attributes:
        keeps_fragment: whether a fragment is good until the node is touched again.
        finds_strays: whether `scan` needs `adopt`.
        guarded: whether `settle` has to know every committed state.
        clean, mediated, frozen: the classes of faces, see `nodes.base`.
    """

    keeps_fragment: bool
    guarded: bool
    finds_strays: bool
    clean: type
    mediated: type
    frozen: type

    def head(self, node: Node) -> int | type:
        """Return the code of the node table, or the class of an instance."""

    def begin(self, node: Node) -> None:
        """Make a working copy; the face shows it to its transaction, the content to others."""

    def install(self, node: Node) -> None:
        """Make the working copy the content."""

    def discard(self, node: Node) -> None:
        """Forget the working copy."""

    def save(self, node: Node) -> Any:
        """Return a copy of the working copy."""

    def restore(self, node: Node, saved: Any) -> None:
        """Put what `save` returned back into the working copy."""

    def scan(self, node: Node, adopt: Callable[[Any], Any]) -> list[Node]:
        """Return the nodes the working content refers to; `adopt` makes nodes of strays."""

    def is_flat(self, node: Node) -> bool:
        """Tell whether it is quickly seen that the working content refers to no nodes."""

    def hashed(self, node: Node) -> list[Node]:
        """Return the nodes that the container hashes: its keys, or elements of a set."""

    def names(self, node: Node) -> Iterable[Any]:
        """Return keys or attributes that other nodes are likely to have as well."""

    def encode(self, node: Node, pickler: records.RecordPickler, made: list[bytes]) -> bytes:
        """Return the fragment of the working content.

        What has to stand before all other fragments is appended to `made`.
        """

    def expire(self, node: Node) -> None:
        """Make the face load the record before its next use."""

    def settle(self, node: Node) -> None:
        """Make the face show its content again."""

    def loaded(self, node: Node) -> None:
        """Take what the codec has filled as the content."""

    def adopt(self, adopter: Any, original: Any, content: Any) -> Any:
        """Return the face of a new node that copies `original`, a value or a node's face."""

    def items(self, node: Node) -> list[tuple[str, Any]]:
        """Return what is inside, each with how Python would write the way to it."""

    def plain(self, node: Node, copies: Any) -> Any:
        """Return the plain copy."""


class FilledKind(Kind, Protocol):
    """A kind whose nodes the codec fills; the others' objects are made in the stream."""

    def make(self, record: Record | None, slot: int, uid: int, cls: type) -> Node:
        """Return a node with a face of a class, and no content."""

    def containers(self, node: Node) -> list[Any]:
        """Return fresh raw container and face for the codec to fill; or the face alone."""


class Faces(Protocol):
    """How live nodes are made when a record is read."""

    def kind(self, head: int, cls: type | None) -> FilledKind:
        """Return the kind of a list, dict or set, or of the instances of a class."""

    def spread(self, node: Node, cid: int) -> None:
        """Let a node be a spread container with the given spread id."""

    def sleeping(self, record: Record, heads: Iterable[int]) -> tuple[list[Any], list[Any]]:
        """Return faces of lists, dicts and sets without nodes, and the containers to be filled."""

    def wake(
        self, record: Record, table: array[int], base: int, faces: list[Any]
    ) -> dict[int, Node]:
        """Return the nodes of faces that had none, by slot."""

    def adopter(self, transaction: Any, record: Record) -> Callable[[Any], Any]:
        """Return the function that turns plain values into nodes of a record."""

    def nodes_in(self, value: Any) -> list[Node]:
        """Return the nodes that an immutable value, or a face, refers to directly."""

    def wrap(self, record: Record, known: Node | None, slot: int, uid: int, raw: Any) -> Node:
        """Return the node of an object that the stream made, `known` if that can go on."""


class Record:
    """Some nodes that are read and written together.

    Attributes:
        tracker, name: where it is.
        stored_key: of a root, what its engine key does not tell of the user's key.
        root: the root record of the value it belongs to.
        owner: of a page, the node of the container that its items belong to.
        value: what its stream gives: the value of a root, the face of the main node of the others.
        nodes: those that live in it, by slot.
        externals: main nodes of other records that it refers to, with the slot they have here.
        count: of a shared record, how many records refer to it; None for others.
        faces: what the pickler's memo is set to: every face, and the memo place it stands for.
        free, top: slots that are free below, and the first that was never used.
        order: the nodes as the last commit here wrote them; None when that is not known.
        kept: the fragments and rows of all of these but the last, joined; None likewise.
        base: what the uids in its table are relative to; None before its first node.
        links: the engine keys of shared records that it refers to, as last committed.
        names: keys and attributes that its nodes have: the memo place of one that is written once
            for
            all, or -1 - uid of the only node that has it so far.
        named: the opcodes that put those into their places.
        stale: whether another process has changed it since it was loaded.
        since: the commit at which that was noticed.
        size: bytes of its encoded form.
        mirrored: bytes of memory that mirrors of its spread containers keep loaded.
        trail: of a page of a list, the names of the indexes on the way to it when last used.
        asleep: of a page that has been read but not changed, what its nodes are made of: table,
            base,
            and the face of each row; else None.

    What only few need of a record that was read is made when it is asked for: see `__getattr__`.
    """

    __slots__ = (
        "__weakref__",
        "asleep",
        "base",
        "count",
        "externals",
        "faces",
        "free",
        "kept",
        "links",
        "mirrored",
        "name",
        "named",
        "names",
        "nodes",
        "order",
        "owner",
        "root",
        "since",
        "size",
        "stale",
        "stored_key",
        "top",
        "tracker",
        "trail",
        "value",
    )

    value: Any

    def __init__(
        self,
        tracker: Tracker,
        name: bytes,
        stored_key: bytes | None = None,
        root: Record | None = None,
        owner: Node | None = None,
    ) -> None:
        self.tracker = tracker
        self.name = name
        self.stored_key = stored_key
        self.root = self if root is None else root
        self.owner = owner
        self.value = None
        self.nodes: dict[int, Node] = {}
        self.externals: dict[Node, int] = {}
        self.faces: dict[int, tuple[int, Any]] = {}
        self.free: list[int] = []
        self.top = 0
        self.order: list[Node] | None = None
        self.kept: tuple[bytes, bytes] | None = None
        self.base: int | None = None
        self.count: int | None = None
        self.links: frozenset[bytes] = frozenset()
        self.names: dict[str, int] = {}
        self.named: list[bytes] = []
        self.stale = False
        self.since = 0
        self.size = 0
        self.mirrored = 0
        self.trail: list[bytes] | None = None
        self.asleep: tuple[array[int], int, list[Any]] | None = None

    def __getattr__(self, name: str) -> Any:
        """Make what loading has left out: the nodes, or what only a change needs."""
        if name not in _LATER:
            raise AttributeError(name)
        tracker = self.tracker
        with tracker.lock:
            asleep = self.asleep
            if asleep is not None:
                self.nodes = tracker.faces.wake(self, *asleep)
                self.asleep = None
            try:
                # another thread may have done the same
                return object.__getattribute__(self, name)
            except AttributeError:
                pass
            faces = {id(one.face): (2 * at + 1, one.face) for at, one in self.nodes.items()}
            faces |= {id(one.face): (2 * at + 1, one.face) for one, at in self.externals.items()}
            used = {*self.nodes, *self.externals.values()}
            self.top = max(used, default=-1) + 1
            self.free = sorted({*range(self.top)} - used)
            self.faces = faces
            return object.__getattribute__(self, name)

    def leave_out(self) -> None:
        """Let what only a change needs be made from the nodes when it is asked for."""
        # they may have been left out before
        self.faces, self.free, self.top = {}, [], 0
        del self.faces, self.free, self.top

    @property
    def main(self) -> Node | None:
        """The node of its value; None when that is a tuple or the like."""
        place = self.faces.get(id(self.value))
        return None if place is None else self.nodes.get(place[0] >> 1)

    def admit(self, node: Node) -> None:
        """Give a new node its identity, and its slot in this record."""
        node.uid = uid = self.tracker.number()
        if self.base is None:
            self.base = uid
        self.take_in(node)

    def take_in(self, node: Node) -> None:
        """Give a node its slot in this record; its identity stays."""
        free = self.free
        if free:
            slot = free.pop()
        else:
            slot = self.top
            self.top = slot + 1
        node.slot = slot
        node.row = None
        node.record = node.home = self
        self.nodes[slot] = node
        face = node.face
        self.faces[id(face)] = (2 * slot + 1, face)

    def name_place(self, name: str) -> int:
        """Give a name a place in the memo."""
        slot = self.free.pop() if self.free else self.top
        self.top = max(self.top, slot + 1)
        place = self.names[name] = 2 * slot
        self.named.append(records.name_fragment(place, name))
        return place

    def forget_names(self) -> None:
        """Let no name have a place; no fragment may be kept."""
        self.names = {}
        self.named = []

    def dismiss(self, node: Node) -> None:
        """Take a node that has left the value, or this record, out of it."""
        if self.nodes.get(node.slot) is node:
            del self.nodes[node.slot]
            self.faces.pop(id(node.face), None)
            self.free.append(node.slot)
        node.record = None

    def refer_to(self, mains: set[Node]) -> None:
        """Have a slot for each of these main nodes of other records, and for no others."""
        externals = self.externals
        if mains == externals.keys():
            return
        for node in [node for node in externals if node not in mains]:
            slot = externals.pop(node)
            self.free.append(slot)
            self.faces.pop(id(node.face), None)
        for node in mains:
            if node not in externals:
                slot = self.free.pop() if self.free else self.top
                self.top = max(self.top, slot + 1)
                externals[node] = slot
                self.faces[id(node.face)] = (2 * slot + 1, node.face)

    def detach(self, before: Any = None, held: bool = False) -> None:
        """Let all nodes go: the value was deleted or replaced.

        Args:
            before: a view of the state in which it was still there.
            held: whether a user is known to hold what leads to it.
        """
        stale, self.stale = self.stale, False
        self.tracker.let_go(self.nodes.values(), self, before, held)
        self.stale = stale
        for node in self.nodes.values():
            node.record = None
            if self.stale:
                node.kind.settle(node)
        self.nodes = {}
        self.externals = {}
        self.order = None

    @property
    def path(self) -> str:
        """The place of this value as Python would write it, for errors."""
        root = self.root
        return f"[{self.tracker.user_key(root.name, root.stored_key)!r}]"

    @property
    def cost(self) -> int:
        """Bytes it takes in memory, more or less."""
        asleep = self.asleep
        nodes = len(self.nodes) if asleep is None else len(asleep[2])
        return self.size * _BYTE_COST + nodes * _NODE_COST + self.mirrored


# What a record may be without until it is asked for.
_LATER = frozenset(("faces", "free", "nodes", "top"))


class Tracker:
    """The records of one engine; safe to use from many threads.

    Args:
        engine: an open engine.
        faces: how live nodes are made.
        user_key: turns an engine key without prefix and the stored key into the user's key.
        cache_size: bytes of encoded records to keep loaded although nobody holds them.
    """

    def __init__(
        self,
        engine: Engine,
        faces: Faces,
        user_key: Callable[[bytes, bytes | None], Any],
        cache_size: int,
    ) -> None:
        self.engine = engine
        self.faces = faces
        self.user_key = user_key
        self.cache_size = cache_size
        self.lock = threading.RLock()
        self.installed = threading.Condition(self.lock)
        self.writer = threading.Lock()
        self.writer_thread: int | None = None
        self.transaction: Any = None
        self.seen = 0
        self.pending: int | None = None
        self.closed = False
        self.readonly = False
        # seconds that a change outside a transaction waits for the writer before it
        self.timeout: float | None = None
        self.handles = 0
        self.last_commit = engine.last_commit
        self.live: weakref.WeakValueDictionary[bytes, Record] = weakref.WeakValueDictionary()
        self.recent: OrderedDict[bytes, Record] = OrderedDict()
        self.costs: dict[bytes, int] = {}
        self.recent_size = 0
        # picklers that are not in use, for the next record that is encoded
        self.picklers: list[records.RecordPickler] = []
        # nodes that another process has moved, by uid, until the record is read that has them now
        self.strays: dict[int, Node] = {}
        # nodes of stale records, by uid: they may be in another record now
        self.expired: weakref.WeakValueDictionary[int, Node] = weakref.WeakValueDictionary()
        # the nodes of spread containers, by spread id
        self.spreads: weakref.WeakValueDictionary[int, Node] = weakref.WeakValueDictionary()
        # what other processes' commits have changed lately; None: maybe everything
        self.changes: deque[tuple[int, set[bytes] | None]] = deque(maxlen=_CHANGES)
        # decoded cells of the state `seen`
        self.cells: dict[bytes, Any] = {}
        # numbers that are this process's to give: the next, and the first that is not
        self.next_number = self.end_number = 0
        # whether there may be records of deleted values
        self.reclaimable = True
        self.hits = self.misses = 0

    # --- numbers ---

    def numbers(self, count: int) -> int:
        """Return the first of so many numbers that follow each other."""
        if self.end_number - self.next_number < count:
            # those that are left of the last ones are never used
            self.next_number = self.end_number
            self.number()
        first = self.next_number
        self.next_number += count
        return first

    def number(self) -> int:
        """Return a number that no node, page or container of this store has had; inside a write."""
        number = self.next_number
        if number == self.end_number:
            engine = self.transaction.engine
            number = int.from_bytes(engine.get(NUMBERS_KEY) or b"\1", "little")
            engine.put(NUMBERS_KEY, (number + NUMBERS).to_bytes(8, "little"))
            self.end_number = number + NUMBERS
            self.transaction.numbered = True
        self.next_number = number + 1
        return number

    # --- freshness ---

    def refresh(self) -> None:
        """Take notice of what other processes have committed."""
        last = self.last_commit()
        if last != self.seen and last != self.pending:
            if self.closed:
                raise ClosedError(f"the store {self.engine.path} is closed")
            with self.lock, self.view():
                pass

    @contextmanager
    def view(self) -> Iterator[ReadTransaction]:
        """Give a read transaction of just the state that records have.

        The caller has locked the tracker, with a `with` of its own: an interrupt inside this one
        leaves it suspended as long as anybody holds the traceback. It may be unlocked for a moment.
        """
        while True:
            transaction = self.engine.read()
            try:
                if self.pending is None or transaction.id < self.pending:
                    self.catch_up(transaction.id, transaction.get)
                    yield transaction
                    return
            finally:
                transaction.close()
            # another thread is between the engine's commit and its installation
            self.installed.wait(0.05)

    def catch_up(self, commit: int, get: Callable[[bytes], bytes | None]) -> None:
        """Mark stale what was changed by the commits from `seen` to `commit`."""
        if commit == self.seen:
            return
        with self.lock:
            changed = log.changed_since(get(LOG_KEY) or b"", self.seen, commit)
            self.reclaimable = True
            self.changes.append((commit, changed))
            self._expire_changed(changed)
            self.seen = commit

    def _expire_changed(self, changed: set[bytes] | None) -> None:
        """Mark records stale, and forget cells, of some names; None: of all."""
        if changed is None:
            self.cells.clear()
            for node in list(self.spreads.values()):
                _drop_mirror(node)
            for record in list(self.live.values()):
                self.expire(record)
            return
        for name in changed:
            if name[:1] == pages.CELL:
                self.cells.pop(name, None)
                self.drop_mirror_of(name)
            found = self.live.get(name)
            if found is not None:
                self.expire(found)

    def expire(self, record: Record) -> None:
        """Mark a record stale."""
        if record.owner is not None:
            _drop_mirror(record.owner)
        if not record.stale:
            record.stale = True
            record.since = self.changes[-1][0] if self.changes else 0
            for node in record.nodes.values():
                self.expired[node.uid] = node
                node.kind.expire(node)

    # --- loading ---

    def find(self, name: bytes) -> Record | None:
        """Return the loaded and valid record under an engine key, without reading the engine."""
        transaction = self.transaction
        if transaction is not None and transaction.done and name in transaction.roots:
            # committed, and about to take its place
            return None
        record = self.recent.get(name)
        if record is None:
            record = self.live.get(name)
            if record is None:
                return None
            self.remember(record)
        if record.stale:
            return None
        self.hits += 1
        return record

    def read(self, name: bytes) -> tuple[bool, Any]:
        """Return whether there is a value under an engine key, and the value."""
        record = self.find(name)
        if record is not None:
            return True, record.value
        self.misses += 1
        with self.lock, self.view() as transaction:
            return self.read_in(name, transaction.get(name), transaction)

    def read_in(self, name: bytes, stored: bytes | None, view: View) -> tuple[bool, Any]:
        """Return the value of a root record read in a `view()`; the tracker is locked."""
        record = self.live.get(name)
        if record is not None and not record.stale:
            return True, record.value
        if stored is None:
            if record is not None:
                self.forget(record)
            return False, None
        parts = records.parse(name, stored)
        if record is None:
            if not parts.table:
                return True, self.decode_plain(name, parts)
            record = Record(self, name, parts.key)
        self.load(record, parts, len(stored), view)
        return True, record.value

    def reload(self, record: Record) -> None:
        """Load a stale record again, or let its nodes go when it is gone."""
        with self.lock, self.view() as transaction:
            if record.stale:
                self._reload(record, transaction)

    def _reload(self, record: Record, view: View) -> None:
        stored = view.get(record.name)
        if stored is None or self.live.get(record.name) is not record:
            moved = list(record.nodes.values()) if record.root is not record else []
            if moved and view.get(record.root.name) is not None:
                self.unload(record)
                record.nodes = {}
                record.stale = False
                self._find_moved(moved, record, view)
            else:
                self.forget(record)
            return
        self.load(record, records.parse(record.name, stored), len(stored), view)

    def page(
        self, name: bytes, owner: Node, *, remember: bool = True, view: View | None = None
    ) -> Record | None:
        """Return a page of a spread container, loaded; None when there is none of that name.

        Args:
            name: its engine key.
            owner: the node of the container.
            remember: whether to keep it loaded when nobody holds a part of it.
            view: a view of the state `seen`, for a caller that has locked the tracker; outside a
                transaction.
        """
        record = self.recent.get(name)
        if record is not None and not record.stale:
            self.hits += 1
            if remember:
                self.recent.move_to_end(name)
            return record
        record = self.live.get(name)
        if record is not None and not record.stale:
            self.hits += 1
            if remember:
                self.remember(record)
            return record
        self.misses += 1
        if view is not None:
            return self._load_page(name, record, owner, view, remember)
        writing = self.transaction
        if writing is not None and writing.flushed and writing.is_here():
            # it may have been written by this very transaction
            return self._load_page(name, record, owner, writing.engine, remember)
        with self.lock, self.view() as view:
            return self._load_page(name, record, owner, view, remember)

    def _load_page(
        self,
        name: bytes,
        record: Record | None,
        owner: Node,
        view: View,
        remember: bool,
    ) -> Record | None:
        stored = view.get(name)
        if stored is None:
            return None
        if record is None:
            assert owner.record is not None
            record = Record(self, name, None, owner.record.root, owner)
        elif not record.stale:
            return record
        self.load(record, records.parse(name, stored), len(stored), view, remember=remember)
        return record

    def decode_plain(self, name: bytes, parts: records.Parts) -> Any:
        """Return the value of a record without nodes."""
        return _noting(self, name, parts, lambda: records.decode(parts, []))

    def load(
        self,
        record: Record,
        parts: records.Parts,
        size: int,
        view: View,
        *,
        remember: bool = True,
    ) -> None:
        """Fill a record from its bytes; nodes that were there before keep their faces."""
        _noting(self, record.name, parts, lambda: self._load(record, parts, size, view))
        self.live[record.name] = record
        if remember:
            self.remember(record)

    def _load(
        self,
        record: Record,
        parts: records.Parts,
        size: int,
        view: View,
    ) -> None:
        faces = self.faces
        table = parts.table
        old = record.nodes
        base = parts.base
        strays = self.strays
        searching = bool(strays) or bool(self.expired)
        if not old and record.owner is not None and not searching and records.is_plain(parts):
            self._load_asleep(record, parts, size)
            return
        class_table = [class_from_bytes(stored) for stored in parts.classes]
        kinds: dict[int, FilledKind] = {}
        nodes: dict[int, Node] = {}
        containers: list[Any] = []
        uids: dict[int, int] = {}
        links = iter(parts.links)
        externals: dict[Node, int] = {}
        shared: list[bytes] = []
        for at in range(0, len(table), 3):
            slot, uid, head = table[at : at + 3]
            uid += base
            if head == records.BUILT:
                uids[slot] = uid
                continue
            if head == records.EXTERNAL:
                link = next(links)
                main = self._external(record, uid, link, view)
                externals[main] = slot
                if main.record is not None and main.record is not record.root:
                    shared.append(main.record.name)
                containers.append(main.face)
                continue
            cls = class_table[head - records.FIRST_CLASS] if head >= records.FIRST_CLASS else None
            spread = records.SPREAD <= head < records.FIRST_CLASS
            wanted: int | type = cls or (head - records.SPREAD if spread else head)
            node = old.get(slot)
            if node is None or node.uid != uid or not _is_of(node, wanted):
                node = self._from_elsewhere(uid, record) if searching else None
                if node is None or not _is_of(node, wanted):
                    kind = kinds.get(head)
                    if kind is None:
                        kind = kinds[head] = faces.kind(head if cls else head % records.SPREAD, cls)
                    node = kind.make(record, slot, uid, kind.clean)
                else:
                    self._move(node, record, slot)
            nodes[slot] = node
            before = node.content
            if spread:
                faces.spread(node, int.from_bytes(next(links), "big"))
                containers.append(node.face)
            else:
                filled: Any = node.kind
                containers += filled.containers(node)
            if isinstance(before, Spread) and before is not node.work:
                # its pages are gone, and what was on them may be elsewhere
                prefix = pages.PAGE + before.cid.to_bytes(8, "big")
                for name in [name for name in list(self.live) if name.startswith(prefix)]:
                    page = self.live.get(name)
                    if page is not None:
                        self.expire(page)

        def wrap(slot: int, raw: Any) -> Any:
            known = old.get(slot)
            if known is not None and known.uid != uids[slot]:
                known = None
            if known is None and searching:
                known = self._from_elsewhere(uids[slot], record)
                if known is not None:
                    self._move(known, record, slot)
            node = nodes[slot] = faces.wrap(record, known, slot, uids[slot], raw)
            return node.face

        value = records.decode(parts, containers, wrap)
        gone = [node for slot, node in old.items() if nodes.get(slot) is not node]
        record.value = value
        record.order = record.kept = None
        record.nodes = nodes
        record.externals = externals
        record.links = frozenset(shared)
        record.leave_out()
        record.base = base if table else None
        record.forget_names()
        record.stored_key = parts.key
        record.count = parts.references
        # last, since what a class's own __setstate__ made is admitted to the record here
        for node in list(nodes.values()):
            if not isinstance(node.work, Spread):
                node.kind.loaded(node)
            node.fragment = node.kids = None
        record.stale = False
        record.size = size
        gone = [node for node in gone if node.record is record]
        if gone:
            self._find_moved(gone, record, view)

    def _load_asleep(self, record: Record, parts: records.Parts, size: int) -> None:
        """Fill a new page without making its nodes, which those who only read do not need."""
        table = parts.table
        faces, containers = self.faces.sleeping(record, table[2::3])
        record.value = records.decode(parts, containers)
        record.base = parts.base
        record.size = size
        record.asleep = table, parts.base, faces
        record.leave_out()
        del record.nodes

    def _external(self, record: Record, uid: int, link: bytes, view: View) -> Node:
        """Return the main node of another record; it is loaded when it is used."""
        slot, head, stored_class, name = records.read_external(link)
        other = self.live.get(name)
        if other is None or other.nodes.get(slot) is None:
            if other is None:
                root = record.root
                other = root if root.name == name else Record(self, name, None, root)
            if head == records.BUILT:
                # its face cannot be made before it is read
                self.live[name] = other
                other.stale = True
                self._reload(other, view)
            else:
                spread = records.SPREAD <= head < records.FIRST_CLASS
                cls = class_from_bytes(stored_class) if stored_class else None
                wanted = head - records.SPREAD if spread else head
                kind = self.faces.kind(wanted, cls)
                node = kind.make(other, slot, uid, kind.clean)
                other.nodes[slot] = node
                other.faces[id(node.face)] = (2 * slot + 1, node.face)
                other.value = node.face
                self.live[name] = other
                other.stale = False
                self.expire(other)
        found = other.nodes.get(slot)
        if found is None or found.uid != uid:
            raise CorruptionError(
                f"record {record.name!r} refers to a node of record {name!r} that is not there"
            )
        return found

    def _from_elsewhere(self, uid: int, record: Record) -> Node | None:
        """Return a node that was in another record, and is in this one now."""
        node = self.strays.pop(uid, None) or self.expired.get(uid)
        if node is None or node.record is record:
            return None
        other = node.record
        if other is not None and other.nodes.get(node.slot) is node:
            del other.nodes[node.slot]
        return node

    def _move(self, node: Node, record: Record, slot: int) -> None:
        """Let a node that another process has moved live where it is now."""
        node.record = node.home = record
        node.slot = slot
        node.row = None

    # --- nodes that another process has moved or removed ---

    def _find_moved(self, nodes: list[Node], record: Record, view: View) -> None:
        """Find the records that have nodes now which are not in the one they were in.

        These must have changed since that record was last good.
        """
        strays = self.strays
        for node in nodes:
            node.record = None
            strays[node.uid] = node
        try:
            for name in self._changed_since(record.since, view):
                if name != record.name and name[:1] in _RECORDS:
                    stored = view.get(name)
                    if stored is not None and _has_one(name, stored, strays):
                        self._load_named(name, record.root, view)
                    if not any(node.record is None for node in nodes):
                        break
        finally:
            for node in nodes:
                strays.pop(node.uid, None)
        for node in nodes:
            if node.record is None:
                self.let_go([node], record, None, False)
                node.kind.settle(node)

    def _changed_since(self, since: int, view: View) -> Iterable[bytes]:
        known = [names for number, names in self.changes if number >= since]
        if None in known or not self.changes or self.changes[0][0] > since:
            return (
                name for first in _RECORDS for name, _ in view.scan(first, bytes((first[0] + 1,)))
            )
        return set().union(*known)  # type: ignore[arg-type]

    def _load_named(self, name: bytes, root: Record, view: View) -> None:
        """Load a record of a value of which only its engine key is known."""
        record = self.live.get(name)
        stored = view.get(name)
        assert stored is not None
        if record is None and name[:1] == pages.PAGE:
            owner = self._owner(int.from_bytes(name[1:9], "big"), root, view)
            if owner is None:
                return
            record = Record(self, name, None, root, owner)
        elif record is None:
            record = Record(self, name, None, root)
        self.load(record, records.parse(name, stored), len(stored), view)

    def _owner(self, cid: int, root: Record, view: View) -> Node | None:
        """Return the node of the spread container with a spread id."""
        node = self.spreads.get(cid)
        if node is not None and node.record is not None:
            return node
        link = cid.to_bytes(8, "big")
        for first in _RECORDS:
            for name, stored in view.scan(first, bytes((first[0] + 1,))):
                if link in records.parse(name, stored).links:
                    self._load_named(name, root, view)
                    return self.spreads.get(cid)
        return None

    def let_go(self, nodes: Iterable[Node], record: Record, before: Any, held: bool) -> None:
        """Let the pages of the spread containers among some nodes go with them.

        Args:
            nodes: those that leave a record.
            record: the record.
            before: a view of the state in which they were still there; None when there is none.
            held: whether a user is known to hold what leads to them.
        """
        nodes = list(nodes)
        spreads = [node for node in nodes if isinstance(node.content, Spread)]
        if spreads:
            held = held or (before is not None and self._is_one_held(nodes, record))
            for node in spreads:
                self.close_spread(node.content, before, held)

    @staticmethod
    def _is_one_held(nodes: list[Node], record: Record) -> bool:
        """Tell whether a user may hold one of some faces: it has references that nothing explains.

        A view that is kept for nobody would pin its pages until the garbage collector comes by.
        """
        faces = record.faces
        inside = Counter(id(value) for node in nodes for _, value in node.kind.items(node))
        for node in nodes:
            face = node.face
            # the node, the name here, the argument of the function that counts
            known = 3 + inside[id(face)] + (id(face) in faces) + (record.value is face)
            if sys.getrefcount(face) > known:
                return True
        return False

    def close_spread(self, content: Spread, before: Any, held: bool) -> None:
        """Let a spread content, which is no longer in the store, have the view it was in.

        Args:
            content: the content.
            before: a view of the state in which it was still there; None when there is none.
            held: whether a user may hold what leads to it; otherwise nobody needs the view, unless
                for what is on a page of it.
        """
        if content.before is None:
            prefix = pages.PAGE + content.cid.to_bytes(8, "big")
            for name in [name for name in list(self.live) if name.startswith(prefix)]:
                record = self.live.get(name)
                if record is not None:
                    content.kept[int.from_bytes(name[-8:], "big")] = record
                    self.forget(record, before, held=held)
            # last, so that it is done again when it was interrupted
            content.before = (before if held else None) or False

    def drop_mirror_of(self, cell: bytes) -> None:
        """Let the container that a cell belongs to show itself."""
        node = self.spreads.get(int.from_bytes(cell[1:9], "big"))
        if node is not None:
            _drop_mirror(node)

    # --- cells ---

    def cell(self, name: bytes) -> Any:
        """Return the committed index or directory in a cell, or None."""
        try:
            return self.cells[name]
        except KeyError:
            with self.lock, self.view() as view:
                found = pages.read_cell(name, view.get(name))
                if len(self.cells) >= _CELLS:
                    self.cells.clear()
                self.cells[name] = found
                return found

    # --- the cache ---

    def remember(self, record: Record) -> None:
        """Keep a record loaded, least recently used ones making room."""
        with self.lock:
            recent, name, cost = self.recent, record.name, record.cost
            recent.pop(name, None)
            recent[name] = record
            # no call between the two, and so no interrupt
            self.recent_size += cost - self.costs.get(name, 0)
            self.costs[name] = cost
            self._make_room()

    def _make_room(self) -> None:
        while self.recent_size > self.cache_size and len(self.recent) > 1:
            self._uncount(self.recent.popitem(last=False)[0])

    def _uncount(self, name: bytes) -> None:
        """Let a record that is dropped cost nothing."""
        cost = self.costs.get(name)
        if cost is not None:
            self.recent_size -= cost
            del self.costs[name]

    def forget(self, record: Record, before: Any = None, *, held: bool = False) -> None:
        """Drop a record whose value has left the store.

        Args:
            record: the record.
            before: a view of the state in which it was still there.
            held: whether a user is known to hold what leads to it.
        """
        with self.lock:
            self.unload(record)
            record.detach(before, held)
            record.stale = False

    def unload(self, record: Record) -> None:
        """Forget that a record is loaded."""
        name = record.name
        if self.live.get(name) is record:
            del self.live[name]
        if self.recent.get(name) is record:
            self._uncount(name)
            del self.recent[name]

    # --- the file's own records ---

    def check_format(self, get: Callable[[bytes], bytes | None], empty: bool) -> bool:
        """Return whether the file still has to be made a store.

        Raises:
            FormatError: it holds something else, or a newer format.
        """
        stored = get(FORMAT_KEY)
        if stored is None:
            if empty:
                return True
            raise FormatError(f"{self.engine.path} is an LMDB file, but not one of richstore")
        if stored[: len(_FORMAT)] != _FORMAT:
            raise FormatError(
                f"{self.engine.path} was written by a newer richstore (or is damaged); "
                f"update richstore to open it"
            )
        return False

    @staticmethod
    def format_record() -> bytes:
        """Return what `FORMAT_KEY` holds: name, version and a new store id."""
        return _FORMAT + uuid.uuid4().bytes

    def count(self, get: Callable[[bytes], bytes | None]) -> int:
        """Return the number of values."""
        return int.from_bytes(get(COUNT_KEY) or b"", "little")

    def close(self, noted: list[bool]) -> None:
        """Let go of the engine for a handle that is no longer counted; the last closes it.

        Args:
            noted: see `Engine.close`.
        """
        self.engine.close(noted)
        if self.handles == 0:
            self.closed = True

    def forked(self) -> None:
        """Give the child of a fork locks of its own, and undo what its parent has not committed."""
        self.lock = threading.RLock()
        self.installed = threading.Condition(self.lock)
        self.writer = threading.Lock()
        self.writer_thread = None
        self.pending = None
        # those that are left belong to the parent
        self.next_number = self.end_number = 0
        if self.transaction is not None:
            self.transaction.forked()
            self.transaction = None


def _noting(tracker: Tracker, name: bytes, parts: records.Parts, load: Callable[[], T]) -> T:
    """Run a load, and say on errors which value could not be read."""
    try:
        return load()
    except Exception as error:
        place = f"[{tracker.user_key(name, parts.key)!r}]"
        if isinstance(error, (ImportError, AttributeError)):
            error.add_note(
                f"richstore: while reading the value at {place} of {tracker.engine.path}"
            )
            raise
        if isinstance(error, (CorruptionError, FormatError)):
            raise
        error.add_note(f"richstore: while reading the value at {place} of {tracker.engine.path}")
        raise


def _drop_mirror(node: Node) -> None:
    content = node.content
    if isinstance(content, Spread) and content.mirror is not None:
        content.drop_mirror()


def _is_of(node: Node, wanted: int | type) -> bool:
    """Tell whether a node's face can go on as one of a head or class."""
    kind: Any = node.kind
    head = getattr(kind, "code", None)
    return bool((kind.head(node) if head is None else head) == wanted)


def _has_one(name: bytes, stored: bytes, uids: Container[int]) -> bool:
    """Tell whether one of some nodes lives in a record."""
    parts = records.parse(name, stored)
    table, base = parts.table, parts.base
    return any(
        base + table[at + 1] in uids and table[at + 2] != records.EXTERNAL
        for at in range(0, len(table), 3)
    )
