"""Single operations on a large container: warm, fresh, cold, and marked for strace."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from time import perf_counter
from typing import Any

from benchmarks import kernel
from benchmarks.tasks.session import Session, Times
from benchmarks.values import entry, row

__all__ = ["operate", "operate_fresh", "read_cold", "repeat"]

# An operation is the calls that make it up, each timed under a name or not at all.
Call = tuple[str, Callable[[Any, Any], Any]]


def _operation(session: Session, name: str, kind: str, size: int) -> list[Call]:
    """Return the calls of an operation; together they leave the container as it was."""
    session.turn += 1
    turn, at = session.turn, session.random.randrange(max(size, 1))
    place: Any = entry(at) if kind == "dict" else at
    new: Any = entry(size + turn)
    if name == "append":
        return [("append", lambda a, h: a.append(h, turn)), ("pop", lambda a, h: a.pop(h))]
    if name == "append dict":
        item = row(turn)
        return [("append dict", lambda a, h: a.append(h, item)), ("", lambda a, h: a.pop(h))]
    if name == "insert" and kind == "list":
        middle = size // 2
        return [
            ("insert", lambda a, h: a.insert(h, middle, turn)),
            ("", lambda a, h: a.remove(h, middle)),
        ]
    if name == "insert":
        return [
            ("insert", lambda a, h: a.set_item(h, new, turn)),
            ("pop", lambda a, h: a.remove(h, new)),
        ]
    if name == "add":
        element = size + turn
        return [
            ("add", lambda a, h: a.add(h, element)),
            ("pop", lambda a, h: a.discard(h, element)),
        ]
    return [("write", lambda a, h: a.set_item(h, place, turn))]


def operate(
    session: Session, name: str, kind: str, size: int, seconds: float, at_most: int
) -> Times:
    """Time an operation on the container that is held, and return medians."""
    adapter, held = session.adapter, session.held
    found: dict[str, list[float]] = {}
    end = perf_counter() + seconds
    while True:
        if name == "read":
            found.setdefault(name, []).append(_read(session, kind, size))
        for label, call in _operation(session, name, kind, size) if name != "read" else ():
            start = perf_counter()
            call(adapter, held)
            taken = perf_counter() - start
            if label:
                found.setdefault(label, []).append(taken)
        at_most -= 1
        if at_most <= 0 or perf_counter() >= end:
            return {label: statistics.median(times) for label, times in found.items()}


# A read can take less than looking at the clock does, so this many are timed together, unless
# one takes longer than this.
_READS = 20
_SLOW = 0.001


def _read(session: Session, kind: str, size: int) -> float:
    places = [session.random.randrange(size) for _ in range(_READS)]
    if kind == "dict":
        places = [entry(at) for at in places]  # type: ignore[misc]
    item, held = session.adapter.item, session.held
    start = perf_counter()
    item(held, places[0])
    taken = perf_counter() - start
    if taken > _SLOW:
        return taken
    start = perf_counter()
    for at in places:
        item(held, at)
    return (perf_counter() - start) / _READS


def operate_fresh(session: Session, name: str, kind: str, size: int) -> Times:
    """Time an operation as the first one on a store that was just opened."""
    found: Times = {}
    # the second call of a pair has the first one before it, so it gets an opening of its own
    count = len(_operation(session, name, kind, size))
    for timed in range(count):
        calls = _operation(session, name, kind, size)
        session.reopen()
        adapter = session.adapter
        if timed:
            calls[0][1](adapter, adapter.hold())
            session.reopen()
            adapter = session.adapter
            held = None
        label, call = calls[timed]
        start = perf_counter()
        held = adapter.hold()
        call(adapter, held)
        taken = perf_counter() - start
        if label:
            found[label] = taken
        if not timed and count > 1:
            calls[1][1](adapter, held)
    return found


def read_cold(session: Session, kind: str, size: int, count: int, seconds: float) -> Times:
    """Time reads of items whose records were not loaded yet, of a store that was just opened."""
    places = session.random.sample(range(size), min(count, size))
    session.reopen()
    adapter = session.adapter
    times = []
    held = None
    for at in places:
        place: Any = entry(at) if kind == "dict" else at
        start = perf_counter()
        if held is None:
            held = adapter.hold()
        adapter.item(held, place)
        times.append(perf_counter() - start)
        if sum(times) > seconds:
            break
    return {"read first": times[0], "read cold": statistics.median(times)}


def repeat(session: Session, name: str, kind: str, size: int, count: int) -> dict[str, int]:
    """Do an operation a number of times, with marks for strace around the first of its calls.

    Returns:
        What the kernel counted for this process between the marks.
    """
    word = f"{name}, {kind} of {size}"
    totals: dict[str, int] = {}
    for _ in range(count):
        calls = _operation(session, name, kind, size)
        before = kernel.io()
        kernel.mark(word)
        calls[0][1](session.adapter, session.held)
        kernel.mark()
        for key, value in kernel.io().items():
            totals[key] = totals.get(key, 0) + value - before[key]
        for _, call in calls[1:]:
            call(session.adapter, session.held)
    return totals
