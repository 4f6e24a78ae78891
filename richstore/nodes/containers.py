"""Lists, dicts and sets: their kinds, and the proxies that users hold.

The wrapped container holds faces where it holds mutables, so reads of a clean proxy are wrapt's
own, in C. Mutators go through `change`; what they hand out of the container (`pop` and its like)
is plain data. The mediated class of each kind answers every read from `view(face)`.
"""

from __future__ import annotations

import copy
import operator
from abc import ABC, abstractmethod
from collections.abc import (
    Callable,
    Iterable,
    Iterator,
    MutableMapping,
    MutableSequence,
    MutableSet,
)
from itertools import chain
from typing import Any

from richstore.codec import records, stream
from richstore.codec.missing import MissingType
from richstore.node import Node
from richstore.nodes import operations as op
from richstore.nodes.adopt import ATOMS, FEW, HANDLERS, SIMPLE, Adopter
from richstore.nodes.base import (
    BaseProxy,
    get_node,
    new_proxy,
    node_of,
    refreshed,
    refuse,
    set_class,
    set_content,
    set_node,
    view,
)
from richstore.nodes.change import change
from richstore.nodes.plain import Plain, nodes_in, plain, reduce_plain
from richstore.nodes.spread.base import SpreadContent
from richstore.nodes.spread.building import build_inside, extend
from richstore.nodes.spread.lists import SpreadList
from richstore.nodes.spread.mappings import SpreadDict, SpreadSet
from richstore.nodes.spread.sources import LARGE, Source, first_items, first_pairs
from richstore.nodes.views import DictItems, DictKeys, DictValues
from richstore.record import Record

__all__ = ["DICT", "LIST", "SET", "ContainerKind", "DictProxy", "ListProxy", "SetProxy"]


class Proxy(BaseProxy):
    """What the proxies of all containers answer."""

    # Slots that hold the content's own methods: `iter(face)` and `face.get(…)` run no Python frame.
    __slots__ = ("__iter__",)

    __hash__ = None  # type: ignore[assignment]

    def __setattr__(self, name: str, value: Any) -> None:
        # wrapt would keep some names for itself; lists, dicts and sets have no attributes to set
        setattr(view(self), name, value)

    def __delattr__(self, name: str) -> None:
        delattr(view(self), name)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return reduce_plain(self, protocol)

    def __reduce__(self) -> Any:
        return reduce_plain(self)

    def __copy__(self) -> Any:
        return copy.copy(view(self))

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return Plain(memo)(self)

    def __repr__(self) -> str:
        return repr(view(self))

    def __str__(self) -> str:
        return str(view(self))

    def __format__(self, form: str) -> str:
        return format(view(self), form)

    def __reversed__(self) -> Iterator[Any]:
        items: Iterator[Any] = reversed(view(self))
        return items


_set_iter = Proxy.__dict__["__iter__"].__set__


def show(face: Any, content: Any) -> None:
    """Let a proxy show a container."""
    set_content(face, content)
    _set_iter(face, content.__iter__)


# --- kinds --------------------------------------------------------------------------------------


