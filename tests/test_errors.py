"""Every error: its type, what it says, and that nothing was changed by the call that raised it."""

from __future__ import annotations

import errno
import gc
import os
import re
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import run_python
from sample_classes import Account, Bare, Slotted

import richstore

BUILTINS = {
    "KeyTypeError": TypeError,
    "EncodingError": TypeError,
    "ReadOnlyError": TypeError,
    "DetachedError": RuntimeError,
    "ClosedError": ValueError,
    "LockTimeoutError": TimeoutError,
    "ConflictError": RuntimeError,
    "CorruptionError": RuntimeError,
    "FillError": RuntimeError,
    "FormatError": ValueError,
    "ProjectError": RuntimeError,
}


@pytest.mark.parametrize("name", BUILTINS)
def test_hierarchy(name: str) -> None:
    """Each error is a RichStoreError and the built-in that callers expect."""
    error = getattr(richstore, name)
    assert issubclass(error, richstore.RichStoreError)
    assert issubclass(error, BUILTINS[name])


def start() -> dict[str, Any]:
    """Return the content with which the tests begin."""
    users = [{"n": 0}, {"n": 1}]
    return {"a": [1, {"users": users}], "ann": Account("ann"), "s": {1}, "d": {"x": 1}}


@pytest.fixture
def filled(box: Any) -> Any:
    """A box whose store has the content of `start()`."""
    box.store.update(start())
    return box


def unchanged(box: Any) -> None:
    """Fail when the store differs from `start()`, live or after reopening."""
    assert {key: richstore.plain(value) for key, value in box.store.items()} == start()
    assert len(box.store) == len(start())
    assert {key: richstore.plain(value) for key, value in box.reopen().items()} == start()


# --- keys -----------------------------------------------------------------------------------

BAD_KEYS = [[1], {"a": 1}, {1}, object(), 1j, (1, [2]), (1, object()), frozenset({1}), len]


@pytest.mark.parametrize("key", BAD_KEYS, ids=lambda key: type(key).__name__)
def test_bad_keys(filled: Any, key: Any) -> None:
    """A key of a wrong type is a KeyTypeError that names the type, in every method."""
    store = filled.store
    uses: list[Callable[[], Any]] = [
        lambda: store.__setitem__(key, 1),
        lambda: store[key],
        lambda: store.__delitem__(key),
        lambda: store.setdefault(key, 1),
        lambda: store.pop(key),
        lambda: store.update([("fine", 1), (key, 2)]),
        lambda: list(store.keys(key)),
    ]
    culprit = key[1] if isinstance(key, tuple) else key
    for use in uses:
        with pytest.raises(richstore.KeyTypeError, match=type(culprit).__name__):
            use()
    with store.transaction(), pytest.raises(richstore.KeyTypeError):
        store.update([("fine", 1), (key, 2)])
    unchanged(filled)


# --- values ---------------------------------------------------------------------------------

LOCK = threading.Lock()


def cannot_be_stored() -> Any:
    """Return an object that refuses to be pickled with its own words."""

    class Refuses:
        def __reduce_ex__(self, protocol: Any) -> Any:
            raise RuntimeError("not today")

    return Refuses()


PLACES: list[tuple[Callable[[Any], Any], str]] = [
    (lambda bad: bad, ""),
    (lambda bad: [0, bad], "[1]"),
    (lambda bad: {"users": [0, 1, 2, Bare(handle=bad)]}, "['users'][3].handle"),
    (lambda bad: {"a": {5: (1, bad)}}, "['a'][5][1]"),
    (lambda bad: Bare(rows=[{"x": bad}]), ".rows[0]['x']"),
    (lambda bad: {(1, "t"): [bad]}, "[(1, 't')][0]"),
]


