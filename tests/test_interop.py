"""The interoperability matrix: what the standard library and others do with stored values.

Each entry is a function that uses a value. On the stored value it gives what it gives on the plain
one and leaves the store with what the plain one became, or it raises an error that is listed here
and leaves the store alone. Nothing is silently wrong.
"""

# ruff: noqa: E501 (an entry of a table stays on its line)

from __future__ import annotations

import array
import ast
import bisect
import collections
import collections.abc
import contextlib
import copy
import csv
import dataclasses
import functools
import heapq
import inspect
import io
import itertools
import json
import marshal
import operator
import pickle
import pprint
import random
import re
import reprlib
import shelve
import statistics
import string
import struct
import textwrap
import types
import typing
from collections.abc import Callable
from typing import Any

import pytest
from sample_classes import Account, Point, SlotPoint, Slotted

import richstore

pytestmark = pytest.mark.usefixtures("page")

Use = Callable[[Any], Any]
plain = richstore.plain


def matched(value: Any) -> Any:
    """Return which pattern of a match statement takes the value."""
    match value:
        case []:
            return "empty list"
        case [1, *rest] if isinstance(rest, list):
            return "list", len(rest)
        case {"a": first, **others}:
            return "mapping", first, sorted(others, key=str)
        case Point(x=x, tags=[*tags]):
            return "point", x, tags
        case Account(name=name, balance=int(balance)):
            return "account", name, balance
        case set():
            return "set", len(value)
        case _:
            return "nothing"


def written(value: Any) -> str:
    """Return what csv writes."""
    target = io.StringIO()
    csv.writer(target).writerows(value)
    return target.getvalue()


def printed(value: Any) -> Any:
    """Return what pprint writes, read back where it is a literal: its line breaks may differ."""
    target = io.StringIO()
    pprint.pprint(value, stream=target, width=20)
    text = target.getvalue()
    return ast.literal_eval(text) if text[0] in "[{" else text


def shuffled(value: Any) -> Any:
    """Shuffle with a fixed seed."""
    random.Random(5).shuffle(value)


def keywords(**values: Any) -> Any:
    """Return the keyword arguments."""
    return values


def swap(value: Any) -> None:
    """Swap by tuple assignment."""
    value[0], value[-1] = value[-1], value[0]


def starred(value: Any) -> Any:
    """Unpack by assignment."""
    first, *middle, last = value
    return first, middle, last


def unpickled(value: Any) -> Any:
    """Pickle with every protocol, by the C and the Python implementation."""
    results = [pickle.loads(pickle.dumps(value, protocol)) for protocol in range(2, 6)]
    target = io.BytesIO()
    pickle._Pickler(target, 4).dump(value)  # type: ignore[attr-defined]
    return [*results, pickle.loads(target.getvalue())]


def deepcopied(value: Any) -> Any:
    """Deep-copy and change the copy, which is nobody else's."""
    made = copy.deepcopy(value)
    before = plain(made)
    if isinstance(made, (list, dict, set)):
        made.clear()
    else:
        made.balance = "changed"
    return before, made


def shallow(value: Any) -> Any:
    """Copy and change the copy at its top level."""
    made = copy.copy(value)
    before = plain(made)
    if isinstance(made, (list, dict, set)):
        made.clear()
    else:
        made.balance = "changed"
    return before


def shelved(value: Any) -> Any:
    """Put the value through a shelf on a dict."""
    with contextlib.closing(shelve.Shelf({})) as shelf:
        shelf["k"] = value
        return shelf["k"]


dumps = functools.partial(json.dumps, default=plain)

