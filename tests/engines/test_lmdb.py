from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import lmdb
import pytest
from conformance import EngineConformance, contents, fill, now
from conftest import child_environment
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from richstore.engines import datafile
from richstore.engines.lmdb import LmdbEngine, open_lmdb
from richstore.engines.lmdb.transactions import ReplayingWriteTransaction
from richstore.engines.netfs import network_file_system
from richstore.errors import (
    ClosedError,
    FormatError,
    LockTimeoutError,
    ReadOnlyError,
    RichStoreError,
)


def open_it(path: str, flag: str = "c", **options: object) -> LmdbEngine:
    """Open a file with settings that are good for tests."""
    settings = {"synchronous": "off", "timeout": 10.0, **options}
    return open_lmdb(path, flag, **settings)  # type: ignore[arg-type]


@pytest.fixture
def engine(path: str) -> Iterator[LmdbEngine]:
    """An open, empty engine."""
    engine = open_it(path)
    yield engine
    engine.close()


@pytest.fixture
def tiny(path: str) -> Iterator[LmdbEngine]:
    """An engine whose map is full soon."""
    engine = open_it(path, map_size=1 << 16)
    yield engine
    engine.close()


class Other:
    """A second process that has the file open and does what it is told, line by line."""

    HEAD = """
import os, sys
from richstore.engines.lmdb import open_lmdb
from richstore.errors import *
def say(*words): print(*words, flush=True)
e = open_lmdb(sys.argv[1], "c", synchronous="off", timeout=10.0, map_size=eval(sys.argv[2]))
say("ready")
for line in sys.stdin:
    exec(line)
    say("done")
"""

    def __init__(self, path: str, map_size: int | None = None) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", self.HEAD, path, repr(map_size)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=child_environment(),
        )
        assert self.process.stdout is not None and self.process.stdin is not None
        self.out, self.into = self.process.stdout, self.process.stdin
        assert self.out.readline() == "ready\n"

    def tell(self, line: str) -> None:
        self.into.write(line + "\n")
        self.into.flush()

    def do(self, line: str) -> str:
        """Run a line there and return what it said."""
        self.tell(line)
        said = ""
        while (answer := self.out.readline()) != "done\n":
            assert answer, "the other process died"
            said += answer
        return said.strip()

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self.into.close()
        self.out.close()


@pytest.fixture
def other(path: str) -> Iterator[Callable[..., Other]]:
    """A function that starts another process on the same file."""
    started: list[Other] = []

    def start(map_size: int | None = None) -> Other:
        started.append(Other(path, map_size))
        return started[-1]

    yield start
    for process in started:
        process.end()


def in_fork(action: Callable[[], object]) -> int:
    """Run something in the child of a fork; return its exit code, 0 if it raised nothing."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            action()
            code = 0
        except BaseException as error:
            print(repr(error), file=sys.__stderr__, flush=True)
        finally:
            os._exit(code)
    return pid


def wait(pid: int) -> int:
    """Wait for a child; return its exit code."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


class TestLmdbEngine(EngineConformance):
    pass


class TestLmdbEngineOnSmallMap(EngineConformance):
    """The same with a map that is full all the time, so that writes are repeated."""

    @pytest.fixture
    def engine(self, path: str) -> Iterator[LmdbEngine]:
        engine = open_it(path, map_size=1 << 16)
        assert engine._transaction is ReplayingWriteTransaction
        yield engine
        engine.close()

    # these keep views open while they write more than the small map holds, which is refused
    test_views_are_frozen = None
    test_view_in_other_threads = None
    test_model = None


# --- opening ---


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
    if root:
        os.seteuid(65534)
    directory = tempfile.mkdtemp()
    try:
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


# --- sharing ---


def test_double_open(path: str, engine: LmdbEngine) -> None:
    """A second open of a file, by whichever name, shares the engine until the last close."""
    os.symlink(path, path + ".link")
    os.link(path, path + ".hard")
    engine.shared["tracker"] = "one"
    others = [open_it(name) for name in (path, path + ".link", path + ".hard")]
    assert all(other is engine for other in others)
    fill(engine, {b"a": b"1"})
    for other in others:
        other.close()
    assert now(engine) == {b"a": b"1"} and engine.shared == {"tracker": "one"}


