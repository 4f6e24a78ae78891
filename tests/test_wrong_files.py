"""What is no store, or a store in parts: a clear error, and not one byte of it is changed."""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lmdb
import pytest
from broken_pages import in_fork
from conftest import check_store, child_environment

import richstore
from richstore.cli import upkeep
from richstore.cli.target import Target
from richstore.projects import Place

plain = richstore.plain
CLEAR = (richstore.CorruptionError, richstore.FormatError, OSError)
PAGE = 4096


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of a store with values of all sizes."""
    path = tmp_path_factory.mktemp("good") / "store"
    with richstore.open(path) as store:
        store["rows"] = [{"n": n} for n in range(2000)]
        store["text"] = "x" * 20_000
        for n in range(50):
            store[n] = n
    return path.read_bytes()


# --- files of LMDB that are not ours ---


def with_data(env: Any) -> None:
    """Write what a program with keys of its own would write."""
    with env.begin(write=True) as transaction:
        for n in range(1000):
            transaction.put(b"user:%d" % n, b"value %d" % n)


def with_subdatabases(env: Any) -> None:
    """Write named databases; their names are keys of the main one."""
    for name in (b"\x10key", b"0format", b"people"):
        database = env.open_db(name, dupsort=name == b"people")
        with env.begin(write=True, db=database) as transaction:
            transaction.put(b"k", b"v")


def with_our_first_bytes(env: Any) -> None:
    """Write keys that look like records of ours."""
    with env.begin(write=True) as transaction:
        for first in (0x10, 0x20, 0x21, 0x22, 0x23, 0x30):
            transaction.put(bytes((first,)) + b"0key\0", b"not a record")


def with_another_format_record(env: Any) -> None:
    """Write something else where our format record would be."""
    with env.begin(write=True) as transaction:
        transaction.put(b"\x00format", b"somebody else's format, version 1")


def with_a_newer_format(env: Any) -> None:
    """Write the format record of a version that does not exist yet."""
    with env.begin(write=True) as transaction:
        transaction.put(b"\x00format", b"richstore\x00\x63" + bytes(16))


def with_keys_before_ours(env: Any) -> None:
    """Write a key that comes before all of ours."""
    with env.begin(write=True) as transaction:
        transaction.put(b"\x00", b"")


FOREIGN = [
    with_data,
    with_subdatabases,
    with_our_first_bytes,
    with_another_format_record,
    with_a_newer_format,
    with_keys_before_ours,
]


@pytest.mark.parametrize("flag", ["r", "w", "c"])
@pytest.mark.parametrize("fill", FOREIGN)
def test_a_foreign_lmdb_file(tmp_path: Path, fill: Callable[[Any], None], flag: str) -> None:
    """A file that another program made with LMDB is refused with its name, and stays as it is."""
    path = tmp_path / "foreign"
    with lmdb.open(str(path), subdir=False, max_dbs=5) as env:
        fill(env)
    before = path.read_bytes()
    with pytest.raises(richstore.FormatError, match=r"foreign"):
        richstore.open(path, flag)
    with pytest.raises(richstore.FormatError, match=r"foreign"):
        richstore.restore(path, tmp_path / "restored")
    assert path.read_bytes() == before
    assert not (tmp_path / "restored").exists()


# --- parts of a store ---


def test_truncated_at_any_length(
    good: bytes, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """A store cut off anywhere is refused and stays as it is, or only free pages were cut off."""
    path = tmp_path / "cut"
    path.write_bytes(good)
    with richstore.open(path, "r") as store:
        content = {key: plain(value) for key, value in store.items()}
    dice = random.Random(1)
    step = 1 if request.config.getoption("--long") else 7
    pages = len(good) // PAGE
    lengths = [0, 1, 15, 16, 63, 64, 100, PAGE - 1]
    lengths += [page * PAGE for page in range(1, pages, step)]
    lengths += [dice.randrange(len(good)) for _ in range(pages // step)]
    refused = 0
    for length in lengths:
        path.write_bytes(good[:length])
        Path(f"{path}-lock").unlink(missing_ok=True)
        try:
            with richstore.open(path, "r") as store:
                assert {key: plain(value) for key, value in store.items()} == content
                check_store(store)
        except CLEAR as error:
            refused += 1
            assert "cut" in str(error), (length, error)
            with pytest.raises(CLEAR):
                richstore.open(path, "w")
            assert path.read_bytes() == good[:length], length
            assert in_fork(lambda: upkeep.check_here(Target(Place(str(path))))) == 1, length
    assert refused > len(lengths) * 3 // 4


def test_pages_of_zeros(good: bytes, tmp_path: Path) -> None:
    """A store whose end was never written, though its length is right, is told by check."""
    path = tmp_path / "holes"
    path.write_bytes(good)
    with richstore.open(path, "r") as store:
        content = {key: plain(value) for key, value in store.items()}
    told = 0
    for at in range(2 * PAGE, len(good), 5 * PAGE):
        path.write_bytes(good[:at] + bytes(len(good) - at))
        Path(f"{path}-lock").unlink(missing_ok=True)
        code = in_fork(lambda: upkeep.check_here(Target(Place(str(path)))))
        assert code != 99, at
        told += code != 0
        # where only free pages are gone, nothing is
        assert code or in_fork(lambda: reads_only(path, content.__eq__)) == 0, at
    assert told > len(good) // PAGE // 5 - 3


def statistics_of(path: Path) -> int:
    """Return 0 when the figures on a store are given, 1 when they are refused clearly."""
    try:
        with richstore.open(path, "r") as store:
            store.stats()
    except CLEAR:
        return 1
    return 0


def test_statistics_of_a_damaged_file(good: bytes, tmp_path: Path) -> None:
    """Where the list of free pages is damaged, `stats()` says so; it does not fail otherwise."""
    path = tmp_path / "damaged"
    codes = set()
    for at in range(2 * PAGE, len(good), PAGE):
        path.write_bytes(good[:at] + bytes(PAGE) + good[at + PAGE :])
        Path(f"{path}-lock").unlink(missing_ok=True)
        codes.add(in_fork(lambda: statistics_of(path)))
    assert codes == {0, 1}


def reads_only(path: Path, allowed: Callable[[dict[Any, Any]], bool]) -> int:
    """Return 0 when the content of a store is allowed, 1 when it is not."""
    with richstore.open(path, "r") as store:
        return int(not allowed({key: plain(value) for key, value in store.items()}))


def is_committed(content: dict[Any, Any]) -> bool:
    """Tell whether each value of a torn copy is one that `WRITER` wrote at some time."""
    numbers = [content.get(("n", k), 0) for k in "abc"]
    rows = content.get("rows", [])
    return (
        all(type(n) is int for n in numbers)
        and all(row.keys() == {"n", "text"} and len(row["text"]) == row["n"] % 700 for row in rows)
        and all(key == f"key {value % 400}" for key, value in content.get("table", {}).items())
        and set(content) <= {"rows", "table", *(("n", k) for k in "abc")}
    )


WRITER = """
import itertools, random, sys
import richstore

