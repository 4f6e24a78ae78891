"""Instances of ordinary classes: tracked natively, not wrapped.

Theory of operation
-------------------

A stored instance is born as an instance of a generated subclass of its class. Reads of attributes,
methods, properties and `super()` run natively on it; `__setattr__` and `__delattr__` go through
`change`; `__class__` answers the user's class. Its own `__dict__` and slots are the state:

- clean: the committed state.
- contested: the *working* state of the transaction, so that whatever code of the class writes, by
  whatever way, lands in it; the committed one is kept in `node.content`, and the mediated class
  shows it to everybody else.

Code that goes around `__setattr__` (a frozen dataclass that fills a cache with
`object.__setattr__`) is the business of `guards`.
"""

from __future__ import annotations

import contextlib
import copy
import copyreg
import dataclasses
import functools
import weakref
from collections.abc import Callable, Iterable
from types import MemberDescriptorType
from typing import Any

from richstore.codec import containers, records, stream
from richstore.codec.classes import class_to_bytes, upgraded, version_of
from richstore.codec.notes import Notes
from richstore.errors import PlacedError, UpgradeError
from richstore.node import Node
from richstore.nodes.adopt import ATOMS, FEW, Adopter
from richstore.nodes.attributes import (
    MISSING,
    AttributeDict,
    class_attribute,
    delete_attribute,
    get_dict,
    get_state,
    set_attribute,
    set_dict,
    visible_state,
)
from richstore.nodes.base import LOST, is_face, lost, node_of, refuse, set_class
from richstore.nodes.change import change
from richstore.nodes.guards import CachedProperty, guarded_names, guards, keep_writes, refuse_writes
from richstore.nodes.layout import Layout, layout_of
from richstore.nodes.plain import Plain, nodes_in, plain
from richstore.record import Record

__all__ = ["KINDS", "InstanceKind", "Tracked", "kind_of"]

# Attributes that compiled code of their library insists on having as built-in containers.
_RAW = frozenset(("__pydantic_fields_set__",))