def test_symbolic_link_alone(path: str) -> None:
    """A file opened by a symbolic link has its lock file beside the file."""
    open_it(path).close()
    os.symlink(path, path + ".link")
    engine = open_it(path + ".link")
    assert engine.path == path
    assert not os.path.exists(path + ".link-lock")
    engine.close()


def test_double_open_with_other_settings(path: str) -> None:
    """What is open serves whoever asks for less; whoever asks for more gets a clear error."""
    engine = open_it(path, synchronous="normal")
    assert open_it(path, synchronous="off").synchronous == "normal"
    assert open_it(path, "r", synchronous="full") is engine
    with pytest.raises(ValueError, match="synchronous='normal'"):
        open_it(path, synchronous="full")
    for _ in range(3):
        fill(engine, {b"a": b"1"})
        engine.close()
    with pytest.raises(ClosedError):
        engine.last_commit()


def test_reader_first(path: str) -> None:
    """A file that is open for reading can be opened for writing as well."""
    open_it(path, synchronous="full").close()
    reader = open_it(path, "r")
    assert reader.readonly
    with pytest.raises(ReadOnlyError, match="flag 'w'"):
        reader.write(None)
    writer = open_it(path, "w")
    assert writer is reader and not writer.readonly
    fill(writer, {b"a": b"1"})
    writer.close()
    assert now(reader) == {b"a": b"1"}
    reader.close()


def test_replaced_file(path: str, engine: LmdbEngine) -> None:
    """A file that replaced the open one is another store; the open one stays usable."""
    fill(engine, {b"old": b"1"})
    os.unlink(path)
    os.unlink(path + "-lock")
    new = open_it(path)
    assert new is not engine and now(new) == {}
    fill(new, {b"new": b"1"})
    assert (now(engine), now(new)) == ({b"old": b"1"}, {b"new": b"1"})
    new.close()


def test_replaced_file_with_old_lock_file(path: str, engine: LmdbEngine) -> None:
    """A replaced file whose lock file was left cannot be opened beside the old one."""
    os.unlink(path)
    with pytest.raises(OSError, match="lock file") as caught:
        open_it(path)
    assert caught.value.errno == errno.EBUSY
    engine.close()
    again = open_it(path)
    assert now(again) == {}
    again.close()


def test_open_and_close_in_threads(path: str) -> None:
    """Threads that open, use and close one file at the same time do not disturb each other."""
    open_it(path).close()
    problems: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(30):
                engine = open_it(path)
                engine.read().close()
                engine.last_commit()
                engine.close()
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []


def test_close_while_another_thread_writes(path: str) -> None:
    """Closing does not wait for another thread's transaction; that one's commit is refused."""
    engine = open_it(path)
    begun, go_on = threading.Event(), threading.Event()
    outcome: list[object] = []

    def write() -> None:
        transaction = engine.write(None)
        transaction.put(b"a", b"1")
        begun.set()
        go_on.wait(10)
        try:
            transaction.commit()
        except ClosedError as error:
            outcome.append(error)

    thread = threading.Thread(target=write)
    thread.start()
    begun.wait(10)
    engine.close()
    with pytest.raises(ClosedError):
        engine.last_commit()
    with pytest.raises(ClosedError):
        engine.read()
    with pytest.raises(OSError, match="let that end first"):
        open_it(path)
    go_on.set()
    thread.join()
    assert len(outcome) == 1
    again = open_it(path)
    assert now(again) == {}
    again.close()


# --- other processes ---


def test_counter_across_processes(engine: LmdbEngine, other: Callable[..., Other]) -> None:
    """A commit of one process is at once in the counter and the views of another."""
    process = other()
    for number in range(1, 20, 2):
        assert fill(engine, {b"n": b"%d" % number}) == number
        assert process.do("say(e.last_commit(), e.read().get(b'n'))") == f"{number} b'{number}'"
        process.do("t = e.write(None); t.put(b'n', b'theirs'); t.commit()")
        assert engine.last_commit() == number + 1
        assert now(engine) == {b"n": b"theirs"}


