"""Errors in the code of stored classes, in the middle of anything: all is as it was, and goes on.

The classes here raise when they are told to: at the n-th call of one of their methods, for n = 1,
2, 3, … until what is done runs through. Afterwards memory is what is stored, the writer's lock is
free, and the same thing works.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from conftest import TINY, canonical, check_store, run_python

import richstore
from richstore import paging
from richstore.transaction import Transaction

pytestmark = pytest.mark.timeout(120)

plain = richstore.plain


class Fuse:
    """Raises an error at the n-th call; used by all classes here.

    Attributes:
        left: calls that are still to go; None: it never raises.
        burnt: whether it has raised.
    """

    left: int | None = None
    burnt = False
    error: type[BaseException] = ValueError

    @classmethod
    def burn(cls) -> None:
        """Count a call, and raise when it is the one."""
        if cls.left is not None:
            cls.left -= 1
            if cls.left == 0:
                cls.left, cls.burnt = None, True
                raise cls.error("from the class")

    @classmethod
    def set(cls, left: int | None, error: type[BaseException] = ValueError) -> None:
        """Let the n-th call from now on raise an error."""
        cls.left, cls.burnt, cls.error = left, False, error


class Stated:
    """Has __getstate__ and __setstate__."""

    def __init__(self, number: int) -> None:
        Fuse.burn()
        self.number = number
        self.tags = [number]

    def __getstate__(self) -> dict[str, Any]:
        Fuse.burn()
        return dict(self.__dict__)

    def __setstate__(self, state: dict[str, Any]) -> None:
        Fuse.burn()
        self.__dict__.update(state)


class Reduced:
    """Is made again by a call, so it is stored as an opaque object."""

    def __init__(self, number: int) -> None:
        Fuse.burn()
        self.number = number

    def __reduce__(self) -> Any:
        Fuse.burn()
        return Reduced, (self.number,)


class Key:
    """Has an equality and a hash of its own."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __hash__(self) -> int:
        Fuse.burn()
        return self.number % 3

    def __eq__(self, other: object) -> bool:
        Fuse.burn()
        return isinstance(other, Key) and self.number == other.number


class Guarded:
    """Sets its attributes by a method of its own, the second of two after the first."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __setattr__(self, name: str, value: Any) -> None:
        Fuse.burn()
        object.__setattr__(self, name, value)
        Fuse.burn()

    def both(self) -> None:
        """Change two attributes."""
        self.number += 1
        self.twice = self.number * 2


def fill(store: Any) -> None:
    """Put in what the work below begins with."""
    store.update(
        stated=[Stated(number) for number in range(3)],
        reduced={"one": Reduced(1)},
        keys={Key(number): [number] for number in range(4)},
        guarded=Guarded(1),
        rows=[[number] for number in range(60)],
        table={f"key {number}": number for number in range(30)},
        plain=[1],
    )


def block(store: Any) -> None:
    """Change something everywhere in one transaction."""
    with store.transaction():
        store["plain"].append(2)
        store["stated"][0].tags.append(1)
        store["rows"].append(Stated(5))
        store["rows"].insert(4, [6])
        store["reduced"]["two"] = Reduced(2)
        store["keys"][Key(8)] = [8]
        store["guarded"].both()
        store["new"] = [Stated(7)]
        del store["table"]


def nested(store: Any) -> None:
    """Go on in a block after a block inside it has failed."""
    with store.transaction():
        store["plain"].append(2)
        with store.transaction():
            store["rows"].append(Stated(5))
            store["keys"].pop(Key(3))
        store["guarded"].number = 4


def both(store: Any) -> None:
    """Call a method that sets two attributes."""
    with store.transaction():
        store["guarded"].both()


WORKS: dict[str, Callable[[Any], Any]] = {
    "append an instance": lambda store: store["stated"].append(Stated(9)),
    "change inside an instance": lambda store: store["stated"][1].tags.append(2),
    "assign a value": lambda store: store.__setitem__("new", {"a": [Stated(1), Reduced(2)]}),
    "assign a key": lambda store: store["reduced"].__setitem__("new", Reduced(5)),
    "insert by a key": lambda store: store["keys"].__setitem__(Key(5), [5]),
    "update by keys": lambda store: store["keys"].update({Key(n): [n] for n in range(3, 9)}),
    "pop by a key": lambda store: store["keys"].pop(Key(2)),
    "set an attribute": lambda store: setattr(store["guarded"], "number", 7),
    "set attributes": both,
    "extend a large list": lambda store: store["rows"].extend([Stated(n) for n in range(20)]),
    "insert into a large list": lambda store: store["rows"].insert(7, [Stated(1), [Reduced(1)]]),
    "build": lambda store: store.__setitem__("built", (Stated(n) for n in range(400))),
    "build a dict": lambda store: store["table"].update((str(n), [Stated(n)]) for n in range(350)),
    "block": block,
    "nested": nested,
    "pop an instance": lambda store: store["stated"].pop(),
    "sort": lambda store: store["rows"].sort(key=lambda row: (Fuse.burn(), -row[0])[1]),
    "remove": lambda store: store["stated"].remove(store["stated"][2]),
}


@pytest.fixture(autouse=True)
def _small_pages(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(paging, "PAGE", 4 * TINY)
    yield
    Fuse.set(None)


def contents(mapping: Any) -> Any:
    """Return all that is in a store or a snapshot, to be compared."""
    return canonical({key: plain(value) for key, value in sorted(mapping.items())})


def check(store: Any, allowed: list[Any], run_thread: Any) -> None:
    """See that memory is what is stored, in an allowed state, and that others can write."""
    live = contents(store)
    with store.snapshot() as view:
        assert contents(view) == live
    assert live in allowed
    run_thread(lambda: store.__setitem__("other", 1))
    del store["other"]
    check_store(store)


@pytest.mark.parametrize("name", WORKS)
def test_error_of_a_class_in_the_middle(
    name: str, box: Any, run_thread: Any, request: pytest.FixtureRequest
) -> None:
    """Whichever call of a class's own method raises, all is as before, and the work can be done."""
    work = WORKS[name]
    store = box.store
    fill(store)
    before = contents(store)
    with richstore.open("memory:") as other:
        fill(other)
        work(other)
        after = contents(other)
    errors = [ValueError, RecursionError, MemoryError, SystemExit]
    few = not request.config.getoption("--long")
    at = 0
    while True:
        # in the short form the first calls, and then ever fewer of them
        at += 1 if at < 12 or not few else at // 2
        error = errors[at % len(errors)]
        Fuse.set(at, error)
        try:
            work(store)
        except BaseException as caught:
            # EncodingError has the error of the class as its cause
            assert isinstance(caught, error) or isinstance(caught.__cause__, error), caught
            Fuse.set(None)
            check(store, [before], run_thread)
        else:
            burnt = Fuse.burnt
            Fuse.set(None)
            check(store, [after], run_thread)
            assert not burnt, "the error of the class was lost"
            break
    assert at > 1


