"""What a run leaves: a JSON file, and from it a page of tables and plots."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
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
    run = {
        "about": {
            "python": platform.python_version(),
            "system": f"{platform.system()} {platform.machine()}",
            "processors": os.cpu_count(),
            "packages": dict(_versions()),
            "minutes": round(seconds / 60, 1),
            "scale": asdict(bench.scale),
        },
        "notes": [asdict(note) for note in bench.notes],
        "results": [result.raw() for result in bench.results],
        "rows": [row.raw() for row in bench.rows],
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(run, indent=1, ensure_ascii=False, default=float)
    file.write_text(_short(text) + "\n", encoding="utf-8")


def read(file: Path) -> Run:
    """Return a run that was kept."""
    kept = json.loads(file.read_text(encoding="utf-8"))
    names = {each.name for each in fields(Result)}
    results = []
    for raw in kept["results"]:
        known = {key: value for key, value in raw.items() if key in names}
        results.append(Result(**{**known, "seconds": tuple(raw["seconds"])}))
    rows = [Row(**raw) for raw in kept["rows"]]
    return Run(kept["about"], results, rows, [Note(**raw) for raw in kept["notes"]])


def _versions() -> Iterable[tuple[str, str]]:
    for name in _PACKAGES:
        try:
            yield name, metadata.version(name)
        except metadata.PackageNotFoundError:
            continue


def _short(text: str) -> str:
    """Put lists of numbers on one line each, so that a run can be read and compared."""
    lines: list[str] = []
    inside = False
    for line in text.split("\n"):
        bare = line.strip()
        if inside:
            lines[-1] += bare if bare.startswith("]") else bare + " " * bare.endswith(",")
            inside = not bare.startswith("]")
        else:
            lines.append(line)
            inside = bare in (
                '"rounds": [', '"seconds": [', '"samples": [', '"sizes": [', '"rows": [',
            ) and "{" not in bare and not line.startswith(' "')  # fmt: skip
    return "\n".join(lines)
