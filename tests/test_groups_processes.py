"""Groups between threads and processes: nothing half, nothing lost, whatever is cleared then."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from conftest import check_store, child_environment

import richstore

pytestmark = pytest.mark.timeout(120)

# Clears or drops a group and fills it again, in one transaction, and notes what was in it; until
# standard input is closed, and `least` times.
REFILL = """
import sys, threading
import richstore

def refill(store, least, is_over):
    group = store.group("g").group("h")
    n = 0
    while n < least or not is_over():
        n += 1
        with store.transaction():
            store["seen"].extend(key for key in group["k"] if isinstance(key, int))
            if n % 3:
                group.clear()
            else:
                store.group("g").drop()
            group["j"] = n
            group["k"] = {"n": n, "rows": list(range(2000)) if n % 2 else []}

if __name__ == "__main__":
    over = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
    with richstore.open(sys.argv[1], synchronous="off") as store:
        refill(store, int(sys.argv[2]), over.is_set)
"""


def use(store: Any, rounds: int) -> set[int]:
    """Read and change a group that somebody refills; return the changes that were not refused."""
    group = store.group("g").group("h")
    made = set()
    held = group["k"]
    for number in range(rounds):
        assert group["k"]["n"] > 0
        assert "j" in group
        items = dict(group.items())
        assert items.keys() == {"j", "k"}
        assert items["k"]["n"] == items["j"]
        assert len(group) == 2
        with store.snapshot() as view:
            old = view.group("g").group("h")
            assert (len(old), old["k"]["n"]) == (2, old["j"])
            assert len(old["k"]["rows"]) == 2000 * (old["j"] % 2)
        for value in (held, group["k"]):
            try:
                value[number] = "touched"
            except richstore.DetachedError:
                assert not richstore.is_tracked(value)
            else:
                made.add(number)
        with store.transaction():
            now = group["k"]
            assert richstore.is_tracked(held) == (now is held)
            now[rounds + number] = "touched in a block"
            made.add(rounds + number)
            assert group["k"] is now
        held = now
    return made


def check_changes(store: Any, made: set[int]) -> None:
    """Compare changes that were not refused with what the one who refills has found."""
    left = [key for key in store.group("g").group("h")["k"] if isinstance(key, int)]
    assert {*store["seen"], *left} == made
    check_store(store)


def fill(store: Any) -> None:
    """Make what `refill` begins with."""
    store["seen"] = []
    store.group("g").group("h").update(j=1, k={"n": 1, "rows": list(range(2000))})


def test_a_process_that_clears_and_fills(path: str, request: pytest.FixtureRequest) -> None:
    """Beside a process that clears a group and fills it again, it is always whole."""
    rounds = 3000 if request.config.getoption("--long") else 60
    with richstore.open(path, synchronous="off") as store:
        fill(store)
        process = subprocess.Popen(
            [sys.executable, "-c", REFILL, path, "30"],
            stdin=subprocess.PIPE,
            env=child_environment(),
        )
        try:
            group = store.group("g").group("h")
            while group["j"] == 1:
                time.sleep(0.001)
            made = use(store, rounds)
        finally:
            assert process.stdin is not None
            process.stdin.close()
            status = process.wait(60)
        assert status == 0
        assert group["j"] >= 30
        check_changes(store, made)


def test_a_thread_that_clears_and_fills(path: str, request: pytest.FixtureRequest) -> None:
    """Beside a thread that clears a group and fills it again, it is always whole."""
    rounds = 3000 if request.config.getoption("--long") else 30
    module: dict[str, Any] = {"__name__": "refill"}
    exec(REFILL, module)
    over = threading.Event()
    with richstore.open(path, synchronous="off") as store:
        fill(store)
        with ThreadPoolExecutor(1) as pool:
            refilling = pool.submit(module["refill"], store, 30, over.is_set)
            try:
                made = use(store, rounds)
            finally:
                over.set()
            refilling.result()
        check_changes(store, made)


# --- killed -----------------------------------------------------------------------------------

# Fills a group and clears it, with a line on standard output before each clear.
KILLED = """
import os, sys
import richstore
store = richstore.open(sys.argv[1], synchronous="off")
group = store.group("g")
n = 0
while True:
    n += 1
    with store.transaction():
        group.update((at, [n, at]) for at in range(500))
        group["rows"] = list(range(3000))
        store["n"] = n
    os.write(1, b".")
    with store.transaction():
        (group.drop if n % 3 == 0 else group.clear)()
        store["n"] = -n
