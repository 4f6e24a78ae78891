from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import lmdb
import pytest
from conftest import child_environment
from lmdb import verify

from engines.conformance import fill, now
from engines.processes import Other, open_it
from richstore.engines.lmdb import LmdbEngine
from richstore.errors import (
    FormatError,
    LockTimeoutError,
    ReadOnlyError,
)


def test_files(path: str, engine: LmdbEngine) -> None:
    """The file and its lock file are made with mode 0600, and the engine knows its path."""
    assert engine.path == path and not engine.readonly
    assert path in repr(engine)
    for name in (path, f"{path}-lock"):
        assert stat.S_IMODE(os.stat(name).st_mode) == 0o600


def test_content_stays(path: str) -> None:
    """What was committed is there after closing and opening again."""
    for number, synchronous in enumerate(["full", "normal", "off"], 1):
        engine = open_it(path, synchronous=synchronous)
        assert engine.synchronous == synchronous
        assert fill(engine, {b"%d" % number: synchronous.encode()}) == number
        engine.close()
    engine = open_it(path, "r")
    assert now(engine) == {b"1": b"full", b"2": b"normal", b"3": b"off"}
    engine.close()


@pytest.mark.parametrize("flag", ["r", "w"])
def test_missing_file(path: str, flag: str) -> None:
    """`r` and `w` need an existing file, and make none."""
    with pytest.raises(FileNotFoundError) as caught:
        open_it(path, flag)
    assert caught.value.filename == path
    assert os.listdir(os.path.dirname(path)) == []


@pytest.mark.parametrize("flag", ["r", "w", "c", "n"])
def test_missing_directory(path: str, flag: str) -> None:
    """A directory that does not exist is not made."""
    with pytest.raises(FileNotFoundError) as caught:
        open_it(path + "/sub/file", flag)
    assert caught.value.filename == path + "/sub/file"


@pytest.mark.parametrize("flag", ["r", "w", "c", "n"])
def test_directory(tmp_path: Path, flag: str) -> None:
    """A directory in place of the file is the error that `open()` raises."""
    with pytest.raises(IsADirectoryError) as caught:
        open_it(str(tmp_path), flag)
    assert caught.value.filename == str(tmp_path)


@pytest.mark.parametrize("flag", ["r", "w", "c", "n"])
def test_special_file(tmp_path: Path, flag: str) -> None:
    """A pipe in place of the file is refused, and not waited for."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises((FormatError, OSError)):
        open_it(str(tmp_path / "pipe"), flag)


@pytest.mark.parametrize("flag", ["r", "w", "c", "n"])
@pytest.mark.parametrize(
    "content",
    [b"x", b"SQLite format 3\0" + bytes(5000), bytes(8192), os.urandom(100_000)],
    ids=["short", "sqlite", "zeros", "random"],
)
def test_foreign_file(path: str, flag: str, content: bytes) -> None:
    """A file of something else is refused with every flag, and nothing is changed or added."""
    Path(path).write_bytes(content)
    with pytest.raises(FormatError, match="something else"):
        open_it(path, flag)
    assert Path(path).read_bytes() == content
    assert os.listdir(os.path.dirname(path)) == [os.path.basename(path)]


@pytest.mark.parametrize("flag", ["r", "w", "c", "n"])
def test_newer_data_format(path: str, flag: str) -> None:
    """A file of LMDB 1.0's format is refused and stays as it is."""
    env = lmdb.open(path, subdir=False, lib_version=1)
    with env.begin(write=True) as txn:
        txn.put(b"a", b"1")
    env.close()
    before = Path(path).read_bytes()
    with pytest.raises(FormatError, match="data format 3"):
        open_it(path, flag)
    assert Path(path).read_bytes() == before


@pytest.mark.parametrize("flag", ["r", "w", "c", "n"])
@pytest.mark.parametrize("keep", [100, 5000, 12_000, 100_000])
def test_truncated_file(path: str, flag: str, keep: int) -> None:
    """A file that was cut off is refused and stays as it is."""
    engine = open_it(path)
    fill(engine, {b"%d" % i: bytes(1000) for i in range(1000)})
    engine.close()
    os.truncate(path, keep)
    before = Path(path).read_bytes()
    with pytest.raises(FormatError):
        open_it(path, flag)
    assert Path(path).read_bytes() == before


