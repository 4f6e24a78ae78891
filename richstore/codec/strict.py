"""The strict reader: runs the opcodes of records, and calls nothing that was not allowed.

Theory of operation
-------------------

A machine of our own for the opcodes that our writer emits; every other one is refused. What it
calls is either one of the constructors of `standard`, or something that the policy has found
(*allowed*). What it fills is either a built-in container that this very stream made, or an object
that it made by something allowed, or the face of an instance whose class is allowed; attributes are
put past `__setattr__`, and never a `__class__` or a `__dict__`.

Memory and time stay in proportion to the stream. What is read takes at least as many bytes there;
what is *copied* (a bytearray from bytes that were read once) or hashed counts, and there is a limit
to the sum. A tuple counts as all that it holds, for it is hashed anew each time, and may not be
nested so deep that hashing it in C would overflow the stack. Keys of one container with one hash
are limited as well: each new one is compared with all of them.

The containers of a record are put into the memo before, as the *prelude* of `records` does it.
"""

from __future__ import annotations

import struct
import types
import uuid
import zoneinfo
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

from richstore.codec import records, standard
from richstore.codec.policy import StrictPolicy
from richstore.errors import CorruptionError, RichStoreError

__all__ = ["check_parts", "class_of", "decode", "is_standard", "load", "shape"]

# What may be copied and hashed: so many items or bytes, and so many more for each byte read.
_ALLOWANCE = 1_000_000
_FACTOR = 64
# How deep tuples and the like may be inside each other, and pickles inside pickles.
_DEPTH = 1000
_NESTED = 8
# Keys with one hash that a container may have.
_COLLIDING = 64
# Slots of a record: what a change does costs memory in proportion to the highest.
_SLOTS = 1 << 24
# Types whose hash is known to cost little, and not to be chosen by who writes them.
_CHEAP = frozenset((str, bytes, bool, type(None)))

_FLOAT = struct.Struct(">d")
_INT = struct.Struct("<i")


class _Stop(Exception):
    """The stream has ended."""


