from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import pytest
from conftest import child_environment

from engines.conformance import contents, fill, now
from engines.processes import open_it
from richstore.engines.lmdb import LmdbEngine
from richstore.errors import (
    ClosedError,
    LockTimeoutError,
)


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


def test_fork_while_writing(engine: LmdbEngine) -> None:
    """The child of a fork writes when the parent's transaction is over; both are there."""
    fill(engine, {b"a": b"1"})
    transaction, view = engine.write(None), engine.read()
    scan = view.scan(b"", None)
    transaction.put(b"parent", b"p")
    gave_up, give_up = os.pipe()

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
        os.write(give_up, b"!")
        written = engine.write(10.0)
        assert written.get(b"parent") == b"p"
        written.put(b"child", b"c")
        written.commit()

    pid = in_fork(child)
    os.close(give_up)
    # nothing at all when the child has failed
    os.read(gave_up, 1)
    os.close(gave_up)
    time.sleep(0.1)
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
