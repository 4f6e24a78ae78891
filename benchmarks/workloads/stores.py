"""The store itself: reads by key, points of refresh, snapshots."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from benchmarks.adapters import Floor, RichStore
from benchmarks.timing import Result, Scale, compare, each, statement
from benchmarks.values import row, table

__all__ = ["stores"]

_GROUP = "The store itself"


def stores(directory: Path, scale: Scale) -> list[Result]:
    """Time reads by key, refresh points and the opening of snapshots."""
    results = []
    with (
        RichStore(directory / "ours", "off") as adapter,
        RichStore(directory / "large", "off") as large,
        Floor(directory / "floor", "off") as floor,
    ):
        assert isinstance(adapter, RichStore) and isinstance(large, RichStore)
        assert isinstance(floor, Floor)
        for any_store in (adapter, floor):
            any_store.put("table", table())
        store, rounds, number = adapter.store, scale.rounds, scale.reads // 10

        def against(name: str, source: str, base: str, beside: str, plain: bool = False) -> None:
            subject = {"table": table()} if plain else floor
            ours, other = statement(source, store, number), statement(base, subject, number)
            results.append(compare(_GROUP, name, beside, ours, other, rounds))

        against('`store["k"]`, hot', "p['table']", "p.get('table')", "get and unpickle, bare LMDB")
        deep = "p['table']['rows'][3]['price']"
        walk = "p.get('table')['rows'][3]['price']"
        against('`store["k"]["rows"][3]["price"]`, hot', deep, walk, "the same, bare LMDB")
        against('`store["k"]["rows"][3]["price"]`, hot', deep, deep, "the same, plain dict", True)

        view = "p.env.begin().abort()"
        refresh = compare(
            _GROUP,
            "`store.refresh()`, nothing new",
            "in itself",
            statement("p.refresh()", store, number),
            statement(view, floor, number),
            rounds,
        )
        times = [ratio * refresh.seconds[1] * 1e6 for ratio in refresh.rounds]
        results += [
            dataclasses.replace(
                refresh, value=refresh.seconds[0] * 1e6, unit="µs", limit=1.0, rounds=times
            ),
            dataclasses.replace(refresh, beside="a read transaction, bare LMDB"),
        ]

        large.store.update((f"key {at}", row(at)) for at in range(scale.values))
        open_one = each(lambda _: store.snapshot().close(), number)
        results += [
            compare(
                _GROUP,
                "open and close a snapshot",
                "a read transaction, bare LMDB",
                open_one,
                statement(view, floor, number),
                rounds,
            ),
            compare(
                _GROUP,
                f"open and close a snapshot of {scale.values:,} values",
                "the same of 1 value",
                each(lambda _: large.store.snapshot().close(), number),
                open_one,
                rounds,
                # O(1), and what is left to chance
                1.2,
            ),
        ]
    return results
