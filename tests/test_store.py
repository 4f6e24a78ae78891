"""The store as a mapping: dict's methods, keys and their order, flags, names, opening."""

from __future__ import annotations

import datetime as dt
import os
import stat
import sys
import uuid
from collections.abc import ItemsView, KeysView, MutableMapping, ValuesView
from pathlib import Path
from typing import Any

import pytest
from conftest import canonical
from sample_classes import (
    ATOMS,
    CHANGES,
    Color,
    Level,
    attrs_class,
    make_local,
    pydantic_class,
)

import richstore

PUBLIC = {
    "ClosedError",
    "ConflictError",
    "CorruptionError",
    "DetachedError",
    "EncodingError",
    "FillError",
    "FormatError",
    "Group",
    "KeyTypeError",
    "LockTimeoutError",
    "Missing",
    "MissingClassError",
    "OrderError",
    "Passphrase",
    "Persistable",
    "ProjectError",
    "ReadOnlyError",
    "Report",
    "RichStoreError",
    "Sealed",
    "Snapshot",
    "Stats",
    "Store",
    "Transaction",
    "UpgradeError",
    "renamed",
    "WrongKeyError",
    "UntrustedClassError",
    "is_tracked",
    "open",
    "persisted",
    "plain",
    "restore",
    "transactional",
    "Document",
    "document",
    "in_transaction",
}


def test_public_names() -> None:
    """`__all__` is exactly the public API, and every name in it exists."""
    assert set(richstore.__all__) == PUBLIC
    assert len(richstore.__all__) == len(PUBLIC)
    for name in PUBLIC:
        assert getattr(richstore, name) is not None
    assert (Path(richstore.__file__).parent / "py.typed").exists()


# --- dict's methods -------------------------------------------------------------------------

DATA = {"a": 1, "b": [1, 2], "c": None}


def outcome(call: Any, target: Any) -> Any:
    """Return what `call(target)` gives, or the type and arguments of what it raises."""
    try:
        return ("value", call(target))
    except Exception as error:
        return ("error", type(error), error.args)


CALLS = {
    "getitem": lambda m: m["a"],
    "getitem none": lambda m: m["c"],
    "getitem missing": lambda m: m["x"],
    "getitem missing tuple": lambda m: m["x", 1],
    "get": lambda m: (m.get("a"), m.get("x"), m.get("x", 5), m.get("c", 5)),
    "in": lambda m: ("a" in m, "x" in m, "c" in m, 1 in m),
    "len": len,
    "bool": bool,
    "setitem": lambda m: m.__setitem__("d", {"k": 1}),
    "overwrite": lambda m: m.__setitem__("b", 5),
    "delitem": lambda m: m.__delitem__("a"),
    "delitem missing": lambda m: m.__delitem__("x"),
    "pop": lambda m: m.pop("b"),
    "pop none": lambda m: m.pop("c", 5),
    "pop missing": lambda m: m.pop("x"),
    "pop default": lambda m: m.pop("x", 7),
    "pop default none": lambda m: m.pop("x", None),
    "popitem": lambda m: m.popitem(),
    "setdefault there": lambda m: m.setdefault("a", 9),
    "setdefault stored none": lambda m: m.setdefault("c", 9),
    "setdefault new": lambda m: m.setdefault("z", [9]),
    "setdefault no value": lambda m: m.setdefault("z"),
    "update dict": lambda m: m.update({"a": 2, "z": 3}),
    "update pairs": lambda m: m.update([("a", 2), ("z", 3)]),
    "update keywords": lambda m: m.update(a=5, z=6),
    "update both": lambda m: m.update({"a": 5}, z=6),
    "update nothing": lambda m: m.update(),
    "update bad pair": lambda m: m.update([("q", 1), ("z",)]),
    "or": lambda m: m | {"a": 9, "z": 1},
    "ror": lambda m: {"a": 9, "z": 1} | m,
    "or list": lambda m: m | [1],
    "eq": lambda m: (m == DATA, m == {}, m != DATA, m == 5),
    "clear": lambda m: m.clear(),
    "iter": lambda m: list(m),
    "reversed": lambda m: list(reversed(m)),
    "keys": lambda m: list(m.keys()),
    "items": lambda m: list(m.items()),
    "values": lambda m: list(m.values()),
    "reversed views": lambda m: [*reversed(m.keys()), *reversed(m.items())],
    "dict": dict,
    "unpack": lambda m: {**m},
    "items in": lambda m: (("a", 1) in m.items(), ("a", 2) in m.items(), ("z", 1) in m.items()),
    "values in": lambda m: ([1, 2] in m.values(), 99 in m.values()),
    "keys and": lambda m: m.keys() & {"a", "z"},
    "keys or": lambda m: m.keys() | {"a", "z"},
    "keys sub": lambda m: m.keys() - {"a", "z"},
    "keys xor": lambda m: m.keys() ^ {"a", "z"},
    "keys eq": lambda m: (m.keys() == {"a", "b", "c"}, m.keys() <= {"a"}, {"a"} <= m.keys()),
    "keys disjoint": lambda m: m.keys().isdisjoint(["z"]),
    "len views": lambda m: (len(m.keys()), len(m.items()), len(m.values())),
}


