"""Big values that change beside errors, loops, deletion, threads and snapshots."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from conftest import canonical
from sample_classes import Bare, Cached, FrozenPoint
from test_big import N, numbered, rows

import richstore

pytestmark = pytest.mark.timeout(90)

plain = richstore.plain


def failing(items: Any) -> Iterator[Any]:
    """Yield the items, then raise."""
    yield from items
    raise LookupError("iterable")


# --- rollback -------------------------------------------------------------------------------


def insert_many(big: Any) -> None:
    """Insert in the middle and raise."""
    for n in range(300):
        big.insert(1000, {"new": n})
    raise LookupError("stop")


FAILURES: dict[str, Callable[[Any], Any]] = {
    "insert": insert_many,
    "clear": lambda big: (big.clear(), big.extend([1]), {}["stop"]),
    "delete": lambda big: (big.__delitem__(slice(10, 1990)), big[5].update(x=1), {}["stop"]),
    "reverse": lambda big: (big.reverse(), big[3].update(x=[1]), {}["stop"]),
    "replace": lambda big: (big.__setitem__(slice(None), rows(5000)), {}["stop"]),
    "extend": lambda big: big.extend(failing(rows(3000))),
    "bad item": lambda big: big.extend([*rows(1500), threading.Lock(), *rows(1500)]),
    "bad slice": lambda big: big.__setitem__(slice(100, 1900), [*rows(1500), threading.Lock()]),
    "sort": lambda big: big.sort(key=lambda row: row["n"] if row["n"] != 1990 else {}["stop"]),
    "nested": lambda big: (
        big[1500].update(deep=rows(2000)),
        big[1500]["deep"].clear(),
        {}["stop"],
    ),
    "alias": lambda big: (big.append(big[7]), big.__delitem__(7), big[-1].update(x=1), {}["stop"]),
}


SINGLE = {"extend", "bad item", "bad slice", "sort"}  # one change: undone without a block too
CASES = [
    (failure, where)
    for failure in FAILURES
    for where in ("alone", "block", "savepoint", "caught")
    if where != "alone" or failure in SINGLE
]


@pytest.mark.parametrize(("failure", "where"), CASES)
def test_rollback(box: Any, failure: str, where: str) -> None:
    """An error in the middle of reorganising a big list leaves list and held rows as they were."""
    box.store["k"] = {"rows": rows(), "other": [0]}
    k = box.store["k"]
    big, model = k["rows"], {"rows": rows(), "other": [0]}
    held = {n: big[n] for n in (0, 5, 7, 1500, N - 1)}
    expected = (LookupError, richstore.EncodingError)
    if where == "alone":
        with pytest.raises(expected):
            FAILURES[failure](big)
    elif where == "block":
        with pytest.raises(expected), box.store.transaction():
            k["other"].append("gone")
            FAILURES[failure](big)
    else:
        with box.store.transaction() as transaction:
            big.append("kept")
            model["rows"].append("kept")  # type: ignore[arg-type]
            if where == "savepoint":
                savepoint = transaction.savepoint()
                with pytest.raises(expected):
                    FAILURES[failure](big)
                transaction.rollback_to(savepoint)
            else:
                with pytest.raises(expected), box.store.transaction():
                    FAILURES[failure](big)
            assert k == model
            k["other"].append("kept")
            model["other"].append("kept")  # type: ignore[arg-type]
    assert k == model
    for n, row in held.items():
        assert big[n] is row
        row["after"] = True
        model["rows"][n]["after"] = True
    assert big == model["rows"]
    assert box.stored("k") == model


DICT_FAILURES: dict[str, Callable[[Any], Any]] = {
    "update": lambda big: big.update(failing((f"new {n}", [n]) for n in range(3000))),
    "bad value": lambda big: big.update({**numbered(3000), "bad": [threading.Lock()]}),
    "ior": lambda big: big.__ior__(failing((f"new {n}", [n]) for n in range(3000))),
    "unhashable": lambda big: big.update([*((n, [n]) for n in range(2000)), ([], 1)]),
}


@pytest.mark.parametrize("failure", DICT_FAILURES)
def test_rollback_of_a_dict(box: Any, failure: str) -> None:
    """An error in the middle of updating a big dict leaves content, order and held values."""
    box.store["k"] = numbered()
    big = box.store["k"]
    held = big["key 01500"]
    expected = (LookupError, TypeError)
    with pytest.raises(expected):
        DICT_FAILURES[failure](big)
    assert list(big.items()) == list(numbered().items())
    assert big["key 01500"] is held
    held.append("after")
    model = numbered()
    model["key 01500"].append("after")
    assert list(box.stored("k").items()) == list(model.items())


def test_the_error_names_the_place(box: Any) -> None:
    """An item that cannot be stored is named by its place in the big value."""
    box.store["k"] = {"rows": rows(), "names": numbered()}
    k = box.store["k"]
    attempts: dict[str, Callable[[], Any]] = {
        f"['k']['rows'][{N + 3}]": lambda: k["rows"].extend([1, 2, 3, threading.Lock()]),
        f"['k']['rows'][{N}]['a'][0]": lambda: k["rows"].append({"a": [threading.Lock()]}),
        "['k']['rows'][1500]": lambda: k["rows"].__setitem__(1500, threading.Lock()),
        "['k']['rows'][1500]['x']": lambda: k["rows"][1500].update(x=threading.Lock()),
        "['k']['names']['key 01500'][2]": lambda: k["names"]["key 01500"].append(threading.Lock()),
        "['new'][1900]['x']": lambda: box.store.__setitem__(
            "new", [*rows(1900), {"x": threading.Lock()}]
        ),
    }
    for path, attempt in attempts.items():
        with pytest.raises(richstore.EncodingError) as caught:
            attempt()
        assert caught.value.path == path
    assert "new" not in box.store


def test_what_was_born_in_a_rolled_back_block_is_detached(box: Any) -> None:
    """Rows that a rolled back block added to a big list read on and refuse change."""
    box.store["k"] = rows()
    big = box.store["k"]
    with pytest.raises(LookupError), box.store.transaction():
        big[1000:1000] = rows(1500)
        born, deep = big[1700], numbered()
        big[3]["deep"] = deep
        deep = big[3]["deep"]
        raise LookupError
    assert born == rows()[700]
    assert deep == numbered()
    for attempt in (lambda: born.clear(), lambda: deep.clear(), lambda: deep["key 00001"].clear()):
        with pytest.raises(richstore.DetachedError):
            attempt()
    assert not richstore.is_tracked(born)


# --- iteration while changing ---------------------------------------------------------------


def test_iteration_outside_a_block_walks_what_it_began_with(box: Any) -> None:
    """An iterator over a big container goes on over its first state, whatever is committed."""
    box.store.update(list=rows(), dict=numbered(), set=set(range(N)))
    big, names, members = box.store["list"], box.store["dict"], box.store["set"]
    iterators = [iter(big), reversed(big), iter(names), iter(names.items()), reversed(names)]
    iterators += [iter(names.values()), iter(members)]
    first = [plain(next(iterator)) for iterator in iterators]
    big.reverse()
    del big[100:1900]
    big.insert(0, "new")
    names.clear()
    names.update(new=1)
    members.clear()
    rest = [[a, *plain(list(iterator))] for a, iterator in zip(first, iterators, strict=True)]
    old = numbered()
    assert rest[:2] == [rows(), rows()[::-1]]
    assert rest[2] == list(old)
    assert rest[3] == list(old.items())
    assert rest[4:6] == [list(old)[::-1], list(old.values())]
    assert sorted(rest[6]) == list(range(N))
    assert (len(big), dict(names), set(members)) == (201, {"new": 1}, set())


def test_a_loop_that_appends_ends(box: Any) -> None:
    """A loop outside a block over what it appends to sees the items there were."""
    box.store["k"] = list(range(N))
    big = box.store["k"]
    for at, n in enumerate(big):
        if at % 50 == 0:
            big.append(n)
    assert big == [*range(N), *range(0, N, 50)]
    assert box.stored("k") == [*range(N), *range(0, N, 50)]


def test_iteration_inside_a_block_is_that_of_python(box: Any) -> None:
    """Inside a block a loop sees what it appends; a dict or set that changes its size raises."""
    box.store.update(list=list(range(N)), dict=numbered(), set={f"m {n}" for n in range(N)})
    big, names, members = box.store["list"], box.store["dict"], box.store["set"]
    with box.store.transaction():
        big.append(N)
        names["first"] = 1
        members.add("first")
        seen = 0
        for n in big:
            seen += 1
            if n < 10:
                big.append(100_000)
        assert seen == N + 11
        gone = 0
        for n in big:  # each removal skips the item after it
            if n < 1000:
                big.remove(n)
                gone += 1
            if n == 1000:
                break
        assert gone == 500
        for view in (names, names.keys(), names.values(), names.items()):
            with pytest.raises(RuntimeError, match="changed size"):
                for at, _ in enumerate(view):
                    if at == 700:
                        names[f"new {len(names)}"] = 1
        with pytest.raises(RuntimeError, match="changed size"):
            for at, _ in enumerate(members):
                if at == 700:
                    members.add("new")
        for key in names:  # same size: allowed
            names[key] = [key]
    assert all(names[key] == [key] for key in names)
    assert len(big) == N + 11 - 500


def test_views_of_a_big_dict_are_live(box: Any) -> None:
    """Views of a big dict show what is added and removed after they were made."""
    box.store["k"] = numbered()
    big = box.store["k"]
    keys, values, items = big.keys(), big.values(), big.items()
    big["new"] = [1]
    del big["key 00700"]
    assert (len(keys), len(values), len(items)) == (N, N, N)
    assert "new" in keys
    assert "key 00700" not in keys
    assert list(keys)[-1] == "new"
    assert list(values)[-1] == [1]
    assert list(items)[-1] == ("new", [1])


# --- deleting -------------------------------------------------------------------------------


def seconds(function: Callable[[], Any]) -> float:
    """Return how long a call computes; what other processes take does not count."""
    began = time.thread_time()
    function()
    return time.thread_time() - began


ENDS: dict[str, Callable[[Any, Any], Any]] = {
    "clear": lambda store, key: store[key].clear(),
    "delete": lambda store, key: store.__delitem__(key),
    "overwrite": lambda store, key: store.__setitem__(key, [1]),
    "nested": lambda store, key: store["n"].pop(key) and None,
    "slice": lambda store, key: store[key].__delitem__(slice(10, None)),
}


# what a whole value is does not matter to whoever deletes or overwrites it
@pytest.mark.parametrize(
    ("kind", "end"),
    [
        ("list", "clear"),
        ("dict", "clear"),
        ("set", "clear"),
        ("list", "delete"),
        ("dict", "overwrite"),
    ],
)
def test_deleting_costs_nothing(file_box: Any, kind: str, end: str) -> None:
    """Clearing, deleting or overwriting 100,000 items takes about the time of 500."""
    make: dict[str, Callable[[int], Any]] = {
        "list": lambda count: list(range(count)),
        "dict": lambda count: dict.fromkeys(range(count), 1.5),
        "set": lambda count: set(range(count)),
    }
    for n in range(3):
        file_box.store["huge", n], file_box.store["small", n] = make[kind](100_000), make[kind](500)
    store = file_box.reopen()
    times = {
        size: min(seconds(lambda n=n, size=size: ENDS[end](store, (size, n))) for n in range(3))
        for size in ("small", "huge")
    }
    assert times["huge"] < 5 * times["small"] + 0.005
    for size in ("small", "huge"):
        assert all(len(store.get((size, n), "x")) <= 1 for n in range(3))
    store["after"] = [1]
    assert store.verify().ok
    assert store.compact() > 10
    assert store.verify().waiting == 0
    assert store.compact() == 0


def test_deleted_space_is_reclaimed_by_later_writes(file_box: Any) -> None:
    """Small commits after a big deletion free its records bit by bit, until none is waiting."""
    store = file_box.store
    store["k"], store["n"] = rows(20_000), 0
    del store["k"]
    waiting = [store.verify().waiting]
    assert waiting[0] > 10
    for n in range(2000):
        store["n"] = n
        if n % 50 == 0:
            waiting.append(store.verify().waiting)
            if not waiting[-1]:
                break
    assert waiting[-1] == 0
    assert waiting == sorted(waiting, reverse=True)
    assert store.verify().records == 1


@pytest.mark.parametrize("end", ["clear", "delete", "overwrite", "nested", "slice"])
def test_detached_faces_of_big_values(box: Any, end: str) -> None:
    """What was held of a big value refuses change once it has left, and reads as it was."""
    value = {"rows": rows(), "names": numbered()} if end != "slice" else rows()
    key: Any = "names" if end == "nested" else "k"
    box.store["n"] = {"names": numbered()}
    box.store["k"] = value if end != "clear" else numbered()
    if end == "nested":
        names = box.store["n"]["names"]
    elif end == "slice":
        names = None
    else:
        names = box.store["k"]["names"] if end != "clear" else None
    held = {
        "clear": lambda: [box.store["k"]["key 01500"]],
        "slice": lambda: [box.store["k"][1500]],
        "nested": lambda: [names, names["key 01500"]],
    }.get(end, lambda: [box.store["k"]["rows"], names, names["key 01500"], box.store["k"]])()
    before = [plain(face) for face in held[1:]]
    ENDS[end](box.store, key)
    assert [plain(face) for face in held[1:]] == before
    if end in {"delete", "overwrite"}:
        assert held[0] == rows()
        assert held[0][1999] == rows()[1999]
        assert list(reversed(held[0]))[1999] == rows()[0]
    for face in held:
        assert not richstore.is_tracked(face)
        with pytest.raises(richstore.DetachedError):
            face.clear()
        with pytest.raises(richstore.DetachedError):
            face.update(new=1) if isinstance(face, dict) else face.append(1)
    box.store["later"] = [1]


def test_unloaded_content_of_what_was_deleted(box: Any) -> None:
    """A deleted big list of which nothing was loaded reads right, or says that it is gone."""
    box.store["k"] = rows()
    face = box.reopen()["k"]
    del box.store["k"]
    for n in range(200):
        box.store["n"] = n
    box.store.compact()
    try:
        found = plain(face)
    except richstore.RichStoreError as error:
        assert isinstance(error, richstore.DetachedError)
    else:
        assert found == rows()


def test_a_large_value_inside_a_large_one_that_went(box: Any) -> None:
    """A large value that is held can be read when the large one around it is deleted or emptied."""
    for end in (
        lambda store: store.__setitem__("big", []),
        lambda store: store.__delitem__("big"),
        lambda store: store["big"].clear(),
        lambda store: store["big"].__setitem__(slice(None), [3]),
        lambda store: store["big"].__delitem__(slice(0, 5)),
    ):
        box.store["big"] = [list(range(n, n + N)) for n in range(10)]
        held = box.store["big"][1]
        end(box.store)
        assert plain(held) == list(range(1, 1 + N))
        with pytest.raises(richstore.DetachedError):
            held.append(1)


def test_an_instance_of_many_bytes_that_is_watched(box: Any) -> None:
    """An instance whose class writes into its own `__dict__` may be larger than a page."""
    box.store["k"] = [Cached([1, 2]), FrozenPoint(3)]
    for at in range(2):
        for n in range(40):
            vars(box.store["k"][at])[f"name {n}"] = "x" * 300
    box.store["k"][0].numbers.append(4)
    assert box.store["k"][0].total == 7
    for store in box.live_and_reopened():
        assert vars(store["k"][0])["name 39"] == vars(store["k"][1])["name 7"] == "x" * 300


def test_repr_of_large_values_that_hold_themselves(box: Any) -> None:
    """repr, str and format of a list or dict that contains itself end, and are those of Python."""
    expected: list[Any] = list(range(N))
    table: dict[Any, Any] = dict.fromkeys(range(N))
    expected += [expected, table]
    table |= {"self": table, "list": [expected]}
    box.store["k"] = expected
    for store in box.live_and_reopened():
        stored = store["k"]
        assert repr(stored) == str(stored) == f"{stored}" == repr(expected)
        assert repr(stored[-1]) == str(stored[-1]) == f"{stored[-1]}" == repr(table)
        with store.snapshot() as view:
            assert repr(view["k"]) == repr(expected)


def test_a_popped_item_that_refers_to_what_it_was_in(box: Any) -> None:
    """What a pop returns shows the large container without the item, as Python does."""
    box.store["k"] = {"list": list(range(N)), "dict": dict.fromkeys(range(N)), "set": set(range(N))}
    value = box.store["k"]
    value["list"][N // 2] = (value["list"],)
    value["dict"][N // 2] = [value["dict"]]
    value["list"].append([value["list"]])
    value["dict"]["last"] = [value["dict"]]
    for where in (contextlib.nullcontext(), box.store.transaction()):
        with where:
            popped = value["list"].pop()
            assert canonical(popped) == canonical([plain(value["list"])])
            popped = value["list"].pop(N // 2)
            assert canonical(popped) == canonical((plain(value["list"]),))
            popped = value["dict"].popitem()
            assert canonical(popped) == canonical(("last", [plain(value["dict"])]))
            popped = value["dict"].pop(N // 2)
            assert canonical(popped) == canonical([plain(value["dict"])])
            value["list"].insert(N // 2, (value["list"],))
            value["dict"][N // 2] = [value["dict"]]
            value["list"].append([value["list"]])
            value["dict"]["last"] = [value["dict"]]


def test_an_item_that_moved_out_of_what_went(box: Any) -> None:
    """An item put beside the large container that held it can be changed in the same block, and
    not once the new place is gone too.
    """
    box.store["k"] = {name: {n: {n} for n in range(N)} for name in ("big", "other")}
    value = box.store["k"]
    with box.store.transaction():
        value["one"] = value["big"][7]
        del value["big"]
        value["one"].add("x")
        kept = value["one"]
    assert value["one"] is kept
    assert value["one"] == {7, "x"}
    with box.store.transaction():
        moved = value["one"]
        value["new"] = {n: {n} for n in range(N)}
        value["new"][5] = moved
        del value["one"]
        moved.add("y")
        del value["new"]
        with pytest.raises(richstore.DetachedError):
            moved.add("z")
    value["one"] = {7}
    with box.store.transaction():
        moved = value["other"][5]
        value["new"] = dict.fromkeys(range(3), moved)
        del value["other"]
        value["new"][1].add("y")
        del value["new"]
        with pytest.raises(richstore.DetachedError):
            moved.add("z")
    with box.store.transaction():
        moved = value["one"]
        value["new"] = {n: {n} for n in range(N)}
        value["new"][5] = moved
        del value["one"]
        del value["new"]
        with pytest.raises(richstore.DetachedError):
            moved.add("z")
    assert plain(value) == {}


# --- threads and snapshots ------------------------------------------------------------------


def test_readers_see_whole_commits(box: Any) -> None:
    """Another thread that walks a big list while blocks turn it over sees one committed state."""
    size, step = 3000, 100
    box.store["k"] = list(range(size))
    big = box.store["k"]
    stop, broken = threading.Event(), []

    def reader() -> None:
        while not stop.is_set():
            found = list(big)
            if found != list(range(found[0], found[0] + size)) or found[0] % step:
                broken.append(found)
            if len(big) != size:
                broken.append(["length"])
            if big[1500] % step:
                broken.append(["item"])

    threads = [threading.Thread(target=reader) for _ in range(2)]
    for thread in threads:
        thread.start()
    until, turns = time.monotonic() + 1, 0
    while time.monotonic() < until:
        turns += 1
        with box.store.transaction():
            del big[:step]
            first = big[-1] + 1
            big.extend(range(first, first + step // 2))
            big[len(big) :] = range(first + step // 2, first + step)
    stop.set()
    for thread in threads:
        thread.join()
    assert broken == []
    assert big == list(range(turns * step, turns * step + size))


def test_two_threads_write_into_one_big_list(box: Any) -> None:
    """Rows that two threads insert into and delete from one big list are all kept or gone."""
    box.store["k"] = rows()
    big = box.store["k"]
    failures: list[BaseException] = []

    def work(name: int, held: Any) -> None:
        try:
            for n in range(80):
                big.insert(n * 17, {"by": name, "at": n})
                held["count"] = held.get("count", 0) + 1
                if n % 4 == 0:
                    with box.store.transaction():
                        wanted = 1000 + 500 * name + n
                        del big[next(i for i, x in enumerate(big) if x.get("n") == wanted)]
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(name, big[500 + name])) for name in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    stored = box.stored("k")
    assert len(stored) == N + 160 - 40
    assert sorted((row["by"], row["at"]) for row in stored if "by" in row) == [
        (name, n) for name in range(2) for n in range(80)
    ]
    assert [row["count"] for row in stored if "count" in row] == [80, 80]


def test_a_snapshot_outlives_reorganisation(box: Any) -> None:
    """A snapshot shows the big value it was taken of, loaded before or after the changes."""
    box.store.update(k=rows(), d=numbered())
    with box.store.snapshot() as early, box.store.snapshot() as late:
        iterator = iter(early["k"])
        first, some = next(iterator), early["k"][1500]
        big = box.store["k"]
        big.reverse()
        del big[5:1500]
        big[100:100] = rows(1000)
        big.clear()
        del box.store["d"]
        for n in range(300):
            box.store["n"] = [n]
        box.store.compact()
        assert [plain(first), *plain(list(iterator))] == rows()
        assert some == rows()[1500]
        for view in (early, late):
            assert view["k"] == rows()
            assert list(view["d"].items()) == list(numbered().items())
            assert plain(view["k"][-1]) == rows()[-1]
            with pytest.raises(richstore.ReadOnlyError):
                view["k"].append(1)
            with pytest.raises(richstore.ReadOnlyError):
                view["d"]["key 01500"].append(1)
    assert box.store["k"] == []
    box.store.compact()
    assert box.store.verify().waiting == 0


@pytest.mark.parametrize("who", ["another handle", "this one"])
@pytest.mark.parametrize("kind", [dict, list, set, Bare])
def test_a_shared_part_that_was_never_read_is_not_empty(path: str, kind: Any, who: str) -> None:
    """What left the store before it was read raises when it is used, and shows nothing else."""
    shared = {dict: {"x": 1}, list: [1], set: {1}, Bare: Bare(x=1)}[kind]
    with contextlib.ExitStack() as opened:
        with richstore.open(path, synchronous="off") as store:
            store["rows"] = [{"n": n, "shared": shared} for n in range(3_000)]
        store = reader = opened.enter_context(richstore.open(path, synchronous="off"))
        if who == "another handle":
            # one that only reads has live values of its own, as another process
            reader = opened.enter_context(richstore.open(path, "r"))
        held = reader["rows"][5]["shared"]
        del store["rows"]
        store.compact()
        with pytest.raises(richstore.DetachedError, match="not read"):
            vars(held) if kind is Bare else len(held)
        with pytest.raises(richstore.DetachedError, match="not read"):
            richstore.plain(held)


def test_a_part_of_what_another_handle_has_cleared_is_not_tracked(path: str) -> None:
    """A row has left the store with its list, however long its page is not reclaimed."""
    with richstore.open(path, synchronous="off") as store:
        store["rows"] = [[n] * 50 for n in range(10_000)]
        with richstore.open(path, "r") as reader:
            held = reader["rows"][-5]
            store["rows"].clear()
            assert store.verify().waiting > 50, "all is reclaimed already"
            reader.refresh()
            assert not richstore.is_tracked(held)
            assert held == [9_995] * 50
