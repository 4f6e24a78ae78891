"""Remembered functions: computed once, found by their arguments, kept in any kind of target."""

from __future__ import annotations

import asyncio
import collections
import copy
import datetime
import decimal
import enum
import functools
import inspect
import numbers
import pickle
import shelve
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy
import pytest
from conftest import run_python
from sample_classes import Account

import richstore
from richstore.remembered import places

TARGETS = ["store", "memory", "encrypted", "group", "path", "dict", "shelf", "json", "pickle", "fn"]


@pytest.fixture(params=TARGETS)
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    """Each kind of thing that results can be kept in."""
    kind = request.param
    path = str(tmp_path / "results.db")
    if kind in ("json", "pickle"):
        document = richstore.document(tmp_path / f"a.{kind}", default={}, autosave=True)
        yield document if kind == "json" else document.value
    elif kind == "path":
        yield path
        richstore.persisted(path)(len_of).close()
    elif kind == "dict":
        yield {}
    elif kind == "shelf":
        with shelve.open(str(tmp_path / "shelf")) as shelf:
            yield shelf
    else:
        key = bytes(32) if kind == "encrypted" else None
        with richstore.open("memory:" if kind == "memory" else path, key=key) as store:
            if kind == "group":
                yield store.group("results").group("of mine")
            else:
                yield (lambda: store) if kind == "fn" else store


@pytest.fixture
def store() -> Iterator[Any]:
    """A store in memory."""
    with richstore.open("memory:") as made:
        yield made


def len_of(value: Any) -> int:
    """Be a function to decorate."""
    return len(value)


class Calls(list[Any]):
    """A function that keeps a log of its calls."""

    @property
    def square(self) -> Any:
        def square(x: Any, y: Any = 2, *more: Any, scale: Any = 1, **rest: Any) -> Any:
            self.append((x, y, *more, scale, rest))
            return {"x": x, "more": [y]}

        return square


class Color(enum.Enum):
    RED = 1
    BLUE = 2


class Mode(enum.Flag):
    READ = 1
    WRITE = 2


@dataclass(frozen=True)
class Frozen:
    name: str
    parts: tuple[int, ...]


@dataclass
class Thawed:
    name: str


class Pair(NamedTuple):
    a: int
    b: int


# --- every kind of target ---


def test_computed_once(target: Any) -> None:
    """A call computes once, and then gives an equal result, whatever keeps it."""
    calls = Calls()
    square = richstore.persisted(target, name="square")(calls.square)
    assert [square(1), square(1), square(x=1), square(1, 2), square(1, scale=1)] == [
        {"x": 1, "more": [2]}
    ] * 5
    assert len(calls) == 1
    assert square(1, 3) == {"x": 1, "more": [3]}
    assert square(1, 2, 3) == square(1, 2, scale=1, z=1) == {"x": 1, "more": [2]}
    assert len(calls) == 4


def test_clear_set_and_is_set(target: Any) -> None:
    """`set`, `is_set` and `clear` are for one call, and `clear()` for all of the function."""
    calls = Calls()
    square = richstore.persisted(target, name="square")(calls.square)
    other = richstore.persisted(target, name="square2")(calls.square)
    for function in (square, other):
        assert not function.is_set(1)
        function.set("known", 1)
        assert function.is_set(1) and function.is_set(x=1, y=2) and not function.is_set(2)
        assert function(1) == "known"
    assert calls == []
    square(2)
    square.clear(1)
    square.clear(99)
    assert not square.is_set(1) and square.is_set(2) and other.is_set(1)
    square.clear()
    assert not square.is_set(2) and other.is_set(1)


def test_none_is_a_result(target: Any) -> None:
    """None is kept as every result is, unless the decorator says otherwise."""
    calls = []
    kept = richstore.persisted(target, name="kept")(lambda: calls.append("kept"))
    asked = richstore.persisted(target, name="asked", none=False)(lambda: calls.append("asked"))
    assert [kept(), kept(), asked(), asked()] == [None] * 4
    assert calls == ["kept", "asked", "asked"]
    assert kept.is_set() and not asked.is_set()


