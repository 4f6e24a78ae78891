"""Real second processes on one file: nothing lost, nothing twice, held proxies refreshed."""

from __future__ import annotations

import ast
import errno
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from conftest import check_store, child_environment, run_python
from sample_classes import Account, Locked, Slotted

import richstore
from richstore.codec import records
from richstore.engines.lmdb.transactions import LmdbWriteTransaction

pytestmark = pytest.mark.timeout(90)

CHILD = """
import sys, traceback
import richstore
from sample_classes import *
store = richstore.open(sys.argv[1], synchronous="off", timeout=float(sys.argv[2]))
print("ready", flush=True)
for line in sys.stdin:
    code = eval(line)
    try:
        try:
            answer = repr(eval(code))
        except SyntaxError:
            exec(code)
            answer = "None"
    except BaseException as error:
        answer = "!" + type(error).__name__ + ": " + str(error).replace(chr(10), " ")
    print(answer, flush=True)
"""


class Child:
    """A second process with the file open as `store`, which runs what it is told to."""

    def __init__(self, path: str, timeout: float = 60) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", CHILD, path, str(timeout)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=child_environment(),
        )
        assert self._line() == "ready"

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def send(self, code: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(repr(code) + "\n")
        self.process.stdin.flush()

    def answer(self) -> Any:
        line = self._line()
        if line.startswith("!"):
            raise RuntimeError(line)
        return ast.literal_eval(line)

    def __call__(self, code: str) -> Any:
        self.send(code)
        return self.answer()

    def end(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.send("store.close()")
        self.process.stdin.close()
        self.process.wait(20)
        self.process.stdout.close()


@pytest.fixture
def store(file_box: Any) -> Any:
    """An open store on a file."""
    return file_box.store


@pytest.fixture
def child(file_box: Any) -> Iterator[Child]:
    """A second process on the same file."""
    made = Child(file_box.target)
    yield made
    made.end()


@pytest.mark.parametrize("count", [2, 4])
def test_appends_lose_nothing(file_box: Any, count: int) -> None:
    """Appends and blocks of several processes at once are all kept."""
    file_box.store["k"] = {"rows": [], "n": 0}
    code = """
rows = store["k"]["rows"]
for number in range(60):
    rows.append((NAME, number))
    with store.transaction():
        store["k"]["n"] += 1
"""
    children = [Child(file_box.target) for _ in range(count)]
    for name, child in enumerate(children):
        child.send(code.replace("NAME", str(name)))
    for number in range(60):
        file_box.store["k"]["rows"].append((-1, number))
    for child in children:
        child.answer()
        child.end()
    stored = file_box.stored("k")
    assert stored["n"] == 60 * count
    assert sorted(stored["rows"]) == [(c, n) for c in range(-1, count) for n in range(60)]
    for name in range(count):
        assert [n for c, n in stored["rows"] if c == name] == list(range(60))


def test_pops_never_give_an_item_twice(file_box: Any) -> None:
    """Items popped by several processes from one list, dict and set are each got once."""
    items = list(range(150))
    file_box.store.update(
        list=items, dict={n: [n] for n in items}, set=set(items), **{f"key{n:03}": n for n in items}
    )
    code = """
got = {"list": [], "dict": [], "set": [], "store": []}
held = store["list"]
while True:
    try:
        got["list"].append(held.pop(0))
        got["dict"].append(store["dict"].popitem()[0])
        got["set"].append(store["set"].pop())
        got["store"].append(store.pop(f"key{got['list'][-1]:03}"))
    except (IndexError, KeyError):
        break
"""
    children = [Child(file_box.target) for _ in range(3)]
    for child in children:
        child.send(code)
    got: dict[str, list[int]] = {"list": [], "dict": [], "set": [], "store": []}
    for child in children:
        child.answer()
        for kind, found in child("got").items():
            got[kind] += found
        child.end()
    assert {kind: sorted(found) for kind, found in got.items()} == dict.fromkeys(got, items)


def test_held_proxies_are_refreshed(store: Any, child: Child) -> None:
    """Commits of another process are seen by held proxies after the next refresh point."""
    store["k"] = {"a": [1], "ann": Account("ann"), "s": {1}}
    held, ann, numbers = store["k"]["a"], store["k"]["ann"], store["k"]["s"]
    child("store['k']['a'].append(2); store['k']['ann'].deposit(5); store['k']['s'].add(2)")
    store.refresh()
    assert (held, ann.balance, ann.history, numbers) == ([1, 2], 5, [{"amount": 5}], {1, 2})
    assert store["k"]["a"] is held
    assert store["k"]["ann"] is ann
    child("store['k']['a'].append(3)")
    assert "k" in store
    assert held == [1, 2, 3]
    child("store['k']['a'].append(4)")
    held.append(5)
    assert held == [1, 2, 3, 4, 5]
    child("store['k']['a'].append(6)")
    with store.transaction():
        assert held[-1] == 6
    child("store['k']['a'].append(7)")
    with store.snapshot() as view:
        assert view["k"]["a"][-1] == 7
    assert child("list(store['k']['a'])") == [1, 2, 3, 4, 5, 6, 7]


def test_held_values_are_not_behind_a_snapshot(store: Any, child: Child) -> None:
    """What is held shows, from the opening of a snapshot on, at least what the snapshot shows."""
    store.update(k=[1], account=Account("ann"))
    held, account = store["k"], store["account"]
    child("store['k'].append(2); setattr(store['account'], 'balance', 5)")
    with store.snapshot() as view:
        assert (list(held), account.balance) == ([1, 2], 5)
        assert view["k"] == [1, 2]


@pytest.mark.parametrize(
    ("made", "name"), [(Account("ann"), "name"), (Slotted("ann"), "name"), (Locked(1), "value")]
)
def test_an_instance_that_is_loaded_again_is_not_half_made(
    store: Any, child: Child, monkeypatch: Any, made: Any, name: str
) -> None:
    """While one thread loads what another process has changed, others wait to read or change it."""
    store["k"] = [made]
    held = store["k"][0]
    child(f"setattr(store['k'][0], {name!r}, 'bob')")
    decode, loading, go_on = records.decode, threading.Event(), threading.Event()

    def slowly(*arguments: Any, **named: Any) -> Any:
        loading.set()
        assert go_on.wait(10)
        return decode(*arguments, **named)

    def read() -> None:
        found.append(getattr(held, name))

    def look_inside() -> None:
        found.append(getattr(richstore.plain(held), name))

    def change() -> None:
        setattr(held, name, "eve")

    found: list[Any] = []
    with monkeypatch.context() as patched:
        patched.setattr(records, "decode", slowly)
        threads = [threading.Thread(target=lambda: store["k"])]
        threads[0].start()
        assert loading.wait(10)
        for work in (read, look_inside):
            threads.append(threading.Thread(target=work))
            threads[-1].start()
        time.sleep(0.05)
        assert found == []
        go_on.set()
        for thread in threads:
            thread.join()
        assert found == ["bob", "bob"]
        loading.clear()
        go_on.clear()
        child(f"setattr(store['k'][0], {name!r}, 'carl')")
        threads = [threading.Thread(target=lambda: store["k"])]
        threads[0].start()
        assert loading.wait(10)
        threads.append(threading.Thread(target=change))
        threads[-1].start()
        time.sleep(0.05)
        go_on.set()
        for thread in threads:
            thread.join()
    assert getattr(held, name) == child(f"store['k'][0].{name}") == "eve"


@pytest.mark.parametrize("made", [Account("ann"), Slotted("ann")])
def test_an_instance_that_could_not_be_loaded_again(
    store: Any, child: Child, monkeypatch: Any, made: Any
) -> None:
    """After an error while a record was read, what is held is read again and still persists."""
    store["k"] = [made]
    held = store["k"][0]
    child("setattr(store['k'][0], 'name', 'bob')")

    def fail(*arguments: Any, **named: Any) -> Any:
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(records, "decode", fail)
        for attempt in (lambda: store["k"], lambda: held.name, lambda: setattr(held, "name", 1)):
            with pytest.raises(MemoryError):
                attempt()
    assert held.name == "bob"
    held.name = "eve"
    assert child("store['k'][0].name") == "eve"


def test_held_proxy_follows_its_container(store: Any, child: Child) -> None:
    """A held proxy means the same container after another process moved it."""
    store["k"] = [{"id": 0}, {"id": 1, "tags": []}, Account("ann")]
    row, tags, ann = store["k"][1], store["k"][1]["tags"], store["k"][2]
    child("store['k'].insert(0, {'id': 'new'}); store['k'].insert(0, [])")
    row["seen"] = True
    tags.append("x")
    ann.balance = 7
    expected = [[], {"id": "new"}, {"id": 0}, {"id": 1, "tags": ["x"], "seen": True}]
    assert store["k"][:4] == expected
    assert store["k"][3] is row
    child("store['k'].reverse()")
    tags.append("y")
    assert child("richstore.plain(store['k'][1])") == {"id": 1, "tags": ["x", "y"], "seen": True}
    assert child("store['k'][0].balance") == 7
    child("store['k'].append({'moved': store['k'].pop(1)})")
    child("store['k'].insert(0, store['k'][0])")
    ann.balance = 8
    assert child("[store['k'][0].balance, store['k'][1].balance]") == [8, 8]


def test_deleted_by_another_process(store: Any, child: Child) -> None:
    """A container that another process deleted refuses change and still reads."""
    store.update(k=[[1], {"a": [2]}], gone=Account("bob"))
    first, nested, gone = store["k"][0], store["k"][1]["a"], store["gone"]
    assert (list(first), list(nested), gone.name) == ([1], [2], "bob")
    child("store['k'].clear(); store.pop('gone') and None")
    attempts = [lambda: first.append(1), lambda: nested.append(1), lambda: setattr(gone, "name", 1)]
    for attempt in attempts:
        with pytest.raises(richstore.DetachedError):
            attempt()
    assert (list(first), list(nested), gone.name) == ([1], [2], "bob")
    assert store["k"] == []
    assert "gone" not in store
    assert child("list(store['k'])") == []


def test_overwritten_by_another_process(store: Any, child: Child) -> None:
    """Assigning a key anew in another process detaches what was held of the old value."""
    store["k"] = [[1]]
    top, inner = store["k"], store["k"][0]
    child("store['k'] = [[1], 'new']")
    store.refresh()
    for gone in (top, inner):
        with pytest.raises(richstore.DetachedError):
            gone.append(1)
    store["k"][0].append(2)
    assert child("richstore.plain(store['k'])") == [[1, 2], "new"]


def test_a_block_keeps_its_view(store: Any, child: Child) -> None:
    """While one process is in a block another cannot commit, and reads the state before it."""
    store["k"] = [1]
    with store.transaction():
        store["k"].append(2)
        assert child("list(store['k'])") == [1]
        child.send("store['k'].append(3)")
        time.sleep(0.1)
        assert store["k"] == [1, 2]
    child.answer()
    assert store["k"] == [1, 2, 3]


def test_snapshot_is_frozen_against_other_processes(store: Any, child: Child) -> None:
    """A snapshot shows its state whatever another process commits after it."""
    store.update(k=[1, [2]], x=1)
    with store.snapshot() as view:
        child("store['k'][1].append(3); del store['x']; store['y'] = 2")
        assert dict(view) == {"k": [1, [2]], "x": 1}
        assert dict(store) == {"k": [1, [2, 3]], "y": 2}


def test_lock_timeout_between_processes(file_box: Any) -> None:
    """A writer waits for another process's block for `timeout` seconds, then LockTimeoutError."""
    file_box.store["k"] = [1]
    child = Child(file_box.target, timeout=0.3)
    with file_box.store.transaction():
        file_box.store["k"].append(2)
        began = time.monotonic()
        with pytest.raises(RuntimeError, match=r"!LockTimeoutError.*0\.3"):
            child("store['k'].append(3)")
        assert 0.2 < time.monotonic() - began < 30
    child("store['k'].append(4)")
    child.end()
    assert file_box.store["k"] == [1, 2, 4]


def test_killed_writer_leaves_no_trace(store: Any, file_box: Any) -> None:
    """A process killed inside its block holds no lock afterwards and leaves no half transaction."""
    store["k"] = [1]
    child = Child(file_box.target)
    child("block = store.transaction()")
    child("block.__enter__() and None")
    child("store['k'].append(2); store.update(a=1, b=2)")
    child.process.kill()
    child.process.wait()
    for pipe in (child.process.stdin, child.process.stdout):
        assert pipe is not None
        pipe.close()
    store["k"].append(3)
    assert dict(store) == {"k": [1, 3]}
    assert dict(file_box.reopen()) == {"k": [1, 3]}


def test_map_grown_by_another_process(store: Any, child: Child) -> None:
    """Data beyond the map size of this process is read, and written on, without an error."""
    store["k"] = [1]
    held = store["k"]
    child("store.update((n, b'x' * 2**20) for n in range(64))")
    held.append(2)
    assert sum(len(store[n]) for n in range(64)) == 64 * 2**20
    store.update((n, b"y" * 2**20) for n in range(100, 200))
    assert child("[len(store), store[150][:1], list(store['k'])]") == [165, b"y", [1, 2]]


def test_a_failed_commit_is_not_taken_for_the_next_one_of_another_process(
    store: Any, child: Child, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change whose commit failed is undone although another process took its number at once."""
    store["list"] = [0]
    held = store["list"]
    with monkeypatch.context() as patch:

        def failing(transaction: Any) -> None:
            transaction.abort()
            assert child("store['other'] = 1") is None
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        patch.setattr(LmdbWriteTransaction, "commit", failing)
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            held.append(1)
    assert held == [0]
    assert dict(store) == {"list": [0], "other": 1}
    check_store(store)


@pytest.mark.parametrize("flag", ["r", "w"])
def test_opening_while_another_process_makes_the_file_grow(tmp_path: Any, flag: str) -> None:
    """A store opens with a map that another process outgrows at any moment of the opening."""
    path = str(tmp_path / "growing.db")
    child = Child(path)
    child("until = __import__('time').monotonic() + 1.5")
    child.send("while __import__('time').monotonic() < until: store[len(store)] = bytes(5000)")
    until = time.monotonic() + 1.2
    while time.monotonic() < until:
        with richstore.open(path, flag, map_size=1 << 17, synchronous="off") as store:
            assert store.get(0) in (None, bytes(5000))
            if flag == "w":
                store["k"] = 1
    assert child.answer() is None
    child.end()


MAIN = """
import sys
import richstore
from dataclasses import dataclass, field

@dataclass
class Item:
    name: str
    parts: list = field(default_factory=list)
    def add(self, part):
        self.parts.append(part)
        return len(self.parts)

def make():
    class Inner:
        def __init__(self): self.rows = []
        def add(self, row): self.rows.append(row); return list(self.rows)
    return Inner()

def double(x):
    return helper(x) * 2

def helper(x):
    return x + 1

with richstore.open(sys.argv[1], synchronous="off") as store:
    store["item"] = Item("box")
    store["item"].add("lid")
    store["inner"] = [make()]
    store["inner"][0].add(1)
    store["code"] = {"double": double, "class": Item, "lambda": lambda x: double(x) + 1}
"""


def test_classes_of_main_and_of_functions(store: Any, file_box: Any) -> None:
    """Instances of classes that no import finds are read, used and changed by another process."""
    done = run_python(MAIN, file_box.target)
    assert done.returncode == 0, done.stderr
    item, inner = store["item"], store["inner"][0]
    assert (type(item).__name__, item.name, item.parts) == ("Item", "box", ["lid"])
    assert item.add("base") == 2
    assert inner.add(2) == [1, 2]
    assert store["code"]["double"](4) == 10
    assert store["code"]["lambda"](4) == 11
    assert store["code"]["class"]("new").add("x") == 1
    assert isinstance(item, store["code"]["class"])
    reader = (
        "import richstore, sys\n"
        "with richstore.open(sys.argv[1]) as s:\n"
        "    print(s['item'].parts, s['inner'][0].rows)\n"
    )
    done = run_python(reader, file_box.target)
    assert done.stdout.strip() == "['lid', 'base'] [1, 2]", done.stderr


def test_live_class_of_main_is_used_and_kept(file_box: Any) -> None:
    """A process that has the class in its `__main__` gets that class, its attributes untouched."""
    file_box.store.close()
    assert run_python(MAIN, file_box.target).returncode == 0
    again = MAIN.split("with richstore")[0] + (
        "Item.colour = 'red'\n"
        "with richstore.open(sys.argv[1], synchronous='off') as store:\n"
        "    item = store['item']\n"
        "    print(isinstance(item, Item), Item.colour, store['code']['class'] is Item)\n"
    )
    done = run_python(again, file_box.target)
    assert done.stdout.split() == ["True", "red", "True"], done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_fork(file_box: Any) -> None:
    """A forked child goes on with the store and its held proxies, and does the parent no harm."""
    file_box.store["k"] = {"rows": ["parent"]}
    rows = file_box.store["k"]["rows"]
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            rows.append("child")
            with file_box.store.transaction():
                file_box.store["k"]["block"] = [1]
            with file_box.store.snapshot() as view:
                code = 0 if view["k"]["rows"] == ["parent", "child"] else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    rows.append("parent again")
    assert file_box.store["k"] == {"rows": ["parent", "child", "parent again"], "block": [1]}
    assert file_box.stored("k") == {"rows": ["parent", "child", "parent again"], "block": [1]}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_fork_inside_a_block(file_box: Any) -> None:
    """A child forked inside a block is not in it: it neither commits nor breaks the parent's."""
    file_box.store["k"] = [1]
    with file_box.store.transaction():
        file_box.store["k"].append(2)
        pid = os.fork()
        if pid == 0:
            seen = None
            try:
                seen = list(file_box.store["k"])
            finally:
                os._exit(0 if seen == [1] else 3)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert file_box.stored("k") == [1, 2]
