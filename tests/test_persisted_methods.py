"""Remembered methods: instances, classes, properties, slots, dataclasses; `Persistable`."""

from __future__ import annotations

import abc
import copy
import gc
import inspect
import pickle
import threading
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

import attrs
import pydantic
import pytest

import richstore

CALLS: list[Any] = []
RESULTS: dict[str, Any] = {}
# Results of all methods below whose level is "store".
kept = richstore.persisted(RESULTS, key=attrgetter("name"))
own = richstore.persisted(level="instance")


@pytest.fixture(autouse=True)
def _no_calls_yet() -> Iterator[None]:
    """Begin each test without calls and results."""
    CALLS.clear()
    RESULTS.clear()
    yield


class Base:
    """Has one method of each kind; the same name is the same report."""

    def __init__(self, name: str) -> None:
        self.name = name

    @kept
    def load(self, x: int = 1) -> list[Any]:
        """Load it."""
        CALLS.append((self.name, x))
        return [self.name, x]

    @own
    def mine(self, x: int = 1) -> list[Any]:
        CALLS.append((self.name, x))
        return [self, x]

    @property
    @kept
    def above(self) -> str:
        CALLS.append("above")
        return self.name

    @kept
    @property
    def below(self) -> str:
        """Say who it is."""
        CALLS.append("below")
        return self.name

    @below.setter
    def below(self, name: str) -> None:
        self.name = name

    @property
    @own
    def own_above(self) -> list[str]:
        return [self.name]

    @own
    @property
    def own_below(self) -> list[str]:
        return [self.name]

    @richstore.persisted(RESULTS)
    @classmethod
    def class_above(cls, x: int) -> str:
        CALLS.append("class")
        return f"{cls.__name__} {x}"

    @classmethod
    @richstore.persisted(RESULTS)
    def class_below(cls, x: int) -> str:
        CALLS.append("class")
        return f"{cls.__name__} {x}"

    @richstore.persisted(RESULTS)
    @staticmethod
    def static_above(x: int) -> int:
        CALLS.append("static")
        return x + 1

    @staticmethod
    @richstore.persisted(RESULTS)
    def static_below(x: int) -> int:
        CALLS.append("static")
        return x + 1


class Derived(Base):
    """Inherits what is remembered."""


@dataclass
class Data:
    name: str
    seen: list[int] = field(default_factory=list)
    load = Base.__dict__["load"]
    mine = Base.__dict__["mine"]


@dataclass(frozen=True, slots=True, weakref_slot=True)
class SlottedData:
    name: str
    load = Base.__dict__["load"]
    mine = Base.__dict__["mine"]


class Slots:
    __slots__ = ("__weakref__", "name")

    def __init__(self, name: str) -> None:
        self.name = name

    load = Base.__dict__["load"]
    mine = Base.__dict__["mine"]


@attrs.define
class Attrs:
    name: str
    load = Base.__dict__["load"]
    mine = Base.__dict__["mine"]


class Pydantic(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(ignored_types=(type(Base.__dict__["load"]),))
    name: str
    load = Base.__dict__["load"]
    mine = Base.__dict__["mine"]


KINDS = [Base, Derived, Data, SlottedData, Slots, Attrs, Pydantic]


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__name__)
def make(request: pytest.FixtureRequest) -> Any:
    """A function that makes an instance of each kind of class."""
    return lambda name: request.param(name=name)


# --- kinds of classes ---


def test_a_method_in_a_store(make: Any) -> None:
    """Instances with one key have one result; another key, or another class, has its own."""
    one, same, other = make("a"), make("a"), make("b")
    assert one.load() == same.load(1) == same.load(x=1) == ["a", 1]
    assert other.load() == ["b", 1]
    assert type(one).load(one) == ["a", 1]
    assert CALLS == [("a", 1), ("b", 1)]
    same.load(2)
    assert one.load.is_set(2) and not other.load.is_set(2)
    one.load.clear(2)
    assert one.load.is_set() and not one.load.is_set(2)
    one.load.set("x", 3)
    one.load.clear()
    assert not one.load.is_set(1) and not one.load.is_set(3) and other.load.is_set()
    other.load.clear()
    assert RESULTS == {}


