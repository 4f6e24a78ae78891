"""What is measured. A workload takes a directory and a scale, and returns its figures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from benchmarks.timing import Result, Scale
from benchmarks.workloads.imports import imports
from benchmarks.workloads.peers import peers
from benchmarks.workloads.reads import reads
from benchmarks.workloads.stores import stores
from benchmarks.workloads.writes import writes

__all__ = ["WORKLOADS"]

WORKLOADS: dict[str, Callable[[Path, Scale], list[Result]]] = {
    "reads": reads,
    "writes": writes,
    "stores": stores,
    "imports": imports,
    "peers": peers,
}
