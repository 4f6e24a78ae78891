"""The root tracker: which node lives in which record, which records are loaded, and how fresh.

Theory of operation
-------------------

A **node** stands for one mutable container or instance inside a stored value; users hold its
*face* (a proxy or a tracked instance). A **record** is the unit of storage: some nodes that are
read and written together (see `record`). A **tracker** holds the records of one open engine.

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
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from richstore import pages
from richstore.codec import log, records, stream
from richstore.codec.classes import UPGRADING
from richstore.codec.policy import ClassPolicy
from richstore.engines.base import Engine, ReadTransaction
from richstore.errors import (
    ClosedError,
    CorruptionError,
    FormatError,
    LockTimeoutError,
    UpgradeError,
    explain,
)
from richstore.loading import Loader, View
from richstore.node import Faces, Node, Spread
from richstore.record import Record
from richstore.spaces import GROUP, GROUPED, place_in, read_space, value_in

__all__ = ["Tracker", "check_format_record"]

# The key space of an engine, by first byte; `pages` has that of what is below the roots.
META = b"\x00"
FORMAT_KEY = META + b"format"
COUNT_KEY = META + b"count"
NUMBERS_KEY = META + b"numbers"
# behind the pages, so that the two records of an append at the end of a list, the page and the log,
# are neighbours in the engine's tree
LOG_KEY = b"\x30log"

# How many numbers (of nodes, pages and the like) a process takes for itself at a time.
NUMBERS = 1 << 16
# Decoded cells that are kept, and commits of other processes whose changes are.
_CELLS = 4096
_CHANGES = 1000

_FORMAT = b"richstore\x00\x01"


class Tracker:
    """The records of one engine; safe to use from many threads.

    Args:
        engine: an open engine.
        faces: how live nodes are made.
        user_key: turns an engine key and the stored key into the user's key.
        cache_size: bytes of encoded records to keep loaded although nobody holds them.
        classes: finds the classes and functions that records name.
    """

    def __init__(
        self,
        engine: Engine,
        faces: Faces,
        user_key: Callable[[bytes, bytes | None], Any],
        cache_size: int,
        classes: ClassPolicy,
    ) -> None:
        self.engine = engine
        self.faces = faces
        self.loader = Loader(self)
        self.user_key = user_key
        self.cache_size = cache_size
        self.classes = classes
        self.lock = threading.RLock()
        self.installed = threading.Condition(self.lock)
        self.writer = threading.Lock()
        self.writer_thread: int | None = None
        self.transaction: Any = None
        # For group commits, see `group_commit`: whether a commit waits for the disk, changes of
        # other threads, how many threads are likely to change something at the same time, how
        # many seconds to wait for them, and how many requests the leader is waiting for until
        # `full` is free.
        self.slow_commits: bool = getattr(engine, "slow_commits", False)
        # whether everything that is stored is encrypted, so that sealed values may be
        self.seals: bool = hasattr(engine, "below")
        self.requests: deque[Any] = deque()
        self.expected = 1
        self.patience = 0.0002
        self.wanted = 0
        self.full = threading.Lock()
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
        self.picklers: list[stream.RecordPickler] = []
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
        # while states of older versions are upgraded: in which records, and the view of these
        self.upgraded: list[bytes] = []
        self.upgrade_view: Any = None

    # --- group commits ---

    def wake_next(self) -> None:
        """Let the first who waits for a leader be one himself, when the writer's lock is free."""
        try:
            request = self.requests.popleft()
        except IndexError:
            return
        request.lead()

    def hurry(self) -> None:
        """Let the leader wait for no more requests."""
        with suppress(RuntimeError):
            # another thread may have done it
            self.full.release()

    def own_error(self) -> LockTimeoutError:
        """Return the error of a thread that waits for a transaction of its own.

        It may become so while the thread is waiting already, see `Transaction.hand_over`.
        """
        return LockTimeoutError(
            f"another asyncio task of this thread is inside a transaction on "
            f"{self.engine.path}, and waiting for it here would wait forever; "
            f"let it finish first (for instance behind an asyncio.Lock)"
        )

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
        """Take notice of what others have committed: other processes, and threads just now."""
        if self.last_commit() != self.seen:
            if self.pending is not None and self.writer_thread == threading.get_ident():
                # inside its own commit, whose end it would wait for
                return
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
        if self.upgrade_view is not None:
            # the records that are being filled are of this state
            yield self.upgrade_view
            return
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

    @contextmanager
    def upgrading(self, name: bytes, view: View) -> Iterator[None]:
        """Let the code of classes read the store, in the state of a record that is being filled.

        The caller has locked the tracker.
        """
        before, self.upgrade_view = self.upgrade_view, view
        self.upgraded.append(name)
        try:
            yield
        finally:
            self.upgraded.pop()
            self.upgrade_view = before

    @staticmethod
    def check_unchanging() -> None:
        """Raise `UpgradeError` if this thread is in the `upgrade` of a class."""
        if UPGRADING and threading.get_ident() in UPGRADING:
            raise UpgradeError(
                "upgrade must not change a store: it runs while a value is being read; let it "
                "return the new state, and make other changes afterwards"
            )

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
            elif name[:1] == GROUP:
                self.cells.pop(name, None)
            elif name[:1] == GROUPED and len(name) == len(GROUPED) + 8:
                self.expire_space(name)
            found = self.live.get(name)
            if found is not None:
                self.expire(found)

    def expire_space(self, prefix: bytes) -> None:
        """Mark stale what was loaded of the values of a group that was cleared."""
        for name in [name for name in list(self.live) if name.startswith(prefix)]:
            found = self.live.get(name)
            if found is not None:
                self.expire(found)

    def forget_space(self, prefix: bytes, before: Any) -> None:
        """Drop what was loaded of the values of a group that was cleared; see `forget`."""
        for record in list(self.live.values()):
            if record.name.startswith(prefix):
                self.forget_value(record, before)

    def expire_all(self) -> None:
        """Let all that is loaded be read again before it is used."""
        self._expire_changed(None)

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
            return self.read_in(name, value_in(transaction.get, name), transaction)

    def read_in(self, name: bytes, stored: bytes | None, view: View) -> tuple[bool, Any]:
        """Return the value of a root record read in a `view()`; the tracker is locked."""
        record = self.live.get(name)
        if record is not None and not record.stale:
            return True, record.value
        if stored is None:
            if record is not None:
                self.forget_value(record)
            return False, None
        parts = self.parse(name, stored)
        if record is None:
            if not parts.table:
                return True, self.decode_plain(name, parts)
            record = Record(self, name, parts.key)
        self.load(record, parts, len(stored), view)
        return True, record.value

    def home_of(self, node: Node) -> Record | None:
        """Return the record that a node lives in; None when the node has left the store.

        What others have changed in the records that lead to it is read first: they may have taken
        out what it is a part of, of which its own record tells nothing.
        """
        while True:
            record = above = node.record
            if record is None:
                return None
            if record.owner is None and not record.stale and not record.root.stale:
                return record
            stale = None
            while above is not None:
                # the outermost: it tells whether what is inside of it is there at all
                stale = above if above.stale else stale
                above = above.owner.record if above.owner is not None else None
            stale = record.root if record.root.stale else stale
            if stale is None:
                return record
            self.reload(stale)

    def reload(self, record: Record) -> None:
        """Load a stale record again, or let its nodes go when it is gone."""
        with self.lock, self.view() as transaction:
            if record.stale:
                self.reload_in(record, transaction)

    def reload_in(self, record: Record, view: View) -> None:
        """Load a stale record again from a view of the state `seen`."""
        stored = None if _has_left(record) else value_in(view.get, record.name)
        if stored is None or self.live.get(record.name) is not record:
            moved = list(record.nodes.values()) if record.root is not record else []
            if moved and value_in(view.get, record.root.name) is not None:
                self.unload(record)
                record.nodes = {}
                record.stale = False
                self.loader.find_moved(moved, record, view)
            else:
                self.forget_value(record)
            return
        self.load(record, self.loader.parse(record, stored), len(stored), view)

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
                self.used(name, record)
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
        self.load(record, self.loader.parse(record, stored), len(stored), view, remember=remember)
        if self.classes.strict and not _is_page(record, owner):
            self.unload(record)
            raise CorruptionError(f"page {name!r} holds another kind of value")
        return record

    def decode_plain(self, name: bytes, parts: records.Parts) -> Any:
        """Return the value of a record without nodes."""
        try:
            return records.decode(parts, [], self.classes)
        except Exception as error:
            explain(error, self.place(name, parts.key), self.engine.path)
            raise

    def parse(self, root: bytes, stored: bytes) -> records.Parts:
        """Take the record of a value apart."""
        try:
            return records.parse(root, stored)
        except (CorruptionError, FormatError) as error:
            explain(error, self.place(root, records.stored_key(stored)))
            raise

    def place(self, root: bytes, key: bytes | None) -> str:
        """Return where the value under an engine key is, as Python would write it."""
        try:
            found = f"[{self.user_key(root, key)!r}]"
            if root[:1] == GROUPED:
                with self.lock, self.view() as view:
                    found = place_in(view, root) + found
            return found
        except Exception:  # noqa: BLE001 - a damaged key: the engine's own name says where
            return f"[{root!r}]"

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
        try:
            if record.name in self.upgraded:
                raise UpgradeError(
                    "the upgrade of a class reads the record that its instance is in; let it use "
                    "the state that it is given"
                )
            self.loader.fill(record, parts, size, view)
        except Exception as error:
            if isinstance(error, RecursionError) and self.classes.strict:
                error = CorruptionError("records refer to each other in a circle, or too deep")
            key = parts.key if record.root is record else record.root.stored_key
            explain(error, self.place(record.root.name, key), self.engine.path)
            raise error
        self.live[record.name] = record
        if remember:
            self.remember(record)

    # --- what has left the store ---

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
            content.classes = self.classes
            # last, so that it is done again when it was interrupted
            content.before = (before if held else None) or False

    def drop_mirror_of(self, cell: bytes) -> None:
        """Let the container that a cell belongs to show itself."""
        node = self.spreads.get(int.from_bytes(cell[1:9], "big"))
        if node is not None:
            _drop_mirror(node)

    # --- cells ---

    def cell(self, name: bytes) -> Any:
        """Return what is committed in a cell, an index, a directory or a space; or None."""
        try:
            return self.cells[name]
        except KeyError:
            with self.lock, self.view() as view:
                read: Any = read_space if name[:1] == GROUP else pages.read_cell
                found = read(name, view.get(name))
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

    def used(self, name: bytes, record: Record) -> None:
        """Let a record that is kept be the last to make room."""
        try:
            self.recent.move_to_end(name)
        except KeyError:
            # another thread has just let it go
            self.remember(record)

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

    def forget_value(self, root: Record, before: Any = None) -> None:
        """Drop the root record of a value that has left the store, and what its records share."""
        with self.lock:
            shares = root.externals or any(
                isinstance(node.content, Spread) for node in root.nodes.values()
            )
            self.forget(root, before)
            if shares:
                for record in list(self.live.values()):
                    if record.root is root:
                        self.forget(record, before)

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
        check_format_record(self.engine.path, stored)
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
        self.requests = deque()
        self.expected = 1
        self.wanted = 0
        self.full = threading.Lock()
        self.pending = None
        self.upgrade_view = None
        self.upgraded = []
        # those that are left belong to the parent
        self.next_number = self.end_number = 0
        if self.transaction is not None:
            self.transaction.forked()
            self.transaction = None


def check_format_record(path: str, stored: bytes) -> None:
    """Raise `FormatError` unless what a file has under `FORMAT_KEY` is of the format we know."""
    if stored[: len(_FORMAT)] != _FORMAT:
        raise FormatError(
            f"{path} was written by a newer richstore (or is damaged); update richstore to open it"
        )


def _has_left(record: Record) -> bool:
    """Tell whether a page is one of a container that has no such page any more, for all we know.

    It may be there as long as it is not reclaimed.
    """
    owner = record.owner
    if owner is None or (owner.record is not None and owner.record.stale):
        return False
    cid = int.from_bytes(record.name[1:9], "big")
    content = owner.content
    return owner.record is None or not isinstance(content, Spread) or content.cid != cid


def _is_page(record: Record, owner: Node) -> bool:
    """Tell whether a record holds a container of the kind of its owner."""
    asleep, value = record.asleep, record.value
    faces = [node.face for node in record.nodes.values()] if asleep is None else asleep[2]
    builtin = getattr(owner.work, "builtin", object)
    return isinstance(value, builtin) and any(face is value for face in faces)


def _drop_mirror(node: Node) -> None:
    content = node.content
    if isinstance(content, Spread) and content.mirror is not None:
        content.drop_mirror()