class ContainerKind(ABC):
    """How nodes of one built-in container are made, copied, encoded and shown."""

    keeps_fragment = True
    guarded = False
    finds_strays = False

    def __init__(self, builtin: type, head: int, spread_content: type[SpreadContent]) -> None:
        self.builtin = builtin
        self.code = head
        self.spread_content = spread_content
        self.clean: type = BaseProxy
        self.sleeping: type = BaseProxy
        self.mediated: type = BaseProxy
        self.frozen: type = BaseProxy
        HANDLERS[builtin] = self.adopt
        SIMPLE[builtin] = self

    def head(self, node: Node) -> int:
        """Return the code of the node table."""
        return self.code if type(node.work) is self.builtin else self.code + records.SPREAD

    def make(
        self, record: Record | None, slot: int, uid: int, cls: type, content: Any = None
    ) -> Node:
        """Return a node with a face of the given class around a container, or an empty one."""
        node = Node(record, slot, uid, self)
        if content is None:
            content = self.builtin()
        node.content = node.work = content
        node.face = face = new_proxy(cls)
        self.show(face, content)
        set_node(face, node)
        return node

    def show(self, face: Any, content: Any) -> None:
        """Let a face show a container."""
        show(face, content)

    def adopt(self, adopter: Adopter, original: Any, content: Any) -> Any:
        """Return the face of a new node with a container's content adopted into it."""
        if isinstance(content, Node):
            content = view(original)
        node = self.make(None, -1, -1, self.clean)
        face = node.face
        adopter.place(node)
        adopter.remember(original, face)
        adopter.later(lambda: self._fill(node, content, adopter))
        return face

    def _fill(self, node: Node, content: Any, adopter: Adopter) -> None:
        is_large = len(content) > LARGE and type(content) is self.builtin
        if not (is_large and build_inside(adopter, node, content)):
            self.fill(node.content, content, adopter)

    def only_atoms(self, content: Any) -> bool:
        """Tell whether a container holds nothing that has to be adopted, and is not large."""
        return len(content) <= LARGE and ATOMS.issuperset(map(type, content))

    def adopt_atoms(self, adopter: Adopter, content: Any) -> Any:
        """Return the face of a new node with a copy of a container that holds only atoms."""
        node = self.make(None, -1, -1, self.clean, content.copy())
        node.kids = []
        adopter.place(node)
        return node.face

    @abstractmethod
    def fill(self, raw: Any, content: Any, adopt: Adopter) -> None:
        """Adopt `content` into an empty container."""

    def begin(self, node: Node) -> None:
        """Make a working copy."""
        content: Any = node.content
        # a spread one is only a way to its pages, which have working copies of their own
        node.work = content if isinstance(content, SpreadContent) else content.copy()
        set_class(node.face, self.mediated)

    def install(self, node: Node) -> None:
        """Make the working copy the content."""
        node.content = work = node.work
        self.show(node.face, work)
        set_class(node.face, self.clean)

    def discard(self, node: Node) -> None:
        """Forget the working copy."""
        set_class(node.face, self.clean)
        node.work = node.content
        node.row = None

    def save(self, node: Node) -> Any:
        """Return a copy of the working copy."""
        work: Any = node.work
        return work if isinstance(work, SpreadContent) else work.copy()

    def restore(self, node: Node, saved: Any) -> None:
        """Put a saved copy back into the working copy."""
        work: Any = node.work
        if not isinstance(work, SpreadContent) and not isinstance(saved, SpreadContent):
            work.clear()
            self.put_back(work, saved)
        else:
            self.gather(node, saved)

    # --- spread containers ---

    def show_spread(self, node: Node, cid: int) -> None:
        """Let a node that is being read be a spread container."""
        content = node.content
        is_known = isinstance(content, SpreadContent) and content.cid == cid
        if not is_known or content.before is not None:
            # one that has left the store stays as it was
            content = self.spread_content(node, cid)
        content.forget_mirror()
        node.content = node.work = content
        node.row = None
        self.show(node.face, content)
        set_class(node.face, self.clean)
        assert node.record is not None
        node.record.tracker.spreads[cid] = node

    def spread(self, node: Node, cid: int) -> None:
        """Let the working copy be a spread one."""
        self.gather(node, self.spread_content(node, cid))

    def gather(self, node: Node, content: Any) -> None:
        """Let the working copy be another one, whole or spread."""
        transaction = node.tx
        node.work = content
        node.row = None
        if transaction is not None and node not in transaction.touched:
            # born in this transaction: it has no other content
            transaction.reshaped.append((node, node.content))
            node.content = content
            self.show(node.face, content)

    def put_back(self, work: Any, saved: Any) -> None:
        """Fill an empty working copy."""
        work.update(saved)

    def scan(self, node: Node, adopt: Callable[[Any], Any]) -> list[Node]:
        """Return the nodes that the container refers to."""
        kids: list[Node] = []
        if isinstance(node.work, SpreadContent):
            return kids
        for item in self.members(node.work):
            get = getattr(type(item), "_richstore_node_", None)
            if get is not None:
                kids.append(get(item))
            elif isinstance(item, (tuple, frozenset)) or type(type(item)) is MissingType:
                kids += nodes_in(item)
        return kids

    def is_flat(self, node: Node) -> bool:
        """Tell whether it is quickly seen that the container refers to no nodes."""
        work = node.work
        return len(work) <= FEW and not self.members(work)

    def members(self, content: Any) -> Iterable[Any]:
        """Return all that may be or hold a face."""
        return [item for item in content if type(item) not in ATOMS]

    def hashed(self, node: Node) -> list[Node]:
        """Return the nodes that the container hashes."""
        return []

    def names(self, node: Node) -> Iterable[Any]:
        """Return keys that other nodes are likely to have as well."""
        return ()

    def encode(self, node: Node, pickler: stream.RecordPickler, made: list[bytes]) -> bytes:
        """Return the fragment of the container."""
        if isinstance(node.work, SpreadContent):
            return b""
        return stream.fill_fragment(node.slot, pickler.body(node.work))

    def expire(self, node: Node) -> None:
        """Make the face load the record before its next use."""
        set_class(node.face, self.mediated)

    def settle(self, node: Node) -> None:
        """Make the face show its content again."""
        set_class(node.face, self.clean)

    def lose(self, node: Node) -> None:
        """Let a face that has left the store before it was read say so when it is used."""
        content = self.spread_content(node, 0)
        content.before = False
        node.content = node.work = content
        self.show(node.face, content)
        self.settle(node)

    def containers(self, node: Node) -> list[Any]:
        """Return a fresh container and the face, for a record that is being read."""
        node.work = self.builtin()
        return [node.work, node.face]

    def loaded(self, node: Node) -> None:
        """Take the filled container as content."""
        node.content = node.work
        self.show(node.face, node.work)
        set_class(node.face, self.clean)

    def items(self, node: Node) -> list[tuple[str, Any]]:
        """Return what is inside, each with how Python would write the way to it.

        What is in pages is found by their records.
        """
        if isinstance(node.content, SpreadContent):
            return []
        return [(f"[{at}]", item) for at, item in enumerate(view(node.face))]

    @abstractmethod
    def plain(self, node: Node, copies: Plain) -> Any:
        """Return the plain copy."""