@pytest.mark.parametrize("inside", ["alone", "block"])
@pytest.mark.parametrize(("build", "place"), PLACES, ids=[p or "top" for _, p in PLACES])
def test_encoding_error_names_the_place(filled: Any, build: Any, place: str, inside: str) -> None:
    """A value that cannot be stored is refused with the path to it and the name of its type."""
    store = filled.store
    attempts: list[tuple[Callable[[], Any], str]] = [
        (lambda: store.__setitem__("new", build(LOCK)), ""),
        (lambda: store.__setitem__("a", build(LOCK)), ""),
        (lambda: store.update([("fine", 1), ("new", build(LOCK))]), ""),
        (lambda: store["a"].append(build(LOCK)), ""),
        (lambda: store["a"].extend([1, 2, build(LOCK)]), ""),
        (lambda: store["a"].__setitem__(slice(0, 1), [1, build(LOCK)]), ""),
        (lambda: store["d"].update(fine=[1], x=build(LOCK)), ""),
        (lambda: store["d"].setdefault("y", build(LOCK)), ""),
        (lambda: setattr(store["ann"], "name", build(LOCK)), ""),
        (lambda: store["ann"].history.insert(0, build(LOCK)), ""),
    ]
    for attempt, _ in attempts:
        with pytest.raises(richstore.EncodingError) as caught:
            if inside == "block":
                with store.transaction():
                    attempt()
            else:
                attempt()
        assert place in str(caught.value)
        assert "lock" in str(caught.value)
        assert str(caught.value).startswith("at ") == bool(caught.value.path)
    unchanged(filled)


def test_encoding_error_after_the_fact(filled: Any) -> None:
    """The path is seen from the key's value, also for a change deep inside a stored value."""
    with pytest.raises(richstore.EncodingError) as caught:
        filled.store["a"][1]["users"][1]["handle"] = [LOCK]
    assert str(caught.value).startswith("at ")
    assert "[0]" in caught.value.path
    unchanged(filled)


REFUSING = [cannot_be_stored, lambda: [(x for x in [1])], sys._getframe]


@pytest.mark.parametrize("make", REFUSING, ids=["own words", "generator", "frame"])
def test_values_that_refuse(filled: Any, make: Any) -> None:
    """Objects that cannot be pickled for any reason are EncodingErrors with that reason."""
    with pytest.raises(richstore.EncodingError) as caught:
        filled.store["a"].append({"k": make()})
    assert "['k']" in caught.value.path
    with pytest.raises(richstore.EncodingError):
        filled.store["new"] = make()
    unchanged(filled)


def test_open_file_is_refused(filled: Any, tmp_path: Path) -> None:
    """An open file cannot be stored, and the message shows where it was."""
    with open(tmp_path / "x", "w") as handle:  # noqa: SIM117
        with pytest.raises(richstore.EncodingError, match=re.escape("['users'][3].handle: ")):
            filled.store["new"] = {"users": [0, 1, 2, Bare(handle=handle)]}
    unchanged(filled)


def test_errors_of_user_code_pass_through(filled: Any) -> None:
    """An exception raised by a key function, an iterable or a setter is itself, with no change."""
    failure = LookupError("mine")

    def fail(*_args: Any) -> Any:
        raise failure

    attempts: list[Callable[[], Any]] = [
        lambda: filled.store["a"].sort(key=fail),
        lambda: filled.store["a"].extend(map(fail, [1])),
        lambda: filled.store["s"].update(map(fail, [1])),
        lambda: filled.store.update(map(fail, [1])),
    ]
    for attempt in attempts:
        with pytest.raises(LookupError) as caught:
            attempt()
        assert caught.value is failure
        with filled.store.transaction(), pytest.raises(LookupError):
            attempt()
    unchanged(filled)


# --- read only, detached --------------------------------------------------------------------

