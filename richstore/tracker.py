"""The root tracker: which node lives in which record, which records are loaded, and how fresh.

Theory of operation
-------------------

A **node** stands for one mutable container or instance inside a stored value; users hold its
*face* (a proxy or a tracked instance). A **record** is one value with all its nodes. A
**tracker** holds the records of one open engine.

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

import threading
import time
import uuid
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from richstore.codec import log, records
from richstore.codec.classes import class_from_bytes
from richstore.engines.base import Engine, ReadTransaction
from richstore.errors import ClosedError, CorruptionError, FormatError

__all__ = ["Faces", "Kind", "Node", "Record", "Tracker"]

T = TypeVar("T")

# The key space of an engine, by first byte. 0x20 to 0x3f are kept for records below a root.
META = b"\x00"
FORMAT_KEY = META + b"format"
COUNT_KEY = META + b"count"
LOG_KEY = META + b"log"
ROOT = b"\x10"
AFTER_ROOT = b"\x11"

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

    def hashed(self, node: Node) -> list[Node]:
        """Return the nodes that the container hashes: its keys, or elements of a set."""

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


class Faces(Protocol):
    """How live nodes are made when a record is read."""

    def new(self, record: Record, slot: int, uid: int, head: int, cls: type | None) -> Node:
        """Return a node with its face and no content."""

    def containers(self, node: Node) -> list[Any]:
        """Return fresh raw container and face for the codec to fill."""

    def loaded(self, node: Node) -> None:
        """Take what the codec filled as the node's content."""

    def adopter(self, transaction: Any, record: Record) -> Callable[[Any], Any]:
        """Return the function that turns plain values into nodes of a record."""

    def nodes_in(self, value: Any) -> list[Node]:
        """Return the nodes that an immutable value, or a face, refers to directly."""

    def wrap(self, record: Record, known: Node | None, slot: int, uid: int, raw: Any) -> Node:
        """Return the node of an object that the stream made, `known` if that can go on."""


