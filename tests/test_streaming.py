"""Building big values from iterators: bounded memory, progress, all or nothing.

Memory is that of a process of its own: the peak of its anonymous pages above what it had before.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import check_store, run_python
from test_big import numbered, rows

import richstore

pytestmark = pytest.mark.timeout(120)

plain = richstore.plain
COUNT = 150_000
LIMIT = 50  # megabytes; the plain list of these dicts alone takes more

MEMORY = """
import sys, threading, time

class Peak:
    def now(self):
        with open("/proc/self/status") as status:
            (line,) = [line for line in status if line.startswith("RssAnon")]
        return int(line.split()[1]) / 1024
    def watch(self):
        while not self.done.wait(0.003):
            self.highest = max(self.highest, self.now())
    def __enter__(self):
        self.done, self.before = threading.Event(), self.now()
        self.highest = self.before
        self.thread = threading.Thread(target=self.watch)
        self.thread.start()
        return self
    def __exit__(self, *error):
        self.done.set()
        self.thread.join()
        self.highest = max(self.highest, self.now())
        self.megabytes = self.highest - self.before
"""
PROGRAM = (
    MEMORY
    + """
import richstore
COUNT = int(sys.argv[2])
def item(n):
    return {"id": n, "name": f"name {n}", "score": n / 7}
calls = []
with richstore.open(sys.argv[1], synchronous="off", cache_size=8_000_000) as store:
    store.update(warm=[item(n) for n in range(5000)], list=[item(0)], dict={"first": item(0)})
    store.compact()
    with Peak() as peak:
        BODY
    print(peak.megabytes)
    assert store.verify().ok, store.verify().problems
    print(repr(calls))
"""
)
BODIES = {
    "assign": """
        store["new"] = (item(n) for n in range(COUNT))
    """,
    "assign in a block": """
        with store.transaction(progress=lambda items, size: calls.append((items, size))):
            store["new"] = (item(n) for n in range(COUNT))
    """,
    "extend": """
        store["list"].extend(item(n) for n in range(COUNT))
    """,
    "extend in a block": """
        with store.transaction(progress=lambda items, size: calls.append((items, size))):
            store["list"].append("before")
            store["list"].extend(item(n) for n in range(COUNT))
            store["list"].append("after")
    """,
    "update": """
        store["dict"].update((f"key {n}", item(n)) for n in range(COUNT))
    """,
    "update in a block": """
        with store.transaction(progress=lambda items, size: calls.append((items, size))):
            store["dict"].update((f"key {n}", item(n)) for n in range(COUNT))
            store["dict"]["key 7"]["changed"] = True
    """,
    "in place": """
        store["list"] += (item(n) for n in range(COUNT))
    """,
}
needs_proc = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")


def item(n: int) -> dict[str, Any]:
    """Return what the program puts for a number."""
    return {"id": n, "name": f"name {n}", "score": n / 7}


@needs_proc
@pytest.mark.parametrize("how", BODIES)
def test_memory_is_bounded(path: str, how: str) -> None:
    """Building 150,000 dicts from a generator stays within 50 MB, and they are all there."""
    done = run_python(PROGRAM.replace("BODY", BODIES[how].strip()), path, str(COUNT))
    assert done.returncode == 0, done.stderr
    peak, calls = done.stdout.splitlines()
    assert float(peak) < LIMIT
    if "block" in how:
        check_progress(eval(calls), COUNT)
    with richstore.open(path, "r") as store:
        if "update" in how:
            found = store["dict"]
            assert len(found) == COUNT + 1
            assert next(iter(found)) == "first"
            assert next(reversed(found)) == f"key {COUNT - 1}"
            for n in (0, 1, COUNT // 2, COUNT - 1):
                assert found[f"key {n}"] == item(n)
            assert found["key 7"].get("changed", False) == ("block" in how)
        else:
            found = store["new" if "assign" in how else "list"]
            head = 0 if "assign" in how else 2 if "block" in how else 1
            tail = 1 if how == "extend in a block" else 0
            assert len(found) == head + COUNT + tail
            for n in (0, 1, COUNT // 2, COUNT - 1):
                assert found[head + n] == item(n)
            if tail:
                assert (found[1], found[-1]) == ("before", "after")


def check_progress(calls: list[tuple[int, int]], count: int) -> None:
    """Check that a callback was called now and then with numbers that grow."""
    assert len(calls) >= 3
    assert all(type(number) is int for call in calls for number in call)
    for before, after in itertools.pairwise(calls):
        assert after[0] > before[0]
        assert after[1] >= before[1]
    assert count * 0.5 < calls[-1][0] <= count + 10
    assert calls[-1][1] > count * 5
    assert calls[-1][1] > calls[0][1]


@needs_proc
def test_scan_and_append_are_bounded(path: str) -> None:
    """Walking a list of 150,000 dicts, and appending to it, takes memory for some of them only."""
    body = """
        pass
    store["list"].extend(item(n) for n in range(COUNT))
    del store