ANY: dict[str, Use] = {
    "repr": repr, "str": str, "format": lambda v: f"{v} {v!r} {v!s:>9}", "bool": bool,
    "percent": lambda v: "%s %r" % (v, v), "reprlib": lambda v: isinstance(v, Account) or reprlib.repr(v),  # noqa: UP031
    "pprint": printed, "pformat": lambda v: pprint.pformat([v], compact=True),
    "type checks": lambda v: [isinstance(v, t) for t in (list, dict, set, tuple, Account, object)],
    "class": lambda v: v.__class__, "callable": callable, "is": lambda v: v is v,
    "abc": lambda v: [isinstance(v, getattr(collections.abc, n)) for n in collections.abc.__all__],
    "doc": inspect.getdoc, "issubclass": lambda v: issubclass(v.__class__, object),
    "pickle": unpickled, "deepcopy": deepcopied, "copy": shallow, "shelve": shelved, "match": matched,
    "equality": lambda v: (v == plain(v), plain(v) == v, v != plain(v), [v] == [plain(v)],
                           operator.eq(v, v)),
    "in list": lambda v: ([v].index(plain(v)), [plain(v)].count(v), v in [plain(v)]),
    "plain": lambda v: (plain(v), type(plain(v))), "plain inside": lambda v: plain({"k": (v, [v])}),
    "textwrap": lambda v: textwrap.shorten(str(v), 12), "json no default": json.dumps,
    "json default": lambda v: json.dumps(v, default=lambda x: vars(plain(x)))
    if isinstance(v, Account) else dumps(v, default=lambda x: sorted(x) if isinstance(x, set)
                                         else plain(x)),
    "marshal": lambda v: marshal.loads(marshal.dumps(v)), "hash": hash, "total": lambda v: len(v), "iterate": lambda v: [*v],
    "weak": lambda v: collections.Counter([type(plain(v)).__name__]),
    "singledispatch": lambda v: dispatched(v), "with in tuple": lambda v: (v,) == (plain(v),),
    "dir": lambda v: set(dir(plain(v))) - set(dir(v)),
}  # fmt: skip


@functools.singledispatch
def dispatched(_value: Any) -> str:
    """Name the type by which a single-dispatch function was chosen."""
    return "object"


for _cls in (list, dict, set, Account):
    dispatched.register(_cls, lambda _value, name=_cls.__name__: name)

