"""`verify()`: clean after any work, and whatever is planted into a file by hand is found.

The file is damaged through lmdb itself: a record below a root has a key that begins with 0x20.
"""

from __future__ import annotations

import os
import random
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import lmdb
import pytest
from conftest import TINY, check_store, run_python
from sample_classes import Account
from test_big import N, numbered, rows
from test_streaming import MEMORY

import richstore

pytestmark = pytest.mark.timeout(90)

ROOT, PAGES = 0x10, 0x20
Records = dict[bytes, bytes]


# --- clean ----------------------------------------------------------------------------------


def test_empty_store(box: Any) -> None:
    """The report of an empty store counts nothing and finds nothing."""
    report = box.store.verify()
    assert isinstance(report, richstore.Report)
    assert (report.ok, report.problems) == (True, [])
    assert (report.values, report.records, report.unreachable, report.waiting) == (0, 0, 0, 0)


def test_report_counts(box: Any) -> None:
    """The report counts values, their records, and the bytes of these."""
    box.store.update(small=[1], text="x", deep={"a": {"b": [1]}})
    small = box.store.verify()
    assert (small.ok, small.values, small.records) == (True, 3, 3)
    assert 0 < small.bytes < 1000
    box.store["big"] = rows()
    big = box.store.verify()
    assert (big.ok, big.values, big.unreachable, big.waiting) == (True, 4, 0, 0)
    assert big.records > 10
    assert 30 * N < big.bytes < 200 * N


def test_waiting_records_are_no_problem(file_box: Any) -> None:
    """Records of a deleted value that wait for being reclaimed are counted, and are no problem."""
    file_box.store["k"] = rows(20_000)
    whole = file_box.store.verify().records
    del file_box.store["k"]
    for store in file_box.live_and_reopened():
        report = store.verify()
        assert (report.ok, report.problems, report.unreachable) == (True, [], 0)
        assert report.values == 0
        assert whole / 3 < report.waiting < whole + 10
    waiting = file_box.store.verify().waiting
    assert file_box.store.compact() >= waiting / 2
    report = file_box.store.verify()
    assert (report.ok, report.waiting, report.records) == (True, 0, 0)
    assert file_box.store.compact() == 0


def test_refused_inside_a_transaction(box: Any) -> None:
    """Inside a block verify raises RuntimeError, and the block goes on."""
    box.store["k"] = [1]
    with box.store.transaction():
        box.store["k"].append(2)
        with pytest.raises(RuntimeError, match=r"block|transaction"):
            box.store.verify()
        box.store["k"].append(3)
    assert box.store.verify().ok
    assert box.stored("k") == [1, 2, 3]


def test_closed_and_read_only(file_box: Any) -> None:
    """A store opened for reading can be verified, not compacted; a closed one neither."""
    file_box.store["k"] = rows()
    file_box.store.close()
    with file_box.open(flag="r") as store:
        assert store.verify().ok
        assert store.verify().values == 1
        with pytest.raises(richstore.ReadOnlyError):
            store.compact()
    for call in (store.verify, store.compact):
        with pytest.raises(richstore.ClosedError):
            call()


def random_work(store: Any, dice: random.Random, steps: int) -> None:
    """Do many things to big and small values."""
    for _ in range(steps):
        key = dice.choice("abcd")
        value = store.get(key)
        what = dice.randrange(12)
        if what == 0 or value is None:
            made: list[Callable[[], Any]] = [
                lambda: rows(dice.randrange(1500)),
                lambda: numbered(dice.randrange(1500)),
                lambda: {f"m {n}" for n in range(dice.randrange(1500))},
                lambda: Account("name"),
            ]
            store[key] = dice.choice(made)()
        elif what == 1:
            del store[key]
        elif isinstance(value, Account):
            value.history.insert(0, rows(dice.randrange(200)))
        elif isinstance(value, set):
            value ^= {f"m {n}" for n in range(0, dice.randrange(2000), 3)}
        elif isinstance(value, list):
            at = dice.randrange(len(value) + 1)
            if what < 4:
                value[at : at + dice.randrange(300)] = rows(dice.randrange(300))
            elif what < 6:
                value.insert(at, {"nested": numbered(dice.randrange(300))})
            elif what < 8 and value:
                value.append(value[at % len(value)])  # an alias
            elif what < 10 and value and isinstance(value[at % len(value)], dict):
                value[at % len(value)]["more"] = rows(dice.randrange(200))
            else:
                value.reverse()
        elif what < 6:
            value.update((f"new {n}", [n]) for n in range(dice.randrange(300)))
        elif what < 9 and value:
            for name in list(value)[:: dice.randrange(2, 9)]:
                del value[name]
        else:
            value["copy"] = next(iter(value.values()), None)


