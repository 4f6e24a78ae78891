from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator

import pytest

from engines.conformance import EngineConformance, contents, fill
from richstore.engines.memory import MemoryEngine
from richstore.errors import ConflictError


@pytest.fixture
def engine() -> Iterator[MemoryEngine]:
    """A new engine."""
    engine = MemoryEngine()
    yield engine
    engine.close()


class TestMemoryEngine(EngineConformance):
    pass


def test_every_one_is_new(engine: MemoryEngine) -> None:
    """Two memory engines share nothing."""
    fill(engine, {b"a": b"1"})
    other = MemoryEngine()
    assert other.last_commit() == 0
    other.close()
    assert (engine.path, engine.readonly, engine.last_commit()) == ("memory:", False, 1)


def test_refused_commits(engine: MemoryEngine) -> None:
    """The commits that it was told to refuse raise ConflictError and change nothing."""
    engine.refuse_commits(2)
    for _ in range(2):
        transaction = engine.write(None)
        transaction.put(b"a", b"1")
        with pytest.raises(ConflictError):
            transaction.commit()
    assert engine.last_commit() == 0
    assert fill(engine, {b"a": b"1"}) == 1


def test_second_of_two_writers(engine: MemoryEngine) -> None:
    """Of two write transactions that were open at once, the second to commit is refused."""
    first, second = engine.write(None), engine.write(None)
    first.put(b"a", b"1")
    second.put(b"b", b"2")
    first.commit()
    assert second.get(b"a") is None
    with pytest.raises(ConflictError):
        second.commit()
    assert contents(engine.read()) == {b"a": b"1"}
    assert (first.committed, second.committed) == (True, False)


def test_old_values_are_dropped(engine: MemoryEngine) -> None:
    """Values that no open view needs are not kept, and deleted keys leave nothing behind."""
    for number in range(100):
        fill(engine, {b"a": b"%d" % number, b"k%d" % number: b"x"})
        transaction = engine.write(None)
        transaction.delete(b"k%d" % number)
        transaction.commit()
    fill(engine, {b"end": b""})
    assert engine._versions.keys() == {b"a", b"end"}
    assert engine._keys == [b"a", b"end"]
    assert [len(versions) for versions in engine._versions.values()] == [1, 1]
    assert not engine._replaced


def test_values_are_kept_for_a_view(engine: MemoryEngine) -> None:
    """A view keeps what it needs, and what it kept goes with it."""
    fill(engine, {b"a": b"old", b"b": b"old"})
    view = engine.read()
    for _ in range(50):
        fill(engine, {b"a": b"new"})
    transaction = engine.write(None)
    transaction.delete(b"b")
    transaction.commit()
    assert contents(view) == {b"a": b"old", b"b": b"old"}
    view.close()
    fill(engine, {b"c": b""})
    assert engine._keys == [b"a", b"c"]
    assert len(engine._versions[b"a"]) == 1


def test_views_cost_the_same_at_any_size(engine: MemoryEngine) -> None:
    """Opening a view of 100,000 items takes no longer than of one, within a wide margin."""

    def cost() -> float:
        best = 1.0
        for _ in range(5):
            start = time.perf_counter()
            for _ in range(200):
                engine.read().close()
            best = min(best, time.perf_counter() - start)
        return best

    fill(engine, {b"a": b""})
    small = cost()
    fill(engine, {b"%06d" % i: b"" for i in range(100_000)})
    assert cost() < 20 * small


def test_fork(engine: MemoryEngine) -> None:
    """The child of a fork goes on with its own copy, also when a lock was held at the fork."""
    fill(engine, {b"a": b"1"})
    assert engine._lock.acquire()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            engine.reopen_after_fork()
            fill(engine, {b"a": b"2"})
            code = 0 if contents(engine.read()) == {b"a": b"2"} else 2
        finally:
            os._exit(code)
    engine._lock.release()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert contents(engine.read()) == {b"a": b"1"}


def test_dropping_inside_the_lock(engine: MemoryEngine) -> None:
    """A view may be dropped by a thread that holds the engine's lock, as a collection may do."""
    fill(engine, {b"a": b"1"})
    views = [engine.read()]

    def drop() -> None:
        with engine._lock:
            views.clear()

    thread = threading.Thread(target=drop, daemon=True)
    thread.start()
    thread.join(5)
    assert not thread.is_alive()
    assert fill(engine, {b"a": b"2"}) == 2
