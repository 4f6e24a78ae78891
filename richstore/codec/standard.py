"""What records may name under every policy: the standard value types, and functions of ours.

Names stand in a fixed table, so nothing that a record names is imported. Nothing in it is called as
it is, either: each has a constructor here that takes what pickle writes for a value of the type,
and refuses all else, `bytearray(10**12)` and `Fraction("1e999999999")` among it. Constructors get
the reader, for what they copy counts (see `strict`), and raise `ValueError` for what no value has.
"""

from __future__ import annotations

import array
import builtins
import collections
import datetime
import decimal
import enum
import fractions
import functools
import ipaddress
import operator
import pathlib
import re
import types
import uuid
import zoneinfo
from collections.abc import Callable
from typing import Any, Protocol

from richstore.codec import classes, containers, members, records, sealed
from richstore.codec.policy import StrictPolicy

__all__ = ["CALLS", "EXCEPTIONS", "GLOBALS", "INSTANCES", "NEW", "Function", "is_value_class"]


class Reading(Protocol):
    """What constructors need of the reader."""

    policy: StrictPolicy

    def find(self, module: Any, qualname: Any) -> Any:
        """Return what a name stands for."""

    def build(self, target: Any, state: Any) -> None:
        """Give an object its state."""

    def charge(self, amount: int) -> None:
        """Count what is copied, in items or bytes."""

    def charge_keys(self, keys: Any) -> None:
        """Count what hashing some keys costs."""

    def user(self, function: Any, *arguments: Any) -> Any:
        """Call what the policy allows."""

    def is_allowed(self, thing: Any) -> bool:
        """Tell whether the policy has allowed a class or function."""

    def is_made(self, value: Any) -> bool:
        """Tell whether an object was made by this very stream."""

    def inner(self, blob: bytes) -> Any:
        """Read a pickle inside this one."""

    def set_attributes(self, target: Any, state: Any) -> None:
        """Give an object attributes past its class's own `__setattr__`, and no other class."""

    def new(self, cls: Any, arguments: Any, named: Any) -> Any:
        """Return a new object of a class that is allowed."""