# A dict with more keys is a collection; others are like objects, and have keys in common.
_FIELDS = 32


class _ListKind(ContainerKind):
    def fill(self, raw: Any, content: Any, adopt: Adopter) -> None:
        for item in content:
            raw.append(item if type(item) in ATOMS else adopt(item, f"[{len(raw)}]"))

    def put_back(self, work: Any, saved: Any) -> None:
        work.extend(saved)

    def plain(self, node: Node, copies: Plain) -> Any:
        return copies.as_list(node.face, view(node.face))


class _DictKind(ContainerKind):
    def names(self, node: Node) -> Iterable[Any]:
        work = node.work
        return work if type(work) is dict and len(work) <= _FIELDS else ()

    def hashed(self, node: Node) -> list[Node]:
        if isinstance(node.work, SpreadContent):
            return []
        return [kid for key in node.work if type(key) not in ATOMS for kid in nodes_in(key)]

    def show(self, face: Any, content: Any) -> None:
        show(face, content)
        _set_get(face, content.get)

    def only_atoms(self, content: Any) -> bool:
        return (
            len(content) <= LARGE
            and ATOMS.issuperset(map(type, content.values()))
            and ATOMS.issuperset(map(type, content))
        )

    def fill(self, raw: Any, content: Any, adopt: Adopter) -> None:
        for key, value in content.items():
            if type(key) not in ATOMS:
                key = adopt.hashed(key, f"[key {key!r}]")
            raw[key] = value if type(value) in ATOMS else adopt(value, f"[{key!r}]")

    def members(self, content: Any) -> Iterable[Any]:
        found = [value for value in content.values() if type(value) not in ATOMS]
        found += [key for key in content if type(key) not in ATOMS]
        return found

    def items(self, node: Node) -> list[tuple[str, Any]]:
        if isinstance(node.content, SpreadContent):
            return []
        content = view(node.face)
        found = [(f"[{key!r}]", value) for key, value in content.items()]
        return found + [(f"[key {key!r}]", key) for key in content if type(key) not in ATOMS]

    def plain(self, node: Node, copies: Plain) -> Any:
        return copies.as_dict(node.face, view(node.face))


