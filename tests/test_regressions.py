"""Ways in which data was lost, half-made states were seen, or memory and disk came to differ."""

from __future__ import annotations

import collections
import contextlib
import contextvars
import functools
import io
import ipaddress
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
from conftest import run_python

import richstore
from richstore.transaction import Transaction


class Checked:
    """A class with its own __setattr__, whose methods are therefore watched."""

    def __init__(self) -> None:
        self.x = 4

    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def read(self, entered: threading.Event, go_on: threading.Event) -> Any:
        """Read x, slowly."""
        entered.set()
        go_on.wait(10)
        return self.x


class Pair:
    """Two attributes."""

    def __init__(self) -> None:
        self.x = 0
        self.y = 0


class Cached:
    """A class with a cached property that gives a container."""

    @functools.cached_property
    def tags(self) -> list[int]:
        """Return a new list, once."""
        return [1]


class Pickled:
    """A class whose objects are made by arguments, and have a state besides."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.tags: list[str] = []


class PickledByArguments(Pickled):
    """One that says them by `__getnewargs__`."""

    def __new__(cls, name: str) -> PickledByArguments:
        """Take the name, as pickle gives it."""
        return super().__new__(cls)

    def __getnewargs__(self) -> tuple[str]:
        return (self.name,)


class PickledByNames(PickledByArguments):
    """One that says them by `__getnewargs_ex__`."""

    def __getnewargs_ex__(self) -> tuple[tuple[()], dict[str, str]]:
        return (), {"name": self.name}


class PickledByReduction(Pickled):
    """One that has its own `__reduce__`."""

    def __reduce__(self) -> Any:
        return PickledByReduction, (self.name,), {"tags": self.tags}


class Locked:
    """A class that cannot be stored by value: it has a lock."""

    __module__ = "__main__"
    lock = threading.Lock()


class Saving:
    """Calls `hook` whenever it is pickled."""

    hook: Callable[[], None] | None = None

    def __init__(self) -> None:
        self.items = [1]

    def __getstate__(self) -> dict[str, Any]:
        if Saving.hook is not None:
            Saving.hook()
        return {"items": self.items}


class Clash:
    """A key whose comparison fails while `armed`; all have one hash."""

    armed = False

    def __init__(self, number: int) -> None:
        self.number = number

    def __hash__(self) -> int:
        return 1

    def __eq__(self, other: object) -> bool:
        if Clash.armed:
            raise ValueError("not comparable now")
        return isinstance(other, Clash) and self.number == other.number


class Recorder(list[int]):
    """A list whose generator method changes the list's attributes while it runs."""

    seen = 0

    def each(self) -> Any:
        """Yield the items and count them."""
        for item in list.__iter__(self):
            self.seen = self.seen + 1
            yield item


def in_other_process(box: Any, code: str) -> None:
    """Run code with the store open as `s` in another process."""
    done = run_python(
        "import sys, richstore\n"
        "with richstore.open(sys.argv[1], synchronous='off') as s:\n"
        f"    {code}\n",
        box.target,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("make", "change"),
    [
        (lambda: collections.deque([1]), lambda v: v.append(2)),
        (lambda: collections.defaultdict(list), lambda v: v["k"]),
        (lambda: bytearray(b"a"), lambda v: v.extend(b"b")),
    ],
    ids=["deque", "defaultdict", "bytearray"],
)
def test_inner_rollback_of_a_value_born_in_the_outer_block(
    box: Any, make: Callable[[], Any], change: Callable[[Any], Any]
) -> None:
    """An inner rollback undoes changes to a generic value born in the outer block, everywhere."""
    store = box.store
    with store.transaction():
        store["x"] = make()
        with pytest.raises(KeyError), store.transaction():
            change(store["x"])
            raise KeyError
        assert richstore.plain(store["x"]) == make()
    assert richstore.plain(store["x"]) == make()
    assert box.stored("x") == make()