@pytest.mark.parametrize("name", CALLS)
def test_store_answers_as_a_dict(box: Any, name: str) -> None:
    """Each dict operation on the store gives dict's result or error and leaves dict's content."""
    model = dict(DATA)
    box.store.update(DATA)
    expected = outcome(CALLS[name], model)
    got = outcome(CALLS[name], box.store)
    if name == "update bad pair":  # dict keeps the first half; a store's update is all or nothing
        assert got[:2] == expected[:2]
        model = dict(DATA)
    elif name == "or list":
        assert got[:2] == expected[:2]
    else:
        assert got == expected
    assert dict(box.store) == model
    assert len(box.store) == len(model)
    assert dict(box.reopen()) == model


def test_store_has_every_dict_method(store: Any) -> None:
    """Every public method of dict but copy and fromkeys exists on the store."""
    for name in dir(dict):
        if name in {"copy", "fromkeys", "__class_getitem__"}:
            continue
        assert hasattr(store, name), name
    assert isinstance(store, MutableMapping)
    assert isinstance(store, richstore.Store)


def test_popitem_empties_and_then_raises(store: Any) -> None:
    """Popitem removes the last item each time and raises KeyError on an empty store."""
    store.update(DATA)
    assert [store.popitem()[0] for _ in range(3)] == ["c", "b", "a"]
    with pytest.raises(KeyError):
        store.popitem()


def test_setdefault_returns_the_stored_value(box: Any) -> None:
    """What setdefault returns is part of the store, also when it has just been made."""
    box.store.setdefault("k", []).append(1)
    box.store.setdefault("k", []).append(2)
    assert box.stored("k") == [1, 2]


def test_ior_updates_in_place(box: Any) -> None:
    """`store |= other` keeps the store object and adds the items."""
    store = box.store
    same = store
    store |= {"a": 1}
    store |= [("b", 2)]
    assert store is same
    assert dict(box.reopen()) == {"a": 1, "b": 2}


def test_or_gives_a_plain_dict(store: Any) -> None:
    """`store | other` is a dict and leaves the store alone."""
    store["a"] = 1
    both = store | {"b": 2}
    assert type(both) is dict
    assert list(store) == ["a"]


def test_views_are_live(store: Any) -> None:
    """Views made before a change show what the store has after it."""
    keys, items, values = store.keys(), store.items(), store.values()
    assert isinstance(keys, KeysView)
    assert isinstance(items, ItemsView)
    assert isinstance(values, ValuesView)
    store["a"] = [1]
    assert list(keys) == ["a"]
    assert list(items) == [("a", [1])]
    assert list(values) == [[1]]
    for value in values:
        value.append(2)
    for _key, value in items:
        value.append(3)
    assert store["a"] == [1, 2, 3]