with richstore.open(sys.argv[1], synchronous="off", cache_size=8_000_000) as store:
    store["warm"][0]
    with Peak() as peak:
        assert sum(row["id"] for row in store["list"]) == sum(range(COUNT))
        assert sum(row["id"] for row in reversed(store["list"])) == sum(range(COUNT))
    scanned = peak.megabytes
    with Peak() as peak:
        for n in range(100):
            store["list"].append(item(n))
            store["list"][n * 1000]["seen"] = True
    assert peak.megabytes < 20, peak.megabytes"""
    done = run_python(
        PROGRAM.replace("BODY", body.strip()).replace("print(peak.megabytes", "print(scanned"),
        path,
        str(COUNT),
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.splitlines()[0]) < 40


# --- what a generator makes -----------------------------------------------------------------


def test_a_generator_makes_a_list(box: Any) -> None:
    """A generator that is assigned becomes a list, small, big or empty."""
    for count in (0, 1, 10, 5000):
        box.store["k"] = (row for row in rows(count))
        assert box.store["k"].__class__ is list
        assert box.store["k"] == rows(count)
        assert box.stored("k") == rows(count)
        box.store["k"].append("goes on")
        assert box.store["k"][-1] == "goes on"


def test_a_generator_replaces_a_value(box: Any) -> None:
    """A generator that reads the value whose place it takes reads it to its end."""
    box.store["k"] = rows(3000)
    old = box.store["k"]
    box.store["k"] = ({"n": row["n"] * 2} for row in old)
    assert box.store["k"] == [{"n": n * 2} for n in range(3000)]
    assert not richstore.is_tracked(old)
    assert box.stored("k")[2999] == {"n": 5998}


def test_extend_from_its_own_items(box: Any) -> None:
    """A list extended by an iterator over itself outside a block doubles, and stays two halves."""
    box.store["k"] = list(range(3000))
    box.store["k"].extend(n + 1 for n in box.store["k"])
    assert box.stored("k") == [*range(3000), *range(1, 3001)]


@pytest.mark.parametrize("count", [10, 5000])
def test_the_same_object_twice_stays_one(box: Any, count: int) -> None:
    """An object that a generator yields again, near or far, is one item in two places."""

    def items() -> Iterator[Any]:
        shared: dict[str, Any] = {"shared": []}
        yield shared
        yield from rows(count)
        yield shared
        yield [shared, shared]
        yield shared

    box.store["new"] = items()
    box.store["list"] = [0]
    box.store["list"].extend(items())
    box.store["dict"] = {}
    box.store["dict"].update((f"key {n}", x) for n, x in enumerate(items()))
    for store in box.live_and_reopened():
        new, old, names = store["new"], store["list"], store["dict"]
        assert new[0] is new[count + 1] is new[-1] is new[-2][0] is new[-2][1]
        assert old[1] is old[count + 2] is old[-1] is old[-2][1]
        assert names["key 0"] is names[f"key {count + 3}"] is names[f"key {count + 1}"]
        new[0]["shared"].append(1)
        old[-1]["shared"].append(1)
        names["key 0"]["shared"].append(1)
    for value in (box.store["new"][-1], box.store["list"][1], box.store["dict"]["key 0"]):
        assert set(value["shared"]) == {1}
    check_store(box.store)


def test_an_object_that_is_changed_between_is_one(box: Any) -> None:
    """A dict that a generator changes and yields again is one item in two places."""

    def items() -> Iterator[Any]:
        row = {"n": 0}
        for n in range(2000):
            yield n
            if n % 1000 == 0:
                row["n"] += 1
                yield row

    expected = list(items())
    box.store["k"] = items()
    assert len(box.store["k"]) == len(expected)
    first, second = [x for x in box.store["k"] if isinstance(x, dict)]
    assert first is second


# --- all or nothing -------------------------------------------------------------------------


def failing(count: int) -> Iterator[Any]:
    """Yield dicts, then raise."""
    yield from rows(count)
    raise LookupError("generator")


def failing_pairs(count: int) -> Iterator[Any]:
    """Yield pairs, then raise."""
    yield from numbered(count).items()
    raise LookupError("generator")


WAYS = {
    "assign new": lambda store: store.__setitem__("new", failing(20_000)),
    "assign": lambda store: store.__setitem__("list", failing(20_000)),
    "extend": lambda store: store["list"].extend(failing(20_000)),
    "iadd": lambda store: store["list"].__iadd__(failing(20_000)),
    "slice": lambda store: store["list"].__setitem__(slice(5, 900), failing(20_000)),
    "update": lambda store: store["dict"].update(failing_pairs(20_000)),
    "ior": lambda store: store["dict"].__ior__(failing_pairs(20_000)),
    "set": lambda store: store["set"].update(f"{row['n']}" for row in failing(20_000)),
}


@pytest.mark.parametrize("where", ["alone", "block", "caught"])
@pytest.mark.parametrize("way", WAYS)
def test_a_failing_generator_leaves_nothing(box: Any, way: str, where: str) -> None:
    """When the generator raises, all is as before, and compact frees what had been written."""
    box.store.update(list=rows(1000), dict=numbered(1000), set={f"m {n}" for n in range(1000)})
    before = {key: plain(value) for key, value in box.store.items()}
    held = box.store["list"][500]
    box.store.compact()
    records = box.store.verify().records
    if where == "alone":
        with pytest.raises(LookupError, match="generator"):
            WAYS[way](box.store)
    elif where == "block":
        with pytest.raises(LookupError, match="generator"), box.store.transaction():
            WAYS[way](box.store)
    else:
        with box.store.transaction():
            box.store["kept"] = 1
            with pytest.raises(LookupError, match="generator"):
                WAYS[way](box.store)
            assert {key: plain(value) for key, value in box.store.items()} == {**before, "kept": 1}
        del box.store["kept"]
    check_store(box.store)
    assert {key: plain(value) for key, value in box.store.items()} == before
    assert box.store["list"][500] is held
    box.store.compact()
    report = box.store.verify()
    assert (report.waiting, report.unreachable, report.records) == (0, 0, records)
    assert {key: plain(value) for key, value in box.reopen().items()} == before


def test_rolled_back_stream(box: Any) -> None:
    """A stream that ended, in a block that is rolled back afterwards, leaves nothing either."""
    box.store["k"] = rows(1000)
    box.store.compact()
    records = box.store.verify().records
    with pytest.raises(LookupError), box.store.transaction():
        box.store["k"].extend(row for row in rows(20_000))
        box.store["new"] = (row for row in rows(20_000))
        born = box.store["new"][15_000]
        raise LookupError
    assert born == rows(15_001)[-1]
    with pytest.raises(richstore.DetachedError):
        born.clear()
    with box.store.transaction() as transaction:
        savepoint = transaction.savepoint()
        box.store["k"].extend(row for row in rows(20_000))
        transaction.rollback_to(savepoint)
        box.store["k"].append("kept")
    assert box.store["k"] == [*rows(1000), "kept"]
    assert "new" not in box.store
    box.store.compact()
    report = box.store.verify()
    assert (report.problems, report.waiting) == ([], 0)
    assert abs(report.records - records) <= 1


def test_the_block_sees_what_it_streamed(box: Any, run_thread: Any) -> None:
    """Inside its block a streamed value reads, changes and keeps identities, seen by no other."""
    box.store["k"] = [0]
    with box.store.transaction():
        box.store["k"].extend(row for row in rows(20_000))
        big = box.store["k"]
        assert len(big) == 20_001
        first, last = big[1], big[-1]
        assert [row["n"] for row in big[1:]] == list(range(20_000))
        first["changed"] = last["changed"] = True
        big.insert(10_000, {"middle": 1})
        assert big[1] is first
        assert big[-1] is last
        assert run_thread(lambda: list(box.store["k"])) == [0]
        del big[2:10_000]
    assert run_thread(lambda: len(box.store["k"])) == 20_002 - 9998
    stored = box.stored("k")
    assert stored[1] == {**rows(1)[0], "changed": True}
    assert stored[2] == {"middle": 1}
    assert stored[-1]["changed"] is True


# --- progress -------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["generator", "list", "extend", "update"])
def test_progress(box: Any, what: str) -> None:
    """The callback of a block is told of growing numbers of items and bytes."""
    calls: list[tuple[int, int]] = []
    box.store.update(list=[], dict={})
    with box.store.transaction(progress=lambda items, size: calls.append((items, size))):
        if what == "generator":
            box.store["k"] = (row for row in rows(50_000))
        elif what == "list":
            box.store["k"] = rows(50_000)
        elif what == "extend":
            box.store["list"].extend(row for row in rows(50_000))
        else:
            box.store["dict"].update(iter(numbered(50_000).items()))
    check_progress(calls, 50_000)


def test_progress_that_raises_ends_the_block(box: Any) -> None:
    """An error in the callback is an error in the block: it goes on, and everything is undone."""

    def stop(items: int, size: int) -> None:
        if items > 10_000:
            raise LookupError("stop")

    box.store["k"] = [1]
    with pytest.raises(LookupError, match="stop"), box.store.transaction(progress=stop):
        box.store["k"].extend(row for row in rows(50_000))
    assert box.store["k"] == [1]
    assert box.stored("k") == [1]


def test_no_progress_for_small_changes(box: Any) -> None:
    """A block that makes small changes only calls nobody."""
    calls: list[Any] = []
    with box.store.transaction(progress=lambda *numbers: calls.append(numbers)):
        box.store["k"] = [1, 2]
        box.store["k"].extend(n for n in range(5))
    assert len(calls) <= 1
    assert box.store["k"] == [1, 2, 0, 1, 2, 3, 4]
