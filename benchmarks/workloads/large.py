"""Large values: scans, opening, memory, size of the files.

Memory is taken in new processes, as what is allocated above the baseline: the process with the
store open and nothing read.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks import kernel
from benchmarks.adapters import Adapter, Floor, RichStore
from benchmarks.bench import Bench, Cell
from benchmarks.processes import Worker
from benchmarks.values import row

__all__ = ["files", "opening", "scans"]


def scans(bench: Bench) -> None:
    """Time a pass over lists of small dicts, cold, and take the memory of it."""
    for size in bench.scale.rows:
        cells, workers = [], []
        for kind in bench.peers:
            place = bench.built(kind, "rows", size)
            worker = None if place is None else bench.worker(kind, place, "off", hold=False)
            if worker is None:
                continue
            workers.append(worker)
            for how in ("plain", "nodes") if kind is RichStore else ("",):
                cells.append(Cell(kind, _scan(worker, size, how), "rows", size))
            if kind is Floor:
                with bench.pool.one(kind) as other:
                    cells.append(Cell(kind, _pickle(bench, other, size), "rows", size))
        bench.take_turns(f"scan of {size:,} dicts", cells, "off", most=7)
        for worker in workers:
            bench.pool.give(worker)
    for shape, sizes in (("rows", bench.scale.rows), ("list", bench.scale.sizes[-1:])):
        for size in sizes:
            for kind in _prepared(bench, shape, size):
                _memory(bench, kind, shape, size, {"scan": {"task": "scan_items"}})
    bench.say("memory taken")


def _scan(worker: Worker, size: int, how: str) -> Callable[[], dict[str, float]]:
    label = f"scan as {how}" if how else "scan"
    return lambda: {label: _checked(worker.ask("scan", how=how), size)}


def _pickle(bench: Bench, worker: Worker, size: int) -> Callable[[], dict[str, float]]:
    return lambda: {"pickle.loads and scan": _checked(worker.ask("scan_pickle", size=size), size)}


def _checked(found: dict[str, float], size: int) -> float:
    if found["sum"] != size * (size - 1) // 2:
        raise AssertionError(f"a scan of {size} rows found a sum of {found['sum']}")
    return found["scan"]


def _prepared(bench: Bench, shape: str, size: int) -> list[type[Adapter]]:
    """Return the stores that have a container of a size, with a new process for each."""
    kinds = [kind for kind in bench.peers if bench.built(kind, shape, size) is not None]
    bench.pool.prepare(kinds)
    return kinds


def _memory(
    bench: Bench, kind: type[Adapter], shape: str, size: int, tasks: dict[str, dict[str, Any]]
) -> None:
    """Take the peaks of tasks that are done one after the other in a new process."""
    place = bench.built(kind, shape, size)
    if place is None:
        return
    name = f"memory, {shape} of {size:,}"
    peaks = bench.attempt(kind, name, partial(_peaks, bench, kind, str(place), tasks))
    for what, above in (peaks or {}).items():
        bench.add(f"memory: {what}", shape, size, "off", kind, "bytes", [above])


def _peaks(
    bench: Bench, kind: type[Adapter], place: str, tasks: dict[str, dict[str, Any]]
) -> dict[str, float]:
    worker = bench.pool.fresh(kind)
    try:
        worker.ask("open_store", directory=place, synchronous=kind.word("off"))
        worker.ask("settle")
        baseline = None
        found = {}
        for what, arguments in tasks.items():
            with kernel.Peak(worker.pid) as peak:
                worker.ask(**arguments)
            baseline = peak.baseline if baseline is None else baseline
            found[what] = float(peak.highest - baseline)
        return found
    finally:
        worker.close()


def opening(bench: Bench) -> None:
    """Time opening and the first read, and take memory, against the length of a list."""
    cells, workers = [], []
    for size in (0, *bench.scale.sizes):
        for kind in bench.peers:
            place = bench.place(kind) if size == 0 else bench.built(kind, "list", size)
            worker = None if place is None else bench.worker(kind, place, "off", hold=False)
            if worker is not None:
                workers.append(worker)
                cells.append(Cell(kind, _open(worker, size), "list", size))
    bench.take_turns("opening and reading the last item", cells, "off")
    for worker in workers:
        bench.pool.give(worker)
    for size in bench.scale.sizes:
        for kind in _prepared(bench, "list", size):
            # whole values take their time, and take as much memory the first time as any other
            count = bench.scale.turn_count if size < 10**4 or kind in (RichStore, Floor) else 3
            tasks = {
                "open and read the last item": {"task": "read_last", "size": size},
                "append": {"task": "append_few", "count": count},
            }
            _memory(bench, kind, "list", size, tasks)
    bench.say("memory taken")


def _open(worker: Worker, size: int) -> Callable[[], Any]:
    return lambda: worker.ask("open_and_read", size=size)


def files(bench: Bench) -> None:
    """Compare the size of files to that of pickles, and watch them grow as entries change."""
    for size in bench.scale.rows:
        pickles = sum(len(pickle.dumps(row(at), 5)) for at in range(size))
        for kind in bench.peers:
            place = bench.built(kind, "rows", size)
            if place is not None:
                ratio = kernel.file_bytes(place) / pickles
                bench.add("file size over pickles", "rows", size, "off", kind, "×", [ratio])
    for kind in bench.peers:
        for held in (False, True):
            if held and not bench.able(kind, "snapshot", "growth with a snapshot"):
                continue
            found = bench.attempt(kind, "churn", partial(_grow, bench, kind, held))
            what = f"file size under churn{', snapshot open' * held}"
            for turn, size in enumerate(found or ()):
                bench.add(what, "rounds", turn, "off", kind, "bytes", [size])


def _grow(bench: Bench, kind: type[Adapter], held: bool) -> list[float]:
    scale = bench.scale
    place = bench.place(kind)
    with bench.pool.one(kind) as worker:
        worker.ask("open_store", directory=str(place), synchronous=kind.word("off"))
        worker.ask("build", kind="dict", size=scale.churn)
        sizes = [float(kernel.file_bytes(place))]
        if held:
            worker.ask("hold_snapshot", hold=True)
        for _ in range(scale.churns):
            worker.ask(
                "churn",
                kind="dict",
                size=scale.churn,
                changes=scale.churn,
                group=min(100, scale.churn),
            )
            sizes.append(float(kernel.file_bytes(place)))
        worker.ask("hold_snapshot", hold=False)
        return sizes