def test_reading_method_never_reverts_a_commit_of_another_thread(store: Any) -> None:
    """A method that only reads, of a class with __setattr__, does not undo what others commit."""
    store["v"] = Checked()
    value = store["v"]
    entered, go_on = threading.Event(), threading.Event()
    reader = threading.Thread(target=value.read, args=(entered, go_on))
    reader.start()
    assert entered.wait(10)
    value.x = 5
    with store.transaction():  # keeps the reader from writing, as it should not want to
        store["other"] = 1
        go_on.set()
        reader.join(0.5)
        seen = value.x
    reader.join(10)
    assert seen == value.x == 5


def test_reading_method_never_shows_what_was_rolled_back(store: Any) -> None:
    """A reading method that began beside an open block does not bring back what the block undid."""
    store["v"] = Checked()
    value = store["v"]
    entered, go_on = threading.Event(), threading.Event()
    reader = threading.Thread(target=value.read, args=(entered, go_on))
    with pytest.raises(KeyError), store.transaction():
        value.x = 99
        reader.start()
        assert entered.wait(10)
        raise KeyError
    with store.transaction():
        store["other"] = 1
        go_on.set()
        reader.join(0.5)
        seen = value.x
    reader.join(10)
    assert seen == value.x == 4


def interrupted(work: Callable[[], None], at: int) -> bool:
    """Run `work` with a KeyboardInterrupt at line number `at`; tell whether it came."""
    left = at
    before = sys.gettrace()

    def line(frame: Any, event: str, _: Any) -> Any:
        nonlocal left
        if event == "line":
            left -= 1
            if left == 0:
                sys.settrace(None)
                raise KeyboardInterrupt
        return line

    def trace(frame: Any, event: str, _: Any) -> Any:
        name = frame.f_code.co_filename
        inside = "richstore" in name and name.endswith(
            ("transaction.py", "store.py", "change.py", "containers.py", "instance.py")
        )
        return line if inside else None

    sys.settrace(trace)
    try:
        work()
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(before)
    return left <= 0


def broken_by_interrupt(at: int) -> tuple[bool, str]:
    """Interrupt work at line number `at`; tell whether that came to pass, and what is broken."""
    with richstore.open("memory:", timeout=0.2) as store:
        store["list"] = [0]
        store["pair"] = Pair()
        store["root"] = [1]

        def work() -> None:
            with store.transaction():
                store["list"].append(1)
                store["pair"].x += 1
                store["pair"].y += 1
                store["new"] = [1]
                store["root"] = [2]
            store["list"].append(2)

        came = True
        try:
            came = interrupted(work, at)
            store["after"] = at
            live = {key: richstore.plain(value) for key, value in store.items()}
            with store.snapshot() as view:
                kept = {key: richstore.plain(value) for key, value in view.items()}
            pairs = [vars(live.pop("pair")), vars(kept.pop("pair"))]
            assert live == kept
            assert pairs[0] == pairs[1]
            assert pairs[0]["x"] == pairs[0]["y"]
            assert (kept["root"] == [2]) == ("new" in kept) == (1 in kept["list"])
        except (AssertionError, LookupError, RecursionError, richstore.RichStoreError) as error:
            return came, f"line {at}: {type(error).__name__} {str(error)[:60]}"
    return came, ""


@pytest.mark.timeout(120)
# an interrupt within a __del__ is printed there and then, by Python
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_interrupt_at_any_line_leaves_a_usable_store() -> None:
    """After a KeyboardInterrupt anywhere, memory is what is stored, and the next change is kept."""
    broken: list[str] = []
    at = 0
    came = True
    while came and at < 3000:
        at += 1
        # a context each, so that what one leaves behind does not reach the next
        came, error = contextvars.Context().run(broken_by_interrupt, at)
        if error:
            broken.append(error)
    assert at > 100
    assert broken == []