def test_lock_timeout(path: str, engine: LmdbEngine, other: Callable[..., Other]) -> None:
    """A writer waits for that of another process as long as it was told, and then says so."""
    process = other()
    process.do("t = e.write(None)")
    for timeout in (0, 0.2):
        start = time.monotonic()
        with pytest.raises(LockTimeoutError, match=r"another process.*larger timeout") as caught:
            engine.write(timeout)
        assert timeout <= time.monotonic() - start < timeout + 2
        assert path in str(caught.value)
    assert now(engine) == {}, "readers are not held up"
    process.do("t.put(b'a', b'1'); t.commit()")
    transaction = engine.write(0)
    assert transaction.get(b"a") == b"1"
    transaction.abort()


@pytest.mark.parametrize("timeout", [None, 20.0])
def test_lock_becomes_free(
    engine: LmdbEngine, other: Callable[..., Other], timeout: float | None
) -> None:
    """A writer that waits goes on when the other process has committed, and sees its writes."""
    process = other()
    process.do("t = e.write(None); t.put(b'a', b'1')")
    process.tell("import time; time.sleep(0.3); t.commit()")
    with pytest.raises(LockTimeoutError):
        engine.write(0)
    transaction = engine.write(timeout)
    assert transaction.get(b"a") == b"1" and transaction.id == 2
    transaction.abort()


def test_lock_is_exclusive(engine: LmdbEngine, other: Callable[..., Other]) -> None:
    """Two processes that add to one number at the same time lose nothing."""
    process = other()
    count = "t = e.write(20.0); t.put(b'n', b'%d' % (int(t.get(b'n') or 0) + 1)); t.commit()"
    process.tell(f"for _ in range(300): {count}")
    for _ in range(300):
        transaction = engine.write(20.0)
        transaction.put(b"n", b"%d" % (int(transaction.get(b"n") or 0) + 1))
        transaction.commit()
    assert process.out.readline() == "done\n"
    assert now(engine) == {b"n": b"600"}


def test_killed_writer(engine: LmdbEngine, other: Callable[..., Other]) -> None:
    """The lock of a process that is killed inside its transaction is free, its writes are gone."""
    process = other()
    process.do("t = e.write(None); [t.put(b'%d' % i, bytes(500)) for i in range(10_000)]")
    process.kill()
    assert fill(engine, {b"a": b"1"}) == 1
    assert now(engine) == {b"a": b"1"}


def test_interrupted_wait(engine: LmdbEngine, other: Callable[..., Other]) -> None:
    """Ctrl-C ends a wait without timeout, and the lock can be taken later."""
    process = other()
    process.do("t = e.write(None)")
    interrupt = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
    interrupt.start()
    with pytest.raises(KeyboardInterrupt):
        engine.write(None)
    interrupt.join()
    process.do("t.abort()")
    assert fill(engine, {b"a": b"1"}) == 1


def test_lock_after_a_second_open(
    path: str, engine: LmdbEngine, other: Callable[..., Other]
) -> None:
    """Opening and closing the file again does not free the lock, nor the place of a reader."""
    fill(engine, {b"%04d" % i: bytes(1000) for i in range(500)})
    view = engine.read()
    transaction = engine.write(None)
    open_it(path).close()
    with open(path, "rb"):
        pass
    process = other()
    refused = "try: e.write(0.05)\nexcept LockTimeoutError: say('refused')"
    assert process.do(f"exec({refused!r})") == "refused"
    transaction.abort()
    for _ in range(20):
        process.do(
            "t = e.write(None); [t.put(b'%04d' % i, os.urandom(1000)) for i in range(500)]; "
            "t.commit()"
        )
    assert set(contents(view).values()) == {bytes(1000)}
    view.close()


def test_writer_of_this_process(engine: LmdbEngine) -> None:
    """A second write transaction of a thread is an error; of another thread, it waits."""
    transaction = engine.write(None)
    with pytest.raises(RuntimeError, match="this thread"):
        engine.write(1.0)
    outcome: list[object] = []

    def wait_for_it() -> None:
        try:
            engine.write(0.1)
        except LockTimeoutError as error:
            outcome.append(error)
        second = engine.write(None)
        outcome.append(second.get(b"a"))
        second.abort()

    thread = threading.Thread(target=wait_for_it)
    thread.start()
    transaction.put(b"a", b"1")
    time.sleep(0.3)
    transaction.commit()
    thread.join()
    assert isinstance(outcome[0], LockTimeoutError) and outcome[1] == b"1"


