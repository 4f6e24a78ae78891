"""Whole values: passes over them, opening, snapshots, churn."""

from __future__ import annotations

import contextlib
import gc
import pickle
from time import perf_counter

from benchmarks.adapters import RichStore
from benchmarks.tasks.session import Session, Times
from benchmarks.values import entry, row

__all__ = [
    "append_few",
    "churn",
    "hold_snapshot",
    "open_and_read",
    "read_last",
    "scan",
    "scan_items",
    "scan_pickle",
]


def scan(session: Session, how: str) -> Times:
    """Time one pass over a list of dicts of a store that was just opened."""
    session.reopen()
    adapter = session.adapter
    start = perf_counter()
    if how == "plain" and isinstance(adapter, RichStore):
        rows = adapter.scan_plain()
    else:
        rows = adapter.scan(adapter.hold())
    total = 0
    for each in rows:
        total += each["id"]
    return {"scan": perf_counter() - start, "sum": total}


def scan_pickle(session: Session, size: int) -> Times:
    """Time `pickle.loads` of the whole list of dicts and a pass over it."""
    stored = pickle.dumps([row(at) for at in range(size)], 5)
    gc.collect()
    start = perf_counter()
    total = 0
    for each in pickle.loads(stored):
        total += each["id"]
    return {"scan": perf_counter() - start, "sum": total}


def scan_items(session: Session) -> int:
    """Make one pass over a list, and return how many items it has."""
    count = 0
    for _ in session.adapter.scan(session.adapter.hold()):
        count += 1
    return count


def open_and_read(session: Session, size: int) -> Times:
    """Time the opening of a store and the read of the last item of its list, if it has one."""
    assert session.where is not None
    session.close()
    start = perf_counter()
    adapter = session.adapter = session.kind(*session.where)
    opened = perf_counter()
    if size:
        adapter.last(adapter.hold(), size)
    else:
        with contextlib.suppress(KeyError):
            adapter.get("nothing")
    end = perf_counter()
    return {"open": opened - start, "open and read": end - start}


def read_last(session: Session, size: int) -> None:
    """Read the last item of the list."""
    session.adapter.last(session.adapter.hold(), size)


def append_few(session: Session, count: int) -> None:
    """Append to the list, one commit each, and take the items off again."""
    adapter, held = session.adapter, session.adapter.hold()
    for at in range(count):
        adapter.append(held, at)
    for _ in range(count):
        adapter.pop(held)


def hold_snapshot(session: Session, hold: bool) -> None:
    """Open a snapshot, or close the one that is open."""
    if hold:
        session.snapshot.enter_context(session.adapter.snapshot())
    else:
        session.snapshot.close()


def churn(session: Session, kind: str, size: int, changes: int, group: int) -> None:
    """Set items of a container at random, a group of changes in each commit."""
    adapter = session.adapter
    for _ in range(changes // group):
        with adapter.transaction():
            held = adapter.hold()
            for _ in range(group):
                session.turn += 1
                at = session.random.randrange(size)
                adapter.set_item(held, entry(at) if kind == "dict" else at, session.turn)
