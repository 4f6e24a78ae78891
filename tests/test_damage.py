"""Damaged files: every changed byte of a record is told, nothing wrong is ever read."""

from __future__ import annotations

import importlib
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lmdb
import pytest

import richstore
from richstore.tracker import COUNT_KEY, NUMBERS_KEY

plain = richstore.plain
N = 1500
CLEAR = (richstore.CorruptionError, richstore.FormatError)
pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, dict[Any, Any]]:
    """The bytes of a file with values of all sizes, and the values."""
    path = tmp_path_factory.mktemp("damage") / "store"
    with richstore.open(path, synchronous="off") as store:
        store["small"] = {"a": [1, {2}], "b": None}
        store["rows"] = [{"n": n, "tags": [n]} for n in range(N)]
        store["rows"].append(store["rows"][7])
        store["table"] = {f"key {n}": [n] for n in range(N)}
        store["set"] = set(range(2 * N))
        store["x" * 600] = [1]
        expected = {key: plain(store[key]) for key in store}
    return path.read_bytes(), expected


@pytest.fixture(scope="module")
def entries(whole: Any, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[bytes, bytes]]:
    """All that the engine has in that file."""
    path = tmp_path_factory.mktemp("entries") / "store"
    path.write_bytes(whole[0])
    with open_bare(path) as env, env.begin() as transaction:
        return list(transaction.cursor())


def open_bare(path: Path) -> Any:
    """Open a file past richstore."""
    return lmdb.open(str(path), subdir=False, lock=False, map_size=1 << 30)


def damaged(path: Path, stored: bytes, name: bytes, value: bytes | None) -> Path:
    """Write a file in which one entry has another value, or is missing."""
    path.write_bytes(stored)
    Path(f"{path}-lock").unlink(missing_ok=True)
    with open_bare(path) as env, env.begin(write=True) as transaction:
        assert transaction.delete(name) if value is None else transaction.put(name, value)
    return path


def flips(value: bytes, dice: random.Random, count: int) -> Iterator[bytes]:
    """Yield a value with one bit changed, or one byte zeroed, in some places."""
    for _ in range(count):
        at = dice.randrange(len(value))
        byte = value[at] ^ 1 << dice.randrange(8) if dice.random() < 0.7 else 0
        if byte != value[at]:
            yield value[:at] + bytes((byte,)) + value[at + 1 :]


def reads(store: Any) -> Iterator[tuple[Any, Any]]:
    """Read the values and some items of each, one by one; give each key with a call."""
    for key in ("small", "rows", "table", "set", "x" * 600):
        yield key, lambda key=key: plain(store[key])
    for n in range(0, N, 97):
        yield ("rows", n), lambda n=n: plain(store["rows"][n])
        yield ("table", n), lambda n=n: plain(store["table"][f"key {n}"])
        yield ("set", n), lambda n=n: n in store["set"]


def right(key: Any, expected: dict[Any, Any]) -> Any:
    """Return what a read should give."""
    if not isinstance(key, tuple):
        return expected[key]
    what, n = key
    return {"rows": lambda: expected["rows"][n], "table": lambda: [n], "set": lambda: True}[what]()


@pytest.mark.parametrize("kind", [b"\x10", b"\x20", b"\x21", b"\x22", b"\x23"])
def test_any_byte_of_any_record(
    whole: Any, entries: Any, tmp_path: Path, kind: bytes, request: pytest.FixtureRequest
) -> None:
    """A read of a damaged record, page, entry or index raises, and everything else is read."""
    stored, expected = whole
    dice = random.Random(1)
    some = [row for row in entries if row[0][:1] == kind]
    assert some
    rounds = 400 if request.config.getoption("--long") else 20
    told = 0
    for _ in range(rounds):
        name, value = dice.choice(some)
        for changed in flips(value, dice, 1):
            damaged(tmp_path / "store", stored, name, changed)
            with richstore.open(tmp_path / "store", "r") as store:
                failed = set()
                for key, read in reads(store):
                    try:
                        assert read() == right(key, expected), key
                    except CLEAR as error:
                        failed.add(key[0] if isinstance(key, tuple) else key)
                        told += 1
                        assert str(error)
                assert len(failed) <= 1
                report = store.verify()
                assert not report.ok and report.problems
    assert told or kind == b"\x21"