class Reader:
    """Runs one stream.

    Args:
        data: the opcodes.
        policy: says what else than the standard types may be called.
        memo: what is in the memo before.
        fillable: ids of the faces that may be given a state.
        wrap: makes the face of a built node.
        depth: how many pickles this one is inside of.
    """

    def __init__(
        self,
        data: bytes,
        policy: StrictPolicy,
        memo: dict[int, Any],
        fillable: frozenset[int] = frozenset(),
        wrap: Callable[[int, Any], Any] | None = None,
        depth: int = 0,
    ) -> None:
        self.data = data
        self.at = 0
        self.policy = policy
        self.memo = memo
        self.fillable = fillable
        self.wrap = wrap
        self.depth = depth
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.left = _ALLOWANCE + _FACTOR * len(data)
        # all by id, with the object, so that nothing else takes its id meanwhile: what the policy
        # has allowed, what was made here, what calls have returned, and nested immutables with
        # their weight and depth
        self.permitted: dict[int, Any] = {}
        self.made: dict[int, Any] = {}
        self.foreign: dict[int, Any] = {}
        self.nested: dict[int, tuple[Any, int, int]] = {}
        # of containers with keys whose hashes can be chosen: how often each hash occurs
        self.hashes: dict[int, tuple[Any, Counter[int]]] = {}
        self.users_error: BaseException | None = None

    def run(self) -> Any:
        """Return the value.

        Raises:
            UntrustedClassError: it names what is not allowed.
            CorruptionError: it is nothing that our writer has written.
        """
        data, handlers = self.data, self.handlers
        size = len(data)
        try:
            while self.at < size:
                handler = handlers[data[self.at]]
                self.at += 1
                handler(self)
        except _Stop:
            if len(self.stack) == 1 and not self.marks:
                return self.stack[0]
        except (RichStoreError, MemoryError):
            raise
        except Exception as error:
            if error is self.users_error:
                raise
            raise CorruptionError(
                f"it has content that was never written by richstore, at byte {self.at} "
                f"({type(error).__name__}: {str(error)[:200]})"
            ) from error
        raise CorruptionError("its content ends too early, or too late")

    # --- what is read

    def take(self, size: int) -> bytes:
        """Return the next bytes."""
        at = self.at
        end = self.at = at + size
        if size < 0 or end > len(self.data):
            raise ValueError("it ends too early")
        return self.data[at:end]

    def number(self, size: int) -> int:
        """Return the next number."""
        return int.from_bytes(self.take(size), "little")

    def to_mark(self) -> list[Any]:
        """Return what is on the stack above the last mark."""
        items = self.stack
        self.stack = self.marks.pop()
        return items

    # --- what is limited

    def charge(self, amount: int) -> None:
        """Count what is copied, or hashed."""
        self.left -= amount
        if self.left < 0:
            raise ValueError("it takes more than is in proportion to its size")

    def weigh(self, value: Any) -> tuple[int, int]:
        """Return how many items an immutable value has, those of its items included, and depth."""
        kind = type(value)
        if kind is tuple or kind is frozenset:
            known = self.nested.get(id(value))
            return (len(value) + 1, 1) if known is None else known[1:]
        if kind is int:
            return 1 + (value.bit_length() >> 6), 0
        known = self.nested.get(id(value)) if kind is types.GenericAlias else None
        return (1, 0) if known is None else known[1:]

    def nest(self, value: Any, items: Any) -> Any:
        """Take note of a new immutable that may hold others; return it."""
        for one in items:
            if type(one) in _NESTING:
                break
        else:
            return value
        weight, depth = 1, 0
        for one in items:
            inner, below = self.weigh(one)
            weight += inner
            depth = max(depth, below)
        if depth >= _DEPTH:
            raise ValueError("tuples are nested too deep")
        if weight > _ALLOWANCE + _FACTOR * len(self.data):
            raise ValueError("it takes more than is in proportion to its size")
        self.nested[id(value)] = value, weight, depth + 1
        return value

    def charge_keys(self, keys: Any) -> None:
        """Count what hashing some keys costs."""
        for key in keys:
            if type(key) not in _CHEAP:
                self.charge(self.weigh(key)[0])

    def hashed(self, container: Any, keys: Any) -> bool:
        """Count what hashing keys of a container costs, and how many of them are alike.

        Returns:
            Whether code of users may run when they are put into the container.
        """
        if _CHEAP.issuperset(map(type, keys)):
            return False
        is_users = False
        known = self.hashes.get(id(container))
        if known is None:
            known = self.hashes[id(container)] = container, Counter()
        counts = known[1]
        for key in keys:
            kind = type(key)
            if kind in _CHEAP or (kind is int and -_PRIME < key < _PRIME):
                continue
            self.charge(self.weigh(key)[0])
            is_known = standard.is_value_class(kind)
            is_users = is_users or not is_known
            one = hash(key) if is_known else self.user(hash, key)
            counts[one] += 1
            if counts[one] > _COLLIDING:
                raise ValueError("too many keys have the same hash")
        return is_users

    # --- what is called

    def find(self, module: Any, qualname: Any) -> Any:
        """Return what a name stands for."""
        if type(module) is not str or type(qualname) is not str:
            raise ValueError("a name is not a text")
        if module == "richstore." and qualname == "wrap":
            return _WRAP
        found = standard.GLOBALS.get((module, qualname))
        if found is None:
            found = self.user(self.policy.find, module, qualname)
            self.permitted[id(found)] = found
        return found

    def is_allowed(self, thing: Any) -> bool:
        """Tell whether the policy has allowed a class or function."""
        return id(thing) in self.permitted

    def is_made(self, value: Any) -> bool:
        """Tell whether an object was made by this very stream."""
        return id(value) in self.made

    def user(self, function: Any, *arguments: Any) -> Any:
        """Call what the policy allows; its errors are its own."""
        try:
            return function(*arguments)
        except Exception as error:
            self.users_error = error
            raise

    def call(self, function: Any, arguments: Any) -> Any:
        """Return what calling something gives."""
        if type(arguments) is not tuple:
            raise ValueError("arguments are not a tuple")
        constructor = standard.CALLS.get(id(function))
        if constructor is not None:
            made = constructor(self, arguments)
            self.made[id(made)] = made
            if type(made) is types.GenericAlias:
                self.nest(made, made.__args__)
            return made
        if function is _WRAP:
            return self.wrapped(*arguments)
        if id(function) not in self.permitted:
            raise self.refuse(function)
        self.check_iterables(function, arguments)
        made = self.user(function, *arguments)
        self.made[id(made)] = self.foreign[id(made)] = made
        return made

    def refuse(self, function: Any) -> Exception:
        """Return the error for something that is not to be called."""
        name = getattr(function, "__qualname__", None)
        if isinstance(function, type) and type(name) is str:
            return self.policy.refusal(f"{function.__module__}.{name}", "was not called")
        return ValueError("it calls what is no class or function")

    def check_iterables(self, cls: Any, arguments: tuple[Any, ...]) -> None:
        """Refuse arguments of which subclasses of built-in types would be made larger than they
        are: a range, or a number of bytes.
        """
        if isinstance(cls, type) and issubclass(cls, _SIZED):
            kinds = set(map(type, arguments))
            if range in kinds or (int in kinds and issubclass(cls, (bytes, bytearray))):
                raise ValueError("an argument is larger than what is stored of it")
            self.charge(sum(len(one) for one in arguments if type(one) in _COPIED))

    def new(self, cls: Any, arguments: Any, named: Any) -> Any:
        """Return a new object of a class, as `copyreg.__newobj_ex__` does."""
        if type(arguments) is not tuple or type(named) is not dict:
            raise ValueError("arguments are not a tuple and a dict")
        if id(cls) in self.permitted and isinstance(cls, type):
            self.check_iterables(cls, (*arguments, *named.values()))
            function: Any = cls.__new__
            made = self.user(lambda: function(cls, *arguments, **named))
        elif cls in standard.NEW and not arguments and not named:
            made = object.__new__(cls)
            if cls is uuid.UUID:
                # its number follows; without it no method of it would work
                _set_uuid(made, {"int": 0})
        else:
            raise self.refuse(cls)
        self.made[id(made)] = made
        return made

    def wrapped(self, slot: Any, raw: Any) -> Any:
        """Return the face of an object that the stream made."""
        if self.wrap is None or type(slot) is not int or id(raw) not in self.made:
            raise ValueError("it makes a node of what is none")
        return self.wrap(slot, raw)

    def inner(self, blob: bytes) -> Any:
        """Read a pickle inside this one."""
        if self.depth >= _NESTED:
            raise ValueError("pickles are nested too deep")
        # what it may take is counted here
        self.charge(_FACTOR * len(blob))
        return type(self)(blob, self.policy, {}, depth=self.depth + 1).run()

    # --- what is filled

    def extend(self, target: Any, items: list[Any]) -> None:
        """Append items."""
        kind = type(target)
        if (kind is list and id(target) not in self.foreign) or (
            kind is deque and id(target) in self.made
        ):
            target.extend(items)
        elif id(target) in self.made and kind not in _BUILTIN:
            own: Any = kind
            if hasattr(own, "extend"):
                self.user(own.extend, target, items)
            else:
                for one in items:
                    self.user(own.append, target, one)
        else:
            raise ValueError("it appends to what is no list")

    def put(self, target: Any, items: list[Any]) -> None:
        """Set items."""
        kind = type(target)
        keys = items[::2]
        own: Any = kind
        if len(items) % 2:
            raise ValueError("a key has no value")
        if (kind is dict and id(target) not in self.foreign) or (
            kind in (OrderedDict, defaultdict) and id(target) in self.made
        ):
            pairs = zip(keys, items[1::2], strict=True)
            if self.hashed(target, keys):
                self.user(_put_all, target, pairs)
            else:
                _put_all(target, pairs)
        elif id(target) in self.made and kind not in _BUILTIN:
            for key, value in zip(keys, items[1::2], strict=True):
                self.user(own.__setitem__, target, key, value)
        else:
            raise ValueError("it sets items of what is no dict")

    def add(self, target: Any, items: list[Any]) -> None:
        """Add elements."""
        if type(target) is set and id(target) not in self.foreign:
            if self.hashed(target, items):
                self.user(target.update, items)
            else:
                target.update(items)
        elif id(target) in self.made and isinstance(target, set):
            for one in items:
                self.user(type(target).add, target, one)
        else:
            raise ValueError("it adds elements to what is no set")

    def build(self, target: Any, state: Any) -> None:
        """Give an object its state."""
        kind = type(target)
        if id(target) in self.fillable or (id(target) in self.made and kind not in _BUILTIN):
            own: Any = kind
            if kind is uuid.UUID:
                _set_uuid(target, state)
                return
            # of the class, for an attribute of that name could be anything
            setter = getattr(own, "__setstate__", None)
            if setter is not None and kind is not types.SimpleNamespace and not _is_error(kind):
                self.user(setter, target, state)
            elif type(state) is tuple and len(state) == 2:
                for one in state:
                    self.set_attributes(target, one)
            else:
                self.set_attributes(target, state)
            return
        raise ValueError("it gives a state to what has none")

    def set_attributes(self, target: Any, state: Any) -> None:
        """Give an object attributes past its class's own `__setattr__`, and no other class."""
        if state is None:
            return
        if type(state) is not dict or not _TEXT.issuperset(map(type, state)):
            raise ValueError("a state has no names")
        if not _LOOKED_UP.isdisjoint(state):
            raise ValueError("a state has what belongs to a class")
        self.charge(8 * len(state))
        rest = state
        slots = _slots(type(target))
        if slots:
            rest = {}
            for name, value in state.items():
                if name in slots:
                    slots[name].__set__(target, value)
                else:
                    rest[name] = value
        elif _is_error(type(target)):
            rest = dict(state)
            for name in _OF_ERRORS.intersection(state):
                if type(state[name]) in (str, type(None)) and hasattr(type(target), name):
                    setattr(target, name, rest.pop(name))
        if rest:
            target.__dict__.update(rest)

    handlers: ClassVar[list[Callable[[Reader], Any]]] = []