def test_error_of_a_class_while_it_is_read(file_box: Any) -> None:
    """An error in `__setstate__` or a constructor while a value is read passes through, once."""
    fill(file_box.store)
    before = contents(file_box.store)
    at, came = 0, True
    while came:
        at += 1
        store = file_box.reopen()
        Fuse.set(at, ValueError)
        with contextlib.suppress(ValueError, richstore.EncodingError):
            contents(store)
        came = Fuse.burnt
        Fuse.set(None)
        assert contents(store) == before
        store["plain"].append(at)
        assert store["plain"].pop() == at
    assert at > 4
    check_store(file_box.store)


class Endless:
    """Never comes to an end of saying what it is made of."""

    def __reduce__(self) -> Any:
        return self.__reduce__()


def test_an_endless_recursion(box: Any, run_thread: Any) -> None:
    """A method of a class that calls itself without end changes nothing, wherever it is called."""
    store = box.store
    fill(store)
    before = contents(store)

    def in_a_block() -> None:
        with store.transaction():
            store["plain"].append(2)
            store["rows"].insert(5, [Endless()])

    for attempt in (
        lambda: store["rows"].append(Endless()),
        lambda: store.__setitem__("endless", [Endless()]),
        lambda: store["plain"].extend([1, Endless()]),
        lambda: store.__setitem__("built", ([Endless()] for _ in range(400))),
        in_a_block,
    ):
        with pytest.raises((RecursionError, richstore.EncodingError)):
            attempt()
        check(store, [before], run_thread)


NO_MEMORY = """
import resource, sys
import richstore
store = richstore.open(sys.argv[1], synchronous="off", map_size=1 << 28)
store.update(list=[1], rows=[[n] for n in range(2000)])
before = richstore.plain(dict(store))
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
limit = resource.getrlimit(resource.RLIMIT_AS)
failed = 0
for room in range(1, 12):
    resource.setrlimit(resource.RLIMIT_AS, (size + (room << 20), limit[1]))
    try:
        with store.transaction():
            store["list"].append(2)
            store["rows"][5].append(1)
            store["large"] = ["%d" % n * 100 for n in range(40_000)]
            store["rows"].extend([[n] * 10 for n in range(20_000)])
    except (MemoryError, OSError):
        failed += 1
    else:
        raise AssertionError("there was enough memory")
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limit)
    assert richstore.plain(dict(store)) == before
    with store.snapshot() as view:
        assert richstore.plain(dict(view)) == before
    with store.transaction(timeout=0.5):
        store["list"].append(3)
    assert store["list"].pop() == 3
assert store.verify().problems == []
store.close()
print(failed)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and a limit that is kept")
def test_no_memory_in_the_middle_of_a_block(path: str) -> None:
    """When the system gives no more memory the block is undone, and later all works."""
    done = run_python(NO_MEMORY, path)
    assert (done.returncode, done.stdout.strip()) == (0, "11"), done.stderr


def test_lost_errors_are_seen(box: Any, run_thread: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check fails where a failed operation leaves behind what it has done."""
    monkeypatch.setattr(Transaction, "_undo", lambda self, level: level.saved.clear())
    store = box.store
    fill(store)
    before = contents(store)
    Fuse.set(3)
    with pytest.raises((ValueError, richstore.EncodingError)):
        block(store)
    Fuse.set(None)
    with pytest.raises(AssertionError):
        check(store, [before], run_thread)
    monkeypatch.undo()
    store.close()
