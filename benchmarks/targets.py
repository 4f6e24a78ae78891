"""What must be shown: every measure with its target, computed from the rows of one run.

A ratio is the median of the ratios of the rounds, where both sides have as many; so what slows the
machine for a moment slows both sides of a ratio.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from benchmarks.adapters import Floor, RichStore
from benchmarks.bench import Row
from benchmarks.workloads.mixes import FOUR

__all__ = ["Measure", "measures", "ratio"]

_OURS, _FLOOR = RichStore.name, Floor.name
# Peers that store objects and know which of them changed; the others store whole values.
_TRACKING = ("ZODB", "ZODB, BTrees", "dbzero")
_MB = 1_000_000
# The size that the targets speak of; named where a run does not have it.
_LARGEST = 10**7


@dataclass(frozen=True)
class Measure:
    """One measure.

    Attributes:
        name: what is measured, with the sizes that the run had.
        target: what must be reached.
        least: whether that is the least, and not the most.
        value: what was measured; None when the run does not have it.
        unit: of both.
    """

    name: str
    target: float
    value: float | None
    unit: str = "×"
    least: bool = False

    @property
    def met(self) -> bool:
        """Whether the target is reached."""
        if self.value is None:
            return False
        return self.value >= self.target if self.least else self.value <= self.target


class _Rows:
    """The rows of a run, to be asked for by what they are of."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self.rows = list(rows)

    def sizes(self, workload: str, what: str, kind: str, peer: str = _OURS) -> list[int]:
        """Return the sizes that there are rows of."""
        return sorted(
            {
                row.size
                for row in self.rows
                if (row.workload, row.what, row.kind, row.peer) == (workload, what, kind, peer)
            }
        )

    def one(
        self,
        workload: str,
        what: str,
        kind: str,
        size: int,
        asked: str,
        peer: str = _OURS,
        unit: str | None = None,
    ) -> Row | None:
        """Return a row, if there is one."""
        for row in self.rows:
            if (
                (row.workload, row.what, row.kind, row.size) == (workload, what, kind, size)
                and (row.asked, row.peer) == (asked, peer)
                and unit in (None, row.unit)
            ):
                return row
        return None

    def peers(self, workload: str, what: str, kind: str, size: int, asked: str) -> list[Row]:
        """Return the rows of all but richstore and the floor."""
        return [
            row
            for row in self.rows
            if (row.workload, row.what, row.kind, row.size) == (workload, what, kind, size)
            and row.asked == asked
            and row.peer not in (_OURS, _FLOOR)
        ]


def ratio(one: Row | None, other: Row | None) -> float | None:
    """Return how many times one row's figure is another's, or None without both."""
    if one is None or other is None:
        return None
    if len(one.samples) == len(other.samples) > 0 and all(other.samples):
        pairs = zip(one.samples, other.samples, strict=True)
        return statistics.median(a / b for a, b in pairs)
    return one.value / other.value if other.value else None


def measures(rows: Iterable[Row]) -> list[Measure]:
    """Return every measure of the table of targets."""
    run = _Rows(rows)
    found: list[Measure] = []
    for part in (_flat, _appends, _objects, _cold, _scans, _memory, _opening, _processes):
        found += part(run)
    return found


_FLAT = (
    ("append", "append", "list"),
    ("pop", "pop", "list"),
    ("item write", "write", "list"),
    ("dict insert", "insert", "dict"),
    ("dict pop", "pop", "dict"),
    ("dict item write", "write", "dict"),
    ("set add", "add", "set"),
    ("set remove", "pop", "set"),
)


def _flat(run: _Rows) -> list[Measure]:
    """Single changes of the largest container against the smallest."""
    found = []
    for suffix, target, when in (
        ("", 1.5, "warm"),
        (", fresh", 2.0, "from a freshly opened store"),
    ):
        for asked in ("full", "off"):
            for name, what, kind in _FLAT:
                sizes = run.sizes("containers", what + suffix, kind) or [10, _LARGEST]
                large, small = (
                    run.one("containers", what + suffix, kind, size, asked)
                    for size in (sizes[-1], sizes[0])
                )
                if asked == "full" and (large is None or small is None):
                    continue  # durable commits are timed for some of the changes
                label = (
                    f"{name}, {kind} of {sizes[-1]:,} against {sizes[0]:,}, one commit each,"
                    f' {when}, `synchronous="{asked}"`'
                )
                found.append(Measure(label, target, ratio(large, small)))
    return found


