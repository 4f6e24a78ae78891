"""The generic proxy: for values with no face of their own.

Deques, bytearrays, arrays, subclasses of list, dict and set, and whatever else pickle can store.
A call runs on a working copy; the state before and after tells whether it was a change. A call
that changed nothing costs no lock. One that did becomes the node's new content; if another writer
was faster, it runs again on the latest content, inside the transaction.

Containers of this kind (subclasses of list, dict, set; deque) hold faces, so what is inside them
is tracked. All others are *opaque*: what they hand out of their inside is frozen, and changing it
raises.
"""

from __future__ import annotations

import array
import collections
import operator
import sys
import types
import weakref
from collections.abc import Callable, Iterable, MutableMapping, MutableSequence, MutableSet
from types import FunctionType
from typing import Any

from richstore.codec import containers, records, stream
from richstore.codec.classes import upgraded, version_of
from richstore.codec.notes import Notes
from richstore.codec.policy import ANY, ClassPolicy
from richstore.errors import EncodingError, ReadOnlyError, UpgradeError
from richstore.node import Node
from richstore.nodes.adopt import ATOMS, Adopter, is_atom
from richstore.nodes.base import (
    BaseProxy,
    get_node,
    is_face,
    new_proxy,
    node_of,
    refreshed,
    set_content,
    set_node,
    view,
)
from richstore.nodes.change import Edit, change
from richstore.nodes.plain import Plain, nodes_in, reduce_plain
from richstore.record import Record
from richstore.transaction import detached

__all__ = ["GenericKind", "GenericProxy", "generic_kind"]

# Methods that are known not to change anything; they run on the content itself.
_READERS: dict[type, frozenset[str]] = {
    collections.deque: frozenset(("copy", "count", "index")),
    list: frozenset(("copy", "count", "index")),
    dict: frozenset(("copy", "get", "items", "keys", "values")),
    set: frozenset(
        (
            "copy", "difference", "intersection", "isdisjoint", "issubset", "issuperset",
            "symmetric_difference", "union",
        )
    ),
    bytearray: frozenset(dir(bytes)),
    array.array: frozenset(("buffer_info", "count", "index", "tobytes", "tolist", "tounicode")),
}  # fmt: skip


