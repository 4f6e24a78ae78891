"""What a run leaves: a Markdown table and a JSON file."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable
from dataclasses import asdict
from importlib import metadata
from itertools import groupby
from pathlib import Path

from benchmarks.timing import Result, Scale

__all__ = ["table", "update_page", "write"]

_PACKAGES = (
    "richstore", "lmdb", "wrapt", "cloudpickle", "ZODB", "diskcache", "sqlitedict",
)  # fmt: skip


def table(results: Iterable[Result]) -> str:
    """Return the figures as Markdown, one table for each group."""
    lines: list[str] = []
    for group, rows in groupby(results, lambda result: result.group):
        lines += [f"**{group}**", ""]
        lines += ["| what | beside | takes | at most |", "| --- | --- | ---: | ---: |"]
        for row in rows:
            limit = "" if row.limit is None else _number(row.limit, row.unit)
            takes = _number(row.value, row.unit)
            if not row.holds:
                takes = f"**{takes}** (over)"
            lines.append(f"| {row.name} | {row.beside} | {takes} | {limit} |")
        lines.append("")
    return "\n".join(lines)


def _number(value: float, unit: str) -> str:
    digits = f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
    return f"{digits} {unit}"


_BEGIN, _END = "<!-- figures -->", "<!-- end of figures -->"


def update_page(page: Path, tables: str) -> None:
    """Put tables into a page, in place of those between its two marks."""
    text = page.read_text(encoding="utf-8")
    before, begin, rest = text.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise ValueError(f"{page} has no place for figures: {_BEGIN} … {_END}")
    page.write_text(f"{before}{begin}\n\n{tables}\n{end}{after}", encoding="utf-8")


def write(file: Path, results: Iterable[Result], scale: Scale, left_out: Iterable[str]) -> None:
    """Keep a run as JSON: what it ran on, how much was run, and every figure with its rounds."""
    run = {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "processors": os.cpu_count(),
        "packages": dict(_versions()),
        "left out": list(left_out),
        "scale": asdict(scale),
        "results": [result.raw() for result in results],
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(run, indent=1, ensure_ascii=False, default=float)
    file.write_text(_short(text) + "\n", encoding="utf-8")


def _versions() -> Iterable[tuple[str, str]]:
    for name in _PACKAGES:
        try:
            yield name, metadata.version(name)
        except metadata.PackageNotFoundError:
            continue


def _short(text: str) -> str:
    """Put lists of numbers on one line each, so that a result can be read and compared."""
    lines: list[str] = []
    inside = False
    for line in text.split("\n"):
        bare = line.strip()
        if inside:
            lines[-1] += bare if bare.startswith("]") else bare + " " * bare.endswith(",")
            inside = not bare.startswith("]")
        else:
            lines.append(line)
            inside = bare in ('"rounds": [', '"seconds": [')
    return "\n".join(lines)
