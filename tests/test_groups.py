"""Groups as mappings: dict's methods, ranges, blocks, clearing, dropping, names, types."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Iterator, MutableMapping
from typing import Any

import pytest
from conftest import check_store
from sample_classes import Bare, Color
from test_store import CALLS, DATA, outcome

import richstore


@pytest.fixture(params=["group", "nested"])
def group(request: pytest.FixtureRequest) -> Iterator[Any]:
    """An empty group, or one in a group, beside values that have the same keys."""
    with richstore.open("memory:") as store:
        store.update(DATA)
        outer = store.group("g")
        outer.update(DATA)
        yield store.group("h") if request.param == "group" else outer.group("h")
        assert dict(store) == dict(outer) == DATA
        assert store.stats().values == store.verify().values
        check_store(store)


# --- a mapping --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CALLS)
def test_a_group_answers_as_a_dict(group: Any, name: str) -> None:
    """Each operation of dict gives dict's result or error, and leaves dict's content."""
    model = dict(DATA)
    group.update(DATA)
    expected, got = outcome(CALLS[name], model), outcome(CALLS[name], group)
    if name == "update bad pair":  # a group's update is all or nothing
        model = dict(DATA)
    if name in ("update bad pair", "or list"):
        assert got[:2] == expected[:2]
    else:
        assert got == expected
    assert dict(group) == model
    assert len(group) == len(model)


def test_what_dict_has(group: Any) -> None:
    """A group is a MutableMapping, its views are live, and `|=` keeps it the same object."""
    assert isinstance(group, MutableMapping)
    items, values = group.items(), group.values()
    group.setdefault("a", []).append(1)
    same = group
    group |= {"b": [2]}
    assert group is same
    for value in values:
        value.append("seen")
    assert list(items) == [("a", [1, "seen"]), ("b", [2, "seen"])]
    assert [group.popitem()[0] for _ in range(2)] == ["b", "a"]
    with pytest.raises(KeyError, match="popitem"):
        group.popitem()
    with pytest.raises(TypeError):
        hash(group)
    with pytest.raises(richstore.EncodingError, match="a group"):
        group["self"] = [group]


def test_keys_and_ranges(group: Any) -> None:
    """Keys of all types, ranges and prefixes are as in a store, up to the ends of the group."""
    keys = [None, -5, 2.5, 7, "", "a", "a\0", "b", b"", b"\xff\xff", dt.date(2024, 1, 1),
            Color.RED, (), ("a",), ("a", 1), ("a", 2, "x"), ("ab", 1), (("x", 1), 2)]  # fmt: skip
    group.update((key, repr(key)) for key in reversed(keys))
    assert list(group) == keys
    assert list(reversed(group)) == keys[::-1]
    assert list(group.keys(-5, 7)) == [-5, 2.5]
    assert list(group.keys("a")) == keys[5:]
    assert list(group.values(stop="b", reverse=True)) == [repr(key) for key in keys[6::-1]]
    assert list(group.keys(prefix="a")) == ["a", "a\0"]
    assert list(group.keys(prefix=("a",))) == [("a",), ("a", 1), ("a", 2, "x")]
    assert list(group.keys(prefix=("a",), reverse=True)) == [("a", 2, "x"), ("a", 1), ("a",)]
    assert ("a", 1) in group.keys(prefix=("a",))
    assert ("ab", 1) not in group.keys(prefix=("a",))
    assert all(group[key] == repr(key) for key in keys)


def test_long_keys_come_in_order(group: Any) -> None:
    """Keys that are cut, and bounds as long, are as in a store."""
    base = "p" * 600
    keys = [base + f"{n:02}" for n in range(20)]
    group.update((key, [key]) for key in reversed(keys))
    assert list(group) == keys
    assert list(group.keys(keys[5], keys[8], reverse=True)) == keys[5:8][::-1]
    assert list(group.keys(prefix=base + "1")) == keys[10:]
    del group[keys[3]]
    assert group.pop(keys[4]) == [keys[4]]
    assert keys[3] not in group
    assert len(group) == 18


# --- groups in the store ----------------------------------------------------------------------


def test_a_group_is_there_from_its_first_value_on(box: Any) -> None:
    """Asking makes no group; a value does, and those around it, but not one that is refused."""
    store = box.store
    inner = store.group("a").group("b")
    assert (list(inner), len(inner), inner.get("x"), "x" in inner) == ([], 0, None, False)
    assert inner.pop("x", 5) == 5
    inner.clear()
    inner.drop()
    with pytest.raises(KeyError):
        del inner["x"]
    with pytest.raises(richstore.EncodingError):
        inner["x"] = threading.Lock()
    assert store.groups() == []
    inner["x"] = 1
    assert (store.groups(), store.group("a").groups(), len(store.group("a"))) == (["a"], ["b"], 0)
    assert (inner.path, inner.name, inner.parent.name) == (("a", "b"), "b", "a")
    del inner["x"]
    store = box.reopen()
    assert (store.groups(), store.group("a").groups(), len(store)) == (["a"], ["b"], 0)


def test_handles_on_one_group_are_equal(box: Any) -> None:
    """Any number of handles on a group have the same values, which are the same objects."""
    one, two = box.store.group("g"), box.store.group("g")
    one["k"] = []
    assert two["k"] is one["k"]
    two["k"].append(1)
    assert one == two == {"k": [1]}
    assert box.store.group("other") != one


@pytest.mark.parametrize("name", ["", "/", "a/b", "\0", "a\0", "\ud800", "é", "😀", "n" * 400])
def test_names(box: Any, name: str) -> None:
    """Any str of a few hundred characters is the name of a group, and no part of it means more."""
    names = sorted([name, "a"])
    for inside in (box.store, box.store.group(name)):
        inside.group(name)["k"] = name
        inside.group("a")["k"] = "a"
        assert inside.groups() == names
    store = box.reopen()
    assert store.group(name).group(name)["k"] == name
    assert store.group("a")["k"] == "a"


@pytest.mark.parametrize("name", [None, 1, b"x", ("a",), True, ["a"]])
def test_what_is_no_name(name: Any) -> None:
    """A name that is no str is a TypeError that says so, of a store, a group and a snapshot."""
    with richstore.open("memory:") as store, store.snapshot() as view:
        for inside in (store, store.group("g"), view, view.group("g")):
            with pytest.raises(TypeError, match="must be a str, not"):
                inside.group(name)
            with pytest.raises(ValueError, match="too long"):
                inside.group("n" * 463)


def test_classes_of_groups() -> None:
    """`group(name, kind)` gives an instance of a subclass, with parameters or not; no others."""

    class Ages(richstore.Group[str, int]):
        def oldest(self) -> str:
            return max(self, key=lambda name: self[name])

    with richstore.open("memory:") as store:
        ages = store.group("ages", Ages)
        ages.update(ann=40, bob=50)
        assert ages.oldest() == "bob"
        assert store.group("ages", richstore.Group[str, int])["ann"] == 40
        assert type(store.group("ages")) is richstore.Group
        assert "('ages',)" in repr(ages)
        for kind in (dict, int, 5, dict[str, int], richstore.Store):
            with pytest.raises(TypeError, match="subclass of Group"):
                store.group("g", kind)


def test_a_closed_store(box: Any) -> None:
    """A group of a closed store raises ClosedError for everything, and its repr says so."""
    group = box.store.group("g")
    group["k"] = [1]
    box.store.close()
    calls = (lambda: group["k"], lambda: len(group), lambda: list(group), lambda: "k" in group,
             group.groups, group.clear, group.drop, lambda: group.update(a=1))  # fmt: skip
    for call in calls:
        with pytest.raises(richstore.ClosedError):
            call()
    assert "closed" in repr(group)


def test_a_store_that_is_read_only(path: str) -> None:
    """Through flag "r" a group can be read, and nothing be changed."""
    with richstore.open(path, synchronous="off") as store:
        store.group("g")["k"] = [1]
    with richstore.open(path, "r") as store:
        group = store.group("g")
        assert dict(group) == {"k": [1]}
        changes = (group.clear, group.drop, lambda: group["k"].append(2), lambda: group.pop("k"),
                   lambda: group.update(a=1), lambda: store.group("new").update(a=1))  # fmt: skip
        for call in changes:
            with pytest.raises(richstore.ReadOnlyError):
                call()
        assert (store.groups(), dict(group)) == (["g"], {"k": [1]})


# --- clear and drop ---------------------------------------------------------------------------


@pytest.mark.parametrize("loaded", [True, False], ids=["loaded", "not loaded"])
def test_clear_leaves_the_deleting_to_others(path: str, loaded: bool) -> None:
    """All but a bounded number of the values of a group wait, after clear(), to be removed."""
    with richstore.open(path, synchronous="off") as store:
        store.group("g").update((n, {"n": n}) for n in range(5000))
    with richstore.open(path, synchronous="off") as store:
        group = store.group("g")
        held = list(group.values()) if loaded else []
        group.clear()
        assert (len(group), list(group), store.groups()) == (0, [], ["g"])
        report = store.verify()
        assert report.ok
        assert 4900 < report.waiting < 5000
        for value in held[::500]:
            assert not richstore.is_tracked(value)
            assert value["n"] in range(5000)
            with pytest.raises(richstore.DetachedError):
                value["n"] = -1
        assert store.compact() == report.waiting
        assert store.verify().waiting == 0


def test_later_writes_remove_what_was_cleared(path: str) -> None:
    """Each commit removes some of what clear() has left, until nothing waits any more."""
    with richstore.open(path, synchronous="off") as store:
        group = store.group("g")
        group.update((n, n) for n in range(300))
        group.clear()
        waiting = [store.verify().waiting]
        while waiting[-1]:
            group["k"] = len(waiting)
            waiting.append(store.verify().waiting)
            assert waiting[-1] < waiting[-2]
        assert len(waiting) < 10
        assert dict(group) == {"k": len(waiting) - 1}


def test_clear_drop_and_set_in_one_block(box: Any) -> None:
    """In a block, what is cleared, dropped and set again is as it would be in a dict of dicts."""
    store = box.store
    group, inner = store.group("g"), store.group("g").group("h")
    group.update(DATA)
    inner.update(DATA)
    with store.transaction():
        group.clear()
        group.clear()
        assert (dict(group), dict(inner), store.groups()) == ({}, DATA, ["g"])
        group["x"] = [1]
        group.clear()
        group["a"] = [2]
        assert dict(group) == {"a": [2]}
        group.drop()
        assert (store.groups(), group.groups(), len(inner), list(inner)) == ([], [], 0, [])
        inner["y"] = [3]
        group["a"] = [4]
        group["a"].append(5)
    for store in box.live_and_reopened():
        assert dict(store.group("g")) == {"a": [4, 5]}
        assert dict(store.group("g").group("h")) == {"y": [3]}


@pytest.mark.parametrize("how", ["clear", "drop"])
def test_rolled_back(box: Any, how: str) -> None:
    """A clear and a drop that are rolled back leave everything, held values too, as it was."""
    store = box.store
    group, inner = store.group("g"), store.group("g").group("h")
    group.update(DATA)
    inner["k"] = [1]
    held = group["b"], inner["k"]
    undo = getattr(group, how)
    with store.transaction() as transaction:
        group["c"] = [7]
        savepoint = transaction.savepoint()
        undo()
        inner["k"] = ["other"]
        with pytest.raises(LookupError), store.transaction():
            group["new"] = 1
            group.clear()
            raise LookupError
        transaction.rollback_to(savepoint)
        assert (dict(group), dict(inner)) == ({**DATA, "c": [7]}, {"k": [1]})
        assert group["b"] is held[0]
        held[1].append(2)
    assert all(map(richstore.is_tracked, held))
    with pytest.raises(LookupError), store.transaction():
        undo()
        store.group("other")["k"] = 1
        raise LookupError
    assert store.groups() == ["g"]
    assert (len(group), dict(inner)) == (3, {"k": [1, 2]})
    assert inner["k"] is held[1]
    assert store.verify().waiting == 0


def test_a_group_emptied_by_other_means(box: Any) -> None:
    """After its values were deleted one by one a group is there, empty, and can be dropped."""
    group = box.store.group("g")
    group.update(DATA)
    while group:
        group.popitem()
    assert (box.store.groups(), len(group)) == (["g"], 0)
    group.clear()
    group.drop()
    assert box.reopen().groups() == []


def test_handles_outlive_their_group(box: Any) -> None:
    """Handles on groups inside one that was dropped show nothing, and make it anew when used."""
    store = box.store
    inner = store.group("g").group("h").group("i")
    inner["k"] = [1]
    held = inner["k"]
    store.group("g").drop()
    assert (list(inner), inner.groups(), len(inner)) == ([], [], 0)
    assert not richstore.is_tracked(held)
    with pytest.raises(richstore.DetachedError):
        held.append(2)
    inner["k"] = held
    assert dict(box.reopen().group("g").group("h").group("i")) == {"k": [1]}


def test_groups_in_each_other_to_any_depth() -> None:
    """Hundreds of groups in each other can be filled, verified and dropped."""
    with richstore.open("memory:") as store:
        inner: Any = store
        for _ in range(400):
            inner = inner.group("n")
        inner["k"] = 1
        assert store.verify().ok
        store.group("n").drop()
        assert (store.groups(), store.verify().problems, len(inner)) == ([], [], 0)


def test_large_and_shared_values(box: Any, page: str) -> None:
    """Values over many pages, with items in two places, leave the file with their group."""
    store = box.store
    group = store.group("g")
    rows = [{"n": n, "tags": [n]} for n in range(300)]
    group["rows"] = [*rows, rows[3]]
    group["both"] = {"a": Bare(rows=rows, again=rows)}
    held = group["rows"]
    row = held[3]
    with store.transaction():
        row["n"] = -1
        group.clear()
        with pytest.raises(richstore.DetachedError):
            row["n"] = -2
        group["rows"] = held
        assert group["rows"][300] is group["rows"][3]
    assert [one["n"] for one in group["rows"]] == [*range(3), -1, *range(4, 300), -1]
    assert [one["tags"] for one in held[:5]] == [[n] for n in range(5)]
    for gone in (held, row):
        assert not richstore.is_tracked(gone)
        with pytest.raises(richstore.DetachedError):
            gone.clear()
    group.drop()
    store.compact()
    assert (store.verify().records, store.stats().values) == (0, 0)


# --- code that runs while a group is changed --------------------------------------------------


@pytest.mark.parametrize("how", ["clear", "drop"])
def test_a_generator_that_clears_its_group(box: Any, how: str) -> None:
    """A value whose making clears the group it is for is refused, and nothing has changed."""
    group = box.store.group("g")
    group.update(DATA)

    def numbers() -> Iterator[int]:
        yield from range(9000)
        getattr(group, how)()
        yield from range(9000)

    with box.store.transaction():
        group["z"] = 1
        with pytest.raises(richstore.RichStoreError, match="cleared or dropped"):
            group["k"] = numbers()
        assert dict(group) == {**DATA, "z": 1}
    assert dict(box.reopen().group("g")) == {**DATA, "z": 1}


@pytest.mark.parametrize("inside", ["store", "group"])
def test_a_generator_that_sets_its_own_key(box: Any, inside: str) -> None:
    """A value whose making sets or deletes its key is counted once."""
    mapping = box.store if inside == "store" else box.store.group("g")

    def numbers() -> Iterator[int]:
        yield from range(9000)
        mapping["k"] = "inner"
        mapping.pop("old", None)
        yield from range(9000)

    mapping["old"] = 1
    for key in ("k", "old"):
        with box.store.transaction():
            mapping[key] = numbers()
        assert len(mapping[key]) == 18000
        assert len(mapping) == len(list(mapping))


class Changing:
    """Runs a function when it is stored."""

    def __reduce__(self) -> Any:
        if CHANGES:
            CHANGES[0]()
        return Changing, ()


CHANGES: list[Any] = []


def test_what_runs_in_a_commit_cannot_change_groups(box: Any) -> None:
    """A __reduce__ that clears, drops or fills a group is refused, and its block undone."""
    store = box.store
    group = store.group("g")
    group.update(DATA)
    for change in (group.clear, group.drop, lambda: store.group("new").update(a=1)):
        CHANGES[:] = [change]
        try:
            with pytest.raises(richstore.RichStoreError), store.transaction():
                group["x"] = 1
                group["y"] = [Changing()]
        finally:
            CHANGES.clear()
        assert (dict(group), store.groups()) == (DATA, ["g"])


@pytest.mark.parametrize("inside", ["a block", "no block"])
def test_a_loop_over_what_is_cleared(box: Any, inside: str) -> None:
    """A loop goes on over what was there when it began; what it gives can be read, not changed."""
    box.store.group("g").update((n, [n]) for n in range(10))
    store = box.reopen()
    store._tracker.expire_all()  # the memory engine's store is the same, with all loaded
    group = store.group("g")
    block = store.transaction() if inside == "a block" else store.snapshot()
    with block:
        items = iter(group.items())
        next(items)
        group.clear()
        group[20] = [20]
        left = list(items)
        assert left == [(n, [n]) for n in range(1, 10)]
        for _, value in left:
            assert not richstore.is_tracked(value)
            with pytest.raises(richstore.RichStoreError):
                value.append("lost")
    assert dict(group) == {20: [20]}


def test_after_a_failed_block_groups_are_read_as_they_are(path: str, run_thread: Any) -> None:
    """In a block that has been aborted, a group shows what others store."""
    with richstore.open(path, synchronous="off") as store:
        group = store.group("g")
        group.update(DATA)
        with store.transaction() as transaction:
            group.clear()
            transaction.abort()
            assert dict(group) == DATA
            run_thread(lambda: (group.clear(), group.update(x=1)))
            assert (dict(group), list(group), len(group), "a" in group) == (
                {"x": 1},
                ["x"],
                1,
                False,
            )


# --- snapshots --------------------------------------------------------------------------------


def test_snapshots_of_groups(box: Any) -> None:
    """A snapshot has the groups of its moment, whatever becomes of them, as read-only mappings."""
    store = box.store
    group = store.group("g").group("h")
    group.update((n, [n]) for n in range(10))
    with store.snapshot() as view:
        group.clear()
        store.group("g").drop()
        store.group("later")["k"] = 1
        store.compact()
        old = view.group("g").group("h")
        assert (view.groups(), view.group("g").groups(), old.groups()) == (["g"], ["h"], [])
        assert (len(old), dict(old)) == (10, {n: [n] for n in range(10)})
        assert list(old.keys(3, 6, reverse=True)) == [5, 4, 3]
        assert (len(view.group("later")), list(view.group("later"))) == (0, [])
        assert (old.name, old.path, 3 in old, old.get(11)) == ("h", ("g", "h"), True, None)
        with pytest.raises(richstore.ReadOnlyError):
            old[3].append(1)
        with pytest.raises(richstore.EncodingError):
            store["view"] = old
    for call in (old.groups, lambda: len(old), lambda: list(old), lambda: view.group("x")):
        with pytest.raises(richstore.ClosedError):
            call()