def test_stale_reader(path: str, other: Callable[..., Other]) -> None:
    """The place of a reader that was killed is free after the next open."""
    engine = open_it(path)
    fill(engine, {b"a": b"1"})
    process = other()
    process.do("views = [e.read() for _ in range(3)]")
    pid = str(process.process.pid)
    readers = engine._env.readers  # type: ignore[union-attr]
    assert readers().count(pid) == 3
    process.kill()
    assert readers().count(pid) == 3
    engine.close()
    engine = open_it(path)
    assert engine._env.readers().count(pid) == 0  # type: ignore[union-attr]
    engine.close()


def test_table_full_of_stale_readers(engine: LmdbEngine, other: Callable[..., Other]) -> None:
    """When killed readers have filled the table, they are cleared and reading goes on."""
    fill(engine, {b"a": b"1"})
    process = other()
    process.do("views = [e.read() for _ in range(1024)]")
    assert engine.last_commit() == 1, "the counter needs no place in the table"
    with pytest.raises(OSError, match="snapshots") as caught:
        engine.read()
    assert caught.value.errno == errno.EAGAIN
    process.kill()
    assert now(engine) == {b"a": b"1"}


# --- the map ---


def test_map_grows(path: str, tiny: LmdbEngine) -> None:
    """Many small commits and a single large one both go beyond the map's first size."""
    for number in range(200):
        fill(tiny, {b"%d" % number: bytes(1000)})
    fill(tiny, {b"large": bytes(5_000_000), b"l2": b"x"})
    transaction = tiny.write(None)
    for number in range(5_000):
        transaction.put(b"%d" % number, b"y" * 1000)
        if number % 2:
            assert transaction.delete(b"%d" % number)
    assert transaction.delete(b"large")
    transaction.commit()
    assert now(tiny) == {b"l2": b"x"} | {b"%d" % i: b"y" * 1000 for i in range(0, 5_000, 2)}
    assert tiny.last_commit() == 202


def test_map_grown_by_another_process(tiny: LmdbEngine, other: Callable[..., Other]) -> None:
    """A process follows when another one has grown the file beyond its map, and back again."""
    process = other(1 << 16)
    for turn in range(1, 7):
        grow = f"[t.put(b'%d' % i, bytes(1000 * {turn})) for i in range(200)]"
        process.do(f"t = e.write(None); {grow}; t.commit()")
        assert tiny.last_commit() == 2 * turn - 1
        assert set(now(tiny).values()) == {bytes(1000 * turn)}
        fill(tiny, {b"%d" % i: bytes(1000 * turn + 500) for i in range(200)})
        said = process.do("say(e.last_commit(), len(e.read().get(b'7')))")
        assert said == f"{2 * turn} {1000 * turn + 500}"


def test_written_after_another_process_grew(tiny: LmdbEngine, other: Callable[..., Other]) -> None:
    """A write transaction can begin when another process has grown the file beyond the map."""
    other(1 << 16).do("t = e.write(None); t.put(b'a', bytes(10_000_000)); t.commit()")
    assert fill(tiny, {b"b": b"2"}) == 2
    assert now(tiny) == {b"a": bytes(10_000_000), b"b": b"2"}


def test_map_cannot_grow_under_a_view(tiny: LmdbEngine) -> None:
    """With a view open, a transaction that needs a larger map is refused and leaves nothing."""
    fill(tiny, {b"a": b"1"})
    view = tiny.read()
    transaction = tiny.write(None)
    with pytest.raises(OSError, match="close them") as caught:
        for number in range(100):
            transaction.put(b"%d" % number, bytes(1000))
    assert caught.value.errno == errno.ENOSPC
    with pytest.raises(ClosedError):
        transaction.commit()
    assert contents(view) == now(tiny) == {b"a": b"1"}
    view.close()
    fill(tiny, {b"b": bytes(100_000)})
    assert now(tiny) == {b"a": b"1", b"b": bytes(100_000)}