class GenericKind:
    """How the instances of one class without a face of its own are handled.

    Args:
        cls: the class.
    """

    keeps_fragment = False
    guarded = False
    finds_strays = True

    def __init__(self, cls: type) -> None:
        self.cls = cls
        self.base = containers.base_of(cls)
        readers = next((n for b, n in _READERS.items() if issubclass(cls, b)), frozenset())
        self.python = {
            name
            for base in cls.__mro__
            for name, found in vars(base).items()
            if isinstance(found, FunctionType)
        }
        self.readers = readers - self.python
        self.clean = _proxy_class(self)
        self.mediated = self.clean
        self.frozen = type(cls.__name__, (self.clean,), {"__slots__": ()})

    def head(self, node: Node) -> int:
        """Return the code for an object that the stream makes."""
        return records.BUILT

    def make(self, record: Record | None, slot: int, uid: int, cls: type, raw: Any = None) -> Node:
        """Return a node with a face of the given class around an object."""
        node = Node(record, slot, uid, self)
        node.face = new_proxy(cls)
        set_node(node.face, node)
        self.take(node, raw)
        return node

    def take(self, node: Node, raw: Any) -> None:
        """Make an object the content."""
        node.content = node.work = raw
        _protect(raw)
        set_content(node.face, raw)

    # --- contents ---

    def copy(self, raw: Any) -> Any:
        """Return a copy that shares nothing with the original but the faces inside."""
        if self.base is None:
            return _copy_opaque(raw)
        made = containers.make(self.cls, containers.extra(raw))
        containers.put(made, containers.items(raw), containers.attributes(raw))
        return made

    def state(self, raw: Any) -> Any:
        """Return what tells two states apart."""
        if self.base is None:
            return stream.dump_blob(raw)
        inside = containers.items(raw)
        flat = [*inside, *inside.values()] if isinstance(inside, dict) else list(inside or ())
        named = containers.attributes(raw)
        return [*flat, None, *named, *named.values(), getattr(raw, "default_factory", None)]

    def adopt_inside(self, raw: Any, adopt: Callable[..., Any], hashed: Callable[..., Any]) -> None:
        """Turn the mutables inside a container into nodes, in place.

        Args:
            raw: the container.
            adopt: turns a value into a node.
            hashed: the same for keys and elements of sets, complete at once.
        """
        if self.base is None:
            return
        before = self.state(raw)
        inside = containers.items(raw)
        if isinstance(inside, dict):
            inside = {hashed(k, f"[key {k!r}]"): adopt(v, f"[{k!r}]") for k, v in inside.items()}
        elif isinstance(inside, tuple):
            inside = adopt(inside, ".args")
        elif inside is not None:
            inner = hashed if self.base is set else adopt
            inside = [inner(item, f"[{at}]") for at, item in enumerate(inside)]
        named = containers.attributes(raw)
        named = {name: adopt(value, f".{name}") for name, value in named.items()}
        containers.clear(raw)
        containers.put(raw, inside, named)
        if not _same_state(before, self.state(raw)):
            value = containers.extra(raw)
            if isinstance(value, (tuple, frozenset)) and not all(map(is_atom, value)):
                raise EncodingError(
                    f"a {self.cls.__name__} that holds mutable values and has attributes cannot be "
                    f"tracked; use a tuple, or a class of your own"
                )

    def adopt(self, adopter: Adopter, original: Any, content: Any) -> Any:
        """Return the face of a new node with a copy of an object."""
        if isinstance(content, Node):
            content = view(original)
        if self.base is None:
            raw = _copy_opaque(content)
            if type(raw) is not type(content):
                raise EncodingError(
                    f"a {type(content).__name__} comes back from pickle as a {type(raw).__name__}; "
                    f"store that instead"
                )
        else:
            raw = self.copy(content)
            adopter.record.tracker.classes.check_storable(self.cls)
        node = self.make(None, -1, -1, self.clean, raw)
        adopter.remember(original, node.face)
        self.adopt_inside(raw, adopter, adopter.hashed)
        adopter.place(node)
        # what cannot be pickled is refused here, where the caller is told the place
        self.parts(node)
        return node.face

    # --- transactions ---

    def begin(self, node: Node) -> None:
        """Make a working copy."""
        node.work = self.copy(node.content)

    def install(self, node: Node) -> None:
        """Make the working copy the content."""
        self.take(node, node.work)

    def discard(self, node: Node) -> None:
        """Forget the working copy."""
        node.work = node.content

    def save(self, node: Node) -> Any:
        """Return a copy of the working copy."""
        return self.copy(node.work)

    def restore(self, node: Node, saved: Any) -> None:
        """Put a saved copy back."""
        if node.tx is not None and node in node.tx.touched:
            node.work = saved
        else:
            # born in this transaction: it has no other content
            self.take(node, saved)

    def is_flat(self, node: Node) -> bool:
        """Return False: what such an object refers to is for its own methods to say."""
        return False

    def scan(self, node: Node, adopt: Any) -> list[Node]:
        """Return the nodes that the object refers to."""
        if self.base is None:
            return []
        self.adopt_inside(node.work, adopt, adopt.hashed)
        found = stream.faces_in(self.parts(node), is_face)
        return [kid for face in found if (kid := node_of(face)) is not None]

    def parts(self, node: Node) -> tuple[Any, ...]:
        """Return how the object is made again, in the form of a pickle reduction."""
        raw = node.work
        if self.base is None:
            return records.load_blob, (stream.dump_blob(raw, _allowed(node)),)
        version = version_of(self.cls)
        state: tuple[Any, ...] = (containers.items(raw), containers.attributes(raw))
        if version:
            state = (*state, version)
        return (
            containers.make,
            (self.cls, containers.extra(raw)),
            state,
            None,
            None,
            containers.fill,
        )

    def hashed(self, node: Node) -> list[Node]:
        """Return the nodes that the container hashes."""
        if self.base is not set and not isinstance(node.work, dict):
            return []
        return [kid for key in containers.items(node.work) for kid in nodes_in(key)]

    def names(self, node: Node) -> Iterable[Any]:
        """Return nothing: the object's own reduction says what is written."""
        return ()

    def encode(self, node: Node, pickler: stream.RecordPickler, made: list[bytes]) -> bytes:
        """Return the fragment that fills the object; the one that makes it goes to `made`."""
        parts = self.parts(node)
        make, fill = stream.built_fragment(node.slot, pickler, parts)
        if self.base is None or not stream.faces_in(parts[1], is_face):
            made.append(make)
            return fill
        return make + fill

    # --- reading records ---

    def expire(self, node: Node) -> None:
        """Nothing: every use of a generic proxy asks for its content."""

    settle = lose = expire

    def outdated(self, node: Node, notes: Notes) -> tuple[int, Any] | None:
        """Return version and attributes of an object of an older version; None: it is current."""
        pending = notes.pending.get(id(node.content))
        return None if pending is None else pending[1:]

    def upgrade(self, node: Node, version: int, state: Any) -> None:
        """Give an object the attributes that its class makes of older ones."""
        raw = node.content
        named = upgraded(self.cls, dict(state), version)
        if not isinstance(named, dict):
            raise UpgradeError(
                f"{self.cls.__qualname__}.upgrade returned a {type(named).__name__}, and has to "
                f"return a dict of attributes"
            )
        for name in containers.attributes(raw):
            object.__delattr__(raw, name)
        for name, value in named.items():
            containers.set_attribute(raw, name, value)
        if node.record is not None:
            adopter = Adopter(None, node.record)
            self.adopt_inside(raw, adopter, adopter.hashed)

    def replace(self, node: Node, change: Callable[[Any], Any]) -> None:
        """Replace the attributes of a snapshot's object."""
        for name, value in containers.attributes(node.content).items():
            containers.set_attribute(node.content, name, change(value))

    def loaded(self, node: Node) -> None:
        """Nothing: `take` was told."""

    # --- looking inside ---

    def items(self, node: Node) -> list[tuple[str, Any]]:
        """Return what is inside, each with how Python would write the way to it."""
        if self.base is None:
            return []
        raw = view(node.face)
        inside = containers.items(raw)
        pairs = inside.items() if isinstance(inside, dict) else enumerate(inside or ())
        found = [(f"[{key!r}]", item) for key, item in pairs]
        return found + [(f".{name}", value) for name, value in containers.attributes(raw).items()]

    def plain(self, node: Node, copies: Plain) -> Any:
        """Return the plain copy."""
        raw = view(node.face)
        if self.base is None:
            made = _copy_opaque(raw)
            copies.keep(node.face, made)
            return made
        made = self.copy(raw)
        copies.keep(node.face, made)
        self.adopt_inside(
            made,
            lambda value, step="": copies(value),
            lambda value, step="": copies.complete(value),
        )
        return made