def test_a_method_of_an_instance(make: Any) -> None:
    """At level "instance" each instance has results of its own, though they are equal."""
    one, same = make("a"), make("a")
    first = one.mine()
    assert first[0] is one and one.mine(1) is first and same.mine()[0] is same
    assert CALLS == [("a", 1)] * 2
    one.mine(2)
    one.mine.clear(1)
    assert not one.mine.is_set() and one.mine.is_set(2) and same.mine.is_set()
    one.mine.clear()
    assert not one.mine.is_set(2)
    one.mine.set("known")
    assert one.mine() == type(one).mine(one) == "known"
    assert RESULTS == {}


def test_results_belong_to_one_instance(make: Any) -> None:
    """A copy begins without results, by whatever way it was made."""
    one = make("a")
    first = one.mine()
    for other in (copy.copy(one), copy.deepcopy(one), pickle.loads(pickle.dumps(one))):
        assert not other.mine.is_set()
        assert other.mine()[0] is other
        assert one.mine() is first


def test_results_are_freed_with_their_instance() -> None:
    """Results end with their instance, those too that refer to it, and so does the place beside."""
    for kind in (Base, Data, Slots):
        one: Any = kind("a")
        one.mine.set(Base("result"))
        result = weakref.ref(one.mine())
        gone = weakref.ref(one)
        if kind is not Slots:
            # refers to the instance
            one.mine(2)
        del one
        gc.collect()
        assert gone() is None and result() is None


def test_no_place_for_results() -> None:
    """An instance that has no place for results says how to get one."""

    class Bare:
        __slots__ = ("name",)
        mine = Base.__dict__["mine"]

    with pytest.raises(TypeError, match=r"a .*Bare has no place .* weakref_slot=True"):
        Bare().mine()
    with pytest.raises(TypeError, match="int has no place"):
        richstore.persisted(level="instance", name="same")(lambda x: x)(3)
    with pytest.raises(TypeError, match="ask through one"):
        Base.mine.clear()


def test_the_instance_needs_a_key() -> None:
    """A method in a store whose class has no key says what to do."""

    class Report:
        @richstore.persisted({}, name="Report.load")
        def load(self) -> int:
            return 1

    for use in (Report().load, Report().load.is_set, Report().load.clear):
        with pytest.raises(richstore.KeyTypeError, match=r"key=lambda self: …, or .*level='inst"):
            use()


def test_a_subclass_has_results_of_its_own() -> None:
    """What a subclass inherits is remembered apart, since its instances may do something else."""
    assert Base("a").load() == Derived("a").load()
    assert len(CALLS) == 2 and len(RESULTS) == 2


# --- properties, class methods, static methods ---


def test_properties() -> None:
    """A property may be above or below; what is kept is reached through the class."""
    one, same = Base("a"), Base("a")
    assert [one.above, same.above, one.below, same.below] == ["a"] * 4
    assert CALLS == ["above", "below"]
    assert Base.below.__doc__ == "Say who it is." and isinstance(Base.below, property)
    assert Base.below.is_set(one) and Base.above.fget.is_set(one)
    Base.below.clear(one)
    Base.above.fget.clear(one)
    assert not Base.below.is_set(same) and not Base.above.fget.is_set(same)
    Base.below.set(one, "known")
    assert same.below == "known"
    one.below = "b"
    assert one.name == "b" and one.below == "b"
    for name in ("own_above", "own_below"):
        assert getattr(one, name) is getattr(one, name) is not getattr(same, name)
    with pytest.raises(TypeError, match="without a getter"):
        kept(property())


def test_class_methods() -> None:
    """A class method is remembered for each class; `clear()` through a class is for that class."""
    for name in ("class_above", "class_below"):
        CALLS.clear()
        assert [getattr(Base, name)(1), getattr(Base("a"), name)(1)] == ["Base 1"] * 2
        assert [getattr(Derived, name)(x=1), getattr(Derived, name)(1)] == ["Derived 1"] * 2
        assert CALLS == ["class"] * 2
    Derived.class_above.clear()
    assert not Derived.class_above.is_set(1) and Base.class_above.is_set(1)


def test_static_methods() -> None:
    """A static method is remembered as a function is."""
    for name in ("static_above", "static_below"):
        CALLS.clear()
        assert [getattr(Base, name)(1), getattr(Derived("a"), name)(x=1)] == [2, 2]
        assert CALLS == ["static"]
        getattr(Base, name).clear()
        assert not getattr(Derived, name).is_set(1)


def test_a_bound_method() -> None:
    """A method that is decorated as it is bound is remembered for its instance."""
    bound = kept(Slots("a").load.__wrapped__)
    assert bound(5) == ["a", 5] and Slots("a").load.is_set(5)
    bound.clear(5)
    assert not bound.is_set(5)


