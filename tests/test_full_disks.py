"""Full and failing disks: the call that meets one says so, and memory is what the disk is."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from conftest import check_store, run_python
from disks import MEGABYTE
from failing_calls import needs_strace, run_failing

import richstore

plain = richstore.plain


CHANGES = {
    "append": lambda store, n: store["log"].append({"n": n, "text": "x" * 2000}),
    "large string": lambda store, n: store.__setitem__(("text", n), "x" * 300_000),
    "extend": lambda store, n: store["log"].extend({"n": m, "t": "x" * 99} for m in range(3000)),
    "dict": lambda store, n: store["table"].update((f"{n} {m}", "x" * 99) for m in range(500)),
    "assign": lambda store, n: store.__setitem__(("big", n), [[m] for m in range(9000)]),
}


# how many of them do not fit
MANY = {"append": 1500, "large string": 12, "extend": 12, "dict": 40, "assign": 20}


@pytest.mark.parametrize("synchronous", ["full", "off"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_full_disk(small_disk: Path, change: str, synchronous: str) -> None:
    """A change that finds no room raises ENOSPC and undoes itself; with room it works again."""
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(MEGABYTE))
    with richstore.open(small_disk / "store", synchronous=synchronous) as store:
        before: dict[Any, Any] = {"log": [], "table": {}, "kept": {"a": [1, 2]}}
        store.update(before)
        for n in range(2000):
            try:
                CHANGES[change](store, n)
            except OSError as error:
                assert error.errno == errno.ENOSPC, error
                break
            CHANGES[change](before, n)
        else:
            raise AssertionError("the disk was never full")
        # memory, and what others read, is what it was
        assert {key: plain(store[key]) for key in store} == before
        with store.snapshot() as view:
            assert {key: plain(view[key]) for key in view} == before
        with pytest.raises(OSError, match=r".") as caught, store.transaction():
            store["kept"]["a"].append(3)
            for m in range(MANY[change]):
                CHANGES[change](store, n + m)
        assert caught.value.errno == errno.ENOSPC
        assert {key: plain(store[key]) for key in store} == before
        check_store(store)
        ballast.unlink()
        CHANGES[change](store, n)
        store["kept"]["a"].append(3)
        now = {key: plain(store[key]) for key in store}
        assert now["kept"] == {"a": [1, 2, 3]}
    with richstore.open(small_disk / "store", "r") as store:
        assert {key: plain(store[key]) for key in store} == now
        check_store(store)


def test_a_store_that_is_made_on_a_full_disk(small_disk: Path) -> None:
    """Whatever room there is while a store is made, it can be opened as soon as there is more."""
    code = """
import errno, sys, richstore
try:
    richstore.open(sys.argv[1])["k"] = 1
except OSError as error:
    sys.exit(0 if error.errno == errno.ENOSPC else repr(error))
"""
    path, ballast = small_disk / "store", small_disk / "ballast"
    for pages in (*range(5), 16, 17, 18, 20):
        ballast.write_bytes(b"")
        free = os.statvfs(small_disk).f_bavail
        ballast.write_bytes(bytes(4096 * (free - pages)))
        done = run_python(code, str(path))
        assert done.returncode == 0, (pages, done)
        ballast.unlink()
        with richstore.open(path) as store:
            assert store.get("k", 1) == 1
            check_store(store)
        for file in small_disk.iterdir():
            file.unlink()


def test_a_backup_on_a_full_disk(small_disk: Path, tmp_path: Path) -> None:
    """A backup that finds no room raises, and leaves no file behind."""
    with richstore.open(tmp_path / "store", synchronous="off") as store:
        store["k"] = ["x" * 1000 for _ in range(9000)]
        with pytest.raises(OSError) as caught:
            store.backup(small_disk / "copy")
        assert caught.value.errno == errno.ENOSPC
        assert [path.name for path in small_disk.iterdir()] == []
        check_store(store)


# Runs under strace, which lets the n-th call of some system call fail.
FAILING = """
import errno, sys, os
import richstore

store = richstore.open(sys.argv[1], synchronous=sys.argv[2])
acknowledged = len(store["log"]) if "log" in store else 0
if not acknowledged:
    store["log"] = []
failures = 0
for n in range(acknowledged, acknowledged + 30):
    before = len(store["log"])
    try:
        store["log"].append({"n": before, "text": "x" * 500})
    except OSError as error:
        failures += 1
        assert error.errno in (errno.EIO, errno.ENOSPC), error
        assert len(store["log"]) == before, (len(store["log"]), before)
    rows = richstore.plain(store["log"])
    assert [row["n"] for row in rows] == list(range(len(rows))), rows
report = store.verify()
assert report.ok, report.problems
print(failures, len(store["log"]))
"""


@needs_strace
@pytest.mark.parametrize("call", ["pwrite64", "pwritev", "fdatasync", "fsync"])
@pytest.mark.parametrize("name", ["EIO", "ENOSPC"])
def test_a_failing_disk(tmp_path: Path, call: str, name: str) -> None:
    """A write or sync that fails is told, memory is what the disk is, and it works afterwards."""
    path = tmp_path / "store"
    with richstore.open(path) as store:
        store["log"] = []
    seen = 0
    for when in ("3", "6+4"):
        done = run_failing(FAILING, path, "full", call=call, error=name, when=when)
        assert done.returncode == 0, done.stderr[-2000:]
        failures, _ = map(int, done.stdout.split())
        seen += failures
        with richstore.open(path, "r") as store:
            rows = plain(store["log"])
            assert [row["n"] for row in rows] == list(range(len(rows)))
            check_store(store)
    if call in ("pwrite64", "fdatasync"):
        assert seen > 0


def test_no_more_open_files(tmp_path: Path) -> None:
    """When the process may open no more files, open() says EMFILE, and works when it may again."""
    with richstore.open(tmp_path / "store") as store:
        store["k"] = [1]
        taken = []
        try:
            while True:
                taken.append(os.open("/dev/null", os.O_RDONLY))
        except OSError as error:
            assert error.errno == errno.EMFILE
        try:
            with pytest.raises(OSError) as caught:
                richstore.open(tmp_path / "other")
            assert caught.value.errno == errno.EMFILE
            store["k"].append(2)
        finally:
            for fd in taken:
                os.close(fd)
        assert store["k"] == [1, 2]
    with richstore.open(tmp_path / "other") as other:
        other["k"] = 1