class Function:
    """Stands for a function that records name, so that nobody gets the function itself."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"<stands for {self.name}>"


def _need(condition: object) -> None:
    if not condition:
        raise ValueError("it is not made of what its type is made of")


def _types(arguments: tuple[Any, ...], *kinds: Any) -> None:
    """Check arguments by their exact types; a tuple of types stands for any of them."""
    _need(len(arguments) == len(kinds))
    for one, kind in zip(arguments, kinds, strict=True):
        _need(type(one) in kind if isinstance(kind, tuple) else type(one) is kind)


# --- dates and times


def _zone(arguments: tuple[Any, ...], size: int) -> tuple[bytes, Any]:
    _need(arguments and type(arguments[0]) is bytes and len(arguments[0]) == size)
    _need(len(arguments) <= 2)
    zone = arguments[1] if len(arguments) == 2 else None
    _need(zone is None or issubclass(type(zone), datetime.tzinfo))
    return arguments[0], zone


def _date(_: Reading, arguments: tuple[Any, ...]) -> datetime.date:
    _types(arguments, bytes)
    (at,) = arguments
    _need(len(at) == 4)
    return datetime.date(at[0] << 8 | at[1], at[2], at[3])


def _datetime(_: Reading, arguments: tuple[Any, ...]) -> datetime.datetime:
    at, zone = _zone(arguments, 10)
    micro = int.from_bytes(at[7:10], "big")
    year, month = at[0] << 8 | at[1], at[2] & 127
    return datetime.datetime(year, month, at[3], at[4], at[5], at[6], micro, zone, fold=at[2] >> 7)


def _time(_: Reading, arguments: tuple[Any, ...]) -> datetime.time:
    at, zone = _zone(arguments, 6)
    micro = int.from_bytes(at[3:6], "big")
    return datetime.time(at[0] & 127, at[1], at[2], micro, zone, fold=at[0] >> 7)


def _timedelta(_: Reading, arguments: tuple[Any, ...]) -> datetime.timedelta:
    _types(arguments, int, int, int)
    return datetime.timedelta(*arguments)


def _timezone(_: Reading, arguments: tuple[Any, ...]) -> datetime.timezone:
    if len(arguments) == 2:
        _types(arguments, datetime.timedelta, str)
    else:
        _types(arguments, datetime.timedelta)
    return datetime.timezone(*arguments)


_ZONE_NAME = re.compile(r"[A-Za-z0-9_+-]{1,40}(/[A-Za-z0-9_+-]{1,40}){0,4}")


def _zoneinfo(_: Reading, arguments: tuple[Any, ...]) -> zoneinfo.ZoneInfo:
    _types(arguments, str, (int, bool))
    key, from_cache = arguments
    # a key is the path of a file that will be read
    _need(_ZONE_NAME.fullmatch(key))
    return zoneinfo.ZoneInfo(key) if from_cache else zoneinfo.ZoneInfo.no_cache(key)


# --- numbers and other values


def _decimal(reader: Reading, arguments: tuple[Any, ...]) -> decimal.Decimal:
    _types(arguments, str)
    reader.charge(len(arguments[0]))
    return decimal.Decimal(arguments[0])


_RATIO = re.compile(r"-?[0-9]+(/[0-9]+)?")


def _fraction(reader: Reading, arguments: tuple[Any, ...]) -> fractions.Fraction:
    if len(arguments) == 1:
        _types(arguments, str)
        # with an exponent it may have a thousand million digits
        _need(_RATIO.fullmatch(arguments[0]))
        top, _, bottom = arguments[0].partition("/")
        arguments = int(top), int(bottom or 1)
    _types(arguments, int, int)
    reader.charge(sum(one.bit_length() for one in arguments) >> 3)
    _need(arguments[1] > 0)
    # past the constructor, which would look for a common divisor: that takes long for large numbers
    made: Any = object.__new__(fractions.Fraction)
    made._numerator, made._denominator = arguments
    return made  # type: ignore[no-any-return]


def _complex(_: Reading, arguments: tuple[Any, ...]) -> complex:
    _types(arguments, float, float)
    return complex(*arguments)


def _range(_: Reading, arguments: tuple[Any, ...]) -> range:
    _types(arguments, int, int, int)
    return range(*arguments)


def _slice(_: Reading, arguments: tuple[Any, ...]) -> slice:
    _types(arguments, *(((int, str, float, type(None), bool),) * 3))
    return slice(*arguments)


def _address(cls: Any) -> Callable[[Reading, tuple[Any, ...]], Any]:
    def make(_: Reading, arguments: tuple[Any, ...]) -> Any:
        _types(arguments, (str, int))
        _need(type(arguments[0]) is int or len(arguments[0]) < 100)
        return cls(arguments[0])

    return make


def _path(cls: Any) -> Callable[[Reading, tuple[Any, ...]], Any]:
    def make(reader: Reading, arguments: tuple[Any, ...]) -> Any:
        _types(arguments, *((str,) * len(arguments)))
        reader.charge(sum(map(len, arguments)))
        return cls(*arguments)

    return make


_FLAGS = re.A | re.I | re.L | re.M | re.S | re.U | re.X


def _pattern(reader: Reading, arguments: tuple[Any, ...]) -> re.Pattern[Any]:
    _types(arguments, (str, bytes), int)
    _need(not arguments[1] & ~int(_FLAGS))
    reader.charge(32 * len(arguments[0]))
    return re.compile(*arguments)


def _array(reader: Reading, arguments: tuple[Any, ...]) -> Any:
    _types(arguments, type, str, int, bytes)
    _need(arguments[0] is array.array)
    reader.charge(4 * len(arguments[3]))
    return _reconstruct(*arguments)


_reconstruct: Any = vars(array)["_array_reconstructor"]


def _bytearray(reader: Reading, arguments: tuple[Any, ...]) -> bytearray:
    if not arguments:
        return bytearray()
    _need(type(arguments[0]) in (bytes, str))
    reader.charge(len(arguments[0]))
    if type(arguments[0]) is str:
        _need(arguments[1:] == ("latin-1",))
        return bytearray(arguments[0].encode("latin-1"))
    _types(arguments, bytes)
    return bytearray(arguments[0])


def _bytes(reader: Reading, arguments: tuple[Any, ...]) -> bytes:
    """Make what protocols before 3 write of bytes."""
    if not arguments:
        return b""
    _types(arguments, str, str)
    _need(arguments[1] in ("latin1", "latin-1"))
    reader.charge(len(arguments[0]))
    return bytes(arguments[0].encode("latin-1"))


# --- containers


def _collect(cls: Any) -> Callable[[Reading, tuple[Any, ...]], Any]:
    """Make the constructor of sets, as protocols before 4 write them."""

    def make(reader: Reading, arguments: tuple[Any, ...]) -> Any:
        if not arguments:
            return cls()
        _types(arguments, list)
        reader.charge(len(arguments[0]))
        reader.charge_keys(arguments[0])
        return cls(arguments[0])

    return make


def _deque(_: Reading, arguments: tuple[Any, ...]) -> Any:
    if arguments:
        _need(type(arguments[0]) in (tuple, list) and not arguments[0])
    _need(len(arguments) <= 2)
    limit = arguments[1] if len(arguments) == 2 else None
    _need(limit is None or type(limit) is int)
    return collections.deque(maxlen=limit)


def _ordered(_: Reading, arguments: tuple[Any, ...]) -> Any:
    _need(not arguments)
    return collections.OrderedDict()


def _defaulting(reader: Reading, arguments: tuple[Any, ...]) -> Any:
    _need(len(arguments) <= 1)
    factory = arguments[0] if arguments else None
    _check_factory(reader, factory)
    return collections.defaultdict(factory)


def _check_factory(reader: Reading, factory: Any) -> None:
    _need(factory is None or is_value_class(factory) or reader.is_allowed(factory))


def _counter(reader: Reading, arguments: tuple[Any, ...]) -> Any:
    if not arguments:
        return collections.Counter()
    _types(arguments, dict)
    reader.charge(4 * len(arguments[0]))
    reader.charge_keys(arguments[0])
    return collections.Counter(arguments[0])


def _namespace(_: Reading, arguments: tuple[Any, ...]) -> Any:
    _need(not arguments)
    return types.SimpleNamespace()


def _exception(cls: Any) -> Callable[[Reading, tuple[Any, ...]], Any]:
    return lambda _, arguments: cls(*arguments)


# --- types


def _alias(reader: Reading, arguments: tuple[Any, ...]) -> Any:
    _need(len(arguments) == 2)
    origin, inside = arguments
    inside = inside if type(inside) is tuple else (inside,)
    for one in (origin, *inside):
        _need(one is ... or type(one) is types.GenericAlias or _is_class(reader, one))
    reader.charge(len(inside))
    return types.GenericAlias(origin, inside)


def _is_class(reader: Reading, thing: Any) -> bool:
    return is_value_class(thing) or (isinstance(thing, type) and reader.is_allowed(thing))


def _union(_: Reading, arguments: tuple[Any, ...]) -> Any:
    _need(len(arguments) == 2 and arguments[0] is _OR and type(arguments[1]) is tuple)
    inside = arguments[1]
    _need(0 < len(inside) < 100)
    # a metaclass could have an `__or__` of its own
    _need(all(type(one) in (types.GenericAlias, type) for one in inside))
    _need(all(type(one) is not type or is_value_class(one) for one in inside))
    return functools.reduce(operator.or_, inside)


def _type_of(_: Reading, arguments: tuple[Any, ...]) -> type:
    _need(len(arguments) == 1 and type(arguments[0]) in _NAMELESS)
    return type(arguments[0])


_NAMELESS = (type(None), type(NotImplemented), type(...))


def _attribute(reader: Reading, arguments: tuple[Any, ...]) -> Any:
    """Do the two things that pickle uses `getattr` for."""
    _need(len(arguments) == 2 and type(arguments[1]) is str)
    if arguments[0] is zoneinfo.ZoneInfo and arguments[1] == "_unpickle":
        return _UNPICKLE_ZONE
    return _member(reader, arguments)


# --- functions of ours


def _member(reader: Reading, arguments: tuple[Any, ...]) -> Any:
    _need(len(arguments) == 2 and type(arguments[1]) is str)
    cls = arguments[0]
    _need(isinstance(cls, enum.EnumMeta) and reader.is_allowed(cls))
    return members.member(cls, arguments[1])


def _original(reader: Reading, arguments: tuple[Any, ...]) -> Any:
    _need(len(arguments) == 1 and _is_class(reader, arguments[0]))
    return arguments[0]


def _load_blob(reader: Reading, arguments: tuple[Any, ...]) -> Any:
    _types(arguments, bytes)
    return reader.inner(arguments[0])


def _named(reader: Reading, arguments: tuple[Any, ...]) -> Any:
    _types(arguments, str, str)
    return reader.find(*arguments)


def _sealed(reader: Reading, arguments: tuple[Any, ...]) -> Any:
    _types(arguments, bytes)
    return sealed.restore(arguments[0], reader.policy)


def _make(reader: Reading, arguments: tuple[Any, ...]) -> Any:
    """Make an empty container; see `containers.make`."""
    _need(len(arguments) == 2)
    cls, argument = arguments
    allowed = reader.is_allowed(cls)
    _need(isinstance(cls, type) and (allowed or cls in _MADE or cls in EXCEPTIONS))
    base = next((one for one in containers.VALUES if issubclass(cls, one)), None)
    if base is not None:
        # of anything else it may be a copy of any size, or the result of any iteration
        _need(type(argument) is base)
        reader.charge(8 * len(argument) if hasattr(argument, "__len__") else 8)
        if base is frozenset:
            reader.charge_keys(argument)
    elif issubclass(cls, collections.deque):
        _need(argument is None or type(argument) is int)
    elif issubclass(cls, collections.defaultdict):
        _check_factory(reader, argument)
    return reader.user(containers.make, cls, argument) if allowed else containers.make(*arguments)


_MADE = frozenset(
    (
        collections.deque, collections.OrderedDict, collections.defaultdict, collections.Counter,
        types.SimpleNamespace,
    )
)  # fmt: skip


def _fill(reader: Reading, arguments: tuple[Any, ...]) -> None:
    """Fill what `_make` has made; see `containers.fill`."""
    _need(len(arguments) == 2 and type(arguments[1]) is tuple and len(arguments[1]) in (2, 3))
    raw, (inside, named, *rest) = arguments
    _need(reader.is_made(raw) and (not rest or type(rest[0]) is int))
    base = containers.base_of(type(raw))
    if base is object:
        _need(inside is None or (type(inside) is tuple and isinstance(raw, BaseException)))
    elif base in containers.MAPS:
        _need(type(inside) is dict)
    else:
        _need(base is not None and type(inside) is list)
    if inside is not None:
        reader.charge(8 * len(inside))
        if base is set or base in containers.MAPS:
            reader.charge_keys(inside)
    containers.put(raw, inside, {})
    reader.set_attributes(raw, named)
    containers.note_version(raw, rest[0] if rest else 0, named)


def _build(reader: Reading, arguments: tuple[Any, ...]) -> None:
    """Give what was made a state of a version of its class; see `containers.build`."""
    _need(len(arguments) == 2 and type(arguments[1]) is tuple and len(arguments[1]) == 2)
    raw, (version, state) = arguments
    _need(reader.is_made(raw) and type(version) is int)
    if not containers.note_version(raw, version, state):
        reader.build(raw, state)


def _new_object(reader: Reading, arguments: tuple[Any, ...]) -> Any:
    _need(arguments)
    return reader.new(arguments[0], arguments[1:], {})


def _new_object_ex(reader: Reading, arguments: tuple[Any, ...]) -> Any:
    _need(len(arguments) == 3)
    return reader.new(*arguments)


# --- the tables

EXCEPTIONS: dict[Any, str] = {
    found: name
    for name, found in vars(builtins).items()
    if isinstance(found, type) and issubclass(found, BaseException)
}

# Ordinary Python classes of the standard library whose instances are nothing but attributes.
INSTANCES = frozenset((collections.ChainMap, collections.UserDict, collections.UserList))

_VALUES: tuple[type, ...] = (
    object, int, float, bool, complex, str, bytes, bytearray, list, tuple, dict, set, frozenset,
    range, slice, datetime.date, datetime.datetime, datetime.time, datetime.timedelta,
    datetime.timezone, zoneinfo.ZoneInfo, decimal.Decimal, fractions.Fraction, uuid.UUID,
    array.array, types.SimpleNamespace, collections.deque, collections.OrderedDict,
    collections.defaultdict, collections.Counter, *INSTANCES,
    ipaddress.IPv4Address, ipaddress.IPv6Address, ipaddress.IPv4Network, ipaddress.IPv6Network,
    ipaddress.IPv4Interface, ipaddress.IPv6Interface,
    pathlib.PurePath, pathlib.PurePosixPath, pathlib.PureWindowsPath, pathlib.Path,
    pathlib.PosixPath, pathlib.WindowsPath,
)  # fmt: skip
_PATHS = tuple(one for one in _VALUES if issubclass(one, pathlib.PurePath))

_OR = Function("operator.or_")
_UNPICKLE_ZONE = Function("ZoneInfo._unpickle")
_NEWOBJ = Function("copyreg.__newobj__")
_NEWOBJ_EX = Function("copyreg.__newobj_ex__")
# functions: by what they are, what stands for them, and what is done when they are called
_FUNCTIONS: list[tuple[Any, Callable[[Any, tuple[Any, ...]], Any]]] = [
    (getattr, _attribute),
    (type, _type_of),
    (functools.reduce, _union),
    (types.GenericAlias, _alias),
    (_reconstruct, _array),
    (vars(re)["_compile"], _pattern),
    (records.load_blob, _load_blob),
    (containers.make, _make),
    (containers.fill, _fill),
    (containers.build, _build),
    (classes.named, _named),
    (sealed.restore, _sealed),
    (members.member, _member),
    (classes.original_class, _original),
]

GLOBALS: dict[tuple[str, str], Any] = {
    (cls.__module__, cls.__qualname__): cls for cls in (*_VALUES, *EXCEPTIONS)
}
GLOBALS |= {("pathlib", cls.__name__): cls for cls in _PATHS}
GLOBALS |= {("pathlib._local", cls.__name__): cls for cls in _PATHS}
GLOBALS |= {
    ("builtins", "NotImplemented"): NotImplemented,
    ("builtins", "Ellipsis"): ...,
    ("_operator", "or_"): _OR,
    ("operator", "or_"): _OR,
    ("copyreg", "__newobj__"): _NEWOBJ,
    ("copyreg", "__newobj_ex__"): _NEWOBJ_EX,
}

CALLS: dict[int, Callable[[Any, tuple[Any, ...]], Any]] = {
    id(_UNPICKLE_ZONE): _zoneinfo,
    id(_NEWOBJ): _new_object,
    id(_NEWOBJ_EX): _new_object_ex,
    id(datetime.date): _date,
    id(datetime.datetime): _datetime,
    id(datetime.time): _time,
    id(datetime.timedelta): _timedelta,
    id(datetime.timezone): _timezone,
    id(decimal.Decimal): _decimal,
    id(fractions.Fraction): _fraction,
    id(complex): _complex,
    id(range): _range,
    id(slice): _slice,
    id(bytearray): _bytearray,
    id(bytes): _bytes,
    id(set): _collect(set),
    id(frozenset): _collect(frozenset),
    id(collections.deque): _deque,
    id(collections.OrderedDict): _ordered,
    id(collections.defaultdict): _defaulting,
    id(collections.Counter): _counter,
    id(types.SimpleNamespace): _namespace,
}
for _cls in _VALUES:
    if _cls.__module__ == "ipaddress":
        CALLS[id(_cls)] = _address(_cls)
for _cls in _PATHS:
    CALLS[id(_cls)] = _path(_cls)
for _cls in EXCEPTIONS:
    CALLS[id(_cls)] = _exception(_cls)
for _function, _call in _FUNCTIONS:
    _key = (_function.__module__, _function.__qualname__)
    _stand_in = Function(".".join(_key))
    # kept for ever by the table, so that the number stays its own
    GLOBALS[_key] = _stand_in
    CALLS[id(_stand_in)] = _call
# what protocols before 3 name for bytes
GLOBALS["_codecs", "encode"] = Function("codecs.encode")
CALLS[id(GLOBALS["_codecs", "encode"])] = _bytes

# What is made without arguments, and given its state afterwards.
NEW = frozenset((uuid.UUID, object, *INSTANCES))

_value_classes = frozenset(map(id, (*_VALUES, *EXCEPTIONS)))


def is_value_class(thing: Any) -> bool:
    """Tell whether something is a class of standard values."""
    return id(thing) in _value_classes