def row(n):
    return {"n": n, "text": "x" * (n % 700)}

def change(store, n, dice):
    with store.transaction():
        for k in "abc":
            store["n", k] = n
        store["rows"].append(row(n))
        store["rows"][dice.randrange(len(store["rows"]))] = row(n)
        store["table"][f"key {n % 400}"] = n

def begin(store):
    store["rows"] = [row(0) for _ in range(600)]
    store["table"] = {f"key {n}": n for n in range(400)}

if __name__ == "__main__":
    dice = random.Random(1)
    with richstore.open(sys.argv[1], synchronous="off") as store:
        begin(store)
        print("ready", flush=True)
        for n in itertools.count(1):
            change(store, n, dice)
"""


def judge(path: Path) -> str:
    """Return what becomes of a torn copy: told by open or check, or what can be read of it."""
    Path(f"{path}-lock").unlink(missing_ok=True)
    if in_fork(lambda: upkeep.check_here(Target(Place(str(path))))):
        return "told"
    return "invented" if in_fork(lambda: reads_only(path, is_committed)) else "committed"


def test_copies_of_two_states(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Half of one state and half of another is told, or has only values that were committed.

    Not that all of them are of one state: pages have no checksum over each other. `backup()` copies
    one state.
    """
    found: dict[str, int] = {}
    names: dict[str, Any] = {"__name__": "writer"}
    exec(WRITER, names)
    dice = random.Random(1)
    states = []
    with richstore.open(tmp_path / "store", synchronous="off") as store:
        names["begin"](store)
        for n in range(1, 30):
            names["change"](store, n, dice)
            states.append((tmp_path / "store").read_bytes())
    path = tmp_path / "torn"
    for _ in range(1000 if request.config.getoption("--long") else 40):
        old = dice.randrange(len(states) - 1)
        new = dice.randrange(old + 1, min(old + 6, len(states)))
        first, second = dice.choice([(old, new), (new, old)])
        cut = dice.randrange(2, len(states[old]) // PAGE) * PAGE
        path.write_bytes(states[first][:cut] + states[second][cut:])
        what = judge(path)
        assert what != "invented", (first, second, cut)
        found[what] = found.get(what, 0) + 1
    assert found["told"] > 5 and found["committed"] > 5, found


def test_copies_while_somebody_writes(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """A copy that `cp` made while another process wrote is told, or has only committed values."""
    source = tmp_path / "store"
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(source)],
        stdout=subprocess.PIPE,
        env=child_environment(),
    )
    copy = shutil.which("cp")
    assert copy is not None
    try:
        assert writer.stdout is not None and writer.stdout.readline() == b"ready\n"
        for _ in range(200 if request.config.getoption("--long") else 15):
            subprocess.run([copy, str(source), str(tmp_path / "torn")], check=True)
            assert judge(tmp_path / "torn") != "invented"
    finally:
        writer.kill()
        writer.communicate()
    with richstore.open(source) as store:
        check_store(store)