LIST = [1, 5, 3, 5]
LISTS: dict[str, Use] = {
    "json": dumps, "json indent": functools.partial(dumps, indent=1), "sorted": sorted, "sum": sum,
    "min max": lambda v: (min(v), max(v), max(v, key=lambda x: -x)), "any": lambda v: (any(v), all(v)),
    "list tuple set": lambda v: (list(v), tuple(v), set(v), frozenset(v)),
    "enumerate zip map": lambda v: (list(enumerate(v)), list(zip(v, v, strict=True)), [*map(str, v)]),
    "bisect": lambda v: (bisect.bisect([1, 3], v[0]), bisect.bisect_left(v, 3)),
    "insort": lambda v: bisect.insort(v, 4), "shuffle": shuffled, "choice": lambda v: random.choice(v) in v,
    "sample": lambda v: random.Random(1).sample(v, 2), "heapify": heapq.heapify,
    "heappush": lambda v: heapq.heappush(v, 2), "heappop": heapq.heappop,
    "heapreplace": lambda v: heapq.heapreplace(v, 9), "nsmallest": lambda v: heapq.nsmallest(2, v),
    "merge": lambda v: list(heapq.merge(v, [2])), "plus left": lambda v: [0] + v,
    "plus right": lambda v: v + [0], "plus tracked": lambda v: v + v, "iadd": lambda v: operator.iadd([0], v),
    "extend plain": lambda v: functools.reduce(lambda a, b: a.extend(b) or a, [[0], v]),
    "slice assign plain": lambda v: operator.setitem(a := [7, 8], slice(0, 1), v) or a,
    "unpack": starred, "call": lambda v: max(*v), "swap": swap, "reversed": lambda v: list(reversed(v)),
    "operator": lambda v: (operator.itemgetter(0, 2)(v), operator.length_hint(v), operator.countOf(v, 5),
                           operator.indexOf(v, 3), operator.contains(v, 9), operator.truth(v)),
    "operator concat": lambda v: operator.concat(v, [1]),
    "operator concat left": lambda v: operator.concat([1], v),
    "operator delitem": lambda v: operator.delitem(v, 0), "operator iadd": lambda v: operator.iadd(v, [1]) == v,
    "operator setitem": lambda v: operator.setitem(v, slice(0, 2), [[1]]),
    "methodcaller": lambda v: operator.methodcaller("append", [2])(v),
    "itertools": lambda v: (list(itertools.chain(v, v)), list(itertools.islice(v, 1, 3)),
                            list(itertools.product(v, repeat=2)), [*itertools.accumulate(v)],
                            [key for key, _ in itertools.groupby(v)], list(itertools.pairwise(v))),
    "statistics": lambda v: (statistics.mean(v), statistics.median(v), statistics.mode(v)),
    "counter": collections.Counter, "deque": collections.deque, "array": lambda v: array.array("i", v),
    "bytes": bytes, "bytearray": bytearray, "struct": lambda v: struct.pack("4i", *v),
    "join": lambda v: ",".join(map(str, v)), "ordered dict": lambda v: dict.fromkeys(v, 0),
    "unbound append": lambda v: list.append(v, 9), "unbound sort": lambda v: list.sort(v),
    "unbound len": lambda v: list.__len__(v), "unbound setitem": lambda v: list.__setitem__(v, 0, 9),
    "sequence index": lambda v: collections.abc.Sequence.index(v, 5),
    "mutable sequence": lambda v: collections.abc.MutableSequence.extend(v, [1, 2]),
    "user list": lambda v: collections.UserList(v) + [1], "compare": lambda v: (v < [2], [2] > v, v <= v),
    "string template": lambda v: string.Template("$x").substitute(x=v), "slice": lambda v: v[slice(0, 2)],
    "while pop": lambda v: [v.pop() for _ in range(2)], "format map": lambda v: f"{v[1]}",
    "comprehension": lambda v: [x for x in v if x > 2], "str mod": lambda v: "%d-%d-%d-%d" % (*v,),  # noqa: UP031
}  # fmt: skip
DICT = {"a": 1, "b": [2, {"c": 3}]}
DICTS: dict[str, Use] = {
    "json": dumps, "json sorted": functools.partial(dumps, sort_keys=True, indent=2), "dict": dict,
    "dict keywords": lambda v: dict(**v), "unpack": lambda v: {**v, "z": 1}, "call": lambda v: keywords(**v),
    "format map": lambda v: "{a} {b[0]}".format_map(v), "percent map": lambda v: "%(a)s" % v,  # noqa: UP031

    "format keywords": lambda v: "{a}".format(**v), "or": lambda v: ({"z": 1} | v, v | {"z": 1}),
    "ior": lambda v: operator.ior({"z": 1}, v), "update plain": lambda v: (d := {"z": 1}).update(v) or d,
    "chain map": lambda v: dict(collections.ChainMap(v, {"q": 1})), "ordered": collections.OrderedDict,
    "default": lambda v: collections.defaultdict(list, v), "namespace": lambda v: types.SimpleNamespace(**v),
    "proxy": lambda v: dict(types.MappingProxyType(v)), "user dict": lambda v: dict(collections.UserDict(v)),
    "items": lambda v: sorted(v.items(), key=str), "max": lambda v: max(v, key=lambda k: str(v[k])),
    "itemgetter": lambda v: operator.itemgetter("a", "b")(v), "eval": lambda v: eval("a + 1", {}, v),
    "exec": lambda v: exec("d = [a]", {}, v), "string template": lambda v: string.Template("$a").substitute(v),
    "unbound set": lambda v: dict.__setitem__(v, "z", 1), "unbound get": lambda v: dict.get(v, "a"),
    "unbound update": lambda v: dict.update(v, z=1), "csv": lambda v: written(v.items()),
    "dict writer": lambda v: csv.DictWriter(io.StringIO(), ["a", "b"]).writerow(v),
    "mapping get": lambda v: collections.abc.Mapping.get(v, "a"), "fromkeys": lambda v: dict.fromkeys(v),
    "mutable mapping": lambda v: collections.abc.MutableMapping.update(v, {"z": [1]}),
    "eval globals": lambda v: eval("a", v), "set of keys": set, "typing": lambda v: typing.cast(dict, v) == v,
}  # fmt: skip
SET = {1, 2, 3}
SETS: dict[str, Use] = {
    "json sorted": lambda v: json.dumps(sorted(v)), "sorted": sorted, "set": set, "frozenset": frozenset,
    "union left": lambda v: ({9} | v, {1, 9} & v, {1, 9} - v, {1, 9} ^ v, {1} <= v, v >= {1}),
    "frozen left": lambda v: (frozenset({9}) | v, frozenset({1}) & v), "update": lambda v: {7}.union(v),
    "ior": lambda v: operator.ior({9}, v), "iand": lambda v: operator.iand(v, {1}) == {1},
    "unbound add": lambda v: set.add(v, 9), "unbound union": lambda v: set.union({9}, v),
    "sum": sum, "in": lambda v: (1 in v, 9 in v), "keys and": lambda v: {1: 0}.keys() & v,
    "mutable set": lambda v: collections.abc.MutableSet.__ior__(v, {5}) == v,
    "disjoint": lambda v: {1}.isdisjoint(v), "unpack": lambda v: {*v, 9},
}  # fmt: skip
ACCOUNTS: dict[str, Use] = {
    "vars": lambda v: dict(vars(v)), "getattr": lambda v: getattr(v, "name"),  # noqa: B009
    "hasattr": lambda v: (hasattr(v, "name"), hasattr(v, "nothing")), "no attribute": lambda v: v.nothing,
    "setattr": lambda v: setattr(v, "balance", 5), "delattr": lambda v: delattr(v, "balance"),
    "attrgetter": operator.attrgetter("name", "balance"), "unbound method": lambda v: Account.deposit(v, 5),
    "method": lambda v: v.deposit(5), "bound later": lambda v: (lambda f: (f(1), f(2)))(v.deposit),
    "partial": lambda v: functools.partial(Account.deposit, v)(7), "getmembers": lambda v: [
        name for name, _ in inspect.getmembers(v, inspect.ismethod) if name[0] != "_"],
    "isinstance": lambda v: (isinstance(v, Account), type(plain(v)) is Account, v.__class__ is Account),
    "vars set": lambda v: vars(v).update(extra=1), "dict set": lambda v: v.__dict__.__setitem__("name", 5),
    "dict append": lambda v: v.__dict__["history"].append(1),
    "inspect": lambda v: inspect.isclass(v.__class__), "methodcaller": operator.methodcaller("deposit", 4),
    "dict replace": lambda v: setattr(v, "__dict__", {"name": "new"}), "init": lambda v: v.__init__("bob"),
    "weak method": lambda v: v.deposit.__self__.name, "class change": lambda v: setattr(v, "__class__", Slotted),
}  # fmt: skip
POINTS: dict[str, Use] = {
    "asdict": dataclasses.asdict, "astuple": dataclasses.astuple, "repr": repr, "match": matched,
    "replace": lambda v: dataclasses.replace(v, x=9), "is": dataclasses.is_dataclass,
    "fields": lambda v: [f.name for f in dataclasses.fields(v)], "eq": lambda v: (v == plain(v), plain(v) == v),
    "asdict changed": lambda v: dataclasses.asdict(v)["tags"].append("free"), "copy": copy.copy,
    "replace changed": lambda v: setattr(dataclasses.replace(v), "x", 5), "deepcopy": copy.deepcopy,
    "setattr": lambda v: setattr(v, "x", 2), "pickle": lambda v: pickle.loads(pickle.dumps(v)),
    "pprint": printed, "json": lambda v: json.dumps(v, default=dataclasses.asdict),
    "init again": lambda v: v.__init__(7), "unbound init": lambda v: type(plain(v)).__init__(v, 8),
}  # fmt: skip

