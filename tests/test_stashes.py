"""Stashes: that each is a mapping, on each delegate, and right where such stacks go wrong."""

from __future__ import annotations

import copy
import pickle
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import stash_conformance as conformance
from stash_conformance import DELEGATES, agree

import richstore
from richstore.stash import (
    CacheStash,
    DelegateStash,
    DictionaryStash,
    DirectoryStash,
    FactoryStash,
    IncrementKeyDirectoryStash,
    KeyLimitStash,
    KeySubsetStash,
    LRUCacheStash,
    MultiProcessStash,
    MutableStash,
    OneShotFactoryStash,
    PreemptiveStash,
    PrimeableStash,
    ReadOnlyStash,
    SortedStash,
    Stash,
    UnionStash,
)

KEYS = ["a", "b", "c", "d"]


def nothing(key: Any) -> Any:
    """Make nothing."""
    raise KeyError(key)


STACKS: dict[str, Callable[[Any], Any]] = {
    "DelegateStash": DelegateStash,
    "DictionaryStash": DictionaryStash,
    "SortedStash": SortedStash,
    "CacheStash": CacheStash,
    "CacheStash-LRU": lambda on: CacheStash(on, LRUCacheStash(2)),
    "FactoryStash": lambda on: FactoryStash(on, nothing),
    "PreemptiveStash": PreemptiveStash,
    "PrimeableStash": PrimeableStash,
    "OneShotFactoryStash": lambda on: OneShotFactoryStash(on, []),
    "MultiProcessStash": lambda on: MultiProcessStash(on, len, []),
    "three": lambda on: CacheStash(SortedStash(FactoryStash(on, {})), LRUCacheStash(1)),
}
VIEWS: dict[str, Callable[[Any], Any]] = {
    "ReadOnlyStash": ReadOnlyStash,
    "KeyLimitStash": lambda on: KeyLimitStash(on, 10),
    "KeySubsetStash": lambda on: KeySubsetStash(on, KEYS),
    "UnionStash": lambda on: UnionStash({}, on, on),
}