def _put_all(target: Any, pairs: Iterable[tuple[Any, Any]]) -> None:
    for key, value in pairs:
        target[key] = value


def _slots(cls: type) -> dict[str, Any]:
    return {
        name: found
        for base in reversed(cls.__mro__)
        for name, found in vars(base).items()
        if type(found) is types.MemberDescriptorType and isinstance(base, type) and _is_heap(base)
    }


def _is_heap(cls: type) -> bool:
    """Tell whether a class was made by a class statement."""
    return bool(cls.__flags__ & 1 << 9)


def _is_error(cls: type) -> bool:
    return issubclass(cls, BaseException)


def _set_uuid(target: uuid.UUID, state: Any) -> None:
    number = state["int"]
    safe = uuid.SafeUUID(state["is_safe"]) if "is_safe" in state else uuid.SafeUUID.unknown
    if type(number) is not int or not 0 <= number < 1 << 128:
        raise ValueError("a UUID has 16 bytes")
    object.__setattr__(target, "int", number)
    object.__setattr__(target, "is_safe", safe)


# What pickle and copy look for on instances, before their class.
_LOOKED_UP = frozenset(
    (
        "__class__", "__dict__", "__reduce__", "__reduce_ex__", "__getstate__", "__setstate__",
        "__getnewargs__", "__getnewargs_ex__", "__copy__", "__deepcopy__",
    )
)  # fmt: skip
# Attributes of exceptions that are no part of their arguments.
_OF_ERRORS = frozenset(("name", "path"))
_TEXT = frozenset((str,))
_NESTING = frozenset((tuple, frozenset, types.GenericAlias))
_BUILTIN = frozenset(
    (
        int, float, bool, complex, str, bytes, bytearray, list, tuple, dict, set, frozenset, range,
        slice, type(None), type, deque, OrderedDict, defaultdict, standard.Function,
    )
)  # fmt: skip
_SIZED = (bytes, bytearray, list, tuple, dict, set, frozenset, str, deque)
_COPIED = (bytes, bytearray, list, tuple, dict, set, frozenset, str)
# Integers less than this in size have hashes of their own.
_PRIME = (1 << 61) - 1
_WRAP = standard.Function("richstore.wrap")


