"""The benchmarks run, at the smallest scale: that they measure, not what they measure."""

from __future__ import annotations

import math
import os
import re
import statistics
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks import kernel, page, report
from benchmarks.__main__ import main
from benchmarks.adapters import ADAPTERS, PEERS, Floor, RichStore
from benchmarks.adapters.base import Adapter
from benchmarks.bench import Bench, Cell, Note, Row
from benchmarks.plots import Line, svg
from benchmarks.processes import Worker, WorkerError
from benchmarks.targets import measures, ratio
from benchmarks.timing import Result, Scale, compare, each, statement
from benchmarks.values import PLACE, table
from benchmarks.workloads import WORKLOADS
from benchmarks.workloads.reads import reads
from benchmarks.workloads.writes import writes

TINY = Scale(
    rounds=2,
    sync_rounds=2,
    reads=20,
    writes=2,
    syncs=1,
    processes=1,
    values=20,
    sizes=(4, 30),
    rows=(40,),
    turn=0.0,
    turn_count=1,
    budget=0.0,
    least=2,
    most=2,
    objects=5,
    payloads=(16,),
    shots=2,
    depths=(1, 3),
    mix=40,
    appends=8,
    contests=2,
    cold=3,
    counted=1,
    churn=10,
    churns=2,
    patience=60.0,
)
IN_ONE_PROCESS = {
    "reads": ["Reads through a held reference"],
    "writes": [f'Changes, one commit each, `synchronous="{word}"`' for word in ("off", "full")],
    "stores": ["The store itself"],
    "imports": ["Import"],
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory in which the command ran every workload once, with every peer there is."""
    directory = tmp_path_factory.mktemp("run")
    files = directory / "files"
    files.mkdir()
    arguments = ["--quick", "--json", str(directory / "kept" / "run.json"), "--directory"]
    arguments += [str(files), "--page", str(directory / "page.md")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("benchmarks.__main__.QUICK", TINY)
        (directory / "page.md").write_text(
            "above\n<!-- figures -->\nold\n<!-- end of figures -->\nbelow\n"
        )
        assert main(arguments) == 0
    yield directory


@pytest.fixture(scope="module")
def run(place: Path) -> report.Run:
    """What that run kept."""
    return report.read(place / "kept" / "run.json")


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """A run that has nothing measured yet."""
    bench = Bench(tmp_path, TINY, (RichStore, Floor))
    yield bench
    bench.close()


def test_figures_in_one_process(run: report.Run) -> None:
    """Each comparison with plain Python yields figures, with one value for every round."""
    groups = list(dict.fromkeys(result.group for result in run.results))
    assert groups == [group for names in IN_ONE_PROCESS.values() for group in names]
    keys = {(result.group, result.name, result.beside) for result in run.results}
    assert len(keys) == len(run.results)
    for result in run.results:
        assert len(result.rounds) == (1 if result.group == "Import" else 2), result
        assert min(result.rounds) <= result.value <= max(result.rounds), result
        assert all(math.isfinite(value) for value in result.rounds), result
        assert min(result.seconds) > 0, result
        assert result.unit == "ms" or result.value > 0, result


def test_every_workload_yields_rows(run: report.Run) -> None:
    """Each workload of several stores has rows of richstore, without failures, and of bare LMDB."""
    for workload in WORKLOADS.keys() - IN_ONE_PROCESS.keys():
        peers = {row.peer for row in run.rows if row.workload == workload}
        assert RichStore.name in peers, workload
        assert Floor.name in peers or workload == "appends", workload
    assert [note for note in run.notes if note.peer == RichStore.name] == []


def test_nothing_is_left_out_silently(run: report.Run) -> None:
    """A peer has a row for whatever richstore has one for, or a note says why not."""
    excused = {(note.peer, note.workload) for note in run.notes}
    for workload in WORKLOADS.keys() - IN_ONE_PROCESS.keys():
        rows = [row for row in run.rows if row.workload == workload]
        asked = {
            (row.kind, row.size, row.asked)
            for row in rows
            if row.peer == RichStore.name and row.kind != "rounds"
        }
        for peer in ADAPTERS:
            has = {(row.kind, row.size, row.asked) for row in rows if row.peer == peer}
            if not asked <= has:
                assert {(peer, workload), (peer, "all")} & excused, (peer, workload, asked - has)


def test_rows_say_with_what_durability(run: report.Run) -> None:
    """A row names what the store did to be durable, in words of its own."""
    for row in run.rows:
        assert row.durable in ADAPTERS[row.peer].durable.values(), row
        assert row.value == pytest.approx(statistics.median(row.samples), rel=1e-3), row


def test_every_target_is_measured(run: report.Run) -> None:
    """One run has a figure for every measure that does not depend on what is installed."""
    found = measures(run.rows)
    missing = [measure.name for measure in found if measure.value is None]
    allowed = ("best peer", "ZODB") + (("bytes", "syncs") if not kernel.strace(Path("log")) else ())
    assert [name for name in missing if not any(word in name for word in allowed)] == []
    assert len(found) == len({measure.name for measure in found}) == 51


def test_the_page_is_made_from_the_figures(place: Path) -> None:
    """The page has targets, losses, plots and tables between its marks, and can be made again."""
    text = (place / "page.md").read_text()
    assert text.startswith("above\n") and text.endswith("below\n") and "\nold\n" not in text
    for heading in ("What must be shown", "Where richstore loses", "What is left out, and why"):
        assert f"\n## {heading}\n" in text
    for kind in PEERS:
        if kind.missing():
            assert f"- {kind.name}: everything (all): {kind.missing()}." in text
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text)
    assert "page/append.svg" in pictures
    assert sorted(pictures) == sorted(f"page/{file.name}" for file in (place / "page").iterdir())
    for picture in pictures:
        ElementTree.parse(place / picture)
    arguments = ["--from", str(place / "kept" / "run.json"), "--page", str(place / "page.md")]
    assert main(arguments) == 0
    assert (place / "page.md").read_text() == text


def test_who_has_no_snapshot_says_why() -> None:
    """A peer either opens snapshots or has a reason why it does not."""
    for kind in ADAPTERS.values():
        assert ("snapshot" in kind.without) == (kind.snapshot is Adapter.snapshot), kind.name


def test_a_run_leaves_no_files(place: Path) -> None:
    """Beside what was asked for, nothing stays."""
    assert sorted(path.name for path in place.iterdir()) == ["files", "kept", "page", "page.md"]
    assert list((place / "files").iterdir()) == []


def test_losses_are_the_rows_where_another_store_is_better(tmp_path: Path) -> None:
    """A row is listed when a peer is better in it, in the sense of its unit, and only then."""
    rows = [
        _row("lost", 4, "s", 2.0),
        _row("lost", 4, "s", 1.0, "ZODB"),
        _row("won", 4, "s", 1.0),
        _row("won", 4, "s", 2.0, "ZODB"),
        _row("fast", 4, "ops/s", 2.0),
        _row("fast", 4, "ops/s", 1.0, "ZODB"),
        _row("slow", 4, "ops/s", 10.0),
        _row("slow", 4, "ops/s", 40.0, "ZODB"),
    ]
    about = {"python": "3", "system": "x", "processors": 1, "packages": {}, "minutes": 0}
    page.update(tmp_path / "page.md", report.Run(about, [], rows, []))
    text = (tmp_path / "page.md").read_text()
    losses = text.partition("## Where richstore loses")[2].partition("\n## ")[0]
    assert "| lost, list of 4, `off` | 2 s | ZODB: 1 s | 2 × | fsync |" in losses
    assert "| slow, list of 4, `off` | 10 ops/s | ZODB: 40 ops/s | 4 × | fsync |" in losses
    assert "won" not in losses and "fast" not in losses


def _row(
    what: str,
    size: int,
    unit: str,
    value: float,
    peer: str = RichStore.name,
    samples: list[float] | None = None,
    workload: str = "containers",
) -> Row:
    samples = samples or [value]
    return Row(workload, what, "list", size, "off", peer, "fsync", unit, value, samples)


def test_targets_are_ratios_within_the_run() -> None:
    """A measure compares the largest size with the smallest, round by round, and is judged."""
    rows = [
        _row("append", 10, "s", 2.0, samples=[1.0, 2.0, 3.0]),
        _row("append", 1000, "s", 9.0, samples=[0.5, 0.5, 0.5]),
        _row("append", 10**7, "s", 3.0, samples=[1.4, 9.0, 4.2]),
        _row("pop", 10, "s", 1.0),
        _row("pop", 10**7, "s", 1.6),
    ]
    found = {measure.name: measure for measure in measures(rows)}
    append = found[
        'append, list of 10,000,000 against 10, one commit each, warm, `synchronous="off"`'
    ]
    assert append.value == pytest.approx(1.4) and append.target == 1.5 and append.met
    pop = found['pop, list of 10,000,000 against 10, one commit each, warm, `synchronous="off"`']
    assert pop.value == pytest.approx(1.6) and not pop.met


def test_speeds_are_judged_the_other_way() -> None:
    """A speed against another store must be at least its target."""
    rows = [
        Row("shootout", "add", "objects", 128, "off", peer, "", "s", value, [value])
        for peer, value in ((RichStore.name, 1.0), (Floor.name, 0.4), ("ZODB", 2.5))
    ]
    found = {measure.name: measure for measure in measures(rows)}
    label = 'add of objects in one transaction, `synchronous="off"`, speed against '
    assert found[f"{label}bare lmdb + pickle"].value == 0.4
    assert found[f"{label}bare lmdb + pickle"].met
    assert found[f"{label}the best peer (ZODB)"].value == 2.5
    rows[2] = Row("shootout", "add", "objects", 128, "off", "ZODB", "", "s", 1.5, [1.5])
    assert not {each.name: each for each in measures(rows)}[f"{label}the best peer (ZODB)"].met


def test_ratios_need_both_sides() -> None:
    """Without one of its sides there is no ratio; with unequal rounds it is that of medians."""
    one, other = _row("a", 1, "s", 6.0, samples=[6.0, 6.0]), _row("b", 1, "s", 2.0)
    assert ratio(None, other) is None and ratio(one, None) is None
    assert ratio(one, other) == 3.0


def test_what_is_promised_is_measured(tmp_path: Path) -> None:
    """Reads of containers and instances have limits of 1.5 and 2; appends of 10 and 1.2."""
    results = reads(tmp_path / "reads", TINY)
    limits = {result.name: result.limit for result in results}
    for size in ("1,000", "10"):
        for what in ("dict item", "dict `in`", "dict `len`", "dict iteration", "list item"):
            assert limits[f"{what}, {size} items"] == 1.5
    assert limits["attribute of an instance"] == limits["method of an instance"] == 2.0
    appends = [
        result for result in writes(tmp_path / "writes", TINY) if result.name.startswith("`append`")
    ]
    assert [result.limit for result in appends] == [10.0, 1.2]


@pytest.mark.parametrize("kind", ADAPTERS.values(), ids=lambda kind: kind.name)
def test_adapters_keep_what_they_are_given(kind: type[Adapter], tmp_path: Path) -> None:
    """Every store gives back a value, and a change inside it, when it is opened again."""
    if kind.missing():
        pytest.skip(f"{kind.name}: {kind.missing()}")
    with kind(tmp_path, "full") as adapter:
        adapter.put("table", table())
        adapter.change("table", PLACE, 99.5)
        assert adapter.read("table", PLACE) == 99.5
        adapter.put("gone", 1)
        adapter.delete("gone")
    with kind(tmp_path, "full") as adapter:
        assert adapter.read("table", PLACE) == 99.5
        assert adapter.read("table", ("rows", 9, "id")) == 9
        with pytest.raises(KeyError):
            adapter.get("gone")


@pytest.mark.parametrize("kind", ADAPTERS.values(), ids=lambda kind: kind.name)
def test_adapters_change_lists(kind: type[Adapter], tmp_path: Path) -> None:
    """Every store does the operations on a list that it does not say it cannot do."""
    if kind.missing():
        pytest.skip(f"{kind.name}: {kind.missing()}")
    with kind(tmp_path, "full") as adapter:
        adapter.build("list", 5)
        held = adapter.hold()
        adapter.append(held, 50)
        adapter.append(held, 60)
        adapter.set_item(held, 1, 10)
        adapter.pop(held)
        if "insert" not in kind.without:
            adapter.insert(held, 2, 20)
            adapter.remove(held, 3)
            adapter.set_item(held, 2, 2)
    with kind(tmp_path, "full") as adapter:
        held = adapter.hold()
        assert [adapter.item(held, at) for at in range(6)] == [0, 10, 2, 3, 4, 50]
        assert list(adapter.scan(held)) == [0, 10, 2, 3, 4, 50]
        assert adapter.last(held, 6) == 50


def test_bytes_and_syncs_are_counted(tmp_path: Path) -> None:
    """Between the marks, a durable put of bare LMDB is one sync and some pages."""
    log = tmp_path / "log"
    if not (before := kernel.strace(log)):
        pytest.skip("strace is not installed")
    worker = Worker(Floor, 60.0, tuple(before))
    worker.ask("open_store", directory=str(tmp_path / "store"), synchronous="full")
    worker.ask("build", kind="list", size=3)
    worker.ask("open_store", directory=str(tmp_path / "store"), synchronous="full", hold=True)
    worker.ask("repeat", name="append", kind="list", size=3, count=2)
    worker.close()
    counts = kernel.strace_counts(log)["append, list of 3"]
    assert counts["syncs"] == 2
    assert 2 * 4096 <= counts["bytes"] <= 2 * 20_000


def test_syncs_are_counted_when_threads_interrupt_each_other(tmp_path: Path) -> None:
    """Calls that strace shows in two lines count once, those outside the marks not at all."""
    log = tmp_path / "log"
    log.write_text(
        '7 write(3, "early", 5) = 5\n'
        '7 write(4, "benchmarks: put;", 17) = 17\n'
        "7 fdatasync(5 <unfinished ...>\n"
        '8 pwrite64(5, "x"..., 4096, 8192) = 4096\n'
        "7 <... fdatasync resumed>) = 0\n"
        '7 write(4, "benchmarks: end;", 15) = 15\n'
        "7 fsync(5) = 0\n"
    )
    assert kernel.strace_counts(log) == {"put": {"bytes": 4096, "syncs": 1}}


def test_peaks_of_memory_are_seen_from_outside() -> None:
    """What a process allocates for a moment shows as its peak above the baseline."""
    with kernel.Peak(os.getpid()) as peak:
        block = bytearray(40_000_000)
        block[::4096] = b"x" * len(range(0, len(block), 4096))
        looks = 0
        while peak.above < len(block) and looks < 500:
            kernel.sleep(0.02)
            looks += 1
        del block
    assert 40_000_000 <= peak.above < 60_000_000


def test_a_worker_that_fails_is_an_error_with_its_reason(tmp_path: Path) -> None:
    """A task that raises, and a process that ends, raise WorkerError here and end the worker."""
    worker = Worker(Floor, 60.0)
    with pytest.raises(WorkerError, match=r"took longer than 0 s|AttributeError"):
        worker.ask("build", kind="list", size=3)
    assert worker.dead
    hasty = Worker(RichStore, 60.0)
    hasty.ask("open_store", directory=str(tmp_path), synchronous="off")
    hasty.patience = 0.01
    with pytest.raises(WorkerError, match="took longer than"):
        hasty.ask("build", kind="list", size=3_000_000)
    assert hasty.dead


def test_what_fails_is_noted_and_the_rest_goes_on(bench: Bench) -> None:
    """A peer that fails while it is measured has a note and no row; the others have rows."""

    def fail() -> dict[str, float]:
        raise WorkerError("no room")

    cells = [Cell(Floor, fail, "list", 3), Cell(RichStore, lambda: {"x": 1.0}, "list", 3)]
    bench.workload = "w"
    bench.take_turns("some", cells, "off")
    assert [(row.peer, row.what, row.samples) for row in bench.rows] == [
        ("richstore", "x", [1.0, 1.0])
    ]
    assert bench.notes == [Note("w", Floor.name, "some, list of 3", "no room")]


def test_cells_are_visited_in_turns(bench: Bench) -> None:
    """Each round visits every cell once, and does not begin with the same one."""
    seen: list[int] = []

    def visit(at: int) -> dict[str, float]:
        seen.append(at)
        return {"x": float(at)}

    cells = [Cell(Floor, lambda at=at: visit(at), "list", at) for at in (1, 2, 3)]  # type: ignore[misc]
    bench.take_turns("some", cells, "off", least=3, most=3)
    rounds = [seen[at : at + 3] for at in range(0, len(seen), 3)]
    assert [sorted(each) for each in rounds] == [[1, 2, 3]] * len(rounds)
    assert rounds[0][0] != rounds[1][0]


def test_sizes_that_are_hopeless_are_named(bench: Bench) -> None:
    """A size above what a store is measured at is not built, and the reason is noted."""

    class Capped(Floor):
        largest = {"list": (10, "it takes a year")}

    bench.workload = "w"
    assert bench.built(Capped, "list", 11) is None
    assert bench.notes == [Note("w", Floor.name, "list of 11", "up to 10: it takes a year")]


def test_files_are_built_once(bench: Bench) -> None:
    """A large container is built at the first request for it, and shared by all others."""
    first = bench.built(Floor, "list", 5)
    assert first is not None and bench.built(Floor, "list", 5) == first
    assert bench.built(Floor, "list", 6) != first
    with Floor(first, "off") as adapter:
        assert list(adapter.scan(adapter.hold())) == [0, 1, 2, 3, 4]


def test_plots_stay_inside_their_frame() -> None:
    """All points of a plot lie inside it, on logarithmic and on plain axes."""
    lines = [Line("a & b", [(10, 1e-6), (1e7, 2.0)]), Line("c", [(1e3, 0.01)], 1)]
    for log in (True, False):
        tree = ElementTree.fromstring(svg("A < B", lines, "x", "y", "s", x_log=log, y_log=log))
        circles = [each for each in tree.iter() if each.tag.endswith("circle")]
        assert len(circles) == 3
        for circle in circles:
            assert 0 < float(circle.attrib["cx"]) < 760 and 0 < float(circle.attrib["cy"]) < 420


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


def test_the_tables_say_what_is_over() -> None:
    """A figure over its limit is marked in the table, one within it is not."""
    results = [
        Result("G", "slow", "b", 12.34, limit=10.0),
        Result("G", "good", "b", 1.234, limit=1.5),
        Result("G", "other", "b", 0.2, unit="µs"),
    ]
    lines = page.summary(report.Run({}, results, [], [])).split("\n")
    assert "| slow | b | **12.3 ×** (over) | 10.0 × |" in lines
    assert "| good | b | 1.23 × | 1.50 × |" in lines
    assert "| other | b | 0.20 µs |  |" in lines


def test_figures_are_kept_to_four_digits(bench: Bench, tmp_path: Path) -> None:
    """What is read from the file of a run is what was measured, in four digits, round by round."""
    bench.rows += [
        _row("append", 10, "s", 0.0031, samples=[0.00308, 0.0031, 0.01204]),
        _row("append", 10, "bytes", 29240.0),
        _row("append", 10, "s", 2.0, peer="ZODB", samples=[1.0, 2.0, 0.0, -3.5]),
        _row("append", 1000, "s", 1.23456789e-7, samples=[1.23456789e-7, 98765.4321]),
    ]
    report.write(tmp_path / "run.json", bench, 1.0)
    kept = {(row.size, row.unit, row.peer): row for row in report.read(tmp_path / "run.json").rows}
    *exact, rounded = bench.rows
    assert len(kept) == 4
    for row in exact:
        assert kept[row.size, row.unit, row.peer] == row
    row = kept[1000, "s", rounded.peer]
    assert (row.value, row.samples) == (1.235e-7, [1.235e-7, 98770.0])


def test_a_part_can_be_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command runs one workload, with some peers, at given sizes, and keeps that."""
    monkeypatch.setattr("benchmarks.__main__.QUICK", TINY)
    kept = tmp_path / "run.json"
    arguments = ["--quick", "--only", "open", "--sizes", "3,1e1", "--peers", "shelve"]
    assert main([*arguments, "--directory", str(tmp_path), "--json", str(kept)]) == 0
    run = report.read(kept)
    assert {row.size for row in run.rows} == {0, 3, 10}
    assert {row.peer for row in run.rows} == {"richstore", "lmdb + pickle", "shelve"}
    assert "opening a store that holds a list of 10 " in capsys.readouterr().out
