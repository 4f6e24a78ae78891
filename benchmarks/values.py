"""The values that the workloads store: of fixed sizes, their contents told by a number alone."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, TypeVar

__all__ = [
    "PLACE",
    "Account",
    "Thing",
    "batches",
    "entry",
    "items",
    "nested",
    "payload",
    "row",
    "table",
]

# Where the workloads read and write inside `table()`.
PLACE = ("rows", 3, "price")
_BATCH = 50_000
T = TypeVar("T")


@dataclass
class Account:
    """A small instance, as users write them."""

    owner: str
    balance: int = 0
    entries: list[int] = field(default_factory=list)

    def total(self) -> int:
        """Return the balance."""
        return self.balance


class Thing:
    """An instance of a plain class with two attributes, as zodbshootout stores them."""

    def __init__(self, attr: int, data: Any) -> None:
        self.attr = attr
        self.data = data


def row(at: int) -> dict[str, Any]:
    """Return a small dict."""
    return {"id": at, "name": f"item {at % 1000}", "price": (at % 1000) * 1.5}


def table() -> dict[str, Any]:
    """Return a value with ten small dicts in a nested list."""
    return {"rows": [row(at) for at in range(10)]}


def entry(at: int) -> str:
    """Return a key of a large dict; the order of keys is that of their numbers."""
    return f"key{at:09d}"


def items(kind: str, size: int) -> Iterator[Any]:
    """Yield the items of a large container.

    Args:
        kind: `"list"` and `"set"`: ints; `"rows"`: small dicts; `"dict"`: keys with ints.
        size: how many.
    """
    if kind == "dict":
        return ((entry(at), at) for at in range(size))
    if kind == "rows":
        return (row(at) for at in range(size))
    return iter(range(size))


def batches(source: Iterator[T], number: int = _BATCH) -> Iterator[list[T]]:
    """Yield lists of what an iterator yields, for stores that take no iterator."""
    while batch := list(islice(source, number)):
        yield batch


def payload(size: int, seed: int) -> bytes:
    """Return bytes that do not compress, always the same for a seed."""
    return random.Random(seed).randbytes(size)


def nested(depth: int) -> dict[str, Any]:
    """Return dicts inside each other, `depth` of them, the innermost with a number under `n`."""
    value: dict[str, Any] = {"n": 0, "name": "innermost"}
    for _ in range(depth - 1):
        value = {"down": value, "name": "around"}
    return value
