"""What a record says of itself: its node table, and its references to others."""

from __future__ import annotations

from collections.abc import Iterator

from richstore.codec import records
from richstore.errors import CorruptionError

__all__ = ["check_parts", "rows"]

# Slots of a record: what a change does costs memory in proportion to the highest.
_SLOTS = 1 << 24
# First bytes of the engine keys of values and shared records, which are known above this layer.
_VALUES, _SHARED = (b"\x10", b"\x11"), b"\x23"


def rows(parts: records.Parts) -> Iterator[tuple[int, int, int]]:
    """Return slot, number and head of each node."""
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


def _forged(name: bytes, what: str) -> CorruptionError:
    return CorruptionError(f"record {name!r} has {what}")