class _SetKind(ContainerKind):
    def hashed(self, node: Node) -> list[Node]:
        if isinstance(node.work, SpreadContent):
            return []
        return [kid for key in node.work if type(key) not in ATOMS for kid in nodes_in(key)]

    def fill(self, raw: Any, content: Any, adopt: Adopter) -> None:
        for item in content:
            raw.add(adopt.hashed(item, "{…}"))

    def items(self, node: Node) -> list[tuple[str, Any]]:
        if isinstance(node.content, SpreadContent):
            return []
        return [("{…}", item) for item in view(node.face)]

    def plain(self, node: Node, copies: Plain) -> Any:
        return copies.as_set(node.face, view(node.face))


LIST = _ListKind(list, records.LIST, SpreadList)
DICT = _DictKind(dict, records.DICT, SpreadDict)
SET = _SetKind(set, records.SET, SpreadSet)

# --- proxies ------------------------------------------------------------------------------------


class ListProxy(Proxy):
    """A stored list."""

    __slots__ = ()

    def __new__(cls, items: Any = (), /) -> Any:
        """Return a plain list: `type(x)(…)` is how dataclasses and others copy a container."""
        return list(items)

    def __init__(self, items: Any = (), /) -> None:
        change(self, op.list_set, slice(None), list(items))

    def append(self, item: Any, /) -> None:
        change(self, op.list_append, item, removes=False)

    def insert(self, index: Any, item: Any, /) -> None:
        change(self, op.list_insert, operator.index(index), item, removes=False)

    def extend(self, items: Any, /) -> None:
        some = first_items(items)
        if isinstance(some, Source):
            extend(self, some)
        else:
            change(self, op.list_extend, some, removes=False)

    def __iadd__(self, items: Any) -> Any:
        self.extend(items)
        return self

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        """Give numpy an array of the items; wrapt's proxies are no sequences to its C code."""
        import numpy

        return numpy.array(plain(self), dtype=dtype)

    def __imul__(self, times: Any) -> Any:
        if not hasattr(type(times), "__index__"):
            return NotImplemented
        change(self, op.list_imul, times)
        return self

    def __setitem__(self, index: Any, value: Any) -> None:
        if isinstance(index, slice):
            try:
                value = list(value)
            except TypeError:
                if hasattr(type(value), "__iter__"):
                    raise
                raise TypeError(_slice_error(index, value)) from None
        change(self, op.list_set, index, value)

    def __delitem__(self, index: Any) -> None:
        change(self, op.delete, index)

    def pop(self, *index: Any) -> Any:
        return change(self, op.pop, *index)

    def remove(self, value: Any, /) -> None:
        change(self, op.list_remove, value)

    def clear(self) -> None:
        change(self, op.clear)

    def sort(self, *, key: Any = None, reverse: Any = False) -> None:
        change(self, op.list_sort, key, reverse, removes=False)

    def reverse(self) -> None:
        change(self, op.list_reverse, removes=False)


def _slice_error(index: slice, value: Any) -> str:
    """Return what this Python says of a slice that something other than an iterable is put into."""
    try:
        [][index] = value
    except TypeError as error:
        return str(error)
    return "can only assign an iterable"