def _appends(run: _Rows) -> list[Measure]:
    """Appends of a small dict, at the size where they are worst, against bare LMDB."""
    found = []
    sizes = run.sizes("containers", "append dict", "list")

    def worst(of: Callable[[int], float | None]) -> tuple[float | None, str]:
        """Return the largest figure over the sizes, and at which size it is."""
        figures = [(value, size) for size in sizes if (value := of(size)) is not None]
        if len(figures) < len(sizes) or not figures:
            return None, "any size"
        value, size = max(figures)
        return value, f"any size (worst: {size:,})"

    for asked, target in (("off", 5.0), ("full", 1.15)):
        value, where = worst(
            lambda size, asked=asked: ratio(  # type: ignore[misc]
                run.one("containers", "append dict", "list", size, asked, unit="s"),
                run.one("containers", "append dict", "list", size, asked, _FLOOR, "s"),
            )
        )
        beside = "bare lmdb begin, put of the pickled item, commit"
        label = f'append of a small dict, `synchronous="{asked}"`, {where}, against {beside}'
        found.append(Measure(label, target, value))

    def counted(size: int, unit: str, peer: str = _OURS) -> float | None:
        row = run.one("containers", "append dict", "list", size, "full", peer, unit)
        return None if row is None else row.value

    value, where = worst(lambda size: counted(size, "bytes"))
    kilobytes = None if value is None else value / 1000
    found.append(Measure(f"bytes written for that append, {where}", 25.0, kilobytes, "KB"))

    def more_syncs(size: int) -> float | None:
        ours, base = counted(size, "syncs"), counted(size, "syncs", _FLOOR)
        return None if ours is None or base is None else ours - base

    value, where = worst(more_syncs)
    found.append(Measure(f"syncs of that append above bare lmdb's, {where}", 0.0, value, "syncs"))
    return found


def _objects(run: _Rows) -> list[Measure]:
    """Zodbshootout's round, at the payload where it is worst."""
    found = []
    sizes = run.sizes("shootout", "add", "objects")

    def worst(
        what: str, asked: str, others: Callable[[int], list[Row]]
    ) -> tuple[float | None, str]:
        """Return the smallest speed against the fastest of some others, and which one it is."""
        figures = []
        for size in sizes:
            ours = run.one("shootout", what, "objects", size, asked)
            rivals = [(value, row.peer) for row in others(size) if (value := ratio(row, ours))]
            if rivals:
                figures.append(min(rivals))
        return min(figures, default=(None, "none here"))

    for asked in ("full", "off"):
        for what in ("add", "update"):
            value, peer = worst(
                what,
                asked,
                lambda size, what=what, asked=asked: run.peers(  # type: ignore[misc]
                    "shootout", what, "objects", size, asked
                ),
            )
            label = f'{what} of objects in one transaction, `synchronous="{asked}"`'
            found.append(
                Measure(f"{label}, speed against the best peer ({peer})", 2.0, value, least=True)
            )
            value, peer = worst(
                what,
                asked,
                lambda size, what=what, asked=asked: [  # type: ignore[misc]
                    row
                    for row in run.peers("shootout", what, "objects", size, asked)
                    if row.peer in _TRACKING
                ],
            )
            others = f"the best peer that tracks objects ({peer})"
            found.append(Measure(f"{label}, speed against {others}", 2.0, value, least=True))
            value, _ = worst(
                what,
                asked,
                lambda size, what=what, asked=asked: _some(  # type: ignore[misc]
                    run.one("shootout", what, "objects", size, asked, _FLOOR)
                ),
            )
            found.append(
                Measure(f"{label}, speed against bare lmdb + pickle", 0.35, value, least=True)
            )
    value, peer = worst(
        "read hot", "full", lambda size: run.peers("shootout", "read hot", "objects", size, "full")
    )
    label = "hot read (objects in the cache of the store, not yet nodes)"
    found.append(Measure(f"{label}, speed against the best peer ({peer})", 1.0, value, least=True))
    value, _ = worst(
        "read steamin'",
        "full",
        lambda size: _some(
            run.one("shootout", "read steamin'", "objects", size, "full", "ZODB, BTrees")
        ),
    )
    label = "steamin' read, speed against ZODB's BTree of Persistent objects"
    found.append(Measure(label, 1.0, value, least=True))
    return found


