"""Classes of every kind a user may store, importable by name, for the behaviour tests."""

from __future__ import annotations

import abc
import array
import collections
import datetime as dt
import decimal
import enum
import fractions
import functools
import io
import pathlib
import re
import threading
import types
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar

T = TypeVar("T")


class Account:
    def __init__(self, name: str, balance: int = 0) -> None:
        self.name = name
        self.balance = balance
        self.history: list[Any] = []

    def __eq__(self, other: object) -> bool:
        if other.__class__ is not Account:
            return NotImplemented
        return vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]

    def deposit(self, amount: int) -> int:
        self.balance += amount
        self.history.append({"amount": amount})
        return self.balance


class Bare:
    """No methods at all: equality and repr are object's own."""

    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)


@dataclass
class Point:
    x: int
    y: int = 0
    tags: list[Any] = field(default_factory=list)


@dataclass(slots=True)
class SlotPoint:
    x: int
    tags: list[Any] = field(default_factory=list)


@dataclass(frozen=True)
class FrozenPoint:
    x: int
    tags: list[Any] = field(default_factory=list)

    def cached(self) -> int:
        if "memo" not in self.__dict__:
            object.__setattr__(self, "memo", self.x * 2)
        return self.__dict__["memo"]


@dataclass(order=True)
class Line:
    start: Point
    end: Point


class Slotted:
    __slots__ = ("items", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.items: list[Any] = []

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Slotted) and (self.name, self.items) == (other.name, other.items)

    __hash__ = None  # type: ignore[assignment]

    def add(self, item: Any) -> None:
        self.items.append(item)


class SlottedChild(Slotted):
    __slots__ = ("extra",)

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.extra: dict[Any, Any] = {}

    def add(self, item: Any) -> None:
        super().add(item)
        self.extra[item] = len(self.items)


class Temperature:
    """A property with a setter that validates."""

    def __init__(self, celsius: float) -> None:
        self.celsius = celsius

    @property
    def celsius(self) -> float:
        return self._celsius

    @celsius.setter
    def celsius(self, value: float) -> None:
        if value < -273.15:
            raise ValueError("below absolute zero")
        self._celsius = value

    @property
    def fahrenheit(self) -> float:
        return self._celsius * 9 / 5 + 32


class Locked:
    """State without the lock, which is made anew by __setstate__."""

    def __init__(self, value: int) -> None:
        self.value = value
        self.log: list[Any] = []
        self.lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {name: item for name, item in self.__dict__.items() if name != "lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.lock = threading.Lock()

    def bump(self) -> int:
        with self.lock:
            self.value += 1
            self.log.append(self.value)
            return self.value


class Reduced:
    def __init__(self, items: list[Any]) -> None:
        self.items = items

    def __reduce__(self) -> Any:
        return Reduced, (list(self.items),)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Reduced) and self.items == other.items

    __hash__ = None  # type: ignore[assignment]


class Magic:
    """Attributes kept in a dict by hand."""

    def __init__(self) -> None:
        object.__setattr__(self, "data", {})

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "data":
            raise AttributeError(name)
        try:
            return self.data[name]
        except KeyError:
            raise AttributeError(name) from None

    def __setattr__(self, name: str, value: Any) -> None:
        self.data[name] = value

    def __delattr__(self, name: str) -> None:
        del self.data[name]


class Hashable:
    def __init__(self, number: int) -> None:
        self.number = number
        self.notes: list[Any] = []

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Hashable) and self.number == other.number

    def __hash__(self) -> int:
        return hash(("Hashable", self.number))


