"""The classes of the stored files: they must stay as they are, since the files refer to them."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Shop:
    """An ordinary class."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.stock: dict[str, int] = {}


@dataclass
class Point:
    """A dataclass."""

    x: int
    y: int = 0
    tags: list[Any] = field(default_factory=list)


class Slotted:
    """A class without a `__dict__`."""

    __slots__ = ("a", "b")

    def __init__(self, a: Any) -> None:
        self.a = a


class Stack(list):  # type: ignore[type-arg]
    """A subclass of list, with an attribute."""


class Stateful:
    """A class with a state of its own making."""

    def __init__(self, celsius: float) -> None:
        self.celsius = celsius

    def __getstate__(self) -> dict[str, float]:
        return {"kelvin": self.celsius + 273}

    def __setstate__(self, state: dict[str, float]) -> None:
        self.celsius = state["kelvin"] - 273


class Reduced:
    """A class that pickle makes by a call."""

    def __init__(self, items: list[Any]) -> None:
        self.items = items

    def __reduce__(self) -> Any:
        return Reduced, (self.items,)


class Colour(enum.Enum):
    """An enumeration."""

    RED = "red"
    BLUE = "blue"


class Pair(NamedTuple):
    """A named tuple."""

    left: Any
    right: Any
