"""Threads and asyncio tasks share proxies and see only committed states through them."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from sample_classes import Account, SlotPoint, Slotted

import richstore

pytestmark = [pytest.mark.timeout(60), pytest.mark.usefixtures("page")]

# kind -> (value, reach the shared proxy, change it, what a reader reads)
KINDS: dict[str, tuple[Any, Callable[[Any], Any], Callable[[Any], Any], Callable[[Any], Any]]] = {
    "list": ([1, 2], lambda v: v, lambda v: v.append(3), lambda v: [list(v), len(v), v == [1, 2]]),
    "list item": (
        [1, 2],
        lambda v: v,
        lambda v: v.__setitem__(0, 9),
        lambda v: [v[0], v[-1], 9 in v],
    ),
    "list sort": ([2, 1], lambda v: v, lambda v: v.sort(), lambda v: [v[0], str(v), v + [0]]),
    "nested list": ([[1], [2]], lambda v: v[1], lambda v: v.clear(), lambda v: [*v]),
    "dict": (
        {"a": 1},
        lambda v: v,
        lambda v: v.update(a=2, b=3),
        lambda v: [dict(v), v["a"], "b" in v, list(v.items()), v.get("b"), repr(v), len(v)],
    ),
    "set": ({1, 2}, lambda v: v, lambda v: v.discard(1), lambda v: [sorted(v), 1 in v, v | {7}]),
    "instance": (
        Account("ann"),
        lambda v: v,
        lambda v: v.deposit(5),
        lambda v: [v.balance, list(v.history), richstore.plain(v) == Account("ann")],
    ),
    "instance vars": (
        Account("ann"),
        lambda v: v,
        lambda v: setattr(v, "extra", 1),
        lambda v: [hasattr(v, "extra"), sorted(vars(v))],
    ),
    "instance del": (
        Account("ann"),
        lambda v: v,
        lambda v: delattr(v, "name"),
        lambda v: [hasattr(v, "name"), getattr(v, "name", None)],
    ),
    "long list": (
        [{"n": n} for n in range(1500)],
        lambda v: v,
        lambda v: v.insert(700, {"new": [1]}),
        lambda v: [len(v), v[699], v[700], v[-1], v[698:702], sum("new" in row for row in v)],
    ),
    "row of a long list": (
        [{"n": n} for n in range(1500)],
        lambda v: v[1200],
        lambda v: v.update(seen=True),
        lambda v: [dict(v), len(v), "seen" in v],
    ),
    "cut of a long list": (
        list(range(5000)),
        lambda v: v,
        lambda v: v.__delitem__(slice(100, 4900)),
        lambda v: [len(v), v[100], v[-100], 2500 in v, sum(v)],
    ),
    "long dict": (
        {f"key{n}": [n] for n in range(1500)},
        lambda v: v,
        lambda v: (v.update(new={}), v.pop("key7")),
        lambda v: [len(v), v.get("key7"), v.get("new"), next(reversed(v)), len(list(v.items()))],
    ),
    "long set": (
        {f"member{n}" for n in range(1500)},
        lambda v: v,
        lambda v: v.discard("member7"),
        lambda v: [len(v), "member7" in v, len(set(v)), v >= {"member7"}],
    ),
    "slots": (Slotted("a"), lambda v: v, lambda v: setattr(v, "name", "b"), lambda v: [v.name]),
    "slots dataclass": (
        SlotPoint(1),
        lambda v: v,
        lambda v: setattr(v, "x", 2),
        lambda v: [v.x, v == SlotPoint(1), repr(v)],
    ),
}


@pytest.mark.parametrize("end", ["commit", "rollback"])
@pytest.mark.parametrize("kind", KINDS)
def test_threads_see_committed_states(store: Any, run_thread: Any, kind: str, end: str) -> None:
    """Another thread reads the old state through the same proxy until the block has committed."""
    value, reach, change, read = KINDS[kind]
    store["k"] = value
    shared = reach(store["k"])
    before = read(shared)
    try:
        with store.transaction():
            change(shared)
            own = read(shared)
            assert own != before
            assert run_thread(lambda: read(shared)) == before
            assert run_thread(lambda: read(reach(store["k"]))) == before
            assert read(shared) == own
            if end == "rollback":
                raise LookupError("stop")
    except LookupError:
        pass
    after = own if end == "commit" else before
    assert read(shared) == after
    assert run_thread(lambda: read(shared)) == after
    assert run_thread(lambda: read(reach(store["k"]))) == after


@pytest.mark.parametrize("end", ["commit", "rollback"])
@pytest.mark.parametrize("kind", KINDS)
def test_tasks_see_committed_states(store: Any, kind: str, end: str) -> None:
    """Another asyncio task of the same thread reads the old state until the block has committed."""
    value, reach, change, read = KINDS[kind]
    store["k"] = value
    shared = reach(store["k"])
    before = read(shared)

    async def other() -> Any:
        return read(shared), read(reach(store["k"]))

    async def main() -> None:
        started, go_on = asyncio.Event(), asyncio.Event()

        async def writer() -> Any:
            try:
                with store.transaction():
                    change(shared)
                    own = read(shared)
                    started.set()
                    await go_on.wait()
                    assert read(shared) == own
                    if end == "rollback":
                        raise LookupError("stop")
            except LookupError:
                pass
            return own

        task = asyncio.create_task(writer())
        await started.wait()
        assert await other() == (before, before)
        go_on.set()
        own = await task
        after = own if end == "commit" else before
        assert await other() == (after, after)

    asyncio.run(main())


def test_store_calls_of_other_threads(store: Any, run_thread: Any) -> None:
    """Inside a block, other threads see the store's own keys, length and items as committed."""
    store.update(a=1, b=[2])

    def look() -> Any:
        return list(store), len(store), "c" in store, store.get("a"), dict(store.items())

    before = look()
    with store.transaction():
        store["c"] = 3
        store["a"] = 9
        del store["b"]
        assert run_thread(look) == before
        assert look() == (["a", "c"], 2, True, 9, {"a": 9, "c": 3})
    assert run_thread(look) == look() == (["a", "c"], 2, True, 9, {"a": 9, "c": 3})