# --- the opcodes


def _refused(reader: Reader) -> None:
    raise ValueError(f"the opcode {reader.data[reader.at - 1]:#x} is never written")


def _constant(value: Any) -> Callable[[Reader], None]:
    return lambda reader: reader.stack.append(value)


def _new(kind: Any) -> Callable[[Reader], None]:
    return lambda reader: reader.stack.append(kind())


def _unsigned(size: int) -> Callable[[Reader], None]:
    return lambda reader: reader.stack.append(reader.number(size))


def _long(size: int) -> Callable[[Reader], None]:
    def read(reader: Reader) -> None:
        stored = reader.take(reader.number(size))
        reader.stack.append(int.from_bytes(stored, "little", signed=True))

    return read


def _text(size: int) -> Callable[[Reader], None]:
    def read(reader: Reader) -> None:
        data, at = reader.data, reader.at
        start = at + size
        end = start + (data[at] if size == 1 else int.from_bytes(data[at:start], "little"))
        if end > len(data):
            raise ValueError("it ends too early")
        reader.at = end
        reader.stack.append(str(data[start:end], "utf-8", "surrogatepass"))

    return read


def _raw(size: int, kind: Any = bytes) -> Callable[[Reader], None]:
    return lambda reader: reader.stack.append(kind(reader.take(reader.number(size))))