def test_roots_and_nodes_of_one_commit_appear_together(store: Any) -> None:
    """Another thread that sees the new content of a held list sees the new values under keys."""
    store["z"] = [0]
    held = store["z"]
    names = [f"k{number:04}" for number in range(2000)]
    store.update({name: [0] for name in names})
    halves: list[tuple[int, int]] = []
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set() and not halves:
            first = held[0]
            second = store[names[-1]][0]
            if second < first:
                halves.append((first, second))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for number in range(1, 12):
            with store.transaction():
                store.update({name: [number] for name in names})
                held[0] = number
    finally:
        stop.set()
        reader.join(10)
    assert halves == []


def test_vars_update_changes_only_what_it_names(store: Any) -> None:
    """`vars(x).update(…)` does not put back attributes that have changed since `vars(x)`."""
    store["pair"] = Pair()
    pair = store["pair"]
    attributes = vars(pair)
    pair.x = 5
    attributes.update(y=1)
    assert (pair.x, pair.y) == (5, 1)


def test_dict_pop_with_default_sees_other_processes(file_box: Any) -> None:
    """`pop(key, default)` through a held dict takes what another process has put there."""
    store = file_box.store
    store["jobs"] = {}
    jobs = store["jobs"]
    in_other_process(file_box, "s['jobs']['one'] = 1")
    assert jobs.pop("one", None) == 1
    assert file_box.stored("jobs") == {}


def test_dict_setdefault_sees_other_processes(file_box: Any) -> None:
    """`setdefault` through a held dict sets a key that another process has deleted."""
    store = file_box.store
    store["d"] = {"k": 1}
    held = store["d"]
    in_other_process(file_box, "del s['d']['k']")
    assert held.setdefault("k", 2) == 2
    assert file_box.stored("d") == {"k": 2}


def test_deque_popleft_sees_other_processes(file_box: Any) -> None:
    """`popleft` through a held deque takes what another process has appended."""
    store = file_box.store
    store["jobs"] = collections.deque()
    jobs = store["jobs"]
    in_other_process(file_box, "s['jobs'].append(7)")
    assert jobs.popleft() == 7
    assert list(file_box.stored("jobs")) == []


def test_assigning_a_value_to_its_own_key_keeps_held_proxies(file_box: Any) -> None:
    """`store[k] = store[k]`, the end of every `+=`, keeps nodes alive after a foreign commit."""
    store = file_box.store
    store["x"] = [[1]]
    outer = store["x"]
    inner = outer[0]
    in_other_process(file_box, "s['x'].append([5])")
    store["x"] = outer
    inner.append(2)
    outer.append(3)
    assert file_box.stored("x") == [[1, 2], [5], 3]


def test_values_of_a_readonly_handle_are_readonly(file_box: Any) -> None:
    """A handle opened with "r" gives values that refuse change, beside a handle that writes."""
    file_box.store["x"] = [1]
    with file_box.open(flag="r") as reader, pytest.raises(richstore.ReadOnlyError):
        reader["x"].append(2)
    assert file_box.stored("x") == [1]


def test_block_that_ends_in_another_context_leaves_the_first_usable(store: Any) -> None:
    """A context in which a block began can write after the block has ended in another context."""
    context = contextvars.copy_context()
    block = store.transaction()
    context.run(block.__enter__)
    block.__exit__(None, None, None)
    context.run(store.__setitem__, "a", 1)
    assert store["a"] == 1


def test_dict_views_are_live(store: Any) -> None:
    """Views of a stored dict show what is added after they were made, as those of a dict do."""
    store["d"] = {"a": 1}
    keys, values, items = store["d"].keys(), store["d"].values(), store["d"].items()
    store["d"]["b"] = 2
    assert (list(keys), list(values), list(items)) == (["a", "b"], [1, 2], [("a", 1), ("b", 2)])


def test_iteration_walks_the_state_it_began_with(store: Any) -> None:
    """A for loop over a stored list outside a block walks the list as it was when it began."""
    store["queue"] = [3, 2]
    seen = []
    for item in store["queue"]:
        seen.append(item)
        store["queue"].append(item - 1)
    assert seen == [3, 2]
    assert store["queue"] == [3, 2, 2, 1]


