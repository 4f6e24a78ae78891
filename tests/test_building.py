"""Building large containers: what goes onto pages unseen is what adoption would have put there.

The plain value is the model: whatever a generator, list or dict gives, the store holds an equal
value with the same shared references, live, read again and in another process.
"""

from __future__ import annotations

import collections
import datetime
import gc
import json
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import PurePath
from typing import Any

import pytest
import sample_classes as sample
from conftest import canonical, check_store, child_environment
from sample_classes import Account

import richstore
from richstore import paging
from richstore.node import Node
from richstore.nodes.spread import packing, sources
from richstore.nodes.spread.packing import ALONE, Packer, references

pytestmark = [pytest.mark.timeout(90), pytest.mark.usefixtures("page")]

plain = richstore.plain
N = 2600  # more than is taken before a stream begins


def row(n: int) -> dict[str, Any]:
    """Return a small dict."""
    return {"n": n, "text": f"row {n * 7919 % 100_003:06}"}


def nested(n: int) -> dict[str, Any]:
    """Return a dict with containers inside."""
    return {"n": n, "list": [n, [n + 1, {"deep": {n, n + 1}}]], "key": ("a", n), 5: {(n, "t"): n}}


def of_all_types(n: int) -> Any:
    """Return one of many sorts of values."""
    kinds: list[Callable[[], Any]] = [
        lambda: n,
        lambda: -(n**n % 10**40),
        lambda: n / 7,
        lambda: None,
        lambda: bool(n % 2),
        lambda: f"text {n} äö \U0001f600 \ud800",
        lambda: "x" * (n % 900),
        lambda: bytes(n % 300),
        lambda: complex(n, 1),
        lambda: datetime.date.fromordinal(700_000 + n),
        lambda: (n, (str(n), None)),
        lambda: (n, [n]),
        lambda: frozenset({n, (n,)}),
        lambda: range(n),
        list,
        dict,
        set,
        lambda: [n, str(n)],
        lambda: {n, str(n)},
        lambda: {"n": n, "é": "\ud800"},
        lambda: {(n, "k"): [n]},
        lambda: {Color(f"color {n}"): 1},
        lambda: [[[[[n]]]]],
        lambda: Account("owner", n),
        lambda: {"account": Account("inner", n)},
        lambda: collections.OrderedDict(a=n, b=[n]),
        lambda: collections.deque([n], 3),
        lambda: bytearray(b"b" * (n % 50)),
    ]
    return kinds[n % len(kinds)]()