def test_equal_stores(store: Any) -> None:
    """Two stores with equal content are equal; a store is not hashable, as a dict is not."""
    store["a"] = [1]
    with richstore.open("memory:") as other:
        assert store != other
        other["a"] = [1]
        assert store == other
    with pytest.raises(TypeError):
        hash(store)


def test_update_is_one_transaction(box: Any) -> None:
    """An iterable that fails half-way leaves nothing of the update."""

    def pairs() -> Any:
        yield "a", 1
        yield "b", 2
        raise RuntimeError("half-way")

    box.store["a"] = 0
    with pytest.raises(RuntimeError, match="half-way"):
        box.store.update(pairs())
    assert dict(box.store) == {"a": 0}
    box.store.update((f"k{i:05}", i) for i in range(3000))
    assert len(box.store) == 3001
    assert len(box.reopen()) == 3001


# --- keys -----------------------------------------------------------------------------------

UUID = uuid.UUID(int=7)
UTC = dt.UTC
ORDERED: list[list[Any]] = [
    [
        -(10**400),
        -(2**64) - 1,
        -(2**64),
        -1.5,
        -1,
        -1e-300,
        0,
        1e-300,
        0.5,
        1,
        1.5,
        2,
        255,
        256,
        2**53,
        2**53 + 1,
        2**63,
        1e300,
        10**400,
    ],
    ["", "\0", "\0\0", "\0a", "A", "a", "a\0", "a\0b", "a" * 600, "a" * 600 + "b", "b", "é", "😀"],
    [b"", b"\0", b"\0\xff", b"\x01", b"a", b"a" * 2000, b"a" * 2000 + b"\0", b"\xff", b"\xff\xff"],
    [dt.date(1, 1, 1), dt.date(1969, 1, 1), dt.date(2024, 2, 29), dt.date(9999, 12, 31)],
    [dt.datetime(1, 1, 1), dt.datetime(1969, 1, 1, 5), dt.datetime(2024, 1, 1, 0, 0, 0, 1)],
    [dt.datetime(1969, 1, 1, tzinfo=UTC), dt.datetime(2024, 1, 1, tzinfo=UTC)],
    [uuid.UUID(int=0), UUID, uuid.UUID(int=2**127)],
    [(), (1,), (1, "a"), (1, "a", None), (1, "b"), (2,), (2, ""), (2, "\0"), (2, "a" * 700)],
    [((1, 2), 3), ((1, 2), 4), ((1, 3),)],
]


@pytest.mark.parametrize("ordered", ORDERED, ids=lambda keys: type(keys[0]).__name__)
def test_keys_iterate_in_the_order_of_their_values(box: Any, ordered: list[Any]) -> None:
    """Keys of one type come back equal, of the same type, in the order of their values."""
    for key in sorted(ordered, key=repr):
        box.store[key] = repr(key)
    for store in box.live_and_reopened():
        assert list(store) == ordered
        assert [type(key) for key in store] == [type(key) for key in ordered]
        assert list(reversed(store)) == ordered[::-1]
        assert [store[key] for key in ordered] == [repr(key) for key in ordered]
        assert all(key in store for key in ordered)


def test_keys_of_many_types_are_grouped_by_type(store: Any) -> None:
    """Keys of different types live beside each other, each type in one run."""
    mixed = ["x", b"x", 1, None, (1,), UUID, dt.date(2024, 1, 1), Color.RED, "y", 2.5, b"y", (2,)]
    store.update((key, str(key)) for key in mixed)
    assert len(store) == len(mixed)
    assert set(store) == set(mixed)
    kinds = ["number" if type(k) in (int, float) else type(k).__name__ for k in store]
    runs = [kind for at, kind in enumerate(kinds) if at == 0 or kinds[at - 1] != kind]
    assert len(runs) == len(set(runs))
    assert store[Color.RED] == str(Color.RED)
    assert Color.GREEN not in store