def test_sort_loses_nothing_its_key_function_appends(store: Any) -> None:
    """A key function that changes the list makes `sort` raise, as for a list, or is not undone."""
    store["numbers"] = [3, 1, 2]
    numbers = store["numbers"]

    def key(number: int) -> int:
        if 9 not in numbers:
            numbers.append(9)
        return number

    try:
        numbers.sort(key=key)
    except ValueError:
        assert sorted(numbers) in ([1, 2, 3], [1, 2, 3, 9])
    else:
        assert sorted(numbers) == [1, 2, 3, 9]


@pytest.mark.parametrize(
    ("value", "change"),
    [
        ({"a": 1}, lambda v: v.update({"x": 5, Clash(2): 2})),
        ({"a": 1}, lambda v: v.__ior__({"x": 5, Clash(2): 2})),
        ({1}, lambda v: v.update([7, 8, Clash(2)])),
    ],
    ids=["dict.update", "dict |=", "set.update"],
)
def test_failed_update_inside_a_block_changes_nothing(
    store: Any, value: Any, change: Callable[[Any], Any]
) -> None:
    """An `update` that fails halfway, caught inside a block, leaves the value as it was."""
    store["v"] = value
    held = store["v"]
    if isinstance(value, dict):
        held[Clash(1)] = 1
    else:
        held.add(Clash(1))
    size = len(held)
    with store.transaction():
        Clash.armed = True
        try:
            with pytest.raises(ValueError, match="not comparable"):
                change(held)
        finally:
            Clash.armed = False
        assert len(held) == size
    assert len(held) == size


def test_first_access_of_a_cached_property_is_tracked(box: Any) -> None:
    """What the first access of a cached property gives is the stored container, not a stray one."""
    box.store["c"] = Cached()
    box.store["c"].tags.append(2)
    assert box.store["c"].tags == [1, 2]
    assert box.stored("c").tags == [1, 2]


def test_class_that_cannot_be_stored_is_refused_where_it_is_assigned(store: Any) -> None:
    """An instance of an unstorable class raises EncodingError at once, also in a block."""
    with pytest.raises(richstore.EncodingError):
        store["o"] = Locked()
    with store.transaction():
        store["kept"] = 1
        with pytest.raises(richstore.EncodingError):
            store["o"] = [Locked()]
    assert dict(store) == {"kept": 1}


def test_writes_into_a_buffer_are_kept_or_refused(box: Any) -> None:
    """A change through BytesIO.getbuffer() is stored, or raises."""
    box.store["b"] = io.BytesIO(b"abc")
    try:
        box.store["b"].getbuffer()[0] = ord("X")
    except (TypeError, ValueError, richstore.RichStoreError):
        return
    assert box.stored("b").getvalue() == b"Xbc"


def test_iterating_an_array_of_objects_hands_out_nothing_untracked(box: Any) -> None:
    """A list met while iterating over an object array refuses change, or the change is stored."""
    numpy = pytest.importorskip("numpy")
    array = numpy.empty(1, object)
    array[0] = [1]
    box.store["a"] = array
    for item in box.store["a"]:
        try:
            item.append(9)
        except richstore.RichStoreError:
            return
    assert list(box.stored("a")[0]) == [1, 9]


def test_changes_by_a_generator_method_are_kept_or_refused(box: Any) -> None:
    """What a generator method of a list subclass sets while it runs is stored, or raises."""
    box.store["r"] = Recorder([1, 2])
    try:
        for _ in box.store["r"].each():
            pass
    except (TypeError, richstore.RichStoreError):
        return
    assert box.stored("r").seen == 2


def test_memory_is_disk_when_pickling_changes_the_store(box: Any) -> None:
    """A __getstate__ that changes the store during a commit is refused, or its change is stored."""
    store = box.store
    store["list"] = []
    store["s"] = Saving()
    Saving.hook = lambda: store["list"].append("x") if len(store["list"]) < 5 else None
    try:
        store["s"].items.append(2)
    except richstore.RichStoreError:
        pass
    finally:
        Saving.hook = None
    live = (richstore.plain(store["list"]), richstore.plain(store["s"].items))
    assert live == (box.stored("list"), box.stored("s").items)