def _some(row: Row | None) -> list[Row]:
    return [] if row is None else [row]


def _cold(run: _Rows) -> list[Measure]:
    """Items of the largest list and dict, cold."""
    found = []
    for kind in ("list", "dict"):
        size = max(run.sizes("containers", "read cold", kind), default=_LARGEST)
        for what, label in (
            ("read cold", "each in a record that was not loaded"),
            ("read first", "the first read after opening"),
        ):
            value = ratio(
                run.one("containers", what, kind, size, "off"),
                run.one("containers", what, kind, size, "off", _FLOOR),
            )
            beside = "against a bare lmdb get and unpickle of one item"
            found.append(
                Measure(f"item of a {kind} of {size:,}, cold, {label}, {beside}", 6.0, value)
            )
    return found


def _scans(run: _Rows) -> list[Measure]:
    """Speed of a pass over the longest list of small dicts."""
    found = []
    for how, target in (("plain", 0.6), ("nodes", 0.25)):
        what = f"scan as {how}"
        size = max(run.sizes("scan", what, "rows"), default=10**6)
        value = ratio(
            run.one("scan", "pickle.loads and scan", "rows", size, "off", _FLOOR),
            run.one("scan", what, "rows", size, "off"),
        )
        beside = "speed against `pickle.loads` of the whole list and iterating it"
        label = f"scan of {size:,} small dicts, cold, as {how}, {beside}"
        found.append(Measure(label, target, value, least=True))
    return found


def _memory(run: _Rows) -> list[Measure]:
    """Peaks above the baseline, on the longest list."""
    found = []
    for workload, what, label, target in (
        ("scan", "memory: scan", "scan of {:,} ints", 64.0),
        ("open", "memory: append", "appends to a list of {:,}", 8.0),
    ):
        size = max(run.sizes(workload, what, "list"), default=_LARGEST)
        row = run.one(workload, what, "list", size, "off")
        value = None if row is None else row.value / _MB
        name = f"peak memory above baseline: {label.format(size)}"
        found.append(Measure(name, target, value, "MB"))
    return found


def _opening(run: _Rows) -> list[Measure]:
    """Opening with the longest list, and the size of files."""
    what = "open and read"
    size = max(run.sizes("open", what, "list"), default=_LARGEST)
    one, none = (run.one("open", what, "list", n, "off") for n in (size, 0))
    more = None if one is None or none is None else 1000 * (one.value - none.value)
    label = f"opening a store that holds a list of {size:,} and reading its last item"
    found = [Measure(f"{label}, above an empty store", 5.0, more, "ms")]
    what = "file size over pickles"
    size = max(run.sizes("files", what, "rows"), default=10**6)
    row = run.one("files", what, "rows", size, "off")
    label = f"file size, {size:,} small dicts in a list, against the sum of their pickles"
    found.append(Measure(label, 1.4, None if row is None else row.value))
    return found


def _processes(run: _Rows) -> list[Measure]:
    """Four processes that append to one list."""
    four, one, lost = (
        run.one("appends", what, "processes", number, "off")
        for what, number in (
            ("append by processes", FOUR),
            ("append by processes", 1),
            ("runs of appends not whole", FOUR),
        )
    )
    label = 'four processes appending to one list, `synchronous="off"`'
    return [
        Measure(f"{label}, throughput against one", 0.8, ratio(four, one), least=True),
        Measure(f"{label}, appends lost", 0.0, None if lost is None else lost.value, "runs"),
    ]