def test_outgrown_map_under_a_view(tiny: LmdbEngine, other: Callable[..., Other]) -> None:
    """With a view open that keeps the map small, the view and the counter go on working."""
    fill(tiny, {b"a": b"1"})
    view = tiny.read()
    other(1 << 16).do("t = e.write(None); t.put(b'b', bytes(1_000_000)); t.commit()")
    assert tiny.last_commit() == 2
    for begin in (tiny.read, lambda: tiny.write(None)):
        with pytest.raises(OSError, match="close them"):
            begin()
    assert contents(view) == {b"a": b"1"}
    view.close()
    assert now(tiny)[b"b"] == bytes(1_000_000)
    assert fill(tiny, {b"c": b"3"}) == 3


def test_abort_while_others_read(engine: LmdbEngine) -> None:
    """Aborting a write transaction does not wait for a moment when no other thread reads."""
    fill(engine, {b"%03d" % i: bytes(1000) for i in range(100)})
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            now(engine)

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    longest = 0.0
    for _ in range(30):
        transaction = engine.write(None)
        transaction.put(b"a", b"1")
        start = time.perf_counter()
        transaction.abort()
        longest = max(longest, time.perf_counter() - start)
    done.set()
    for thread in threads:
        thread.join()
    assert longest < 2


@given(data=st.data())
@settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_replay_model(tmp_path: Path, data: st.DataObject) -> None:
    """Writes that are repeated on larger maps leave what they would leave in a dict."""
    keys = [b"%02d" % i for i in range(30)]
    model: dict[bytes, bytes] = {}
    with closing(open_it(tempfile.mktemp(dir=tmp_path), map_size=1 << 16)) as engine:
        for _ in range(data.draw(st.integers(1, 4))):
            transaction, draft = engine.write(None), dict(model)
            for key in data.draw(st.lists(st.sampled_from(keys), max_size=40)):
                if data.draw(st.booleans()):
                    value = bytes(data.draw(st.integers(0, 20_000)))
                    transaction.put(key, value)
                    draft[key] = value
                else:
                    assert transaction.delete(key) == (draft.pop(key, None) is not None)
            assert contents(transaction) == draft
            transaction.commit()
            model = draft
        assert now(engine) == model


def test_scan_while_the_map_grows(tiny: LmdbEngine) -> None:
    """A scan inside a write transaction goes on when that one has moved to a larger map."""
    fill(tiny, {b"%03d" % i: b"" for i in range(100)})
    transaction = tiny.write(None)
    seen = []
    for key, _ in transaction.scan(b"", b"9" * 4):
        seen.append(key)
        transaction.put(b"x" + key, bytes(3000))
    assert seen == [b"%03d" % i for i in range(100)]
    transaction.commit()
    assert len(now(tiny)) == 200


