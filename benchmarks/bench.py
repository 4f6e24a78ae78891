"""A run: its scale, its workers, the files that workloads share, and what was found.

The rule: everything to be compared is visited in turns (`take_turns`), each peer in a process of
its own; nothing is left out without a note that names it.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

from benchmarks.adapters import Adapter
from benchmarks.processes import Pool, Worker, WorkerError
from benchmarks.timing import Result, Scale

__all__ = ["Bench", "Cell", "Note", "Row"]

# Failures of what is measured; anything else is a fault of the benchmarks.
_FAILURES = (WorkerError, OSError)


@dataclass(frozen=True)
class Row:
    """One figure of one peer.

    Attributes:
        workload: what it belongs to.
        what: the operation.
        kind: of container: `"list"`, `"dict"`, `"set"`, `"rows"`; or what else distinguishes it.
        size: how many items, bytes or levels.
        asked: the durability that was asked of all: `"full"` or `"off"`.
        peer: whose.
        durable: what the peer did, in words.
        unit: of the value: `s`, `bytes`, `syncs`, `ops/s`, `×`.
        value: the median of the samples.
        samples: one for each round, in the order of the rounds.
    """

    workload: str
    what: str
    kind: str
    size: int
    asked: str
    peer: str
    durable: str
    unit: str
    value: float
    samples: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Note:
    """What was not measured, and why."""

    workload: str
    peer: str
    what: str
    why: str


@dataclass
class Cell:
    """What is visited once in each round: a peer at a size.

    Attributes:
        kind: the make of the store.
        visit: does the operation for a moment and returns figures by name.
        shape: the kind of container of the row.
        size: the size of the row.
    """

    kind: type[Adapter]
    visit: Callable[[], dict[str, float]]
    shape: str
    size: int
    spent: float = 0.0
    found: dict[str, list[float]] = field(default_factory=dict)
    failed: bool = False


class Bench:
    """A run.

    Args:
        directory: where the files go.
        scale: how much is run.
        peers: the stores to compare, richstore and the floor among them.
    """

    def __init__(self, directory: Path, scale: Scale, peers: Iterable[type[Adapter]]) -> None:
        self.directory = directory
        self.scale = scale
        self.results: list[Result] = []
        self.rows: list[Row] = []
        self.notes: list[Note] = []
        self.peers: list[type[Adapter]] = []
        self.pool = Pool(scale.patience)
        self.workload = ""
        self._built: dict[tuple[str, str, int], Path | None] = {}
        self._number = 0
        for kind in peers:
            why = kind.missing()
            if why:
                self.notes.append(Note("all", kind.name, "everything", why))
            else:
                self.peers.append(kind)

    def close(self) -> None:
        """End the workers."""
        self.pool.close()

    def say(self, text: str) -> None:
        """Show progress."""
        print(f"  {text}", file=sys.stderr, flush=True)

    def note(self, kind: type[Adapter], what: str, why: str) -> None:
        """Say that something is left out; once."""
        note = Note(self.workload, kind.name, what, why)
        if note not in self.notes:
            self.notes.append(note)
            self.say(f"left out: {kind.name}, {what}: {why}")

    def able(self, kind: type[Adapter], feature: str, what: str = "") -> bool:
        """Whether a store has a feature; when not, note it."""
        why = kind.without.get(feature, "")
        if why:
            self.note(kind, what or feature, why)
        return not why

    def place(self, kind: type[Adapter]) -> Path:
        """Return a new directory for a store."""
        self._number += 1
        name = "".join(char for char in kind.name if char.isalnum())
        path = self.directory / f"{name}-{self._number}"
        path.mkdir(parents=True)
        return path

    def built(self, kind: type[Adapter], shape: str, size: int) -> Path | None:
        """Return the directory of a store with a large container, built once in a run.

        Returns:
            None when the store cannot have one of that size, which is noted.
        """
        key = (kind.name, shape, size)
        if key not in self._built:
            self._built[key] = self._build(kind, shape, size)
        elif self._built[key] is None:
            # noted for this workload too
            cap, why = kind.largest.get(shape, (size, "building it failed, see above"))
            self.note(
                kind, f"{shape} of {size:,}", kind.without.get(shape, f"up to {cap:,}: {why}")
            )
        return self._built[key]

    def _build(self, kind: type[Adapter], shape: str, size: int) -> Path | None:
        what = f"{shape} of {size:,}"
        if not self.able(kind, shape, shape):
            return None
        cap, why = kind.largest.get(shape, (size, ""))
        if size > cap:
            self.note(kind, what, f"up to {cap:,}: {why}")
            return None
        place = self.place(kind)
        try:
            worker = self.pool.take(kind)
            worker.ask("open_store", directory=str(place), synchronous=kind.word("off"))
            seconds = worker.ask("build", kind=shape, size=size)
            if size < 10**5:
                self.pool.give(worker)
            else:
                # what building took of memory is given back by ending
                worker.close()
                self.say(f"built: {kind.name}, {what}: {seconds:.1f} s")
        except _FAILURES as error:
            self.note(kind, what, f"building it: {error}")
            return None
        return place

    def worker(self, kind: type[Adapter], place: Path, asked: str, hold: bool) -> Worker | None:
        """Return a worker that has opened a store, or None when that failed, which is noted."""
        try:
            worker = self.pool.take(kind)
            worker.ask("open_store", directory=str(place), synchronous=kind.word(asked), hold=hold)
        except _FAILURES as error:
            self.note(kind, "opening the store", str(error))
            return None
        return worker

    def attempt(self, kind: type[Adapter], what: str, action: Callable[[], Any]) -> Any:
        """Return the result of an action on a worker, or None when it failed, which is noted."""
        try:
            return action()
        except _FAILURES as error:
            self.note(kind, what, str(error))
            return None

    def take_turns(
        self,
        what: str,
        cells: list[Cell],
        asked: str,
        *,
        unit: str = "s",
        least: int | None = None,
        most: int | None = None,
        rename: Callable[[str], str] = lambda label: label,
    ) -> None:
        """Visit cells in turns until each has had its time, and add their rows.

        Args:
            what: what is done, for progress and notes.
            cells: what to visit.
            asked: the durability that the peers were asked for.
            unit: of the figures.
            least: rounds that even the slowest gets.
            most: rounds at most.
            rename: makes the name of a row's operation from that of a figure.
        """
        scale = self.scale
        least, most = least or scale.least, most or scale.most
        began = monotonic()
        waiting = list(cells)
        for number in range(most + 1):
            turn = number % max(1, len(waiting))
            for cell in waiting[turn:] + waiting[:turn]:
                start = monotonic()
                found = self.attempt(
                    cell.kind, f"{what}, {cell.shape} of {cell.size:,}", cell.visit
                )
                if found is None:
                    cell.failed = True
                    continue
                taken = monotonic() - start
                if number == 0 and most > 1 and taken < scale.budget / 4:
                    # the first visit warms up, unless it is so slow that this does not matter
                    continue
                cell.spent += taken
                for label, value in found.items():
                    cell.found.setdefault(label, []).append(value)
            waiting = [
                cell
                for cell in waiting
                if not cell.failed
                and (cell.spent < scale.budget or len(_longest(cell)) < least)
                and len(_longest(cell)) < most
            ]
            if not waiting:
                break
        for cell in cells:
            # of what failed in between there is a note and no figure
            for label, samples in () if cell.failed else cell.found.items():
                self.add(rename(label), cell.shape, cell.size, asked, cell.kind, unit, samples)
        self.say(f"{what}: {len(cells)} in turns, {monotonic() - began:.1f} s")

    def add(
        self,
        what: str,
        shape: str,
        size: int,
        asked: str,
        kind: type[Adapter] | str,
        unit: str,
        samples: list[float],
    ) -> None:
        """Add a row."""
        name, durable = kind, ""
        if not isinstance(kind, str):
            name, durable = kind.name, kind.durable[kind.word(asked)] if asked else ""
        value = statistics.median(samples)
        self.rows.append(
            Row(self.workload, what, shape, size, asked, str(name), durable, unit, value, samples)
        )


def _longest(cell: Cell) -> list[float]:
    return max(cell.found.values(), key=len, default=[])