def _same_state(before: Any, after: Any) -> bool:
    if isinstance(before, bytes):
        return bool(before == after)
    return len(before) == len(after) and all(map(operator.is_, before, after))


def _allowed(node: Node) -> ClassPolicy:
    """Return the policy under which a node will be read again."""
    return ANY if node.record is None else node.record.tracker.classes


def _is_array(raw: Any) -> bool:
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(raw, numpy.ndarray)


def _protect(raw: Any) -> None:
    """Let views of a committed numpy array be read-only: numpy then refuses what would be lost."""
    if _is_array(raw):
        raw.flags.writeable = False


def _copy_opaque(raw: Any) -> Any:
    made = records.load_blob(stream.dump_blob(raw))
    # an unpickled array may lie in memory that cannot be written
    return made.copy() if _is_array(made) else made


# --- calls
# ------------------------------------------------------------------------------------------


def call(face: Any, function: Callable[[Any], Any]) -> Any:
    """Run `function(object)` on a generic node's object, and keep what it changes.

    Args:
        face: the proxy.
        function: does the call; may run twice when another writer is faster.
    """
    node = get_node(face)
    kind: Any = node.kind
    refreshed(node)
    seen = view(face)
    trial = kind.copy(seen)
    before = kind.state(trial)
    # an error leaves everything as it was: the trial is thrown away
    result = _run_to_end(function(trial))
    if _same_state(before, kind.state(trial)):
        return _result(face, kind, trial, result)
    if type(face) is kind.frozen:
        raise ReadOnlyError(
            "this value comes from a snapshot, which is read-only; change the one in the store, "
            "or take a copy with richstore.plain(…)"
        )
    if node.record is None:
        raise detached(node)
    return change(face, _take_trial, seen, trial, result, function)


