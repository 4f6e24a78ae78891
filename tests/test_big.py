"""Values of any size: identity, aliases, moves, rollback, iteration and keys of big containers.

What a held container is does not depend on how many records its holder is spread over, nor on how
it was reorganised since. `test_big_parity` has every method and operator.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from conftest import canonical
from sample_classes import Account

import richstore

pytestmark = pytest.mark.timeout(90)

N = 2000
plain = richstore.plain


def rows(count: int = N, start: int = 0) -> list[dict[str, Any]]:
    """Return small dicts, each with its number and text that is its own."""
    return [{"n": n, "text": f"row {n * 7919 % 100_003:06}"} for n in range(start, start + count)]


def numbered(count: int = N) -> dict[str, list[Any]]:
    """Return a dict of small lists."""
    return {f"key {n:05}": [n, f"value {n * 7919 % 100_003:06}"] for n in range(count)}


@contextlib.contextmanager
def alone(_store: Any) -> Iterator[None]:
    """Stand where a block could: each change is a commit of its own."""
    yield


WAYS: dict[str, Callable[[Any], Any]] = {"block": lambda s: s.transaction(), "alone": alone}
ways = pytest.mark.parametrize("way", WAYS)


def test_big_values_spread(box: Any) -> None:
    """The values of this module are larger than one record, and small ones are one."""
    box.store["list"], box.store["dict"] = rows(), numbered()
    box.store["set"], box.store["small"] = {f"member {n:06}" for n in range(N)}, [1, {"a": 2}]
    report = box.store.verify()
    assert report.values == 4
    assert report.records > 30
    for key in ("list", "dict", "set"):
        del box.store[key]
    box.store.compact()
    assert box.store.verify().records == 1


# --- growing and shrinking ------------------------------------------------------------------


@ways
def test_list_grows_and_shrinks(box: Any, way: str) -> None:
    """A list that grows and shrinks many times keeps content, order and its rows' identity."""
    box.store["k"] = rows(1)
    model, live = rows(1), box.store["k"]
    first = live[0]
    for size in (10, 2500, 5, 1800, 300, 1500, 2):
        with WAYS[way](box.store):
            if size > len(model):
                middle, new = len(model) // 2 + 1, rows(size - len(model), len(model))
                model[middle:middle] = new
                live[middle:middle] = new
            else:
                del model[1 : 1 + len(model) - size]
                del live[1 : 1 + len(live) - size]
            assert live == model
        assert live[0] is first
        assert box.store["k"] is live
        assert len(live) == size
    first["seen"] = model[0]["seen"] = True
    assert live == model
    assert box.stored("k") == model


@ways
def test_dict_grows_and_shrinks(box: Any, way: str) -> None:
    """A dict that grows and shrinks many times keeps content, order and its values' identity."""
    box.store["k"] = {"held": [0]}
    model: dict[str, Any] = {"held": [0]}
    live = box.store["k"]
    held = live["held"]
    for size in (10, 2500, 5, 1800, 300, 1500, 2):
        with WAYS[way](box.store):
            for v in (model, live):
                if size > len(v):
                    v.update((f"{size} {n}", [n]) for n in range(size - len(v)))
                else:
                    with box.store.transaction():
                        for key in list(v)[size:]:
                            del v[key]
            held.append(size)
            model["held"].append(size)
        assert live["held"] is held
        assert list(live) == list(model)
    assert live == model
    assert list(box.stored("k").items()) == list(model.items())


@ways
def test_set_grows_and_shrinks(box: Any, way: str) -> None:
    """A set that grows and shrinks many times keeps its elements."""
    box.store["k"] = {("x", 1)}
    model, live = {("x", 1)}, box.store["k"]
    for size in (10, 2500, 5, 1800, 300, 1500, 2):
        with WAYS[way](box.store):
            new = {("x", n * 7919) for n in range(size)}
            for v in (model, live):
                v.update(new)
                v.intersection_update(new)
        assert live == model
        assert len(live) == size
    assert box.store["k"] is live
    assert box.stored("k") == model


