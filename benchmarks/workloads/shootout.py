"""zodbshootout's round: add, update and read 1,000 objects, and single objects; and nested updates.

*Cold*: the store was just opened. *Hot*: the objects were read before and forgotten, the store is
open. *Steamin'*: they are loaded. In all three the files are in the system's cache.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.bench import Bench, Cell
from benchmarks.processes import Worker

__all__ = ["nested", "shootout"]


def shootout(bench: Bench) -> None:
    """Time objects with payloads, all in one transaction and one in each."""
    scale = bench.scale
    for asked in ("full", "off"):
        workers: list[Worker] = []
        for size in scale.payloads:
            cells = []
            for kind in bench.peers:
                if worker := bench.worker(kind, bench.place(kind), asked, hold=False):
                    workers.append(worker)
                    cells.append(Cell(kind, _shot(worker, scale.objects, size), "objects", size))
            bench.take_turns(
                f"objects of {size} bytes, {asked}",
                cells,
                asked,
                least=scale.shots,
                most=scale.shots,
            )
        for worker in workers:
            bench.pool.give(worker)


def _shot(worker: Worker, objects: int, size: int) -> Callable[[], Any]:
    return lambda: worker.ask("shoot", objects=objects, size=size)


def nested(bench: Bench) -> None:
    """Time updates of an item and of an attribute, one commit each, from the top down."""
    scale = bench.scale
    for asked in ("full", "off"):
        cells, workers = [], []
        for depth in scale.depths:
            for kind in bench.peers:
                worker = bench.worker(kind, bench.place(kind), asked, hold=False)
                if worker is None:
                    continue
                workers.append(worker)
                cells.append(Cell(kind, _update(bench, worker, depth), "levels", depth))
        bench.take_turns(f"nested updates, {asked}", cells, asked)
        for worker in workers:
            bench.pool.give(worker)


def _update(bench: Bench, worker: Worker, depth: int) -> Callable[[], Any]:
    scale = bench.scale
    ready = False

    def visit() -> Any:
        nonlocal ready
        if not ready:
            worker.ask("nest", depth=depth)
            ready = True
        return worker.ask(
            "change_nested", depth=depth, seconds=scale.turn, at_most=scale.turn_count
        )

    return visit