# What may raise on a stored value though it works on a plain one, and with what.
MAY_RAISE: dict[str, type[Exception] | tuple[type[Exception], ...]] = {
    "json no default": TypeError,  # json in C asks for the exact layout: use default=richstore.plain
    "bisect": TypeError, "insort": TypeError,  # C sequence protocol: bisect on plain, then insert
    "operator concat": TypeError,  # use +
    "marshal": ValueError, "weak": TypeError, "concat": TypeError, "operator concat left": TypeError,
    "heapify": TypeError, "heappush": TypeError, "heappop": TypeError, "heapreplace": TypeError,
    "format map": TypeError, "eval": TypeError, "exec": TypeError, "eval globals": TypeError,
    "unbound append": TypeError, "unbound sort": TypeError, "unbound len": TypeError,
    "unbound setitem": TypeError, "unbound set": TypeError, "unbound get": TypeError,
    "unbound update": TypeError, "unbound add": TypeError, "class change": TypeError,
    "vars set": (TypeError, richstore.RichStoreError), "dict set": (TypeError, richstore.RichStoreError),
    "dict replace": (TypeError, AttributeError, richstore.RichStoreError),
}  # fmt: skip
TABLES: dict[str, tuple[Callable[[], Any], dict[str, Use]]] = {
    "list": (lambda: copy.copy(LIST), {**ANY, **LISTS}),
    "rows": (lambda: [[1, "a"], [2, "b"]], {"csv": written, "zip": lambda v: [*zip(*v, strict=True)],
             "dict": dict, "sum": lambda v: sum(v, []),  # noqa: RUF017
             "chain": lambda v: [
                 *itertools.chain.from_iterable(v)], "sorted": lambda v: sorted(v, reverse=True)}),
    "bytes": (lambda: [b"a", b"b"], {"join": b"-".join, "bytes": lambda v: b"".join(reversed(v))}),
    "words": (lambda: ["a", "b"], {"join": "-".join, "startswith": lambda v: "ab".startswith(tuple(v))}),
    "dict": (lambda: copy.deepcopy(DICT), {**ANY, **DICTS}),
    "set": (lambda: set(SET), {**ANY, **SETS}),
    "instance": (lambda: Account("ann"), {**ANY, **ACCOUNTS}),
    "dataclass": (lambda: Point(1, 2, ["a"]), POINTS),
    "slots dataclass": (lambda: SlotPoint(1, ["a"]), POINTS),
}  # fmt: skip


