from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from conftest import child_environment
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engines.conformance import contents, fill, now
from engines.processes import Other, open_it
from richstore.engines import datafile
from richstore.engines.lmdb import LmdbEngine
from richstore.engines.lmdb.transactions import ReplayingWriteTransaction
from richstore.errors import ClosedError


def test_map_is_larger_than_the_disk(path: str, engine: LmdbEngine) -> None:
    """The map is such that the disk is full before it, so writes need not be remembered."""
    directory = os.path.dirname(path)
    assert datafile.map_sizes(directory)[0] >= max(1 << 40, 2 * datafile.disk_size(directory))
    assert engine._transaction is not ReplayingWriteTransaction


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
    assert longest < 10


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


def test_limited_file_size(path: str) -> None:
    """A file at its greatest allowed size is EFBIG, nothing is lost, and writing can go on."""
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
    assert error.errno == errno.EFBIG and "ulimit -f" in str(error), error
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