class DictProxy(Proxy):
    """A stored dict."""

    __slots__ = ("get",)

    def __new__(cls, *arguments: Any, **named: Any) -> Any:
        """Return a plain dict, as `ListProxy` does a list."""
        return dict(*arguments, **named)

    def __init__(self, *arguments: Any, **named: Any) -> None:
        change(self, op.dict_update, _new_items(arguments, named))

    def __setitem__(self, key: Any, value: Any) -> None:
        change(self, op.dict_set, key, value)

    def __delitem__(self, key: Any) -> None:
        change(self, op.delete, key)

    def setdefault(self, key: Any, default: Any = None, /) -> Any:
        refreshed(get_node(self))
        content = view(self)
        if key in content:
            return content[key]
        return change(self, op.dict_setdefault, key, default, removes=False)

    def update(self, *arguments: Any, **named: Any) -> None:
        if len(arguments) == 1:
            some = first_pairs(arguments[0], named)
            if isinstance(some, Source):
                extend(self, some)
                return
        else:
            some = _new_items(arguments, named)
        change(self, op.dict_update, some)

    def __ior__(self, other: Any) -> Any:
        self.update(other)
        return self

    def pop(self, *arguments: Any) -> Any:
        if len(arguments) == 2:
            refreshed(get_node(self))
            if arguments[0] not in view(self):
                return arguments[1]
        return change(self, op.pop, *arguments)

    def popitem(self) -> Any:
        return change(self, op.dict_popitem)

    def clear(self) -> None:
        change(self, op.clear)

    def keys(self) -> Any:
        return DictKeys(self)

    def values(self) -> Any:
        return DictValues(self)

    def items(self) -> Any:
        return DictItems(self)


_set_get = DictProxy.__dict__["get"].__set__


def _new_items(arguments: tuple[Any, ...], named: dict[str, Any]) -> dict[Any, Any]:
    """Return what dict.update would set, read from its arguments before anything is locked."""
    new: dict[Any, Any] = {}
    if len(arguments) > 1:
        new.update(*arguments)
    if arguments and node_of(arguments[0]) is not None and isinstance(arguments[0], dict):
        new.update(arguments[0].items())
    elif arguments:
        new.update(arguments[0])
    new.update(named)
    return new


class SetProxy(Proxy):
    """A stored set."""

    __slots__ = ()
    __reversed__ = None  # type: ignore[assignment]

    def __new__(cls, items: Any = (), /) -> Any:
        """Return a plain set, as `ListProxy` does a list."""
        return set(items)

    def __init__(self, items: Any = (), /) -> None:
        change(self, op.set_keep, set(items))

    def add(self, item: Any, /) -> None:
        change(self, op.set_add, item, removes=False)

    def discard(self, item: Any, /) -> None:
        change(self, op.set_discard, item)

    def remove(self, item: Any, /) -> None:
        change(self, op.set_remove, item)

    def pop(self) -> Any:
        return change(self, op.pop)

    def clear(self) -> None:
        change(self, op.clear)

    def update(self, *others: Any) -> None:
        items = others[0] if len(others) == 1 else chain.from_iterable(others)
        some = first_items(items)
        if isinstance(some, Source):
            extend(self, some)
        else:
            change(self, op.set_update, some, removes=False)

    def intersection_update(self, *others: Any) -> None:
        others = tuple(map(list, others))
        change(self, op.set_combine, set.intersection, others)

    def difference_update(self, *others: Any) -> None:
        others = tuple(map(list, others))
        change(self, op.set_combine, set.difference, others)

    def symmetric_difference_update(self, other: Any, /) -> None:
        change(self, op.set_combine, set.symmetric_difference, (list(other),))

    def __ior__(self, other: Any) -> Any:
        if isinstance(other, (set, frozenset)) and len(other) > LARGE:
            self.update(other)
            return self
        return self._in_place(other, set.union)

    def __iand__(self, other: Any) -> Any:
        return self._in_place(other, set.intersection)

    def __isub__(self, other: Any) -> Any:
        return self._in_place(other, set.difference)

    def __ixor__(self, other: Any) -> Any:
        return self._in_place(other, set.symmetric_difference)

    def _in_place(self, other: Any, combine: Callable[..., Any]) -> Any:
        if not isinstance(other, (set, frozenset, type({}.keys()), type({}.items()))):
            return NotImplemented
        change(self, op.set_combine, combine, (set(other),))
        return self


# --- the classes of the other states --------------------------------------------------------------


def _forward(name: str) -> Callable[..., Any]:
    """Return a method that answers from the content the caller is to see."""

    def method(self: Any, *arguments: Any, **named: Any) -> Any:
        return getattr(view(self), name)(*arguments, **named)

    method.__name__ = name
    return method


