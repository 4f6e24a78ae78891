"""What several workers do at the same time on one file."""

from __future__ import annotations

import contextlib
import random
import statistics
from time import perf_counter
from typing import Any

from benchmarks.tasks.session import Session

__all__ = ["append_many", "count_marks", "fill", "mix"]

_KEYS = 1100


def fill(session: Session) -> int:
    """Set all keys of the mix, and return how many they are."""
    with session.adapter.transaction():
        for at in range(_KEYS):
            session.adapter.put(f"key {at}", at)
    return _KEYS


def mix(session: Session, count: int, seed: int) -> dict[str, Any]:
    """Do gets, sets and deletes, 100 : 10 : 1, of random keys, as diskcache's benchmark does."""
    chance = random.Random(seed)
    adapter = session.adapter
    found: dict[str, list[float]] = {"get": [], "set": [], "delete": []}
    began = perf_counter()
    for _ in range(count):
        key, choice = f"key {chance.randrange(_KEYS)}", chance.randrange(111)
        start = perf_counter()
        if choice < 100:
            label = "get"
            with contextlib.suppress(KeyError):
                adapter.get(key)
        elif choice < 110:
            label = "set"
            adapter.put(key, choice)
        else:
            label = "delete"
            adapter.delete(key)
        found[label].append(perf_counter() - start)
    seconds = perf_counter() - began
    medians = {label: statistics.median(times) for label, times in found.items() if times}
    return {"seconds": seconds, "operations": count, **medians}


# What is appended is a mark, times this, and a count.
_MARK = 1_000_000


def append_many(session: Session, count: int, mark: int) -> float:
    """Append items that bear a mark, one commit each; return the seconds."""
    adapter, held = session.adapter, session.adapter.hold()
    start = perf_counter()
    for at in range(count):
        adapter.append(held, mark * _MARK + at)
    return perf_counter() - start


def count_marks(session: Session) -> dict[str, list[int]]:
    """Return what was appended under each mark, in the order of the list."""
    found: dict[str, list[int]] = {}
    for item in session.adapter.scan(session.adapter.hold()):
        mark, at = divmod(item, _MARK)
        found.setdefault(str(mark), []).append(at)
    return found
