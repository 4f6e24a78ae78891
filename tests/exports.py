"""Exports for tests: a store that goes there and back, and files of rows."""

from __future__ import annotations

import datetime
import decimal
import io
import json
import zoneinfo
from typing import Any

import sample_classes
from conftest import canonical
from sample_classes import ATOMS
from standard_values import STANDARD

import richstore
from richstore.transfer import export, load

__all__ = ["HEADER", "MADE", "alike", "lines", "settled", "there_and_back"]

HEADER = b'{"richstore": "export", "version": 1}\n'


def there_and_back(store: richstore.Store, **options: Any) -> richstore.Store:
    """Return a new store with what the text of another one says."""
    text = io.BytesIO()
    count = export(store, text)
    text.seek(0)
    made = richstore.open("memory:")
    assert load(text, made, classes="any", **options) == count
    return made


def lines(*rows: dict[str, Any]) -> io.BytesIO:
    """Return a whole export of these rows."""
    end = {"end": len(rows)}
    return io.BytesIO(HEADER + b"".join(json.dumps(row).encode() + b"\n" for row in (*rows, end)))


def alike(one: Any, other: Any) -> None:
    """Check that two values are the same, type by type; one NaN is like another."""
    ours, theirs = (canonical(richstore.plain(value)) for value in (one, other))
    assert settled(ours) == settled(theirs)


def settled(form: Any) -> Any:
    """Return a form of `canonical` in which NaN is equal to NaN."""
    if isinstance(form, (tuple, list, frozenset)):
        return (frozenset if isinstance(form, frozenset) else tuple)(map(settled, form))
    if isinstance(form, (float, complex)):
        return repr(form)
    return str(form) if isinstance(form, decimal.Decimal) else form


# Values of all types, made anew.
MADE = {
    **{f"standard {name}": lambda name=name: STANDARD[name] for name in STANDARD},
    **{f"atom {name}": lambda name=name: ATOMS[name] for name in ATOMS},
    **{f"made {name}": make for name, (make, _) in sample_classes.CHANGES.items()},
}
del MADE["made local class"]
MADE |= {
    "no cache": lambda: datetime.datetime(
        2024, 1, 1, tzinfo=zoneinfo.ZoneInfo.no_cache("Europe/Paris")
    ),
    "dollar keys": lambda: {"$ref": 1, "$tuple": [1], "$id": {"$id": 2}},
    "shared tuple": lambda: (lambda one: [one, (one, one), {"k": one}])(([1],)),
    "shared dict": lambda: (lambda one: [one, one])({"$a": 1, 2: [3]}),
    "attributes with odd names": lambda: sample_classes.with_attribute(
        sample_classes.Bare(), **{"$ref": 1, "a b": [2]}
    ),
    "aware time": lambda: datetime.time(1, 2, tzinfo=datetime.UTC),
    "odd offset": lambda: datetime.timezone(datetime.timedelta(seconds=-3601)),
    "pair of halves": lambda: "\ud83d\ude00",
    "negative nan": lambda: [float("nan"), float("-inf")],
    "deep": lambda: (lambda value: [value := [value] for _ in range(100)][-1])(1),
}
