"""Groups in files: with keys, copied, salvaged, migrated, damaged, of strangers."""

from __future__ import annotations

import enum
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lmdb
import pytest
from conftest import canonical, check_store, child_environment
from sample_classes import Bare, Color

import richstore
from richstore.spaces import COUNTER, GROUP, GROUPED
from richstore.tracker import LOG_KEY

plain = richstore.plain
KEY, OTHER = bytes(range(32)), bytes(32)
SECRET = "swordfish"
CLEAR = (richstore.CorruptionError, richstore.FormatError)
Content = dict[tuple[str, ...], dict[Any, Any]]


def fill(store: Any) -> Content:
    """Fill a store and groups, one of them cleared before, and return what is in them."""
    rows = [{"n": n, SECRET: [n]} for n in range(300)]
    for path in ((), (SECRET,), (SECRET, "in"), ("other",)):
        group = at(store, path)
        group.update({(SECRET, n): {SECRET: n} for n in range(20)})
        group["rows"] = [*rows, rows[3]]
        group["k" * 600] = [Bare(name=SECRET), Color.RED]
    store.group("other").clear()
    store.group("other")["k"] = [1]
    store.group("gone").group("in")["k"] = [SECRET]
    store.group("gone").drop()
    return content(store)


def at(store: Any, path: tuple[str, ...]) -> Any:
    """Return a group of a store or snapshot."""
    for name in path:
        store = store.group(name)
    return store


def content(store: Any, path: tuple[str, ...] = ()) -> Content:
    """Return all values of a store and its groups."""
    group = at(store, path)
    found = {path: {key: canonical(plain(value)) for key, value in group.items()}}
    for name in group.groups():
        found |= content(store, (*path, name))
    return found


@pytest.fixture(params=["names encrypted", "names in order"])
def options(request: pytest.FixtureRequest) -> dict[str, Any]:
    """How an encrypted store is opened."""
    return {"key": KEY, "encrypt_keys": request.param == "names encrypted", "synchronous": "off"}


# --- encrypted --------------------------------------------------------------------------------


def test_nothing_in_the_clear(options: dict[str, Any], tmp_path: Path) -> None:
    """Names of groups are nowhere in the files, nor are keys and values, where they are secret."""
    path = tmp_path / "store"
    with richstore.open(path, **options) as store:
        expected = fill(store)
        store.backup(tmp_path / "copy", compact=True)
        check_store(store)
    for file in (path, tmp_path / "copy"):
        stored = file.read_bytes()
        assert (SECRET.encode() in stored) == (not options["encrypt_keys"]) or not stored
        with richstore.open(file, **options) as store:
            assert content(store) == expected
            assert store.groups() == ["other", SECRET]
            with store.snapshot() as view:
                assert content(view) == expected


def test_ranges_with_a_key(options: dict[str, Any], path: str) -> None:
    """Ranges are refused where names are encrypted, whole groups are read in any order."""
    with richstore.open(path, **options) as store:
        group = store.group("g")
        group.update((n, n) for n in range(50))
        store.group("h").update((n, -n) for n in range(50))
        assert dict(group) == {n: n for n in range(50)}
        assert len(group.keys()) == 50
        for call in (lambda: list(group.keys(10, 12)), lambda: list(group.keys(prefix=(1,)))):
            if options["encrypt_keys"]:
                with pytest.raises(richstore.OrderError):
                    call()
            else:
                assert call() in ([10, 11], [])
        with store.transaction():
            del group[3]
            group["new"] = 1
            assert set(group) == {*range(50), "new"} - {3}
            group.clear()
            group[5] = 6
            assert dict(group) == {5: 6}
        assert dict(group) == {5: 6}
        assert len(store.group("h")) == 50


@pytest.mark.parametrize("reencrypt", [False, True])
def test_another_key(options: dict[str, Any], path: str, reencrypt: bool) -> None:
    """After a change of keys groups are as they were, those too that wait to be reclaimed."""
    with richstore.open(path, **options) as store:
        expected = fill(store)
        held = store.group(SECRET)["rows"]
        store.rekey(OTHER, reencrypt=reencrypt)
        assert content(store) == expected
        held.append("new")
        expected[(SECRET,)]["rows"] = canonical(plain(held))
        assert content(store) == expected
        check_store(store)
    with pytest.raises(richstore.WrongKeyError):
        richstore.open(path, **options)
    with richstore.open(path, **{**options, "key": OTHER}) as store:
        assert content(store) == expected
        store.compact()
        check_store(store)


# --- copies -----------------------------------------------------------------------------------


