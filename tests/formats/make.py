"""Make the store that is kept for a format version: `python make.py FILE`.

It is run once for each released format; the file is kept, compressed, as `version<n>.store.gz`, and
`tests/test_formats.py` opens it for ever. Never make a kept file anew: it is to be what that
version wrote. What is in it is deterministic; only the number of the store is new each time.
"""

from __future__ import annotations

import array
import collections
import datetime as dt
import decimal
import fractions
import gzip
import math
import os
import pathlib
import sys
import tempfile
import uuid
from typing import Any

from kept_classes import Colour, Pair, Point, Reduced, Shop, Slotted, Stack, Stateful

import richstore
from richstore import paging

TINY = 64  # bytes: a page target at which trees become deep
DAY = dt.date(2024, 2, 29)
NOON = dt.datetime(2024, 2, 29, 12, 0, 0, 123456)
ZONE = dt.timezone(dt.timedelta(hours=5, minutes=30))
NUMBER = uuid.UUID(int=0x1234567890ABCDEF1234567890ABCDEF)
PAGE_MANY = 900


def leaves() -> list[Any]:
    """Return one of each kind of value that has no inside to be changed."""
    return [
        None, True, False, 0, -1, 255, 65_536, 2**31, -(2**63), 10**40,
        0.0, -2.5, math.inf, 1e-300, 3 + 4j,
        "", "text", "ünïcödé \N{SNOWMAN} \U0001f600", "\ud800 alone", "x" * 300,
        b"", b"bytes\x00\xff", b"y" * 300,
        (), (1, "two", (3.0, None)), frozenset({1, 2, 3}), frozenset(),
        range(2, 10, 3), Ellipsis, int, Shop, len, math.sqrt,
        decimal.Decimal("1.50"), fractions.Fraction(1, 3), NUMBER,
        DAY, NOON, NOON.replace(tzinfo=dt.UTC), NOON.replace(tzinfo=ZONE), dt.time(1, 2, 3),
        dt.timedelta(days=1, microseconds=5),
        Colour.RED, Pair(1, "one"), pathlib.PurePosixPath("/a/b"),
    ]  # fmt: skip


def objects() -> dict[str, Any]:
    """Return one of each kind of object that can be changed in place."""
    shop = Shop("corner")
    shop.stock["bread"] = 20
    slotted = Slotted([1, 2])
    stack = Stack([1, [2]])
    stack.label = "of lists"  # type: ignore[attr-defined]
    return {
        "list": [1, [2, [3]]],
        "dict": {"a": {"b": {}}, 1: 2, None: 3, (1, 2): 4},
        "set": {1, "two", (3, 4), frozenset({5})},
        "instance": shop,
        "dataclass": Point(1, 2, ["tag"]),
        "slots": slotted,
        "list subclass": stack,
        "state of its own": Stateful(21.5),
        "made by a call": Reduced([1, [2]]),
        "deque": collections.deque([1, [2]], maxlen=5),
        "OrderedDict": collections.OrderedDict([("b", 1), ("a", [2])]),
        "defaultdict": collections.defaultdict(list, a=[1]),
        "Counter": collections.Counter("abca"),
        "bytearray": bytearray(b"\x00\x01changeable"),
        "array": array.array("d", [1.0, 2.5]),
        "exception": ValueError("wrong", 42),
        "tuple with a list": ([1], ([2], Point(3))),
    }


def keys() -> list[Any]:
    """Return one of each kind of key, none equal to another."""
    return [
        None, True, 0, -1, 2, 10**30, -(10**30), 2.0 + 1, 0.5, -0.25, math.inf,
        "", "a", "a\x00b", "ü", "k" * 600, b"", b"a\x00b", b"k" * 600,
        DAY, NOON, NOON.replace(tzinfo=dt.UTC), NUMBER, Colour.BLUE,
        (), (1,), ("a", 1, b"b"), ("a", (2, None)), Pair("left", 1),
    ]  # fmt: skip


def aliased() -> dict[str, Any]:
    """Return a value with aliases and cycles, in one record and between records."""
    rows: list[Any] = [{"n": n, "tags": [n]} for n in range(PAGE_MANY)]
    rows.append(rows[7])
    rows.append(rows[PAGE_MANY // 2]["tags"])
    queue = collections.deque(["shared"])
    rows += [[queue, "x" * 3000], [queue, "y" * 3000]]
    ring: list[Any] = ["ring"]
    ring.append({"back": ring})
    twice = [1]
    point = Point(1)
    point.tags.append(point)
    return {"rows": rows, "ring": ring, "twice": [twice, twice, (twice,)], "point": point}


def values() -> dict[Any, Any]:
    """Return what the file has, by key."""
    found: dict[Any, Any] = {("key", at): key for at, key in enumerate(keys())}
    found |= {key: ["value of", repr(key)] for key in keys()}
    found["leaves"] = leaves()
    found |= {("leaf", at): leaf for at, leaf in enumerate(leaves())}
    found["objects"] = objects()
    found |= {("object", name): value for name, value in objects().items()}
    found["aliased"] = aliased()
    found["large list"] = [[n, str(n)] for n in range(PAGE_MANY)]
    found["large dict"] = {f"key {n}": {"n": n} for n in range(PAGE_MANY)}
    found["large dict"] |= dict.fromkeys(range(30), "of a number")
    found["large set"] = {f"element {n}" for n in range(PAGE_MANY)} | {(n, b"n") for n in range(30)}
    found["large in large"] = {
        "lists": [[list(range(PAGE_MANY))], {n: n for n in range(PAGE_MANY)}]
    }
    found["instance with much"] = Shop("large")
    found["instance with much"].stock = {f"article {n}": n for n in range(PAGE_MANY)}
    found["blob"] = bytes(range(256)) * 60
    found["text"] = "line\n" * 3000
    found["whole dict"] = {DAY + dt.timedelta(n): n for n in range(500)}
    return found


def deep() -> dict[str, Any]:
    """Return what is written with tiny pages, so that a list has indexes below its root."""
    return {
        "deep list": [f"item {n}" for n in range(1500)],
        "deep dict": {f"key {n}": n for n in range(300)},
    }


def fill(store: Any) -> None:
    """Write everything, in several ways."""
    content = values()
    for key, value in content.items():
        if isinstance(value, list) and len(value) == PAGE_MANY:
            store[key] = value[: PAGE_MANY // 2]
            store[key].extend(value[PAGE_MANY // 2 :])
        else:
            store[key] = value
    # pages that were split and joined
    store["large list"].insert(100, "x")
    del store["large list"][100]
    # what was deleted and is not reclaimed yet
    store["gone"] = [{"n": n, "text": "x" * 50} for n in range(20_000)]
    usual, paging.PAGE = paging.PAGE, TINY
    try:
        for key, value in deep().items():
            store[key] = [] if isinstance(value, list) else {}
            add = store[key].extend if isinstance(value, list) else store[key].update
            add(value)
    finally:
        paging.PAGE = usual
    del store["gone"]


def main(target: str) -> None:
    """Write the file, compressed, without its free pages."""
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "store")
        with richstore.open(path, synchronous="off") as store:
            fill(store)
            store.backup(os.path.join(directory, "copy"))
        with open(os.path.join(directory, "copy"), "rb") as copy, open(target, "wb") as file:
            file.write(gzip.compress(copy.read(), 9, mtime=0))


if __name__ == "__main__":
    main(sys.argv[1])