@pytest.fixture(params=DELEGATES)
def delegate(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    """Each mapping that can be below a stash, empty."""
    with DELEGATES[request.param](tmp_path) as made:
        yield made


# --- conformance ---


def test_delegates_alone(delegate: Any) -> None:
    """The stashes among the delegates are mappings by themselves, and what they hold is changed."""
    if isinstance(delegate, Stash):
        conformance.changes(delegate, KEYS)
        delegate.clear()
        conformance.at_random(delegate, KEYS, 1)


@pytest.mark.parametrize("name", STACKS)
def test_stacks(delegate: Any, name: str, request: pytest.FixtureRequest) -> None:
    """A stash on a delegate is a mapping as a dict is, and what it changes is in the delegate."""
    stash = STACKS[name](delegate)
    conformance.changes(stash, KEYS)
    assert dict(delegate) == dict(stash)
    stash.clear()
    assert len(delegate) == 0
    steps = 200 if request.config.getoption("--long") else 10
    conformance.at_random(stash, KEYS, steps, steps)
    assert {key: delegate[key] for key in delegate} == dict(stash)


@pytest.mark.parametrize("name", VIEWS)
def test_views(delegate: Any, name: str) -> None:
    """A stash that is read only shows what its delegate has at that moment, and changes nothing."""
    stash = VIEWS[name](delegate)
    agree(stash, {}, "a")
    delegate["a"] = None
    agree(stash, {"a": None}, "b")
    delegate["b"] = [1, {"deep": 2}]
    agree(stash, {"a": None, "b": [1, {"deep": 2}]}, "c")
    conformance.refuses(stash, "a")
    del delegate["a"]
    agree(stash, {"b": [1, {"deep": 2}]}, "a")


def test_numbered_files(tmp_path: Path) -> None:
    """A directory of numbered files is a mapping too, with numbers for keys."""
    conformance.changes(IncrementKeyDirectoryStash(tmp_path), [1, -20, 0, 7])
    stash = IncrementKeyDirectoryStash(tmp_path, "other", format="json")
    conformance.at_random(stash, [3, 20, 100], 3)


@pytest.mark.parametrize("make", [Stash, MutableStash])
def test_a_subclass_needs_little(make: Any) -> None:
    """A stash of one's own is a mapping with two methods, and with four it can be changed."""

    class Own(make):  # type: ignore[misc]
        def __init__(self) -> None:
            self.data: dict[Any, Any] = {}

        def load(self, key: Any) -> Any:
            return self.data[key]

        def __iter__(self) -> Iterator[Any]:
            return iter(self.data)

    if make is Stash:
        own = Own()
        own.data["a"] = None
        agree(own, {"a": None}, "b")
        conformance.refuses(own, "a")
        return
    with pytest.raises(TypeError, match="abstract"):
        Own()

    class Whole(Own):
        def dump(self, key: Any, value: Any) -> None:
            self.data[key] = value

        def delete(self, key: Any) -> None:
            del self.data[key]

    conformance.changes(Whole(), KEYS)


def test_overriding_one_method_is_enough() -> None:
    """What a subclass does in `load` and `dump` is done by every way to read and to change."""

    class Doubled(DelegateStash[str, int]):
        def load(self, key: str) -> int:
            return super().load(key) * 2

        def dump(self, key: str, value: int) -> None:
            super().dump(key, value + 1)

    data: dict[str, int] = {}
    stash = Doubled(data)
    stash["a"] = 1
    stash.update(b=2)
    assert data == {"a": 2, "b": 3} and dict(stash.items()) == {"a": 4, "b": 6}
    assert (stash["a"], stash.get("a"), stash.setdefault("c", 4)) == (4, 4, 10)
    assert [*stash.values()] == [4, 6, 10] and stash.pop("a") == 4


@pytest.mark.parametrize("wrong", [None, 3, "text", [1], {1}])
def test_what_is_no_mapping(wrong: Any) -> None:
    """A stash says what it needs when it is given something else than a mapping."""
    for make in [*STACKS.values(), *VIEWS.values()]:
        if make is not DictionaryStash or wrong is not None:
            with pytest.raises(TypeError, match="a stash needs a mapping, such as a Store"):
                make(wrong)


@pytest.mark.parametrize("name", [name for name in STACKS if name != "three"])
def test_on_what_cannot_be_changed(name: str) -> None:
    """On a snapshot, or a stash that is read only, a stash reads, and refuses to change."""
    with richstore.open("memory:") as store:
        store["a"] = 1
        with store.snapshot() as view:
            for below in (view, ReadOnlyStash(store)):
                stash = STACKS[name](below)
                agree(stash, {"a": 1}, "b")
                for change in (
                    lambda stash=stash: stash.dump("b", 2),
                    lambda stash=stash: stash.delete("a"),
                    lambda stash=stash: stash.clear(),
                ):
                    with pytest.raises(richstore.ReadOnlyError, match="cannot be changed"):
                        change()


@pytest.mark.parametrize("name", [*STACKS, *VIEWS])
def test_copies(name: str) -> None:
    """A stash on plain data is pickled and copied, and its copy goes on alone."""
    stash = {**STACKS, **VIEWS}[name]({"a": 1})
    assert dict(stash) == {"a": 1}
    for made in (copy.deepcopy(stash), pickle.loads(pickle.dumps(stash))):
        assert type(made) is type(stash)
        assert dict(made) == {"a": 1}
        if isinstance(made, MutableStash):
            made["b"] = 2
    assert dict(stash) == {"a": 1}


def test_live_values_stay_live() -> None:
    """What a store gives through stashes persists itself when it is changed."""
    with richstore.open("memory:") as store:
        stash = CacheStash(SortedStash(FactoryStash(store.group("lists"), lambda key: [])))
        stash["a"].append(1)
        stash["a"].append(2)
        stash["b"] = {"c": []}
        stash["b"]["c"].append(3)
        assert dict(store.group("lists")) == {"a": [1, 2], "b": {"c": [3]}}


def test_a_document_below(tmp_path: Path) -> None:
    """What is changed through a stash on a document's value is saved with the document."""
    with richstore.document(tmp_path / "x.json", default={}) as doc:
        stash = FactoryStash(doc.value, len)
        assert stash["four"] == 4
    assert richstore.document(tmp_path / "x.json").value == {"four": 4}


# --- one by one ---


def test_sorted_stash() -> None:
    """Keys, values and items come in the order that was asked for; nothing is sorted below."""
    data = {"b": 1, "C": 2, "a": 3}
    assert list(SortedStash(data)) == ["C", "a", "b"]
    stash = SortedStash(data, key=str.lower, reverse=True)
    assert list(stash.items()) == [("C", 2), ("b", 1), ("a", 3)]
    assert list(stash.values()) == [2, 1, 3] and list(data) == ["b", "C", "a"]
    with pytest.raises(TypeError):
        list(SortedStash({"a": 1, 2: 2}))


def test_the_limit_holds_for_every_way_to_ask() -> None:
    """A key beyond the limit is not there: not by `[]`, which ignores the limit in the original."""
    stash = KeyLimitStash({"a": 1, "b": 2, "c": 3}, 2)
    agree(stash, {"a": 1, "b": 2}, "c")
    agree(KeyLimitStash({"a": 1}, 0), {}, "a")
    with pytest.raises(ValueError, match="limit is -1"):
        KeyLimitStash({}, -1)


def test_a_subset_is_the_same_each_time(tmp_path: Path) -> None:
    """Keys from a file are there at the second look too, and those alone that the mapping has."""
    path = tmp_path / "keys.txt"
    path.write_text("b\n\n  a \nx\n")
    data = {"a": 1, "b": 2, "c": 3}
    for keys in (path, iter(["b", "a", "x"])):
        stash = KeySubsetStash(data, keys)
        for _ in range(2):
            assert list(stash) == ["b", "a"]
            agree(stash, {"a": 1, "b": 2}, "c")
        agree(stash, {"a": 1, "b": 2}, "x")
    with pytest.raises(TypeError, match=r"pathlib\.Path"):
        KeySubsetStash(data, "keys.txt")
    with pytest.raises(FileNotFoundError):
        KeySubsetStash(data, tmp_path / "nothing")


def test_a_union_has_each_key_once() -> None:
    """Where several have a key, the first counts, for keys, values and `get`; None counts too."""
    stash = UnionStash({"a": None}, {"a": 2, "b": 3}, {"b": 4, "c": 5})
    assert list(stash.items()) == [("a", None), ("b", 3), ("c", 5)]
    agree(stash, {"a": None, "b": 3, "c": 5}, "d")
    assert stash.get("d", 6) == 6
    agree(UnionStash(), {}, "a")


# --- caches ---


class Counting(dict[Any, Any]):
    """A dict that counts how often each key is read."""

    def __init__(self, *data: Any) -> None:
        super().__init__(*data)
        self.reads: list[Any] = []

    def __getitem__(self, key: Any) -> Any:
        self.reads.append(key)
        return super().__getitem__(key)


def test_a_cache_reads_once() -> None:
    """A value is read once, None too, and by `get` as by `[]`."""
    data = Counting({"a": 1, "b": None})
    stash = CacheStash(data)
    for _ in range(3):
        assert (stash["a"], stash.get("a"), stash["b"], stash.get("b", 5)) == (1, 1, None, None)
    assert data.reads == ["a", "b"]


def test_a_cache_is_not_stale() -> None:
    """After a dump, a delete or a clear through the cache nobody gets the old value."""
    data = {"a": 1, "b": 2}
    stash = CacheStash(data)
    assert (stash["a"], stash["b"]) == (1, 2)
    stash["a"] = 3
    assert (stash["a"], stash.get("a"), data["a"]) == (3, 3, 3)
    del stash["a"]
    agree(stash, {"b": 2}, "a")
    stash.clear()
    agree(stash, {}, "b")


def test_a_cache_forgets_no_value_that_was_missing() -> None:
    """What was missing once is found when somebody has put it there."""
    data: dict[str, int] = {}
    stash = CacheStash(data)
    assert stash.get("a") is None
    data["a"] = 1
    assert stash.get("a") == stash["a"] == 1
    data["a"] = 2
    assert stash["a"] == 1
    stash.forget("b")
    assert stash["a"] == 1
    stash.forget("a")
    assert stash["a"] == 2
    data["a"] = 3
    stash.forget()
    assert stash["a"] == 3


def test_a_cache_gives_what_the_delegate_gives(tmp_path: Path) -> None:
    """What was dumped is read again from below, without later changes to the caller's object."""
    mine = [1]
    for below in (DirectoryStash(tmp_path), richstore.open("memory:")):
        stash = CacheStash(below)
        stash["a"] = mine
        mine.append(2)
        assert stash["a"] == below["a"] == [1]
        mine.pop()
    below.close()


def test_a_dump_that_fails_leaves_the_cache_right(tmp_path: Path) -> None:
    """After a dump that the delegate refused, the cache gives what the delegate has."""
    stash = CacheStash(DirectoryStash(tmp_path, format="json"))
    stash["a"] = 1
    assert stash["a"] == 1
    with pytest.raises(richstore.EncodingError):
        stash["a"] = {1, 2}
    assert stash["a"] == 1


def test_a_cache_keeps_nothing_that_was_read_before_a_change() -> None:
    """A reader who is overtaken by a writer does not leave the old value in the cache."""
    reading, written = threading.Event(), threading.Event()

    class Slow(dict[Any, Any]):
        def __getitem__(self, key: Any) -> Any:
            value = super().__getitem__(key)
            if not written.is_set():
                reading.set()
                assert written.wait(30)
            return value

    stash = CacheStash(Slow(a="old"))
    got: list[Any] = []
    reader = threading.Thread(target=lambda: got.append(stash["a"]))
    reader.start()
    assert reading.wait(30)
    stash["a"] = "new"
    written.set()
    reader.join()
    assert got == ["old"] and stash["a"] == "new"


def test_the_least_recently_used_goes() -> None:
    """Reading by any way is using, asking and failing are not; None is kept as any other."""
    stash = LRUCacheStash(3)
    stash.update(a=None, b=2, c=3)
    assert stash["a"] is None
    assert stash.get("b") == 2
    assert "c" in stash and stash.exists("c")
    stash["d"] = 4
    assert list(stash) == ["a", "b", "d"]
    stash["a"] = 5
    assert stash.get("nothing") is None
    assert list(stash) == ["b", "d", "a"]
    assert dict(stash.items()) == {"b": 2, "d": 4, "a": 5}
    with pytest.raises(ValueError, match="maxsize is 0"):
        LRUCacheStash(0)


def test_caches_under_threads(run_thread: Any) -> None:
    """Threads that read and change one cache see no error and leave it as its delegate is."""
    below: dict[int, int] = {}
    stash = CacheStash(below, LRUCacheStash(5))

    def work(number: int) -> None:
        for step in range(300):
            stash[step % 7] = number
            assert stash.get(step % 7) is not None

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert dict(stash) == below and len(stash.cache) <= 5


# --- factories ---


def test_a_factory_makes_once(delegate: Any) -> None:
    """`[]` makes what is missing, keeps it below, and makes it no second time; None neither."""
    calls: list[str] = []

    def factory(key: str) -> Any:
        calls.append(key)
        return None if key == "b" else [key]

    stash = FactoryStash(delegate, factory)
    for _ in range(2):
        assert stash["a"] == ["a"] and stash["b"] is None
    assert calls == ["a", "b"]
    assert dict(delegate) == {"a": ["a"], "b": None}


def test_a_factory_function_is_asked_by_brackets_alone() -> None:
    """With a function, `get`, `in`, `pop` and `setdefault` go by what was made, on stacks too."""
    for make in (FactoryStash, lambda on, factory: CacheStash(FactoryStash(on, factory))):
        stash = make({}, str.upper)
        assert "a" not in stash and stash.get("a") is None and len(stash) == 0
        assert stash.pop("a", 1) == 1
        assert stash.setdefault("a", "mine") == "mine"
        assert stash["b"] == "B"
        assert dict(stash) == {"a": "mine", "b": "B"}
        with pytest.raises(KeyError):
            stash.pop("c")


def test_a_factory_mapping_has_its_keys_from_the_beginning() -> None:
    """With a mapping, all its keys are there before and after some of the values were made."""
    factory = Counting({"a": 1, "b": None})
    below = {"c": 3}
    stash = FactoryStash(below, factory)
    for _ in range(2):
        assert list(stash) == ["a", "b", "c"] and len(stash) == 3
        assert "b" in stash and stash.get("b", 5) is None
        assert stash["a"] == 1
        assert dict(stash.items()) == {"a": 1, "b": None, "c": 3}
    assert sorted(factory.reads) == ["a", "b"]
    assert below == {"a": 1, "b": None, "c": 3}
    agree(stash, below, "d")
    stash.clear()
    assert below == {} and list(stash) == ["a", "b"]
    assert list(factory) == ["a", "b"]


def test_a_factory_that_fails() -> None:
    """An error of the factory goes to the caller, nothing is kept, the next call tries again."""
    fail = [True]

    def factory(key: str) -> int:
        if fail[0]:
            raise RuntimeError("not today")
        return 1

    below: dict[str, int] = {}
    stash = FactoryStash(below, factory)
    with pytest.raises(RuntimeError, match="not today"):
        stash["a"]
    assert below == {} and "a" not in stash
    fail[0] = False
    assert stash["a"] == 1
    with pytest.raises(TypeError, match="factory must be a function"):
        FactoryStash({}, 5)  # type: ignore[arg-type]


def test_threads_that_ask_at_once_make_once() -> None:
    """While one thread makes a value the others wait for it; other keys do not wait."""
    began, go = threading.Event(), threading.Event()
    calls: list[str] = []

    def factory(key: str) -> object:
        calls.append(key)
        if key == "slow":
            began.set()
            assert go.wait(30)
        return object()

    stash = FactoryStash({}, factory)
    got: list[Any] = []
    threads = [threading.Thread(target=lambda: got.append(stash["slow"])) for _ in range(5)]
    for thread in threads:
        thread.start()
    assert began.wait(30)
    assert stash["quick"] is stash["quick"]
    go.set()
    for thread in threads:
        thread.join()
    assert len(got) == 5 and len(set(map(id, got))) == 1
    assert calls.count("slow") == calls.count("quick") == 1


def test_a_factory_that_uses_its_own_stash() -> None:
    """A factory may ask its stash for other values, on one store."""
    with richstore.open("memory:") as store:

        def fibonacci(key: int) -> int:
            return key if key < 2 else stash[key - 1] + stash[key - 2]

        stash: Any = FactoryStash(store, fibonacci)
        assert stash[30] == 832040
        assert len(store) == 31


def test_what_was_kept_first_counts() -> None:
    """Of two stashes on one store that make a value at once, both give what was kept first."""
    with richstore.open("memory:") as store:
        began, go = threading.Event(), threading.Event()

        def slow(key: str) -> list[str]:
            began.set()
            assert go.wait(30)
            return ["second"]

        got: list[Any] = []
        thread = threading.Thread(target=lambda: got.append(FactoryStash(store, slow)["a"]))
        thread.start()
        assert began.wait(30)
        assert FactoryStash(store, lambda key: ["first"])["a"] == ["first"]
        go.set()
        thread.join()
        assert got == [["first"]] and store["a"] == ["first"]


# --- what is done once ---


def test_priming_comes_before_everything() -> None:
    """Whatever is done first, `in` too, the work is done before it, and once."""
    uses: list[Callable[[Any], object]] = [
        lambda stash: stash["a"],
        lambda stash: stash.get("a"),
        lambda stash: "a" in stash,
        len,
        list,
        lambda stash: stash.keys() & {"a"},
        lambda stash: stash.dump("b", 1),
        lambda stash: stash.delete("a"),
        lambda stash: stash.pop("a"),
    ]
    for use in uses:
        for outer in (lambda stash: stash, CacheStash, PrimeableStash):
            calls: list[int] = []
            use(outer(PrimeableStash({"a": 1}, lambda calls=calls: calls.append(1))))
            assert calls == [1]
    PrimeableStash(PrimeableStash({}, lambda: calls.append(2))).prime()
    assert calls == [1, 2]


def test_priming_that_fails_is_tried_again() -> None:
    """An error of the work goes to whoever used the stash, and the next use tries again."""
    calls: list[int] = []

    class Own(PrimeableStash[str, int]):
        def prepare(self) -> None:
            calls.append(1)
            # the work uses the stash itself
            self["made"] = len(self)
            if len(calls) == 1:
                raise OSError("not yet")

    stash = Own({})
    with pytest.raises(OSError, match="not yet"):
        "a" in stash  # noqa: B015
    assert stash["made"] == 1
    assert len(calls) == 2
    assert stash["made"] == 1 and len(calls) == 2


def test_threads_prime_once() -> None:
    """Threads that use a stash at once wait for the one that does the work."""
    began, go = threading.Event(), threading.Event()
    calls: list[int] = []
    below: dict[str, int] = {}

    def work() -> None:
        calls.append(1)
        began.set()
        assert go.wait(30)
        below["a"] = 1

    stash = PrimeableStash(below, work)
    got: list[Any] = []
    threads = [threading.Thread(target=lambda: got.append("a" in stash)) for _ in range(4)]
    for thread in threads:
        thread.start()
    assert began.wait(30)
    go.set()
    for thread in threads:
        thread.join()
    assert got == [True] * 4 and calls == [1]


def test_has_data_is_of_now() -> None:
    """Whether there is data is asked anew each time, as others may have put it there."""
    below: dict[str, Any] = {}
    stash = PreemptiveStash(below)
    assert not stash.has_data
    below["a"] = None
    assert stash.has_data
    stash.clear()
    assert not stash.has_data


def test_one_shot(delegate: Any) -> None:
    """A worker fills an empty delegate at the first use, once, and a filled one never."""
    calls: list[int] = []

    def worker() -> Iterator[tuple[str, Any]]:
        calls.append(1)
        yield "a", None
        yield "b", [2]

    stash = OneShotFactoryStash(delegate, worker)
    assert not stash.has_data and len(delegate) == 0
    assert "a" in stash
    agree(stash, {"a": None, "b": [2]}, "c")
    agree(OneShotFactoryStash(delegate, worker), {"a": None, "b": [2]}, "c")
    assert calls == [1]
    del stash["a"]
    agree(stash, {"b": [2]}, "a")


def test_one_shot_workers() -> None:
    """A worker is a mapping, pairs, or a function of these; an iterator is gone through once."""
    pairs = [("ab", 1), ("cd", 2)]
    for worker in (dict(pairs), pairs, iter(pairs), lambda: dict(pairs), lambda: iter(pairs)):
        assert dict(OneShotFactoryStash({}, worker)) == dict(pairs)
    stash = OneShotFactoryStash({}, (1 / (1 - at) and (at, at) for at in range(3)))
    with pytest.raises(ZeroDivisionError):
        len(stash)
    with pytest.raises(RuntimeError, match="give a function"):
        len(stash)


def test_clearing_comes_before_the_work() -> None:
    """`clear()` does no work that it would undo; what is done once is not done again after it."""
    calls: list[int] = []
    below = {"old": 1}
    stash = OneShotFactoryStash(below, lambda: calls.append(1) or {"new": 2})
    stash.clear()
    assert below == {} and calls == []
    assert dict(stash) == {"new": 2}
    stash.clear()
    assert dict(stash) == {} and calls == [1]


def test_one_shot_that_fails(delegate: Any) -> None:
    """A worker that fails leaves nothing, so that the next use fills the stash as a whole."""
    calls: list[int] = []

    def worker() -> Iterator[tuple[str, int]]:
        calls.append(1)
        yield "a", 1
        if len(calls) == 1:
            raise RuntimeError("half way")
        yield "b", 2

    stash = OneShotFactoryStash(delegate, worker)
    with pytest.raises(RuntimeError, match="half way"):
        len(stash)
    assert len(delegate) == 0
    agree(stash, {"a": 1, "b": 2}, "c")


def test_one_shot_in_a_transaction_of_another_thread(file_box: Any, run_thread: Any) -> None:
    """Threads of which one is in a transaction fill a stash once, and none waits for ever."""
    store = file_box.store
    inside, filled = threading.Event(), threading.Event()
    calls: list[int] = []

    def worker() -> Iterator[tuple[str, int]]:
        calls.append(1)
        yield "a", 1

    stash = OneShotFactoryStash(store.group("made"), worker)

    def other() -> Any:
        assert inside.wait(30)
        filled.set()
        return dict(stash)

    got: list[Any] = []
    thread = threading.Thread(target=lambda: got.append(other()))
    thread.start()
    with store.transaction():
        inside.set()
        assert filled.wait(30)
        assert stash["a"] == 1
    thread.join(30)
    assert not thread.is_alive()
    assert got == [{"a": 1}] and calls == [1]