@pytest.mark.parametrize("compact", [False, True])
def test_backup_and_restore(tmp_path: Path, compact: bool) -> None:
    """A backup, and what is restored from it, have the groups and verify well."""
    with richstore.open(tmp_path / "store", synchronous="off") as store:
        expected = fill(store)
        report = store.backup(tmp_path / "copy", compact=compact)
        assert report.ok
        assert report.values == sum(map(len, expected.values()))
        assert not (compact and report.waiting)
        store.group(SECRET).drop()
    report = richstore.restore(tmp_path / "copy", tmp_path / "store", replace=True)
    with richstore.open(tmp_path / "store", synchronous="off") as store:
        assert content(store) == expected
        store.group(SECRET).clear()
        store.group("new")["k"] = 1
        check_store(store)


# --- damage -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, Content]:
    """The bytes of a file with groups, and what is in it."""
    path = tmp_path_factory.mktemp("groups") / "store"
    with richstore.open(path, synchronous="off") as store:
        expected = fill(store)
    return path.read_bytes(), expected


def damaged(path: Path, stored: bytes, change: dict[bytes, bytes | None]) -> Path:
    """Write a file in which some entries have other values, or are gone."""
    path.write_bytes(stored)
    Path(f"{path}-lock").unlink(missing_ok=True)
    with (
        lmdb.open(str(path), subdir=False, lock=False, map_size=1 << 30) as env,
        env.begin(write=True) as transaction,
    ):
        for name, value in change.items():
            assert transaction.delete(name) if value is None else transaction.put(name, value)
    return path


def entries(stored: bytes, path: Path, first: bytes) -> dict[bytes, bytes]:
    """Return the entries of a kind in the bytes of a file."""
    path.write_bytes(stored)
    with (
        lmdb.open(str(path), subdir=False, lock=False, map_size=1 << 30) as env,
        env.begin() as transaction,
    ):
        return {name: value for name, value in transaction.cursor() if name[:1] == first}


