"""The change log: which records the last commits changed, newest first, in one bounded record.

An entry is the commit's number (8 bytes), the length of the rest (4 bytes), and the names of the
changed records, each after its length (2 bytes). An entry whose names would not fit has the length
`ALL` and no names: everything may have changed.
"""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["changed_since", "extend"]

# Small enough that LMDB keeps the log within a page of its tree.
LIMIT = 1000
ALL = 0xFFFFFFFF


def extend(log: bytes, commit: int, names: Iterable[bytes]) -> bytes:
    """Return the log with an entry for `commit` in front and what is too old cut off."""
    rest = b"".join([len(name).to_bytes(2, "little") + name for name in names])
    if len(rest) + 12 > LIMIT:
        return commit.to_bytes(8, "little") + ALL.to_bytes(4, "little")
    # the oldest entry may be cut in two: a reader who needs it is told that all may have changed
    return (commit.to_bytes(8, "little") + len(rest).to_bytes(4, "little") + rest + log)[:LIMIT]


def changed_since(log: bytes, seen: int, commit: int) -> set[bytes] | None:
    """Return the names that the commits after `seen` up to `commit` changed; None: maybe all."""
    changed: set[bytes] = set()
    at = 0
    expected = commit
    while expected > seen:
        if at + 12 > len(log) or int.from_bytes(log[at : at + 8], "little") != expected:
            return None
        size = int.from_bytes(log[at + 8 : at + 12], "little")
        if size == ALL:
            return None
        at += 12
        end = at + size
        if end > len(log):
            return None
        while at < end:
            length = int.from_bytes(log[at : at + 2], "little")
            changed.add(log[at + 2 : at + 2 + length])
            at += 2 + length
        expected -= 1
    return changed