def test_one_item_around_every_size(box: Any) -> None:
    """A list that gains and loses one item again and again is right at each size it passes."""
    box.store["k"] = {"list": [], "dict": {}, "set": set()}
    k = box.store["k"]
    model: dict[str, Any] = {"list": [], "dict": {}, "set": set()}
    dice = random.Random(1)
    for step in range(600):
        grow = dice.random() < (0.8 if step % 200 < 100 else 0.2)
        with box.store.transaction():
            for v in (k, model):
                if grow:
                    v["list"].insert(step % 7, {"step": step})
                    v["dict"][f"a somewhat longer key {step}"] = [step]
                    v["set"].add(f"a somewhat longer member {step}")
                elif v["list"]:
                    v["list"].pop(step % len(v["list"]))
                    v["dict"].popitem()
                    v["set"].discard(f"a somewhat longer member {step - 50}")
        if step % 60 == 0:
            assert k == model
            assert list(k["dict"]) == list(model["dict"])
    assert box.stored("k") == model


# --- identity -------------------------------------------------------------------------------


@ways
def test_held_items_stay_themselves(box: Any, way: str) -> None:
    """Rows held while the list around them is reorganised stay its rows, and are changed in it."""
    box.store["k"] = rows()
    big = box.store["k"]
    held = {n: big[n] for n in (0, 1, 500, 999, 1500, N - 1)}
    with WAYS[way](box.store):
        for n in range(30):
            big.insert(0, {"new": n})
        big[700:700] = [{"middle": n} for n in range(1500)]
        del big[100:400]
        for n in range(30):
            big.insert(200 + n, [n])
    found = {row["n"]: at for at, row in enumerate(big) if isinstance(row, dict) and "n" in row}
    return_to = {n: found[n] for n in held if n in found}
    for n, at in return_to.items():
        assert big[at] is held[n]
        held[n]["seen"] = n
    assert len(return_to) == 6
    stored = box.stored("k")
    assert [stored[at]["seen"] for at in return_to.values()] == list(return_to)


def test_held_row_of_a_split_list(box: Any) -> None:
    """A row that is held keeps its identity through inserts before it and around it."""
    box.store["k"] = rows(1000)
    big = box.store["k"]
    x = big[500]
    for n in range(400):
        big.insert(0 if n % 2 else 500 + n, {"new": n})
    x["n"] = "changed"
    (at,) = (at for at, row in enumerate(big) if row.get("n") == "changed")
    assert big[at] is x
    assert big.index(x) == at
    assert box.stored("k")[at]["n"] == "changed"


def test_items_of_a_big_dict_stay_themselves(box: Any) -> None:
    """A value that is held stays the value of its key when the dict is reorganised around it."""
    box.store["k"] = numbered()
    big = box.store["k"]
    held = {key: big[key] for key in list(big)[::300]}
    with box.store.transaction():
        for key in list(big):
            if key not in held:
                del big[key]
    assert list(big) == list(held)
    for n in range(1500):
        if n % 100 == 0:
            big[f"new {n}"] = [n]
    big.update((f"more {n}", [n]) for n in range(3000))
    for key, value in held.items():
        assert big[key] is value
        value.append("seen")
    assert all(value[-1] == "seen" for value in list(box.stored("k").values())[: len(held)])


def test_nothing_held_is_lost_to_the_cache(tmp_path: Any) -> None:
    """With hardly any cache, what is held stays itself and what is not comes back when asked."""
    target = str(tmp_path / "t.db")
    with richstore.open(target, synchronous="off", cache_size=10_000) as store:
        store["k"] = rows(3000)
        big = store["k"]
        held = big[1234]
        for _ in range(2):
            assert sum(row["n"] for row in big) == sum(range(3000))
        assert big[1234] is held
        held["seen"] = [1]
        seen = held["seen"]
        assert [row["n"] for row in reversed(big)] == list(range(2999, -1, -1))
        seen.append(2)
        assert big[1234]["seen"] is seen
        with store.snapshot() as view:
            assert view["k"][1234]["seen"] == [1, 2]