CHANGES: dict[str, Callable[[Any], Any]] = {
    "setitem": lambda s: s.__setitem__("a", 1),
    "delitem": lambda s: s.__delitem__("a"),
    "update": lambda s: s.update(z=1),
    "clear": lambda s: s.clear(),
    "pop": lambda s: s.pop("a"),
    "popitem": lambda s: s.popitem(),
    "setdefault": lambda s: s.setdefault("z", 1),
    "append": lambda s: s["a"].append(1),
    "sort": lambda s: s["a"][1]["users"].sort(key=str),
    "nested": lambda s: s["a"][1]["users"][0].update(n=5),
    "iadd": lambda s: s["a"].__iadd__([1]),
    "slice": lambda s: s["a"].__delitem__(slice(0, 1)),
    "set": lambda s: s["s"].add(5),
    "attribute": lambda s: setattr(s["ann"], "name", "x"),
    "delattr": lambda s: delattr(s["ann"], "name"),
    "method": lambda s: s["ann"].deposit(5),
    "history": lambda s: s["ann"].history.append(5),
}


@pytest.mark.parametrize("name", CHANGES)
def test_read_only_store(file_box: Any, name: str) -> None:
    """Every change through a store opened with "r" is a ReadOnlyError."""
    file_box.store.update(start())
    file_box.store.close()
    with file_box.open(flag="r") as store:
        with pytest.raises(richstore.ReadOnlyError):
            CHANGES[name](store)
        assert {key: richstore.plain(value) for key, value in store.items()} == start()
    file_box.reopen()
    unchanged(file_box)


@pytest.mark.parametrize("name", CHANGES)
def test_snapshots_are_read_only(filled: Any, name: str) -> None:
    """Every change through a snapshot, at any depth, is an error: ReadOnlyError on what exists."""
    with filled.store.snapshot() as view:
        missing = name in {"update", "clear", "pop", "popitem", "setdefault", "setitem", "delitem"}
        expected = (richstore.ReadOnlyError, AttributeError) if missing else richstore.ReadOnlyError
        with pytest.raises(expected):
            CHANGES[name](view)
        assert {key: richstore.plain(value) for key, value in view.items()} == start()
    unchanged(filled)


LEAVING: dict[str, Callable[[Any], Any]] = {
    "del key": lambda s: s.__delitem__("a"),
    "overwrite key": lambda s: s.__setitem__("a", 1),
    "del item": lambda s: s["a"].__delitem__(1),
    "overwrite item": lambda s: s["a"].__setitem__(1, 0),
    "pop": lambda s: s["a"].pop(),
    "clear": lambda s: s["a"].clear(),
    "dict pop": lambda s: s["a"][1].pop("users"),
    "slice": lambda s: s["a"].__setitem__(slice(None), []),
    "store clear": lambda s: s.clear(),
    "store pop": lambda s: s.pop("a"),
    "imul": lambda s: s["a"].__imul__(0),
}


@pytest.mark.parametrize("name", LEAVING)
def test_detached_containers(filled: Any, name: str) -> None:
    """A container that left the store, however, still reads and refuses change."""
    users = filled.store["a"][1]["users"]
    row = users[0]
    LEAVING[name](filled.store)
    assert (users, row) == ([{"n": 0}, {"n": 1}], {"n": 0})
    assert [dict(item) for item in users] == [{"n": 0}, {"n": 1}]
    for attempt in (lambda: users.append(1), lambda: row.update(n=2), lambda: users[0].clear()):
        with pytest.raises(richstore.DetachedError) as caught:
            attempt()
        assert len(str(caught.value)) > 20
    assert (users, row) == ([{"n": 0}, {"n": 1}], {"n": 0})
    assert not richstore.is_tracked(users)
    assert richstore.plain(users) == [{"n": 0}, {"n": 1}]
    filled.store["again"] = users
    filled.store["again"].append("now")
    assert filled.stored("again") == [{"n": 0}, {"n": 1}, "now"]


def test_detached_instances(filled: Any) -> None:
    """An instance that left the store still reads and refuses change."""
    filled.store["pair"] = [Account("bob"), Slotted("s")]
    bob, slotted = filled.store["pair"]
    history = bob.history
    del filled.store["pair"]
    attempts: list[Callable[[], Any]] = [
        lambda: setattr(bob, "balance", 1),
        lambda: bob.deposit(5),
        lambda: history.append(1),
        lambda: slotted.add(1),
        lambda: setattr(slotted, "name", "t"),
    ]
    for attempt in attempts:
        with pytest.raises(richstore.DetachedError):
            attempt()
    assert (bob.name, bob.balance, history, slotted.name) == ("bob", 0, [], "s")
    unchanged_without = {key: richstore.plain(value) for key, value in filled.store.items()}
    assert unchanged_without == start()