@pytest.mark.usefixtures("page")
@pytest.mark.parametrize("seed", range(3))
def test_clean_after_random_work(box: Any, page: str, seed: int) -> None:
    """After any work, alone, in blocks, rolled back, with aliases and copies, all is in order."""
    dice = random.Random(seed)
    steps = 3 if page == "tiny" else 8
    for turn in range(8):
        if turn % 3 == 0:
            random_work(box.store, dice, steps)
        elif turn % 3 == 1:
            with box.store.transaction() as transaction:
                random_work(box.store, dice, steps)
                savepoint = transaction.savepoint()
                random_work(box.store, dice, steps)
                if turn % 2:
                    transaction.rollback_to(savepoint)
                random_work(box.store, dice, 2)
        else:
            with pytest.raises(LookupError), box.store.transaction():
                random_work(box.store, dice, steps)
                raise LookupError
        for store in box.live_and_reopened():
            check_store(store)
    content = {key: richstore.plain(value) for key, value in box.store.items()}
    box.store.compact()
    report = box.store.verify()
    assert (report.problems, report.waiting) == ([], 0)
    assert {key: richstore.plain(value) for key, value in box.store.items()} == content
    box.store.clear()
    box.store.compact()
    assert box.store.verify().records == 0


# --- planted damage -------------------------------------------------------------------------

VALUES: dict[str, Callable[[], Any]] = {
    "list": rows,
    "numbers": lambda: [n * 1_000_003 for n in range(4 * N)],
    "dict": numbered,
    "set": lambda: {f"member {n:06}" for n in range(N)},
    "nested": lambda: {"name": "x", "rows": [{"inner": rows(300)} for _ in range(10)]},
}
values = pytest.mark.parametrize("kind", VALUES)


class File:
    """A closed store file whose records are read and written by hand."""

    def __init__(self, path: str) -> None:
        self.path = path

    def _open(self) -> lmdb.Environment:
        size = 4 * os.path.getsize(self.path) + (1 << 22)
        return lmdb.open(self.path, subdir=False, lock=True, max_dbs=0, map_size=size)

    def read(self) -> Records:
        """Return all records by engine key."""
        with closing(self._open()) as environment, environment.begin() as txn:
            return {bytes(key): bytes(value) for key, value in txn.cursor()}

    def write(self, changes: dict[bytes, bytes | None]) -> None:
        """Put records; None deletes one."""
        with closing(self._open()) as environment, environment.begin(write=True) as txn:
            for key, value in changes.items():
                assert txn.delete(key) if value is None else txn.put(key, value)

    def below(self) -> Records:
        """Return the records of spread containers."""
        return {key: value for key, value in self.read().items() if key[0] == PAGES}

    def verify(self) -> Any:
        """Return the report of the store as it is now."""
        with richstore.open(self.path, "r") as store:
            return store.verify()


@pytest.fixture
def made(path: str) -> Iterator[Callable[[str], File]]:
    """Return a function that makes a closed store with a value of some kind under "ledger"."""

    def make(kind: str) -> File:
        with richstore.open(path, synchronous="off") as store:
            store["fine"] = [1, 2]
            store["ledger"] = VALUES[kind]()
            assert store.verify().ok
        assert len(File(path).below()) > 3
        return File(path)

    yield make
    assert Path(path).exists()


def expect(report: Any) -> None:
    """Check that a report has problems, each told once, in a sentence."""
    assert not report.ok
    assert report.problems
    for sentence in report.problems:
        assert isinstance(sentence, str)
        assert len(sentence.split()) >= 4, sentence
        assert "\n" not in sentence
    assert len(set(report.problems)) == len(report.problems)


