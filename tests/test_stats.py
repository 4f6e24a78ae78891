"""`stats()`: every figure is right, and moves as it must."""

from __future__ import annotations

import dataclasses
import os
import time
from typing import Any

import pytest
from test_big import numbered, rows
from test_processes import Child

import richstore

pytestmark = pytest.mark.timeout(90)

FIELDS = {
    "values", "records", "bytes", "pages_free", "pages_pinned", "oldest_reader_age",
    "oldest_reader_pid", "readers", "cache_bytes", "cache_hit_rate", "commits",
    "rekeying",
}  # fmt: skip


def test_form(box: Any) -> None:
    """Stats is a frozen dataclass with the documented fields and nothing else."""
    stats = box.store.stats()
    assert isinstance(stats, richstore.Stats)
    assert {field.name for field in dataclasses.fields(stats)} == FIELDS
    with pytest.raises(dataclasses.FrozenInstanceError):
        stats.values = 5
    assert stats.rekeying is False
    for name in FIELDS - {"oldest_reader_age", "oldest_reader_pid", "cache_hit_rate", "rekeying"}:
        if not (box.in_memory and name.startswith("pages") and getattr(stats, name) is None):
            assert type(getattr(stats, name)) is int, name
            assert getattr(stats, name) >= 0, name


def test_empty(box: Any) -> None:
    """An empty store has no values, no reader and no rate."""
    stats = box.store.stats()
    assert stats.values == stats.readers == 0
    assert (stats.oldest_reader_age, stats.oldest_reader_pid) == (None, None)
    assert stats.cache_hit_rate is None or stats.cache_hit_rate == 0


def test_closed(file_box: Any) -> None:
    """A closed store has no statistics."""
    file_box.store.close()
    with pytest.raises(richstore.ClosedError):
        file_box.store.stats()


def test_values_records_and_bytes(box: Any) -> None:
    """Values, records and bytes grow and shrink with what a walk over everything counts."""
    seen = [box.store.stats()]
    for key, value in {"small": [1], "text": "x", "list": rows(), "dict": numbered()}.items():
        box.store[key] = value
        seen.append(box.store.stats())
    assert [stats.values for stats in seen] == [0, 1, 2, 3, 4]
    assert seen[0].records < seen[1].records
    assert seen[1].records + 1 == seen[2].records
    assert seen[3].records > seen[2].records + 5
    assert seen[4].records > seen[3].records + 5
    assert seen[0].bytes <= seen[1].bytes <= seen[2].bytes < seen[0].bytes + 50_000
    assert 60_000 < seen[3].bytes - seen[2].bytes < 400_000
    for store in box.live_and_reopened():
        stats, report = store.stats(), store.verify()
        assert stats.values == report.values == len(store) == 4
        assert report.records <= stats.records  # cells, entries and the count are none of values
        assert report.bytes <= stats.bytes < 3 * report.bytes
    box.store["text"] = "x" * 100_000
    assert 90_000 < box.store.stats().bytes - stats.bytes < 200_000
    assert box.store.stats().records == stats.records
    del box.store["list"]
    box.store.compact()
    assert box.store.stats().values == 3
    assert box.store.stats().records < stats.records - 5
    box.store.clear()
    box.store.compact()
    stats = box.store.stats()
    assert stats.values == 0
    assert stats.records <= seen[1].records
    assert stats.bytes < seen[2].bytes + 50_000


def test_commits(box: Any) -> None:
    """Each commit counts one: a single change, a block of many; reads and rollbacks none."""
    store = box.store
    store["k"] = [1]
    start = store.stats().commits
    assert store.stats().commits == start
    store["k"].append(2)
    assert store.stats().commits == start + 1
    store["x"] = 5
    assert store.stats().commits == start + 2
    with store.transaction():
        store["k"].append(3)
        store["y"] = rows(1000)
        with store.transaction():
            store["k"].append(4)
    assert store.stats().commits == start + 3
    assert list(store["k"]) == [1, 2, 3, 4]
    with pytest.raises(LookupError), store.transaction():
        store["k"].append(5)
        raise LookupError
    with pytest.raises(IndexError):
        store["k"].pop(99)
    with store.transaction():
        pass
    with store.snapshot() as view:
        assert len(view["y"]) == 1000
    assert store.stats().commits == start + 3
    for n in range(10):
        store["k"].append(n)
    assert store.stats().commits == start + 13


def test_commits_of_another_process(file_box: Any) -> None:
    """Commits of another process are counted as its own are."""
    file_box.store["k"] = [1]
    start = file_box.store.stats().commits
    child = Child(file_box.target)
    for _ in range(3):
        child("store['k'].append(2)")
    assert file_box.store.stats().commits == start + 3
    assert child("store.stats().commits") == start + 3
    child.end()


