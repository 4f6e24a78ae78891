"""Disks and limits of every bad kind: the error names the cause, and the store goes on after it."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from conftest import check_store, run_python
from failing_calls import needs_strace, run_failing

import richstore

plain = richstore.plain


def run(code: str, *arguments: Any) -> str:
    """Run code in a new process, which must succeed; return what it printed."""
    done = run_python(HEAD + code, *map(str, arguments))
    assert done.returncode == 0, done.stderr
    return done.stdout


# A child's own helpers: `refused` runs what must fail, and compares memory with the disk then.
HEAD = """
import errno, os, resource, sys
import richstore

def content(store):
    return {key: richstore.plain(value) for key, value in store.items()}

def refused(store, change, code, words):
    before = content(store)
    try:
        change()
    except OSError as error:
        assert error.errno == code, error
        assert words in str(error) and store.path in str(error), error
    else:
        raise AssertionError("it was not refused")
    assert content(store) == before
    with store.snapshot() as view:
        assert content(view) == before
    report = store.verify()
    assert report.ok, report.problems

def fill(store, size):
    for n in range(size >> 16):
        store["more", n] = "x" * 65536
"""


# --- limits of the process ---


def test_a_limited_address_space(tmp_path: Path) -> None:
    """A map that cannot grow is ENOMEM with what to raise; with the limit raised it grows."""
    run(
        """
def content(store):
    # all of it would not fit into the limit
    return {"rows": richstore.plain(store["rows"]), "keys": list(store)}

with richstore.open(sys.argv[1], synchronous="off", map_size=32 << 20) as store:
    store["rows"] = [[n] for n in range(3000)]
    size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (size + (20 << 20), limits[1]))
    try:
        fill(store, 40 << 20)
    except OSError as error:
        assert error.errno == errno.ENOMEM, error
    else:
        raise AssertionError("there was room")
    length = len(store)
    def in_block():
        with store.transaction():
            store["rows"][0].append("never")
            fill(store, 1 << 20)
            store["large"] = "x" * (1 << 20)
    refused(store, in_block, errno.ENOMEM, "ulimit -v")
    resource.setrlimit(resource.RLIMIT_AS, limits)
    store["rows"][1].append("again")
    fill(store, 40 << 20)
    now = content(store)
    assert now["rows"][1] == [1, "again"] and len(now["keys"]) == 641 > length
with richstore.open(sys.argv[1]) as store:
    assert content(store) == now
""",
        tmp_path / "store",
    )


def test_a_small_map_under_a_snapshot(tmp_path: Path) -> None:
    """A map that is full while a snapshot is open says so; it grows when the snapshot ends."""
    run(
        """
with richstore.open(sys.argv[1], synchronous="off", map_size=1 << 20) as store:
    store["rows"] = [[n] for n in range(100)]
    with store.snapshot() as view:
        def in_block():
            with store.transaction():
                store["rows"][0].append("never")
                fill(store, 4 << 20)
        refused(store, in_block, errno.ENOSPC, "snapshots")
        assert view["rows"][0] == [0]
    fill(store, 4 << 20)
    assert len(store) == 65 and store.verify().ok
""",
        tmp_path / "store",
    )


def test_a_limited_file_size(tmp_path: Path) -> None:
    """A file that may not grow is EFBIG with what to raise; with the limit raised it does."""
    run(
        """
with richstore.open(sys.argv[1], synchronous="off") as store:
    store["rows"] = [[n] for n in range(3000)]
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limits[1]))
    def one_by_one():
        while True:
            store["rows"].append("x" * 300)
    try:
        one_by_one()
    except OSError as error:
        assert error.errno == errno.EFBIG and "ulimit -f" in str(error), error
    length = len(store["rows"])
    refused(store, lambda: store.__setitem__("large", "x" * 3_000_000), errno.EFBIG, "ulimit -f")
    def in_block():
        with store.transaction():
            store["rows"][0].append("never")
            fill(store, 2 << 20)
    refused(store, in_block, errno.EFBIG, "ulimit -f")
    try:
        store.backup(sys.argv[1] + ".copy")
    except OSError as error:
        assert error.errno in (errno.EFBIG, errno.EIO), error
    assert [name for name in os.listdir(os.path.dirname(sys.argv[1])) if "part" in name] == []
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    store["rows"].append("at last")
    fill(store, 2 << 20)
    assert len(store["rows"]) == length + 1
    now = content(store)
with richstore.open(sys.argv[1]) as store:
    assert content(store) == now and store.verify().ok
""",
        tmp_path / "store",
    )


# Each is tried with 0, 1, 2, … descriptors left, until it works.
FEW_FILES = """
def one_more(store, path):
    store["k"].append(1)