class Color(str):
    """A subclass of str with an equality of its own."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Color) and str(self) == str(other)

    __hash__ = str.__hash__


def check(box: Any, key: str, expected: Any) -> None:
    """Compare what is stored with a plain value, content and shared references."""
    wanted = canonical(expected)
    check_store(box.store)
    for store in box.live_and_reopened():
        assert canonical(plain(store[key])) == wanted


def test_built_twice_in_one_block(box: Any) -> None:
    """A value that is built under a key in a block can be built again there, the last one stays."""

    def rows(sign: int) -> list[Any]:
        # some of them with a large list of their own
        sizes = [5 if n % 10 else 2000 for n in range(310)]
        return [{"n": sign * n, "more": list(range(n, n + size))} for n, size in enumerate(sizes)]

    first, again = rows(1), rows(-1)
    with box.store.transaction():
        box.store["k"] = first
        box.store["k"] = [dict(row) for row in again]
    check(box, "k", again)


# --- any items ------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [row, nested, of_all_types, lambda n: n, str])
@pytest.mark.parametrize("way", ["list", "generator", "extend", "extend whole", "iadd"])
def test_lists_of_anything(box: Any, make: Any, way: str) -> None:
    """A list built in any way holds what the iterable gave, whatever that is."""
    expected = [make(n) for n in range(N)]
    if way == "list":
        box.store["k"] = expected
    elif way == "generator":
        box.store["k"] = (make(n) for n in range(N))
    else:
        box.store["k"] = head = [] if way == "extend" else [row(n) for n in range(20)]
        if way == "iadd":
            box.store["k"] += (make(n) for n in range(N))
        else:
            box.store["k"].extend(make(n) for n in range(N))
        expected = head + expected
    check(box, "k", expected)


def instance(n: int) -> Any:
    """Return an instance of one of many sorts of classes."""
    kinds: list[Callable[[], Any]] = [
        lambda: Account("owner", n),
        lambda: sample.Bare(n=n, text=str(n), inner=sample.Bare(deep=[n, (n, sample.Bare())])),
        lambda: sample.Point(n, tags=[n, {"n": {n}}]),
        lambda: sample.SlotPoint(n, [n]),
        lambda: sample.FrozenPoint(n, [str(n)]),
        lambda: sample.Square(n / 2),
        lambda: sample.Cached([n, 1]),
        lambda: sample.Users(),
        lambda: sample.Bare(color=sample.Color.RED, number=sample.Metres(n), path=PurePath("a")),
        lambda: sample.Bare(**{f"name {at}": n for at in range(n % 70)}),
        lambda: [sample.Bare(n=n), {"point": sample.Point(n)}, (sample.Square(n),)],
    ]
    return kinds[n % len(kinds)]()


@pytest.mark.parametrize("way", ["value", "generator", "update", "inside"])
def test_instances(box: Any, way: str) -> None:
    """Instances of any classes are stored with their attributes, aliases and cycles, and change."""
    expected: Any = [instance(n) for n in range(700)]
    expected[1].loop = expected[1]
    expected[12].shared = expected[23].shared = expected[1]
    expected[45].first = expected[0]
    expected += [expected[7], expected[2].tags]
    if way == "value":
        box.store["k"] = expected
    elif way == "generator":
        box.store["k"] = (one for one in expected)
    elif way == "inside":
        expected = {"list": [expected]}
        box.store["k"] = expected
    else:
        expected = {f"key {n}": one for n, one in enumerate(expected)}
        box.store["k"] = {}
        box.store["k"].update(expected)
    check(box, "k", expected)
    stored = box.store["k"]
    if way == "inside":
        stored, expected = stored["list"][0], expected["list"][0]
    for at in (1, 2, 4, 12):
        at = f"key {at}" if way == "update" else at
        for one in (stored[at], expected[at]):
            vars(one)["more"] = [at]
            if not isinstance(one, sample.FrozenPoint):
                one.new = {"a": 1}
                del one.new
                one.last = [at, 1]
    wanted = canonical(expected)
    assert canonical(plain(stored)) == wanted


def test_a_class_that_cannot_be_stored_among_many(box: Any) -> None:
    """What cannot be stored is named with its place, and nothing of the rest is kept."""
    box.store["k"] = {"before": 1}
    some = {f"key {n}": sample.Bare(n=n) for n in range(900)}
    some["key 777"].lock = threading.Lock()
    with pytest.raises(richstore.EncodingError, match=r"\['key 777'\]\.lock"):
        box.store["k"].update(some)
    with pytest.raises(richstore.EncodingError, match=r"\[777\]\.lock"):
        box.store["k"] = list(some.values())
    check(box, "k", {"before": 1})


@pytest.mark.parametrize("every", [3, 12, 40])
def test_short_items_among_long_ones(box: Any, every: int) -> None:
    """A list of strings is built whatever the lengths of its neighbours, at any place."""
    page = paging.PAGE
    for length in (page // 2, page * 9 // 10, page * 2):
        expected = ["x" * (length if n % every == every - 1 else n % 60) for n in range(N)]
        box.store["k"] = list(expected)
        check(box, "k", expected)


@pytest.mark.parametrize("make", [row, nested, of_all_types, lambda n: n])
@pytest.mark.parametrize("way", ["dict", "update pairs", "update dict", "ior", "onto spread"])
def test_dicts_of_anything(box: Any, make: Any, way: str) -> None:
    """A dict built in any way holds the keys and values of its source, in their order."""
    expected = {f"key {n * 7919 % 100_003}": make(n) for n in range(N)}
    pairs = ((f"key {n * 7919 % 100_003}", make(n)) for n in range(N))
    if way == "dict":
        box.store["k"] = expected
    else:
        head = {f"key {n}": n for n in range(1500 if way == "onto spread" else 3)}
        box.store["k"] = head
        if way == "update dict":
            box.store["k"].update(expected)
        elif way == "ior":
            box.store["k"] |= pairs
        else:
            box.store["k"].update(pairs)
        expected = {**head, **expected}
    assert list(box.store["k"]) == list(expected)
    check(box, "k", expected)
    assert list(box.store["k"].items()) == list(expected.items())


@pytest.mark.parametrize("way", ["set", "update", "ior", "onto spread"])
def test_sets(box: Any, way: str) -> None:
    """A set built in any way holds the elements of its source."""
    elements = [(n, f"member {n}") if n % 3 else n for n in range(N)]
    if way == "set":
        box.store["k"] = set(elements)
        before: set[Any] = set()
    else:
        before = set(range(1500 if way == "onto spread" else 5))
        box.store["k"] = before
        if way == "ior":
            box.store["k"] |= set(elements)
        else:
            box.store["k"].update(element for element in elements + elements)
    check(box, "k", before | set(elements))


def test_sources_that_have_keys(box: Any) -> None:
    """update() takes from whatever has keys(), and from faces, as dict.update does."""

    class Mapping:
        def keys(self) -> Iterator[str]:
            return (f"k {n}" for n in range(N))

        def __getitem__(self, key: str) -> list[str]:
            return [key]

    box.store.update(k={}, other={f"o {n}": [n] for n in range(N)})
    box.store["k"].update(Mapping(), named=1)
    box.store["k"].update(box.store["other"])
    expected = {f"k {n}": [f"k {n}"] for n in range(N)} | {"named": 1}
    expected |= {f"o {n}": [n] for n in range(N)}
    assert list(box.store["k"]) == list(expected)
    check(box, "k", expected)
    box.store["k"]["o 5"].append("apart")
    assert box.store["other"]["o 5"] == [5]


def test_keys_that_come_again(box: Any) -> None:
    """A key that comes again keeps its place and takes the last value, near and far."""
    keys = [f"key {n % 1700}" for n in range(3 * N)]
    keys[1::500] = [keys[0]] * len(keys[1::500])
    expected: dict[str, Any] = {}
    for n, key in enumerate(keys):
        expected[key] = [n]
    box.store["k"] = {"before": 1, "key 3": "old"}
    box.store["k"].update((key, [n]) for n, key in enumerate(keys))
    expected = {"before": 1, "key 3": "old"} | expected
    assert list(box.store["k"]) == list(expected)
    check(box, "k", expected)


def test_equal_numbers_are_one_key(box: Any) -> None:
    """1, 1.0 and True are one key and one element when they are built, too."""
    keys = [n if n % 3 else float(n) for n in range(N)] + [True, 7.0, 9]
    box.store["k"], box.store["s"] = {}, set()
    box.store["k"].update((key, n) for n, key in enumerate(keys))
    box.store["s"].update(key for key in keys)
    assert dict(box.store["k"]) == {key: n for n, key in enumerate(keys)}
    check(box, "s", set(keys))


@pytest.mark.parametrize("at", [0, 1000, 2100, N - 1])
@pytest.mark.parametrize("way", ["value", "iterator", "dict", "onto spread"])
def test_keys_that_bytes_cannot_tell(box: Any, at: int, way: str) -> None:
    """A key with an equality of its own keeps the dict whole, wherever it comes; all are there."""
    expected: dict[Any, Any] = {f"key {n}": [n] for n in range(N)}
    pairs = list(expected.items())
    pairs[at] = (Color("own"), ["own"])
    expected = dict(pairs)
    if way == "value":
        box.store["k"] = expected
    else:
        before = {f"before {n}": n for n in range(1500 if way == "onto spread" else 1)}
        box.store["k"] = before
        box.store["k"].update(expected if way == "dict" else iter(pairs))
        expected = before | expected
    assert list(box.store["k"]) == list(expected)
    assert box.store["k"][Color("own")] == ["own"]
    check_store(box.store)
    assert box.stored("k") == expected


def test_elements_that_bytes_cannot_tell(box: Any) -> None:
    """An element with an equality of its own keeps the set whole; all are there."""
    elements = [*range(N), Color("own"), *range(N, N + 100)]
    box.store["s"] = set(elements)
    box.store["t"] = {-1}
    box.store["t"].update(element for element in elements)
    for store in box.live_and_reopened():
        assert store["s"] == set(elements)
        assert store["t"] == {-1, *elements}
        assert Color("own") in store["t"]
        check_store(store)


# --- shared objects -------------------------------------------------------------------------


def tangled(count: int) -> list[Any]:
    """Return a list whose items share objects near and far, at any depth, with cycles."""
    dice = random.Random(count)
    shared: list[Any] = [[], {"s": []}, {1}, Account("shared", 0), collections.deque([[]])]
    items: list[Any] = []
    for n in range(count):
        one: Any = row(n)
        choice = dice.random()
        if choice < 0.01:
            one = dice.choice(shared)
        elif choice < 0.02:
            one = {"n": n, "in": [dice.choice(shared)]}
        elif choice < 0.03 and items:
            one = dice.choice(items)
        elif choice < 0.035:
            one = [n]
            one.append(one)
        elif choice < 0.04:
            one = ([n], dice.choice(shared))
        elif choice < 0.045:
            one = {"n": n, "parts": [[n], [n]]}
            shared.append(one["parts"])
        elif choice < 0.05:
            one = {"n": n, "outer": {"inner": [n]}}
            items.append(one)
            one = one["outer"]["inner"]
        items.append(one)
    return items


@pytest.mark.parametrize("way", ["list", "generator", "extend", "dict", "update"])
def test_tangled_values(box: Any, way: str, page: str) -> None:
    """Whatever items share with each other, and whatever refers to itself, is shared in the
    store.
    """
    items = tangled(4000 if page == "default" else N)
    named = {f"key {n}": item for n, item in enumerate(items)}
    if way == "list":
        box.store["k"] = items
    elif way == "generator":
        box.store["k"] = (item for item in items)
    elif way == "extend":
        box.store["k"] = []
        box.store["k"].extend(item for item in items)
    elif way == "dict":
        box.store["k"] = named
    else:
        box.store["k"] = {}
        box.store["k"].update((key, value) for key, value in named.items())
    check(box, "k", named if way in ("dict", "update") else items)


def test_what_is_reached_through_an_item_that_is_kept(box: Any) -> None:
    """A part of an item that the generator keeps is the same object when it comes by itself."""

    def items() -> Iterator[Any]:
        kept = []
        for n in range(N):
            one = nested(n)
            if n % 300 == 7:
                kept.append(one)
            yield one
        for one in kept:
            yield one["list"][1][1]["deep"]
            yield one["list"][1]
            yield one

    box.store["k"] = items()
    stored = box.store["k"]
    for at, n in enumerate(range(7, N, 300)):
        deep, part, whole = stored[N + 3 * at : N + 3 * at + 3]
        assert whole is stored[n]
        assert part is whole["list"][1]
        assert deep is part[1]["deep"]
    check(box, "k", plain(stored))


def test_a_list_that_holds_itself(box: Any) -> None:
    """A large list or dict that is inside itself is so in the store."""
    items: list[Any] = [row(n) for n in range(N)]
    items.insert(50, items)
    items.append({"up": items})
    box.store["k"] = items
    named: dict[str, Any] = {f"key {n}": n for n in range(N)}
    named["self"] = named
    box.store["d"] = named
    for store in box.live_and_reopened():
        stored = store["k"]
        assert stored[50] is stored
        assert stored[-1]["up"] is stored
        assert len(stored) == N + 2
        assert store["d"]["self"] is store["d"]
        check_store(store)


def test_parts_of_the_store(box: Any) -> None:
    """What is in the store already is moved or shared within its value, and copied from others."""
    box.store["k"] = {"rows": [row(n) for n in range(N)], "new": []}
    box.store["other"] = [row(n) for n in range(N)]
    with box.store.transaction():
        rows, new = box.store["k"]["rows"], box.store["k"]["new"]
        first, last = rows[0], rows[-1]
        new.extend(one for one in rows)
        new.extend(one for one in box.store["other"])
        del rows[10:]
    assert new[0] is rows[0] is first
    assert new[N - 1] is last
    assert new[N] is not box.store["other"][0]
    for store in box.live_and_reopened():
        new, rows = store["k"]["new"], store["k"]["rows"]
        assert [one["n"] for one in new] == [*range(N), *range(N)]
        assert [one is two for one, two in zip(rows, new, strict=False)] == [True] * 10
        new[-1]["changed"] = True
        assert "changed" not in store["other"][-1]
        check_store(store)


def test_the_count_of_references_is_that_of_this_python() -> None:
    """An object that only a list refers to counts as alone, and one that is kept does not."""
    values = [[n] for n in range(10)]
    kept = values[3]
    assert [count > ALONE for count in references(values)] == [n == 3 for n in range(10)]
    packer = Packer(list, (), 4000)
    assert packer.add_flat(values, [False] * 10, [], 0) == 10
    del packer, kept
    assert references(values) == [ALONE] * 10
    assert sys.getrefcount(values[0]) >= ALONE - 1


# --- large items ----------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["list", "generator", "update"])
def test_items_that_are_large_themselves(box: Any, way: str) -> None:
    """Large lists, dicts, sets, strings and instances inside a built value are all there."""

    def large(n: int) -> Any:
        if n % 50:
            return row(n)
        sorts = [
            [row(m) for m in range(300)],
            {f"k {m}": [m] for m in range(300)},
            {f"m {m}" for m in range(600)},
            "text " * 2000,
            {"rows": [list(range(2000)), {"more": {str(m): m for m in range(500)}}]},
            [Account("many", m) for m in range(200)],
        ]
        return sorts[n // 50 % len(sorts)]

    expected = [large(n) for n in range(N)]
    named = {f"key {n}": item for n, item in enumerate(expected)}
    if way == "list":
        box.store["k"] = expected
    elif way == "generator":
        box.store["k"] = (large(n) for n in range(N))
    else:
        box.store["k"] = {}
        box.store["k"].update((f"key {n}", large(n)) for n in range(N))
    check(box, "k", named if way == "update" else expected)
    first = box.store["k"]["key 0" if way == "update" else 0]
    first[100]["changed"] = True
    first.append("end")
    check_store(box.store)
    del box.store["k"]
    box.store.compact()
    assert box.store.verify().records == 0


def test_a_large_item_that_shares(box: Any) -> None:
    """A large item whose parts are shared among themselves keeps them so."""

    def items() -> Iterator[Any]:
        for n in range(N):
            if n % 500 == 3:
                one: list[Any] = [[n] for n in range(400)]
                yield one + one + [one[0]]
            yield row(n)

    expected = list(items())
    box.store["k"] = items()
    check(box, "k", expected)


# --- refusals and undoing -------------------------------------------------------------------


@pytest.mark.parametrize("count", [3, N])
def test_a_generator_inside_a_value_is_refused(box: Any, count: int) -> None:
    """A generator that is not the value itself is refused with the place and the way out."""
    items: list[Any] = [row(n) for n in range(count)]
    items.append({"inside": (n for n in range(3))})
    with pytest.raises(richstore.EncodingError, match=r"list\(…\)") as found:
        box.store["k"] = items
    assert f"['k'][{count}]['inside']" in str(found.value)
    box.store["k"] = []
    with pytest.raises(richstore.EncodingError, match=r"list\(…\)") as found:
        box.store["k"].extend(iter(items))
    assert f"['k'][{count}]['inside']" in str(found.value)
    assert box.store["k"] == []


@pytest.mark.parametrize("at", [5, 2500])
def test_errors_name_the_place(box: Any, at: int) -> None:
    """What cannot be stored is named with its place in the whole value, and nothing has changed."""
    bad = {"lock": threading.Lock()}
    box.store.update(k=[row(0)] * 3, d={}, s=set())
    with pytest.raises(richstore.EncodingError) as found:
        box.store["k"].extend(bad if n == at else row(n) for n in range(N))
    assert f"['k'][{at + 3}]['lock']" in str(found.value)
    with pytest.raises(richstore.EncodingError) as found:
        box.store["d"].update((f"key {n}", bad if n == at else row(n)) for n in range(N))
    assert f"['d']['key {at}']['lock']" in str(found.value)
    with pytest.raises(richstore.EncodingError) as found:
        box.store["new"] = (bad if n == at else row(n) for n in range(N))
    assert f"['new'][{at}]['lock']" in str(found.value)
    with pytest.raises(TypeError, match="unhashable"):
        box.store["s"].update([] if n == at else n for n in range(N))
    with pytest.raises(TypeError, match=rf"element #{at} to a sequence"):
        box.store["d"].update(n if n == at else (n, n) for n in range(N))
    with pytest.raises(ValueError, match=rf"element #{at} has length 3; 2 is required"):
        box.store["d"].update((n, n, n) if n == at else (n, n) for n in range(N))
    for store in box.live_and_reopened():
        assert {key: plain(value) for key, value in store.items()} == {
            "k": [row(0)] * 3,
            "d": {},
            "s": set(),
        }


def test_not_iterable(box: Any) -> None:
    """What cannot be iterated is refused as a list, dict or set does."""
    box.store.update(k=[], d={}, s=set())
    for change in (
        lambda k, d, s: k.extend(5),
        lambda k, d, s: d.update(5),
        lambda k, d, s: s.update(5),
        lambda k, d, s: d.update([], {}),
    ):
        with pytest.raises(TypeError) as wanted:
            change([], {}, set())
        with pytest.raises(TypeError) as found:
            change(box.store["k"], box.store["d"], box.store["s"])
        assert str(found.value) == str(wanted.value)


def test_a_readonly_store_does_not_touch_the_generator(file_box: Any) -> None:
    """A generator for a store that is open for reading is refused before it has run."""
    file_box.store["k"] = 1
    file_box.store.close()
    ran: list[int] = []
    with (
        richstore.open(file_box.target, "r") as store,
        pytest.raises(richstore.ReadOnlyError),
    ):
        store["k"] = (ran.append(n) for n in range(3))
    assert ran == []


def test_savepoints(box: Any) -> None:
    """Builds that are rolled back by savepoints leave those before and after them alone."""
    box.store["d"] = {f"key {n}": [n] for n in range(N)}
    with box.store.transaction() as transaction:
        d = box.store["d"]
        d.update((f"one {n}", [n]) for n in range(N))
        first = transaction.savepoint()
        d.update((f"two {n}", [n]) for n in range(N))
        d.update((f"one {n}", "again") for n in range(N))
        box.store["l"] = (n for n in range(3 * N))
        second = transaction.savepoint()
        box.store["l"].extend(row(n) for n in range(N))
        del d["one 5"]
        transaction.rollback_to(second)
        assert len(box.store["l"]) == 3 * N
        assert d["one 5"] == "again"
        transaction.rollback_to(first)
        assert "l" not in box.store
        assert "two 5" not in d
        assert d["one 5"] == [5]
        d.update((f"three {n}", [n]) for n in range(N))
    expected = {f"{name} {n}": [n] for name in ("key", "one", "three") for n in range(N)}
    assert list(d) == list(expected)
    check(box, "d", expected)
    box.store.compact()
    assert box.store.verify().waiting == 0


def test_a_key_that_was_deleted_in_the_block_and_comes_again(box: Any) -> None:
    """Keys that were deleted before in the same block can be built again, and be rolled back."""
    box.store["d"] = {f"key {n}": [n] for n in range(N)}
    d = box.store["d"]
    with box.store.transaction() as transaction:
        for n in range(0, N, 2):
            del d[f"key {n}"]
        point = transaction.savepoint()
        d.update((f"key {n}", "new") for n in range(N))
        assert d["key 4"] == "new"
        transaction.rollback_to(point)
        assert "key 4" not in d
        d.update((f"key {n}", "newer") for n in range(0, 2 * N))
    odd, even = range(1, N, 2), range(0, N, 2)
    assert list(d) == [f"key {n}" for n in [*odd, *even, *range(N, 2 * N)]]
    check(box, "d", dict.fromkeys(d, "newer"))


def test_a_block_that_changes_what_it_built(box: Any, page: str) -> None:
    """What was built in a block can be changed in it at once like any other value."""
    box.store["k"] = [row(n) for n in range(100)]
    with box.store.transaction():
        k = box.store["k"]
        k.extend(nested(n) for n in range(N))
        model = [row(n) for n in range(100)] + [nested(n) for n in range(N)]
        for v in (k, model):
            del v[50:1500]
            v.insert(700, "inserted")
            v[-1]["list"][1].append("deep")
            v.extend(row(n) for n in range(N))
            v.reverse()
            v[3:5] = [[1], [2], [3]]
            v.extend(v[n] for n in range(300))
    check(box, "k", model)


def test_a_generator_that_changes_the_store(box: Any) -> None:
    """A generator may change the container that is built, and others, in the same block."""
    box.store.update(k=[0], d={"a": 0}, log=[])

    def items() -> Iterator[Any]:
        for n in range(N):
            if n % 800 == 799:
                box.store["k"].append(f"between {n}")
                box.store["d"][f"between {n}"] = n
                box.store["log"].append(n)
            yield n

    with box.store.transaction():
        box.store["k"].extend(items())
        box.store["d"].update((n, n) for n in items())
    marks = [n for n in range(N) if n % 800 == 799]
    stored = plain(box.store["k"])
    assert [n for n in stored if type(n) is int] == [0, *range(N)]
    assert {n for n in stored if type(n) is str} == {f"between {n}" for n in marks}
    d = plain(box.store["d"])
    assert d == {"a": 0} | {n: n for n in range(N)} | {f"between {n}": n for n in marks}
    assert box.store["log"] == marks + marks
    check_store(box.store)
    assert box.stored("k") == stored


def test_an_interrupt_of_the_callback(box: Any) -> None:
    """A callback that raises in a block within a block undoes that block alone."""

    def stop(items: int, size: int) -> None:
        raise KeyboardInterrupt

    told: list[tuple[int, int]] = []
    with box.store.transaction(progress=lambda *numbers: told.append(numbers)):
        box.store["a"] = (n for n in range(N))
        with pytest.raises(KeyboardInterrupt), box.store.transaction(progress=stop):
            box.store["b"] = (n for n in range(N))
        box.store["c"] = (n for n in range(N))
    assert told[-1][0] == 2 * N
    assert list(box.store) == ["a", "c"]


def test_a_conflict_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a conflict a list is built again, and an iterator, which cannot be, raises."""
    with richstore.open("memory:") as store:
        store["k"] = []
        engine = store._tracker.engine
        engine.refuse_commits(2)
        store["k"].extend(list(range(N)))
        assert store["k"] == list(range(N))
        engine.refuse_commits(1)
        store["d"] = {n: n for n in range(N)}
        assert store["d"] == {n: n for n in range(N)}
        engine.refuse_commits(1)
        with pytest.raises(richstore.ConflictError, match="iterator"):
            store["k"].extend(n for n in range(N))
        assert len(store["k"]) == N
        check_store(store)