def test_readers(file_box: Any) -> None:
    """A snapshot is a reader, with its age and process, until it is closed."""
    store = file_box.store
    store["k"] = [1]
    before = store.stats()
    assert before.oldest_reader_age is None
    assert before.oldest_reader_pid is None
    begin = time.monotonic()
    first = store.snapshot()
    time.sleep(0.1)
    between = time.monotonic()
    second = store.snapshot()
    store["k"].append(2)
    stats = store.stats()
    assert stats.readers == before.readers + 2
    assert stats.oldest_reader_pid == os.getpid()
    assert 0.1 <= stats.oldest_reader_age <= time.monotonic() - begin
    time.sleep(0.1)
    assert stats.oldest_reader_age + 0.1 <= store.stats().oldest_reader_age
    first.close()
    stats = store.stats()
    assert stats.readers == before.readers + 1
    # that of the second one, which is younger
    assert 0.1 <= stats.oldest_reader_age <= time.monotonic() - between
    second.close()
    stats = store.stats()
    assert stats.readers == before.readers
    assert (stats.oldest_reader_age, stats.oldest_reader_pid) == (None, None)


def test_readers_of_another_process(file_box: Any) -> None:
    """A snapshot in another process is seen with that process's id."""
    store = file_box.store
    store["k"] = [1]
    before = store.stats().readers
    child = Child(file_box.target)
    child("view = store.snapshot(); n = len(view)")
    time.sleep(0.1)
    stats = store.stats()
    assert stats.readers > before
    assert stats.oldest_reader_pid == child.process.pid
    age = stats.oldest_reader_age  # what another process keeps to itself cannot be told
    assert age is None or age >= 0.1
    child("view.close()")
    child.end()
    stats = store.stats()
    assert (stats.readers, stats.oldest_reader_pid) == (before, None)


def test_pages_free(file_box: Any) -> None:
    """Deleting a big value and reclaiming it gives free pages; filling them takes them again."""
    store = file_box.store
    store["k"] = rows(20_000)
    store["n"] = 0
    full = store.stats().pages_free
    del store["k"]
    store.compact()
    for n in range(3):
        store["n"] = n
    freed = store.stats().pages_free
    assert freed > full + 100
    size = os.path.getsize(file_box.target)
    store["k"] = rows(15_000)
    assert store.stats().pages_free < freed - 50
    assert os.path.getsize(file_box.target) <= size


def test_pages_pinned(file_box: Any) -> None:
    """Pages freed while a snapshot is open are pinned by it, until it is closed."""
    store = file_box.store
    store["k"] = rows(20_000)
    store["n"] = 0
    assert store.stats().pages_pinned < 50
    view = store.snapshot()
    del store["k"]
    store.compact()
    store["n"] = 1
    pinned = store.stats().pages_pinned
    assert pinned > 100
    assert len(view["k"]) == 20_000
    view.close()
    store["n"] = 2
    stats = store.stats()
    assert stats.pages_pinned < pinned / 2
    assert stats.pages_free > 100


def test_cache_bytes_stay_below_the_limit(tmp_path: Any) -> None:
    """Loading grows the cache up to `cache_size`, and no further, however much is read."""
    target = str(tmp_path / "t.db")
    with richstore.open(target, synchronous="off") as store:
        store["big"] = rows(20_000)
        store.update((n, rows(30)) for n in range(200))
    limit = 400_000
    with richstore.open(target, synchronous="off", cache_size=limit) as store:
        assert store.stats().cache_bytes < 20_000
        assert store["big"][10_000]["n"] == 10_000
        one = store.stats().cache_bytes
        assert one < limit / 2
        for row in store["big"]:
            assert row["n"] >= 0
        scanned = store.stats().cache_bytes
        assert one <= scanned <= limit
        for n in range(200):
            assert len(store[n]) == 30
        assert limit / 4 < store.stats().cache_bytes <= limit


def test_cache_hit_rate(file_box: Any) -> None:
    """The share of reads that the cache answers is low at first, and grows with known records."""
    file_box.store.update((n, rows(20)) for n in range(100))
    store = file_box.reopen()
    for n in range(100):
        assert len(store[n]) == 20
    cold = store.stats().cache_hit_rate
    assert 0 <= cold < 0.5
    for _ in range(9):
        for n in range(100):
            assert len(store[n]) == 20
    warm = store.stats().cache_hit_rate
    assert cold + 0.3 < warm <= 1
    assert store.stats().cache_hit_rate == warm
