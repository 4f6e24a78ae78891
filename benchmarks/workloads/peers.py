"""Other stores of Python values: set an item inside a value durably, and read it.

Each is told to have a change on the disk when the call returns. Those that know only whole values
read, change and store the whole.
"""

from __future__ import annotations

import contextlib
import statistics
from pathlib import Path

from benchmarks.adapters import PEERS, Adapter, Floor, RichStore
from benchmarks.timing import Result, Scale, Timed, each, interleave
from benchmarks.values import PLACE, table

__all__ = ["peers"]


def peers(directory: Path, scale: Scale) -> list[Result]:
    """Time every store that is installed beside bare LMDB with pickle."""
    kinds: tuple[type[Adapter], ...] = (RichStore, Floor, *PEERS)
    with contextlib.ExitStack() as stack:
        adapters: list[Adapter] = []
        for kind in kinds:
            if kind.installed():
                adapter = stack.enter_context(kind(directory / kind.name, "full"))
                adapter.put("table", table())
                adapters.append(adapter)
        sets = {adapter.name: _sets(adapter, scale.syncs) for adapter in adapters}
        gets = {adapter.name: _gets(adapter, max(1, scale.reads // 100)) for adapter in adapters}
        return [
            *_beside_floor("Peers: set a nested item, durably", sets, scale.sync_rounds),
            *_beside_floor("Peers: read a nested item", gets, scale.rounds),
        ]


def _sets(adapter: Adapter, number: int) -> Timed:
    return each(lambda value: adapter.change("table", PLACE, value), number, before=float)


def _gets(adapter: Adapter, number: int) -> Timed:
    return each(lambda _: adapter.read("table", PLACE), number)


def _beside_floor(group: str, sides: dict[str, Timed], rounds: int) -> list[Result]:
    found = interleave(sides, rounds)
    floor = found[Floor.name]
    results = []
    for name, times in found.items():
        if name == Floor.name:
            continue
        ratios = [a / b for a, b in zip(times, floor, strict=True)]
        medians = (statistics.median(times), statistics.median(floor))
        results.append(
            Result(
                group, name, Floor.name, statistics.median(ratios), seconds=medians, rounds=ratios
            )
        )
    return results