def test_methods_look_like_methods() -> None:
    """Name, documentation and signature are those of the method, and bound ones can be pickled."""
    one = Base("a")
    assert one.load.__name__ == "load" and Base.load.__doc__ == "Load it."
    assert str(inspect.signature(one.load)) == "(x: 'int' = 1) -> 'list[Any]'"
    assert inspect.ismethod(one.load) and inspect.isfunction(Base.load)
    assert pickle.loads(pickle.dumps(one.load))(4) == ["a", 4]
    assert pickle.loads(pickle.dumps(Base.class_above))(1) == "Base 1"
    assert copy.copy(one.load).__self__ is one and copy.deepcopy(one.mine)()[0] is not one


def test_an_abstract_method_stays_abstract() -> None:
    """A remembered abstract method is abstract."""

    class Abstract(abc.ABC):
        @own
        @abc.abstractmethod
        def work(self) -> int: ...

    with pytest.raises(TypeError, match="abstract"):
        Abstract()  # type: ignore[abstract]


# --- instances of stores, and targets of instances ---


class Owner:
    """Has the store that its methods keep results in."""

    def __init__(self, store: Any, name: str) -> None:
        self.store, self.name = store, name

    @richstore.persisted(attrgetter("store"), key=attrgetter("name"))
    def load(self, x: int) -> list[Any]:
        CALLS.append(x)
        return [self.name, x]


def test_a_target_of_the_instance() -> None:
    """The target may be a function of the instance, so that each has its results elsewhere."""
    with richstore.open("memory:") as store:
        one, other = Owner(store, "a"), Owner(store.group("mine"), "a")
        assert one.load(1) == one.load(1) == other.load(1) == ["a", 1]
        assert CALLS == [1, 1] and store.groups() == ["mine", "persisted"]
        one.load.clear()
        assert not one.load.is_set(1) and other.load.is_set(1)
        with pytest.raises(TypeError, match="function of the first argument"):
            Owner.load.clear()


def test_clearing_one_instance_where_names_are_encrypted(path: str) -> None:
    """`clear()` through an instance needs no order of keys."""
    with richstore.open(path, key=bytes(32), synchronous="off") as store:
        one, other = Owner(store, "a"), Owner(store, "b")
        for owner in (one, other):
            owner.load(1)
            owner.load(2)
        one.load.clear()
        assert not one.load.is_set(1) and not one.load.is_set(2)
        assert other.load.is_set(1) and other.load.is_set(2)


def test_instances_of_a_store(box: Any) -> None:
    """Instances in a store have remembered methods too, whose results change nothing stored."""
    box.store["a"] = Base("a")
    box.store["b"] = one = Base("b")
    one.mine()
    box.store["c"] = one
    live = box.store["a"]
    assert live.load() == live.load() == ["a", 1] and live.mine() is live.mine()
    assert Base("a").load.is_set()
    with box.store.snapshot() as view:
        assert view["a"].load() == ["a", 1] and view["a"].mine()[1] == 1
    live.name = "z"
    assert live.load() == ["z", 1] and live.mine()[0].name == "z"
    assert box.stored("a").__dict__ == {"name": "z"}
    assert not box.store["c"].mine.is_set() and not box.stored("c").mine.is_set()
    assert one.mine.is_set()


def test_a_persistable_instance_of_a_store(box: Any) -> None:
    """A `Persistable` instance can be stored; it is stored without what is in its memory."""
    project = Project("memory:")
    project.made(1)
    project.carried(2)
    box.store["project"] = project
    live = box.store["project"]
    live.path = "elsewhere"
    assert not live.made.is_set(1) and live.made(3) == 3
    assert box.stored("project").path == "elsewhere"
    live.close()
    assert not live.made.is_set(3)


def test_a_stored_instance_needs_its_own_class_alone(path: str) -> None:
    """An instance is read with its class alone, though it had results in memory when stored."""
    one, project = Base("a"), Project("memory:")
    one.mine()
    project.carried(2)
    with richstore.open(path) as store:
        store.update(one=one, project=project)
    with richstore.open(path, classes=[Base, Project]) as store:
        assert store["one"].name == "a" and not store["one"].mine.is_set()
        again = richstore.plain(store["project"])
        assert again.carried.is_set(2) and again.path == "memory:"


