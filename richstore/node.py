"""Nodes: what stands for one mutable container or instance inside a stored value.

Users hold its *face* (a proxy or a tracked instance). What kinds of nodes there are is known to the
layer above: it hands in `Kind` objects, and the `Faces` functions that make live nodes when a
record is read.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from array import array
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Protocol

from richstore.codec import stream

if TYPE_CHECKING:
    from richstore.record import Record

__all__ = ["Faces", "FilledKind", "Kind", "Node", "Spread"]


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


class Spread(ABC):
    """The content of a container whose items are in pages; what `nodes` shows is made of this.

    Attributes:
        cid: its spread id.
        node: the node of the container; None in a snapshot.
        before: a view of the last state in which it was in the store, once it has left.
        classes: finds the classes and functions that records of that state name.
        kept: the pages that were loaded then, by id.
        mirror: a built-in container with all items, which the face shows while nothing changes;
            None
            when there is none.
    """

    __slots__ = ("__weakref__", "before", "cid", "classes", "kept", "mirror", "node")

    def __init__(self, node: Node | None, cid: int) -> None:
        self.node = node
        self.cid = cid
        self.before: Any = None
        self.classes: Any = None
        self.kept: dict[int, Record] = {}
        self.mirror: Any = None

    @abstractmethod
    def drop_mirror(self) -> None:
        """Let the face show this content itself: something in it changes."""

    @abstractmethod
    def copy(self) -> Any:
        """Return a whole container with the items."""


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

    def encode(self, node: Node, pickler: stream.RecordPickler, made: list[bytes]) -> bytes:
        """Return the fragment of the working content.

        What has to stand before all other fragments is appended to `made`.
        """

    def expire(self, node: Node) -> None:
        """Make the face load the record before its next use."""

    def settle(self, node: Node) -> None:
        """Make the face show its content again."""

    def lose(self, node: Node) -> None:
        """Let a face that has left the store before it was read say so when it is used."""

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