# --- aliases, moves, cycles -----------------------------------------------------------------


def test_aliases_across_a_big_list(box: Any) -> None:
    """One row at both ends of a big list is one row, live and reopened, until one place goes."""
    box.store["k"] = rows()
    big = box.store["k"]
    big.append(big[0])
    big.insert(1000, big[-1])
    assert big[0] is big[-1] is big[1000]
    for store in box.live_and_reopened():
        big = store["k"]
        assert big[0] is big[-1] is big[1000]
        big[0].setdefault("seen", []).append(1)
        assert big[-1]["seen"] is big[1000]["seen"]
    with box.store.snapshot() as view:
        assert view["k"][0] is view["k"][-1]
        copied = plain(view["k"])
        assert copied[0] is copied[-1] is copied[1000]
    del big[0]
    assert big[-1] is big[999]
    big[-1]["after"] = True
    assert box.stored("k")[999] == box.stored("k")[-1]
    big = box.store["k"]
    held = big[-1]
    del big[-1]
    assert big[999] is held
    held["last"] = True
    assert box.stored("k")[999]["last"] is True


def test_aliases_across_a_big_dict(box: Any) -> None:
    """One list under far keys of a big dict, and in a big list beside it, is one list."""
    box.store["k"] = {"dict": numbered(), "list": rows()}
    k = box.store["k"]
    shared = k["dict"]["key 00003"]
    k["dict"]["key 01900"] = shared
    k["list"][1700]["shared"] = shared
    for store in box.live_and_reopened():
        k = store["k"]
        shared = k["dict"]["key 00003"]
        assert k["dict"]["key 01900"] is shared is k["list"][1700]["shared"]
        shared.append("x")
    del k["dict"]["key 00003"], k["list"][1700]
    assert richstore.is_tracked(k["dict"]["key 01900"])
    k["dict"]["key 01900"].append("y")
    assert box.stored("k")["dict"]["key 01900"][2:] == ["x", "x", "y"] or box.in_memory
    assert box.stored("k")["dict"]["key 01900"][-1] == "y"


def test_one_value_stored_with_aliases(box: Any) -> None:
    """A big value assigned with aliases and cycles in it has the same ones in the store."""
    shared: list[Any] = [1]
    holder: dict[str, Any] = {"rows": [], "names": {}, "shared": shared}
    for n in range(N):
        holder["rows"].append({"n": n, "parent": holder, "shared": shared if n % 500 == 0 else [n]})
        holder["names"][f"name {n}"] = holder["rows"][n]
    box.store["k"] = holder
    for store in box.live_and_reopened():
        k = store["k"]
        assert k["rows"][1500]["parent"] is k
        assert k["rows"][1500]["shared"] is k["shared"] is k["rows"][0]["shared"]
        assert all(k["names"][f"name {n}"] is k["rows"][n] for n in range(0, N, 111))
    assert canonical(box.stored("k")) == canonical(holder)


@ways
def test_swaps_keep_identity(box: Any, way: str) -> None:
    """Far rows that are swapped by assignment stay the rows they were."""
    box.store["k"], model = rows(), rows()
    big = box.store["k"]
    dice = random.Random(2)
    with WAYS[way](box.store):
        for _ in range(40):
            i, j = dice.randrange(N), dice.randrange(N)
            before = big[i], big[j]
            big[i], big[j] = big[j], big[i]
            model[i], model[j] = model[j], model[i]
            assert (big[j], big[i]) == before
            assert big[j] is before[0]
            assert big[i] is before[1]
            before[0]["swapped"] = True
            model[j]["swapped"] = True
    assert big == model
    assert box.stored("k") == model


def test_shuffle(box: Any) -> None:
    """random.shuffle of a big list in a block leaves every row, held or not, itself."""
    box.store["k"], model = rows(), rows()
    big = box.store["k"]
    held = {n: big[n] for n in range(0, N, 37)}
    with box.store.transaction():
        random.Random(4).shuffle(big)
    random.Random(4).shuffle(model)
    assert big == model
    for at, row in enumerate(model):
        if row["n"] in held:
            assert big[at] is held[row["n"]]
    held[0]["after"] = True
    next(row for row in model if row["n"] == 0)["after"] = True
    assert box.stored("k") == model