@pytest.mark.parametrize("depth", [5000])
def test_deep_value_comes_back(store: Any, depth: int) -> None:
    """A deeply nested value that left its container can be put back into it."""
    deep: list[Any] = []
    for _ in range(depth):
        deep = [deep]
    store["d"] = [deep]
    held = store["d"][0]
    del store["d"][0]
    store["d"].append(held)
    held.append(1)
    assert len(store["d"][0]) == 2


def test_transactional_refuses_what_it_cannot_make_a_transaction() -> None:
    """`transactional` on a generator or coroutine function raises instead of doing nothing."""

    def generator(self: Any) -> Any:
        yield self

    async def coroutine(self: Any) -> None:
        pass

    for function in (generator, coroutine):
        with pytest.raises(TypeError):
            richstore.transactional(function)


@pytest.mark.parametrize("fails", [False, True])
def test_a_key_function_may_change_other_containers(store: Any, fails: bool) -> None:
    """What a sort key function puts elsewhere is stored there, and belongs there alone."""
    store["a"] = {"sorted": [2, 1], "other": []}
    store["b"] = []

    def key(item: int) -> int:
        store["a"]["other"].append({"seen": item})
        store["b"].append({"seen": item})
        if fails and item == 1:
            raise LookupError("enough")
        return item

    with store.transaction():
        with contextlib.suppress(LookupError):
            store["a"]["sorted"].sort(key=key)
        held = store["a"]["other"][0]
    seen = [{"seen": 2}, {"seen": 1}]
    expected = {"a": {"sorted": [2, 1] if fails else [1, 2], "other": seen}, "b": seen}
    assert {name: richstore.plain(value) for name, value in store.items()} == expected
    with store.snapshot() as view:
        assert {name: richstore.plain(value) for name, value in view.items()} == expected
    held["more"] = 1
    store["a"]["other"].clear()
    with pytest.raises(richstore.DetachedError):
        held["more"] = 2


class Logging:
    """Its __setattr__ notes every attempt in a list of its own, then refuses what is negative."""

    def __init__(self) -> None:
        object.__setattr__(self, "log", [])

    def __setattr__(self, name: str, value: int) -> None:
        self.log.append([name, value])
        if value < 0:
            raise ValueError("negative")
        object.__setattr__(self, name, value)


def test_failed_setattr_in_a_block_keeps_what_it_stored_elsewhere(box: Any) -> None:
    """What a `__setattr__` put into another container before it raised stays tracked."""
    box.store["v"] = Logging()
    value = box.store["v"]
    with box.store.transaction(), pytest.raises(ValueError, match="negative"):
        value.x = -1
    value.log[0].append("refused")
    assert value.log == [["x", -1, "refused"]]
    assert box.stored("v").log == [["x", -1, "refused"]]


@pytest.mark.parametrize("flag", ["r", "c"])
def test_handle_can_be_opened_again_beside_one_of_the_other_sort(file_box: Any, flag: str) -> None:
    """A file can be read or written again although a handle of the other sort stayed open."""
    store = file_box.store
    store["x"] = [1]
    with file_box.open(flag="r") as reader:
        if flag == "r":
            reader.close()
        else:
            store.close()
        with file_box.open(flag="c") as writer:
            writer["x"].append(2)
        with file_box.open(flag=flag) as again:
            assert again["x"] == [1, 2]


class Keyed:
    """Hashes by what it holds, and may refer to the container it is a key of."""

    def __init__(self, n: int) -> None:
        self.n = n
        self.home: Any = None

    def __hash__(self) -> int:
        return hash(self.n)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Keyed) and self.n == other.n