def test_a_value_born_in_a_block_is_unseen(store: Any, run_thread: Any) -> None:
    """Containers born in an open block are reached by no other thread."""
    store["d"] = {}
    shared = store["d"]
    with store.transaction():
        shared["new"] = {"k": [1]}
        shared["new"]["k"].append(2)
        assert run_thread(lambda: (dict(shared), shared.get("new"), list(shared.values()))) == (
            {}, None, [],
        )  # fmt: skip
    assert run_thread(lambda: shared["new"]["k"] == [1, 2])


def test_blocks_are_seen_whole_by_hammering_readers(store: Any) -> None:
    """A block over several containers becomes visible to a snapshot of a reader all or nothing."""
    store["k"] = {"a": [0], "b": {"n": 0}, "c": Account("ann", 0), "s": {0}}
    stop, broken, seen = threading.Event(), [], set()

    def reader() -> None:
        while not stop.is_set():
            with store.snapshot() as view:
                k = view["k"]
                found = (k["a"][-1], k["b"]["n"], k["c"].balance, max(k["s"]))
            seen.add(found[0])
            if len(set(found)) != 1:
                broken.append(found)

    readers = [threading.Thread(target=reader) for _ in range(2)]
    for thread in readers:
        thread.start()
    number = 0
    k = store["k"]

    def raise_all() -> None:
        k["a"].append(number)
        k["b"]["n"] = number
        k["s"].add(number)
        k["c"].balance = number

    while number < 300 or len(seen) < 5:
        number += 1
        if number % 3 == 0:
            with pytest.raises(LookupError), store.transaction():
                raise_all()
                raise LookupError
        with store.transaction():
            raise_all()
    stop.set()
    for thread in readers:
        thread.join()
    assert not broken
    assert k["a"] == list(range(number + 1))


