"""Fork in every state: the child has a store of its own, and the parent goes on as if alone.

Each state is brought about in this process, which then forks. The child looks at what it has,
waits until the parent has let go of the writer's lock, writes, and ends without cleaning up.
Meanwhile and afterwards the parent goes on with what it was doing.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import check_store, child_environment, run_python
from sample_classes import Account

import richstore
from richstore.tracker import Tracker

pytestmark = [
    pytest.mark.timeout(90),
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork"),
    # that forking a process with threads may deadlock: not in what is tested here
    pytest.mark.filterwarnings("ignore:This process:DeprecationWarning"),
]

plain = richstore.plain


class Fork:
    """The child of a fork, which runs a function and tells what went wrong in it."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self.reading, writing = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.close(self.reading)
                try:
                    signal.alarm(30)
                    work()
                except BaseException:  # told to the parent
                    os.write(writing, traceback.format_exc()[-4000:].encode())
            finally:
                os._exit(0)
        os.close(writing)

    def wait(self) -> None:
        """Wait for its end; raise what it raised."""
        with os.fdopen(self.reading, "rb") as pipe:
            said = pipe.read().decode()
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        assert (code, said) == (0, "")


class Gate:
    """Lets one side of a fork wait for the other."""

    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()

    def wait(self) -> None:
        """Wait until the other side opens it, or has died."""
        os.close(self.writing)
        os.read(self.reading, 1)
        os.close(self.reading)

    def open(self) -> None:
        """Let the other side go on."""
        os.close(self.writing)
        os.close(self.reading)


class Scene:
    """A store in some state, the values that are held of it, and what is committed.

    Attributes:
        looked: opened by the child when it has looked at what there is.
        gate: opened by the parent when it has let go of the writer's lock.
        locked: whether the child finds it taken.
        expected: what the parent adds to the list by itself.
    """

    def __init__(self, store: Any) -> None:
        self.store = store
        self.looked, self.gate = Gate(), Gate()
        self.locked = False
        self.expected: list[Any] = []
        store.update(
            list=["first"],
            account=Account("ann"),
            rows=[[number] for number in range(2000)],
            table={f"key {number}": [number] for number in range(500)},
            gone=[1],
        )
        self.before = self.contents(store)
        self.held = {key: store[key] for key in store}
        self.row = store["rows"][1000]
        self.closed_in_child: list[Callable[[], Any]] = []

    @staticmethod
    def contents(mapping: Any) -> dict[str, Any]:
        found = plain(dict(mapping))
        if "account" in found:
            found["account"] = vars(found["account"])
        return found

    def child(self) -> None:
        """What the child sees and does."""
        store, held = self.store, self.held
        # what is committed, through the store and through what is held
        assert self.contents(store) == self.before
        assert self.contents(held) == self.before
        assert self.row == [1000]
        with store.snapshot() as view:
            assert self.contents(view) == self.before
        for use in self.closed_in_child:
            with pytest.raises(richstore.ClosedError):
                use()
        if self.locked:
            began = time.monotonic()
            with pytest.raises(richstore.LockTimeoutError), store.transaction(timeout=0.1):
                pass
            assert time.monotonic() - began < 20
        self.looked.open()
        self.gate.wait()
        # its own changes, on top of those of the parent
        with store.transaction():
            held["list"].append("child")
            self.row.append("child")
            store["child"] = {"of": [1]}
        store["child"]["of"].append(2)
        held["account"].balance += 5
        for number in range(50):
            held["table"][f"key {number}"] = ["child"] * 20
        assert list(held["list"]) == ["first", *self.expected, "child"]
        check_store(store)

    def play(self) -> None:
        """Fork, and see that both are well."""
        fork = Fork(self.child)
        self.looked.wait()
        self.release()
        self.gate.open()
        fork.wait()
        store = self.store
        store.refresh()
        self.held["list"].append("parent")
        assert list(self.held["list"]) == ["first", *self.expected, "child", "parent"]
        assert list(self.row) == [1000, "child"]
        assert self.held["account"].balance == self.before["account"]["balance"] + 5
        assert plain(store["child"]) == {"of": [1, 2]}
        live = self.contents(store)
        with store.snapshot() as view:
            assert self.contents(view) == live
        check_store(store)
        assert store.stats().readers == 0

    def release(self) -> None:
        """Let go of the writer's lock."""