class InstanceKind:
    """How the instances of one class are made, copied, encoded and shown.

    Args:
        layout: of the class.

    Raises:
        TypeError: the class does not allow the subclass that tracking needs.
    """

    finds_strays = True

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.cls = cls = layout.cls
        self.standard = layout.standard
        self.storable = False
        self.guarded = bool(guarded_names(layout))
        # a state of the class's own making may depend on more than the attributes we see change
        self.keeps_fragment = layout.standard and layout.getstate is None
        clean = self.clean = _clean_class(layout)
        self.node_slot = vars(clean)["_richstore_slot"]
        clean._richstore_node_ = staticmethod(self.node_slot.__get__)  # type: ignore[attr-defined]
        clean._richstore_kind_ = self  # type: ignore[attr-defined]
        self.mediated = _variant(clean, {"__getattribute__": _mediated_getattribute})
        self.frozen = _variant(
            clean, {"__setattr__": refuse, "__delattr__": refuse, **guards(layout, refuse_writes)}
        )
        native = {"__setattr__": cls.__setattr__, "__delattr__": cls.__delattr__}
        # attributes in a `__dict__` that pickle may fill as it would that of the class itself
        self.is_simple = layout.has_dict and not layout.slots and layout.setstate is None
        if not self.is_simple:
            native["__setstate__"] = _load_state
        if layout.has_dict:
            native["__dict__"] = layout.dict_descriptor
        self.loading = _variant(clean, native)
        # the same for a face that others may hold: they wait until it is filled
        self.reloading = _variant(self.loading, _WAITING)
        # and for one whose state is of an older version of the class, and is to be upgraded first
        self.collecting: type | None = None
        self.defaults = _defaults(layout)

    def new(self, cls: type) -> Any:
        """Return a face without attributes."""
        return object.__new__(cls)

    def make(self, record: Record | None, slot: int, uid: int, cls: type) -> Node:
        """Return a node with a face of the given class."""
        node = Node(record, slot, uid, self)
        node.content = None
        node.face = face = self.new(cls)
        self.node_slot.__set__(face, node)
        return node

    def head(self, node: Node) -> int | type:
        """Return the class, or the code for an object that its own reduction makes."""
        return self.cls if self.standard else records.BUILT

    def adopt(self, adopter: Adopter, original: Any, content: Any) -> Any:
        """Return the face of a new node with the attributes of an instance adopted into it."""
        if not self.storable:
            class_to_bytes(self.cls)
            self.storable = True
        allowed = adopter.record.tracker.classes
        if allowed.strict and self.standard:
            # any other says itself what is stored of it
            allowed.check_storable(self.cls)
        if isinstance(content, Node):
            state = visible_state(original, content)
        else:
            state = self.layout.state(original)
        node = self.make(None, -1, -1, self.clean)
        face = node.face
        adopter.remember(original, face)
        adopter.place(node)
        adopter.later(lambda: self._fill(node, state, adopter))
        return face

    def _fill(self, node: Node, state: dict[str, Any], adopter: Adopter) -> None:
        self.layout.set_state(node.face, self._adopted(state, adopter))
        if not self.keeps_fragment:
            # what the class's own methods refuse to give is refused here, where the place is known;
            # they may look into everything that is inside
            adopter.at_last(lambda: self._reduction(node))

    def _adopted(self, state: dict[str, Any], adopter: Any) -> dict[str, Any]:
        return {name: self._adopted_one(name, value, adopter) for name, value in state.items()}

    def _adopted_one(self, name: str, value: Any, adopter: Any) -> Any:
        if type(value) in ATOMS or name in _RAW:
            return value
        try:
            return adopter(value, f".{name}")
        except PlacedError:
            # what a class leaves out of a state of its own making need not be storable
            if self.keeps_fragment:
                raise
            return value

    # --- transactions ---

    def begin(self, node: Node) -> None:
        """Keep the committed state aside; the instance itself becomes the working copy."""
        face = node.face
        node.content = self.layout.state(face)
        for name in _RAW:
            if name in self.layout.slots and name in node.content:
                self.layout.set_one(face, name, copy.copy(node.content[name]))
        set_class(face, self.mediated)

    def install(self, node: Node) -> None:
        """Let the working state be the committed one."""
        self.settle(node)
        node.content = None

    def discard(self, node: Node) -> None:
        """Put the committed state back."""
        if node.content is not None:
            self.layout.set_state(node.face, node.content)
        self.settle(node)
        node.content = None

    def save(self, node: Node) -> Any:
        """Return a copy of the working state."""
        return self.layout.state(node.face)

    def restore(self, node: Node, saved: Any) -> None:
        """Put a saved state back."""
        self.layout.set_state(node.face, saved)

    # --- encoding ---

    def scan(self, node: Node, adopt: Callable[..., Any]) -> list[Node]:
        """Return the nodes that the attributes refer to; adopts what got there past `change`."""
        face = node.face
        layout = self.layout
        kids: list[Node] = []
        plain_dict = layout.has_dict and not layout.slots
        state = layout.dict_descriptor.__get__(face) if plain_dict else layout.state(face)
        if ATOMS.issuperset(map(type, state.values())) and self.keeps_fragment:
            return kids
        for name, value in list(state.items()):
            if type(value) in ATOMS:
                continue
            if not is_face(value):
                adopted = self._adopted_one(name, value, adopt)
                if adopted is not value:
                    layout.set_one(face, name, adopted)
                    value = adopted
            kids += nodes_in(value)
        if not self.keeps_fragment:
            found = map(node_of, stream.faces_in(self._reduction(node), is_face))
            kids += [kid for kid in found if kid is not None and kid is not node]
        return kids

    def is_flat(self, node: Node) -> bool:
        """Tell whether it is quickly seen that the attributes refer to no nodes."""
        if not self.is_simple or not self.keeps_fragment:
            return False
        state = self.layout.dict_descriptor.__get__(node.face)
        return len(state) <= FEW and ATOMS.issuperset(map(type, state.values()))

    def _reduction(self, node: Node) -> Any:
        """Return what the class itself wants to be pickled of an instance.

        Raises:
            EncodingError: its methods fail.
        """
        try:
            return self._reduce(node.face)
        except PlacedError:
            raise
        except Exception as error:
            raise stream.unstorable(node.face, error) from error

    def _reduce(self, face: Any) -> Any:
        if self.standard:
            if self.layout.getstate is None:
                return self.layout.pickled_state(face)
            return self.layout.getstate(face)
        # the methods of the user's class run on the face; ours would give a plain copy
        cls: Any = self.cls
        layout = self.layout
        if cls in copyreg.dispatch_table:
            return copyreg.dispatch_table[cls](face)
        if layout.own_reduce and not layout.own_reduce_ex:
            return cls.__reduce__(face)
        if layout.own_reduce_ex:
            return cls.__reduce_ex__(face, 5)
        # the default one would ask the generated class how it is pickled
        state = layout.pickled_state(face) if layout.getstate is None else layout.getstate(face)
        if hasattr(cls, "__getnewargs_ex__"):
            arguments, named = cls.__getnewargs_ex__(face)
            return copyreg.__newobj_ex__, (cls, arguments, named), state  # type: ignore[attr-defined]
        arguments = cls.__getnewargs__(face) if hasattr(cls, "__getnewargs__") else ()
        return copyreg.__newobj__, (cls, *arguments), state  # type: ignore[attr-defined]

    def hashed(self, node: Node) -> list[Node]:
        """Return nothing: an instance hashes none of its attributes when it is read."""
        return []

    def names(self, node: Node) -> Iterable[Any]:
        """Return the names of the attributes."""
        layout = self.layout
        own = layout.dict_descriptor.__get__(node.face) if layout.has_dict else ()
        return [*own, *layout.slots] if layout.slots else own

    def encode(self, node: Node, pickler: stream.RecordPickler, made: list[bytes]) -> bytes:
        """Return the fragment of the instance's state."""
        if self.keeps_fragment:
            state = self.layout.pickled_state(node.face)
            return stream.object_fragment(node.slot, pickler.body(state))
        if self.standard:
            return stream.object_fragment(node.slot, pickler.body(self._reduction(node)))
        parts = with_version(self.cls, self._reduction(node))
        make, fill = stream.built_fragment(node.slot, pickler, parts)
        return make + fill

    # --- reading records ---

    def expire(self, node: Node) -> None:
        """Make the face load the record before its next use."""
        set_class(node.face, self.mediated)

    def settle(self, node: Node) -> None:
        """Make the face show its own attributes again."""
        set_class(node.face, self.clean)
        if self.guarded:
            # what the guards compare with
            node.work = self.layout.state(node.face)

    def lose(self, node: Node) -> None:
        """Let a face that has left the store before it was read say so when it is used."""
        node.content = LOST
        set_class(node.face, self.mediated)

    def containers(self, node: Node) -> list[Any]:
        """Return the face, ready to be given its state: emptied, or a `__dict__` beside its own."""
        face = node.face
        if type(face) is self.mediated:
            set_class(face, self.reloading)
            if self.is_simple:
                node.work = {}
                return [face]
        else:
            set_class(face, self.loading)
        if not self.is_simple or self.layout.dict_descriptor.__get__(face):
            self.layout.set_state(face, {})
        return [face]

    def collect(self, node: Node) -> None:
        """Let the state that is about to be read, of an older version, be kept for `upgrade`."""
        if self.collecting is None:
            self.collecting = _variant(self.reloading, {"__setstate__": _collect_state})
        set_class(node.face, self.collecting)
        node.work = None

    def outdated(self, node: Node, notes: Notes) -> tuple[int, Any] | None:
        """Return version and state of a node that the stream has made; None: it is current."""
        raw = node.work
        pending = notes.pending.get(id(raw))
        if pending is not None:
            return pending[1:]
        if not version_of(self.cls) or id(raw) in notes.current or self.standard:
            return None
        before, after = self.layout.state(node.face), self.layout.state(raw)
        if before.keys() == after.keys() and all(before[name] is after[name] for name in after):
            # its arguments said all
            return None
        # written when the class had no version, and filled by pickle itself
        node.work = None
        return 0, self.layout.pickled_state(raw)

    def upgrade(self, node: Node, version: int, state: Any) -> None:
        """Give an instance the state that its class makes of an older one."""
        layout = self.layout
        state = upgraded(self.cls, state, version)
        set_class(node.face, self.reloading)
        # what its arguments have made of it
        made = {} if self.standard or node.work is None else layout.state(node.work)
        node.work = None
        layout.set_state(node.face, made)
        try:
            if layout.setstate is not None:
                layout.setstate(node.face, state)
            else:
                layout.unpickle_state(node.face, state)
        except (TypeError, AttributeError, KeyError) as error:
            raise UpgradeError(
                f"the state that {self.cls.__qualname__}.upgrade returned does not fit the class "
                f"({type(error).__name__}: {error})"
            ) from error
        record = node.record
        if record is not None:
            adopter = Adopter(None, record)
            layout.set_state(node.face, self._adopted(layout.state(node.face), adopter))

    def replace(self, node: Node, change: Callable[[Any], Any]) -> None:
        """Replace what a snapshot's instance holds."""
        state = self.layout.state(node.face)
        self.layout.set_state(node.face, {name: change(one) for name, one in state.items()})

    def loaded(self, node: Node) -> None:
        """Let the face be clean; adopt what the class's own `__setstate__` made."""
        record = node.record
        is_beside = self.standard and self.is_simple and node.work is not None
        if type(node.face) is self.reloading and is_beside:
            self.layout.set_state(node.face, node.work)
            node.work = None
        if not self.standard and node.work is not None:
            # what the stream has filled since `take` was told
            self.layout.set_state(node.face, self.layout.state(node.work))
            node.work = None
        if not self.keeps_fragment and record is not None:
            adopter = Adopter(None, record)
            self.layout.set_state(node.face, self._adopted(self.layout.state(node.face), adopter))
        if self.defaults:
            self._add_defaults(node)
        self.settle(node)

    def _add_defaults(self, node: Node) -> None:
        """Give an instance the fields that its dataclass did not have when it was written."""
        known = self.layout.state(node.face)
        for name, make in self.defaults.items():
            if name not in known:
                value = make()
                if node.record is not None:
                    value = self._adopted_one(name, value, Adopter(None, node.record))
                self.layout.set_one(node.face, name, value)

    def take(self, node: Node, raw: Any) -> None:
        """Take over the attributes of a raw instance that the class's own reduction made."""
        face = node.face
        set_class(face, self.reloading if type(face) is self.mediated else self.loading)
        # its state may come later in the stream
        node.work = raw
        self.layout.set_state(face, self.layout.state(raw))

    # --- looking inside ---

    def items(self, node: Node) -> list[tuple[str, Any]]:
        """Return the attributes, each with how Python would write the way to it."""
        return [(f".{name}", value) for name, value in visible_state(node.face, node).items()]

    def plain(self, node: Node, copies: Plain) -> Any:
        """Return an instance of the user's class with plain attributes."""
        face = node.face
        layout = self.layout
        if not self.standard:
            made = rebuilt(copies.complete(tuple(self._reduction(node))))
            copies.keep(face, made)
            return made
        made = object.__new__(self.cls)
        copies.keep(face, made)
        if layout.getstate is None and layout.setstate is None:
            state = visible_state(face, node)

            def fill() -> None:
                layout.set_state(made, copies.as_state(state))

            copies.later(fill)
            return made
        state = copies.complete(self._reduction(node))
        if layout.setstate is not None:
            layout.setstate(made, state)
        else:
            layout.unpickle_state(made, state)
        return made