def test_rightly_short_file(path: str, other: Callable[..., Other]) -> None:
    """A file that LMDB left shorter than its pages is opened, and made as long when closed."""
    process = other()
    process.do(
        "t = e.write(None); [t.put(b'%d' % i, bytes(1000)) for i in range(2000)]; t.commit()"
    )
    process.do("t = e.write(None); [t.delete(b'%d' % i) for i in range(1000)]; t.commit()")
    # pages that are free now and may be used again: only then are new ones forgotten unwritten
    process.do("t = e.write(None); t.put(b'y', b''); t.commit()")
    process.do("t = e.write(None); t.put(b'x', bytes(9_000_000)); t.delete(b'x'); t.commit()")
    process.kill()
    engine = open_it(path)
    info = engine._env.info()  # type: ignore[union-attr]
    needed = (info["last_pgno"] + 1) * 4096
    assert os.path.getsize(path) < needed, "the premise of this test"
    assert len(now(engine)) == 1001
    engine.close()
    assert os.path.getsize(path) == needed
    engine = open_it(path)
    assert len(now(engine)) == 1001
    engine.close()


def test_rightly_short_file_with_pages_to_spare(path: str, other: Callable[..., Other]) -> None:
    """A value that has shrunk inside its transaction does not make such a file incomplete."""
    process = other()
    process.do(
        "t = e.write(None); [t.put(b'%d' % i, bytes(1000)) for i in range(2000)]; "
        "t.put(b'x', bytes(50_000)); t.put(b'x', b'small'); t.commit()"
    )
    process.do("t = e.write(None); [t.delete(b'%d' % i) for i in range(1000)]; t.commit()")
    process.do("t = e.write(None); t.put(b'y', b''); t.commit()")
    process.do("t = e.write(None); t.put(b'z', bytes(9_000_000)); t.delete(b'z'); t.commit()")
    process.kill()
    assert verify.verify(path), "the premise of this test"
    engine = open_it(path)
    needed = engine.stats().pages * 4096  # type: ignore[operator]
    assert os.path.getsize(path) < needed, "the other premise"
    assert now(engine)[b"x"] == b"small"
    engine.close()


@pytest.mark.parametrize("flag", ["r", "w", "c", "n"])
def test_empty_file(path: str, flag: str) -> None:
    """An empty file is a new store for `c` and `n`, and no store for `r` and `w`."""
    Path(path).touch(0o644)
    if flag in "rw":
        with pytest.raises(FormatError, match="empty"):
            open_it(path, flag)
        assert os.path.getsize(path) == 0
    else:
        engine = open_it(path, flag)
        assert fill(engine, {b"a": b"1"}) == 1
        engine.close()


@pytest.mark.parametrize("option", [{"flag": "x"}, {"flag": ""}, {"synchronous": "fast"}])
def test_wrong_words(path: str, option: dict[str, str]) -> None:
    """A flag or a `synchronous` that does not exist is a ValueError, and makes no file."""
    with pytest.raises(ValueError, match="must be"):
        open_it(path, **option)  # type: ignore[arg-type]
    assert not os.path.exists(path)


def test_new(path: str, other: Callable[..., Other]) -> None:
    """`n` empties an existing store in one commit; who has it open sees that, views stay."""
    engine = open_it(path)
    fill(engine, {b"%d" % i: bytes(100) for i in range(1000)})
    process = other()
    process.do("view = e.read()")
    inode = os.stat(path).st_ino
    again = open_it(path, "n")
    assert again is engine
    assert now(engine) == {} and engine.last_commit() == 2
    assert process.do("say(e.last_commit(), len(list(e.read().scan(b'', None))))") == "2 0"
    assert process.do("say(view.id, len(list(view.scan(b'', None))))") == "1 1000"
    assert os.stat(path).st_ino == inode
    engine.close()
    again.close()


def test_new_waits_for_a_writer(path: str, other: Callable[..., Other]) -> None:
    """`n` does not empty a store while another process is writing to it."""
    process = other()
    process.do("t = e.write(None); t.put(b'a', b'1'); t.commit(); t = e.write(None)")
    with pytest.raises(LockTimeoutError, match=path):
        open_it(path, "n", timeout=0.1)
    process.do("t.abort()")
    engine = open_it(path, "n", timeout=5)
    assert now(engine) == {}
    engine.close()