class Idle(Scene):
    """Nothing is going on."""


class HalfLoaded(Scene):
    """The store was opened anew, and little of it has been read."""

    def __init__(self, store: Any) -> None:
        super().__init__(store)
        path = store.path
        store.close()
        self.store = richstore.open(path, synchronous="off", timeout=10)
        self.held = {key: self.store[key] for key in self.before}
        self.row = self.held["rows"][1000]


class InBlock(Scene):
    """Inside a transaction with changes of every kind."""

    def __init__(self, store: Any) -> None:
        super().__init__(store)
        self.locked = True
        self.stack = contextlib.ExitStack()
        self.transaction = self.stack.enter_context(store.transaction())
        store["list"].append("block")
        store["account"].balance += 100
        store["rows"].insert(3, ["block"])
        store["table"].pop("key 400")
        store["new"] = ([number] for number in range(3000))
        del store["gone"]
        self.expected = ["block", "block again"]
        self.closed_in_child = [
            self.transaction.abort,
            self.transaction.savepoint,
            lambda: self.transaction.commit() if not self.transaction.ended else refuse(),
        ]

    def release(self) -> None:
        """Go on with the block, and commit it."""
        self.store["list"].append("block again")
        self.before["account"]["balance"] += 100
        self.stack.close()
        assert len(self.store["new"]) == 3000
        assert "gone" not in self.store


def refuse() -> None:
    """Stand in for what a transaction that has ended refuses to do."""
    raise richstore.ClosedError("ended")


class InSavepoint(InBlock):
    """Inside a block inside a block, which is then rolled back alone."""

    def __init__(self, store: Any) -> None:
        super().__init__(store)
        self.inner = store.transaction()
        self.inner.__enter__()
        store["list"].append("inner")
        store["rows"].clear()
        self.held["account"].balance = -1

    def release(self) -> None:
        """Roll the inner block back, and commit the outer one."""
        error = LookupError()
        self.inner.__exit__(LookupError, error, None)
        super().release()
        assert len(self.store["rows"]) == 2001


class RolledBack(InBlock):
    """Inside a block that is then rolled back."""

    def __init__(self, store: Any) -> None:
        super().__init__(store)
        self.expected = []

    def release(self) -> None:
        """Roll it back."""
        self.transaction.abort()
        self.stack.close()
        assert self.contents(self.store) == self.before


class WithSnapshot(Scene):
    """A snapshot is open, and iterators have come halfway."""

    def __init__(self, store: Any) -> None:
        super().__init__(store)
        self.view = store.snapshot()
        self.rows = iter(store["rows"])
        self.items = iter(store.items())
        self.frozen_rows = iter(self.view["rows"])
        for iterator in (self.rows, self.items, self.frozen_rows):
            next(iterator)
        self.closed_in_child = [lambda: self.view["table"], lambda: len(self.view)]

    def play(self) -> None:
        """See afterwards that the snapshot and the iterators show what they began with."""
        fork = Fork(self.child)
        self.looked.wait()
        self.gate.open()
        fork.wait()
        for number in range(100):
            self.store["table"][f"key {number}"] = ["parent"] * 20
            self.store["rows"][number * 10].append("parent")
        assert self.contents(self.view) == self.before
        assert [row[0] for row in self.rows] == list(range(1, 2000))
        assert [list(row) for row in self.frozen_rows] == [[n] for n in range(1, 2000)]
        assert [key for key, _ in self.items] == ["gone", "list", "rows", "table"]
        self.view.close()
        check_store(self.store)
        assert self.store.stats().readers == 0