def test_live_proxies_change_together(store: Any) -> None:
    """Who has seen a commit in one shared proxy sees it in every other one he reads after it."""
    store["k"] = {"a": {"n": 0}, "b": [0], "c": Account("ann", 0)}
    a, b, c = store["k"]["a"], store["k"]["b"], store["k"]["c"]
    stop, broken, seen = threading.Event(), [], set()
    reads = [lambda: a["n"], lambda: b[0], lambda: c.balance]

    def reader(order: list[Callable[[], int]]) -> None:
        while not stop.is_set():
            found = [read() for read in order]
            seen.add(found[0])
            if found != sorted(found):
                broken.append(found)

    threads = [threading.Thread(target=reader, args=(o,)) for o in (reads, reads[::-1])]
    for thread in threads:
        thread.start()
    number = 0
    while number < 300 or len(seen) < 5:
        number += 1
        with store.transaction():
            a["n"] = b[0] = c.balance = number
    stop.set()
    for thread in threads:
        thread.join()
    assert not broken


def test_one_container_is_never_half_made(store: Any) -> None:
    """Readers of one shared proxy always see a container between two commits, never inside one."""
    store["k"] = list(range(10))
    shared = store["k"]
    stop, broken, seen = threading.Event(), [], set()

    def reader() -> None:
        while not stop.is_set():
            found = list(shared)
            seen.add(tuple(found[:1]))
            if len(found) != 10 or found != list(range(found[0], found[0] + 10)):
                broken.append(found)

    readers = [threading.Thread(target=reader) for _ in range(2)]
    for thread in readers:
        thread.start()
    first = 0
    while first < 1000 or len(seen) < 5:
        with store.transaction():
            first = shared[0]
            shared.clear()
            shared.extend(range(first + 1, first + 6))
            for number in range(first + 6, first + 11):
                shared.append(number)
    stop.set()
    for thread in readers:
        thread.join()
    assert not broken


def test_appends_from_threads_lose_nothing(box: Any) -> None:
    """Changes from many threads, in blocks and alone, are all kept."""
    box.store["k"] = {"list": [], "count": 0}
    shared = box.store["k"]
    failures: list[BaseException] = []

    def work(name: int) -> None:
        try:
            for number in range(50):
                shared["list"].append((name, number))
                with box.store.transaction():
                    shared["count"] += 1
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    stored = box.stored("k")
    assert stored["count"] == 200
    assert sorted(stored["list"]) == [(name, n) for name in range(4) for n in range(50)]


def test_second_task_gets_the_error_at_once(store: Any) -> None:
    """A task that wants to write while another task of its thread is in a block fails at once."""
    store["k"] = [1]

    async def main() -> None:
        inside, leave = asyncio.Event(), asyncio.Event()

        async def holder() -> None:
            with store.transaction():
                store["k"].append("holder")
                inside.set()
                await leave.wait()

        task = asyncio.create_task(holder())
        await inside.wait()
        began = time.monotonic()
        attempts: list[Callable[[], Any]] = [
            lambda: store["k"].append("other"),
            lambda: store.__setitem__("x", 1),
            lambda: store.transaction().__enter__(),
        ]
        for attempt in attempts:
            with pytest.raises(richstore.LockTimeoutError, match="task"):
                attempt()
        assert time.monotonic() - began < 5
        assert store["k"] == [1]
        leave.set()
        await task
        store["k"].append("after")

    asyncio.run(main())
    assert store["k"] == [1, "holder", "after"]
    assert "x" not in store


def test_task_started_inside_a_block(store: Any) -> None:
    """A task started inside a block is another: it neither writes into the block nor sees it."""
    store["k"] = [1]

    async def main() -> None:
        async def child() -> Any:
            seen = list(store["k"])
            with pytest.raises(richstore.LockTimeoutError):
                store["k"].append("child")
            return seen

        with store.transaction():
            store["k"].append(2)
            assert await asyncio.create_task(child()) == [1]
            assert store["k"] == [1, 2]

    asyncio.run(main())
    assert store["k"] == [1, 2]


def test_to_thread_inside_a_block(store: Any) -> None:
    """asyncio.to_thread copies the context, and yet its thread is outside the block."""
    store["k"] = [1]

    async def main() -> None:
        with store.transaction():
            store["k"].append(2)
            assert await asyncio.to_thread(lambda: list(store["k"])) == [1]

    asyncio.run(main())
    assert store["k"] == [1, 2]


