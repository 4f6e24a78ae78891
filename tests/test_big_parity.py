"""Big lists, dicts and sets answer every method and operator as the plain ones do.

Each entry of the tables is a call. Reading calls are made on a value of some thousand items in
three ways: live, opened anew, and in a snapshot. Changing calls are made on a new value; result,
error and the content afterwards, in the same three ways, are those of a plain twin.
"""

# ruff: noqa: E501 (an entry of a table stays on its line)

from __future__ import annotations

import bisect
import copy
import itertools
import operator
import pickle
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Box, check_store
from sample_classes import Metres, Point, SlotPoint

import richstore

pytestmark = pytest.mark.timeout(90)

Call = Callable[[Any], Any]
N = 1500
MIDDLE = N // 2
plain = richstore.plain


def spread(n: int) -> int:
    """Return a number for each one below 100,003, in no order."""
    return n * 7919 % 100_003


def item(n: int) -> Any:
    """Return one of many kinds of values."""
    kinds: list[Callable[[], Any]] = [
        lambda: n,
        lambda: f"text {n:05}",
        lambda: {"id": n, "tags": ["a", n % 7]},
        lambda: [n, [n % 3]],
        lambda: Point(n, n % 5, [str(n)]),
        lambda: (n, "t"),
        lambda: {n},
        lambda: {"id": n},
        lambda: None if n % 2 else 2.5,
        lambda: SlotPoint(n, [n]),
    ]
    return kinds[n % len(kinds)]()


def failing(items: Any) -> Iterator[Any]:
    """Yield the items, then raise."""
    yield from items
    raise LookupError("iterable")


def keyfail(x: Any) -> Any:
    """Raise late in a sort."""
    if x == spread(N - 5) * 1_000_003:
        raise LookupError("key function")
    return str(x)


class Index:
    def __init__(self, at: int) -> None:
        self.at = at

    def __index__(self) -> int:
        return self.at

    def __repr__(self) -> str:
        return "Index"


def consumed(iterator: Any) -> Any:
    """Return what an iterator gives, to its end and beyond.

    The length that it announces is left out: the iterators of large containers announce none.
    """
    return list(iterator), next(iterator, "end")