def opened(store, path):
    richstore.open(path + ".other").close()

def opened_to_read(store, path):
    richstore.open(path + ".more", "r").close()

def opened_empty(store, path):
    richstore.open(path + ".new", "n").close()

def backup(store, path):
    store.backup(path + ".copy", replace=True)

def compact_backup(store, path):
    store.backup(path + ".copy", replace=True, compact=True)

def restored(store, path):
    richstore.restore(path + ".more", path + ".restored", replace=True)

def verified(store, path):
    assert store.verify().ok

def snapshot(store, path):
    with store.snapshot() as view:
        assert len(view["k"]) == len(store["k"])

def in_child(store, path):
    # the child of a fork opens the file again, and has the limit too
    pid = os.fork()
    if pid == 0:
        code = 9
        try:
            try:
                store["k"].append(2)
                code = 0
            except OSError as error:
                code = 1 if error.errno == errno.EMFILE else 2
            if code:
                resource.setrlimit(resource.RLIMIT_NOFILE, limits)
                store["k"].append(3)
        except BaseException:
            import traceback
            traceback.print_exc()
            code = 9
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code in (0, 1), code
    if code:
        raise OSError(errno.EMFILE, "in the child")

path = sys.argv[1]
limits = resource.getrlimit(resource.RLIMIT_NOFILE)
with richstore.open(path + ".more") as more:
    more["k"] = [1]
store = richstore.open(path)
store["k"] = [0]
refusals = {}
for change in (one_more, opened, opened_to_read, opened_empty, backup, compact_backup, restored,
               verified, snapshot, in_child):
    change(store, path)  # whatever it imports
    for left in range(40):
        length = len(store["k"])
        used = sorted(map(int, os.listdir("/proc/self/fd")))
        # the listing had one of them
        free = [n for n in range(max(used) + 50) if n not in used[:-1]][left]
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, limits[1]))
        try:
            change(store, path)
            done = True
        except OSError as error:
            assert error.errno == errno.EMFILE, (change, left, error)
            refusals[change.__name__] = left + 1
            done = False
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert sorted(map(int, os.listdir("/proc/self/fd"))) == used, (change, left, "a leak")
        parts = [name for name in os.listdir(os.path.dirname(path)) if "part" in name]
        assert not parts, (change, left, parts)
        store["k"].append(4)
        assert store.verify().ok
        if done:
            break
    else:
        raise AssertionError(change)
store.close()
assert one_more.__name__ not in refusals, "a change needs no descriptor"
assert refusals.keys() >= {"opened", "opened_to_read", "backup", "restored", "in_child"}, refusals
"""


def test_few_descriptors(tmp_path: Path) -> None:
    """Wherever the process may open no more files, it is EMFILE; nothing leaks or is left."""
    run(FEW_FILES, tmp_path / "store")


# --- read-only ---


@pytest.mark.parametrize("with_lock_file", [True, False])
def test_a_read_only_file_system(small_disk: Path, tmp_path: Path, with_lock_file: bool) -> None:
    """Flag "r" reads, verifies and makes backups; others are EROFS; it works when writable."""
    path = small_disk / "store"
    with richstore.open(path) as store:
        store["rows"] = [[n] for n in range(3000)]
    if not with_lock_file:
        (small_disk / "store-lock").unlink()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    before = path.read_bytes()
    for flag in "wcn":
        with pytest.raises(OSError) as caught:
            richstore.open(path, flag)
        assert caught.value.errno == errno.EROFS and caught.value.filename == str(path)
    with pytest.raises(OSError) as caught:
        richstore.open(small_disk / "new")
    assert caught.value.errno == errno.EROFS
    with richstore.open(path, "r") as store:
        assert plain(store["rows"]) == [[n] for n in range(3000)]
        check_store(store)
        assert store.backup(tmp_path / "copy").ok
        with pytest.raises(richstore.ReadOnlyError):
            store["rows"].append(1)
        with pytest.raises(OSError) as caught:
            store.backup(small_disk / "copy")
        assert caught.value.errno == errno.EROFS
    with pytest.raises(OSError) as caught:
        richstore.restore(tmp_path / "copy", path, replace=True)
    assert caught.value.errno == errno.EROFS
    assert path.read_bytes() == before
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    with richstore.open(path, "w") as store:
        store["rows"].append(1)
        check_store(store)


def test_a_directory_that_may_not_be_written(tmp_path: Path) -> None:
    """One who may not write the directory, or the file, is told which; and may read with "r"."""
    if os.geteuid() != 0:
        pytest.skip("needs root, who becomes somebody else")
    # an ordinary user must be able to go there
    directory = Path(subprocess.check_output(["mktemp", "-d", "-p", "/tmp"], text=True).strip())
    try:
        with richstore.open(directory / "store") as store:
            store["k"] = [1, 2]
        directory.chmod(0o755)
        for name in ("store", "store-lock"):
            (directory / name).chmod(0o644)
        run(
            """