def test_a_key_in_its_own_container_is_refused(box: Any) -> None:
    """A value that could not be read again is refused when it is made, not when it is read."""
    store = box.store
    one = Keyed(1)
    one.home = {one: 1}
    with pytest.raises(richstore.EncodingError, match="Keyed"):
        store["k"] = one
    assert "k" not in store
    store["k"] = Keyed(2)
    store["k"].home = {Keyed(3): [1]}
    with pytest.raises(richstore.EncodingError, match="Keyed"):
        store["k"].home[store["k"]] = 2
    assert len(store["k"].home) == 1
    assert next(iter(box.stored("k").home)).n == 3


def test_reads_do_not_go_back_behind_a_snapshot(box: Any, monkeypatch: Any) -> None:
    """A thread that has seen another's commit in a snapshot sees it in the store as well."""
    store = box.store
    store["k"] = [1]
    held, install = store["k"], Transaction._install
    installing, go_on = threading.Event(), threading.Event()

    def slowly(self: Any, *arguments: Any) -> None:
        installing.set()
        assert go_on.wait(10)
        install(self, *arguments)

    monkeypatch.setattr(Transaction, "_install", slowly)
    writer = threading.Thread(target=lambda: held.append(2))
    writer.start()
    assert installing.wait(10)
    # on disk, and not yet in memory
    later = threading.Timer(0.1, go_on.set)
    later.start()
    with store.snapshot() as view:
        assert list(view["k"]) == [1, 2]
        assert list(held) == list(store["k"]) == [1, 2]
    for thread in (writer, later):
        thread.join()


@pytest.mark.parametrize("cls", [PickledByArguments, PickledByNames, PickledByReduction])
def test_a_state_beside_arguments(cls: Any, tmp_path: Any) -> None:
    """An object that is made by arguments and then given a state comes back with both."""
    with richstore.open(tmp_path / "store") as store:
        store["ann"] = cls("ann")
        store["ann"].tags.append("new")
    with richstore.open(tmp_path / "store") as store:
        with store.snapshot() as before:
            store["ann"].tags.append("newer")
            assert (before["ann"].name, before["ann"].tags) == ("ann", ["new"])
        assert (store["ann"].name, store["ann"].tags) == ("ann", ["new", "newer"])
        assert richstore.is_tracked(store["ann"].tags)


class Nested:
    """Made again from what is deep inside of it."""

    def __init__(self, text: str) -> None:
        self.inner = Pair()
        self.inner.a = Pair()
        self.inner.a.a = text

    def __reduce__(self) -> Any:
        return type(self), (self.inner.a.a,)


def test_a_reduction_that_looks_inside(tmp_path: Any) -> None:
    """An object whose `__reduce__` looks into instances inside it can be stored and changed."""
    with richstore.open(tmp_path / "store") as store:
        store["nested"] = [Nested("first")]
        store["nested"][0].inner.a.a = "second"
        store["networks"] = {text: ipaddress.ip_network(text) for text in ("10.0.0.0/8", "::/64")}
    with richstore.open(tmp_path / "store") as store:
        assert store["nested"][0].inner.a.a == "second"
        assert str(store["networks"]["::/64"].network_address) == "::"
        assert ipaddress.ip_address("10.1.1.1") in richstore.plain(store["networks"])["10.0.0.0/8"]


@pytest.mark.parametrize("place", ["store", "group"])
def test_loop_meets_large_values_that_were_deleted(box: Any, place: str) -> None:
    """A loop gives large values as they were when it began, though they are reclaimed."""
    store = box.store
    mapping = store if place == "store" else store.group("rows")
    rows = [{"n": n} for n in range(3_000)]
    mapping.update({"a": 1, "b": rows})
    box.reopen()
    store = box.store
    mapping = store if place == "store" else store.group("rows")
    found = {}
    for key, value in mapping.items():
        if key == "a":
            del mapping["b"]
            store.compact()
        found[key] = richstore.plain(value)
    assert found == {"a": 1, "b": rows}
    assert list(mapping) == ["a"]