def test_limited_address_space(path: str) -> None:
    """Under `ulimit -v` a smaller map is taken, and an error says when that is full."""
    code = """
import sys
from richstore.engines.lmdb import open_lmdb
e = open_lmdb(sys.argv[1], "c", synchronous="off", timeout=None)
size = e._env.info()["map_size"]
assert 1 << 26 <= size < 1 << 30, size
t = e.write(None)
t.put(b"a", bytes(1000))
t.commit()
try:
    t = e.write(None)
    for i in range(size // 1_000_000 + 10):
        t.put(b"%d" % i, bytes(1_000_000))
    t.commit()
except OSError as error:
    assert "ulimit -v" in str(error), error
else:
    raise AssertionError("there was room")
t = e.write(None)
assert t.get(b"a") == bytes(1000) and t.get(b"1") is None
t.put(b"b", b"2")
t.commit()
e.close()
"""
    limit = f"ulimit -v 900000 && exec {sys.executable} -c '{code}' {path}"
    done = subprocess.run(
        ["bash", "-c", limit],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**child_environment(), "OPENBLAS_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr


def test_full_disk(path: str) -> None:
    """A disk that is full is OSError(ENOSPC) or EFBIG, nothing is lost, and writing can go on."""
    code = """
import errno, resource, signal, sys
from richstore.engines.lmdb import open_lmdb
e = open_lmdb(sys.argv[1], "c", synchronous="off", timeout=None)
t = e.write(None); t.put(b"a", b"1"); t.commit()
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, resource.RLIM_INFINITY))
t = e.write(None)
t.put(b"b", bytes(3_000_000))
try:
    t.commit()
except OSError as error:
    assert error.errno in (errno.EFBIG, errno.ENOSPC, errno.EIO), error
    assert error.filename == e.path
else:
    raise AssertionError("there was room")
v = e.read()
assert list(v.scan(b"", None)) == [(b"a", b"1")]
v.close()
t = e.write(None); t.put(b"c", b"3"); t.commit()
e.close()
"""
    done = subprocess.run(
        [sys.executable, "-c", code, path],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=child_environment(),
    )
    assert done.returncode == 0, done.stderr


# --- fork ---


def test_fork_while_writing(engine: LmdbEngine) -> None:
    """The child of a fork writes when the parent's transaction is over; both are there."""
    fill(engine, {b"a": b"1"})
    transaction, view = engine.write(None), engine.read()
    scan = view.scan(b"", None)
    transaction.put(b"parent", b"p")

    def child() -> None:
        for use in (
            lambda: transaction.put(b"x", b"y"),
            lambda: transaction.get(b"a"),
            transaction.commit,
            lambda: view.get(b"a"),
            lambda: next(scan),
        ):
            with pytest.raises(ClosedError):
                use()
        transaction.abort()
        view.close()
        assert engine.last_commit() == 1
        assert now(engine) == {b"a": b"1"}
        with pytest.raises(LockTimeoutError):
            engine.write(0.05)
        written = engine.write(10.0)
        assert written.get(b"parent") == b"p"
        written.put(b"child", b"c")
        written.commit()

    pid = in_fork(child)
    time.sleep(0.3)
    transaction.commit()
    assert wait(pid) == 0
    assert now(engine) == {b"a": b"1", b"parent": b"p", b"child": b"c"}
    assert view.get(b"a") == b"1" and list(scan) == [(b"a", b"1")]
    view.close()


def test_fork_keeps_the_view_of_the_parent(engine: LmdbEngine) -> None:
    """A view of the parent is still protected after the child has closed and dropped its copy."""
    global _view
    expected = {b"%04d" % i: bytes(1000) for i in range(300)}
    fill(engine, expected)
    _view = engine.read()

    def child() -> None:
        global _view
        _view.close()
        _view = None
        for _ in range(20):
            fill(engine, {b"%04d" % i: os.urandom(1000) for i in range(300)})
        engine.close()

    assert wait(in_fork(child)) == 0
    fill(engine, {b"%04d" % i: os.urandom(1000) for i in range(300)})
    assert contents(_view) == expected
    _view.close()


def test_fork_of_a_fork(engine: LmdbEngine) -> None:
    """The child of a child has an environment of its own as well."""

    def grandchild() -> None:
        fill(engine, {b"grandchild": b""})

    def child() -> None:
        fill(engine, {b"child": b""})
        assert wait(in_fork(grandchild)) == 0
        fill(engine, {b"child again": b""})

    assert wait(in_fork(child)) == 0
    fill(engine, {b"parent": b""})
    assert sorted(now(engine)) == [b"child", b"child again", b"grandchild", b"parent"]


def test_fork_while_threads_work(engine: LmdbEngine) -> None:
    """Forking while other threads read and write gives children that work, and harms nobody."""
    fill(engine, {b"n": b"0"})
    done = threading.Event()

    def write() -> None:
        while not done.is_set():
            fill(engine, {b"t": os.urandom(5000)})

    def read() -> None:
        while not done.is_set():
            assert b"n" in now(engine)

    threads = [threading.Thread(target=write), threading.Thread(target=read)]

    def child() -> None:
        for _ in range(5):
            transaction = engine.write(20.0)
            transaction.put(b"n", b"%d" % (int(transaction.get(b"n") or b"") + 1))
            transaction.commit()

    with_fork_warning = pytest.warns if sys.version_info >= (3, 12) else None
    for thread in threads:
        thread.start()
    for _ in range(10):
        if with_fork_warning is None:
            pid = in_fork(child)
        else:
            with with_fork_warning(DeprecationWarning, match="fork"):
                pid = in_fork(child)
        assert wait(pid) == 0
    done.set()
    for thread in threads:
        thread.join()
    assert now(engine)[b"n"] == b"50"


def test_fork_and_regular_exit(path: str) -> None:
    """A child that ends by itself, while another thread of the parent was writing, ends at once."""
    code = """
import os, sys, threading, warnings
warnings.simplefilter("ignore")
from richstore.engines.lmdb import open_lmdb
e = open_lmdb(sys.argv[1], "c", synchronous="off", timeout=None)
begun, go_on = threading.Event(), threading.Event()
def write():
    t = e.write(None)
    t.put(b"parent", b"")
    begun.set()
    go_on.wait()
    t.commit()
thread = threading.Thread(target=write)
thread.start()
begun.wait()
pid = os.fork()
if pid == 0:
    assert e.last_commit() == 0
    sys.exit(7)
code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
go_on.set()
thread.join()
assert e.last_commit() == 1
t = e.write(1.0); t.put(b"b", b""); t.commit()
e.close()
sys.exit(code)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, path],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env=child_environment(),
    )
    assert (done.returncode, done.stderr) == (7, "")


def test_fork_and_replaced_file(path: str) -> None:
    """A child whose file was replaced before its first use gets an error, not the other file."""
    engine = open_it(path)
    fill(engine, {b"a": b"1"})
    reading, writing = os.pipe()

    def child() -> None:
        os.read(reading, 1)
        with pytest.raises(OSError, match="replaced"):
            engine.read()

    pid = in_fork(child)
    for name in (path, path + "-lock"):
        os.unlink(name)
    new = open_it(path)
    os.write(writing, b"x")
    assert wait(pid) == 0
    os.close(reading)
    os.close(writing)
    new.close()
    engine.close()


# --- errors and file systems ---


def test_no_error_of_lmdb_escapes(engine: LmdbEngine) -> None:
    """Every exception of lmdb becomes an OSError, a ValueError or one of richstore's."""
    errors = [
        error
        for error in vars(lmdb).values()
        if isinstance(error, type) and issubclass(error, lmdb.Error)
    ]
    assert len(errors) > 20
    for error in errors:
        made = engine.translate(error("mdb_something"))
        assert isinstance(made, (OSError, ValueError, RichStoreError))
        assert not isinstance(made, lmdb.Error)
        assert str(made)


MOUNTS = r"""
21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
22 21 0:20 / /proc rw - proc proc rw
30 21 0:50 / /home rw,relatime shared:5 master:2 - nfs4 server:/home rw,vers=4.2
31 30 8:2 / /home/local rw - xfs /dev/sdb1 rw
32 21 0:51 / /mnt/my\040share rw - cifs //nas/share rw
33 21 0:52 / /mnt/ssh rw - fuse.sshfs ann@host: rw
34 21 0:53 / /data rw - ext4 /dev/sdc1 rw
35 34 0:54 / /data rw - lustre mgs@tcp:/fs rw
36 21 0:55 / /usb rw - fuseblk /dev/sdd1 rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/shop.db", None),
        ("/home/ann/shop.db", "nfs4"),
        ("/home", "nfs4"),
        ("/homes/shop.db", None),
        ("/home/local/shop.db", None),
        ("/home/localized/shop.db", "nfs4"),
        ("/mnt/my share/shop.db", "cifs"),
        ("/mnt/ssh/deep/er/shop.db", "fuse.sshfs"),
        ("/mnt/shop.db", None),
        ("/data/shop.db", "lustre"),
        ("/usb/shop.db", None),
    ],
)
def test_network_file_system(path: str, kind: str | None) -> None:
    """The longest mount point above a path decides, and of several on one point the last."""
    assert network_file_system(path, MOUNTS) == kind


def test_network_file_system_is_refused(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file on a network file system is not opened or made, unless that is asked for."""
    table = f"40 1 0:9 / {os.path.dirname(path)} rw - nfs server:/x rw\n"
    monkeypatch.setattr("richstore.engines.netfs._mounts", lambda: table)
    with pytest.raises(OSError, match="allow_network=True") as caught:
        open_it(path)
    assert (caught.value.errno, caught.value.filename) == (errno.ENOTSUP, path)
    assert not os.path.exists(path)
    open_it(path, allow_network=True).close()


def test_map_is_larger_than_the_disk(path: str, engine: LmdbEngine) -> None:
    """The map is such that the disk is full before it, so writes need not be remembered."""
    directory = os.path.dirname(path)
    assert datafile.map_sizes(directory)[0] >= max(1 << 40, 2 * datafile.disk_size(directory))
    assert engine._transaction is not ReplayingWriteTransaction