path = sys.argv[1]
os.setuid(65534)
for name, flag in ((path, "w"), (path, "c"), (path, "n"), (path + ".new", "c")):
    try:
        richstore.open(name, flag)
    except PermissionError as error:
        assert error.errno == errno.EACCES and error.filename == name, error
    else:
        raise AssertionError(flag)
try:
    with richstore.open(path, "r") as store:
        raise AssertionError("the lock file cannot be written by a reader")
except PermissionError as error:
    assert "lock file" in str(error) and error.filename == path + "-lock", error
""",
            directory / "store",
        )
        (directory / "store-lock").chmod(0o666)
        run(
            """
from richstore.codec import strict  # another user may not read what it imports
os.setuid(65534)
with richstore.open(sys.argv[1], "r") as store:
    assert content(store) == {"k": [1, 2]} and store.verify().ok
    try:
        store.backup(sys.argv[1] + ".copy")
    except PermissionError as error:
        assert error.errno == errno.EACCES
    else:
        raise AssertionError("it may not write there")
""",
            directory / "store",
        )
        with richstore.open(directory / "store") as store:
            store["k"].append(3)
    finally:
        shutil.rmtree(directory)


# --- a system call that fails ---

# Each change may fail; memory must be what it was then, and what a new reader finds on the disk.
INJECTED = """
code, names = getattr(errno, sys.argv[2]), set()
store = richstore.open(sys.argv[1])
store["log"], store["rows"] = [], [[n] for n in range(500)]
failures = 0
for n in range(25):
    before = content(store)
    try:
        with store.transaction():
            store["log"].append(n)
            store["rows"][n].append("x" * 200)
            store["rows"].insert(n, ["new"])
    except OSError as error:
        failures += 1
        names.add(str(error))
        assert error.errno == code, error
        assert store.path in str(error)
        assert content(store) == before
    else:
        assert store["log"][-1] == n
    with store.snapshot() as view:
        assert content(view) == content(store)
assert store.verify().ok
print(failures, len(store["log"]), names)
"""


@needs_strace
@pytest.mark.parametrize(
    ("call", "name", "words"),
    [
        ("pwrite64", "EDQUOT", "quota"),
        ("pwrite64", "EROFS", "writable"),
        ("pwrite64", "EFBIG", "ulimit -f"),
        ("fdatasync", "EIO", "disk has failed"),
    ],
)
def test_a_call_that_fails(tmp_path: Path, call: str, name: str, words: str) -> None:
    """A quota, a disk that became read-only, a sync that fails: told by its name, and got over."""
    path = tmp_path / "store"
    done = run_failing(HEAD + INJECTED, path, name, call=call, error=name, when="12+5")
    assert done.returncode == 0, done.stderr[-2000:]
    failures, length, texts = done.stdout.split(maxsplit=2)
    assert int(failures) > 0 and words in texts, done.stdout
    with richstore.open(path) as store:
        assert len(store["log"]) == int(length)
        check_store(store)
        store["log"].append("goes on")


@needs_strace
@pytest.mark.parametrize("call", ["pread64", "openat", "mmap"])
def test_a_call_that_fails_while_opening(tmp_path: Path, call: str) -> None:
    """A read, open or map of the file that fails is EIO with its name; later it opens."""
    path = tmp_path / "store"
    with richstore.open(path) as store:
        store["rows"] = [[n] for n in range(500)]
    code = """
opened = failed = 0
for turn in range(12):
    try:
        store = richstore.open(sys.argv[1])
    except OSError as error:
        failed += 1
        assert error.errno == errno.EIO and sys.argv[1] in str(error), error
        continue
    with store:
        opened += 1
        assert content(store) == {"rows": [[n] for n in range(500)]}
print(opened, failed)
"""
    only = (str(path), f"{path}-lock")
    done = run_failing(HEAD + code, path, call=call, error="EIO", when="1+7", only=only)
    assert done.returncode == 0, done.stderr[-2000:]
    opened, failed = map(int, done.stdout.split())
    assert opened > 0 and failed > 0, done.stdout
    with richstore.open(path) as store:
        assert plain(store["rows"]) == [[n] for n in range(500)]
        check_store(store)