def test_cycles_through_pages(box: Any) -> None:
    """Rows of a big list that refer to the list, and to each other, do so after reopening."""
    box.store["k"] = rows()
    big = box.store["k"]
    with box.store.transaction():
        for n in (0, 700, N - 1):
            big[n]["parent"] = big
            big[n]["next"] = big[(n + 1000) % N]
            big[n + 1 - N]["back"] = big[n]
    for store in box.live_and_reopened():
        big = store["k"]
        assert big[700]["parent"] is big
        assert big[700]["next"] is big[1700]
        assert big[701]["back"] is big[700]
        assert big[N - 1]["parent"][0]["parent"][700]["next"] is big[1700]
    row = big[700]
    big.clear()
    assert not richstore.is_tracked(row)
    assert box.store["k"] is big
    assert box.stored("k") == []


def test_big_inside_big_inside_an_instance(box: Any) -> None:
    """A big dict in an item of a big list in an attribute persists changes at every depth."""
    ann = Account("ann")
    ann.history = rows()
    box.store["k"] = {"ann": ann}
    history = box.store["k"]["ann"].history
    history[1234]["inner"] = numbered()
    inner = history[1234]["inner"]
    leaf = inner["key 01500"]
    leaf.append({"deep": [1]})
    history.insert(0, {"first": True})
    for n in range(300):
        inner[f"new {n}"] = [n]
    leaf[-1]["deep"].append(2)
    assert box.store["k"]["ann"].history[1235]["inner"]["key 01500"] is leaf
    expected = [1500, f"value {1500 * 7919 % 100_003:06}", {"deep": [1, 2]}]
    for store in box.live_and_reopened():
        ann = store["k"]["ann"]
        assert len(ann.history) == N + 1
        assert len(ann.history[1235]["inner"]) == N + 300
        assert ann.history[1235]["inner"]["key 01500"] == expected
    ann.deposit(5)
    del ann.history[1235]["inner"]
    assert [row for row in box.stored("k")["ann"].history if "inner" in row] == []


@ways
def test_big_list_moves_inside_its_value(box: Any, way: str) -> None:
    """A big list put elsewhere in its value and taken from where it was is the same list."""
    box.store["k"] = {"a": {"rows": rows()}, "b": [{"x": 1}]}
    k = box.store["k"]
    moved, row = k["a"]["rows"], k["a"]["rows"][1500]
    with WAYS[way](box.store):
        k["b"].append({"here": moved})
        del k["a"]["rows"]
        moved.insert(0, "moved")
    assert k["b"][1]["here"] is moved
    assert moved[1501] is row
    row["seen"] = True
    model = {"a": {}, "b": [{"x": 1}, {"here": ["moved", *rows()]}]}
    model["b"][1]["here"][1501]["seen"] = True  # type: ignore[index]
    assert k == model
    assert box.stored("k") == model


def test_big_list_copied_to_another_key(box: Any) -> None:
    """A big list assigned under a second key is a copy; the first one stays what it was."""
    box.store["k"] = {"rows": rows()}
    box.store["other"] = box.store["k"]["rows"]
    box.store["other"][1500]["n"] = "other"
    del box.store["other"][:1000]
    assert box.store["k"]["rows"] == rows()
    assert len(box.store["other"]) == 1000
    del box.store["k"]
    assert box.stored("other")[500]["n"] == "other"


def test_popped_items_are_plain(box: Any) -> None:
    """What is popped from a big container is plain data, and what was held of it is detached."""
    box.store["k"] = rows()
    big = box.store["k"]
    held = big[1500]
    popped = big.pop(1500)
    assert type(popped) is dict
    assert popped == rows()[1500]
    assert not richstore.is_tracked(held)
    with pytest.raises(richstore.DetachedError):
        held["n"] = 5
    assert held == popped
    assert len(big) == N - 1
