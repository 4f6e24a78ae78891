"""The benchmarks run, at the smallest scale: that they measure, not what they measure."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from benchmarks import report
from benchmarks.__main__ import main
from benchmarks.adapters import PEERS, Floor, RichStore
from benchmarks.adapters.base import Adapter
from benchmarks.timing import Result, Scale, compare, each, statement
from benchmarks.values import PLACE, table
from benchmarks.workloads import WORKLOADS

TINY = Scale(rounds=2, sync_rounds=2, reads=20, writes=2, syncs=1, processes=1, values=20)
ADAPTERS = (RichStore, Floor, *PEERS)

# What each workload has figures of.
GROUPS = {
    "reads": ["Reads through a held reference"],
    "writes": [f'Changes, one commit each, `synchronous="{word}"`' for word in ("off", "full")],
    "stores": ["The store itself"],
    "imports": ["Import"],
    "peers": ["Peers: set a nested item, durably", "Peers: read a nested item"],
}


@pytest.mark.parametrize("name", WORKLOADS)
def test_workloads_yield_figures(name: str, tmp_path: Path) -> None:
    """A workload runs and yields figures, each with one value for every round."""
    results = WORKLOADS[name](tmp_path, TINY)
    assert list(dict.fromkeys(result.group for result in results)) == GROUPS[name]
    assert len({(result.group, result.name, result.beside) for result in results}) == len(results)
    for result in results:
        assert len(result.rounds) == (1 if name == "imports" else 2), result
        assert min(result.rounds) <= result.value <= max(result.rounds), result
        assert all(math.isfinite(value) for value in result.rounds), result
        assert min(result.seconds) > 0, result
        assert result.unit == "ms" or result.value > 0, result


def test_what_is_promised_is_measured(tmp_path: Path) -> None:
    """Reads of containers and instances have limits of 1.5 and 2; appends of 10 and 1.2."""
    results = WORKLOADS["reads"](tmp_path / "reads", TINY)
    limits = {result.name: result.limit for result in results}
    for size in ("1,000", "10"):
        for what in ("dict item", "dict `in`", "dict `len`", "dict iteration", "list item"):
            assert limits[f"{what}, {size} items"] == 1.5
    assert limits["attribute of an instance"] == limits["method of an instance"] == 2.0
    appends = [
        result
        for result in WORKLOADS["writes"](tmp_path / "writes", TINY)
        if result.name.startswith("`append`")
    ]
    assert [result.limit for result in appends] == [10.0, 1.2]


@pytest.mark.parametrize("kind", ADAPTERS, ids=lambda kind: kind.name)
def test_adapters_keep_what_they_are_given(kind: type[Adapter], tmp_path: Path) -> None:
    """Every store gives back a value, and a change inside it, when it is opened again."""
    if not kind.installed():
        pytest.skip(f"{kind.name} is not installed")
    with kind(tmp_path, "full") as adapter:
        adapter.put("table", table())
        adapter.change("table", PLACE, 99.5)
        assert adapter.read("table", PLACE) == 99.5
    with kind(tmp_path, "full") as adapter:
        assert adapter.read("table", PLACE) == 99.5
        assert adapter.read("table", ("rows", 9, "id")) == 9


def test_a_ratio_is_taken_within_each_round() -> None:
    """A figure is the median of the ratios of the rounds, not the ratio of medians."""
    ours, base = iter([0.0, 1.0, 30.0, 500.0]), iter([0.0, 1.0, 10.0, 100.0])
    result = compare("g", "n", "b", lambda: next(ours), lambda: next(base), rounds=3)
    assert result.rounds == [1.0, 3.0, 5.0]
    assert result.value == 3.0


def test_statements_run_as_often_as_they_are_counted() -> None:
    """A timed statement runs for every operation that its time is divided by."""
    seen: list[int] = []
    statement("p.append(1)", seen, 40)()
    assert len(seen) == 40


def test_operations_are_set_up_and_put_back() -> None:
    """Each timed operation gets a new argument and is undone, outside its time."""
    items: list[int] = []
    timed = each(items.append, 3, before=lambda at: 10 * at, after=lambda: seen.append(items.pop()))
    seen: list[int] = []
    timed()
    timed()
    assert items == []
    assert seen == [0, 10, 20, 30, 40, 50]


def test_the_table_says_what_is_over() -> None:
    """A figure over its limit is marked in the table, one within it is not."""
    lines = report.table(
        [
            Result("G", "slow", "b", 12.34, limit=10.0),
            Result("G", "good", "b", 1.234, limit=1.5),
            Result("G", "other", "b", 0.2, unit="µs"),
        ]
    ).split("\n")
    assert "| slow | b | **12.3 ×** (over) | 10.0 × |" in lines
    assert "| good | b | 1.23 × | 1.50 × |" in lines
    assert "| other | b | 0.20 µs |  |" in lines


def test_the_command_prints_and_keeps(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command prints a table, puts it into a page, and keeps every round as JSON."""
    monkeypatch.setattr("benchmarks.__main__.QUICK", TINY)
    page = tmp_path / "page.md"
    page.write_text("above\n<!-- figures -->\nold\n<!-- end of figures -->\nbelow\n")
    kept = tmp_path / "kept" / "run.json"
    arguments = ["--quick", "--only", "stores", "--directory", str(tmp_path)]
    assert main([*arguments, "--json", str(kept), "--page", str(page)]) == 0
    printed = capsys.readouterr().out
    assert "| what | beside | takes | at most |" in printed
    for peer in PEERS:
        assert peer.installed() or peer.name in printed.split("Left out")[1]
    text = page.read_text()
    assert text.startswith("above\n") and text.endswith("below\n")
    assert "old" not in text and "open and close a snapshot" in text
    run = json.loads(kept.read_text())
    assert run["scale"]["rounds"] == 2
    assert all(len(result["rounds"]) == 2 for result in run["results"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept", "page.md"]
