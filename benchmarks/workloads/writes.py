"""Single changes, one commit each, beside bare LMDB that puts the pickle of what is new."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.adapters import Floor, RichStore
from benchmarks.timing import Result, Scale, compare, each
from benchmarks.values import Account, row, table

__all__ = ["writes"]

_APPEND_LIMITS = {"off": 10.0, "full": 1.2}
CHANGES = 100


def writes(directory: Path, scale: Scale) -> list[Result]:
    """Time changes of one nested item, and a transaction of many."""
    return [
        result
        for synchronous in ("off", "full")
        for result in _writes(directory / synchronous, scale, synchronous)
    ]


def _writes(directory: Path, scale: Scale, synchronous: str) -> list[Result]:
    group = f'Changes, one commit each, `synchronous="{synchronous}"`'
    if synchronous == "off":
        number, rounds = scale.writes, scale.rounds
    else:
        number, rounds = scale.syncs, scale.sync_rounds
    results = []
    with (
        RichStore(directory / "ours", synchronous) as adapter,
        Floor(directory / "floor", synchronous) as floor,
    ):
        assert isinstance(adapter, RichStore) and isinstance(floor, Floor)
        store = adapter.store

        def one(
            name: str,
            operation: Callable[[Any], Any],
            argument: Callable[[int], Any],
            limit: float | None = None,
            after: Callable[[], Any] = lambda: None,
        ) -> None:
            keys = [f"key {at}" for at in range(10)]
            turn = iter(range(10**9))

            def put(value: Any) -> None:
                floor.put(keys[next(turn) % 10], value)

            results.append(
                compare(
                    group,
                    name,
                    "put of the new item's pickle",
                    each(operation, number, before=argument, after=after),
                    each(put, number, before=argument),
                    rounds,
                    limit,
                )
            )

        store["table"] = table()
        rows = store["table"]["rows"]
        append, pop = rows.append, rows.pop
        limit = _APPEND_LIMITS[synchronous]
        one("`append` of a dict to a nested list of 10", append, row, limit, pop)
        third = rows[3]

        def set_item(value: Any) -> None:
            third["price"] = value

        one("item of a nested dict", set_item, float)

        store["ann"] = Account("ann")
        ann = store["ann"]

        def set_attribute(value: Any) -> None:
            ann.balance = value

        one("attribute of an instance", set_attribute, int)

        def set_value(value: Any) -> None:
            store["small"] = value

        one('`store["k"] =` a small dict', set_value, row)
        one('`store["k"] =` an int', set_value, int)

        def change_many(value: int) -> None:
            with store.transaction():
                for at in range(CHANGES):
                    rows[at % 10]["price"] = value + at

        def put_many(value: int) -> None:
            floor.put_many({f"key {at}": value + at for at in range(CHANGES)})

        few = max(1, number // 10)
        results.append(
            compare(
                group,
                f"transaction of {CHANGES} changes",
                f"{CHANGES} puts in a transaction",
                each(change_many, few),
                each(put_many, few),
                rounds,
            )
        )
    return results