# --- others ---------------------------------------------------------------------------------


def test_another_process_reads_what_was_built(file_box: Any) -> None:
    """A second process that has the container open sees what was built, in place and order."""
    store = file_box.store
    store.update(k=[row(0)], d={"first": 1})
    code = """
import json, sys, richstore
with richstore.open(sys.argv[1]) as store:
    k, d = store["k"], store["d"]
    assert len(k) == 1 and len(d) == 1
    print("ready", flush=True)
    sys.stdin.readline()
    store.refresh()
    print(json.dumps(richstore.plain([len(k), k[1], k[-1], len(d), list(d)[:2], d["key 2000"]])))
    k.extend({"n": -n} for n in range(3000))
    d.update((f"other {n}", n) for n in range(3000))
"""
    with subprocess.Popen(
        [sys.executable, "-c", code, file_box.target],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=child_environment(),
    ) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline() == "ready\n"
        store["k"].extend(row(n) for n in range(N))
        store["d"].update((f"key {n}", [n]) for n in range(N))
        other.stdin.write("go\n")
        other.stdin.flush()
        found = json.loads(other.stdout.readline())
        assert other.wait(60) == 0
    assert found == [N + 1, row(0), row(N - 1), N + 1, ["first", "key 0"], [2000]]
    assert len(store["k"]) == N + 3001
    assert store["k"][-1] == {"n": -2999}
    assert store["d"]["other 2999"] == 2999
    check_store(store)


