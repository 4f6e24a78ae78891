"""What a run leaves: a JSON file, and from it a page of tables and plots.

The file has the figure of every round, and so is written tightly: a line for each operation, size,
durability and unit, with the figures of all peers in it. Those of a peer are whole numbers, `[power
of ten, median, first round, second round, ...]`, with the rounds as differences from the median:
`[-5, 310, -2, 4]` is a median of 0.0031, of rounds of 0.00308 and 0.00314.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from decimal import Decimal
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.bench import Bench, Note, Row
from benchmarks.timing import Result

__all__ = ["Run", "read", "write"]

_PACKAGES = (
    "richstore", "lmdb", "wrapt", "cloudpickle", "ZODB", "BTrees", "dbzero", "diskcache",
    "sqlitedict", "rocksdict",
)  # fmt: skip


@dataclass(frozen=True)
class Run:
    """A run as it was kept.

    Attributes:
        about: what it ran on, and how much was run.
        results: figures of richstore beside plain Python and bare LMDB.
        rows: figures of all peers.
        notes: what was left out, and why.
    """

    about: dict[str, Any]
    results: list[Result]
    rows: list[Row]
    notes: list[Note]


def write(file: Path, bench: Bench, seconds: float) -> None:
    """Keep a run as JSON, with the figure of every round."""
    parts = {
        "about": {
            "python": platform.python_version(),
            "system": f"{platform.system()} {platform.machine()}",
            "processors": os.cpu_count(),
            "packages": dict(_versions()),
            "minutes": round(seconds / 60, 1),
            "scale": asdict(bench.scale),
        },
        "durable": {f"{row.peer}, {row.asked}": row.durable for row in bench.rows},
        "notes": [asdict(note) for note in bench.notes],
        "results": [result.raw() for result in bench.results],
        "rows": _packed(bench.rows),
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    text = ",\n".join(f"{_json(name)}:{_lines(part)}" for name, part in parts.items())
    file.write_text(f"{{\n{text}\n}}\n", encoding="utf-8")


def read(file: Path) -> Run:
    """Return a run that was kept."""
    kept = json.loads(file.read_text(encoding="utf-8"))
    names = {each.name for each in fields(Result)}
    results = []
    for raw in kept["results"]:
        known = {key: value for key, value in raw.items() if key in names}
        results.append(Result(**{**known, "seconds": tuple(raw["seconds"])}))
    rows = list(_unpacked(kept["rows"], kept["durable"]))
    return Run(kept["about"], results, rows, [Note(**raw) for raw in kept["notes"]])


def _versions() -> Iterable[tuple[str, str]]:
    for name in _PACKAGES:
        try:
            yield name, metadata.version(name)
        except metadata.PackageNotFoundError:
            continue


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=float, separators=(",", ":"))


def _lines(part: dict[str, Any] | list[Any]) -> str:
    """Return JSON with a line for each item of a list, so that runs can be compared."""
    if isinstance(part, dict):
        return _json(part)
    return "[\n" + ",\n".join(map(_json, part)) + "\n]"


def _packed(rows: Iterable[Row]) -> list[list[Any]]:
    """Return a list for each case, with the figures of all peers in a dict at its end."""
    cases: dict[tuple[Any, ...], dict[str, list[int]]] = {}
    for row in rows:
        case = (row.workload, row.what, row.kind, row.size, row.asked, row.unit)
        cases.setdefault(case, {})[row.peer] = _figures(row)
    return [[*case, peers] for case, peers in cases.items()]


def _figures(row: Row) -> list[int]:
    """Return the median and the samples of a row, to four digits, as whole numbers."""
    value, *samples = (Decimal(f"{each:.4g}").normalize() for each in (row.value, *row.samples))
    power = min(int(each.as_tuple().exponent) for each in (value, *samples))
    median = int(value.scaleb(-power))
    return [power, median, *(int(each.scaleb(-power)) - median for each in samples)]


def _unpacked(cases: Iterable[list[Any]], durable: dict[str, str]) -> Iterator[Row]:
    for *case, peers in cases:
        workload, what, kind, size, asked, unit = case
        for peer, (power, median, *rounds) in peers.items():
            words = durable[f"{peer}, {asked}"]
            value, *samples = (float(f"{median + each}e{power}") for each in (0, *rounds))
            yield Row(workload, what, kind, size, asked, peer, words, unit, value, samples)