def _get(size: int) -> Callable[[Reader], None]:
    return lambda reader: reader.stack.append(reader.memo[reader.number(size)])


def _get1(reader: Reader) -> None:
    at = reader.at
    reader.at = at + 1
    reader.stack.append(reader.memo[reader.data[at]])


def _put(size: int) -> Callable[[Reader], None]:
    def read(reader: Reader) -> None:
        reader.memo[reader.number(size)] = reader.stack[-1]

    return read


def _memoize(reader: Reader) -> None:
    reader.memo[len(reader.memo)] = reader.stack[-1]


def _mark(reader: Reader) -> None:
    reader.marks.append(reader.stack)
    reader.stack = []


def _pop(reader: Reader) -> None:
    if reader.stack:
        reader.stack.pop()
    else:
        reader.stack = reader.marks.pop()


def _pop_mark(reader: Reader) -> None:
    reader.to_mark()


def _tuple(reader: Reader) -> None:
    items = tuple(reader.to_mark())
    reader.stack.append(reader.nest(items, items))


def _tuple_of(count: int) -> Callable[[Reader], None]:
    def read(reader: Reader) -> None:
        stack = reader.stack
        if len(stack) < count:
            raise IndexError("a tuple is incomplete")
        items = tuple(stack[-count:])
        stack[-count:] = [reader.nest(items, items)]

    return read


def _frozenset(reader: Reader) -> None:
    items = reader.to_mark()
    is_users = reader.hashed(items, items)
    made = reader.user(frozenset, items) if is_users else frozenset(items)
    reader.hashes.pop(id(items), None)
    reader.stack.append(reader.nest(made, items))


def _append(reader: Reader) -> None:
    item = reader.stack.pop()
    reader.extend(reader.stack[-1], [item])


def _appends(reader: Reader) -> None:
    items = reader.to_mark()
    reader.extend(reader.stack[-1], items)


def _set_item(reader: Reader) -> None:
    value = reader.stack.pop()
    key = reader.stack.pop()
    reader.put(reader.stack[-1], [key, value])


def _set_items(reader: Reader) -> None:
    items = reader.to_mark()
    reader.put(reader.stack[-1], items)


def _add_items(reader: Reader) -> None:
    items = reader.to_mark()
    reader.add(reader.stack[-1], items)


def _global(reader: Reader) -> None:
    qualname = reader.stack.pop()
    reader.stack.append(reader.find(reader.stack.pop(), qualname))


def _reduce(reader: Reader) -> None:
    arguments = reader.stack.pop()
    reader.stack[-1] = reader.call(reader.stack[-1], arguments)


def _new_object(reader: Reader) -> None:
    arguments = reader.stack.pop()
    reader.stack[-1] = reader.new(reader.stack[-1], arguments, {})


def _new_object_ex(reader: Reader) -> None:
    named = reader.stack.pop()
    arguments = reader.stack.pop()
    reader.stack[-1] = reader.new(reader.stack[-1], arguments, named)


def _build(reader: Reader) -> None:
    state = reader.stack.pop()
    reader.build(reader.stack[-1], state)


def _stop(reader: Reader) -> None:
    raise _Stop


def _skip(size: int) -> Callable[[Reader], None]:
    def read(reader: Reader) -> None:
        reader.take(size)

    return read


def _float(reader: Reader) -> None:
    reader.stack.append(_FLOAT.unpack(reader.take(8))[0])


def _int(reader: Reader) -> None:
    reader.stack.append(_INT.unpack(reader.take(4))[0])