def test_new_on_a_small_map(path: str) -> None:
    """`n` works on a map that has no room for the change."""
    engine = open_it(path, map_size=1 << 16)
    fill(engine, {b"%04d" % i: bytes(500) for i in range(2000)})
    engine.close()
    engine = open_it(path, "n", map_size=1 << 16)
    assert now(engine) == {}
    engine.close()


@contextmanager
def ordinary_user() -> Iterator[str]:
    """Give a directory that anybody may read, and stop being root inside the block."""
    root = os.geteuid() == 0
    # not below TMPDIR, which may be root's alone
    directory = tempfile.mkdtemp(dir="/tmp" if root else None)
    try:
        if root:
            os.chown(directory, 65534, 65534)
            os.seteuid(65534)
        yield directory
    finally:
        if root:
            os.seteuid(0)
        subprocess.run(["rm", "-rf", directory], check=True)


@pytest.mark.parametrize("flag", ["w", "c", "n"])
def test_no_permission_for_the_file(flag: str) -> None:
    """A file that may not be written is a PermissionError for the flags that write."""
    with ordinary_user() as directory:
        path = f"{directory}/test.db"
        open_it(path).close()
        os.chmod(path, 0o400)
        with pytest.raises(PermissionError) as caught:
            open_it(path, flag)
        assert caught.value.filename == path
        os.chmod(path, 0)
        with pytest.raises(PermissionError):
            open_it(path, "r")


def test_no_permission_for_the_directory() -> None:
    """A directory that may not be written is a PermissionError for a new file."""
    with ordinary_user() as directory:
        os.chmod(directory, 0o500)
        with pytest.raises(PermissionError) as caught:
            open_it(f"{directory}/test.db")
        assert caught.value.filename == f"{directory}/test.db"
        os.chmod(directory, 0o700)


def test_read_only_file() -> None:
    """`r` reads a file that may not be written, and its engine cannot be opened for writing."""
    with ordinary_user() as directory:
        path = f"{directory}/test.db"
        engine = open_it(path)
        fill(engine, {b"a": b"1"})
        engine.close()
        os.chmod(path, 0o400)
        engine = open_it(path, "r")
        assert now(engine) == {b"a": b"1"} and engine.readonly
        with pytest.raises(ReadOnlyError):
            engine.write(None)
        os.chmod(path, 0o600)
        with pytest.raises(PermissionError, match="close that store"):
            open_it(path, "w")
        engine.close()


def test_read_only_directory_without_lock_file() -> None:
    """Where the lock file is missing and cannot be made, the error says so."""
    with ordinary_user() as directory:
        path = f"{directory}/test.db"
        open_it(path).close()
        os.unlink(f"{path}-lock")
        os.chmod(directory, 0o500)
        with pytest.raises(PermissionError, match="lock file") as caught:
            open_it(path, "r")
        assert caught.value.filename == f"{path}-lock"
        os.chmod(directory, 0o700)


MAKER = """
import sys, time
from richstore.engines.lmdb import open_lmdb

for directory in sys.argv[2:]:
    engine = open_lmdb(f"{directory}/file", "c", synchronous="off", timeout=10.0)
    transaction = engine.write(10.0)
    transaction.put(sys.argv[1].encode(), b"x")
    transaction.commit()
    engine.close()
"""


def test_made_by_many_at_once(tmp_path: Path) -> None:
    """Processes that make a file at the same time get the same one, and leave nothing else."""
    directories = [tmp_path / str(number) for number in range(60)]
    for directory in directories:
        directory.mkdir()
    makers = [
        subprocess.Popen(
            [sys.executable, "-c", MAKER, str(number), *map(str, directories)],
            env=child_environment(),
        )
        for number in range(4)
    ]
    assert [maker.wait(60) for maker in makers] == [0, 0, 0, 0]
    for directory in directories:
        engine = open_it(str(directory / "file"))
        assert now(engine).keys() == {b"0", b"1", b"2", b"3"}
        engine.close()
        assert sorted(os.listdir(directory)) == ["file", "file-lock"]