def test_the_judge_knows_what_was_never_written(tmp_path: Path) -> None:
    """A value that the writer never wrote, and a damaged file, are judged so."""
    path = tmp_path / "store"
    with richstore.open(path) as store:
        store["rows"] = [{"n": 5, "text": "x" * 5} for _ in range(1000)]
    assert judge(path) == "committed"
    with richstore.open(path) as store:
        store["rows"][700]["text"] = "never written"
    assert judge(path) == "invented"
    content = bytearray(path.read_bytes())
    at = content.rindex(b"never written")
    content[at : at + 5] = b"xxxxx"
    path.write_bytes(content)
    assert judge(path) == "told"


# --- the lock file ---


def test_an_empty_data_file_with_a_lock_file(tmp_path: Path, good: bytes) -> None:
    """An empty file is no store for "r" and "w"; with "c" it becomes one, with any lock file."""
    (tmp_path / "other").write_bytes(good)
    with richstore.open(tmp_path / "other", "r"):
        lock = (tmp_path / "other-lock").read_bytes()
    path = tmp_path / "store"
    path.touch()
    (tmp_path / "store-lock").write_bytes(lock)
    for flag in "rw":
        with pytest.raises(richstore.FormatError, match="empty"):
            richstore.open(path, flag)
        assert path.read_bytes() == b""
    with richstore.open(path) as store:
        store["k"] = [1]
    with richstore.open(path, "r") as store:
        assert plain(store["k"]) == [1]


@pytest.mark.parametrize("kind", ["of another store", "a text", "zeros", "cut off", "random"])
def test_a_foreign_lock_file(tmp_path: Path, good: bytes, kind: str) -> None:
    """Whatever lies there as a lock file: the store opens as it is, or says why not."""
    path, lock = tmp_path / "store", tmp_path / "store-lock"
    with richstore.open(path) as store:
        store["k"] = [1]
        usual = lock.read_bytes()
    (tmp_path / "other").write_bytes(good)
    with richstore.open(tmp_path / "other") as other:
        for n in range(30):
            other["k"] = n
        others = (tmp_path / "other-lock").read_bytes()
    lock.write_bytes(
        {
            "of another store": others,
            "a text": b"a text file\n" * 500,
            "zeros": bytes(8192),
            "cut off": usual[:100],
            "random": random.Random(1).randbytes(8192),
        }[kind]
    )
    before = path.read_bytes()
    try:
        store = richstore.open(path)
    except CLEAR as error:
        assert "lock" in str(error)
        assert path.read_bytes() == before
        lock.unlink()
        store = richstore.open(path)
    with store:
        assert plain(store["k"]) == [1]
        store["k"].append(2)
        check_store(store)
    with richstore.open(path, "r") as store:
        assert plain(store["k"]) == [1, 2]


def test_a_lock_file_alone(tmp_path: Path) -> None:
    """A lock file without data is no store; with "c" one is made."""
    with richstore.open(tmp_path / "store") as store:
        store["k"] = 1
    (tmp_path / "store").unlink()
    for flag in "rw":
        with pytest.raises(FileNotFoundError):
            richstore.open(tmp_path / "store", flag)
    assert not (tmp_path / "store").exists()
    with richstore.open(tmp_path / "store") as store:
        assert len(store) == 0


# --- no regular files ---


@pytest.fixture(params=["directory", "fifo", "socket", "device", "dangling", "loop"])
def special(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """The path of something that is no regular file."""
    path = tmp_path / "special"
    listener = None
    if request.param == "directory":
        path.mkdir()
        (path / "data.mdb").write_bytes(b"somebody's")
    elif request.param == "fifo":
        os.mkfifo(path)
    elif request.param == "socket":
        listener = socket.socket(socket.AF_UNIX)
        # the name of a socket must be short
        before = os.getcwd()
        os.chdir(tmp_path)
        try:
            listener.bind("special")
        finally:
            os.chdir(before)
    elif request.param == "device":
        path.symlink_to("/dev/null")
    elif request.param == "dangling":
        path.symlink_to(tmp_path / "nowhere" / "store")
    else:
        path.symlink_to(path)
    yield path
    if listener is not None:
        listener.close()


@pytest.mark.parametrize("flag", ["r", "w", "c", "n"])
def test_no_regular_file(special: Path, flag: str) -> None:
    """A directory, FIFO, socket, device or link to nowhere is refused, and nothing is made."""
    before = sorted(os.walk(special.parent))
    kind = special.lstat().st_mode
    with pytest.raises(CLEAR) as caught:
        richstore.open(special, flag)
    assert (
        str(special) in str(caught.value)
        or "/dev/null" in str(caught.value)
        or ("nowhere" in str(caught.value))
    )
    assert special.lstat().st_mode == kind
    assert sorted(os.walk(special.parent)) == before


def test_a_link_to_a_store(tmp_path: Path) -> None:
    """A symbolic link leads to the store, and to its lock file; one to a new name makes it."""
    (tmp_path / "link").symlink_to(tmp_path / "store")
    with richstore.open(tmp_path / "link") as store:
        store["k"] = [1]
        with richstore.open(tmp_path / "store") as same:
            assert same["k"] is store["k"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "store", "store-lock"]