_OPCODES: dict[bytes, Callable[[Reader], None]] = {
    b"\x80": _skip(1), b"\x95": _skip(8), b".": _stop,
    b"N": _constant(None), b"\x88": _constant(True), b"\x89": _constant(False),
    b"J": _int, b"K": _unsigned(1), b"M": _unsigned(2), b"\x8a": _long(1), b"\x8b": _long(4),
    b"G": _float, b"\x8c": _text(1), b"X": _text(4), b"\x8d": _text(8),
    b"C": _raw(1), b"B": _raw(4), b"\x8e": _raw(8), b"\x96": _raw(8, bytearray),
    b")": _new(tuple), b"]": _new(list), b"}": _new(dict), b"\x8f": _new(set),
    b"(": _mark, b"0": _pop, b"1": _pop_mark,
    b"t": _tuple, b"\x85": _tuple_of(1), b"\x86": _tuple_of(2), b"\x87": _tuple_of(3),
    b"a": _append, b"e": _appends, b"s": _set_item, b"u": _set_items,
    b"\x90": _add_items, b"\x91": _frozenset,
    b"h": _get1, b"j": _get(4), b"q": _put(1), b"r": _put(4), b"\x94": _memoize,
    b"\x93": _global, b"R": _reduce, b"\x81": _new_object, b"\x92": _new_object_ex,
    b"b": _build,
}  # fmt: skip

Reader.handlers = [_OPCODES.get(bytes((code,)), _refused) for code in range(256)]


# --- pickles outside of records


def _named_by_line(reader: Reader) -> None:
    names: list[str] = []
    for _ in range(2):
        end = reader.data.index(b"\n", reader.at)
        names.append(reader.take(end - reader.at).decode())
        reader.at += 1
    module, qualname = names
    reader.stack.append(reader.find(_OLD_NAMES.get(module, module), qualname))


# Modules that protocols before 3 name as Python 2 did.
_OLD_NAMES = {"__builtin__": "builtins", "copy_reg": "copyreg"}


class _PickleReader(Reader):
    """Reads what `pickle.dumps` writes, protocols 2 to 5."""

    handlers: ClassVar = [
        *(_named_by_line if code == ord("c") else one for code, one in enumerate(Reader.handlers))
    ]


def load(data: bytes, policy: StrictPolicy, *, document: bool = False) -> Any:
    """Return the value of a pickle.

    Args:
        data: the pickle.
        policy: says what it may name.
        document: whether `pickle.dumps` wrote it, and not a record.
    """
    return (_PickleReader if document else Reader)(data, policy, {}).run()


# --- records


def decode(
    parts: records.Parts,
    containers: list[Any],
    policy: StrictPolicy,
    wrap: Callable[[int, Any], Any],
    plain: bool,
) -> Any:
    """Run a record's stream and return its value; see `records.decode`."""
    memo: dict[int, Any] = {}
    fillable: list[int] = []
    given = iter(containers)
    for slot, _, head in _rows(parts):
        if head == records.BUILT:
            continue
        if head < records.BUILT:
            if plain:
                memo[2 * slot] = memo[2 * slot + 1] = (list, dict, set)[head]()
                continue
            memo[2 * slot] = next(given)
        face = memo[2 * slot + 1] = next(given)
        if head >= records.FIRST_CLASS:
            fillable.append(id(face))
    return Reader(parts.stream, policy, memo, frozenset(fillable), wrap).run()


def _rows(parts: records.Parts) -> Any:
    table = parts.table
    return zip(table[::3], table[1::3], table[2::3], strict=True)


def check_parts(name: bytes, parts: records.Parts, root: bytes | None) -> None:
    """Raise `CorruptionError` if a record says of itself what no writer writes.

    Args:
        name: its engine key.
        parts: the record.
        root: the engine key of the value it belongs to, if that is known.
    """
    table = parts.table
    if not table:
        return
    if len(table) % 3:
        raise _forged(name, "half a row")
    slots, uids, heads = table[::3], table[1::3], table[2::3]
    if min(slots) < 0 or max(slots) >= _SLOTS or len(set(slots)) != len(slots):
        raise _forged(name, "slots that are too high, or twice the same")
    if not 0 <= parts.base < 1 << 62 or max(map(abs, uids)) >= 1 << 62:
        raise _forged(name, "numbers that were never given")
    if len(set(uids)) != len(uids):
        raise _forged(name, "two nodes with one number")
    classes = records.FIRST_CLASS + len(parts.classes)
    linked = [head for head in heads if head > records.BUILT]
    if min(heads) < 0 or any(
        records.SPREAD + records.SET < head < records.FIRST_CLASS or head >= classes
        for head in linked
    ):
        raise _forged(name, "a node of no known kind")
    linked = [head for head in linked if head < records.FIRST_CLASS]
    if len(linked) != len(parts.links):
        raise _forged(name, "more or fewer references than it has nodes for")
    spreads = set()
    for head, link in zip(linked, parts.links, strict=True):
        if head == records.EXTERNAL:
            _check_external(name, link, root)
        elif len(link) != 8 or link in spreads:
            raise _forged(name, "a large container that is none, or that it has twice")
        else:
            spreads.add(link)


