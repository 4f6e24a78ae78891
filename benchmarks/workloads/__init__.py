"""What is measured. A workload takes a run and leaves its figures there.

The first four compare richstore with plain Python and with bare LMDB, in one process; the others
compare it with its peers, each in a process of its own.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from benchmarks.bench import Bench
from benchmarks.timing import Result, Scale
from benchmarks.workloads.containers import containers
from benchmarks.workloads.imports import imports
from benchmarks.workloads.large import files, opening, scans
from benchmarks.workloads.mixes import appends, mix
from benchmarks.workloads.reads import reads
from benchmarks.workloads.shootout import nested, shootout
from benchmarks.workloads.stores import stores
from benchmarks.workloads.writes import writes

__all__ = ["WORKLOADS"]


def _in_one_process(workload: Callable[[Path, Scale], list[Result]]) -> Callable[[Bench], None]:
    def run(bench: Bench) -> None:
        place = bench.directory / workload.__name__
        bench.results += workload(place, bench.scale)
        shutil.rmtree(place, ignore_errors=True)

    return run


WORKLOADS: dict[str, Callable[[Bench], None]] = {
    "reads": _in_one_process(reads),
    "writes": _in_one_process(writes),
    "stores": _in_one_process(stores),
    "imports": _in_one_process(imports),
    "shootout": shootout,
    "containers": containers,
    "nested": nested,
    "mix": mix,
    "appends": appends,
    "scan": scans,
    "open": opening,
    "files": files,
}
