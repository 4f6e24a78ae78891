"""A value of each standard type that is read under every policy."""

from __future__ import annotations

import collections
import datetime
import decimal
import fractions
import ipaddress
import pathlib
import uuid
import zoneinfo
from array import array
from pathlib import Path
from types import SimpleNamespace
from typing import Any

STANDARD: dict[str, Any] = {
    "datetime": datetime.datetime(2024, 2, 29, 12, 30, fold=1),
    "aware": datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC),
    "zone": datetime.datetime(2024, 7, 1, tzinfo=zoneinfo.ZoneInfo("Europe/Paris")),
    "date": datetime.date(2024, 2, 29),
    "time": datetime.time(1, 2, 3, 4, fold=1),
    "timedelta": datetime.timedelta(-1, 5, 7),
    "timezone": datetime.timezone(datetime.timedelta(hours=2), "there"),
    "decimal": decimal.Decimal("-1.50E+7"),
    "fraction": fractions.Fraction(-3, 7),
    "uuid": uuid.UUID(int=5),
    "path": pathlib.PurePosixPath("/a/b"),
    "real path": Path("a/b"),
    "complex": 1 - 2j,
    "range": range(1, 10, 3),
    "slice": slice(1, None, 2),
    "bytearray": bytearray(b"abc"),
    "frozenset": frozenset((1, ("a", 2))),
    "deque": collections.deque([1, [2]], 5),
    "ordered": collections.OrderedDict(b=1, a=[2]),
    "default": collections.defaultdict(list, a=[1]),
    "counter": collections.Counter("banana"),
    "chain": collections.ChainMap({"a": 1}, {"b": 2}),
    "namespace": SimpleNamespace(a=[1]),
    "array": array("d", [1.5, 2.5]),
    "error": ValueError("no", [1]),
    "address": ipaddress.ip_address("10.0.0.1"),
    "type": int,
    "alias": list[dict[str, int]],
    "ellipsis": ...,
    "large": 1 << 1000,
    "nested": {"a": [(1, {2}), {"b": {"c": [None, True, 1.5, b"x", "é\ud800"]}}]},
}