def _check_external(name: bytes, link: bytes, root: bytes | None) -> None:
    slot, head, stored_class, other = records.read_external(link)
    is_instance = head == records.FIRST_CLASS
    known = is_instance or (head <= records.SPREAD + records.SET and head != records.EXTERNAL)
    if not known or slot >= _SLOTS or bool(stored_class) != is_instance or not other:
        raise _forged(name, "a reference to a node of no known kind")
    if other[:1] in _VALUES and root is not None and other != root:
        raise _forged(name, "a reference into another value")
    if other[:1] not in (*_VALUES, _SHARED) or other == name:
        raise _forged(name, "a reference to what cannot be shared")


# First bytes of the engine keys of values and shared records, which are known above this layer.
_VALUES, _SHARED = (b"\x10", b"\x11"), b"\x23"


def _forged(name: bytes, what: str) -> CorruptionError:
    return CorruptionError(f"record {name!r} has {what}")


def class_of(policy: StrictPolicy, stored: bytes) -> type:
    """Return the class of a stored form if it is allowed."""
    if stored[:1] == b"n":
        try:
            module, qualname, *version = stored[1:].decode().split("\0")
            if version and not (len(version) == 1 and len(version[0]) < 10 and int(version[0])):
                raise ValueError
        except ValueError:
            raise CorruptionError("it names a class by what is no name") from None
        found = standard.GLOBALS.get((module, qualname))
        if found in standard.INSTANCES:
            known: type = found
            return known
        found = policy.find(module, qualname)
        if not isinstance(found, type):
            raise policy.refusal(f"{module}.{qualname}", "was not used: it is no class")
        return found
    parts = Reader(stored[1:], policy, {}).run()
    if stored[:1] != b"v" or type(parts) is not tuple or list(map(type, parts[1:3])) != [str, str]:
        raise CorruptionError("it names a class by what is no name")
    raise policy.refusal(
        f"{parts[1]}.{parts[2]}", "was not made from the code stored with it", by_value=True
    )


def is_standard(thing: Any) -> bool:
    """Tell whether a class or function can be read under every policy."""
    if getattr(thing, "__self__", None) is zoneinfo.ZoneInfo:
        return bool(thing.__name__ == "_unpickle")
    found = standard.GLOBALS.get((thing.__module__, thing.__qualname__))
    return found is thing or type(found) is standard.Function


# --- without classes


class _Anything:
    """Stands for whatever a stream would make of classes."""

    __slots__ = ()


class _ShapeReader(Reader):
    """Reads containers alone, and makes nothing of classes."""

    def find(self, module: Any, qualname: Any) -> Any:
        return _ANYTHING

    def call(self, function: Any, arguments: Any) -> Any:
        return _Anything()

    def new(self, cls: Any, arguments: Any, named: Any) -> Any:
        return _Anything()

    def extend(self, target: Any, items: list[Any]) -> None:
        if type(target) is not _Anything:
            super().extend(target, items)

    def put(self, target: Any, items: list[Any]) -> None:
        if type(target) is not _Anything:
            super().put(target, items)

    def add(self, target: Any, items: list[Any]) -> None:
        if type(target) is not _Anything:
            super().add(target, items)

    def build(self, target: Any, state: Any) -> None:
        """Forget the state."""


_ANYTHING = _Anything()


def shape(parts: records.Parts, policy: StrictPolicy) -> Any:
    """Return a record's value with stand-ins for instances; see `records.shape`."""
    memo: dict[int, Any] = {}
    for slot, _, head in _rows(parts):
        if head < records.BUILT:
            memo[2 * slot] = memo[2 * slot + 1] = (list, dict, set)[head]()
        elif head != records.BUILT:
            memo[2 * slot + 1] = _Anything()
    return _ShapeReader(parts.stream, policy, memo).run()