@pytest.mark.parametrize(
    "equal",
    [
        (1, 1.0, True, Level.LOW),
        (0, 0.0, -0.0, False),
        ((1, "a"), (True, "a"), (1.0, "a")),
        (2**60, float(2**60)),
        (dt.datetime(2024, 1, 1, 12, tzinfo=UTC),
         dt.datetime(2024, 1, 1, 13, tzinfo=dt.timezone(dt.timedelta(hours=1)))),
    ],
    ids=["one", "zero", "tuple", "big", "time zones"],
)  # fmt: skip
def test_equal_keys_are_one_key(store: Any, equal: tuple[Any, ...]) -> None:
    """Keys that compare equal find, replace and delete the same item."""
    for at, key in enumerate(equal):
        store[key] = at
        assert len(store) == 1
        assert all(store[other] == at for other in equal)
    assert list(store) == [equal[0]]
    del store[equal[-1]]
    assert len(store) == 0


def test_unequal_big_numbers_are_two_keys(store: Any) -> None:
    """An int that no float can hold is not the float nearest to it."""
    store[2**53 + 1] = "int"
    store[float(2**53)] = "float"
    assert dict(store) == {2**53: "float", 2**53 + 1: "int"}


def test_enum_key_comes_back_as_the_member(box: Any) -> None:
    """An Enum member as a key is the same member after reopening."""
    box.store[Color.RED] = [1]
    (key,) = box.reopen()
    assert key is Color.RED


def test_long_keys(box: Any) -> None:
    """Keys far beyond LMDB's 511 bytes work, also when they differ only at the end."""
    base = "k" * 5000
    keys = [base + end for end in "abc"] + [(base, 1), (base, 2), base.encode()]
    for at, key in enumerate(keys):
        box.store[key] = [at]
    del box.store[keys[1]]
    box.store[keys[2]].append("changed")
    store = box.reopen()
    assert [store.get(key) for key in keys] == [[0], None, [2, "changed"], [3], [4], [5]]
    assert [key for key in store if isinstance(key, str)] == [base + "a", base + "c"]


# --- ranges ---------------------------------------------------------------------------------


def test_ranges_of_keys(store: Any) -> None:
    """keys, items and values take start (included), stop (excluded) and reverse."""
    store.update((number, [number]) for number in range(10))
    assert list(store.keys(3, 6)) == [3, 4, 5]
    assert list(store.keys(7)) == [7, 8, 9]
    assert list(store.keys(None, 2)) == [0, 1]
    assert list(store.keys(stop=2)) == [0, 1]
    assert list(store.keys(2.5, 4.5)) == [3, 4]
    assert list(store.keys(3, 6, reverse=True)) == [5, 4, 3]
    assert list(store.items(8)) == [(8, [8]), (9, [9])]
    assert list(store.values(start=1, stop=3, reverse=True)) == [[2], [1]]
    assert list(store.keys(6, 3)) == []
    assert list(store.keys(20)) == []
    for value in store.values(8):
        value.append("seen")
    assert store[9] == [9, "seen"]


def test_prefix_ranges(store: Any) -> None:
    """A prefix selects the keys that begin with it, str and bytes apart."""
    for key in ["user/1", "user/2", "user", "users", "usf", "use", b"user/1"]:
        store[key] = 0
    assert list(store.keys(prefix="user/")) == ["user/1", "user/2"]
    assert list(store.keys(prefix="user")) == ["user", "user/1", "user/2", "users"]
    assert list(store.keys(prefix="user/", reverse=True)) == ["user/2", "user/1"]
    assert list(store.keys(prefix=b"us")) == [b"user/1"]
    assert list(store.keys(prefix="zzz")) == []
    assert [key for key, _ in store.items(prefix="user/")] == ["user/1", "user/2"]