def test_lock_timeout_between_threads(tmp_path: Any, run_thread: Any) -> None:
    """A writer waits for the one before it at most `timeout` seconds, then LockTimeoutError."""
    for target in (str(tmp_path / "t.db"), "memory:"):
        with richstore.open(target, synchronous="off", timeout=0.2) as store:
            store["k"] = [1]

            def late(store: Any = store) -> float:
                began = time.monotonic()
                with pytest.raises(richstore.LockTimeoutError, match=r"0\.2"):
                    store["k"].append("late")
                with pytest.raises(richstore.LockTimeoutError), store.transaction():
                    store["k"].append("late")
                return time.monotonic() - began

            with store.transaction():
                store["k"].append(2)
                assert 0.35 < run_thread(late) < 8
            run_thread(lambda store=store: store["k"].append(3))
            assert store["k"] == [1, 2, 3]


def test_waiting_writer_goes_on(store: Any) -> None:
    """A writer that waits continues on the latest state when the one before it commits."""
    store["k"] = [1]
    waiting = threading.Event()

    def second() -> None:
        waiting.set()
        store["k"].append(len(store["k"]))
        with store.transaction():
            store["k"].append(len(store["k"]))

    thread = threading.Thread(target=second)
    with store.transaction():
        thread.start()
        waiting.wait()
        time.sleep(0.05)
        store["k"].append("first")
    thread.join()
    assert store["k"][:2] == [1, "first"]
    assert store["k"][3] == 3


def test_iteration_while_another_thread_writes(store: Any) -> None:
    """Iterating a shared proxy while others change it gives whole elements or Python's error."""
    store["k"] = {number: [number] for number in range(100)}
    shared = store["k"]
    stop, failures, number = threading.Event(), [], 100

    def writer() -> None:
        nonlocal number
        while not stop.is_set():
            shared[number] = [number]
            del shared[number - 100]
            number += 1

    thread = threading.Thread(target=writer)
    thread.start()
    rounds = 0
    while rounds < 1000 or number < 200:
        rounds += 1
        try:
            failures += [k for k, v in shared.items() if v != [k]]
        except RuntimeError as error:
            assert "changed" in str(error)
    stop.set()
    thread.join()
    assert failures == []
    assert len(shared) == 100


def test_a_snapshot_of_limited_age(box: Any) -> None:
    """A snapshot with max_age ends by itself, lets go of its pages, and says why it ended."""
    box.store["k"] = [1]
    box.store["other"] = [2]
    view = box.store.snapshot(max_age=0.5)
    loaded = view["k"]
    box.store["k"].append(2)
    assert box.store.stats().readers == 1
    until = time.monotonic() + 30
    while box.store.stats().readers and time.monotonic() < until:
        time.sleep(0.01)
    assert box.store.stats().readers == 0
    assert loaded == [1]
    for use in (lambda: view["other"], lambda: len(view), lambda: list(view)):
        with pytest.raises(richstore.ClosedError, match=r"max_age of 0\.5 s"):
            use()
    view.close()


def test_a_loop_over_a_snapshot_keeps_no_values(box: Any) -> None:
    """What a loop over a snapshot has passed is let go of; what is asked for by key is kept."""
    box.store.update({number: [number] for number in range(100)})
    with box.store.snapshot() as view:
        kept = view[7]
        passed = [weakref.ref(value) for value in view.values()]
        gc.collect()
        alive = [value for ref in passed if (value := ref()) is not None]
        assert len(alive) == 1 and alive[0] is kept
        assert dict(view) == dict(box.store)


def test_a_snapshot_that_is_closed_in_time(box: Any) -> None:
    """Closing before max_age leaves no thread, and the error is that of a closed snapshot."""
    box.store["k"] = [1]
    with box.store.snapshot(max_age=60) as view:
        assert view["k"] == [1]
    with pytest.raises(richstore.ClosedError) as caught:
        len(view)
    assert "max_age" not in str(caught.value)
    for wrong in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="max_age"):
            box.store.snapshot(max_age=wrong)
    assert box.store.stats().readers == 0