# --- Persistable ---


class Resource:
    def __init__(self, log: list[Any], name: str, error: Exception | None = None) -> None:
        self.log, self.name, self.error = log, name, error

    def close(self) -> None:
        self.log.append(self.name)
        if self.error:
            raise self.error


class Project(richstore.Persistable):
    def __init__(self, path: str, given: Any = None) -> None:
        self.path, self.given = path, given

    @property
    @own
    def store(self) -> Any:
        return richstore.open(self.path)

    @richstore.persisted(attrgetter("store"), key=attrgetter("path"))
    def kept(self) -> list[int]:
        CALLS.append("kept")
        return [1]

    @own
    def made(self, name: Any) -> Any:
        return name

    @richstore.persisted(level="instance", pickled=True)
    def carried(self, x: int) -> list[int]:
        CALLS.append("carried")
        return [x]


class SlottedProject(richstore.Persistable):
    __slots__ = ("given", "name")
    made = Project.__dict__["made"]


class Meta(richstore.Persistable, dict):  # type: ignore[type-arg]
    """A mixin on a class with a layout of its own."""


def test_a_persistable_object_pickles(path: str) -> None:
    """Results in memory and open stores are left out, and what is to be pickled goes along."""
    with Project(path) as project, richstore.open("memory:") as other:
        project.given = other.group("a")
        project.made(1)
        project.carried(1)
        assert project.kept() == [1]
        for again in (pickle.loads(pickle.dumps(project)), copy.deepcopy(project)):
            assert set(vars(again)) - {"path"} == {"_richstore_results"}
            assert not again.made.is_set(1) and again.carried.is_set(1)
            with again:
                assert again.kept() == [1] and again.store is not project.store
        project.carried.clear()
        assert vars(pickle.loads(pickle.dumps(project))) == {"path": path}
    assert CALLS == ["carried", "kept"]
    assert not project.store.closed
    project.close()


def test_results_that_are_pickled_without_persistable() -> None:
    """`pickled` holds for every class; a shallow copy has none of the other's results."""
    one = Base("a")
    one.carried = 1  # type: ignore[attr-defined]
    Base.kept_along = Project.__dict__["carried"]  # type: ignore[attr-defined]
    try:
        one.kept_along(1)  # type: ignore[attr-defined]
        again = pickle.loads(pickle.dumps(one))
        assert again.kept_along.is_set(1) and not copy.copy(again).kept_along.is_set(1)
    finally:
        del Base.kept_along  # type: ignore[attr-defined]


def test_slots_and_other_bases() -> None:
    """`Persistable` is a base of slotted classes and beside other bases."""
    one = SlottedProject()
    one.given, one.name = {}, "a"
    with richstore.open("memory:") as store:
        one.given = store
        again = pickle.loads(pickle.dumps(one))
        assert again.name == "a" and not hasattr(again, "given")
    log: list[Any] = []
    one.made.set(Resource(log, "made"), 1)
    one.close()
    assert log == ["made"]
    meta = Meta(a=1)
    assert pickle.loads(pickle.dumps(meta)) == {"a": 1}
    meta.close()


def test_close_closes_what_was_made(path: str) -> None:
    """`close()` closes results, the last first, all of them though one fails, and forgets them."""
    log: list[Any] = []
    given = Resource(log, "given")
    project = Project(path, given)
    failure = OSError("cannot")
    for resource in (
        Resource(log, "1"),
        Resource(log, "2", failure),
        Resource(log, "3"),
        "no close",
    ):
        project.made.set(resource, str(resource))
    store = project.store
    with pytest.raises(OSError, match="cannot"), project:
        assert project.store is store
    assert log == ["3", "2", "1"] and store.closed
    assert not project.made.is_set("no close")
    with project:
        assert not project.store.closed and project.store is not store


def test_close_while_others_ask() -> None:
    """Closing while other threads use the object loses no result: each is closed once."""
    log: list[Any] = []
    project = Project("memory:")
    start = threading.Barrier(3)

    def make(first: int) -> None:
        start.wait()
        for number in range(first, first + 200):
            project.made.set(Resource(log, number), number)

    threads = [threading.Thread(target=make, args=(first,)) for first in (0, 1000)]
    for thread in threads:
        thread.start()
    start.wait()
    while any(thread.is_alive() for thread in threads):
        project.close()
    project.close()
    assert sorted(log) == [*range(200), *range(1000, 1200)]
