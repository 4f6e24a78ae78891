"""Single operations on containers of every size: times warm, fresh and cold; bytes and syncs.

One file for each container; the operations leave them as they were, so that a size is a size
throughout. *Warm*: again and again on the same open store. *Fresh*: the first operation after
opening. *Cold*: reads of items, far apart, none of whose records was loaded.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import kernel
from benchmarks.adapters import Adapter
from benchmarks.bench import Bench, Cell
from benchmarks.processes import Worker

__all__ = ["containers"]

_OPERATIONS = {
    "list": ("append", "append dict", "insert", "write", "read"),
    "dict": ("insert", "write", "read"),
    "set": ("add",),
}
# What a durable commit adds is the same everywhere; it is measured where a target says so.
_DURABLE = {"list": ("append", "append dict"), "dict": ("insert",), "set": ()}
_FRESH = {"list": ("append", "write"), "dict": ("insert", "write"), "set": ("add",)}
_COUNTED = {"list": ("append dict", "insert", "write"), "dict": ("insert",), "set": ()}


def containers(bench: Bench) -> None:
    """Time lists, dicts and sets of all sizes."""
    for shape in _OPERATIONS:
        for asked, operations in (("off", _OPERATIONS[shape]), ("full", _DURABLE[shape])):
            if operations:
                _one_shape(bench, shape, asked, operations)
    for kind in bench.peers:
        _count(bench, kind)
    bench.say("bytes and syncs counted")


def _one_shape(bench: Bench, shape: str, asked: str, operations: tuple[str, ...]) -> None:
    workers: list[tuple[type[Adapter], int, Worker]] = []

    def alive() -> list[tuple[type[Adapter], int, Worker]]:
        """Return all workers, with new ones for those that ended at the last operation."""
        known = {(kind, size): worker for kind, size, worker in workers if not worker.dead}
        workers.clear()
        for size in bench.scale.sizes:
            for kind in bench.peers:
                worker = known.get((kind, size))
                place = None if worker else bench.built(kind, shape, size)
                if place is not None:
                    worker = bench.worker(kind, place, asked, hold=True)
                if worker is not None:
                    workers.append((kind, size, worker))
        return workers

    # a commit that waits for the disk varies widely, so there are more rounds, of fewer operations
    most = bench.scale.most if asked == "off" else bench.scale.sync_rounds
    for name in operations:
        able = [each for each in alive() if _can(bench, each[0], shape, name)]
        cells = [
            Cell(kind, _warm(bench, worker, name, shape, size, asked), shape, size)
            for kind, size, worker in able
        ]
        bench.take_turns(f"{name}, {shape}, {asked}", cells, asked, most=most)

    def of(size: int) -> dict[str, Any]:
        return {"kind": shape, "size": size}

    if asked == "off":
        for name in _FRESH[shape]:
            cells = [
                Cell(kind, _ask(worker, "operate_fresh", name=name, **of(size)), shape, size)
                for kind, size, worker in alive()
            ]
            bench.take_turns(
                f"{name}, {shape}, fresh", cells, asked, rename=lambda label: f"{label}, fresh"
            )
        if shape != "set":
            some = {"count": bench.scale.cold, "seconds": bench.scale.budget / 10}
            cells = [
                Cell(kind, _ask(worker, "read_cold", **some, **of(size)), shape, size)
                for kind, size, worker in alive()
            ]
            bench.take_turns(f"read, {shape}, cold", cells, asked)
    for _, _, worker in workers:
        bench.pool.give(worker)


def _can(bench: Bench, kind: type[Adapter], shape: str, name: str) -> bool:
    return shape != "list" or name != "insert" or bench.able(kind, "insert", "insert into a list")


def _warm(
    bench: Bench, worker: Worker, name: str, shape: str, size: int, asked: str
) -> Callable[[], Any]:
    scale = bench.scale
    count = scale.turn_count if asked == "off" else scale.syncs
    arguments = {"name": name, "kind": shape, "size": size, "at_most": count}

    def visit() -> Any:
        return worker.ask("operate", seconds=scale.turn, **arguments)

    return visit


def _ask(worker: Worker, task: str, **arguments: Any) -> Callable[[], Any]:
    return lambda: worker.ask(task, **arguments)


def _count(bench: Bench, kind: type[Adapter]) -> None:
    """Count bytes and syncs of operations, each commit durable, in one process that is traced."""
    log = bench.directory / "strace"
    before = kernel.strace(log)
    worker: Worker | None = None
    counts: dict[tuple[str, str, int], dict[str, int]] = {}
    for shape, names in _COUNTED.items():
        for size in bench.scale.sizes if names else ():
            place = bench.built(kind, shape, size)
            for name in names:
                if place is None or not _can(bench, kind, shape, name):
                    continue
                if worker is None or worker.dead:
                    worker = bench.pool.fresh(kind, before)
                what = f"counting {name}, {shape} of {size:,}"
                arguments = {"name": name, "kind": shape, "size": size}
                action = partial(_repeat, worker, place, bench.scale.counted, arguments)
                found = bench.attempt(kind, what, action)
                if found is not None:
                    counts[name, shape, size] = found
    if worker is not None:
        worker.close()
    traced = kernel.strace_counts(log) if before and counts else {}
    if not before:
        why = "strace is not installed; bytes are those that /proc/self/io counts, if it is there"
        bench.note(kind, "syncs", why)
    for (name, shape, size), found in counts.items():
        figures = traced.get(f"{name}, {shape} of {size}", {})
        if not figures and "wchar" in found:
            figures = {"bytes": found["wchar"], "calls": found["syscw"]}
        if "write_bytes" in found:
            figures["bytes to pages"] = found["write_bytes"]
        for unit, number in figures.items():
            each = number / bench.scale.counted
            bench.add(name, shape, size, "full", kind, unit, [each])
        if figures.get("bytes") == 0:
            _disqualify(bench, kind, name, shape, size)


def _repeat(worker: Worker, place: Path, count: int, arguments: dict[str, Any]) -> Any:
    word = worker.kind.word("full")
    worker.ask("open_store", directory=str(place), synchronous=word, hold=True)
    # the first one is not like every other one
    worker.ask("operate", seconds=0, at_most=1, **arguments)
    return worker.ask("repeat", count=count, **arguments)


def _disqualify(bench: Bench, kind: type[Adapter], name: str, shape: str, size: int) -> None:
    """Take back the figures of changes that were not written."""
    bench.note(
        kind,
        f"{name}, {shape} of {size:,}",
        "its commit wrote nothing after this change, so its figures are taken back",
    )
    bench.rows[:] = [
        row
        for row in bench.rows
        if (row.peer, row.kind, row.size) != (kind.name, shape, size)
        or row.workload != bench.workload
        or row.what.removesuffix(", fresh") != name
    ]