class Rude:
    """Comparison raises, so nothing may compare it before it is stored."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("compared")

    __hash__ = None  # type: ignore[assignment]


class Stack(Generic[T]):
    def __init__(self) -> None:
        self.items: list[T] = []

    def push(self, item: T) -> None:
        self.items.append(item)


class Shape(abc.ABC):
    @abc.abstractmethod
    def area(self) -> float: ...


class Square(Shape):
    def __init__(self, side: float) -> None:
        self.side = side

    def area(self) -> float:
        return self.side**2


class Hostile:
    """Refuses subclasses made without an argument that only it knows."""

    def __init_subclass__(cls, *, password: str, **rest: Any) -> None:
        if password != "sesame":
            raise TypeError("no subclasses")
        super().__init_subclass__(**rest)

    def __init__(self) -> None:
        self.items: list[Any] = []

    @classmethod
    def make(cls) -> Hostile:
        return cls()


class Cached:
    def __init__(self, numbers: list[int]) -> None:
        self.numbers = numbers

    @functools.cached_property
    def total(self) -> int:
        return sum(self.numbers)


class LoudDict(dict):  # type: ignore[type-arg]
    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(key, ("loud", value))

    def twice(self, key: Any, value: Any) -> None:
        super().__setitem__(key, [value, value])


class MaxList(list):  # type: ignore[type-arg]
    def append(self, item: Any) -> None:
        super().append(item)
        if len(self) > 5:
            del self[0]

    def add_all(self, *items: Any) -> int:
        for item in items:
            self.append(item)
        return len(self)


class LowerSet(set):  # type: ignore[type-arg]
    def add(self, item: str) -> None:
        super().add(item.lower())


class NamedList(list):  # type: ignore[type-arg]
    """A list subclass whose instances have attributes too."""

    def __init__(self, items: Any = (), name: str = "") -> None:
        super().__init__(items)
        self.name = name


class Entry(NamedTuple):
    key: str
    values: list[Any]


class Color(enum.Enum):
    RED = 1
    GREEN = 2


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Mistake(Exception):
    def __init__(self, code: int, details: list[Any]) -> None:
        super().__init__(code, details)
        self.code = code
        self.details = details


class Metres(int):
    unit: Any


class Label(str):
    language: Any


class Users:
    """An instance that holds the standard library's containers."""

    def __init__(self) -> None:
        self.groups: Any = collections.defaultdict(list)
        self.order: Any = collections.OrderedDict(a=1, b=2)
        self.count: Any = collections.Counter("abca")
        self.recent: Any = collections.deque([1, 2, 3], maxlen=3)