def _take_trial(
    edit: Edit, node: Node, seen: Any, trial: Any, result: Any, function: Callable[[Any], Any]
) -> Any:
    kind: Any = node.kind
    if seen is not node.content and seen is not node.work:
        # another writer was faster
        trial = kind.copy(node.work)
        result = _run_to_end(function(trial))
    kind.adopt_inside(trial, edit.adopt, edit.adopt.hashed)
    # a value that the call put inside and handed out, as defaultdict does, is now a node
    result = edit.adopt.memo.get(id(result), (result,))[0]
    if edit.tx.touched.get(node) is None:
        # born in this transaction: nobody else sees it
        kind.take(node, trial)
    node.work = trial
    kind.parts(node)
    return _result(node.face, kind, trial, result)


def _run_to_end(result: Any) -> Any:
    """Run a generator now: what it changes later would be changed on a copy that is gone."""
    return iter(list(result)) if isinstance(result, types.GeneratorType) else result


def _result(face: Any, kind: GenericKind, raw: Any, result: Any) -> Any:
    """Return a call's result in a form whose changes cannot get lost."""
    if result is raw:
        return face
    if isinstance(result, memoryview):
        raise TypeError(
            "a buffer of a stored object could be written past the store; take one of a copy: "
            "richstore.plain(…)"
        )
    if type(result) in ATOMS or is_atom(result) or is_face(result):
        return result
    if kind.base is None and _is_part(result, raw):
        return frozen(result)
    return result


def _is_part(result: Any, raw: Any) -> bool:
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(result, numpy.ndarray):
        if isinstance(raw, numpy.ndarray) and numpy.shares_memory(result, raw):
            result.flags.writeable = False
        return False
    return stream.part_of(result, raw)


def frozen(value: Any) -> Any:
    """Return a read-only face of a part of an opaque object."""
    from richstore.nodes.frozen import freeze

    return freeze(value)


def _element(face: Any, value: Any) -> Any:
    """Return what reading an item or attribute of a generic node gives."""
    if type(value) in ATOMS or is_face(value) or is_atom(value):
        return value
    kind: Any = get_node(face).kind
    if kind.base is None and not callable(value):
        if isinstance(value, (tuple, frozenset)) and not any(map(_is_open, value)):
            return value
        numpy = sys.modules.get("numpy")
        if numpy is not None and isinstance(value, numpy.ndarray):
            value.flags.writeable = False
            return value
        return frozen(value)
    return value


def _is_open(value: Any) -> bool:
    return not (type(value) in ATOMS or is_atom(value))


class GenericProxy(BaseProxy):
    """A stored value without a face of its own."""

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__array_"):
            # numpy's own ways in; what they give is read-only, as the content is
            return getattr(view(self), name)
        node = get_node(self)
        kind: Any = node.kind
        content = view(self)
        value = getattr(content, name)
        if getattr(value, "__self__", None) is content and name not in kind.readers:
            return lambda *arguments, **named: call(
                self, lambda raw: getattr(raw, name)(*arguments, **named)
            )
        return _element(self, value)

    def __setattr__(self, name: str, value: Any) -> None:
        call(self, lambda raw: setattr(raw, name, value))

    def __delattr__(self, name: str) -> None:
        call(self, lambda raw: delattr(raw, name))

    def __reduce_ex__(self, protocol: Any) -> Any:
        return reduce_plain(self, protocol)

    def __reduce__(self) -> Any:
        return reduce_plain(self)

    def __copy__(self) -> Any:
        kind: Any = get_node(self).kind
        return kind.copy(view(self))

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return Plain(memo)(self)

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return type(view(self))

    @property
    def __dict__(self) -> Any:  # type: ignore[override]
        # read-only: nothing tells us of a change to a plain dict
        return types.MappingProxyType(dict(view(self).__dict__))