def _operate(function: Callable[..., Any]) -> Callable[..., Any]:
    def method(self: Any, *arguments: Any) -> Any:
        return function(view(self), *arguments)

    return method


def _reflected(function: Callable[..., Any]) -> Callable[..., Any]:
    def method(self: Any, other: Any) -> Any:
        return function(other, view(self))

    return method


_OPERATORS: dict[str, Callable[..., Any]] = {
    "__getitem__": operator.getitem, "__len__": len, "__iter__": iter, "__contains__":
    operator.contains, "__eq__": operator.eq, "__ne__": operator.ne, "__lt__": operator.lt,
    "__le__": operator.le, "__gt__": operator.gt, "__ge__": operator.ge, "__add__": operator.add,
    "__mul__": operator.mul, "__or__": operator.or_, "__and__": operator.and_, "__sub__":
    operator.sub, "__xor__": operator.xor, "__bool__": bool, "__str__": str, "__format__": format,
}  # fmt: skip
_REFLECTED = {
    "__radd__": operator.add, "__rmul__": operator.mul, "__ror__": operator.or_,
    "__rand__": operator.and_, "__rsub__": operator.sub, "__rxor__": operator.xor,
}  # fmt: skip
_READERS: dict[type, tuple[str, ...]] = {
    list: ("copy", "count", "index"),
    dict: ("copy", "get"),
    set: (
        "copy", "difference", "intersection", "isdisjoint", "issubset", "issuperset",
        "symmetric_difference", "union",
    ),
}  # fmt: skip
_MUTATORS: dict[type, tuple[str, ...]] = {
    list: (
        "append", "insert", "extend", "__iadd__", "__imul__", "__setitem__", "__delitem__", "pop",
        "remove", "clear", "sort", "reverse",
    ),
    dict: (
        "__setitem__", "__delitem__", "setdefault", "update", "__ior__", "pop", "popitem", "clear",
    ),
    set: (
        "add", "discard", "remove", "pop", "clear", "update", "intersection_update",
        "difference_update", "symmetric_difference_update", "__ior__", "__iand__", "__isub__",
        "__ixor__",
    ),
}  # fmt: skip


def mediated_class(clean: type, readers: Iterable[str]) -> type:
    """Return the class of faces whose reads choose between working copy and committed content.

    It derives from the clean class, so that Python asks it first when both stand in one operation.
    """
    namespace: dict[str, Any] = {"__slots__": (), "__doc__": clean.__doc__}
    namespace |= {name: _operate(function) for name, function in _OPERATORS.items()}
    namespace |= {name: _reflected(function) for name, function in _REFLECTED.items()}
    namespace |= {name: _forward(name) for name in readers}
    return type(clean.__name__, (clean,), namespace)


def _sleeping_class(clean: type) -> type:
    """Return the class of faces on pages that are asleep: these show their content in C as well.

    Only the slots that hold methods of the content are still to be set.
    """

    def iterate(self: Any) -> Iterator[Any]:
        return iter(view(self))

    namespace: dict[str, Any] = {"__slots__": (), "__doc__": clean.__doc__, "__iter__": iterate}
    if hasattr(clean, "get"):
        namespace["get"] = lambda self, *arguments: view(self).get(*arguments)
    return type(clean.__name__, (clean,), namespace)


_ABCS: dict[type, Any] = {list: MutableSequence, dict: MutableMapping, set: MutableSet}

for _kind, _proxy in ((LIST, ListProxy), (DICT, DictProxy), (SET, SetProxy)):
    _kind.clean = _proxy
    _kind.sleeping = _sleeping_class(_proxy)
    _kind.mediated = mediated_class(_proxy, _READERS[_kind.builtin])
    _kind.frozen = type(
        _proxy.__name__,
        (_proxy,),
        {"__slots__": (), "__doc__": _proxy.__doc__}
        | dict.fromkeys(_MUTATORS[_kind.builtin], refuse),
    )
    # `match` asks the class itself, and this registration is what it looks for
    _ABCS[_kind.builtin].register(_proxy)