@values
def test_missing_page(made: Any, kind: str) -> None:
    """A record that is gone from below a value is reported."""
    file = made(kind)
    pages = file.below()
    for key in random.Random(1).sample(sorted(pages), 4):
        file.write({key: None})
        expect(file.verify())
        file.write({key: pages[key]})
    assert file.verify().ok


@values
def test_flipped_byte(made: Any, kind: str) -> None:
    """One byte that changed anywhere in a record below a value is reported."""
    file, dice = made(kind), random.Random(2)
    pages = file.below()
    for key in dice.sample(sorted(pages), 3):
        for at in (0, 3, len(pages[key]) // 2, len(pages[key]) - 1):
            damaged = bytearray(pages[key])
            damaged[at] ^= 1 << dice.randrange(8)
            file.write({key: bytes(damaged)})
            expect(file.verify())
        file.write({key: pages[key]})
    assert file.verify().ok


@values
def test_damaged_cells(made: Any, kind: str) -> None:
    """What leads to the records below a value, lost or changed in a byte, is reported."""
    file, dice = made(kind), random.Random(5)
    cells = {key: value for key, value in file.read().items() if PAGES < key[0] < PAGES + 16}
    assert cells
    for key in dice.sample(sorted(cells), min(4, len(cells))):
        file.write({key: None})
        expect(file.verify())
        for _ in range(5 if cells[key] else 0):
            damaged = bytearray(cells[key])
            damaged[dice.randrange(len(damaged))] ^= 1 << dice.randrange(8)
            file.write({key: bytes(damaged)})
            expect(file.verify())
        file.write({key: cells[key]})
    assert file.verify().ok


def test_cut_and_empty_records(made: Any) -> None:
    """A record that was cut short is reported, down to no bytes at all."""
    file = made("list")
    pages = file.below()
    key = sorted(pages)[2]
    for length in (0, 1, 5, 20, len(pages[key]) - 1):
        file.write({key: pages[key][:length]})
        expect(file.verify())
    file.write({key: pages[key]})
    assert file.verify().ok


def test_damaged_root(made: Any) -> None:
    """A root record in which a byte changed is reported, and the other values are walked on."""
    file = made("list")
    (root,) = [key for key in file.read() if key[0] == ROOT and b"ledger" in key]
    stored = bytearray(file.read()[root])
    stored[-3] ^= 4
    file.write({root: bytes(stored)})
    report = file.verify()
    expect(report)
    assert not any("fine" in sentence for sentence in report.problems)


def unused(pages: Records, like: bytes) -> bytes:
    """Return a key of the same form that no record has."""
    key = bytearray(like)
    while bytes(key) in pages:
        key[-1] = (key[-1] + 0x51) % 256
        key[-2] ^= 0x35
    return bytes(key)


@values
def test_copied_record(made: Any, kind: str) -> None:
    """A record copied under another id is reported: nothing refers to it, and it is not its own."""
    file = made(kind)
    pages = file.below()
    for key in random.Random(3).sample(sorted(pages), 3):
        copy = unused(pages, key)
        file.write({copy: pages[key]})
        report = file.verify()
        expect(report)
        file.write({copy: None})
    assert file.verify().ok


def test_record_of_another_place(made: Any) -> None:
    """Two records of one value that changed places are both reported."""
    file = made("list")
    pages = file.below()
    first, second = random.Random(4).sample(sorted(pages), 2)
    file.write({first: pages[second], second: pages[first]})
    expect(file.verify())
    assert len(file.verify().problems) >= 2


@values
def test_unreachable_record(made: Any, kind: str) -> None:
    """A sound record to which nothing leads is counted as unreachable and reported."""
    file = made(kind)
    pages = file.below()
    key = sorted(pages)[2]
    name, stored = unused(pages, key), pages[key]
    body, flags = stored[6:], stored[1]
    seal = zlib.crc32(body, zlib.crc32(name, flags)).to_bytes(4, "little")
    file.write({name: stored[:2] + seal + body})
    report = file.verify()
    expect(report)
    # what is on a page of a dict or set is found by its keys, which have no entry: said of each
    assert report.unreachable >= 1 or kind in {"dict", "set"}


def test_pages_of_a_lost_root(made: Any) -> None:
    """When a root record is gone, all records below it are unreachable, and it is said how many."""
    file = made("list")
    (root,) = [key for key in file.read() if key[0] == ROOT and b"ledger" in key]
    file.write({root: None})
    report = file.verify()
    expect(report)
    assert report.unreachable >= len(file.below())


def test_stale_page(path: str) -> None:
    """A page put back from before an insertion is sound by itself, and does not fit the counts."""
    with richstore.open(path, synchronous="off") as store:
        store["ledger"] = rows()
        for n in range(60):  # so that the page has room and the next insertion splits nothing
            store["ledger"].insert(1000, {"new": n})
    file = File(path)
    before = file.below()
    with richstore.open(path, synchronous="off") as store:
        store["ledger"].insert(1000, {"last": 1})
    after = file.below()
    changed = [key for key in before if key in after and before[key] != after[key]]
    assert changed
    for key in changed:
        file.write({key: before[key]})
        expect(file.verify())
        file.write({key: after[key]})
    assert file.verify().ok


def test_wrong_number_of_values(made: Any) -> None:
    """A count of values that is not the number of values is reported."""
    file = made("numbers")
    (key,) = [key for key in file.read() if key == b"\x00count"]
    file.write({key: (5).to_bytes(8, "little")})
    report = file.verify()
    expect(report)
    assert report.values == 2


@pytest.mark.parametrize("kind", ["list", "dict", "nested"])
def test_problems_name_the_value(made: Any, kind: str) -> None:
    """A problem below a value is told with the key of the value: that is what a person can find."""
    file = made(kind)
    pages = file.below()
    key = sorted(pages)[3]
    file.write({key: None})
    assert any("ledger" in sentence for sentence in file.verify().problems)
    stored = bytearray(pages[key])
    stored[-2] ^= 1
    file.write({key: bytes(stored)})
    assert any("ledger" in sentence for sentence in file.verify().problems)


def test_many_damages_are_all_reported(made: Any) -> None:
    """One walk reports damage in several places and goes on after each."""
    file = made("nested")
    pages = file.below()
    keys = sorted(pages)[1::4][:3]
    for key in keys:
        stored = bytearray(pages[key])
        stored[-2] ^= 1
        file.write({key: bytes(stored)})
    report = file.verify()
    expect(report)
    assert len(report.problems) >= len(keys)


def test_damage_is_reported_where_it_is_met(made: Any) -> None:
    """Reading into a damaged page raises CorruptionError; the rest of the value is still read."""
    file = made("list")
    pages = file.below()
    key = sorted(pages)[3]
    stored = bytearray(pages[key])
    stored[-5] ^= 1
    file.write({key: bytes(stored)})
    good = bad = 0
    with richstore.open(file.path) as store:
        big = store["ledger"]
        assert len(big) == N
        for at in range(N):
            try:
                assert big[at]["n"] == at
                good += 1
            except richstore.CorruptionError:
                bad += 1
        with pytest.raises(richstore.CorruptionError):
            richstore.plain(big)
        assert store["fine"] == [1, 2]
    assert bad > 0
    assert good > N / 2


def test_verify_loads_little(path: str) -> None:
    """Verifying a store of 300,000 items takes memory for a few records, not for all of them."""
    code = """
import richstore
with richstore.open(sys.argv[1], "r", cache_size=1_000_000) as store:
    len(store)
    with Peak() as peak:
        report = store.verify()
    assert report.ok, report.problems
    print(peak.megabytes)
"""
    with richstore.open(path, synchronous="off") as store:
        store["ledger"] = [{"id": n, "name": f"name {n}"} for n in range(300_000)]
    done = run_python(MEMORY + code, path)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 40


def test_tiny_pages_are_verified_with_the_default_target(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file written with another page target is as sound as any: the format does not know it."""
    with monkeypatch.context() as patch:
        patch.setattr("richstore.paging.PAGE", TINY)
        with richstore.open(path, synchronous="off") as store:
            store.update(list=rows(500), dict=numbered(500), nested=VALUES["nested"]())
            check_store(store)
            many = store.verify().records
    with richstore.open(path, synchronous="off") as store:
        check_store(store)
        assert store["list"] == rows(500)
        for n in range(500):
            store["list"][n]["n"] += 1
            store["dict"][f"key {n:05}"].append(n)
        check_store(store)
        assert store["list"] == [{**row, "n": row["n"] + 1} for row in rows(500)]
        store.compact()
        assert store.verify().records < many
