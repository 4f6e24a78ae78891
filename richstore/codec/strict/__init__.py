"""The strict reader: runs the opcodes of records, and calls nothing that was not allowed.

Theory of operation
-------------------

A machine of our own for the opcodes that our writer emits; every other one is refused. `machine`
says what it calls, `filling` what it fills, `limits` what that may cost, `opcodes` what each of
them does, and `parts` what a record may say of itself.

The containers of a record are put into the memo before, as the *prelude* of `records` does it.
"""

from __future__ import annotations

import zoneinfo
from collections.abc import Callable
from typing import Any

from richstore.codec import records, standard
from richstore.codec.policy import StrictPolicy
from richstore.codec.strict.opcodes import Reader
from richstore.codec.strict.parts import check_parts, rows
from richstore.codec.strict.pickles import ForeignReader, PickleReader
from richstore.codec.strict.shapes import shape
from richstore.errors import CorruptionError

__all__ = [
    "ForeignReader",
    "Reader",
    "check_parts",
    "class_of",
    "decode",
    "is_standard",
    "load",
    "shape",
]


def load(data: bytes, policy: StrictPolicy, *, document: bool = False) -> Any:
    """Return the value of a pickle.

    Args:
        data: the pickle.
        policy: says what it may name.
        document: whether `pickle.dumps` wrote it, and not a record.
    """
    return (PickleReader if document else Reader)(data, policy, {}).run()


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
    for slot, _, head in rows(parts):
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
