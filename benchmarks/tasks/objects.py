"""Many small objects, as zodbshootout has them; values inside values."""

from __future__ import annotations

import gc
import statistics
from collections.abc import Callable
from time import perf_counter
from typing import Any

from benchmarks.tasks.session import Session, Times
from benchmarks.values import entry, nested, payload

__all__ = ["change_nested", "nest", "shoot"]


def shoot(session: Session, objects: int, size: int) -> Times:
    """Run zodbshootout's round: add, update, read cold, hot and steamin', and single objects."""
    adapter = session.adapter
    names = [entry(at) for at in range(objects)]
    adapter.start_objects()
    new = {name: adapter.thing(0, payload(size, at)) for at, name in enumerate(names)}
    found: Times = {}

    def time(label: str, call: Callable[[], Any]) -> Any:
        gc.collect()
        start = perf_counter()
        result = call()
        found[label] = perf_counter() - start
        return result

    time("add", lambda: adapter.add_objects(new))
    # what the store has loaded is all that stays
    new.clear()
    session.turn += 1
    turn = session.turn
    time("update", lambda: adapter.update_objects(names, turn))
    one = {"one more": adapter.thing(turn, payload(size, turn))}
    time("add one", lambda: adapter.add_objects(one))
    one.clear()
    time("update one", lambda: adapter.update_objects(names[:1], turn))
    expected = turn * (objects + 1)
    del adapter
    known = getattr(session.adapter, "names", None)
    session.reopen()
    adapter = session.adapter
    if known is not None:
        adapter.names = known
    # opened, but nothing is loaded
    total = time("read cold", adapter.read_objects)
    adapter.cool()
    total += time("read hot", adapter.read_objects)
    total += time("read steamin'", adapter.read_objects)
    if total != 3 * expected:
        raise AssertionError(f"read a sum of {total} in three passes, not {3 * expected}")
    return found


def nest(session: Session, depth: int) -> None:
    """Put dicts inside each other and instances inside each other."""
    adapter = session.adapter
    adapter.put("dicts", nested(depth))
    thing = adapter.thing(0, "innermost")
    for _ in range(depth - 1):
        thing = adapter.thing(0, thing)
    adapter.put("things", thing)


def change_nested(session: Session, depth: int, seconds: float, at_most: int) -> Times:
    """Time the update of the innermost dict and of the innermost instance, from the top."""
    adapter = session.adapter
    place = ("down",) * (depth - 1) + ("n",)
    items, attributes = [], []
    end = perf_counter() + seconds
    while True:
        session.turn += 1
        start = perf_counter()
        adapter.change("dicts", place, session.turn)
        middle = perf_counter()
        adapter.change_attribute("things", depth, session.turn)
        attributes.append(perf_counter() - middle)
        items.append(middle - start)
        at_most -= 1
        if at_most <= 0 or perf_counter() >= end:
            return {"item": statistics.median(items), "attribute": statistics.median(attributes)}