class Record:
    """One stored value and its nodes."""

    __slots__ = (
        "__weakref__",
        "born",
        "faces",
        "free",
        "name",
        "next_uid",
        "nodes",
        "order",
        "size",
        "stale",
        "stored_key",
        "tracker",
        "value",
    )

    value: Any

    def __init__(self, tracker: Tracker, name: bytes, stored_key: bytes | None) -> None:
        self.tracker = tracker
        self.name = name
        self.stored_key = stored_key
        self.nodes: dict[int, Node] = {}
        # what the pickler's memo is set to: every face, and the memo place it stands for
        self.faces: dict[int, tuple[int, Any]] = {}
        self.free: list[int] = []
        # the nodes as the last commit here wrote them; None when that is not known
        self.order: list[Node] | None = None
        self.next_uid = 0
        # the commit that put this value under its key; tells it from one that replaced it
        self.born = 0
        self.stale = False
        self.size = 0

    def admit(self, node: Node) -> None:
        """Give a node its slot and identity in this record."""
        free = self.free
        slot = free.pop() if free else len(self.nodes)
        while slot in self.nodes:
            slot += 1
        node.slot = slot
        node.uid = self.next_uid
        node.row = None
        node.record = node.home = self
        self.next_uid += 1
        self.nodes[slot] = node
        face = node.face
        self.faces[id(face)] = (2 * slot + 1, face)

    def dismiss(self, node: Node) -> None:
        """Take a node that has left the value out of the record."""
        if self.nodes.get(node.slot) is node:
            del self.nodes[node.slot]
            del self.faces[id(node.face)]
            self.free.append(node.slot)
        node.record = None

    def detach(self) -> None:
        """Let all nodes go: the value was deleted or replaced."""
        for node in self.nodes.values():
            node.record = None
            if self.stale:
                node.kind.settle(node)
        self.nodes = {}
        self.order = None

    @property
    def path(self) -> str:
        """The place of this value as Python would write it, for errors."""
        return f"[{self.tracker.user_key(self.name, self.stored_key)!r}]"


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
        self.recent_size = 0
        # picklers that are not in use, for the next record that is encoded
        self.picklers: list[records.RecordPickler] = []

    # --- freshness ---

    def refresh(self) -> None:
        """Take notice of what other processes have committed."""
        last = self.last_commit()
        if last != self.seen and last != self.pending:
            if self.closed:
                raise ClosedError(f"the store {self.engine.path} is closed")
            with self.view():
                pass

    @contextmanager
    def view(self) -> Iterator[ReadTransaction]:
        """Give a read transaction of just the state that records have; locks the tracker."""
        while True:
            with self.lock:
                transaction = self.engine.read()
                try:
                    if self.pending is None or transaction.id < self.pending:
                        self.catch_up(transaction.id, transaction.get)
                        yield transaction
                        return
                finally:
                    transaction.close()
            # another thread is between the engine's commit and its installation
            time.sleep(0.00005)

    def catch_up(self, commit: int, get: Callable[[bytes], bytes | None]) -> None:
        """Mark stale what was changed by the commits from `seen` to `commit`."""
        if commit == self.seen:
            return
        with self.lock:
            changed = log.changed_since(get(LOG_KEY) or b"", self.seen, commit)
            if changed is None:
                for record in list(self.live.values()):
                    self.expire(record)
            else:
                for name in changed:
                    found = self.live.get(name)
                    if found is not None:
                        self.expire(found)
            self.seen = commit

    def expire(self, record: Record) -> None:
        """Mark a record stale."""
        if not record.stale:
            record.stale = True
            for node in record.nodes.values():
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
        return None if record.stale else record

    def read(self, name: bytes) -> tuple[bool, Any]:
        """Return whether there is a value under an engine key, and the value."""
        record = self.find(name)
        if record is not None:
            return True, record.value
        with self.view() as transaction:
            return self.read_in(name, transaction.get(name))

    def read_in(self, name: bytes, stored: bytes | None) -> tuple[bool, Any]:
        """Return the value of a record read in a `view()`; the tracker is locked."""
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
        self.load(record, parts, len(stored))
        return True, record.value

    def reload(self, record: Record) -> None:
        """Load a stale record again, or let its nodes go when it is gone."""
        with self.view() as transaction:
            if not record.stale:
                return
            stored = transaction.get(record.name)
            if stored is None or self.live.get(record.name) is not record:
                self.forget(record)
                return
            self.load(record, records.parse(record.name, stored), len(stored))

    def decode_plain(self, name: bytes, parts: records.Parts) -> Any:
        """Return the value of a record without nodes."""
        return _noting(self, name, parts, lambda: records.decode(parts, []))

    def load(self, record: Record, parts: records.Parts, size: int) -> None:
        """Fill a record from its bytes; nodes that were there before keep their faces."""
        _noting(self, record.name, parts, lambda: self._load(record, parts, size))
        self.live[record.name] = record
        self.remember(record)

    def _load(self, record: Record, parts: records.Parts, size: int) -> None:
        faces = self.faces
        table = parts.table
        old = record.nodes
        if record.born != parts.born:
            # another value under the same key: none of its nodes is one of ours
            record.detach()
            old = {}
        class_table = [class_from_bytes(stored) for stored in parts.classes]
        nodes: dict[int, Node] = {}
        containers: list[Any] = []
        uids: dict[int, int] = {}
        for at in range(0, len(table), 3):
            slot, uid, head = table[at : at + 3]
            uids[slot] = uid
            if head == records.BUILT:
                continue
            cls = class_table[head - records.FIRST_CLASS] if head >= records.FIRST_CLASS else None
            node = old.get(slot)
            if node is None or node.uid != uid or node.kind.head(node) != (cls or head):
                node = faces.new(record, slot, uid, head, cls)
            nodes[slot] = node
            containers += faces.containers(node)

        def wrap(slot: int, raw: Any) -> Any:
            known = old.get(slot)
            if known is not None and known.uid != uids[slot]:
                known = None
            node = nodes[slot] = faces.wrap(record, known, slot, uids[slot], raw)
            return node.face

        value = records.decode(parts, containers, wrap)
        for slot, gone in old.items():
            if nodes.get(slot) is not gone:
                gone.record = None
                gone.kind.settle(gone)
        record.value = value
        record.order = None
        record.nodes = nodes
        record.faces = {id(node.face): (2 * slot + 1, node.face) for slot, node in nodes.items()}
        record.free = [slot for slot in range(max(nodes, default=-1)) if slot not in nodes]
        record.next_uid = parts.next_uid
        record.born = parts.born
        record.stored_key = parts.key
        # last, since what a class's own __setstate__ made is admitted to the record here
        for node in list(nodes.values()):
            faces.loaded(node)
            node.fragment = node.kids = None
        record.stale = False
        record.size = size

    # --- the cache ---

    def remember(self, record: Record) -> None:
        """Keep a record loaded, least recently used ones making room."""
        with self.lock:
            recent = self.recent
            if record.name in recent:
                self.recent_size -= recent.pop(record.name).size
            recent[record.name] = record
            self.recent_size += record.size
            while self.recent_size > self.cache_size and len(recent) > 1:
                self.recent_size -= recent.popitem(last=False)[1].size

    def forget(self, record: Record) -> None:
        """Drop a record whose value has left the store."""
        with self.lock:
            if self.live.get(record.name) is record:
                del self.live[record.name]
            if self.recent.get(record.name) is record:
                self.recent_size -= self.recent.pop(record.name).size
            record.detach()
            record.stale = False

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

    def close(self) -> None:
        """Let go of the engine; the last handle to do so closes it and every value's way to it."""
        self.handles -= 1
        self.engine.close()
        if self.handles == 0:
            self.closed = True

    def forked(self) -> None:
        """Give the child of a fork locks of its own, and undo what its parent has not committed."""
        self.lock = threading.RLock()
        self.writer = threading.Lock()
        self.writer_thread = None
        self.pending = None
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
