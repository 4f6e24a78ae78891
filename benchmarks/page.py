"""The page of a run: targets, losses, plots and tables, all from the kept figures."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from benchmarks.adapters import Floor, RichStore
from benchmarks.bench import Row
from benchmarks.plots import Line, svg
from benchmarks.report import Run
from benchmarks.targets import Measure, measures
from benchmarks.timing import Result

__all__ = ["summary", "update"]

_BEGIN, _END = "<!-- figures -->", "<!-- end of figures -->"
_HIGHER = ("ops/s",)
_COUNTED = {
    "bytes": ": bytes written",
    "syncs": ": syncs",
    "calls": ": calls that write",
    "bytes to pages": ": bytes of pages made dirty",
}
_WORKLOADS = {
    "shootout": "Objects, as zodbshootout has them",
    "containers": "Single operations on lists, dicts and sets",
    "nested": "Updates deep inside a value",
    "mix": "Gets, sets and deletes, 100 : 10 : 1",
    "appends": "Appends to one list by one process and by four",
    "scan": "Scans of lists",
    "open": "Opening, the first read, memory",
    "files": "Size of files",
}


def summary(run: Run) -> str:
    """Return the targets and what richstore is compared with in one process."""
    return "\n".join([*_targets(run), *_results(run.results)])


def update(page: Path, run: Run) -> None:
    """Put a run into a page between its two marks, and its plots into a directory beside it."""
    text = (
        page.read_text(encoding="utf-8") if page.exists() else f"# Benchmarks\n\n{_BEGIN}{_END}\n"
    )
    before, begin, rest = text.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise ValueError(f"{page} has no place for figures: {_BEGIN} … {_END}")
    parts = [
        *_about(run),
        *_targets(run),
        *_losses(run),
        *_plots(run, page.parent / page.stem),
        *_results(run.results),
        *_tables(run.rows),
        *_notes(run),
    ]
    page.write_text(f"{before}{begin}\n\n" + "\n".join(parts) + f"\n{end}{after}", encoding="utf-8")


def _about(run: Run) -> list[str]:
    about = run.about
    packages = ", ".join(f"{name} {version}" for name, version in about["packages"].items())
    return [
        f"This run: Python {about['python']} on {about['system']}, {about['processors']} "
        f"processors, {about['minutes']} minutes; {packages}.",
        "",
    ]


def _targets(run: Run) -> list[str]:
    lines = [
        "## What must be shown",
        "",
        "| measure | target | measured | |",
        "| --- | ---: | ---: | --- |",
    ]
    for each in measures(run.rows):
        sign = "≥" if each.least else "≤"
        verdict = "met" if each.met else "**MISSED**"
        if each.value is None:
            verdict = "not in this run"
        lines.append(
            f"| {each.name} | {sign} {_plain(each, each.target)} | {_got(each)} | {verdict} |"
        )
    return [*lines, ""]


def _plain(measure: Measure, value: float) -> str:
    digits = f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{digits} {measure.unit}"


def _got(measure: Measure) -> str:
    return "" if measure.value is None else _plain(measure, measure.value)


def _losses(run: Run) -> list[str]:
    """Return every row where something else is better than richstore."""
    lines = [
        "## Where richstore loses",
        "",
        "Every figure in which another store is better. Bare lmdb + pickle, which keeps items and "
        "nothing else, is listed where no peer is.",
        "",
        "| what | richstore | better | times | which ran with |",
        "| --- | ---: | --- | ---: | --- |",
    ]
    for _, group in _compared(run.rows):
        ours = next((row for row in group if row.peer == RichStore.name), None)
        if ours is None:
            continue
        better = [row for row in group if row is not ours and _factor(ours, row) > 1]
        peers = [row for row in better if row.peer != Floor.name] or better
        if peers:
            best = max(peers, key=lambda row: _factor(ours, row))
            lines.append(
                f"| {_title(ours)} | {_quantity(ours.value, ours.unit)} | {best.peer}: "
                f"{_quantity(best.value, best.unit)} | {_times(_factor(ours, best))} | "
                f"{best.durable} |"
            )
    return [*lines, ""]


def _factor(ours: Row, other: Row) -> float:
    """Return how many times better another row is."""
    if ours.unit in _HIGHER:
        return other.value / ours.value if ours.value else float("inf")
    if other.value <= 0:
        return float("inf") if ours.value > 0 else 1.0
    return ours.value / other.value


def _compared(rows: Iterable[Row]) -> list[tuple[tuple[str, ...], list[Row]]]:
    """Return rows by what is compared: the same for all peers; our two ways to scan are one."""
    found: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        what = "scan" if row.what == "scan as nodes" else row.what
        key = (row.workload, what, row.kind, str(row.size), row.asked, row.unit)
        found.setdefault(key, []).append(row)
    return list(found.items())


def _title(row: Row) -> str:
    durability = f", `{row.asked}`" if row.asked else ""
    counted = _COUNTED.get(row.unit, "") if row.workload == "containers" else ""
    return f"{row.what}, {_shape(row)}{durability}{counted}"


def _shape(row: Row) -> str:
    if row.kind in ("list", "dict", "set"):
        return f"{row.kind} of {row.size:,}"
    words = {
        "rows": f"list of {row.size:,} dicts",
        "objects": f"{row.size} bytes each",
        "levels": f"depth {row.size}",
        "processes": f"{row.size} process{'es' * (row.size != 1)}",
        "rounds": f"after {row.size} rounds",
    }
    return words.get(row.kind, f"{row.kind} {row.size}")


def _quantity(value: float, unit: str) -> str:
    if unit == "s":
        for below, scale, name in ((1e-6, 1e9, "ns"), (1e-3, 1e6, "µs"), (1.0, 1e3, "ms")):
            if value < below:
                return f"{value * scale:.3g} {name}"
        return f"{value:.3g} s"
    if unit in ("syncs", "calls"):
        return f"{value:.3g}"
    if unit.startswith("bytes"):
        for least, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "KB")):
            if value >= least:
                return f"{value / least:.3g} {name}"
        return f"{value:.0f} B"
    return f"{value:,.0f} {unit}" if value >= 1000 else f"{value:.3g} {unit}".strip()


def _times(factor: float) -> str:
    return "" if factor == float("inf") else f"{factor:.3g} ×"


def _results(results: Iterable[Result]) -> list[str]:
    lines: list[str] = []
    for group, rows in groupby(results, lambda result: result.group):
        lines += [f"## {group}", ""]
        lines += ["| what | beside | takes | at most |", "| --- | --- | ---: | ---: |"]
        for row in rows:
            limit = "" if row.limit is None else _number(row.limit, row.unit)
            takes = _number(row.value, row.unit)
            if not row.holds:
                takes = f"**{takes}** (over)"
            lines.append(f"| {row.name} | {row.beside} | {takes} | {limit} |")
        lines.append("")
    return lines


def _number(value: float, unit: str) -> str:
    digits = f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
    return f"{digits} {unit}"


def _tables(rows: list[Row]) -> list[str]:
    """Return a table for each workload: what was done down, the peers across."""
    lines: list[str] = []
    for workload, title in _WORKLOADS.items():
        chosen = [row for row in rows if row.workload == workload]
        if not chosen:
            continue
        peers = list(dict.fromkeys(row.peer for row in chosen))
        lines += [f"## {title}", ""]
        lines += [f"| | {' | '.join(peers)} |", f"| --- |{' ---: |' * len(peers)}"]
        for _, group in _compared(chosen):
            by_peer: dict[str, str] = {}
            for row in group:
                by_peer[row.peer] = _quantity(row.value, row.unit)
            cells = " | ".join(by_peer.get(peer, "") for peer in peers)
            lines.append(f"| {_title(group[0])} | {cells} |")
        lines += ["", "\n\n".join(_durability(chosen)), ""]
    return lines


def _durability(rows: list[Row]) -> list[str]:
    """Return a line for each durability that was asked for, with what each peer did."""
    found: dict[str, dict[str, str]] = {}
    for row in rows:
        if row.asked:
            found.setdefault(row.asked, {})[row.peer] = row.durable
    return [
        f"`{asked}` is, with {'; '.join(f'{peer}: {words}' for peer, words in peers.items())}."
        for asked, peers in sorted(found.items())
    ]


def _notes(run: Run) -> list[str]:
    lines = ["## What is left out, and why", ""]
    seen: dict[tuple[str, str, str], list[str]] = {}
    for note in run.notes:
        seen.setdefault((note.peer, note.what, note.why), []).append(note.workload)
    for (peer, what, why), workloads in seen.items():
        lines.append(f"- {peer}: {what} ({', '.join(dict.fromkeys(workloads))}): {why}.")
    if not run.notes:
        lines.append("Nothing.")
    return [*lines, ""]


@dataclass(frozen=True)
class _Picture:
    """What a plot shows: rows of one workload against their sizes."""

    file: str
    title: str
    workload: str
    what: str
    kind: str = "list"
    asked: str = "off"
    unit: str = "s"


_ENTRIES = "items of the container"
_ROUNDS = "times that all entries were set"
_CHURN = "file size under churn"
_READ_LAST = "open and read the last item"
_PICTURES = (
    _Picture("append", "Append an int to a list, one commit each", "containers", "append"),
    _Picture("insert", "Insert in the middle of a list", "containers", "insert"),
    _Picture("dict-insert", "Insert into a dict, one commit each", "containers", "insert", "dict"),
    _Picture(
        "bytes", "Bytes written by an append", "containers", "append dict", "list", "full", "bytes"
    ),
    _Picture("read-cold", "Read an item whose record is not loaded", "containers", "read cold"),
    _Picture("open", "Open a store and read the last item of a list", "open", "open and read"),
    _Picture("memory", "Memory of that", "open", f"memory: {_READ_LAST}", unit="bytes"),
    _Picture("churn", "Size of the files under churn", "files", _CHURN, "rounds", unit="bytes"),
    _Picture(
        "churn-snapshot",
        "The same with a snapshot open",
        "files",
        f"{_CHURN}, snapshot open",
        "rounds",
        unit="bytes",
    ),
)


def _plots(run: Run, directory: Path) -> list[str]:
    """Write the plots, and return what shows them."""
    lines = ["## Against size", ""]
    peers = list(dict.fromkeys(row.peer for row in run.rows))
    for each in _PICTURES:
        chosen = [
            row
            for row in run.rows
            if (row.workload, row.what, row.kind) == (each.workload, each.what, each.kind)
            and (row.asked, row.unit) == (each.asked, each.unit)
        ]
        over_rounds = each.kind == "rounds"
        # a logarithm of nothing is not to be had; a peak below a page shows as a page
        drawn = [
            Line(
                peer,
                [
                    (row.size, max(row.value, 4096.0) if each.unit == "bytes" else row.value)
                    for row in chosen
                    if row.peer == peer and (over_rounds or row.size > 0)
                ],
                peers.index(peer),
            )
            for peer in peers
        ]
        drawn = [line for line in drawn if line.points]
        if not drawn:
            continue
        directory.mkdir(parents=True, exist_ok=True)
        x_name, y_name = _ROUNDS if over_rounds else _ENTRIES, {"s": "time"}.get(each.unit, "bytes")
        picture = svg(each.title, drawn, x_name, y_name, each.unit, x_log=not over_rounds)
        (directory / f"{each.file}.svg").write_text(picture, encoding="utf-8")
        lines += [f"![{each.title}]({directory.name}/{each.file}.svg)", ""]
    return lines if len(lines) > 2 else []