def ways(store: Any, view: Any) -> dict[str, Any]:
    """Return every way of reading, by what it should give: a call of each."""
    key = f"key {N - 1}"
    table, rows, numbers = "table", "rows", "set"
    return {
        "store[key]": lambda: plain(store[rows]),
        "items": lambda: plain(dict(store.items())),
        "values": lambda: plain(list(store.values())),
        "keys": lambda: list(store),
        "snapshot": lambda: plain(view[rows]),
        "snapshot items": lambda: plain(dict(view.items())),
        "item": lambda: plain(store[rows][7]),
        "last item": lambda: plain(store[rows][-1]),
        "slice": lambda: plain(store[rows][3 : N - 3 : 5]),
        "iteration": lambda: [plain(row) for row in store[rows]],
        "reversed": lambda: [plain(row) for row in reversed(store[rows])],
        "in a list": lambda: {"n": N - 1, "tags": [N - 1]} in store[rows],
        "in a snapshot's list": lambda: {"n": N - 1, "tags": [N - 1]} in view[rows],
        "snapshot slice": lambda: plain(view[rows][3 : N - 3 : 5]),
        "dict": lambda: plain(store[table]),
        "dict items": lambda: {key: plain(value) for key, value in store[table].items()},
        "dict values": lambda: [plain(value) for value in view[table].values()],
        "dict key": lambda: plain(store[table][key]),
        "get": lambda: plain(view[table].get(key)),
        "set": lambda: set(store[numbers]),
        "in a set": lambda: 2 * N - 1 in view[numbers],
    }


def values_of(ways_to_read: dict[str, Any]) -> dict[str, Any]:
    """Return what each way of reading gives, a `CorruptionError` or `FormatError` for one."""
    found = {}
    for way, read in ways_to_read.items():
        try:
            found[way] = read()
        except CLEAR as error:
            found[way] = error
    return found