class Node:
    """An element of a graph, for cycles."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.links: list[Node] = []
        self.parent: Node | None = None


def make_local() -> Any:
    """Return an instance of a class that can be reached by no import."""

    class Local:
        def __init__(self) -> None:
            self.items = [1]

        def add(self, item: Any) -> int:
            self.items.append(item)
            return len(self.items)

    return Local()


def make_cycle() -> list[Any]:
    """Return a list that holds itself and a dict that leads back to it."""
    top: list[Any] = []
    top += [top, {"back": top}]
    return top


def make_family() -> Node:
    """Return a parent whose child leads back to it."""
    parent, child = Node("parent"), Node("child")
    parent.links.append(child)
    child.parent = parent
    return parent


@functools.cache
def attrs_class(attrs: Any) -> Any:
    """Return an attrs class that validates; its module is given, as it may not be installed."""

    @attrs.define
    class AttrsPoint:
        number: int = attrs.field(validator=attrs.validators.instance_of(int))
        tags: list[str] = attrs.field(factory=list)

    return AttrsPoint


@functools.cache
def pydantic_class(pydantic: Any) -> Any:
    """Return a pydantic model that validates on assignment."""

    class Model(pydantic.BaseModel):
        model_config = pydantic.ConfigDict(validate_assignment=True)
        number: int
        tags: list[str] = pydantic.Field(default_factory=list)

    return Model


def with_attribute(x: Any, **attributes: Any) -> Any:
    """Return `x` with attributes set on it."""
    for name, value in attributes.items():
        setattr(x, name, value)
    return x


# name -> (make a value, change it in place at some depth)
CHANGES: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "list": (lambda: [1, [2]], lambda v: v[1].append(3)),
    "dict": (lambda: {"a": {"b": 1}}, lambda v: v["a"].update(b=2, c=[3])),
    "dict odd keys": (
        lambda: {(1, 2): [1], frozenset({1}): [2], None: [3], 1.5: [4]},
        lambda v: [item.append(0) for item in v.values()],
    ),
    "set": (lambda: {1, 2}, lambda v: v.add(3)),
    "set in list": (lambda: [{1}, {2}], lambda v: v[1].discard(2)),
    "tuple": (lambda: (1, [2], {"a": {3}}), lambda v: (v[1].append(4), v[2]["a"].add(5))),
    "tuple deep": (lambda: [((1, ([2],)),)], lambda v: v[0][0][1][0].append(3)),
    "namedtuple": (lambda: Entry("k", [1]), lambda v: v.values.append(2)),
    "instance": (lambda: Account("ann"), lambda v: v.deposit(5)),
    "instance attribute": (lambda: Account("ann"), lambda v: setattr(v, "balance", 7)),
    "instance new attribute": (lambda: Bare(a=1), lambda v: setattr(v, "b", [2])),
    "instance del attribute": (lambda: Bare(a=1, b=2), lambda v: delattr(v, min(vars(v)))),
    "instance vars": (lambda: Bare(a=[1]), lambda v: v.a.append(2)),
    "dataclass": (lambda: Point(1), lambda v: (setattr(v, "x", 5), v.tags.append("t"))),
    "nested dataclass": (lambda: Line(Point(1), Point(2)), lambda v: setattr(v.end, "y", 9)),
    "slots dataclass": (lambda: SlotPoint(1), lambda v: (setattr(v, "x", 5), v.tags.append("t"))),
    "frozen dataclass": (lambda: FrozenPoint(1), lambda v: v.tags.append("t")),
    "__slots__": (lambda: Slotted("s"), lambda v: v.add([1])),
    "__slots__ inherited": (lambda: SlottedChild("s"), lambda v: (v.add(1), setattr(v, "name", 2))),
    "property": (lambda: Temperature(10.0), lambda v: setattr(v, "celsius", 20.0)),
    "__getstate__": (lambda: Locked(1), lambda v: (v.bump(), v.bump())),
    "__reduce__": (lambda: Reduced([1]), lambda v: v.items.append(2)),
    "__setattr__": (lambda: Magic(), lambda v: setattr(v, "colour", ["red"])),
    "hashable": (lambda: Hashable(1), lambda v: v.notes.append(1)),
    "raising __eq__": (lambda: Rude(1), lambda v: setattr(v, "value", 2)),
    "raising __eq__ in list": (lambda: [Rude(1), Rude(2)], lambda v: setattr(v[0], "value", 3)),
    "generic class": (lambda: Stack[int](), lambda v: v.push(1)),
    "abstract base": (lambda: Square(2.0), lambda v: setattr(v, "side", 3.0)),
    "__init_subclass__": (lambda: Hostile.make(), lambda v: v.items.append(1)),
    "cached_property": (lambda: Cached([1, 2]), lambda v: (v.total, v.numbers.append(3))),
    "local class": (make_local, lambda v: v.add(2)),
    "dict subclass": (lambda: LoudDict(a=[1]), lambda v: (v["a"].append(2), v.update(b=1))),
    "dict subclass set": (lambda: LoudDict(), lambda v: v.__setitem__("a", 1)),
    "dict subclass super": (lambda: LoudDict(), lambda v: v.twice("a", 1)),
    "list subclass": (lambda: MaxList([[1]]), lambda v: v[0].append(2)),
    "list subclass method": (lambda: MaxList([1, 2, 3, 4]), lambda v: v.add_all(5, 6, [7])),
    "list subclass attribute": (lambda: NamedList([1], "n"), lambda v: setattr(v, "name", "m")),
    "list subclass append": (lambda: NamedList([1], "n"), lambda v: v.append([2])),
    "set subclass": (lambda: LowerSet({"a"}), lambda v: v.add("B")),
    "defaultdict": (lambda: collections.defaultdict(list), lambda v: v["new"].append(1)),
    "defaultdict nested": (lambda: [collections.defaultdict(list)], lambda v: v[0]["x"].append(1)),
    "OrderedDict": (
        lambda: collections.OrderedDict(a=1, b=[2]),
        lambda v: (v.move_to_end("a"), v["b"].append(3)),
    ),
    "Counter": (lambda: collections.Counter("abc"), lambda v: (v.update("aa"), v.subtract("b"))),
    "Counter item": (lambda: collections.Counter("abc"), lambda v: v.__setitem__("a", v["a"] + 1)),
    "deque": (
        lambda: collections.deque([1, [2]], 4),
        lambda v: (v.appendleft(0), v.rotate(1), v.append(9)),
    ),
    "deque element": (lambda: collections.deque([[1]]), lambda v: v[0].append(2)),
    "ChainMap": (lambda: collections.ChainMap({"a": 1}), lambda v: v.maps[0].update(b=2)),
    "UserList": (lambda: collections.UserList([1]), lambda v: v.append([2])),
    "users": (
        lambda: Users(),
        lambda v: (v.groups["a"].append(1), v.order.popitem(), v.count.update("z"),
                   v.recent.append(4)),
    ),
    "bytearray": (lambda: bytearray(b"abc"), lambda v: v.extend(b"def")),
    "bytearray item": (lambda: [bytearray(b"abc")], lambda v: v[0].__setitem__(0, 65)),
    "array": (lambda: array.array("i", [1, 2]), lambda v: (v.append(3), v.__setitem__(0, 9))),
    "SimpleNamespace": (lambda: types.SimpleNamespace(a=[1]), lambda v: v.a.append(2)),
    "SimpleNamespace attribute": (
        lambda: types.SimpleNamespace(a=1),
        lambda v: setattr(v, "a", 2),
    ),
    "exception": (lambda: Mistake(1, [2]), lambda v: v.details.append(3)),
    "int subclass": (lambda: with_attribute(Metres(5), unit=["m"]), lambda v: v.unit.append("x")),
    "str subclass": (
        lambda: with_attribute(Label("x"), language="en"),
        lambda v: setattr(v, "language", "de"),
    ),
    "shared": (lambda: (lambda x: [x, x, {"k": x}])([1]), lambda v: v[2]["k"].append(2)),
    "cycle": (make_cycle, lambda v: v[1]["back"][1].update(more=[1])),
    "instance cycle": (make_family, lambda v: v.links[0].parent.links.append(Node("third"))),
    "bytes io": (lambda: io.BytesIO(b"abc"), lambda v: (v.seek(3), v.write(b"def"))),
}  # fmt: skip

# name -> a value that has nothing to change inside
ATOMS: dict[str, Any] = {
    "none": None, "bool": True, "int": 2**100, "float": -0.0, "inf": float("inf"),
    "complex": 1 + 2j, "str": "é\0😀\ud800", "bytes": b"\0\xff", "ellipsis": ...,
    "not implemented": NotImplemented, "range": range(1, 9, 2), "slice": slice(1, 2, 3),
    "frozenset": frozenset({1, (2, 3)}), "tuple": (1, ("a", None)), "empty tuple": (),
    "enum": Color.RED, "int enum": Level.HIGH, "datetime": dt.datetime(2024, 1, 1, tzinfo=dt.UTC),
    "date": dt.date(2024, 1, 1), "time": dt.time(1, 2), "timedelta": dt.timedelta(1, 2),
    "decimal": decimal.Decimal("1.10"), "fraction": fractions.Fraction(1, 3),
    "uuid": uuid.UUID(int=5), "path": pathlib.PurePosixPath("/a/b"), "regex": re.compile("a+"),
    "function": make_cycle, "builtin": len, "class": Account, "builtin class": dict,
    "generic alias": list[int], "flag": re.IGNORECASE, "metres": Metres(4), "label": Label("x"),
}  # fmt: skip