"""


def test_killed_in_a_clear(path: str, request: pytest.FixtureRequest) -> None:
    """After a process was killed while it cleared a group, all of the values are there, or none."""
    dice = random.Random(87)
    for _ in range(100 if request.config.getoption("--long") else 3):
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, path], stdout=subprocess.PIPE, env=child_environment()
        )
        assert process.stdout is not None
        os.read(process.stdout.fileno(), 1)
        time.sleep(dice.random() * 0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        with richstore.open(path, synchronous="off") as store:
            check_store(store)
            group, n = store.group("g"), store["n"]
            assert len(group) == len(list(group)) == (501 if n > 0 else 0)
            assert all(value == [n, at] for at, value in group.items(stop=500) if n > 0)
            assert store.groups() == ([] if n < 0 and n % 3 == 0 else ["g"])
            if dice.random() < 0.5:
                store.compact()
                assert store.verify().waiting == 0


# --- forks ------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.parametrize("scene", ["idle", "cleared in a block"])
def test_a_fork_with_a_group_open(file_box: Any, scene: str) -> None:
    """The child of a fork uses the groups that its parent has open, and numbers stay apart."""
    store = file_box.store
    group = store.group("g")
    group.update(k=[1], j=[2])
    held = group["k"]
    block = store.transaction()
    if scene != "idle":
        block.__enter__()
        group.clear()
    ready, told = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(told)
            # the parent has left its block
            os.read(ready, 1)
            group["theirs"] = {"n": 1}
            store.group("new").group("in")["k"] = [1]
            if scene == "idle":
                held.append("child")
            status = 0
        finally:
            os._exit(status)
    os.close(ready)
    if scene != "idle":
        group["ours"] = [1]
        store.group("mine")["k"] = 1
        block.__exit__(None, None, None)
    os.write(told, b".")
    os.close(told)
    assert os.waitpid(child, 0)[1] == 0
    if scene == "idle":
        assert dict(group) == {"j": [2], "k": [1, "child"], "theirs": {"n": 1}}
        assert group["k"] is held
    else:
        assert dict(group) == {"ours": [1], "theirs": {"n": 1}}
        assert not richstore.is_tracked(held)
    group.clear()
    store.group("later")["k"] = 1
    assert "new" in store.groups()
    check_store(store)


# --- commits that are shared --------------------------------------------------------------------


def test_eight_threads_in_groups(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Threads that write to one group and to their own, each change durable, lose nothing."""
    rounds = 300 if request.config.getoption("--long") else 20
    with richstore.open(tmp_path / "store", synchronous="full") as store:
        shared = store.group("shared")
        shared["list"] = []

        def work(name: int) -> None:
            own = store.group("own").group(f"group {name}")
            for n in range(rounds):
                shared[name, n] = [n]
                own[n] = {"n": n}
                own[n]["again"] = n
                shared["list"].append((name, n))
                if n % 5 == 4:
                    shared.pop((name, n - 1))
                    del own[n]
                if n % 10 == 9 and name == 0:
                    store.group("cleared").update({at: at for at in range(5)})
                    store.group("cleared").clear()

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(work, range(8)))
        left = {(name, n) for name in range(8) for n in range(rounds) if n % 5 != 3}
        assert set(shared) - {"list"} == left
        assert len(shared) == len(left) + 1
        for name in range(8):
            assert [n for one, n in shared["list"] if one == name] == list(range(rounds))
            own = store.group("own").group(f"group {name}")
            assert dict(own) == {n: {"n": n, "again": n} for n in range(rounds) if n % 5 != 4}
        assert store.group("own").groups() == [f"group {name}" for name in range(8)]
        assert len(store.group("cleared")) == 0
        check_store(store)
