from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator

import lmdb
import pytest

from engines.conformance import EngineConformance, fill, now
from engines.processes import open_it
from richstore.engines.lmdb import LmdbEngine
from richstore.engines.lmdb.transactions import ReplayingWriteTransaction
from richstore.errors import (
    ClosedError,
    ReadOnlyError,
    RichStoreError,
)


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