LISTS: dict[str, Callable[[], list[Any]]] = {
    "numbers": lambda: [spread(n) * 1_000_003 for n in range(N)],
    "mixed": lambda: [item(n) for n in range(N)],
}
LIST_READS: dict[str, Call] = {
    **{f"[{at}]": lambda v, at=at: v[at]
       for at in (0, 1, 7, MIDDLE, N - 1, N, -1, -2, -MIDDLE, -N, -N - 1, True, 10**30, -(10**30), "a", 1.0, None, Index(3), Index(N), (1, 2))},
    **{f"[{at}]": lambda v, at=at: v[at]
       for at in (slice(None), slice(10, 20), slice(N - 5, None), slice(-5, None), slice(None, 5), slice(5, 2),
                  slice(None, None, 2), slice(None, None, -1), slice(MIDDLE, 10, -7), slice(None, None, N), slice(2 * N, None),
                  slice(-2 * N, 3), slice(None, None, 0), slice("a", None), slice(10, N - 10, 3), slice(None, 10**30),
                  slice(-1, None, -N), slice(Index(3), Index(6)), slice(N, None), slice(0, 0), slice(MIDDLE, MIDDLE + 1))},
    "len": len, "bool": bool, "repr": repr, "str": str, "format": lambda v: f"{v}", "format spec": lambda v: format(v, ">5"),
    "list": list, "tuple": tuple, "star": lambda v: [*v], "iter": lambda v: consumed(iter(v)), "reversed": lambda v: consumed(reversed(v)),
    "first of": lambda v: next(iter(v)), "last of": lambda v: next(reversed(v)), "sorted": sorted,
    "sorted key": lambda v: sorted(v, key=str), "min": min, "max": lambda v: max(v, key=str), "sum": sum, "any all": lambda v: (any(v), all(v)),
    "count": lambda v: (v.count(v[5]), v.count("nothing"), v.count(spread(9) * 1_000_003), v.count({"id": 7}), v.count()),
    "count same": lambda v: v.count(v[MIDDLE]), "count dict": lambda v: v.count({"id": 7}), "count text": lambda v: v.count("text 00011"),
    "in": lambda v: (v[MIDDLE] in v, v[-1] in v, "nothing" in v, {"id": 17} in v, [N - 7, [(N - 7) % 3]] in v, Point(14, 4, ["14"]) in v),
    "index": lambda v: [v.index(v[at]) for at in (0, 1, MIDDLE + 1, -2, -1)],
    "index missing": lambda v: v.index("nothing"), "index from": lambda v: v.index(v[1234], 1000),
    "index exact": lambda v: v.index(v[1234], 1234, 1235), "index before": lambda v: v.index(v[1233], 0, 1233),
    "index after": lambda v: v.index(v[1233], 1234), "index negative": lambda v: v.index(v[1234], -1000),
    "index negative end": lambda v: v.index(v[1232], 0, -N + 1232), "index negative both": lambda v: v.index(v[1231], -N + 1231, -1),
    "index huge bounds": lambda v: v.index(v[1234], -(10**30), 10**30), "index bad": lambda v: v.index(1, "a"), "index none": lambda v: v.index(),
    "== twin": lambda v: (v == plain(v), plain(v) == v, v != plain(v), v == v, v != v),
    "== other": lambda v: (v == [], v == plain(v)[:-1], v == [*plain(v), 1], v == 5, v == tuple(v), [] == v, v == plain(v)[:-1] + ["x"]),
    "<": lambda v: (v < [*plain(v), 1], v < plain(v)[:-1], v <= plain(v), v > plain(v), v >= plain(v), [] < v),
    "< item": lambda v: v < plain(v)[:1100] + [10**20], "< type": lambda v: v < 5, "< mixed": lambda v: v < [{}],
    "+": lambda v: v + [9, [8]], "+ left": lambda v: [9] + v, "+ itself": lambda v: v + v, "+ tuple": lambda v: v + (1,), "+ number": lambda v: v + 5,
    "*": lambda v: v * 2, "* left": lambda v: 2 * v, "* zero": lambda v: v * 0, "* text": lambda v: v * "a", "* negative": lambda v: -1 * v,
    "copy": lambda v: v.copy(), "copy.copy": copy.copy, "deepcopy": copy.deepcopy, "hash": hash, "as key": lambda v: {v: 1},
    "pickle": lambda v: pickle.loads(pickle.dumps(v)), "pickle 2": lambda v: pickle.loads(pickle.dumps(v, 2)),
    "enumerate": lambda v: list(enumerate(v, 5)), "zip": lambda v: list(zip(v, v, strict=True))[-3:], "islice": lambda v: list(itertools.islice(v, 100, 1400, 300)),
    "pairwise": lambda v: sum(1 for a, b in itertools.pairwise(v) if a == b), "extend plain": lambda v: operator.iadd([0], v),
    "slice assign plain": lambda v: operator.setitem(a := [7, 8], slice(0, 1), v) or a, "choice": lambda v: random.Random(5).choice(v),
    "sample": lambda v: random.Random(5).sample(v, 20), "call": lambda v: len((lambda *a: a)(*v)), "class": lambda v: (v.__class__, isinstance(v, list)),
    "bisect": lambda v: bisect.bisect_left(range(len(v)), 1000, key=lambda n: 0 if v[n] is None else n), "set of str": lambda v: set(map(str, v)),
    "join": lambda v: ",".join(map(str, v)), "nested": lambda v: v[2]["tags"][1], "comprehension": lambda v: [x for x in v if isinstance(x, dict)],
}  # fmt: skip
LIST_CHANGES: dict[str, Call] = {
    **{f"insert {at}": lambda v, at=at: v.insert(at, {"new": [1]}) for at in (0, 1, MIDDLE, N - 1, N, 2 * N, -1, -MIDDLE, -2 * N)},
    **{f"pop {at}": lambda v, at=at: v.pop(at) for at in (0, 1, 2, MIDDLE, N - 1, -1, -2, -MIDDLE, -N, N, -N - 1, "a", Index(4), 1.0)},
    **{f"del {at}": lambda v, at=at: v.__delitem__(at) for at in (0, 2, MIDDLE, -1, -N, N, -N - 1, "a", None, Index(5))},
    **{f"set {at}": lambda v, at=at: v.__setitem__(at, {"new": [{1}]}) for at in (0, 2, MIDDLE, N - 1, -1, -N, N, -N - 1, "a", Index(5))},
    **{f"del {at}": lambda v, at=at: v.__delitem__(at)
       for at in (slice(None), slice(10, 20), slice(None, None, 2), slice(None, None, -3), slice(1, -1), slice(5, 2), slice(N - 1, None),
                  slice(10, N - 9, 7), slice(None, None, N), slice(0, 0, 0), slice(None, MIDDLE), slice(MIDDLE, None), slice(3, N - 3),
                  slice("a", 3), slice(MIDDLE, 3, -1), slice(2 * N, 3 * N))},
    "slice same": lambda v: v.__setitem__(slice(10, 20), list(range(10))),
    "slice longer": lambda v: v.__setitem__(slice(10, 20), [{"n": n} for n in range(1500)]),
    "slice shorter": lambda v: v.__setitem__(slice(10, N - 10), [[1]]), "slice gone": lambda v: v.__setitem__(slice(10, N - 10), []),
    "slice insert": lambda v: v.__setitem__(slice(MIDDLE, MIDDLE), (x for x in ["a", ["b"]])), "slice all": lambda v: v.__setitem__(slice(None), [1, [2]]),
    "slice nothing": lambda v: v.__setitem__(slice(None), []), "slice end": lambda v: v.__setitem__(slice(N, None), ["end"]),
    "slice backward": lambda v: v.__setitem__(slice(9, 2), ["x", ["y"]]), "slice itself": lambda v: v.__setitem__(slice(10, 20), v),
    "slice text": lambda v: v.__setitem__(slice(1000, 1002), "abcdef"), "slice rotate": lambda v: v.__setitem__(slice(None), v[700:] + v[:700]),
    "slice reverse": lambda v: v.__setitem__(slice(None), v[::-1]), "slice number": lambda v: v.__setitem__(slice(0, 1), 5),
    "slice fails": lambda v: v.__setitem__(slice(10, 20), failing(range(1500))), "slice alias": lambda v: v.__setitem__(slice(3, 5), v[1000:1002]),
    "step": lambda v: v.__setitem__(slice(None, None, 2), [[n] for n in range(N // 2)]), "step wrong": lambda v: v.__setitem__(slice(None, None, 2), [7]),
    "step back": lambda v: v.__setitem__(slice(None, None, -1), [{"n": n} for n in range(N)]), "step ten": lambda v: v.__setitem__(slice(100, 200, 10), range(10)),
    "step wrong back": lambda v: v.__setitem__(slice(None, None, -1), [1, 2]), "step zero": lambda v: v.__setitem__(slice(0, 0, 0), []),
    "step fails": lambda v: v.__setitem__(slice(None, None, 2), failing(range(N // 2))), "step swap": lambda v: v.__setitem__(slice(None, None, 2), v[1::2]),
    "append": lambda v: v.append({"n": [1]}), "append many": lambda v: [v.append([n]) for n in range(30)], "append nothing": lambda v: v.append(),
    "append first": lambda v: v.append(v[2]), "insert wrong": lambda v: v.insert("a", 9), "insert short": lambda v: v.insert(1),
    "insert many": lambda v: [v.insert(n * 97 % (N + n), [n]) for n in range(40)], "insert at one place": lambda v: [v.insert(MIDDLE, f"new text {n}") for n in range(60)],
    "extend": lambda v: v.extend([{"n": n} for n in range(2000)]), "extend itself": lambda v: v.extend(v), "extend generator": lambda v: v.extend([n] for n in range(500)),
    "extend text": lambda v: v.extend("abc"), "extend fails": lambda v: v.extend(failing(range(2000))), "extend number": lambda v: v.extend(5),
    "extend dict": lambda v: v.extend({1: 2, "k": 3}), "extend nothing": lambda v: v.extend(()), "extend from itself": lambda v: v.extend(x for x in list(v)),
    "extend reversed": lambda v: v.extend(reversed(v[:100])), "iadd": lambda v: v.__iadd__([9, [8]]), "iadd itself": lambda v: operator.iadd(v, v),
    "iadd number": lambda v: operator.iadd(v, 5), "iadd fails": lambda v: operator.iadd(v, failing(range(2000))), "imul": lambda v: operator.imul(v, 2),
    "imul zero": lambda v: operator.imul(v, 0), "imul negative": lambda v: operator.imul(v, -1), "imul one": lambda v: operator.imul(v, 1),
    "imul text": lambda v: operator.imul(v, "a"), "pop many": lambda v: [v.pop() for _ in range(N - 10)], "pop first many": lambda v: [v.pop(0) for _ in range(60)],
    "pop all": lambda v: [v.pop(len(v) // 2) for _ in range(40)], "del many": lambda v: [v.__delitem__(n * 31 % (N - n)) for n in range(60)],
    "clear": lambda v: v.clear(), "clear refill": lambda v: (v.clear(), v.extend([[n] for n in range(N)])), "clear wrong": lambda v: v.clear(1),
    "remove": lambda v: v.remove(v[1234]), "remove first": lambda v: v.remove(v[0]), "remove last": lambda v: v.remove(v[-1]), "remove missing": lambda v: v.remove("nothing"),
    "remove equal": lambda v: v.remove({"id": 1407}), "reverse": lambda v: v.reverse(), "sort": lambda v: v.sort(), "sort reverse": lambda v: v.sort(reverse=True),
    "sort key": lambda v: v.sort(key=str), "sort stable": lambda v: v.sort(key=lambda x: str(x)[-1], reverse=True), "sort key fails": lambda v: v.sort(key=keyfail),
    "sort wrong": lambda v: v.sort(1), "sort like a shuffle": lambda v: v.sort(key=lambda x: random.Random(str(x)).random()),
    "swap": lambda v: operator.setitem(v, slice(None), [v[-1], *v[1:-1], v[0]]), "nested append": lambda v: v[3][1].append("deep"),
    "nested set": lambda v: v[1372]["tags"].append({"x": 1}), "nested attribute": lambda v: setattr(v[1494], "x", [5]), "nested slot": lambda v: v[1499].tags.extend([5, [6]]),
    "set itself": lambda v: v.__setitem__(3, v[3]), "set other": lambda v: v.__setitem__(0, v[1372]),
    "setattr": lambda v: setattr(v, "new", 1), "delattr": lambda v: delattr(v, "nothing"), "set class": lambda v: setattr(v, "__class__", int),
}  # fmt: skip

DICTS: dict[str, Callable[[], dict[Any, Any]]] = {
    "words": lambda: {f"key {spread(n):06}": item(n) for n in range(N)},
    "numbers": lambda: {spread(n): n * 1_000_003 for n in range(N)},
}
FIRST, FAR, LAST = (spread(n) for n in (0, MIDDLE + 2, N - 1))


def error_of(function: Callable[[], Any]) -> Any:
    """Return what a call that fails raises."""
    with pytest.raises(LookupError) as caught:
        function()
    return caught.type, caught.value.args


def name(v: Any, n: int) -> Any:
    """Return the key that a dict of the kind of `v` has, or would have, for a number."""
    return f"key {n:06}" if isinstance(next(iter(v), ""), str) else n


DICT_READS: dict[str, Call] = {
    "get items": lambda v: [v[name(v, n)] for n in (FIRST, FAR, LAST)], "missing": lambda v: v["no such key"], "missing number": lambda v: v[-1],
    "unhashable": lambda v: v[[1]], "unhashable in": lambda v: [1] in v, "unhashable get": lambda v: v.get({}), "missing tuple": lambda v: v["a", 1],
    "get": lambda v: (v.get(name(v, FAR)), v.get("z"), v.get("z", 5), v.get(None), v.get(name(v, LAST), 1)), "get none": lambda v: v.get(),
    "in": lambda v: (name(v, FAR) in v, "z" in v, None in v, float(FAR) in v, Metres(FAR) in v),
    "float key": lambda v: v[float(LAST)], "bool key": lambda v: (True in v, v.get(True)), "len": len, "bool": bool, "repr": repr, "str": str,
    "list": list, "iter": lambda v: consumed(iter(v)), "reversed": lambda v: consumed(reversed(v)), "dict": dict, "unpack": lambda v: {**v}, "star": lambda v: [*v],
    "sorted": sorted, "min": min, "hash": hash, "first": lambda v: next(iter(v)), "last": lambda v: next(reversed(v)),
    "keys": lambda v: (consumed(iter(v.keys())), len(v.keys()), repr(v.keys())), "values": lambda v: (consumed(iter(v.values())), len(v.values()), repr(v.values())),
    "items": lambda v: (consumed(iter(v.items())), len(v.items()), repr(v.items())),
    "reversed views": lambda v: (list(reversed(v.keys())), list(reversed(v.values())), list(reversed(v.items()))),
    "keys and": lambda v: (v.keys() & {name(v, FAR), "z"}, {name(v, FAR), "z"} & v.keys(), v.keys() & list(v)[:5]),
    "keys or": lambda v: (v.keys() | {"z"}, {"z"} | v.keys()), "keys sub": lambda v: (v.keys() - set(list(v)[3:]), {name(v, FAR), "z"} - v.keys()),
    "keys xor": lambda v: (v.keys() ^ {name(v, FAR), "z"}, {"z"} ^ v.keys()), "keys disjoint": lambda v: (v.keys().isdisjoint({"z"}), v.keys().isdisjoint([name(v, FAR)])),
    "keys compare": lambda v: (v.keys() == plain(v).keys(), v.keys() == set(v), set(v) == v.keys(), v.keys() <= set(v), v.keys() < {*v, "z"}, v.keys() >= {name(v, FAR)}, v.keys() == 5),
    "keys mapping": lambda v: dict(v.keys().mapping), "keys wrong": lambda v: v.keys() | 5, "keys index": lambda v: v.keys()[0],
    "items in": lambda v: ((name(v, FAR), v[name(v, FAR)]) in v.items(), ("z", 1) in v.items(), (name(v, FAR), "no") in v.items(), 5 in v.items()),
    "items compare": lambda v: (v.items() == plain(v).items(), plain(v).items() == v.items(), v.items() == 5),
    "items and": lambda v: v.items() & {(FAR, (MIDDLE + 2) * 1_000_003), ("z", 1)}, "items or": lambda v: len(v.items() | {("z", 1)}),
    "values in": lambda v: (v[name(v, LAST)] in v.values(), "nothing" in v.values(), {"id": 17} in v.values()), "values compare": lambda v: v.values() == v.values(),
    "==": lambda v: (v == plain(v), plain(v) == v, v != plain(v), v == {}, v == 5, v == v), "== order": lambda v: v == dict(reversed(plain(v).items())),
    "== less": lambda v: v == dict(list(plain(v).items())[:-1]), "== other value": lambda v: v == {**plain(v), name(v, FAR): "other"}, "<": lambda v: v < {},
    "|": lambda v: v | {"z": 1, name(v, FAR): [2]}, "| left": lambda v: {"z": 1, name(v, FAR): [2]} | v, "| itself": lambda v: v | v, "| wrong": lambda v: v | [1],
    "copy": lambda v: v.copy(), "copy.copy": copy.copy, "deepcopy": copy.deepcopy, "pickle": lambda v: pickle.loads(pickle.dumps(v)),
    "fromkeys": lambda v: v.fromkeys(["p", "q"], 1), "fromkeys of": dict.fromkeys, "call": lambda v: len((lambda **k: k)(**v)), "class": lambda v: (v.__class__, isinstance(v, dict)),
    "update plain": lambda v: (d := {"z": 1}).update(v) or d, "max": lambda v: max(v, key=lambda k: str(v[k])), "islice": lambda v: list(itertools.islice(v.items(), 700, 703)),
    "set": set, "nested": lambda v: v["key 015838"]["tags"],
}  # fmt: skip
DICT_CHANGES: dict[str, Call] = {
    **{f"set {at}": lambda v, at=at: v.__setitem__(name(v, at), {"new": [{1}]}) for at in (FIRST, FAR, LAST, 100_500)},
    **{f"del {at}": lambda v, at=at: v.__delitem__(name(v, at)) for at in (FIRST, FAR, LAST, 100_500)},
    **{f"pop {at}": lambda v, at=at: v.pop(name(v, at)) for at in (FIRST, FAR, LAST, 100_500)},
    **{f"move {at}": lambda v, at=at: operator.setitem(v, name(v, at), v.pop(name(v, at))) for at in (FIRST, FAR, LAST)},
    "move in place": lambda v: (x := plain(v[name(v, FAR)]), v.__delitem__(name(v, FAR)), v.__setitem__(name(v, FAR), x)),
    "move every third": lambda v: [v.__setitem__(k, v.pop(k)) for k in list(v)[::150]], "float key": lambda v: v.__setitem__(float(FAR), "the int stays"),
    "bool key": lambda v: (v.__setitem__(True, "one"), v.__setitem__(1.0, "still"), v.__setitem__(1, "one again")), "unhashable": lambda v: v.__setitem__([1], 1),
    "tuple keys": lambda v: [v.__setitem__((n, str(n)), [n]) for n in range(30)], "none key": lambda v: v.__setitem__(None, [None]),
    "pop default": lambda v: (v.pop("z", 5), v.pop("z", None), v.pop(name(v, FAR), 5)), "pop unhashable": lambda v: v.pop([1]), "pop nothing": lambda v: v.pop(),
    "del unhashable": lambda v: v.__delitem__([1]), "popitem": lambda v: v.popitem(), "popitems": lambda v: [v.popitem() for _ in range(60)],
    "popitem after": lambda v: (v.__setitem__("z", [1]), v.__setitem__(name(v, FIRST), 2), v.popitem(), v.popitem()),
    "pop all": lambda v: (v.clear(), error_of(v.popitem)), "setdefault": lambda v: (v.setdefault(name(v, FAR), 9), v.setdefault("n", [9]), v.setdefault("m"), v.setdefault("n", 5)),
    "setdefault append": lambda v: v.setdefault("n", []).append([1]), "setdefault unhashable": lambda v: v.setdefault([1], 1),
    "update": lambda v: v.update({name(v, n): [n] for n in range(95_000, 101_000)}), "update pairs": lambda v: v.update([(name(v, spread(n)), {"u": n}) for n in range(1000, 2000)]),
    "update generator": lambda v: v.update((f"g{n}", [n]) for n in range(1000)), "update words": lambda v: v.update(a=5, b=[6]), "update nothing": lambda v: v.update(),
    "update itself": lambda v: v.update(v), "update own items": lambda v: v.update(list(v.items())), "update fails": lambda v: v.update(failing((f"g{n}", [n]) for n in range(1500))),
    "update number": lambda v: v.update(5), "update odd": lambda v: v.update([("a", 1), (1,)]), "update unhashable": lambda v: v.update([("a", 1), ([], 2)]),
    "ior": lambda v: operator.ior(v, {name(v, FAR): 9, "n": [1]}), "ior pairs": lambda v: operator.ior(v, [("a", {})]), "ior number": lambda v: operator.ior(v, 5),
    "ior itself": lambda v: operator.ior(v, v), "clear": lambda v: v.clear(), "clear refill": lambda v: (v.clear(), v.update((n, [n]) for n in range(N))),
    "del every other": lambda v: [v.__delitem__(k) for k in list(v)[::40]], "pop from the front": lambda v: [v.pop(next(iter(v))) for _ in range(60)],
    "add many": lambda v: [v.__setitem__(f"new key {n}", [n]) for n in range(60)], "nested append": lambda v: v.setdefault(name(v, spread(3)), []),
    "nested set": lambda v: v["key 015838"]["tags"].append("deep"), "set itself": lambda v: v.__setitem__(name(v, FAR), v[name(v, FAR)]),
    "set other": lambda v: v.__setitem__("c", v[name(v, spread(3))]), "setattr": lambda v: setattr(v, "new", 1), "add while iterating items": lambda v: [v.__setitem__(k, 1) for k in [*v][:40]],
}  # fmt: skip

SETS: dict[str, Callable[[], set[Any]]] = {
    "words": lambda: {f"member {spread(n):06}" for n in range(N)},
    "hashables": lambda: {
        [spread(n), f"text {n}", (n, "t"), frozenset({n}), n + 0.5, b"%d" % n][n % 6]
        for n in range(N)
    },
}
OTHERS: dict[str, Callable[[Any], Any]] = {
    "some": lambda v: {"member 000000", 0, "z"}, "half": lambda v: {x for x in plain(v) if hash(str(x)[-1:]) % 2}, "all": lambda v: set(plain(v)),
    "more": lambda v: {*plain(v), "z"}, "frozen": lambda v: frozenset({"member 000000", "z"}), "nothing": lambda v: set(), "list": lambda v: ["member 000000", "z"],
    "number": lambda v: 5, "itself": lambda v: v, "unhashable": lambda v: [[1]],
}  # fmt: skip
SET_READS: dict[str, Call] = {
    "in": lambda v: ("member 000000" in v, "z" in v, 0 in v, 0.0 in v, False in v, (2, "t") in v, (2.0, "t") in v, frozenset({3}) in v, {3} in v, b"5" in v),
    "unhashable": lambda v: [1] in v, "len": len, "bool": bool, "set": set, "frozenset": frozenset, "iter": lambda v: set(iter(v)) == plain(v) and len(list(v)) == len(v),
    "sorted": sorted, "sorted by text": lambda v: sorted(v, key=str), "repr": lambda v: (len(repr(v)), repr(v)[0], repr(v)[-1], sorted(repr(v)[1:-1])), "hash": hash,
    "copy": lambda v: v.copy(), "copy.copy": copy.copy, "deepcopy": copy.deepcopy, "pickle": lambda v: pickle.loads(pickle.dumps(v)), "star": lambda v: {*v}, "index": lambda v: v[0],
    "class": lambda v: (v.__class__, isinstance(v, set)), "reversed": reversed, "min": min, "+": lambda v: v + v,
    "left": lambda v: ({9} | v, {"z", 0} & v, {0, "z"} - v, {0, "z"} ^ v, {0} <= v, v >= {0}, {"z"}.union(v), {0, "z"}.difference(v)),
    **{f"{f.__name__} {o}": lambda v, f=f, o=o: f(v, OTHERS[o](v))
       for f in (operator.and_, operator.or_, operator.sub, operator.xor, operator.eq, operator.ne, operator.le, operator.lt, operator.ge, operator.gt)
       for o in OTHERS},
    **{f".{m} {o}": lambda v, m=m, o=o: getattr(v, m)(OTHERS[o](v))
       for m in ("union", "intersection", "difference", "symmetric_difference", "isdisjoint", "issubset", "issuperset") for o in OTHERS},
    "union many": lambda v: v.union([1], {2}, "ab"), "intersection many": lambda v: v.intersection(plain(v), {"z", 0, "member 000000"}),
}  # fmt: skip


def popped(v: Any) -> Any:
    """Pop some elements and say whether each was there and is gone."""
    before, got = set(plain(v)), [v.pop() for _ in range(30)]
    for x in got:
        v.add(x)
    return len(set(got)), set(got) <= before, len(v)


SET_CHANGES: dict[str, Call] = {
    "add": lambda v: v.add("new"), "add same": lambda v: v.add("member 000000"), "add equal": lambda v: (v.add(0.0), v.add(False)), "add unhashable": lambda v: v.add([1]),
    "add many": lambda v: [v.add((n, n)) for n in range(60)], "add nothing": lambda v: v.add(), "add none": lambda v: (v.add(None), v.add(None), v.add(())),
    "remove": lambda v: v.remove(min(v, key=str)), "remove missing": lambda v: v.remove("z"), "remove unhashable": lambda v: v.remove([1]), "remove set": lambda v: v.remove({3}),
    "discard": lambda v: (v.discard(max(v, key=str)), v.discard("z")), "discard unhashable": lambda v: v.discard([1]), "pop": popped, "clear": lambda v: v.clear(),
    "clear pop": lambda v: (v.clear(), error_of(v.pop)), "remove many": lambda v: [v.remove(x) for x in sorted(v, key=str)[::40]],
    "remove nearly all": lambda v: v.difference_update(sorted(v, key=str)[5:]), "clear refill": lambda v: (v.clear(), v.update(f"again {n}" for n in range(N))),
    "update fails": lambda v: v.update(failing(range(1500))), "update many": lambda v: v.update(range(1500), {"x"}, "ab"), "update nothing": lambda v: v.update(),
    **{f"{f.__name__} {o}": lambda v, f=f, o=o: f(v, OTHERS[o](v)) for f in (operator.iand, operator.ior, operator.isub, operator.ixor) for o in OTHERS},
    **{f".{m} {o}": lambda v, m=m, o=o: getattr(v, m)(OTHERS[o](v))
       for m in ("update", "intersection_update", "difference_update", "symmetric_difference_update") for o in OTHERS},
}  # fmt: skip

KINDS: dict[str, tuple[dict[str, Any], dict[str, Call], dict[str, Call]]] = {
    "list": (LISTS, LIST_READS, LIST_CHANGES),
    "dict": (DICTS, DICT_READS, DICT_CHANGES),
    "set": (SETS, SET_READS, SET_CHANGES),
}


def outcome(call: Call, value: Any) -> tuple[Any, ...]:
    """Return what the call gives or raises, the message of the error too.

    The message of a TypeError is left out where it says how a method of C counts its arguments, or
    names the class of what it was called on.
    """
    try:
        result = call(value)
    except Exception as error:
        free = isinstance(error, TypeError) and re.search("Proxy|Frozen|argument|[&|^-]=|unhashable|subscriptable", str(error))  # fmt: skip
        return "raises", type(error), None if free else error.args
    if result is value:
        return ("itself",)
    return "returns", type(plain(result)), plain(result)


def same(got: tuple[Any, ...], expected: tuple[Any, ...]) -> bool:
    """Whether two outcomes are equal; what only one of them says of an error does not count."""
    if got[0] == expected[0] == "raises":
        return got[1] is expected[1] and (None in (got[2], expected[2]) or got[2] == expected[2])
    return got == expected


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """A store with one big value of each kind, for the calls that only read."""
    made = Box(str(Path(tmp_path_factory.mktemp("big")) / "library.db"))
    for kind, (makers, _reads, _changes) in KINDS.items():
        for which, make in makers.items():
            made.store[kind, which] = make()
    yield made
    if hasattr(made.store, "verify"):
        check_store(made.store)
    made.store.close()


READ_CASES = [
    pytest.param(kind, which, call, id=f"{kind}-{which}-{label}")
    for kind, (makers, reads, _changes) in KINDS.items()
    for which in makers
    for label, call in reads.items()
]
CHANGE_CASES = [
    pytest.param(kind, which, call, id=f"{kind}-{which}-{label}")
    for kind, (makers, _reads, changes) in KINDS.items()
    for which in makers
    for label, call in changes.items()
]


@pytest.mark.parametrize(("kind", "which", "call"), READ_CASES)
def test_reading(library: Box, kind: str, which: str, call: Call) -> None:
    """The call gives what it gives on the plain value: when nothing is loaded, live, frozen."""
    make = KINDS[kind][0][which]
    expected = outcome(call, make())
    store = library.reopen()
    cold = outcome(call, store[kind, which])
    assert same(cold, expected), (cold[:2], expected[:2])
    warm = outcome(call, store[kind, which])
    assert same(warm, expected), (warm[:2], expected[:2])
    with store.snapshot() as view:
        frozen = outcome(call, view[kind, which])
        assert same(frozen, expected), (frozen[:2], expected[:2])


@pytest.mark.parametrize(("kind", "which", "call"), CHANGE_CASES)
def test_changing(file_box: Box, kind: str, which: str, call: Call) -> None:
    """The call's result or error and the content after it are the plain value's, in every view."""
    make = KINDS[kind][0][which]
    model = make()
    expected = outcome(call, model)
    if expected[0] == "raises":  # a plain container may keep half of the call
        model = make()
    file_box.store["k"] = {"deep": ["x", make()]}
    live = file_box.store["k"]["deep"][1]
    got = outcome(call, live)
    assert same(got, expected), (got[:2], expected[:2])
    assert_content(live, model)
    assert file_box.store["k"]["deep"][1] is live
    with file_box.store.snapshot() as view:
        assert plain(view["k"]["deep"][1]) == model
    assert_content(file_box.reopen()["k"]["deep"][1], model)


def assert_content(value: Any, model: Any) -> None:
    """Compare content, order and types by all ways of reading a whole container."""
    found = plain(value)
    assert type(found) is type(model)
    assert found == model
    assert len(value) == len(model)
    assert value == model
    if not isinstance(model, set):
        assert [type(x) for x in found] == [type(x) for x in model]
        assert list(plain([*value])) == list(model)
        assert list(plain([*reversed(value)])) == list(reversed(model))
    if isinstance(model, dict):
        assert list(plain([*value.values()])) == list(model.values())
        assert plain([*value.items()]) == list(model.items())
        assert all(key in value for key in model)
    if isinstance(model, set):
        assert len([*value]) == len(model)
        assert sorted(map(repr, value)) == sorted(map(repr, model))
    if isinstance(model, list) and model:
        for at in range(0, len(model), 97):
            assert plain(value[at]) == model[at]
            assert plain(value[at - len(model)]) == model[at]


def whole(store: Any, call: Call) -> Call:
    """Return the call in a block of its own, of which an error leaves nothing."""

    def run(value: Any) -> Any:
        with store.transaction():
            return call(value)

    return run


@pytest.mark.parametrize("kind", KINDS)
def test_many_random_calls(file_box: Box, kind: str) -> None:
    """A hundred calls in any order, one commit each or four, leave value and twin equal."""
    makers, _reads, changes = KINDS[kind]
    which = "numbers" if kind == "list" else "words"
    skip = {"imul", "iadd itself", "extend itself", "slice itself"}  # twice the size each time
    calls = [(label, call) for label, call in sorted(changes.items()) if label not in skip]
    dice = random.Random(kind)
    model = makers[which]()
    file_box.store["k"] = makers[which]()
    live = file_box.store["k"]
    for step in range(25):
        with file_box.store.transaction() if step % 2 else file_box.store.snapshot():
            for _ in range(4):
                label, call = dice.choice(calls)
                before = plain(model)
                copied = copy.deepcopy(before)
                expected = outcome(call, copied)
                got = outcome(whole(file_box.store, call), live)
                assert same(got, expected), (label, got[:2], expected[:2])
                model = before if expected[0] == "raises" else copied
                assert plain(live) == model, label
                if len(model) > 3 * N:
                    (live.clear(), model.clear())
        assert_content(live, model)
    assert_content(file_box.reopen()["k"], model)