def faults(cells: dict[bytes, bytes]) -> Iterator[tuple[bytes, dict[bytes, bytes | None]]]:
    """Yield damages of cells of groups: in some bits, cut, empty, under the name of another."""
    for name, value in cells.items():
        for bit in range(0, 8 * len(value), 13):
            other = bytearray(value)
            other[bit // 8] ^= 1 << bit % 8
            yield name, {name: bytes(other)}
        yield name, {name: value[:-1]}
        yield name, {name: b""}
        for other_name, other_value in cells.items():
            if other_name != name:
                yield name, {name: other_value}
                yield name, {name: other_value, other_name: value}


def test_cells_of_groups(whole: Any, tmp_path: Path) -> None:
    """Damage to what leads to a group is told by reading it and by verify(); the rest is read."""
    cells = entries(whole[0], tmp_path / "cells", GROUP)
    assert len(cells) == 3
    for name, change in faults(cells):
        path = damaged(tmp_path / "store", whole[0], change)
        with richstore.open(path, "r") as store:
            assert not store.verify().ok, change
            for group, expected in whole[1].items():
                try:
                    found = dict(at(store, group).items())
                    found = {key: canonical(plain(one)) for key, one in found.items()}
                    found_one = canonical(plain(at(store, group)[next(iter(expected))]))
                except CLEAR as error:
                    assert group, error
                    assert repr(name)[2:-1] in str(error) or len(change) > 1
                else:
                    assert (found, found_one) == (expected, next(iter(expected.values())))


def test_counts_of_groups(whole: Any, tmp_path: Path) -> None:
    """A count of values that was changed, or is missing, is found by verify()."""
    counters = entries(whole[0], tmp_path / "cells", COUNTER)
    for name, value in counters.items():
        for other in (None, b"", bytes(8), value[:1] + b"\1" + value[2:]):
            path = damaged(tmp_path / "store", whole[0], {name: other})
            with richstore.open(path, "r") as store:
                problems = store.verify().problems
            assert any("says that it has" in one or "no values" in one for one in problems)


def test_records_of_groups(whole: Any, tmp_path: Path) -> None:
    """A record of a group that was damaged is told with the group and the key."""
    records = entries(whole[0], tmp_path / "cells", GROUPED)
    name, value = next((n, v) for n, v in records.items() if n.endswith(b"0rows\0"))
    path = damaged(tmp_path / "store", whole[0], {name: value[:-1] + b"?"})
    with richstore.open(path, "r") as store:
        (problem,) = [one for one in store.verify().problems if "checksum" in one]
        assert f".group('{SECRET}')" in problem
        failed = []
        for group in whole[1]:
            try:
                plain(at(store, group).get("rows"))
            except CLEAR as error:
                failed.append(str(error))
        (error,) = failed
        assert f".group('{SECRET}')" in error
        assert "['rows']" in error
        with store.snapshot() as view, pytest.raises(CLEAR, match=r"group.*rows"):
            for group in whole[1]:
                plain(at(view, group).get("rows"))


def salvaged(path: Path, target: Path) -> tuple[list[str], Content]:
    """Run the command; return what it said, and the content of the new store."""
    target.unlink(missing_ok=True)
    done = subprocess.run(
        [sys.executable, "-m", "richstore", "salvage", str(path), str(target)],
        capture_output=True, text=True, timeout=60, check=False, env=child_environment(),
    )  # fmt: skip
    assert done.stderr == ""
    with richstore.open(target) as store:
        check_store(store)
        return done.stdout.splitlines(), content(store)


def test_salvage(whole: Any, tmp_path: Path) -> None:
    """Salvaging keeps all groups but not what was cleared; a group without a name gets another."""
    stored, expected = whole
    path = damaged(tmp_path / "store", stored, {})
    lines, found = salvaged(path, tmp_path / "new")
    assert found == expected
    assert "0 lost" in lines[-1]
    cells = entries(stored, tmp_path / "cells", GROUP)
    name = next(one for one in cells if SECRET.encode() in one)
    counter = COUNTER + cells[name][-8:][::-1]
    rows = GROUPED + counter[1:] + b"0rows\0"
    change = {name: b"?", counter: None, rows: b"??????????????"}
    lines, found = salvaged(damaged(path, stored, change), tmp_path / "new")
    assert found[()] == expected[()]
    assert found["other",] == expected["other",]
    values = {key: one for key, one in expected[SECRET,].items() if key != "rows"}
    (lost,) = [found[one] for one in found if one[:1] == ("salvaged",) and found[one] == values]
    assert (SECRET, 3) in lost
    assert "lost .group('salvaged')" in lines[0]
    assert "rows" in lines[0]
    assert expected[SECRET, "in"] in found.values()


# --- classes ----------------------------------------------------------------------------------


def test_classes_of_strangers(path: str) -> None:
    """Under the policy "none" a group gives plain data, and refuses what names classes."""
    with richstore.open(path, synchronous="off") as store:
        fill(store)
    with richstore.open(path, "r", classes="none") as store:
        group = store.group(SECRET)
        assert group["rows"][300] == group["rows"][3] == {"n": 3, SECRET: [3]}
        assert group[SECRET, 7] == {SECRET: 7}
        with pytest.raises(richstore.UntrustedClassError, match="group"):
            plain(group["k" * 600])
        check_store(store)


OLD = """
import sys, types, richstore
module = types.ModuleType("old_module")
exec("class Old:\\n    pass\\nimport enum\\nclass Kind(enum.Enum):\\n    A = 1", module.__dict__)
module.Old.__module__ = module.Kind.__module__ = "old_module"
sys.modules["old_module"] = module
with richstore.open(sys.argv[1], synchronous="off") as store:
    for group in (store.group("g"), store.group("g").group("h"), store.group("cleared")):
        one = group["k"] = module.Old()
        group["k"].n = 1
        group["rows"] = [{"n": n, "old": module.Old() if n % 50 == 3 else None} for n in range(300)]
        group[module.Kind.A] = module.Kind.A
    store.group("cleared").clear()
"""


class Kind(enum.Enum):
    """What `old_module.Kind` is called now."""

    A = 1


def test_migrate(path: str) -> None:
    """Classes that were renamed are renamed in groups too, as values, inside them and as keys."""
    done = subprocess.run(
        [sys.executable, "-c", OLD, path], env=child_environment(), check=False, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    richstore.renamed("old_module.Old", Bare)
    richstore.renamed("old_module.Kind", Kind)
    with richstore.open(path, synchronous="off") as store:
        assert store.migrate() > 0
        assert store.migrate() == 0
        store.compact()
        for group in (store.group("g"), store.group("g").group("h")):
            assert isinstance(group["k"], Bare)
            assert group["k"].n == 1
            assert isinstance(group["rows"][203]["old"], Bare)
            assert group[Kind.A] is Kind.A
            assert len(group) == 3
        check_store(store)
    with (
        lmdb.open(path, subdir=False, lock=False, map_size=1 << 30) as env,
        env.begin() as transaction,
    ):
        # but for the log of the last changes
        old = [name for name, value in transaction.cursor() if b"old_module" in name + value]
    assert old in ([], [LOG_KEY])