class OtherThread(Scene):
    """Another thread is inside a block, and a third one waits for it."""

    def __init__(self, store: Any) -> None:
        super().__init__(store)
        self.locked = True
        self.begun, self.go_on = threading.Event(), threading.Event()
        self.threads = [
            threading.Thread(target=self.write),
            threading.Thread(target=lambda: store["list"].append("waiter")),
        ]
        self.threads[0].start()
        assert self.begun.wait(10)
        self.threads[1].start()
        time.sleep(0.05)
        self.expected = ["thread", "waiter"]

    def write(self) -> None:
        """Hold a block open."""
        with self.store.transaction():
            self.store["list"].append("thread")
            self.store["account"].balance += 1
            self.store["rows"].pop()
            self.begun.set()
            assert self.go_on.wait(20)

    def release(self) -> None:
        """Let both threads come to their end."""
        self.go_on.set()
        for thread in self.threads:
            thread.join()
        self.before["account"]["balance"] += 1


SCENES = [Idle, HalfLoaded, InBlock, InSavepoint, RolledBack, WithSnapshot, OtherThread]


@pytest.mark.parametrize("scene", SCENES)
def test_fork(scene: type[Scene], file_box: Any) -> None:
    """The child reads what is committed and writes after the parent, which goes on undisturbed."""
    made = scene(file_box.store)
    try:
        made.play()
    finally:
        made.store.close()


@pytest.mark.parametrize("scene", SCENES)
def test_fork_in_a_thread(scene: type[Scene], file_box: Any, run_thread: Any) -> None:
    """The same where the thread that forks is neither the main one nor the one that opened it."""

    def play() -> None:
        made = scene(file_box.store)
        try:
            made.play()
        finally:
            made.store.close()

    run_thread(play, 60)


