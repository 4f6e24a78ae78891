"""Backups, restoring them, and the commands that look after a file."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from conftest import check_store
from test_processes import Child

import richstore

plain = richstore.plain


def command(*words: Any) -> subprocess.CompletedProcess[str]:
    """Run `python -m richstore`."""
    return subprocess.run(
        [sys.executable, "-m", "richstore", *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def names(directory: Path) -> set[str]:
    """Return the files of a directory that are no lock files."""
    return {path.name for path in directory.iterdir() if not path.name.endswith("-lock")}


def fill(store: Any) -> None:
    """Put some values of all sizes."""
    store["small"] = {"a": [1, {2}], "b": None}
    store["rows"] = [{"n": n, "tags": [n]} for n in range(3000)]
    store["table"] = {f"key {n}": [n] for n in range(3000)}
    store["rows"].append(store["rows"][7])


def test_a_backup_is_the_same_store(box: Any, tmp_path: Path) -> None:
    """A backup has the same values and aliases, is well, and can be written to."""
    fill(box.store)
    report = box.store.backup(tmp_path / "copy")
    assert report.ok and report.values == 3
    box.store["small"]["a"].append("later")
    with richstore.open(tmp_path / "copy", "w") as copy:
        assert plain(copy["small"]) == {"a": [1, {2}], "b": None}
        assert plain(copy["rows"]) == plain(box.store["rows"])
        assert copy["rows"][7] is copy["rows"][-1]
        assert plain(copy["table"]) == plain(box.store["table"])
        copy["rows"].append(1)
        copy["new"] = []
        check_store(copy)
    with richstore.open(tmp_path / "copy", "r") as copy:
        assert len(copy["rows"]) == 3002
        check_store(copy)


def test_backups_while_others_write(file_box: Any, tmp_path: Path) -> None:
    """Each backup has whole commits, whatever is written meanwhile, and writers go on."""
    file_box.store["a"], file_box.store["b"] = [], []
    stop = threading.Event()
    written = 0

    def write() -> None:
        nonlocal written
        while not stop.is_set():
            with file_box.store.transaction():
                file_box.store["a"].append(written)
                file_box.store["b"].append(written)
            written += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        sizes = []
        for turn in range(8):
            before = written
            file_box.store.backup(tmp_path / f"copy {turn}", compact=turn % 2 == 1)
            with richstore.open(tmp_path / f"copy {turn}", "r") as copy:
                a, b = plain(copy["a"]), plain(copy["b"])
            assert a == b == list(range(len(a)))
            assert len(a) >= before
            sizes.append(len(a))
    finally:
        stop.set()
        writer.join()
    assert sizes == sorted(sizes) and sizes[-1] > sizes[0]


def test_compacting_leaves_out_what_is_deleted(file_box: Any, tmp_path: Path) -> None:
    """A compacted backup has no records of deleted values; the store itself keeps them."""
    fill(file_box.store)
    file_box.store["rows"] = [{"n": n, "tags": [n]} for n in range(20_000)]
    del file_box.store["rows"]
    assert file_box.store.backup(tmp_path / "plain").waiting > 0
    assert file_box.store.backup(tmp_path / "compact", compact=True).waiting == 0
    assert (tmp_path / "compact").stat().st_size < (tmp_path / "plain").stat().st_size
    assert file_box.store.verify().waiting > 0
    with richstore.open(tmp_path / "compact") as copy:
        assert plain(copy["table"]) == plain(file_box.store["table"])


def test_nothing_is_replaced_unasked(box: Any, tmp_path: Path) -> None:
    """An existing file stays as it is unless replacing it was asked for, an open one always."""
    box.store["k"] = [1]
    target = tmp_path / "copy"
    target.write_text("precious")
    with pytest.raises(FileExistsError, match="replace=True"):
        box.store.backup(target)
    assert target.read_text() == "precious"
    box.store.backup(target, replace=True)
    with richstore.open(target) as copy:
        assert plain(copy["k"]) == [1]
        with pytest.raises(OSError, match="open in this process"):
            box.store.backup(target, replace=True)
        copy["k"].append(2)
    assert [name for name in names(tmp_path) if ".part" in name] == []


def test_a_damaged_store_gives_no_backup(file_box: Any, tmp_path: Path) -> None:
    """A backup of what is damaged raises, and leaves no file, nor touches the one that is there."""
    marker = "a string that is easily found"
    file_box.store["good"] = [1, 2]
    file_box.store["bad"] = [marker, 1]
    file_box.store.backup(tmp_path / "copy")
    before = (tmp_path / "copy").read_bytes()
    path = Path(file_box.target)
    file_box.store.close()
    damage(path, marker)
    with richstore.open(path) as store:
        for replace in (True, False):
            with pytest.raises(richstore.CorruptionError, match="'bad'"):
                store.backup(tmp_path / ("copy" if replace else "new"), replace=replace)
    assert (tmp_path / "copy").read_bytes() == before
    assert names(tmp_path) >= {"copy"} and "new" not in names(tmp_path)
    assert not [name for name in names(tmp_path) if ".part" in name]
    os.unlink(path)
    file_box.store = file_box.open()


def damage(path: Path, marker: str) -> None:
    """Change one byte of every copy of a string in a file."""
    stored = bytearray(path.read_bytes())
    at = stored.find(marker.encode())
    assert at > 0
    while at > 0:
        stored[at] ^= 1
        at = stored.find(marker.encode(), at + 1)
    path.write_bytes(stored)


def test_restore(file_box: Any, tmp_path: Path) -> None:
    """A backup is put back, over a store only when asked, never over one that is open here."""
    fill(file_box.store)
    file_box.store.backup(tmp_path / "copy")
    file_box.store["small"].clear()
    with pytest.raises(FileExistsError):
        richstore.restore(tmp_path / "copy", file_box.target)
    with pytest.raises(OSError, match="open in this process"):
        richstore.restore(tmp_path / "copy", file_box.target, replace=True)
    file_box.store.close()
    assert richstore.restore(tmp_path / "copy", file_box.target, replace=True).ok
    file_box.store = file_box.open()
    assert plain(file_box.store["small"]) == {"a": [1, {2}], "b": None}
    assert richstore.restore(tmp_path / "copy", tmp_path / "elsewhere").values == 3
    (tmp_path / "text").write_text("no store")
    with pytest.raises(richstore.FormatError):
        richstore.restore(tmp_path / "text", tmp_path / "never")
    assert "never" not in names(tmp_path)


def test_refused_inside_a_transaction(file_box: Any, tmp_path: Path) -> None:
    """A backup inside a block would lack what the block has done, so it is refused."""
    with file_box.store.transaction():
        file_box.store["k"] = 1
        with pytest.raises(RuntimeError, match="after the block"):
            file_box.store.backup(tmp_path / "copy")
    assert file_box.store["k"] == 1


def test_commands(tmp_path: Path) -> None:
    """check, backup, restore and salvage say what they did; they exit with 0 if all is well."""
    path = tmp_path / "store"
    with richstore.open(path) as store:
        fill(store)
    done = command("check", "-s", path)
    assert done.returncode == 0 and "no problems; 3 values" in done.stdout
    done = command("backup", tmp_path / "copy", "-s", path, "--compact")
    assert done.returncode == 0 and "3 values" in done.stdout and "verified" in done.stdout
    done = command("backup", tmp_path / "copy", "-s", path)
    assert done.returncode == 3 and "--replace" not in done.stdout and "exists" in done.stderr
    done = command("restore", tmp_path / "copy", "-s", tmp_path / "again")
    assert done.returncode == 0 and "3 values" in done.stdout
    done = command("salvage", tmp_path / "saved", "-s", path)
    assert done.returncode == 0 and "3 values kept, 0 kept in part, 0 lost" in done.stdout
    with richstore.open(tmp_path / "saved", "r") as saved, richstore.open(path, "r") as store:
        assert plain(dict(saved.items())) == plain(dict(store.items()))
    assert command("check", "-s", tmp_path / "none").returncode == 3
    (tmp_path / "text").write_text("no store at all")
    done = command("check", "-s", tmp_path / "text")
    assert done.returncode == 1 and "something else" in done.stdout + done.stderr


def test_salvage_of_a_damaged_store(tmp_path: Path) -> None:
    """What can be read of a damaged store is saved, and what is lost is named."""
    path = tmp_path / "store"
    marker = "a string that is easily found"
    with richstore.open(path) as store:
        for n in range(20):
            store[n] = {"n": n, "text": marker if n == 13 else str(n)}
        store["big"] = [{"n": n, "text": f"{marker} {n}" if n == 999 else ""} for n in range(3000)]
    damage(path, marker)
    assert command("check", "-s", path).returncode == 1
    done = command("salvage", tmp_path / "saved", "-s", path)
    assert done.returncode == 1
    assert "lost [13]" in done.stdout and "lost ['big'][" in done.stdout
    assert "19 values kept, 1 kept in part, 1 lost" in done.stdout
    with richstore.open(tmp_path / "saved") as saved:
        assert [key for key in saved if key != "big"] == [n for n in range(20) if n != 13]
        assert 2800 < len(saved["big"]) < 3000
        assert plain(saved[12]) == {"n": 12, "text": "12"}
        check_store(saved)


def test_check_survives_a_file_that_brings_the_library_down(tmp_path: Path) -> None:
    """A file whose pages are cut off is reported, whatever happens to the process that reads it."""
    path = tmp_path / "store"
    with richstore.open(path) as store:
        fill(store)
    size = path.stat().st_size
    for part in (0.3, 0.6, 0.9):
        cut = tmp_path / f"cut {part}"
        cut.write_bytes(path.read_bytes()[: int(size * part) // 4096 * 4096])
        done = command("check", "-s", cut)
        assert done.returncode == 1, (part, done)
        assert str(cut) in done.stdout + done.stderr


def test_verifying_tells_how_far_it_is(box: Any) -> None:
    """verify() tells the records and bytes so far, up to all; an exception there ends it."""
    fill(box.store)
    told: list[tuple[int, int]] = []
    report = box.store.verify(progress=lambda count, size: told.append((count, size)))
    assert told[-1] == (report.records, report.bytes)
    assert told == sorted(told) and len(told) > 1

    def stop(count: int, size: int) -> None:
        raise LookupError("enough")

    with pytest.raises(LookupError, match="enough"):
        box.store.verify(progress=stop)
    assert box.store.verify().ok


@pytest.mark.parametrize("deleted", [False, True])
def test_a_file_that_another_process_has_open(tmp_path: Path, deleted: bool) -> None:
    """No file gets the name of one that another process has open, deleted or not."""
    path = tmp_path / "store"
    with richstore.open(path) as store:
        store["k"] = list(range(50))
        store.backup(tmp_path / "copy")
    other = Child(str(path))
    try:
        other("store['k'].append(1)")
        if deleted:
            path.unlink()
        with pytest.raises(OSError, match="another process"):
            richstore.restore(tmp_path / "copy", path, replace=True)
        assert path.exists() is not deleted
    finally:
        other.end()
    richstore.restore(tmp_path / "copy", path, replace=True)
    with richstore.open(path) as store:
        assert plain(store["k"]) == list(range(50))
        store["k"].append(1)
    with richstore.open(path) as store:
        assert len(store["k"]) == 51


@pytest.mark.parametrize("replaced", [False, True])
def test_opening_a_file_whose_name_another_process_has_open(tmp_path: Path, replaced: bool) -> None:
    """A file under the name of one that was deleted or moved away while open cannot be opened."""
    path = tmp_path / "store"
    with richstore.open(path) as store:
        store["k"] = list(range(50))
        store.backup(tmp_path / "copy")
    other = Child(str(path))
    try:
        other("store['k'].append(1)")
        with richstore.open(path, "r") as beside:
            assert len(beside["k"]) == 51
        if replaced:
            os.replace(tmp_path / "copy", path)
        else:
            path.unlink()
        for flag in "rwcn":
            with pytest.raises(OSError, match=r"another process|No such file"):
                richstore.open(path, flag)
        other("store['k'].append(2)")
        assert other("len(store['k'])") == 52
    finally:
        other.end()
    with richstore.open(path) as store:
        assert plain(store.get("k")) == (list(range(50)) if replaced else None)
        store["k"] = [0]
        store["k"].append(1)
    with richstore.open(path) as store:
        assert plain(store["k"]) == [0, 1]


def test_opening_a_file_whose_name_this_process_has_open(tmp_path: Path) -> None:
    """A file that took the place of one that is open here is refused until that is closed."""
    path = tmp_path / "store"
    with richstore.open(path) as store:
        store["k"] = [0]
        store.backup(tmp_path / "copy")
        os.replace(tmp_path / "copy", path)
        with pytest.raises(OSError, match="close the open store first"):
            richstore.open(path)
        store["k"].append(1)
        assert plain(store["k"]) == [0, 1]
    with richstore.open(path) as store:
        assert plain(store["k"]) == [0]