def test_prefix_of_tuples(store: Any) -> None:
    """A tuple as prefix selects the tuples that begin with its elements."""
    keys = [("a",), ("a", 1), ("a", 2, "x"), ("ab", 1), ("b", 1)]
    store.update((key, 0) for key in keys)
    assert list(store.keys(prefix=("a",))) == [("a",), ("a", 1), ("a", 2, "x")]


def test_prefix_longer_than_an_engine_key(store: Any) -> None:
    """Ranges are right where keys and bounds are longer than the engine's limit."""
    base = "p" * 600
    keys = [base + f"{n:02}" for n in range(20)]
    store.update((key, 0) for key in keys)
    store["q"] = 0
    assert list(store.keys(prefix=base + "1")) == keys[10:]
    assert list(store.keys(keys[5], keys[8])) == keys[5:8]
    assert list(store.keys(keys[5], keys[8], reverse=True)) == keys[5:8][::-1]


def test_iteration_reads_one_consistent_view(store: Any) -> None:
    """An iterator goes on over the state at which it began, whatever is written meanwhile."""
    store.update((number, number) for number in range(300))
    seen = []
    for key in store:
        seen.append(key)
        if key < 300:
            store[key + 1000] = 0
            del store[key]
    assert seen == list(range(300))
    assert list(store) == [number + 1000 for number in range(300)]


def test_iteration_is_lazy(store: Any) -> None:
    """The first key of a range comes without the rest being read."""
    store.update((number, number) for number in range(2000))
    keys = iter(store.keys(500))
    assert next(keys) == 500
    assert next(iter(reversed(store))) == 1999


# --- opening --------------------------------------------------------------------------------


def test_flags_as_dbm_has_them(path: str) -> None:
    """R and w need the file, c makes it, n empties it, r refuses changes."""
    for flag in "rw":
        with pytest.raises(FileNotFoundError) as caught:
            richstore.open(path, flag)
        assert caught.value.filename == path
        assert not os.path.exists(path)
    with richstore.open(path, "c", synchronous="off") as store:
        store["a"] = [1]
    with richstore.open(path, "w", synchronous="off") as store:
        store["a"].append(2)
    with richstore.open(path, "r") as store:
        assert store["a"] == [1, 2]
        with pytest.raises(richstore.ReadOnlyError):
            store["b"] = 1
        with pytest.raises(richstore.ReadOnlyError):
            store["a"].append(3)
        assert store["a"] == [1, 2]
    with richstore.open(path, "n", synchronous="off") as store:
        assert dict(store) == {}
    with richstore.open(path) as store:
        assert dict(store) == {}


@pytest.mark.parametrize("bad", [{"flag": "x"}, {"synchronous": "maybe"}])
def test_wrong_options_are_refused(path: str, bad: dict[str, str]) -> None:
    """An unknown flag or synchronous word is a ValueError that names it, and makes no file."""
    with pytest.raises(ValueError, match=next(iter(bad.values()))):
        richstore.open(path, **bad)
    assert not os.path.exists(path)


@pytest.mark.parametrize("word", ["full", "normal", "off"])
def test_synchronous_words(path: str, word: str) -> None:
    """Each of SQLite's words opens a store that keeps what is written."""
    with richstore.open(path, synchronous=word) as store:
        store["a"] = [word]
        store["a"].append(1)
    with richstore.open(path, synchronous=word) as store:
        assert store["a"] == [word, 1]


def test_paths_and_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path may be str or PathLike, relative too; one file with mode 0600 and a lock beside it."""
    monkeypatch.chdir(tmp_path)
    with richstore.open(Path("shop.db"), synchronous="off") as store:
        store["a"] = 1
        assert str(tmp_path / "shop.db") in repr(store)
        assert stat.S_IMODE(os.stat("shop.db").st_mode) == 0o600
    with richstore.open(str(tmp_path / "shop.db")) as store:
        assert store["a"] == 1
    assert sorted(os.listdir()) == ["shop.db", "shop.db-lock"]


def test_same_file_twice_in_one_process(path: str, tmp_path: Path) -> None:
    """Two stores on one file see each other's commits, and closing one leaves the other open."""
    os.symlink(path, tmp_path / "alias.db")
    with richstore.open(path, synchronous="off") as first:
        first["a"] = [1]
        held = first["a"]
        second = richstore.open(tmp_path / "alias.db", synchronous="off")
        second["a"].append(2)
        assert first["a"] == [1, 2]
        assert held == [1, 2]
        held.append(3)
        assert second["a"] == [1, 2, 3]
        second.close()
        held.append(4)
        assert first["a"] == [1, 2, 3, 4]


