"""Readers that sleep, and readers that died: what they pin is named, bounded and given back."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from test_processes import Child

from richstore.engines.lmdb import LmdbEngine

pytestmark = pytest.mark.timeout(60)

MEGABYTE = 1 << 20


@pytest.fixture
def store(file_box: Any) -> Any:
    """An open store on a file, with a value that fills some pages."""
    file_box.store["value"] = bytes(50_000)
    return file_box.store


@pytest.fixture
def child(file_box: Any) -> Iterator[Child]:
    """A second process on the same file, which is killed at the end if it is not dead yet."""
    made = Child(file_box.target)
    yield made
    made.process.kill()
    made.process.wait()
    for pipe in (made.process.stdin, made.process.stdout):
        assert pipe is not None
        pipe.close()


def overwrite(store: Any, times: int) -> int:
    """Write the value so many times; return by how many bytes the file has grown."""
    before = os.stat(store.path).st_size
    for number in range(times):
        store["value"] = bytes([number % 256]) * 50_000
    return os.stat(store.path).st_size - before


def growth_after_a_killed_reader(store: Any, child: Child) -> int:
    """Return by how much the file grows, in the long run, after a reader was killed."""
    overwrite(store, 20)
    child("view = store.snapshot()")
    assert overwrite(store, 100) > 4 * MEGABYTE, "the reader should have pinned pages"
    child.process.send_signal(signal.SIGKILL)
    child.process.wait()
    overwrite(store, 100)
    return overwrite(store, 400)


def test_pages_of_a_killed_reader_are_used_again(store: Any, child: Child) -> None:
    """The file stops growing after a process with a snapshot was killed; nobody has to ask."""
    assert growth_after_a_killed_reader(store, child) < MEGABYTE


def test_a_file_that_goes_on_growing_is_seen(
    store: Any, child: Child, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test above fails where dead readers are not looked for."""
    monkeypatch.setattr(LmdbEngine, "_forget_dead_readers", lambda self: None)
    assert growth_after_a_killed_reader(store, child) > 4 * MEGABYTE


def test_the_process_that_pins_pages_is_named(store: Any, child: Child) -> None:
    """`stats()` says which process has the oldest reader, and how many pages that keeps."""
    child("view = store.snapshot()")
    overwrite(store, 20)
    stats = store.stats()
    assert (stats.readers, stats.oldest_reader_pid) == (1, child.process.pid)
    assert stats.pages_pinned >= 12 * 18
    child("view.close()")
    stats = store.stats()
    assert (stats.readers, stats.oldest_reader_pid, stats.pages_pinned) == (0, None, 0)


def eventually(condition: Callable[[], bool]) -> bool:
    """Wait until a condition holds; return whether it did in time."""
    until = time.monotonic() + 40
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.01)
    return True


def test_max_age_ends_the_snapshot_of_a_process_that_sleeps(store: Any, child: Child) -> None:
    """A snapshot with `max_age` lets go of its pages while its process does something else."""
    child("view = store.snapshot(max_age=0.5); readers = store.stats().readers")
    assert child("readers") == 1
    # from here on the child waits to be told something
    assert eventually(lambda: store.stats().readers == 0)
    assert overwrite(store, 100) < MEGABYTE
    with pytest.raises(RuntimeError, match=r"!ClosedError.*max_age of 0\.5 s"):
        child("view['value']")


def test_max_age_of_a_stopped_process(store: Any, child: Child) -> None:
    """A process that is stopped is named as the one that pins pages; it lets go when it goes on."""
    # it stops itself, and at once
    child("import os, signal")
    child.send("view = store.snapshot(max_age=1); os.kill(os.getpid(), signal.SIGSTOP)")
    state = os.waitid(os.P_PID, child.process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
    assert state is not None and state.si_code == os.CLD_STOPPED
    time.sleep(1.2)
    overwrite(store, 5)
    assert store.stats().oldest_reader_pid == child.process.pid
    child.process.send_signal(signal.SIGCONT)
    child.answer()
    assert eventually(lambda: store.stats().readers == 0)
    with pytest.raises(RuntimeError, match="!ClosedError"):
        child("view['value']")
    assert child("len(store['value'])") == 50_000


def test_readers_that_live_are_left_alone(store: Any, child: Child) -> None:
    """However many commits there are, the snapshots of living processes read their state."""
    store["number"] = 0
    child("view = store.snapshot()")
    own = store.snapshot()
    for number in range(200):
        store["value"] = bytes([number]) * 50_000
        store["number"] = number
    assert child("[view['number'], view['value'] == bytes(50_000)]") == [0, True]
    assert (own["number"], own["value"]) == (0, bytes(50_000))
    own.close()