def outcome(use: Use, value: Any) -> Any:
    """Return what the use gives or raises."""
    try:
        return "returns", plain(use(value))
    except Exception as error:
        return "raises", error


@pytest.mark.parametrize(
    "kind, name", [(kind, name) for kind, (_, t) in TABLES.items() for name in t]
)
def test_matrix(box: Any, kind: str, name: str) -> None:
    """The use works as on the plain value or raises what is listed; the store has its outcome."""
    make, uses = TABLES[kind]
    model = make()
    box.store["k"] = make()
    random.seed(3)
    expected = outcome(uses[name], model)
    random.seed(3)
    got = outcome(uses[name], box.store["k"])
    if got[0] == "raises":
        if expected[0] == "raises":
            errors: Any = (type(expected[1]), richstore.RichStoreError)
        else:
            assert name in MAY_RAISE, got[1]
            errors = MAY_RAISE[name]
        assert isinstance(got[1], errors), got[1]
        model = make()
    else:
        assert got[0] == expected[0], expected[1]
        assert got[1] == expected[1] or same_text(got[1], expected[1])
    assert states(plain(box.store["k"])) == states(model)
    assert states(box.stored("k")) == states(model)


def same_text(got: Any, expected: Any) -> bool:
    """Whether two texts differ only in addresses."""
    texts = [re.sub("0x[0-9a-f]+", "0x", str(text)) for text in (got, expected)]
    return isinstance(got, (str, list)) and texts[0] == texts[1]


def states(value: Any) -> Any:
    """Return the type and state of a plain value."""
    return type(value), vars(value) if isinstance(value, Account) else value


def test_numpy(box: Any) -> None:
    """NumPy takes stored lists as it takes plain ones."""
    numpy = pytest.importorskip("numpy")
    box.store["k"] = [[1, 2], [3, 4]]
    k = box.store["k"]
    assert (numpy.asarray(k) == numpy.asarray([[1, 2], [3, 4]])).all()
    assert numpy.asarray(k).dtype == numpy.asarray([[1, 2]]).dtype
    assert numpy.sum(k[0]) == 3
    assert (numpy.array([1, 1]) + k[1]).tolist() == [4, 5]
    numpy.asarray(k)[0, 0] = 99
    assert box.stored("k") == [[1, 2], [3, 4]]


def test_orjson(store: Any) -> None:
    """The orjson library takes stored values with default=richstore.plain, and refuses them without."""
    orjson = pytest.importorskip("orjson")
    store["k"] = {"a": [1, {"b": None}], "p": Point(1)}
    value = store["k"]
    expected = {"a": [1, {"b": None}], "p": {"x": 1, "y": 0, "tags": []}}
    assert orjson.loads(orjson.dumps(value, default=plain)) == expected
    with pytest.raises(TypeError):
        orjson.dumps(value)


def test_plain_of_everything(store: Any) -> None:
    """`plain` gives a deep copy with aliases and cycles kept, and returns untracked atoms as they are."""
    shared: list[Any] = [1]
    store["k"] = {"a": shared, "b": (shared, {"s": {1}}), "c": Account("ann")}
    store["k"]["me"] = store["k"]
    made = plain(store["k"])
    assert made["me"] is made
    assert made["a"] is made["b"][0]
    assert [type(made[key]) for key in "abc"] == [list, tuple, Account]
    assert not any(map(richstore.is_tracked, [made, made["a"], made["b"][1], made["c"]]))
    made["a"].append(2)
    made["c"].balance = 5
    assert store["k"]["a"] == [1]
    assert store["k"]["c"].balance == 0
    assert plain(5) == 5
    assert plain("x") == "x"


def test_going_around_a_class_from_outside(store: Any) -> None:
    """The documented limit: object.__setattr__ from outside is kept by the next change only."""
    store["k"] = Account("ann")
    object.__setattr__(store["k"], "balance", 9)
    with store.snapshot() as view:
        assert view["k"].balance == 0
    store["k"].name = "bob"
    with store.snapshot() as view:
        assert (view["k"].name, view["k"].balance) == ("bob", 9)


def test_is_tracked(store: Any) -> None:
    """is_tracked is true for what persists itself and false for everything else."""
    store["k"] = [1, {"a": {2}}, Account("ann"), (1, 2), "text"]
    k = store["k"]
    assert [richstore.is_tracked(item) for item in k] == [False, True, True, False, False]
    assert richstore.is_tracked(k)
    assert richstore.is_tracked(k[1]["a"])
    assert richstore.is_tracked(k[2].history)
    assert not any(map(richstore.is_tracked, [[], {}, Account("x"), None, int, k.copy()]))