def test_a_result_that_expires(target: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A result older than `expire` is computed anew, and an older program's result too."""
    now = [1_000_000.0]
    monkeypatch.setattr(time, "time", lambda: now[0])
    calls: list[Any] = []
    work = richstore.persisted(target, name="w", expire=datetime.timedelta(minutes=1))(
        lambda: len(calls.append(1) or calls)
    )
    assert [work(), work()] == [1, 1]
    now[0] += 59.9
    assert work() == 1 and work.is_set()
    now[0] += 0.2
    assert not work.is_set()
    assert [work(), work()] == [2, 2]


def test_a_version_is_a_part_of_the_key(target: Any) -> None:
    """Another version computes anew, the results of both are there, and `clear()` clears all."""
    first = richstore.persisted(target, name="f", version=1)(lambda x: "old")
    second = richstore.persisted(target, name="f", version="b")(lambda x: "new")
    assert [first(1), second(1), first(1)] == ["old", "new", "old"]
    second.clear(1)
    assert first.is_set(1) and not second.is_set(1)
    second.clear()
    assert not first.is_set(1)


def test_an_exception_is_not_kept(target: Any) -> None:
    """What a function raises goes through, and the next call computes."""
    calls: list[Any] = []

    def fail(x: int) -> int:
        calls.append(x)
        if len(calls) == 1:
            raise KeyError(x)
        return x

    work = richstore.persisted(target, name="fail")(fail)
    with pytest.raises(KeyError):
        work(1)
    assert not work.is_set(1)
    assert [work(1), work(1), len(calls)] == [1, 1, 2]


def test_exceptions_that_are_kept(target: Any, request: pytest.FixtureRequest) -> None:
    """An exception of the named classes is kept, and raised again by each call; others are not."""
    calls: list[Any] = []

    def fail(x: Any) -> None:
        calls.append(x)
        raise x("no", 3)

    work = richstore.persisted(target, name="fail", exceptions=LookupError)(fail)
    if "json" in request.node.name:
        with pytest.raises(richstore.EncodingError) as refused:
            work(KeyError)
        assert "what it raised cannot be kept" in str(refused.value)
        return
    for _ in range(3):
        with pytest.raises(KeyError) as caught:
            work(KeyError)
        assert caught.value.args == ("no", 3)
    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            work(ValueError)
    assert calls == [KeyError, ValueError, ValueError]
    assert work.is_set(KeyError) and not work.is_set(ValueError)


def test_no_result_is_half_kept(target: Any, request: pytest.FixtureRequest) -> None:
    """A result that cannot be kept raises an error with its call, and what was there stays."""
    work = richstore.persisted(target, name="work")(lambda x: [1, {"deep": threading.Lock()}])
    work.set("before", 2)
    kind = request.node.callspec.params["target"]
    if kind == "dict":
        assert work(1) is work(1)
        return
    kinds = TypeError if kind == "shelf" else richstore.EncodingError
    for attempt in (lambda: work(1), lambda: work.set(threading.Lock(), 2)):
        with pytest.raises(kinds) as caught:
            attempt()
        told = str(caught.value) + "".join(getattr(caught.value, "__notes__", ()))
        assert "work(1, None)" in told or "work(2, None)" in told
    assert not work.is_set(1)
    assert work(2) == "before"


def test_an_error_leads_to_the_culprit(store: Any) -> None:
    """`EncodingError.path` is the call, and the way into what it returned."""
    work = richstore.persisted(store, name="work")(lambda x: {"rows": [0, threading.Lock()]})
    with pytest.raises(richstore.EncodingError) as caught:
        work("a")
    assert caught.value.path == "work('a', None)['rows'][1]"
    assert caught.value.reason.startswith("what it returned cannot be kept: ")


# --- keys ---

DIFFERENT: list[Any] = [
    *(1, True, 1.0, -0.0, 0.0, "1", b"1", None, (1,), [1], {1}, frozenset({1}), {1: 1}, {1: 1.0}),
    *((), [], "", "None", ("tuple", 1), [("tuple",)], range(1), range(2), int, str, Account),
    *(Color.RED, Color.BLUE, Mode.READ, Mode.READ | Mode.WRITE, Mode(0), Pair(1, 2), (1, 2)),
    *(Frozen("a", (1,)), Frozen("a", (2,)), Path("a"), "a", decimal.Decimal("1"), 10**200, 1j),
    *(decimal.Decimal("1.0"), numpy.int64(1), numpy.float64(1), uuid.UUID(int=1), "x" * 5000),
    datetime.date(2024, 2, 29),
    datetime.datetime(2024, 2, 29),
    datetime.datetime(2024, 2, 29, tzinfo=datetime.UTC),
    datetime.datetime(2024, 2, 29, 1, tzinfo=datetime.timezone(datetime.timedelta(hours=1))),
    datetime.timedelta(1),
]


def test_what_differs_is_another_call(target: Any) -> None:
    """Arguments that are unequal, or equal and of different types, have results of their own."""
    same = richstore.persisted(target, name="same")(lambda x: repr(x))
    assert [same(x) for x in DIFFERENT] == [repr(x) for x in DIFFERENT]
    assert [same(x) for x in DIFFERENT] == [repr(x) for x in DIFFERENT]


def test_numbers_that_do_not_show_what_they_are(store: Any) -> None:
    """Numbers with a `repr()` of little use are told apart by their value, or refused."""

    class Id(int):
        def __repr__(self) -> str:
            return "<Id>"

    class Money(numbers.Number):
        __hash__ = None  # type: ignore[assignment]

    work = richstore.persisted(store, name="work")(lambda x: int(x))
    assert [work(Id(x)) for x in (1, 2, 1)] == [1, 2, 1]
    with pytest.raises(richstore.KeyTypeError, match="Money"):
        work(Money())


def test_what_is_equal_is_one_call(store: Any) -> None:
    """Equal containers are one argument, whatever order made them, and so are those of a store."""
    calls: list[Any] = []
    work = richstore.persisted(store, name="work")(lambda *a, **b: len(calls.append(1) or calls))
    store["stored"] = {"a": [1], "b": {"x", "y"}}
    assert work({"a": [1], "b": {"x", "y"}}) == work({"b": {"y", "x"}, "a": [1]})
    assert work(store["stored"]) == 1
    assert work(a=1, b=2) == work(b=2, a=1) == 2


def test_an_argument_that_is_no_key(store: Any) -> None:
    """Arguments that cannot be told apart later are refused, with what to do about them."""
    calls = Calls()
    work = richstore.persisted(store, name="work")(calls.square)
    with pytest.raises(richstore.KeyTypeError, match=r"'x' is a .*Thawed.* key=lambda x: …"):
        work(Thawed("a"))
    with pytest.raises(richstore.KeyTypeError, match=r"'scale' is a .*ndarray.*key=\{'scale'"):
        work(1, scale=numpy.zeros(3))
    with pytest.raises(richstore.KeyTypeError):
        work([object()])
    with pytest.raises(TypeError, match=r"work\(\): missing a required argument: 'x'"):
        work()
    assert calls == []


def test_key_functions(store: Any) -> None:
    """`key` says what stands for an argument; None leaves it out; a class is a part of the key."""
    calls = Calls()
    work = richstore.persisted(
        store, name="work", key={"x": lambda x: x.name, "scale": None, "more": len}
    )(calls.square)
    work(Thawed("a"), 2, "p", scale=object())
    work(Thawed("a"), 2, "q", scale=print)
    assert len(calls) == 1
    work(Thawed("b"), 2, "p")
    work(Frozen("a", ()), 2, "p")
    assert len(calls) == 3
    refused = richstore.persisted(store, name="bad", key=lambda x: object())(calls.square)
    with pytest.raises(richstore.KeyTypeError, match=r"key gives a .*object for 'x'"):
        refused(1)
    with pytest.raises(ZeroDivisionError):
        richstore.persisted(store, name="bad", key=lambda x: 1 / 0)(calls.square)(1)


def test_names(store: Any) -> None:
    """Functions have results of their own by module and qualified name, or by `name`."""
    one = richstore.persisted(store)(len_of)
    assert one("abc") == 3
    assert store.groups() == ["persisted"] and len(store) == 0
    assert store.group("persisted").groups() == [f"{__name__}.len_of"]
    assert list(store.group("persisted").group(f"{__name__}.len_of")) == [("abc", None)]
    group = richstore.persisted(store.group("mine"), name="length")(len_of)
    group("abc")
    assert store.group("mine").groups() == ["length"]


def test_parameters_of_any_name(store: Any) -> None:
    """Parameters may be called what the methods of the decorator call theirs."""
    work = richstore.persisted(store, name="work")(lambda value, self, function=0: [value, self])
    work.set("known", value=1, self=2)
    assert work.is_set(self=2, value=1) and work(value=1, self=2, function=0) == "known"
    work.clear(self=2, value=1)
    assert work(1, 2) == [1, 2]


def test_a_mapping_that_makes_what_is_missing() -> None:
    """A mapping such as defaultdict is asked for what is there, and makes nothing."""
    target: Any = collections.defaultdict(list)
    work = richstore.persisted(target, name="work")(lambda: 1)
    assert not work.is_set() and work() == 1 and len(target) == 1


# --- results ---


def test_results_are_copies(store: Any) -> None:
    """Who changes what a call returned changes neither what is kept nor what others get."""
    work = richstore.persisted(store, name="work")(lambda: {"rows": [1]})
    for _ in range(3):
        got = work()
        assert got == {"rows": [1]} and not richstore.is_tracked(got)
        got["rows"].append(2)


def test_live_results(store: Any) -> None:
    """With `live` the stored value itself is given out, from the first call on."""
    work = richstore.persisted(store, name="work", live=True)(lambda x: [x])
    work(1).append(2)
    assert work(1) == [1, 2] and richstore.is_tracked(work(1))
    failing = richstore.persisted(store, name="fail", live=True, exceptions=ValueError)(
        lambda text: int(text)
    )
    for _ in range(2):
        with pytest.raises(ValueError, match="invalid literal"):
            failing("x")


def test_any_value_that_a_store_takes(store: Any) -> None:
    """Instances, arrays and values from the store itself come back equal."""
    store["shops"] = ["a"]
    values = [Account("ann", 3), numpy.arange(3), store["shops"], {1: {2}}, Color.RED, (None, [1])]
    work = richstore.persisted(store, name="work")(lambda at: values[at])
    for at, value in enumerate(values):
        for _ in range(2):
            assert numpy.array_equal(work(at), value) if at == 1 else work(at) == value
    assert type(work(0)) is Account


@pytest.mark.parametrize("options", [{"level": "process"}, {"level": "instance"}, {"target": {}}])
def test_what_can_be_used_once_is_refused(options: dict[str, Any]) -> None:
    """Generators and coroutines are no results, at any level: the second caller would get none."""
    work = richstore.persisted(**options, name="work")(lambda x: (i for i in range(3)))
    for _ in range(2):
        with pytest.raises(richstore.EncodingError, match="generator, which can be used once"):
            work(Thawed)
    assert not work.is_set(Thawed)


def test_level_process() -> None:
    """At level "process" results are in memory, the very same object for each call."""
    calls = Calls()
    square = richstore.persisted(level="process")(calls.square)
    assert square(1) is square(x=1)
    square.set("x", 2)
    assert square(2) == "x" and len(calls) == 1
    square.clear(1)
    assert not square.is_set(1) and square.is_set(2)
    square.clear()
    assert not square.is_set(2)


def test_levels_stack(store: Any) -> None:
    """A memory in front of a store is one decorator above the other."""
    calls = Calls()
    kept = richstore.persisted(store, name="square")(calls.square)
    both = richstore.persisted(level="process", name="square")(kept)
    first = both(1)
    store.group("persisted").drop()
    assert both(1) is first
    both.clear()
    assert both(1) == first
    assert len(calls) == 2


def test_in_a_transaction(store: Any) -> None:
    """In a transaction a result is a part of it: undone with it, and committed with it."""
    work = richstore.persisted(store, name="work")(lambda x: [x])
    with pytest.raises(RuntimeError), store.transaction():
        assert work(1) == [1] and work.is_set(1)
        raise RuntimeError
    assert not work.is_set(1)
    with store.transaction():
        work(1)
    assert work.is_set(1)


def test_a_closed_store_and_one_that_is_read_only(file_box: Any) -> None:
    """A store that is closed, or may only be read, says so itself; what is kept there is read."""
    work = richstore.persisted(file_box.store, name="work")(lambda x: x)
    assert work(1) == 1
    file_box.store.close()
    with pytest.raises(richstore.ClosedError):
        work(1)
    with file_box.open(flag="r") as reading:
        again = richstore.persisted(reading, name="work")(lambda x: x)
        assert again(1) == 1
        with pytest.raises(richstore.ReadOnlyError):
            again(2)
    file_box.store = file_box.open()


def test_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path is opened at the first use, where it was at first, shared, and closed by `close()`."""
    monkeypatch.chdir(tmp_path)
    one = richstore.persisted("a.db", name="one")(lambda: 1)
    two = richstore.persisted(Path("a.db"), name="two")(lambda: 2)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert (one(), two()) == (1, 2)
    one.close()
    one.close()
    with richstore.open(tmp_path / "a.db") as store:
        assert store.group("persisted").groups() == ["one", "two"]
    assert two.is_set()
    two.close()
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize("live", [False, True])
def test_a_path_that_is_closed_meanwhile(path: str, live: bool) -> None:
    """A result is kept although the file was closed while it was computed."""

    def compute() -> list[int]:
        work.close()
        return [1]

    async def compute_async() -> list[int]:
        return compute()

    work = richstore.persisted(path, name="work", live=live)(compute)
    assert work() == [1] and work.is_set()
    work.clear()
    work_async = richstore.persisted(path, name="work", live=live)(compute_async)
    assert asyncio.run(work_async()) == [1] and work.is_set()
    work.close()


def test_a_document_whose_value_is_replaced(tmp_path: Path) -> None:
    """Results are kept in the value that a document has now, whoever has assigned it."""
    document = richstore.document(tmp_path / "a.json", default={}, autosave=True)
    work = richstore.persisted(document, name="work")(lambda x: [x])
    assert work(1) == [1]
    document.value = {"other": 0}
    assert not work.is_set(1) and work(2) == [2]
    assert set(document.value) == {"other", "work(2, None)"}


def test_a_large_result_that_is_replaced(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large result that another process replaces as it is read is read in its new state."""
    code = """
import richstore, sys
richstore.persisted(sys.argv[1], name="work")(lambda: None).set("new")
with richstore.open(sys.argv[1]) as store:
    store.compact()
"""

    def replaced_before(value: Any) -> Any:
        monkeypatch.undo()
        done = run_python(code, path)
        assert done.returncode == 0, done.stderr
        with pytest.raises(richstore.DetachedError):
            richstore.plain(value)
        return richstore.plain(value)

    for _ in range(2):
        # the second time from the file
        work = richstore.persisted(path, name="work")(lambda: list(range(50_000)))
        work()
        work.close()
    monkeypatch.setattr(places, "plain", replaced_before)
    assert work() == "new"
    work.close()


# --- what it looks like ---


@richstore.persisted(level="process")
def documented(x: int, y: str = "a") -> str:
    """Say it."""
    return y * x


def test_it_looks_like_the_function() -> None:
    """Name, documentation, signature and annotations are those of the function."""
    assert documented.__name__ == "documented" and documented.__doc__ == "Say it."
    assert str(inspect.signature(documented)) == "(x: 'int', y: 'str' = 'a') -> 'str'"
    assert inspect.isfunction(documented) and documented.__wrapped__.__module__ == __name__
    assert documented.__annotations__["x"] == "int"


def test_it_can_be_pickled_and_copied() -> None:
    """A remembered function is pickled by its name, as others are; pools of processes need it."""
    assert pickle.loads(pickle.dumps(documented)) is documented
    assert copy.copy(documented) is copy.deepcopy(documented) is documented


def test_python_ends(tmp_path: Path) -> None:
    """When Python ends it closes the file of a path, and nothing complains."""
    code = """
import richstore, sys

class Slotted:
    __slots__ = ("__weakref__",)

    @richstore.persisted(level="instance")
    def own(self):
        return self

    @richstore.persisted(sys.argv[1], key=lambda self: 1)
    def kept(self):
        return [1]

sys.modules["kept to the end"] = one = Slotted()
print(one.own() is one, one.kept())
"""
    done = run_python(code, str(tmp_path / "r.db"))
    assert (done.stdout, done.stderr) == ("True [1]\n", "")


# --- misuse ---


def test_misuse_is_explained(store: Any, tmp_path: Path) -> None:
    """What cannot be remembered is refused when it is decorated, and the error says why."""
    persisted: Any = richstore.persisted
    with pytest.raises(TypeError, match="needs a target"):
        persisted()
    with pytest.raises(ValueError, match="level is 'disk'"):
        persisted(store, level="disk")
    with pytest.raises(TypeError, match="has no target"):
        persisted(store, level="process")
    with pytest.raises(TypeError, match="results can be kept in a store"):
        persisted(3)
    with pytest.raises(TypeError, match="results can be kept in a store"):
        persisted(lambda: 3)(len_of)("a")
    with pytest.raises(TypeError, match="pickled is for"):
        persisted(store, pickled=True)
    for expire in (0, -1, float("nan"), True, "1", datetime.timedelta()):
        with pytest.raises(ValueError, match="expire must be a positive number"):
            persisted(store, expire=expire)
    for exceptions in (3, BaseException, [KeyboardInterrupt], ValueError()):
        with pytest.raises(TypeError):
            persisted(store, exceptions=exceptions)
    with pytest.raises(TypeError, match="no parentheses"):
        persisted(len_of)(3)
    with pytest.raises(TypeError, match="not <class"):
        persisted(store)(Account)
    with pytest.raises(TypeError, match="return a list"):

        @persisted(store)
        def generator() -> Any:
            yield 1

    with pytest.raises(TypeError, match="key names 'z'"):
        persisted(store, key={"z": str})(len_of)
    with pytest.raises(TypeError, match="key must be a function"):
        persisted(store, key="name")(len_of)
    with pytest.raises(richstore.KeyTypeError, match="version must be"):
        persisted(store, version=object())(len_of)
    with pytest.raises(TypeError, match="say what it is called"):
        persisted(store)(functools.partial(len_of, "a"))
    with pytest.raises(TypeError, match="every lambda there"):
        persisted(store)(lambda: 1)
    with pytest.raises(TypeError, match="every lambda there"):
        persisted(level="instance")(lambda self: 1)
    for without_first in (lambda: 1, lambda *self: 1, lambda **named: 1):
        with pytest.raises(TypeError, match="no first parameter"):
            persisted(store, key=str, name="work")(without_first)
        with pytest.raises(TypeError, match="no first parameter"):
            persisted(level="instance", name="work")(without_first)
    with pytest.raises(TypeError, match="needs no key"):
        persisted(level="instance", key=str)(len_of)


def test_a_result_that_needs_itself(store: Any) -> None:
    """A function that asks for the result that it computes gets an error, not a deadlock."""

    @richstore.persisted(store, name="around")
    def around(x: int) -> int:
        return around(x + 1 if x < 3 else 2)

    with pytest.raises(RecursionError, match=r"computing around\(2, None\) needs its result"):
        around(0)
    assert not around.is_set(0)


def test_one_place_may_need_another(store: Any) -> None:
    """A function of one name in two groups may ask one for what the other needs."""
    inner = richstore.persisted(store.group("inner"), name="f")(lambda x: x + 1)
    outer = richstore.persisted(store.group("outer"), name="f")(lambda x: inner(x) + 1)
    assert outer(1) == 3


def test_recursion(store: Any) -> None:
    """A remembered function may call itself, with other arguments."""
    calls = []

    @richstore.persisted(store, name="fib")
    def fib(n: int) -> int:
        calls.append(n)
        return n if n < 2 else fib(n - 1) + fib(n - 2)

    assert fib(20) == 6765
    assert sorted(calls) == list(range(21))
