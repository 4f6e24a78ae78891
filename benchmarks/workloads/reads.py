"""Reads through a held reference, beside the same statement on the plain value."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.adapters import RichStore
from benchmarks.timing import Result, Scale, compare, statement
from benchmarks.values import Account, table
from richstore import is_tracked

__all__ = ["reads"]

_GROUP = "Reads through a held reference"
_SIZES = (1000, 10)


def reads(directory: Path, scale: Scale) -> list[Result]:
    """Time single reads of containers and instances, and iteration."""
    results = []
    with RichStore(directory, "off") as adapter:

        def one(
            name: str, source: str, plain: Any, stored: Any, limit: float | None, work: int = 1
        ) -> None:
            assert is_tracked(stored)
            # `work` is about how many items one statement touches
            number = max(1, scale.reads // work)
            ours, base = (statement(source, subject, number) for subject in (stored, plain))
            results.append(
                compare(_GROUP, name, f"`{source}`, plain", ours, base, scale.rounds, limit)
            )

        def keep(value: Any) -> Any:
            adapter.put("value", {"held": value})
            return adapter.get("value")["held"]

        for size in _SIZES:
            items = f"{size:,} items"
            mapping = {f"k{at}": at for at in range(size)}
            held = keep(mapping)
            key = f"k{size // 2}"
            one(f"dict item, {items}", f"p[{key!r}]", mapping, held, 1.5)
            one(f"dict `in`, {items}", f"{key!r} in p", mapping, held, 1.5)
            one(f"dict `len`, {items}", "len(p)", mapping, held, 1.5)
            one(f"dict iteration, {items}", "for _ in p: pass", mapping, held, 1.5, size)
            one(f"dict `get`, {items}", f"p.get({key!r})", mapping, held, None)
            one(f"dict `items()`, {items}", "for _ in p.items(): pass", mapping, held, None, size)
            sequence = list(range(size))
            held = keep(sequence)
            one(f"list item, {items}", f"p[{size // 2}]", sequence, held, 1.5)
            one(f"list item from the end, {items}", "p[-1]", sequence, held, 1.5)
            loop = f"for i in range({size}): p[i]"
            one(f"list items in a loop, {items}", loop, sequence, held, 1.5, size)
            # a short way into the list, so that it is the call that is compared
            one(f"list `in`, {items}", "3 in p", sequence, held, 1.5)
            one(f"list `len`, {items}", "len(p)", sequence, held, 1.5)
            one(f"list iteration, {items}", "for _ in p: pass", sequence, held, 1.5, size)
            members = set(range(size))
            held = keep(members)
            one(f"set `in`, {items}", f"{size // 2} in p", members, held, 1.5)
            one(f"set iteration, {items}", "for _ in p: pass", members, held, 1.5, size)
        deep = table()
        held = keep(deep)
        one("three levels, item by item", "p['rows'][3]['price']", deep, held, None)
        account = Account("ann", 10)
        # another one is stored: Python reads attributes more slowly once `__dict__` was looked at
        held = keep(Account("ann", 10))
        one("attribute of an instance", "p.balance", account, held, 2.0)
        one("method of an instance", "p.total()", account, held, 2.0)
    return results
