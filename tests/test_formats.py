"""Files of every format version that was released open, read, verify and change as they did."""

from __future__ import annotations

import gzip
import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import lmdb
import pytest
from conftest import canonical, check_store

import richstore
from richstore.codec import keys as key_codec
from richstore.codec import records
from richstore.pages import Index, Tree

FORMATS = Path(__file__).parent / "formats"
VERSIONS = sorted(int(path.name[7:-9]) for path in FORMATS.glob("version*.store.gz"))
plain = richstore.plain
pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module", name="maker")
def _maker() -> Any:
    """The script that made the files."""
    sys.path.insert(0, str(FORMATS))
    try:
        spec = importlib.util.spec_from_file_location("formats_make", FORMATS / "make.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(str(FORMATS))


def unpacked(version: int, path: Path) -> Path:
    """Write the file of a version."""
    with gzip.open(FORMATS / f"version{version}.store.gz") as packed, open(path, "wb") as file:
        shutil.copyfileobj(packed, file)
    return path


def compare(path: Path, expected: dict[Any, Any]) -> None:
    """Read a file in several ways and compare with what is expected."""
    with richstore.open(path, "r") as store:
        check_store(store)
        assert len(store) == len(expected)
        for key in store:
            assert key in expected
        with store.snapshot() as view:
            for key, value in expected.items():
                # by type as well: 1, 1.0 and True are different values
                wanted = canonical(value)
                assert canonical(plain(store[key])) == wanted, key
                assert canonical(plain(view[key])) == wanted, key
        types = {(type(key), repr(key)) for key in store}
        assert types == {(type(key), repr(key)) for key in expected}


@pytest.mark.parametrize("version", VERSIONS)
def test_a_file_of_each_format(version: int, tmp_path: Path, maker: Any) -> None:
    """A file of that version has the values that were written, as types, aliases and order."""
    path = unpacked(version, tmp_path / "store")
    before = path.read_bytes()
    expected = maker.values() | maker.deep()
    compare(path, expected)
    assert path.read_bytes() == before
    with richstore.open(path, "r") as store:
        rows = store["aliased"]["rows"]
        assert rows[7] is rows[maker.PAGE_MANY]
        assert rows[-1][0] is rows[-2][0]
        assert store["aliased"]["ring"][1]["back"] is store["aliased"]["ring"]
        assert list(store["large dict"]) == list(expected["large dict"])


@pytest.mark.parametrize("version", VERSIONS)
def test_a_file_of_each_format_can_be_changed(version: int, tmp_path: Path, maker: Any) -> None:
    """A file of that version takes changes of each kind; what is deleted in it is reclaimed."""
    path = unpacked(version, tmp_path / "store")
    expected = maker.values() | maker.deep()
    with richstore.open(path, "w", synchronous="off") as store:
        assert store.verify().waiting > 0
        for where in (store, expected):
            where["large list"].append("new")
            where["large list"].insert(5, ["new"])
            del where["large list"][300:320]
            where["large list"][10].append("deep")
            where["large dict"]["key 17"]["n"] = "changed"
            del where["large dict"]["key 18"]
            where["large dict"]["a new key"] = {}
            where["large set"].discard("element 5")
            where["large set"].add("a new element")
            where["aliased"]["rows"][7]["n"] = "seen twice"
            where["aliased"]["ring"].append(1)
            where["objects"]["instance"].stock["milk"] = 3
            where["objects"]["dataclass"].tags.append("more")
            where["objects"]["deque"].append("right")
            where["deep list"].insert(700, "in the middle")
            where["deep dict"].pop("key 100")
            where["instance with much"].stock["article 5"] = "five"
            where["whole dict"][maker.DAY] = "first"
            where["k" * 600].append(1)
            del where["large in large"]
        check_store(store)
        store.compact()
        assert store.verify().waiting == 0
    compare(path, expected)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_file_has_every_kind_of_record(version: int, tmp_path: Path) -> None:
    """The kept file has each kind of engine key, each head, flag, width and cell of the format."""
    path = unpacked(version, tmp_path / "store")
    with lmdb.open(str(path), subdir=False, lock=False) as env, env.begin() as transaction:
        rows = list(transaction.cursor())
    assert {name[0] for name, _ in rows} == {0, 0x10, 0x20, 0x21, 0x22, 0x23, 0x25}
    parts = [records.parse(*row) for row in rows if row[0][0] in (0x10, 0x20, 0x23)]
    heads = {head for one in parts for head in one.table[2::3]}
    assert heads >= {*range(8), records.FIRST_CLASS}
    assert any(one.key is not None for one in parts) and any(one.links for one in parts)
    assert any(key_codec.is_truncated(name[1:]) for name, _ in rows if name[0] == 0x10)
    levels = [stored[5] for name, stored in rows if name[0] == 0x22 and stored[4] == 1]
    assert max(levels) > 0
    for name, stored in rows:
        if name == b"\0format":
            assert stored[:11] == b"richstore\0" + bytes((version,))


def swapped_heads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let lists be taken for sets."""
    take = records._make
    monkeypatch.setattr(
        records, "_make", lambda slot, head: take(slot, {0: 2, 2: 0}.get(head, head))
    )
    records._preludes.clear()


def another_checksum(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the name out of the checksum."""
    crc32 = records.zlib.crc32
    monkeypatch.setattr(records.zlib, "crc32", lambda data, start=0: crc32(data))


def another_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Encode strings in another way."""
    encode = key_codec.full_key
    monkeypatch.setattr(key_codec, "full_key", lambda key: encode(key) + b"\0")


def another_index(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the counts of an index for those up to and with each child."""
    monkeypatch.setattr(Index, "find", lambda self, at: (0, at))
    monkeypatch.setattr(Tree, "_index", lambda self, name: self.cells.cell(name + b"\0"))


@pytest.mark.parametrize("fault", [swapped_heads, another_checksum, another_key, another_index])
def test_a_change_of_the_meaning_is_found(
    fault: Any, tmp_path: Path, maker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Code that gives a part of the format another meaning does not pass with the kept file."""
    path = unpacked(VERSIONS[-1], tmp_path / "store")
    expected = maker.values() | maker.deep()
    fault(monkeypatch)
    try:
        with pytest.raises(Exception, match=r"(?s).+"):
            compare(path, expected)
    finally:
        monkeypatch.undo()
        records._preludes.clear()


def test_what_is_written_now_has_the_same_names(tmp_path: Path, maker: Any) -> None:
    """This version writes the keys, entries and cells that the kept file of its format has."""

    def found(path: Path) -> tuple[list[bytes], dict[bytes, bytes]]:
        with lmdb.open(str(path), subdir=False, lock=False) as env, env.begin() as transaction:
            rows = list(transaction.cursor())
        roots = [name for name, _ in rows if name[0] == 0x10]
        entries = sorted({name[9:] for name, _ in rows if name[0] == 0x21})
        return roots + entries, {row[0]: row[1][:10] for row in rows if row[0][0] == 0}

    packed = tmp_path / "packed"
    done = subprocess.run(
        [sys.executable, str(FORMATS / "make.py"), str(packed)],
        capture_output=True,
        text=True,
        check=False,
        env=_environment(),
    )
    assert done.returncode == 0, done.stderr
    (tmp_path / "now").write_bytes(gzip.decompress(packed.read_bytes()))
    assert found(tmp_path / "now") == found(unpacked(VERSIONS[-1], tmp_path / "kept"))


def _environment() -> dict[str, str]:
    from conftest import child_environment

    return child_environment()