def _defaults(layout: Layout) -> dict[str, Callable[[], Any]]:
    """Return what makes the defaults of a dataclass that are no attributes of the class."""
    cls: Any = layout.cls
    setstate = layout.setstate
    if not dataclasses.is_dataclass(cls) or (
        setstate is not None and setstate.__module__ != "dataclasses"
    ):
        return {}
    found: dict[str, Callable[[], Any]] = {}
    for field in dataclasses.fields(cls):
        if field.default_factory is not dataclasses.MISSING:
            found[field.name] = field.default_factory
        elif field.default is not dataclasses.MISSING and field.name in layout.slots:
            found[field.name] = functools.partial(_same, field.default)
    return found


def _same(value: Any) -> Any:
    return value


def with_version(cls: Any, parts: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return a reduction whose state says the version of the class, if it has one."""
    version = version_of(cls)
    function, arguments, state, items, pairs, setter = (*parts, *(None,) * 4)[:6]
    if not version or state is None or setter is not None:
        return parts
    return function, arguments, (version, state), items, pairs, containers.build


def rebuilt(parts: tuple[Any, ...]) -> Any:
    """Return the object that a reduction describes, as unpickling would make it."""
    function, arguments, state, items, pairs, setter = (*parts, *(None,) * 4)[:6]
    made = function(*arguments)
    for item in items or ():
        made.append(item)
    for key, value in pairs or ():
        made[key] = value
    if state is not None and setter is not None:
        setter(made, state)
    elif state is not None and hasattr(made, "__setstate__"):
        made.__setstate__(state)
    elif state is not None:
        layout = layout_of(type(made))
        if layout is not None:
            layout.unpickle_state(made, state)
        else:
            made.__dict__.update(state)
    return made


# --- the generated classes
# --------------------------------------------------------------------------


class Tracked:
    """What the generated subclasses put in front of the user's class."""

    __slots__ = ()

    def __new__(cls, *arguments: Any, **named: Any) -> Any:
        """Return a plain instance: `type(x)(…)` is how some code makes another one."""
        return vars(cls)["__richstore_class__"](*arguments, **named)

    def __init_subclass__(cls, **arguments: Any) -> None:
        """Keep the user's own `__init_subclass__` from seeing the generated classes."""

    def __setattr__(self, name: str, value: Any) -> None:
        change(self, set_attribute, name, value)

    def __delattr__(self, name: str) -> None:
        change(self, delete_attribute, name)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return plain(self).__reduce_ex__(protocol)

    def __reduce__(self) -> Any:
        return plain(self).__reduce__()

    def __copy__(self) -> Any:
        node = node_of(self)
        assert node is not None
        kind: Any = node.kind
        made = object.__new__(kind.cls)
        kind.layout.set_state(made, visible_state(self, node))
        return made

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return Plain(memo)(self)


def _clean_class(layout: Layout) -> type:
    cls = layout.cls
    namespace: dict[str, Any] = {
        "__slots__": ("_richstore_slot",),
        "__module__": cls.__module__,
        "__qualname__": cls.__qualname__,
        "__doc__": cls.__doc__,
        "__class__": property(lambda self: cls, _set_class_refused),
        "__richstore_class__": cls,
        # the default __getstate__ asks for this list; ours is not part of the state
        "__slotnames__": copyreg._slotnames(cls),  # type: ignore[attr-defined]
    }
    if layout.has_dict:
        namespace["__dict__"] = property(get_dict, set_dict)
    for name in ("__copy__", "__deepcopy__"):
        if hasattr(cls, name):
            namespace[name] = _on_plain(name)
    namespace |= guards(layout, keep_writes)
    namespace |= {
        name: CachedProperty(found)
        for base in reversed(cls.__mro__)
        for name, found in vars(base).items()
        if isinstance(found, functools.cached_property)
    }
    if layout.getstate is None:
        namespace["__getstate__"] = get_state
    # past the metaclass's own __new__: this class is not one that the user defined
    return type.__new__(type(cls), cls.__name__, (Tracked, cls), namespace)


def _variant(clean: type, namespace: dict[str, Any]) -> type:
    cls = vars(clean)["__richstore_class__"]
    namespace = {
        "__slots__": (),
        "__module__": cls.__module__,
        "__qualname__": cls.__qualname__,
        "__doc__": cls.__doc__,
        "__richstore_class__": cls,
        "__slotnames__": vars(clean)["__slotnames__"],
        **namespace,
    }
    return type.__new__(type(clean), cls.__name__, (clean,), namespace)


def _set_class_refused(self: Any, cls: type) -> None:
    raise TypeError(
        "the class of a stored instance cannot be switched; assign an instance of the other class"
    )


def _on_plain(name: str) -> Callable[..., Any]:
    def method(self: Any, *arguments: Any) -> Any:
        return getattr(plain(self), name)(*arguments)

    return method


def _load_state(self: Any, state: Any) -> None:
    """Take the pickled state while a record is being read."""
    kind: InstanceKind = type(self)._richstore_kind_
    if kind.layout.setstate is not None:
        kind.layout.setstate(self, state)
    else:
        kind.layout.unpickle_state(self, state)


def _collect_state(self: Any, state: Any) -> None:
    """Keep a state of an older version while a record is being read."""
    node: Any = node_of(self)
    node.work = state


def _is_filling(self: Any, node: Node) -> bool:
    """Tell whether the calling thread, which has locked the tracker, fills an instance."""
    kind: Any = node.kind
    return type(self) is kind.reloading or type(self) is kind.collecting


def _waiting_getattribute(self: Any, name: str) -> Any:
    kind: InstanceKind = type(self)._richstore_kind_
    cls: Any = kind.cls
    node: Node = kind.node_slot.__get__(self)
    with _lock_of(node):
        if _is_filling(self, node):
            if name == "__dict__" and kind.is_simple:
                own = kind.layout.dict_descriptor.__get__(self)
                return own if node.work is None else node.work
            return cls.__getattribute__(self, name)
    return getattr(self, name)


def _waiting_setattr(self: Any, name: str, value: Any) -> None:
    node: Any = node_of(self)
    with _lock_of(node):
        if _is_filling(self, node):
            node.kind.cls.__setattr__(self, name, value)
            return
    setattr(self, name, value)


def _waiting_delattr(self: Any, name: str) -> None:
    node: Any = node_of(self)
    with _lock_of(node):
        if _is_filling(self, node):
            node.kind.cls.__delattr__(self, name)
            return
    delattr(self, name)


def _lock_of(node: Node) -> Any:
    """Return the lock under which the record of a node is loaded."""
    # nobody else has one of a snapshot yet
    return contextlib.nullcontext() if node.home is None else node.home.tracker.lock


_WAITING = {
    "__getattribute__": _waiting_getattribute,
    "__setattr__": _waiting_setattr,
    "__delattr__": _waiting_delattr,
}


def _mediated_getattribute(self: Any, name: str) -> Any:
    kind: InstanceKind = type(self)._richstore_kind_
    cls: Any = kind.cls
    node: Node = kind.node_slot.__get__(self)
    transaction = node.tx
    if transaction is None:
        record = node.record
        if record is None:
            if node.content is LOST and name != "__class__":
                raise lost(node)
            return cls.__getattribute__(self, name)
        if record.stale:
            record.tracker.reload(record)
            if node.content is LOST:
                return getattr(self, name)
        if kind.is_simple or _runs_code(self, name):
            return cls.__getattribute__(self, name)
        with record.tracker.lock:
            # nobody empties it now to load it once more
            if not record.stale:
                return cls.__getattribute__(self, name)
        return getattr(self, name)
    committed = node.content
    if committed is None or transaction.done or transaction.is_here() or name == "__class__":
        # a method of the generated class, or of the user's one
        return cls.__getattribute__(self, name)
    if name == "__dict__" and kind.layout.has_dict:
        slots = kind.layout.slots
        return AttributeDict(self, {k: v for k, v in committed.items() if k not in slots})
    found = class_attribute(type(self), name)
    if type(found) is not MemberDescriptorType:
        if found is not MISSING and hasattr(type(found), "__set__"):
            return cls.__getattribute__(self, name)
        if name not in committed and found is not MISSING:
            get = getattr(type(found), "__get__", None)
            return found if get is None else get(found, self, cls)
    if name in committed:
        return committed[name]
    raise AttributeError(f"'{cls.__name__}' object has no attribute '{name}'", name=name, obj=self)


def _runs_code(self: Any, name: str) -> bool:
    """Tell whether reading an attribute may run code of the class, which is to have no locks."""
    found = class_attribute(type(self), name)
    return found is not MISSING and type(found) is not MemberDescriptorType


# --- kinds by class
# -----------------------------------------------------------------------------------

# By metaclass, kinds of their own; filled by `nodes.missing`.
KINDS: dict[type, type[InstanceKind]] = {}
_kinds: weakref.WeakKeyDictionary[type, InstanceKind] = weakref.WeakKeyDictionary()


def kind_of(layout: Layout) -> InstanceKind:
    """Return the kind of an ordinary class's instances.

    Raises:
        TypeError: the class does not allow the subclass that tracking needs.
    """
    found = _kinds.get(layout.cls)
    if found is None:
        made = KINDS.get(type(layout.cls), InstanceKind)
        found = _kinds[layout.cls] = made(layout)
    return found
