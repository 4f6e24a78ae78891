"""Writers that are killed, stopped or left in the middle: the others wait as long as they said."""

from __future__ import annotations

import select
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import run_python
from test_processes import Child

import richstore

pytestmark = pytest.mark.timeout(60)

# What a holder of the lock has done when it is killed or stopped.
HOLD = (
    "block = store.transaction(); block.__enter__(); store['list'].append('holder'); "
    "store['new'] = [1]; store['built'] = ([n] for n in range(3000)); del store['gone']"
)


class Children:
    """Processes on one file; those that are left at the end are killed."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.all: list[Child] = []

    def __call__(self, timeout: float = 60) -> Child:
        child = Child(self.path, timeout)
        self.all.append(child)
        return child

    def end(self) -> None:
        for child in self.all:
            child.process.kill()
            child.process.wait()
            for pipe in (child.process.stdin, child.process.stdout):
                assert pipe is not None
                pipe.close()


@pytest.fixture
def children(file_box: Any) -> Iterator[Children]:
    """What starts processes on the file of the store."""
    made = Children(file_box.target)
    yield made
    made.end()


@pytest.fixture
def store(file_box: Any) -> Any:
    """An open store on a file, with something in it."""
    file_box.store.update(list=[], gone=[1])
    return file_box.store


def kill(child: Child) -> None:
    """Kill a process."""
    child.process.send_signal(signal.SIGKILL)
    child.process.wait()


def check_nothing_of_the_holder(store: Any) -> None:
    """See that the transaction of the holder has left no trace."""
    store.refresh()
    assert "holder" not in store["list"]
    assert "new" not in store
    assert "built" not in store
    assert store["gone"] == [1]
    assert store.verify().problems == []


def test_all_go_on_when_the_holder_is_killed(store: Any, children: Children) -> None:
    """When the holder of the lock is killed, waiting processes and threads write, in no time."""
    holder = children()
    waiting = [children() for _ in range(2)]
    holder(HOLD)
    for number, child in enumerate(waiting):
        child.send(f"store['list'].append({number})")
    threads = [
        threading.Thread(target=store["list"].append, args=(number,)) for number in (10, 11, 12)
    ]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    assert all(thread.is_alive() for thread in threads)
    began = time.monotonic()
    kill(holder)
    for child in waiting:
        child.answer()
    for thread in threads:
        thread.join()
    assert time.monotonic() - began < 30
    store.refresh()
    assert sorted(store["list"]) == [0, 1, 10, 11, 12]
    check_nothing_of_the_holder(store)


def test_holders_killed_one_after_the_other(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Each of many processes that wait in a row gets the lock of the one that is killed before."""
    path = str(tmp_path / "store")
    with richstore.open(path) as store:
        store.update(list=[], gone=[1])
        children = Children(path)
        count = 30 if request.config.getoption("--long") else 3
        try:
            waiting = [children() for _ in range(count)]
            for child in waiting:
                child.send(HOLD)
            left = list(waiting)
            while left:
                holder = first_to_answer(left)
                left.remove(holder)
                kill(holder)
            began = time.monotonic()
            store["list"].append("next")
            assert time.monotonic() - began < 30
            assert store["list"] == ["next"]
            check_nothing_of_the_holder(store)
        finally:
            children.end()


def first_to_answer(children: list[Child]) -> Child:
    """Return the process that has the lock, and see that it has it alone."""
    pipes = {child.process.stdout: child for child in children}
    ready, _, _ = select.select(list(pipes), [], [], 40)
    assert len(ready) == 1, "one process holds the lock"
    child = pipes[ready[0]]
    child.answer()
    return child


def test_a_stopped_holder_keeps_its_lock(store: Any, children: Children) -> None:
    """While the holder is stopped others get LockTimeoutError in time; it goes on and commits."""
    holder, other = children(), children(0.3)
    holder(HOLD)
    holder.process.send_signal(signal.SIGSTOP)
    for _ in range(2):
        began = time.monotonic()
        with pytest.raises(RuntimeError, match=r"!LockTimeoutError.*0\.3 s"):
            other("store['list'].append(1)")
        assert 0.25 < time.monotonic() - began < 30
    began = time.monotonic()
    with pytest.raises(richstore.LockTimeoutError), store.transaction(timeout=0.2):
        pass
    assert 0.15 < time.monotonic() - began < 30
    assert store["list"] == [], "reading does not wait"
    with store.snapshot() as view:
        assert view["gone"] == [1]
    holder.process.send_signal(signal.SIGCONT)
    holder("block.__exit__(None, None, None)")
    other("store['list'].append(2)")
    store.refresh()
    assert store["list"] == ["holder", 2]
    assert len(store["built"]) == 3000


