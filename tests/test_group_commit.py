"""Threads that change something at the same time share a commit, and nothing else."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import Box, check_store, child_environment
from sample_classes import Account

import richstore
from richstore import group_commit
from richstore.engines.lmdb.transactions import LmdbWriteTransaction

pytestmark = pytest.mark.timeout(120)
plain = richstore.plain


@pytest.fixture(name="file_box", params=["full", "normal"])
def _file_box(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Box]:
    """A store whose commits wait for the disk."""
    made = Box(str(tmp_path / "test.db"), synchronous=request.param)
    try:
        yield made
    finally:
        made.store.close()


class Outcomes:
    """What the threads of a group got: each either a result or an error, by name."""

    def __init__(self) -> None:
        self.results: dict[str, Any] = {}
        self.errors: dict[str, BaseException] = {}

    def run(self, name: str, work: Callable[[], Any]) -> None:
        """Run something in this thread."""
        try:
            self.results[name] = work()
        except BaseException as error:
            self.errors[name] = error


@contextmanager
def all_at_once(
    store: Any, works: dict[str, Callable[[], Any]], unseen: Container[str] = ()
) -> Iterator[Outcomes]:
    """Let threads begin their changes while a block is open, so that they wait, then let them go.

    What is in the `with` block runs when all of them wait; nobody can see that of those named in
    `unseen`, which sleep at the lock itself.
    """
    outcomes = Outcomes()
    threads = [
        threading.Thread(target=outcomes.run, args=item, name=item[0]) for item in works.items()
    ]
    with store.transaction():
        store["begun"] = True
        for thread in threads:
            queued = len(store._tracker.requests)
            limit = time.monotonic() + (0.1 if thread.name in unseen else 60)
            thread.start()
            # queued, or at an end
            while len(store._tracker.requests) == queued and thread.is_alive():
                if time.monotonic() > limit:
                    break
                time.sleep(0.001)
        yield outcomes
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()


def commits(store: Any) -> int:
    """Return how many commits the engine has made."""
    return int(store._tracker.engine.last_commit())


def test_waiting_changes_share_one_commit(file_box: Any) -> None:
    """Changes of all sorts that wait at the same time are one commit, each with its own result."""
    store = file_box.store
    store["list"] = [7]
    store["dict"] = {"a": {"b": [1]}}
    store["set"] = {1}
    store["account"] = Account("ann")
    store["gone"] = 1
    store["taken"] = [1, 2]
    shared, inner, account = store["list"], store["dict"]["a"]["b"], store["account"]
    table, numbers = store["dict"], store["set"]
    works: dict[str, Callable[[], Any]] = {
        "append": lambda: shared.append({"x": [1, {2: (3, "4")}]}),
        "again": lambda: shared.append(8),
        "pop": lambda: shared.pop(0),
        "inner": lambda: inner.extend([2, 3]),
        "setdefault": lambda: table.setdefault("new", []).append(1),
        "add": lambda: numbers.add(2),
        "attribute": lambda: setattr(account, "balance", 5),
        "value": lambda: store.__setitem__("fresh", {"k": [1]}),
        "delete": lambda: store.__delitem__("gone"),
        "take": lambda: store.pop("taken"),
    }
    with all_at_once(store, works) as outcomes:
        before = commits(store)
    assert outcomes.errors == {}
    assert outcomes.results["pop"] == 7
    assert outcomes.results["take"] == [1, 2]
    # the block itself, the group, and what `setdefault` was followed by
    assert commits(store) - before <= 4
    assert sorted(map(str, plain(store["list"]))) == ["8", "{'x': [1, {2: (3, '4')}]}"]
    assert plain(store["dict"]) == {"a": {"b": [1, 2, 3]}, "new": [1]}
    assert plain(store["set"]) == {1, 2}
    assert store["account"].balance == 5
    assert plain(store["fresh"]) == {"k": [1]}
    assert "gone" not in store and "taken" not in store
    again = file_box.reopen()
    assert plain(again["dict"]) == {"a": {"b": [1, 2, 3]}, "new": [1]}
    assert again["account"].balance == 5
    check_store(again)


def test_a_change_that_fails_fails_alone(file_box: Any) -> None:
    """Errors of some changes are raised in their threads and leave nothing; the others are made."""
    store = file_box.store
    store["list"] = []
    store["dict"] = {"a": 1}
    store["empty"] = []
    values, table, empty = store["list"], store["dict"], store["empty"]
    works: dict[str, Callable[[], Any]] = {
        "one": lambda: values.append(1),
        "pop": lambda: empty.pop(),
        "two": lambda: values.append(2),
        "key": lambda: table.__delitem__("b"),
        "hash": lambda: table.__setitem__([], 1),
        "lock": lambda: values.append(threading.Lock()),
        "nested lock": lambda: values.append({"a": [threading.Lock()]}),
        "missing": lambda: store.__delitem__("nothing"),
        "three": lambda: table.update(c=3),
    }
    with all_at_once(store, works, unseen=("lock", "nested lock")) as outcomes:
        pass
    assert {name: type(error) for name, error in outcomes.errors.items()} == {
        "pop": IndexError,
        "key": KeyError,
        "hash": TypeError,
        "lock": richstore.EncodingError,
        "nested lock": richstore.EncodingError,
        "missing": KeyError,
    }
    for _ in range(2):
        assert sorted(plain(store["list"])) == [1, 2]
        assert plain(store["dict"]) == {"a": 1, "c": 3}
        assert plain(store["empty"]) == []
        check_store(store)
        store = file_box.reopen()


class Guarded:
    """Has a lock that it takes to be stored, as its methods do to change it."""

    seen: set[str] = set()
    locks: dict[str, threading.RLock] = {}

    def __init__(self, name: str) -> None:
        self.name = name
        self.items: list[int] = []

    def __getstate__(self) -> Any:
        self.seen.add(f"{self.name} in {threading.current_thread().name}")
        with self.locks[self.name]:
            return dict(vars(self))

    def add(self, item: int) -> None:
        """Change something while holding the lock."""
        with self.locks[self.name]:
            self.items.append(item)


def test_code_of_users_runs_in_their_own_threads(file_box: Any) -> None:
    """A class's own `__getstate__` runs in the thread that changed it, which may hold its lock."""
    store = file_box.store
    names = [f"worker {at}" for at in range(6)]
    Guarded.locks = {name: threading.RLock() for name in names}
    for name in names:
        store[name] = {"object": Guarded(name), "plain": [[]]}
    values = {name: store[name] for name in names}
    Guarded.seen.clear()

    def work(name: str) -> None:
        value = values[name]
        for at in range(20):
            value["object"].add(at)
            with Guarded.locks[name]:
                # in the record of the object, though it is not what changes
                value["plain"][0].append(at)
                value["object"].name = name

    threads = [threading.Thread(target=work, args=(name,), name=name) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "a deadlock"
    assert Guarded.seen == {f"{name} in {name}" for name in names}
    again = file_box.reopen()
    for name in names:
        assert plain(again[name]["plain"]) == [list(range(20))]
        assert list(again[name]["object"].items) == list(range(20))


def test_code_of_users_in_a_record_that_was_just_loaded(file_box: Any) -> None:
    """A group that meets an object with code of its own is undone, and each change made alone."""
    store = file_box.store
    Guarded.locks = {"MainThread": threading.RLock(), "x": threading.RLock()}
    store["a"] = {"object": Guarded("x"), "plain": []}
    store["b"] = []
    store = file_box.reopen()
    first, second = store["a"]["plain"], store["b"]
    Guarded.seen.clear()
    works: dict[str, Callable[[], Any]] = {
        "b1": lambda: second.append(1),
        "x": lambda: first.append(2),
        "b3": lambda: second.append(3),
    }
    with all_at_once(store, works) as outcomes:
        pass
    assert outcomes.errors == {}
    assert Guarded.seen == {"x in x"}
    assert plain(store["a"]["plain"]) == [2]
    assert sorted(plain(store["b"])) == [1, 3]
    check_store(store)


def test_nothing_is_seen_before_it_is_on_disk(
    file_box: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a group's commit is under way, nobody sees a change of it and no call has returned."""
    store = file_box.store
    store["k"] = {"x": 0, "y": 0}
    value = store["k"]
    committing, go_on = threading.Event(), threading.Event()
    commit = LmdbWriteTransaction.commit

    def slow_commit(self: Any) -> None:
        if threading.current_thread() is not threading.main_thread():
            committing.set()
            assert go_on.wait(60)
        commit(self)

    monkeypatch.setattr(LmdbWriteTransaction, "commit", slow_commit)
    works: dict[str, Callable[[], Any]] = {
        "x": lambda: value.__setitem__("x", 1),
        "y": lambda: value.__setitem__("y", 1),
    }
    seen: list[Any] = []

    def look() -> None:
        assert committing.wait(60)
        seen.append((plain(value), store["k"]["x"], dict(outcomes.results)))
        with store.snapshot() as view:
            seen.append(plain(view["k"]))
        go_on.set()

    with all_at_once(store, works) as outcomes:
        looker = threading.Thread(target=look)
        looker.start()
    looker.join(60)
    assert seen == [({"x": 0, "y": 0}, 0, {}), {"x": 0, "y": 0}]
    assert plain(value) == {"x": 1, "y": 1}


def failing_commits(monkeypatch: pytest.MonkeyPatch, when: Callable[[Any], bool]) -> list[int]:
    """Let commits of the engine fail as a bad disk lets them; return a list that counts them."""
    failed: list[int] = []
    commit = LmdbWriteTransaction.commit

    def failing(self: Any) -> None:
        if when(self):
            failed.append(1)
            self.abort()
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        commit(self)

    monkeypatch.setattr(LmdbWriteTransaction, "commit", failing)
    return failed


WORKERS = [f"worker {at}" for at in range(5)]


def test_a_group_that_cannot_be_committed(file_box: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """When a group's commit fails, each change is made again, and has the error of its own."""
    store = file_box.store
    store["list"] = []
    store["count"] = {"n": 0}
    values = store["list"]
    with monkeypatch.context() as patch:
        first = []

        def once(transaction: Any) -> bool:
            is_group = store._tracker.transaction.shared and not first
            first.extend([1] * is_group)
            return is_group

        failed = failing_commits(patch, once)
        with all_at_once(store, {name: lambda: values.append(1) for name in WORKERS}) as outcomes:
            pass
    assert failed == [1]
    assert outcomes.errors == {}
    assert plain(store["list"]) == [1] * len(WORKERS)
    with monkeypatch.context() as patch:
        thread = threading.main_thread()
        failed = failing_commits(patch, lambda _: threading.current_thread() is not thread)
        with all_at_once(store, {name: lambda: values.append(2) for name in WORKERS}) as outcomes:
            pass
    assert len(failed) > len(WORKERS)
    assert [type(error) for error in outcomes.errors.values()] == [OSError] * len(WORKERS)
    for _ in range(2):
        assert plain(store["list"]) == [1] * len(WORKERS)
        check_store(store)
        store["list"].append(1)
        store["list"].pop()
        store = file_box.reopen()


def test_a_leader_that_says_too_much_is_found_out(
    file_box: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A planted fault: told that a failed group is on disk, the changes would be missed."""
    store = file_box.store
    store["list"] = []
    values = store["list"]
    end = group_commit.Request.end
    monkeypatch.setattr(group_commit.Request, "end", lambda self, committed: end(self, True))
    failing_commits(monkeypatch, lambda _: bool(store._tracker.transaction.shared))
    with all_at_once(store, {name: lambda: values.append(1) for name in WORKERS}) as outcomes:
        pass
    assert outcomes.errors == {}
    assert len(plain(store["list"])) < len(WORKERS)


def test_a_waiting_change_gives_up_in_time(tmp_path: Path) -> None:
    """A change that waits longer than the timeout raises LockTimeoutError and is never made."""
    with richstore.open(tmp_path / "store", timeout=0.2) as store:
        store["list"] = []
        values = store["list"]
        with all_at_once(store, {name: lambda: values.append(1) for name in WORKERS}) as outcomes:
            limit = time.monotonic() + 60
            while len(outcomes.errors) < len(WORKERS) and time.monotonic() < limit:
                time.sleep(0.01)
            assert {type(error) for error in outcomes.errors.values()} == {
                richstore.LockTimeoutError
            }
            assert len(outcomes.errors) == len(WORKERS)
        assert plain(store["list"]) == []
        store["list"].append(2)
        assert plain(store["list"]) == [2]


def test_a_waiting_change_that_is_interrupted(tmp_path: Path) -> None:
    """Ctrl-C ends a change that waits in the main thread; it is not made, and all goes on."""
    code = """
import sys, threading, time, richstore
store = richstore.open(sys.argv[1])
store["list"] = []
values = store["list"]
inside, leave = threading.Event(), threading.Event()
def block():
    with store.transaction():
        values.append("block")
        inside.set()
        leave.wait()
thread = threading.Thread(target=block)
thread.start()
inside.wait()
try:
    print("waiting", flush=True)
    values.append("interrupted")
except KeyboardInterrupt:
    print("interrupted", flush=True)
leave.set()
thread.join()
values.append("after")
print(richstore.plain(store["list"]), len(store._tracker.requests), store.verify().ok)
"""
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "store")],
        stdout=subprocess.PIPE,
        text=True,
        env=child_environment(),
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler) and None,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "waiting\n"
    time.sleep(0.3)
    child.send_signal(signal.SIGINT)
    assert child.stdout.readline() == "interrupted\n"
    assert child.communicate(timeout=30)[0] == "['block', 'after'] 0 True\n"


def test_a_fork_while_changes_wait(file_box: Any) -> None:
    """The child of a fork has no waiting changes, and writes; the parent's are made."""
    store = file_box.store
    store["list"] = []
    store["child"] = []
    values = store["list"]
    forking, forked = threading.Event(), threading.Event()

    def hold() -> None:
        with all_at_once(store, {name: lambda: values.append(1) for name in WORKERS}):
            forking.set()
            forked.wait(60)

    holder = threading.Thread(target=hold)
    holder.start()
    assert forking.wait(60)
    assert store._tracker.requests
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            store["child"].append(1)
            code = len(store["child"]) - 1
        finally:
            os._exit(code)
    forked.set()
    holder.join(60)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert plain(store["list"]) == [1] * len(WORKERS)
    assert plain(store["child"]) == [1]


def test_many_threads_and_processes(tmp_path: Path) -> None:
    """Threads of several processes lose no change, see their own at once, and share commits."""
    path = str(tmp_path / "store")
    code = """
import sys, threading, richstore
store = richstore.open(sys.argv[1])
def work(at):
    name = f"{sys.argv[2]} {at}"
    for n in range(40):
        store["all"].append(name)
        store["own"][name] = n
        with store.snapshot() as view:
            assert view["own"][name] == n
        if n % 10 == 0:
            with store.transaction():
                store["all"].append(name)
                store["sum"]["n"] += 1
threads = [threading.Thread(target=work, args=(at,)) for at in range(6)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(len(richstore.plain(store["own"])))
"""
    with richstore.open(path) as store:
        store["all"], store["own"], store["sum"] = [], {}, {"n": 0}
        before = commits(store)
        children = [
            subprocess.Popen(
                [sys.executable, "-c", code, path, str(at)],
                stdout=subprocess.PIPE,
                env=child_environment(),
            )
            for at in range(2)
        ]
        for child in children:
            assert child.communicate(timeout=100)[0] and child.returncode == 0
        assert plain(store["sum"]) == {"n": 2 * 6 * 4}
        assert len(store["all"]) == 2 * 6 * 44
        assert set(plain(store["own"]).values()) == {39}
        assert commits(store) - before < 2 * 6 * 84
        check_store(store)


def changes(store: Any, count: int, seconds: float) -> int:
    """Return how many changes so many threads make in a while, each on its own list."""
    lists = []
    for at in range(count):
        store[f"list {at}"] = []
        lists.append(store[f"list {at}"])
    made = [0] * count
    end = time.perf_counter() + seconds

    def work(at: int) -> None:
        values = lists[at]
        while time.perf_counter() < end:
            values.append(made[at])
            made[at] += 1
            if made[at] % 100 == 0:
                values.clear()

    threads = [threading.Thread(target=work, args=(at,)) for at in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(made)


def test_eight_threads_commit_in_groups(file_box: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a sync takes five milliseconds, eight threads make more than four changes a commit."""
    commit = LmdbWriteTransaction.commit

    def slow_commit(self: Any) -> None:
        time.sleep(0.005)
        commit(self)

    monkeypatch.setattr(LmdbWriteTransaction, "commit", slow_commit)
    store = file_box.store
    most = 0.0
    # again where other processes keep the threads from coming in time
    for _ in range(20):
        before = commits(store)
        most = max(most, changes(store, 8, 0.5) / (commits(store) - before))
        if most > 4:
            break
    assert most > 4


def test_one_thread_commits_alone(file_box: Any) -> None:
    """A single thread never waits for others: it has a commit for each of its changes."""
    store = file_box.store
    changes(store, 4, 0.2)
    store["single"] = []
    values = store["single"]
    values.append(0)
    assert store._tracker.expected == 1
    before = commits(store)
    for at in range(100):
        values.append(at)
    assert commits(store) - before == 100
    assert store._tracker.expected == 1