def test_what_pop_returns_is_plain(filled: Any) -> None:
    """pop, popitem and their like return plain data that can be changed at will."""
    filled.store.update(p=[[1], [2], {"k": [3]}], q={"x": [1], "y": [2]})
    results = [
        filled.store["p"].pop(),
        filled.store["q"].pop("x"),
        filled.store["q"].popitem(),
        filled.store.pop("q"),
        filled.store.pop("p"),
    ]
    assert results == [{"k": [3]}, [1], ("y", [2]), {}, [[1], [2]]]
    assert [type(result) for result in results] == [dict, list, tuple, dict, list]
    assert type(results[0]["k"]) is type(results[4][0]) is list
    results[0]["k"].append(1)
    unchanged(filled)


# --- closed ---------------------------------------------------------------------------------


def test_closed_everywhere(box: Any) -> None:
    """After close() every use of the store is a ClosedError, and closing again is not."""
    store = box.store
    store.update(start())
    held, ann, views = store["a"], store["ann"], (store.keys(), store.items(), store.values())
    held[1]["users"][0]["n"], ann.history
    store.close()
    store.close()
    uses = [
        *(lambda change=change: change(store) for change in CHANGES.values()),
        lambda: store["a"], lambda: store.get("a"), lambda: "a" in store, lambda: len(store),
        lambda: list(store), lambda: list(reversed(store)), store.refresh, store.snapshot,
        lambda: store.transaction().__enter__(), store.__enter__, lambda: store | {},
        lambda: store == {}, lambda: bool(store), lambda: list(store.keys("a")),
        *(lambda view=view: list(view) for view in views),
        lambda: held.append(1), lambda: setattr(ann, "name", 1), lambda: ann.deposit(1),
    ]  # fmt: skip
    for use in uses:
        with pytest.raises(richstore.ClosedError):
            use()
    assert "closed" in repr(store)
    assert richstore.plain(held) == start()["a"]


def test_unloaded_values_of_a_closed_store(file_box: Any) -> None:
    """After close() what was loaded still reads, and what was not is a ClosedError."""
    file_box.store["a"] = [{"big": ["x" * 100] * 1000} for _ in range(50)]
    rows = file_box.reopen()["a"]
    file_box.store.close()
    seen = 0
    for number in range(50):
        try:
            assert len(rows[number]["big"]) == 1000
            seen += 1
        except richstore.ClosedError:
            break
    assert seen in range(51)


def test_closed_snapshot(filled: Any) -> None:
    """After close() a snapshot is a ClosedError; its loaded values still read."""
    view = filled.store.snapshot()
    loaded = view["d"]
    assert loaded["x"] == 1
    view.close()
    view.close()
    for use in (lambda: view["a"], lambda: list(view), lambda: len(view), lambda: "a" in view):
        with pytest.raises(richstore.ClosedError):
            use()
    assert loaded == {"x": 1}
    assert "closed" in repr(view)


def test_close_inside_a_block(box: Any) -> None:
    """Closing a store inside its own transaction is refused or ends it; nothing half is kept."""
    box.store["a"] = [1]
    with pytest.raises((richstore.RichStoreError, RuntimeError)), box.store.transaction():
        box.store["a"].append(2)
        box.store.close()
        box.store["a"].append(3)
    if not box.in_memory:
        assert box.stored("a") == [1]


# --- opening --------------------------------------------------------------------------------


