from __future__ import annotations

import errno
import os
import signal
import threading
import time
from collections.abc import Callable

import pytest

from engines.conformance import contents, fill, now
from engines.processes import Other, open_it
from richstore.engines.lmdb import LmdbEngine
from richstore.errors import (
    LockTimeoutError,
)


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
        assert timeout <= time.monotonic() - start < timeout + 30
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
    with pytest.raises(LockTimeoutError):
        engine.write(0)
    process.tell("import time; time.sleep(0.3); t.commit()")
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
    # a shell's background jobs ignore it
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        interrupt = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            interrupt.start()
            engine.write(None)
        interrupt.join()
    finally:
        signal.signal(signal.SIGINT, before)
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
    gave_up = threading.Event()

    def wait_for_it() -> None:
        try:
            engine.write(0.1)
        except LockTimeoutError as error:
            outcome.append(error)
        gave_up.set()
        second = engine.write(None)
        outcome.append(second.get(b"a"))
        second.abort()

    thread = threading.Thread(target=wait_for_it)
    thread.start()
    transaction.put(b"a", b"1")
    assert gave_up.wait(10)
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