def test_memory_store_is_forgotten() -> None:
    """`memory:` needs no file and says so in its repr."""
    with richstore.open("memory:") as store:
        store["a"] = [1]
        store["a"].append(2)
        assert store["a"] == [1, 2]
        assert "memory:" in repr(store)


def test_map_grows_by_itself(file_box: Any) -> None:
    """More data than any initial map size is stored without a word about sizes."""
    blob = os.urandom(2**20)
    for number in range(40):
        file_box.store[number] = blob
    assert all(value == blob for value in file_box.reopen().values())


# --- values ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ATOMS)
def test_immutable_values_round_trip(box: Any, name: str) -> None:
    """Values with nothing to change inside come back equal and of the same type."""
    value = ATOMS[name]
    box.store["k"] = value
    box.store["in"] = [value, {"k": value}]
    for store in box.live_and_reopened():
        assert store["k"] == value
        assert canonical(richstore.plain(store["k"])) == canonical(value)
        assert canonical(richstore.plain(store["in"])) == canonical([value, {"k": value}])


@pytest.mark.parametrize("inside", ["top", "nested"])
@pytest.mark.parametrize("name", CHANGES)
def test_changes_in_place_are_kept(box: Any, name: str, inside: str) -> None:
    """A value of any type round-trips, and a change inside it is seen at once and kept."""
    make, change = CHANGES[name]
    reach = (lambda value: value) if inside == "top" else (lambda value: value[0]["k"])
    wrap = (lambda value: value) if inside == "top" else (lambda value: [{"k": value}])
    model = wrap(make())
    box.store["k"] = wrap(make())
    assert canonical(box.stored("k")) == canonical(model)
    assert isinstance(reach(box.store["k"]), type(reach(model))) or "local" in name
    for _round in range(2):  # the second one on what was read back
        change(reach(model))
        change(reach(box.store["k"]))
        assert canonical(richstore.plain(box.store["k"])) == canonical(model)
        assert canonical(box.stored("k")) == canonical(model)


@pytest.mark.parametrize("name", CHANGES)
def test_changes_through_a_held_reference_are_kept(box: Any, name: str) -> None:
    """A reference taken before the store is changed elsewhere still reaches the stored value."""
    make, change = CHANGES[name]
    model = make()
    box.store["k"] = make()
    held = box.store["k"]
    box.store["other"] = 1
    change(model)
    change(held)
    assert canonical(box.stored("k")) == canonical(model)


@pytest.mark.parametrize("name", CHANGES)
def test_the_callers_object_is_never_adopted(store: Any, name: str) -> None:
    """The object passed in stays the caller's: changing it later changes nothing in the store."""
    make, change = CHANGES[name]
    mine, expected = make(), canonical(make())
    store["k"] = mine
    store["list"] = [1]
    store["list"].append(mine)
    assert canonical(mine) == expected
    change(mine)
    assert canonical(richstore.plain(store["k"])) == expected
    assert canonical(richstore.plain(store["list"][1])) == expected
    change(store["k"])
    assert canonical(richstore.plain(store["list"][1])) == expected


@pytest.mark.parametrize("name", CHANGES)
def test_values_under_different_keys_are_independent(box: Any, name: str) -> None:
    """Assigning what was read under one key to another copies it."""
    make, change = CHANGES[name]
    model = make()
    box.store["a"] = make()
    box.store["b"] = box.store["a"]
    change(model)
    change(box.store["a"])
    assert canonical(box.stored("b")) == canonical(make())
    assert canonical(box.stored("a")) == canonical(model)