def test_a_child_that_is_in_the_block_is_seen(
    file_box: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scenes fail for a library that leaves the child in the transaction of its parent."""
    monkeypatch.setattr(Tracker, "forked", lambda self: None)
    made = InBlock(file_box.store)
    fork = Fork(made.child)
    made.looked.wait()
    made.release()
    made.gate.open()
    with pytest.raises(AssertionError):
        fork.wait()
    made.store.close()


@pytest.mark.timeout(600)
def test_forks_while_a_thread_commits(file_box: Any, request: pytest.FixtureRequest) -> None:
    """Forking at any moment of the commits of another thread harms neither side."""
    store = file_box.store
    store.update(count=[0], rows=[], table={})
    held = store["count"]
    stop = threading.Event()
    written: list[int] = []

    def write() -> None:
        number = 0
        # with pauses: each child looks at all that there is so far
        while not stop.wait(0.002):
            with store.transaction():
                number += 1
                store["rows"].append([number])
                store["table"][str(number)] = "x" * (number % 300)
                store["last"] = number
            written.append(number)

    def child() -> None:
        with store.transaction(timeout=20):
            held[0] += 1
        with store.snapshot() as view:
            rows = plain(view["rows"])
            assert rows == [[number] for number in range(1, len(rows) + 1)]
            assert view.get("last", 0) == len(rows) == len(view["table"])
        if held[0] % 5 == 0:
            check_store(store)

    thread = threading.Thread(target=write)
    thread.start()
    forks = 100 if request.config.getoption("--long") else 12
    try:
        for _ in range(forks):
            Fork(child).wait()
    finally:
        stop.set()
        thread.join()
    store.refresh()
    assert held == [forks]
    assert plain(store["rows"]) == [[number] for number in written]


def test_forks_while_the_map_grows(path: str) -> None:
    """Forking while another thread makes the map grow gives children that read and write."""
    with richstore.open(path, synchronous="off", map_size=1 << 17, timeout=20) as store:
        store["count"] = [0]
        held = store["count"]
        failures: list[BaseException] = []

        def write() -> None:
            try:
                for number in range(60):
                    store[f"big {number}"] = bytes(50_000 + number * 1000)
            except BaseException as error:
                failures.append(error)

        def child() -> None:
            with store.transaction():
                held[0] += 1
                store["from child", held[0]] = bytes(100_000)
            check_store(store)

        thread = threading.Thread(target=write)
        thread.start()
        forks = 0
        while thread.is_alive() or forks < 3:
            Fork(child).wait()
            forks += 1
        thread.join()
        assert failures == []
        store.refresh()
        assert held == [forks]
        assert [len(store[f"big {n}"]) for n in range(60)] == [50_000 + n * 1000 for n in range(60)]
        assert all(len(store["from child", n]) == 100_000 for n in range(1, forks + 1))
        check_store(store)


ENDINGS = """
import os, signal, sys, threading, time, warnings
import richstore
warnings.simplefilter("ignore", DeprecationWarning)
store = richstore.open(sys.argv[1], synchronous="off", timeout=10)
store.update(list=["first"], rows=[[n] for n in range(1000)])
view = store.snapshot()
walk = iter(store["rows"])
next(walk)
def end(how):
    if how == "sys.exit":
        sys.exit(5)
    if how == "exception":
        raise LookupError("the child")
    if how == "SIGKILL":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "_exit":
        os._exit(5)
with store.transaction():
    store["list"].append("parent")
    store["rows"].insert(0, ["parent"])
    pid = os.fork()
    if pid == 0:
        # leaves the block by force or by itself; nothing of the parent's is to be committed
        end(sys.argv[2])
if pid == 0:
    sys.exit(0)
code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
assert list(store["list"]) == ["first", "parent"]
assert len(list(walk)) == 999 and len(view["rows"]) == 1000
view.close()
assert store.verify().problems == []
store.close()
with richstore.open(sys.argv[1], timeout=1) as store:
    store["list"].append("again")
    assert list(store["list"]) == ["first", "parent", "again"]
print(code)
"""


@pytest.mark.parametrize(
    ("how", "code"),
    [("return", 0), ("sys.exit", 5), ("exception", 1), ("SIGKILL", -9), ("_exit", 5)],
)
def test_endings_of_a_child(path: str, how: str, code: int) -> None:
    """However the child of a fork inside a block ends, the parent commits, and reads on."""
    done = run_python(ENDINGS, path, how)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1:] == [str(code)], done.stderr


POOL = """
import concurrent.futures, multiprocessing, sys, warnings
import richstore
warnings.simplefilter("ignore", DeprecationWarning)
store = None
def work(number):
    global store
    if store is None:
        store = richstore.open(sys.argv[1], synchronous="off", timeout=20)
    store["list"].append(number)
    with store.transaction():
        store["count"] = store["count"] + 1
        store["rows"][number].append("worker")
    return len(store["list"]) > 0
if __name__ == "__main__":
    store = richstore.open(sys.argv[1], synchronous="off", timeout=20)
    store.update(list=[], count=0, rows=[[n] for n in range(1000)])
    held = store["rows"]
    view = store.snapshot()
    context = multiprocessing.get_context(sys.argv[2])
    if sys.argv[3] == "futures":
        with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as pool:
            assert all(pool.map(work, range(40)))
    else:
        with context.Pool(2) as pool:
            assert all(pool.map(work, range(40)))
            pool.close()
            pool.join()
    store.refresh()
    assert sorted(store["list"]) == list(range(40)), store["list"]
    assert store["count"] == 40
    assert [row[1:] for row in held[:41]] == [["worker"]] * 40 + [[]]
    assert view["list"] == [] and all(len(row) == 1 for row in view["rows"])
    view.close()
    held[0].append("parent")
    assert store.verify().problems == []
    assert store.stats().readers == 0
    store.close()
    print("well")
"""


@pytest.mark.parametrize(
    ("method", "pool"),
    [("fork", "futures"), ("fork", "pool"), ("forkserver", "futures"), ("spawn", "pool")],
)
def test_pools_of_processes(path: str, tmp_path: Path, method: str, pool: str) -> None:
    """Workers of the pools of the standard library write to one store beside their parent."""
    script = tmp_path / "script.py"
    script.write_text(POOL)
    done = subprocess.run(
        [sys.executable, str(script), path, method, pool],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=child_environment(),
    )
    assert (done.returncode, done.stdout.strip()) == (0, "well"), done.stderr
