"""Records: the units of storage, some nodes that are read and written together.

A small value is one record, its *root*; a large one is a root, *pages* that hold the items of
containers that have outgrown theirs, and *shared* records, each for a node that several records
refer to.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Any

from richstore.codec import stream
from richstore.node import Node

if TYPE_CHECKING:
    from richstore.tracker import Tracker

__all__ = ["Record"]

# Bytes that an encoded byte, and a node, take in memory: containers, faces, fragments.
_BYTE_COST = 8
_NODE_COST = 900


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
        alone: whether encoding it runs a user's code, so that its changes join no group.
        outdated: whether it was read with names or versions of classes that it would not have now.
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
        "alone",
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
        "outdated",
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
        self.alone = False
        self.since = 0
        self.size = 0
        self.mirrored = 0
        self.trail: list[bytes] | None = None
        self.outdated = False
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
            # not all of many: a number in a damaged record may be as high as it likes
            self.free = sorted({*range(min(self.top, 2 * len(used) + 64))} - used)
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
        self.named.append(stream.name_fragment(place, name))
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
        # its nodes were made for what refers to them, and it was not read since
        unread = self.stale and not self.size
        for node in self.nodes.values():
            node.record = None
            if unread:
                node.kind.lose(node)
            elif self.stale:
                node.kind.settle(node)
        self.nodes = {}
        self.externals = {}
        self.order = None

    @property
    def path(self) -> str:
        """The place of this value as Python would write it, for errors."""
        root = self.root
        return self.tracker.place(root.name, root.stored_key)

    @property
    def cost(self) -> int:
        """Bytes it takes in memory, more or less."""
        asleep = self.asleep
        nodes = len(self.nodes) if asleep is None else len(asleep[2])
        return self.size * _BYTE_COST + nodes * _NODE_COST + self.mirrored


# What a record may be without until it is asked for.
_LATER = frozenset(("faces", "free", "nodes", "top"))
