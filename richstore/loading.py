"""Loading: live nodes from the bytes of a record, and the search for those that have moved.

Nodes that were there before keep their faces, by slot and identity. Another process may have moved
a node into another record, which must have changed since the one it was in was last good: it is
looked for there (`strays`), when it is not found where it was.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from typing import TYPE_CHECKING, Any

from richstore import pages
from richstore.codec import records
from richstore.codec.classes import check_version, is_current, version_in, version_of
from richstore.codec.notes import Notes
from richstore.engines.base import ReadTransaction, WriteTransaction
from richstore.errors import CorruptionError, FormatError, explain
from richstore.node import FilledKind, Node, Spread
from richstore.record import Record
from richstore.spaces import VALUES

if TYPE_CHECKING:
    from richstore.tracker import Tracker

__all__ = ["Loader", "View", "old_versions_in"]

View = ReadTransaction | WriteTransaction

# First bytes of the engine keys of records.
_RECORDS = (*VALUES, pages.PAGE, pages.SHARED)


class Loader:
    """Fills the records of a tracker, which is locked meanwhile."""

    __slots__ = ("tracker",)

    def __init__(self, tracker: Tracker) -> None:
        self.tracker = tracker

    def parse(self, record: Record, stored: bytes) -> records.Parts:
        """Take a record apart, and say on errors which value it belongs to."""
        try:
            return records.parse(record.name, stored)
        except (CorruptionError, FormatError) as error:
            root = record.root
            key = records.stored_key(stored) if root is record else root.stored_key
            explain(error, self.tracker.place(root.name, key))
            raise

    def fill(
        self,
        record: Record,
        parts: records.Parts,
        size: int,
        view: View,
    ) -> None:
        """Fill a record from its bytes; nodes that were there before keep their faces."""
        faces = self.tracker.faces
        table = parts.table
        old = record.nodes
        base = parts.base
        strays = self.tracker.strays
        searching = bool(strays) or bool(self.tracker.expired)
        classes = self.tracker.classes
        if classes.strict:
            classes.check_parts(record.name, parts, record.root.name)
        if not old and record.owner is not None and not searching and records.is_plain(parts):
            self._fill_asleep(record, parts, size)
            return
        class_table: list[type] = []
        old_versions: dict[type, int] = {}
        outdated = False
        if parts.classes:
            class_table = list(map(classes.class_of, parts.classes))
            old_versions, outdated = old_versions_in(parts.classes, class_table)
        upgrades: dict[Node, int] = {}
        notes = Notes()
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
                outdated = outdated or _names_old(link, main)
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
            if spread is not isinstance(before, Spread):
                # another process has spread it, or gathered it
                node.row = None
            if spread:
                cid = int.from_bytes(next(links), "big")
                if self.tracker.classes.strict:
                    self._check_spread(cid, node, record)
                faces.spread(node, cid)
                containers.append(node.face)
            else:
                filled: Any = node.kind
                containers += filled.containers(node)
                if cls is not None and cls in old_versions:
                    upgrades[node] = old_versions[cls]
                    filled.collect(node)
            if isinstance(before, Spread) and before is not node.work:
                # its pages are gone, and what was on them may be elsewhere
                prefix = pages.PAGE + before.cid.to_bytes(8, "big")
                for name in [name for name in list(self.tracker.live) if name.startswith(prefix)]:
                    page = self.tracker.live.get(name)
                    if page is not None:
                        self.tracker.expire(page)

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

        try:
            value = records.decode(parts, containers, self.tracker.classes, wrap, notes=notes)
        except BaseException:
            # what is held may be half filled, and is not to be used before it has been read
            for node in old.values():
                node.kind.expire(node)
            raise
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
        states: dict[Node, tuple[int, Any]] = {}
        for node, version in upgrades.items():
            states[node] = version, node.work
        for slot in uids:
            built: Any = nodes[slot]
            found = built.kind.outdated(built, notes)
            if found is not None:
                states[built] = found
        record.outdated = outdated or notes.outdated or bool(states)
        # last, since what a class's own __setstate__ made is admitted to the record here
        for node in list(nodes.values()):
            if not isinstance(node.work, Spread) and node not in states:
                node.kind.loaded(node)
            node.fragment = node.kids = None
        if states:
            self._upgrade(record, states, view)
        record.stale = False
        record.size = size
        gone = [node for node in gone if node.record is record]
        if gone:
            self.find_moved(gone, record, view)

    def _upgrade(self, record: Record, states: dict[Node, tuple[int, Any]], view: View) -> None:
        """Give nodes the states that their classes make of older ones.

        The classes' code runs here, when all of the record is there; what it reads is of the same
        state of the engine, and it can change nothing.
        """
        try:
            with self.tracker.upgrading(record.name, view):
                for node, (version, state) in states.items():
                    kind: Any = node.kind
                    kind.upgrade(node, version, state)
                    kind.loaded(node)
        except BaseException:
            # what is held is half upgraded, and is to be read again before it is used
            record.stale = True
            for node in record.nodes.values():
                node.kind.expire(node)
            raise

    def _check_spread(self, cid: int, node: Node, record: Record) -> None:
        """Refuse a large container that two records claim: a circle of them would have no end."""
        known = self.tracker.spreads.get(cid)
        if known is None or known is node or self.tracker.transaction is not None:
            return
        other = known.record
        if other is not None and not other.stale and isinstance(known.work, Spread):
            raise CorruptionError(
                f"the large container {cid} is in record {record.name!r} and in {other.name!r}"
            )

    def _fill_asleep(self, record: Record, parts: records.Parts, size: int) -> None:
        """Fill a new page without making its nodes, which those who only read do not need."""
        table = parts.table
        faces, containers = self.tracker.faces.sleeping(record, table[2::3])
        record.value = records.decode(parts, containers, self.tracker.classes)
        record.base = parts.base
        record.size = size
        record.asleep = table, parts.base, faces
        record.leave_out()
        del record.nodes

    def _external(self, record: Record, uid: int, link: bytes, view: View) -> Node:
        """Return the main node of another record; it is loaded when it is used."""
        slot, head, stored_class, name = records.read_external(link)
        other = self.tracker.live.get(name)
        if other is None or other.nodes.get(slot) is None:
            if other is None:
                root = record.root
                other = root if root.name == name else Record(self.tracker, name, None, root)
                if view.get(name) is None:
                    raise CorruptionError(
                        f"the record {name!r} is missing, and record {record.name!r} refers to it"
                    )
            if head == records.BUILT:
                # its face cannot be made before it is read
                self.tracker.live[name] = other
                other.stale = True
                self.tracker.reload_in(other, view)
            else:
                spread = records.SPREAD <= head < records.FIRST_CLASS
                cls = self.tracker.classes.class_of(stored_class) if stored_class else None
                wanted = head - records.SPREAD if spread else head
                # another process may have moved it there
                node = self._from_elsewhere(uid, other)
                if node is None or not _is_of(node, cls or wanted):
                    kind = self.tracker.faces.kind(wanted, cls)
                    node = kind.make(other, slot, uid, kind.clean)
                else:
                    self._move(node, other, slot)
                other.nodes[slot] = node
                other.faces[id(node.face)] = (2 * slot + 1, node.face)
                other.value = node.face
                self.tracker.live[name] = other
                other.stale = False
                self.tracker.expire(other)
        found = other.nodes.get(slot)
        if found is None or found.uid != uid:
            raise CorruptionError(
                f"record {record.name!r} refers to a node of record {name!r} that is not there"
            )
        return found

    def _from_elsewhere(self, uid: int, record: Record) -> Node | None:
        """Return a node that was in another record, and is in this one now."""
        node = self.tracker.strays.pop(uid, None) or self.tracker.expired.get(uid)
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

    def find_moved(self, nodes: list[Node], record: Record, view: View) -> None:
        """Find the records that have nodes now which are not in the one they were in.

        These must have changed since that record was last good.
        """
        strays = self.tracker.strays
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
                self.tracker.let_go([node], record, None, False)
                if record.size:
                    node.kind.settle(node)
                else:
                    node.kind.lose(node)

    def _changed_since(self, since: int, view: View) -> Iterable[bytes]:
        known = [names for number, names in self.tracker.changes if number >= since]
        if None in known or not self.tracker.changes or self.tracker.changes[0][0] > since:
            return (
                name for first in _RECORDS for name, _ in view.scan(first, bytes((first[0] + 1,)))
            )
        return set().union(*known)  # type: ignore[arg-type]

    def _load_named(self, name: bytes, root: Record, view: View) -> None:
        """Load a record of a value of which only its engine key is known."""
        record = self.tracker.live.get(name)
        stored = view.get(name)
        assert stored is not None
        if record is None and name[:1] == pages.PAGE:
            owner = self._owner(int.from_bytes(name[1:9], "big"), root, view)
            if owner is None:
                return
            record = Record(self.tracker, name, None, root, owner)
        elif record is None:
            record = Record(self.tracker, name, None, root)
        self.tracker.load(record, self.parse(record, stored), len(stored), view)

    def _owner(self, cid: int, root: Record, view: View) -> Node | None:
        """Return the node of the spread container with a spread id."""
        node = self.tracker.spreads.get(cid)
        if node is not None and node.record is not None:
            return node
        link = cid.to_bytes(8, "big")
        for first in _RECORDS:
            for name, stored in view.scan(first, bytes((first[0] + 1,))):
                if link in records.parse(name, stored).links:
                    self._load_named(name, root, view)
                    return self.tracker.spreads.get(cid)
        return None


def old_versions_in(stored: list[bytes], classes: list[type]) -> tuple[dict[type, int], bool]:
    """Return the older versions of classes in a table, and whether it is not as it would be now.

    Raises:
        UpgradeError: a version is newer than that of the class.
    """
    found: dict[type, int] = {}
    outdated = False
    for form, cls in zip(stored, classes, strict=True):
        if is_current(form, cls):
            continue
        outdated = True
        version = version_in(form)
        if version != version_of(cls):
            check_version(cls, version)
            found[cls] = version
    return found, outdated


def _names_old(link: bytes, main: Node) -> bool:
    """Tell whether a link names the class of an instance as it would not be named now."""
    stored = records.read_external(link)[2]
    cls = main.kind.head(main)
    return bool(stored) and isinstance(cls, type) and not is_current(stored, cls)


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