def test_a_stopped_waiter_keeps_nobody(store: Any, children: Children) -> None:
    """A process that is stopped while it waits for the lock keeps nobody else from getting it."""
    waiter, other = children(), children()
    with store.transaction():
        store["list"].append(1)
        waiter.send("store['list'].append('waiter')")
        time.sleep(0.2)
        waiter.process.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    other("store['list'].append(2)")
    store["list"].append(3)
    assert time.monotonic() - began < 30
    waiter.process.send_signal(signal.SIGCONT)
    waiter.answer()
    store.refresh()
    assert store["list"] == [1, 2, 3, "waiter"]


def test_a_killed_waiter_keeps_nobody(store: Any, children: Children) -> None:
    """A process that is killed while it waits leaves the queue without a trace."""
    waiter, other = children(), children()
    with store.transaction():
        waiter.send(HOLD)
        other.send("store['list'].append(2)")
        time.sleep(0.2)
        kill(waiter)
    other.answer()
    store["list"].append(3)
    assert store["list"] == [2, 3]
    check_nothing_of_the_holder(store)


@pytest.mark.parametrize(
    ("leave", "code"),
    [
        ("os._exit(7)", 7),
        ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
        ("os.kill(os.getpid(), signal.SIGTERM)", -signal.SIGTERM),
        ("os.abort()", -signal.SIGABRT),
        ("sys.exit(8)", 8),
        ("raise LookupError('left')", 1),
        ("threading.Thread(target=os._exit, args=(9,)).start(); time.sleep(50)", 9),
    ],
    ids=["_exit", "SIGKILL", "SIGTERM", "abort", "exit", "exception", "_exit in a thread"],
)
def test_left_in_the_middle(store: Any, leave: str, code: int) -> None:
    """A process that ends inside a block, in whichever way, leaves neither a lock nor a change."""
    done = run_python(
        "import os, signal, sys, threading, time, richstore\n"
        "store = richstore.open(sys.argv[1], synchronous='off')\n"
        "with store.transaction():\n"
        "    store['list'].append('holder')\n"
        "    store['new'] = [1]\n"
        "    with store.transaction():\n"
        "        del store['gone']\n"
        f"        {leave}\n",
        store.path,
    )
    assert done.returncode == code, done.stderr
    with store.transaction(timeout=5):
        store["list"].append(1)
    assert store["list"] == [1]
    check_nothing_of_the_holder(store)


def test_open_waits_no_longer_than_it_says(store: Any, children: Children) -> None:
    """Opening a store does not wait for a stopped writer; emptying it does, and says so in time."""
    holder = children()
    holder(HOLD)
    holder.process.send_signal(signal.SIGSTOP)
    code = (
        "import sys, time, richstore\n"
        "began = time.monotonic()\n"
        "with richstore.open(sys.argv[1], timeout=0.3) as store: assert store['gone'] == [1]\n"
        "assert time.monotonic() - began < 30\n"
        "try:\n"
        "    richstore.open(sys.argv[1], 'n', timeout=0.3)\n"
        "except richstore.LockTimeoutError:\n"
        "    print(0.25 < time.monotonic() - began < 40)\n"
    )
    done = run_python(code, store.path)
    assert done.stdout.strip() == "True", done.stderr
    holder.process.send_signal(signal.SIGCONT)
    kill(holder)
    check_nothing_of_the_holder(store)


AUDITED = """
import fcntl, subprocess, sys, richstore

interrupts = []

def hook(event, arguments):
    if event == "fcntl.flock" and arguments[1] == fcntl.LOCK_UN and interrupts:
        interrupts.clear()
        raise KeyboardInterrupt

sys.addaudithook(hook)
OTHER = '''
import sys, richstore
with richstore.open(sys.argv[1], synchronous="off", timeout=2) as store:
    store["other"].append(1)
'''

def block(fails):
    with store.transaction():
        store["list"].append("block")
        if fails:
            raise KeyError

with richstore.open(sys.argv[1], synchronous="off") as store:
    store.update(list=[], other=[])
    works = [lambda: store["list"].append(1), lambda: block(False), lambda: block(True)]
    for at, work in enumerate(works, 1):
        interrupts.append(1)
        try:
            work()
        except KeyboardInterrupt:
            pass
        assert not interrupts
        subprocess.run([sys.executable, "-c", OTHER, sys.argv[1]], check=True)
        assert len(store["other"]) == at
    assert store["list"] == [1, "block"]
    assert store.verify().ok
"""


def test_interrupted_in_an_audit_hook(path: str) -> None:
    """Ctrl-C in an audit hook, which comes before the lock is freed, does not keep it taken."""
    done = run_python(AUDITED, path)
    assert done.returncode == 0, done.stderr