def test_held_faces_live_on(box: Any) -> None:
    """Faces of a whole container stay the same when it becomes a large one by a build."""
    box.store["k"] = [row(n) for n in range(5)]
    box.store["d"] = {"a": [1], "b": {"c": 2}}
    k, held, d, inner = box.store["k"], box.store["k"][3], box.store["d"], box.store["d"]["b"]
    k.extend(row(n) for n in range(N))
    d.update((f"key {n}", n) for n in range(N))
    held["seen"] = True
    inner["seen"] = True
    assert box.store["k"] is k
    assert k[3] is held
    assert d["b"] is inner
    assert box.stored("k")[3] == {**row(3), "seen": True}
    assert box.stored("d")["b"] == {"c": 2, "seen": True}


def test_deep_nesting(box: Any) -> None:
    """Items nested deeper than the stack are built as others are stored."""

    def deep() -> list[Any]:
        value: list[Any] = []
        for _ in range(3000):
            value = [value]
        return value

    box.store["k"] = (deep() if n % 1000 == 3 else n for n in range(N))
    value = box.store["k"][3]
    for _ in range(3000):
        (value,) = value
    assert value == []
    check_store(box.store)


def test_memory_of_kept_and_unkept_items(file_box: Any, page: str) -> None:
    """Instances are let go with their pages, held or not: only few nodes stay in memory."""
    if page == "tiny":
        pytest.skip("the number of nodes depends on the page")
    file_box.store.close()
    with richstore.open(file_box.target, "n", synchronous="off", cache_size=1) as store:
        accounts = [Account("held", n) for n in range(20_000)]
        seen = 0

        def items() -> Iterator[Any]:
            nonlocal seen
            for n, account in enumerate(accounts):
                yield account
                yield Account("unheld", n)
                if n == 15_000:
                    gc.collect()
                    seen = sum(type(one) is Node for one in gc.get_objects())

        store["k"] = items()
        assert seen < 8000
        assert len(store["k"]) == 40_000
        assert store["k"][2] is not store["k"][3]
        check_store(store)