def zeroed(value: bytes, dice: random.Random) -> bytes:
    """Return a value with some bytes, or all, of its second half zeroed."""
    start = dice.randrange(len(value) // 2, len(value))
    end = dice.choice([len(value), dice.randrange(start, len(value)) + 1])
    return value[:start] + bytes(end - start) + value[end:]


@pytest.mark.parametrize("kind", [b"\x10", b"\x20", b"\x22", b"\x23"])
def test_every_way_of_reading(
    whole: Any, entries: Any, tmp_path: Path, kind: bytes, request: pytest.FixtureRequest
) -> None:
    """Each way of reading, also the second time, is right or names the damaged value's key."""
    stored, _ = whole
    (tmp_path / "whole").write_bytes(stored)
    with richstore.open(tmp_path / "whole", "r") as store, store.snapshot() as view:
        expected = values_of(ways(store, view))
    assert not any(isinstance(found, CLEAR) for found in expected.values())
    dice = random.Random(2)
    some = [row for row in entries if row[0][:1] == kind]
    told = 0
    for _ in range(100 if request.config.getoption("--long") else 5):
        name, value = dice.choice(some)
        # a page that is gone is missed by a list; a dict is one page shorter, and check tells
        gone = kind in (b"\x22", b"\x23") and dice.random() < 0.5
        changed = None if gone else dice.choice([*flips(value, dice, 1), zeroed(value, dice)])
        if changed == value:
            continue
        damaged(tmp_path / "store", stored, name, changed)
        with richstore.open(tmp_path / "store", "r") as store, store.snapshot() as view:
            for _ in range(2):
                for way, found in values_of(ways(store, view)).items():
                    if isinstance(found, CLEAR):
                        told += 1
                        assert "in the value at [" in str(found), (way, found)
                    else:
                        assert found == expected[way], (way, name, changed)
    assert told


def test_a_missing_record_is_not_an_empty_value(whole: Any, entries: Any, tmp_path: Path) -> None:
    """Items that have a record of their own, which is gone, raise in the store and in snapshots."""
    name = next(name for name, _ in entries if name[:1] == b"\x23")
    damaged(tmp_path / "store", whole[0], name, None)
    with richstore.open(tmp_path / "store", "r") as store, store.snapshot() as view:
        for _ in range(2):
            for rows in (store["rows"], view["rows"]):
                for at in (7, -1):
                    with pytest.raises(richstore.CorruptionError, match=r"'rows'.*missing"):
                        plain(rows[at])
            assert store["rows"][N // 2] == {"n": N // 2, "tags": [N // 2]}


def test_a_damaged_key(whole: Any, entries: Any, tmp_path: Path) -> None:
    """A key that a record keeps, since it is too long, is never given as another one."""
    stored, expected = whole
    name, value = next(row for row in entries if b"xxx" in row[0] and row[0][:1] == b"\x10")
    at = value.index(b"xxx")
    for place in (at - 3, at, at + 99, at + 599):
        changed = value[:place] + bytes((value[place] ^ 1,)) + value[place + 1 :]
        damaged(tmp_path / "store", stored, name, changed)
        with richstore.open(tmp_path / "store", "r") as store:
            for read in (lambda store=store: list(store), lambda store=store: dict(store.items())):
                with pytest.raises(richstore.CorruptionError):
                    read()
            assert list(store.keys(stop="x")) == [key for key in expected if key < "x"]


def test_a_class_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page with an instance of a class that cannot be imported reads, with a placeholder."""
    (tmp_path / "gone_module.py").write_text("class Gone: pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    gone = importlib.import_module("gone_module").Gone
    with richstore.open(tmp_path / "store") as store:
        store["rows"] = [[n, "x" * 30] for n in range(N)]
        store["rows"].append(gone())
    monkeypatch.delitem(sys.modules, "gone_module")
    (tmp_path / "gone_module.py").unlink()
    importlib.invalidate_caches()
    with richstore.open(tmp_path / "store") as store:
        assert isinstance(store["rows"][-1], richstore.Missing)
        assert store["rows"][0] == [0, "x" * 30]


def test_an_entry_that_leads_elsewhere(whole: Any, entries: Any, tmp_path: Path) -> None:
    """A key whose entry was changed raises, or is found; it is never said to be missing."""
    stored, _ = whole
    found = {value for name, value in entries if name[:1] == b"\x21"}
    name, value = next(row for row in entries if row[0][:1] == b"\x21" and b"key 750" in row[0])
    for other in sorted(found - {value})[:40]:
        damaged(tmp_path / "store", stored, name, other)
        with richstore.open(tmp_path / "store", "r") as store:
            table = store["table"]
            with pytest.raises(richstore.CorruptionError, match=r"key 750|missing"):
                table["key 750"]
            with pytest.raises(richstore.CorruptionError, match=r"key 750|missing"):
                table.get("key 750")
            assert table["key 751"] == [751]
            assert not store.verify().ok


def test_numbers_that_were_changed_are_found(whole: Any, tmp_path: Path) -> None:
    """verify() sees a wrong count of values, and a next number that is in use."""
    for name, value in ((COUNT_KEY, 77), (NUMBERS_KEY, 5)):
        damaged(tmp_path / "store", whole[0], name, value.to_bytes(8, "little"))
        with richstore.open(tmp_path / "store", "r") as store:
            report = store.verify()
            assert len(report.problems) == 1 and str(value) in report.problems[0]


def test_files_that_are_no_stores(tmp_path: Path) -> None:
    """Files of something else, halves, and a lock file alone are refused and left as they are."""
    with richstore.open(tmp_path / "good") as store:
        store["k"] = [{"n": n} for n in range(3000)]
    good = (tmp_path / "good").read_bytes()
    foreign = tmp_path / "foreign"
    with open_bare(foreign) as env, env.begin(write=True) as transaction:
        transaction.put(b"somebody's key", b"and value")
    cases = {
        "text": b"a text file\n" * 1000,
        "sqlite": b"SQLite format 3\0" + bytes(4080),
        "zeros": bytes(8192),
        "head": good[:100],
        "one page": good[:4096],
        "two pages": good[:8192],
        "foreign": foreign.read_bytes(),
    }
    for name, content in cases.items():
        path = tmp_path / name
        path.write_bytes(content)
        for flag in ("r", "w", "c"):
            with pytest.raises((*CLEAR, OSError)) as caught:
                richstore.open(path, flag).close()
            assert name in str(caught.value), (name, caught.value)
        assert path.read_bytes() == content, name
    (tmp_path / "alone-lock").write_bytes(bytes(8192))
    with pytest.raises(FileNotFoundError):
        richstore.open(tmp_path / "alone", "r")
    assert not (tmp_path / "alone").exists()


def test_half_a_copy(tmp_path: Path) -> None:
    """A file without its end is refused when it is opened, or says so where it is read."""
    path = tmp_path / "store"
    with richstore.open(path) as store:
        for n in range(50):
            store[n] = [n, "x" * 3000]
    content = path.read_bytes()
    for pages in range(3, len(content) // 4096, 5):
        half = tmp_path / f"half {pages}"
        half.write_bytes(content[: pages * 4096])
        with pytest.raises((*CLEAR, OSError)):
            richstore.open(half, "r")
        assert half.read_bytes() == content[: pages * 4096]