def test_os_errors_carry_the_path(tmp_path: Path) -> None:
    """A missing directory, a missing file, a directory: the OSError of Python, with the path."""
    cases = [
        (tmp_path / "no" / "x.db", "c", FileNotFoundError),
        (tmp_path / "x.db", "r", FileNotFoundError),
        (tmp_path / "x.db", "w", FileNotFoundError),
        (tmp_path, "c", IsADirectoryError),
    ]
    for target, flag, error in cases:
        with pytest.raises(error) as caught:
            richstore.open(target, flag)
        assert str(target) in str(caught.value)
        assert caught.value.errno in (errno.ENOENT, errno.EISDIR)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may open everything")
def test_no_permission(path: str) -> None:
    """A file that may not be read is a PermissionError with the path."""
    richstore.open(path).close()
    os.chmod(path, 0)
    with pytest.raises(PermissionError, match=re.escape(path)):
        richstore.open(path)


@pytest.mark.parametrize("content", [b"hello", b"x" * 100_000, b"SQLite format 3\0" + b"\0" * 9000])
def test_not_a_richstore_file(tmp_path: Path, content: bytes) -> None:
    """A file of another kind is a FormatError with the path, and is left as it was."""
    target = tmp_path / "notes.txt"
    target.write_bytes(content)
    for flag in "rwc":
        with pytest.raises(richstore.FormatError, match=re.escape(str(target))):
            richstore.open(target, flag)
    assert target.read_bytes() == content


def test_foreign_lmdb_file(tmp_path: Path) -> None:
    """An LMDB file that richstore did not write is a FormatError."""
    lmdb = pytest.importorskip("lmdb")
    target = str(tmp_path / "other.db")
    with lmdb.open(target, subdir=False) as environment, environment.begin(write=True) as txn:
        txn.put(b"key", b"value")
    with pytest.raises(richstore.FormatError, match=re.escape(target)):
        richstore.open(target, "w")


def test_damaged_record(file_box: Any) -> None:
    """A record whose bytes changed on disk is a CorruptionError, not a wrong value."""
    marker = b"MARKER-" * 20
    file_box.store["fine"] = [1]
    file_box.store["bad"] = [marker]
    file_box.store.close()
    damaged = Path(file_box.target).read_bytes().replace(b"MARKER", b"MURKER")
    assert b"MURKER" in damaged
    Path(file_box.target).write_bytes(damaged)
    with file_box.open() as store:
        assert store["fine"] == [1]
        with pytest.raises(richstore.CorruptionError, match="bad"):
            richstore.plain(store["bad"])


# --- repr and dropped stores ----------------------------------------------------------------


def test_repr(file_box: Any) -> None:
    """A store's repr shows its class and path; snapshots and transactions say what they are."""
    assert "Store" in repr(file_box.store)
    assert file_box.target in repr(file_box.store)
    with file_box.store.snapshot() as view:
        assert "Snapshot" in repr(view)
    with file_box.store.transaction() as tx:
        assert "Transaction" in repr(tx)


def test_dropped_open_store_warns(path: str) -> None:
    """A store dropped without close() is a ResourceWarning that names the path; data is kept."""
    store = richstore.open(path, synchronous="off")
    store["a"] = [1]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del store
        gc.collect()
    messages = [str(w.message) for w in caught if issubclass(w.category, ResourceWarning)]
    assert len(messages) == 1
    assert path in messages[0]
    with richstore.open(path) as store:
        assert store["a"] == [1]


EXIT = """
import richstore, sys
store = richstore.open(sys.argv[1])
store["a"] = [1]
store["a"].append(2)
held = store["a"]
block = store.transaction()
{ending}
"""


@pytest.mark.parametrize(
    ("ending", "code"),
    [("", 0), ("sys.exit(3)", 3), ("raise KeyError", 1), ("block.__enter__(); held.append(3)", 0)],
)
def test_interpreter_exit(path: str, ending: str, code: int) -> None:
    """At interpreter exit an open store is closed quietly; an unfinished block is not committed."""
    done = run_python(EXIT.format(ending=ending), path)
    assert done.returncode == code, done.stderr
    assert ("KeyError" in done.stderr) if code == 1 else done.stderr == ""
    with richstore.open(path) as store:
        assert store["a"] == [1, 2]