def test_constants_fit() -> None:
    """A stream begins where a record of the smallest items is outgrown for sure."""
    assert sources.LARGE > 4064 / 3
    assert packing.ALONE >= 1


# --- large containers inside a value --------------------------------------------------------


def large_values() -> dict[str, Any]:
    """Return large containers by name, plain and others."""
    rows = [row(n) for n in range(N)]
    return {
        "rows": [row(n) for n in range(N)],
        "numbers": list(range(3 * N)),
        "named": {f"key {n}": nested(n) for n in range(N)},
        "set": set(range(N)),
        "mixed": [of_all_types(n) for n in range(N)],
        "twice": [rows, rows, rows[5]],
        "inner": [{"rows": [row(n) for n in range(N)], "more": [list(range(N))]}],
        "own keys": {Color(f"{n}"): n for n in range(N)},
        "tangled": tangled(N),
    }


@pytest.mark.parametrize("way", ["value", "item", "append", "extend", "attribute"])
def test_large_containers_inside_a_value(box: Any, way: str, page: str) -> None:
    """Large containers anywhere inside a value are stored as small ones are."""

    def deep_value() -> Any:
        # the time that letting go of them takes grows with the square of their number
        some = page == "tiny" or way in ("item", "append")
        names = ("rows", "numbers", "set", "inner") if some else deep
        return {name: deep[name] for name in names}

    deep = large_values()
    value: Any = deep_value()
    if way == "value":
        box.store["k"] = value
    elif way == "item":
        box.store["k"] = {}
        box.store["k"]["inside"] = value
        value = {"inside": value}
    elif way == "append":
        box.store["k"] = [0]
        box.store["k"].append(value)
        value = [0, value]
    elif way == "extend":
        box.store["k"] = []
        box.store["k"].extend(deep_value() if n == 2100 else row(n) for n in range(N))
        value = [value if n == 2100 else row(n) for n in range(N)]
    else:
        box.store["k"] = Account("me", 1)
        box.store["k"].history = value
        expected = Account("me", 1)
        expected.history = value
        value = expected
    check(box, "k", value)
    del box.store["k"]
    box.store.compact()
    assert box.store.verify().records == 0


def test_a_large_container_that_fails_inside(box: Any) -> None:
    """When something beside a large container cannot be stored, nothing of either stays."""
    value = {"rows": [row(n) for n in range(N)], "bad": threading.Lock()}
    box.store["k"] = []
    with pytest.raises(richstore.EncodingError, match=r"\['k'\]\[0\]\['bad'\]"):
        box.store["k"].append(value)
    with box.store.transaction():
        with pytest.raises(richstore.EncodingError, match=r"\['k'\]\[0\]\['bad'\]"):
            box.store["k"].append(value)
        box.store["k"].append(1)
    assert box.store["k"] == [1]
    check_store(box.store)
    box.store.compact()
    report = box.store.verify()
    assert (report.records, report.waiting) == (1, 0)