def test_code_values_work_after_reopening(box: Any) -> None:
    """Lambdas, closures and local classes can be used after the file was opened again."""
    offset = 10
    box.store["f"] = [lambda x: x + offset]
    box.store["class"] = type(make_local())
    store = box.reopen()
    assert store["f"][0](5) == 15
    assert store["class"]().add(2) == 2


def test_live_class_is_used_and_never_reset(box: Any) -> None:
    """A stored class or instance of a local class gives the live class as it is now."""
    local = make_local()
    cls = type(local)
    cls.counter = 1
    box.store["k"] = local
    box.store["class"] = cls
    cls.counter = 2
    store = box.reopen()
    assert store["class"] is cls
    assert isinstance(store["k"], cls)
    assert cls.counter == 2


def test_numpy_arrays(box: Any) -> None:
    """A numpy array round-trips; a change in it is kept or refused with the remedy."""
    numpy = pytest.importorskip("numpy")
    box.store["k"] = {"a": numpy.arange(6).reshape(2, 3)}
    model = numpy.arange(6).reshape(2, 3)
    assert numpy.array_equal(richstore.plain(box.reopen()["k"])["a"], model)
    array = box.store["k"]["a"]
    assert isinstance(array, numpy.ndarray)
    array[0, 1] = 50
    model[0, 1] = 50
    array += 1
    model += 1
    array.sort(axis=0)
    model.sort(axis=0)
    assert (array == model).all()
    assert canonical(box.stored("k")["a"]) == canonical(model)


def test_attrs_and_pydantic(box: Any) -> None:
    """Attrs classes and pydantic models are tracked as other classes are, validation included."""
    attrs, pydantic = pytest.importorskip("attrs"), pytest.importorskip("pydantic")
    for make, error in ((attrs_class(attrs), TypeError), (pydantic_class(pydantic), ValueError)):
        box.store["k"] = make(number=1, tags=["a"])
        value = box.store["k"]
        assert isinstance(value, make)
        value.tags.append("b")
        value.number = 2
        with pytest.raises(error):
            value.number = "many"
        assert box.stored("k") == make(number=2, tags=["a", "b"])
        assert box.store["k"] == make(number=2, tags=["a", "b"])


def test_big_values(box: Any) -> None:
    """Values far larger than a page keep every item through changes at any place."""
    model = {"rows": [{"id": n, "tags": [str(n)] * 5} for n in range(3000)], "blob": "x" * 300_000}
    box.store["k"] = model
    for at in (0, 1500, 2999):
        model["rows"][at]["tags"].append("new")
        box.store["k"]["rows"][at]["tags"].append("new")
    model["rows"].insert(1000, [1])
    box.store["k"]["rows"].insert(1000, [1])
    del model["rows"][10:2000:3]
    del box.store["k"]["rows"][10:2000:3]
    assert box.store["k"] == model
    assert box.stored("k") == model


def test_deep_values(box: Any) -> None:
    """A value nested a few hundred levels deep is stored, changed at the bottom and read back."""
    top: list[Any] = []
    for _level in range(300):
        top = [top]
    box.store["k"] = top
    deepest = box.store["k"]
    while len(deepest):
        deepest = deepest[0]
    deepest.append("bottom")
    value = box.stored("k")
    for _level in range(300):
        value = value[0]
    assert value == ["bottom"]


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS takes UTF-8 alone")
def test_a_path_that_is_not_utf8(tmp_path: Path) -> None:
    """A file may have any name that the file system takes, and be copied from and to one."""
    path = tmp_path / os.fsdecode(b"shop-\xff.db")
    with richstore.open(path) as store:
        store["a"] = [1]
        store["a"].append(2)
        store.backup(f"{path}.copy", compact=True)
    for name in (path, f"{path}.copy"):
        with richstore.open(name, "r") as store:
            assert store["a"] == [1, 2] and store.verify().ok