# Special methods that may change their object; all others are taken to read unless Python code of
# the class defines them.
_WRITING = (
    "__setitem__", "__delitem__", "__iadd__", "__isub__", "__imul__", "__itruediv__",
    "__ifloordiv__", "__imod__", "__ipow__", "__ilshift__", "__irshift__", "__iand__", "__ixor__",
    "__ior__", "__imatmul__", "__next__", "__call__",
)  # fmt: skip
_READING = (
    "__len__", "__getitem__", "__contains__", "__iter__", "__reversed__", "__eq__", "__ne__",
    "__lt__", "__le__", "__gt__", "__ge__", "__hash__", "__bool__", "__repr__", "__str__",
    "__format__", "__add__", "__radd__", "__sub__", "__rsub__", "__mul__", "__rmul__",
    "__truediv__", "__rtruediv__", "__floordiv__", "__rfloordiv__", "__mod__", "__rmod__",
    "__pow__", "__rpow__", "__matmul__", "__rmatmul__", "__and__", "__rand__", "__or__",
    "__ror__", "__xor__", "__rxor__", "__lshift__", "__rlshift__", "__rshift__", "__rrshift__",
    "__neg__", "__pos__", "__abs__", "__invert__", "__int__", "__float__", "__complex__",
    "__index__", "__round__", "__trunc__", "__floor__", "__ceil__", "__divmod__", "__rdivmod__",
    "__bytes__", "__fspath__", "__array__", "__enter__", "__exit__", "__length_hint__", "__dir__",
    "__sizeof__",
)  # fmt: skip
_BINARY = frozenset(
    ("__iadd__", "__isub__", "__imul__", "__itruediv__", "__ifloordiv__", "__imod__", "__ipow__",
     "__ilshift__", "__irshift__", "__iand__", "__ixor__", "__ior__", "__imatmul__")
)  # fmt: skip


def _proxy_class(kind: GenericKind) -> type:
    cls = kind.cls
    namespace: dict[str, Any] = {"__slots__": (), "__doc__": cls.__doc__}
    namespace["__new__"] = lambda _, *arguments, **named: cls(*arguments, **named)
    missing = getattr(cls, "__missing__", None) is not None
    for name in (*_READING, *_WRITING):
        if getattr(cls, name, None) is None:
            if name in _BINARY:
                # wrapt would change the wrapped object in place of an operator it lacks
                namespace[name] = _not_implemented
            continue
        if name in _WRITING or name in kind.python or (missing and name == "__getitem__"):
            namespace[name] = _calling(name)
        else:
            namespace[name] = _reading(name)
    made = type(cls.__name__, (GenericProxy,), namespace)
    for abc in (MutableSequence, MutableMapping, MutableSet):
        if issubclass(cls, abc):
            abc.register(made)
    return made


def _not_implemented(self: Any, *_: Any) -> Any:
    return NotImplemented


def _calling(name: str) -> Callable[..., Any]:
    def method(self: Any, *arguments: Any, **named: Any) -> Any:
        return call(self, lambda raw: getattr(type(raw), name)(raw, *arguments, **named))

    method.__name__ = name
    return method


def _reading(name: str) -> Callable[..., Any]:
    def method(self: Any, *arguments: Any, **named: Any) -> Any:
        content = view(self)
        arguments = tuple(
            view(argument) if isinstance(argument, GenericProxy) else argument
            for argument in arguments
        )
        result = getattr(type(content), name)(content, *arguments, **named)
        opaque = getattr(get_node(self).kind, "base", None) is None
        if opaque and name in ("__iter__", "__reversed__"):
            return (_element(self, item) for item in result)
        return _element(self, result) if name == "__getitem__" else result

    method.__name__ = name
    return method


_kinds: weakref.WeakKeyDictionary[type, GenericKind] = weakref.WeakKeyDictionary()


def generic_kind(cls: type) -> GenericKind:
    """Return the kind of instances of a class without a face of its own."""
    found = _kinds.get(cls)
    if found is None:
        found = _kinds[cls] = GenericKind(cls)
    return found
