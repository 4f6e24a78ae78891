"""`richstore.aio`: stores, groups, blocks, snapshots and loops that are awaited."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
import threading
import traceback
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import check_store, run_python
from sample_classes import Account

import richstore
from richstore import aio

pytestmark = pytest.mark.timeout(60)

OPTIONS = {"synchronous": "off"}


@pytest.fixture(params=["lmdb", "memory"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Return a function that runs `async def main(store)` on an empty store of each engine."""
    target = "memory:" if request.param == "memory" else str(tmp_path / "test.db")

    def run_main(main: Callable[[aio.Store], Awaitable[Any]]) -> Any:
        async def whole() -> Any:
            async with aio.open(target, **OPTIONS) as store:
                result = await main(store)
                await asyncio.to_thread(check_store, store.sync)
                return result

        return asyncio.run(whole())

    yield run_main


def test_importing_richstore_does_not_import_it() -> None:
    """`import richstore` does not load this layer."""
    done = run_python("import sys, richstore; assert 'richstore.aio' not in sys.modules")
    assert done.returncode == 0, done.stderr


def test_values_are_set_and_read(run: Any) -> None:
    """Each method does what that of a dict does, and leaves the store as that would."""

    async def main(store: aio.Store) -> None:
        assert await store.get("a") is None and await store.get("a", 5) == 5
        await store.set("a", [1, {"b": 2}])
        assert await store.get("a") == [1, {"b": 2}]
        assert await store.contains("a") and not await store.contains("b")
        assert await store.len() == 1
        await store.update({"c": 3}, d=4)
        assert await store.setdefault("c", 9) == 3 and await store.setdefault("e", [5]) == [5]
        assert await store.pop("c") == 3 and await store.pop("c", None) is None
        for missing in (store.pop("c"), store.delete("c")):
            with pytest.raises(KeyError):
                await missing
        assert await store.popitem() == ("e", [5])
        await store.delete("d")
        assert await store.keys() == ["a"]
        await store.clear()
        assert await store.items() == [] and await store.len() == 0
        with pytest.raises(KeyError):
            await store.popitem()

    run(main)


def test_an_item_is_a_handle(run: Any) -> None:
    """`store[key]` is the place of one value, also of a composite key, whether there or not."""

    async def main(store: aio.Store) -> None:
        item = store["a", 7]
        assert not await item.exists() and await item.get("none") == "none"
        with pytest.raises(KeyError, match="'a', 7"):
            await item
        await item.set({"n": 1})
        assert await item.exists() and await item == {"n": 1} and await item.get() == {"n": 1}
        assert await store.keys() == [("a", 7)]
        await item.clear()
        await item.clear()
        assert await store.len() == 0

    run(main)


def test_what_is_read_is_a_copy(run: Any) -> None:
    """Changing what was read changes nothing that is stored, and commits nothing in the loop."""

    async def main(store: aio.Store) -> None:
        await store.set("k", {"rows": [1], "ann": Account("ann")})
        for read in (
            await store.get("k"),
            await store["k"],
            (await store.items())[0][1],
            await anext(aiter(store.values())),
            await store.read(lambda store: store["k"]),
            await store.setdefault("k"),
        ):
            assert type(read) is dict and type(read["rows"]) is list
            assert type(read["ann"]) is Account
            assert not richstore.is_tracked(read)
            read["rows"].append(2)
        assert (await store.get("k"))["rows"] == [1]

    run(main)


def test_the_sync_protocols_are_refused(run: Any) -> None:
    """`in`, loops and assignment without `await` raise, where Python's fallback would go on."""

    async def main(store: aio.Store) -> None:
        for mapping in (store, store.group("g")):
            with pytest.raises(TypeError):
                "a" in mapping  # type: ignore[operator]  # noqa: B015
            with pytest.raises(TypeError):
                iter(mapping)  # type: ignore[call-overload]
            with pytest.raises(TypeError):
                mapping["a"] = 1  # type: ignore[index]

    run(main)


def test_ranges(run: Any) -> None:
    """Keys, values and items come in order, in ranges, from both ends, as the ordinary ones do."""

    async def main(store: aio.Store) -> None:
        content = {("u", n): {"n": n} for n in range(1200)} | {"other": 1}
        await store.update(content)
        plain = store.sync
        for bounds in (
            {},
            {"prefix": ("u",)},
            {"start": ("u", 10), "stop": ("u", 900)},
            {"start": ("u", 1190), "reverse": True},
            {"prefix": ("nobody",)},
        ):
            expected = list(plain.items(**bounds))
            assert await store.items(**bounds) == expected
            assert [key async for key in store.keys(**bounds)] == [key for key, _ in expected]
            assert await store.values(**bounds) == [value for _, value in expected]
        with pytest.raises(richstore.KeyTypeError):
            await store.keys(start=object())

    run(main)


def test_a_loop_shows_one_state(run: Any) -> None:
    """A loop over items sees none of the commits since it began, those of its own body either."""

    async def main(store: aio.Store) -> None:
        await store.update({n: [n] for n in range(2000)})
        seen = []
        async for key, value in store.items():
            seen.append((key, value))
            if key in (0, 1500):
                await store.update(dict.fromkeys(range(2000, 2100), "new"))
                await store.delete(key + 300)
        assert seen == [(n, [n]) for n in range(2000)]
        assert await store.len() == 2098

    run(main)


def test_a_loop_that_is_left_closes_its_snapshot(tmp_path: Path) -> None:
    """No reader stays open, however a loop ends: at the end, early, by an error, or cancelled."""

    async def main() -> None:
        async with aio.open(str(tmp_path / "test.db"), **OPTIONS) as store:
            await store.update(dict.fromkeys(range(1000)))

            async def leave(how: str) -> None:
                rows = aiter(store.items())
                async for key, _ in rows:
                    if key == 20:
                        if how == "break":
                            break
                        if how == "error":
                            raise LookupError
                        if how == "aclose":
                            await rows.aclose()
                        if how == "cancel":
                            task = asyncio.current_task()
                            assert task is not None
                            task.cancel()

            for how in ("end", "break", "error", "aclose", "cancel"):
                done = asyncio.gather(asyncio.create_task(leave(how)), return_exceptions=True)
                assert type((await done)[0]) in (type(None), LookupError, asyncio.CancelledError)
                del done
                async with asyncio.timeout(30):
                    while await asyncio.to_thread(lambda: store.sync.stats().readers):
                        gc.collect()  # the traceback of an error keeps the loop for a while
                        await asyncio.sleep(0)

    asyncio.run(main())


def test_a_block_commits_changes_in_place(run: Any) -> None:
    """Inside a block values are live; others see no change before its end, and all afterwards."""

    async def main(store: aio.Store) -> None:
        await store.set("shops", ["a"])
        async with store.transaction() as tx:
            tx["shops"].append("b")
            tx["ann"] = Account("ann")
            tx["ann"].deposit(5)
            del tx["shops"][0]
            tx.group("users")["x", 1] = {}
            assert dict(tx)["shops"] == ["b"] and len(tx) == 2 and "ann" in tx
            assert list(tx) == ["ann", "shops"] == list(reversed(list(reversed(tx))))
            assert await asyncio.create_task(store.get("shops")) == ["a"]
            assert await asyncio.to_thread(lambda: list(store.sync)) == ["shops"]
        assert await store.get("shops") == ["b"]
        assert (await store["ann"]).balance == 5
        assert await store.group("users").items() == [(("x", 1), {})]

    run(main)


def test_a_failed_block_changes_nothing(run: Any) -> None:
    """After an exception disk, memory and held values are as before, and it goes on."""

    async def main(store: aio.Store) -> None:
        await store.set("shops", ["a"])
        async with store.transaction() as tx:
            held = tx["shops"]
        with pytest.raises(LookupError, match="mine"):
            async with store.transaction() as tx:
                tx["shops"].append("b")
                tx["new"] = [{"n": n} for n in range(3000)]
                await asyncio.sleep(0)
                raise LookupError("mine")
        assert held == ["a"] and await store.items() == [("shops", ["a"])]
        await store.set("shops", [])

    run(main)


def test_a_nested_block_is_a_savepoint(run: Any) -> None:
    """A block inside a block, of a group too, is undone alone; so are `rollback_to` and `abort`."""

    async def main(store: aio.Store) -> None:
        async with store.transaction() as tx:
            tx["a"] = 1
            with pytest.raises(LookupError):
                async with store.group("g").transaction() as inner:
                    inner["b"] = tx["a"] = 2
                    raise LookupError
            async with store.transaction():
                tx["c"] = 3
            point = tx.savepoint()
            tx["d"] = 4
            tx.rollback_to(point)
            assert await store.items() == [("a", 1), ("c", 3)]
        assert await store.items() == [("a", 1), ("c", 3)]
        assert await store.groups() == []
        async with store.transaction() as tx:
            tx.clear()
            tx.abort()
            assert len(tx) == 2
            with pytest.raises(richstore.ClosedError):
                tx["e"] = 5
        assert await store.len() == 2

    run(main)


def test_methods_of_the_store_join_the_block(run: Any) -> None:
    """Inside a block `set`, `get`, loops, `write` and groups belong to it, and wait for nobody."""

    async def main(store: aio.Store) -> None:
        users = store.group("users")
        with pytest.raises(LookupError):
            async with store.transaction() as tx:
                await store.set("a", [1])
                tx["a"].append(2)
                await users["ann", 1].set({})
                await users.write(lambda users: users[("ann", 1)].update(x=1))
                with pytest.raises(KeyError):
                    await store.write(lambda store: (store.clear(), store["none"]))
                assert await store.get("a") == [1, 2]
                assert [pair async for pair in users.items()] == [(("ann", 1), {"x": 1})]
                assert await store.groups() == ["users"]
                raise LookupError
        assert await store.len() == 0 and await store.groups() == []

    run(main)


def test_a_block_is_for_its_task(run: Any) -> None:
    """Other tasks and code after the block cannot use it, and a change outside of it is no part."""

    async def main(store: aio.Store) -> None:
        block = store.transaction()
        async with block as tx:
            tx["a"] = [1]

            async def other() -> None:
                with pytest.raises(richstore.ClosedError):
                    tx["a"]
                # a held live value in the loop's thread: waiting here would wait for ever
                with pytest.raises(richstore.LockTimeoutError):
                    store.sync["b"] = 1

            await asyncio.create_task(other())
            later = asyncio.create_task(store.set("later", 1))
            await asyncio.sleep(0)
            assert not await store.contains("later")
        await later
        assert await store.keys() == ["a", "later"]
        with pytest.raises(richstore.ClosedError):
            tx["a"]
        with pytest.raises(RuntimeError, match="entered already"):
            await block.__aenter__()

    run(main)


def test_blocks_of_tasks_queue(run: Any) -> None:
    """Tasks that read, wait and write in blocks lose no update, and go one after the other."""

    async def main(store: aio.Store) -> None:
        await store.set("n", 0)
        inside = 0

        async def add() -> None:
            nonlocal inside
            async with store.transaction() as tx:
                inside += 1
                assert inside == 1
                before = tx["n"]
                await asyncio.sleep(0)
                tx["n"] = before + 1
                inside -= 1

        await asyncio.gather(*[add() for _ in range(30)], *[store.set(i, i) for i in range(30)])
        assert await store.get("n") == 30 and await store.len() == 31

    run(main)


def test_changes_at_once_share_commits(tmp_path: Path) -> None:
    """Changes of many tasks are written in few commits; one that fails does so alone."""

    async def main() -> None:
        async with aio.open(str(tmp_path / "test.db"), **OPTIONS) as store:
            async with store.transaction():
                before = store.sync.stats().commits
                tasks = [asyncio.create_task(store.set(n, [n])) for n in range(50)]
                tasks += [asyncio.create_task(store.delete("none"))]
                tasks += [asyncio.create_task(store.set("lock", threading.Lock()))]
                tasks += [asyncio.create_task(store.pop(7))]
                await asyncio.sleep(0)
            done = await asyncio.gather(*tasks, return_exceptions=True)
            assert done[:50] == [None] * 50 and done[52] == [7]
            assert isinstance(done[50], KeyError)
            assert isinstance(done[51], richstore.EncodingError)
            assert await store.len() == 49
            assert store.sync.stats().commits - before < 10

    asyncio.run(main())


class Moody:
    """An object that is taken into the store, and that no commit can write."""

    def __reduce__(self) -> Any:
        frame: Any = sys._getframe()
        while frame is not None:
            if frame.f_code.co_qualname == "Transaction.commit":
                raise LookupError("in a bad mood")
            frame = frame.f_back
        return (Moody, ())


def test_a_commit_that_fails_is_made_again_one_by_one(tmp_path: Path) -> None:
    """When the shared commit fails, each change is made alone, and the culprit alone fails."""

    async def main() -> None:
        async with aio.open(str(tmp_path / "test.db"), classes="any", **OPTIONS) as store:
            async with store.transaction():
                values: list[Any] = [1, [2], Moody(), [4]]
                tasks = [asyncio.create_task(store.set(n, v)) for n, v in enumerate(values)]
                await asyncio.sleep(0)
            done = await asyncio.gather(*tasks, return_exceptions=True)
            assert [type(one) for one in done if one] == [richstore.EncodingError]
            assert await store.keys() == [0, 1, 3]

    asyncio.run(main())


def test_read_shows_one_state_that_cannot_be_changed(run: Any) -> None:
    """A function for `read` sees no commits made meanwhile, and cannot change; `write` can."""

    async def main(store: aio.Store) -> None:
        await store.update(x=[0], y=[0])

        def pair(view: Any) -> list[Any]:
            first = view["x"][0]
            store.sync.update(x=[first + 1], y=[first + 1])
            return [first, view["y"][0]]

        assert [await store.read(pair) for _ in range(3)] == [[0, 0], [1, 1], [2, 2]]
        for change in (lambda view: view["x"].append(1), lambda view: view.update(z=1)):
            with pytest.raises((richstore.ReadOnlyError, AttributeError)):
                await store.read(change)
        assert await store.write(lambda store: store["x"].pop()) == 3
        assert await store.items() == [("x", []), ("y", [3])]
        async with store.transaction() as tx:
            tx["x"].append(5)
            assert await store.read(lambda view: view["x"]) == [5]

    run(main)


def test_errors_of_functions_come_back(run: Any) -> None:
    """What a function raises in a thread is raised to the task, whatever it is, and undoes."""

    async def main(store: aio.Store) -> None:
        for error in (LookupError("x"), StopIteration(1), SystemExit("y")):

            def fail(mapping: Any, error: BaseException = error) -> None:
                if mapping is store.sync:
                    mapping["a"] = 1
                raise error

            wanted: Any = RuntimeError if isinstance(error, StopIteration) else type(error)
            with pytest.raises(wanted):
                await store.write(fail)
            async with store.snapshot() as view:
                with pytest.raises(wanted):
                    await view.read(fail)
        assert await store.len() == 0

    run(main)


def test_snapshots(run: Any) -> None:
    """A snapshot shows the store and its groups as they were, and is refused when it is closed."""

    async def main(store: aio.Store) -> None:
        await store.set("a", [1])
        await store.group("g").group("h").set(1, {"x": 1})
        async with store.snapshot() as view:
            await store.clear()
            await store.group("g").drop()
            assert await view["a"] == [1] and await view.len() == 1 and await view.contains("a")
            assert await view.groups() == ["g"]
            inner = view.group("g").group("h")
            assert await inner.items() == [(1, {"x": 1})] and await inner[1].get() == {"x": 1}
            assert await view.read(lambda view: [*view, *view.groups()]) == ["a", "g"]
            assert not hasattr(view["a"], "set")
        with pytest.raises(richstore.ClosedError):
            await inner.get(1)
        with pytest.raises(richstore.ClosedError):
            await view.items()
        view = await store.snapshot(max_age=60)
        assert await view.len() == 0
        await view.close()
        await view.close()

    run(main)


class Ages(aio.Group[str, int]):
    """A group with types of its own."""

    async def older(self, name: str) -> int:
        """Add a year."""
        async with self.transaction() as tx:
            tx[name] += 1
            return tx[name]


def test_groups(run: Any) -> None:
    """A group has the whole interface, nests, is typed, and is apart from the keys beside it."""

    async def main(store: aio.Store) -> None:
        ages = store.group("ages", Ages)
        assert isinstance(ages, Ages) and await ages.len() == 0
        assert await store.groups() == []
        await ages.set("ann", 41)
        assert await Ages(store, "ages").older("ann") == 42
        inner = ages.group("inner")
        assert inner.path == ("ages", "inner") and inner.name == "inner" and inner.store is store
        await inner.update({("b", n): n for n in range(3)})
        assert await inner.keys(prefix=("b",)) == [("b", 0), ("b", 1), ("b", 2)]
        assert await ages.groups() == ["inner"] and await store.groups() == ["ages"]
        assert await store.len() == 0 and await ages.len() == 1
        await ages.clear()
        assert await inner.len() == 3
        await ages.drop()
        assert await store.groups() == [] and await inner.len() == 0
        with pytest.raises(TypeError):
            store.group(7)  # type: ignore[call-overload]

    run(main)


def test_a_file_is_an_ordinary_store(tmp_path: Path) -> None:
    """Ordinary handles, other loops in other threads and asynchronous ones lose no update."""
    path = str(tmp_path / "test.db")

    async def add(store: aio.Store, count: int) -> None:
        for _ in range(count):
            async with store.transaction() as tx:
                tx["n"].append(len(tx["n"]))

    async def main() -> None:
        async with aio.open(path, **OPTIONS) as store, aio.open(path, **OPTIONS) as second:
            await asyncio.gather(add(store, 20), add(second, 20), add(store, 20))

    with richstore.open(path, **OPTIONS) as store:  # type: ignore[arg-type]
        store["n"] = []
        loops = [threading.Thread(target=asyncio.run, args=(main(),)) for _ in range(2)]
        for loop in loops:
            loop.start()
        for _ in range(60):
            with store.transaction():
                store["n"].append(len(store["n"]))
        for loop in loops:
            loop.join(60)
        assert store["n"] == list(range(180))
        check_store(store)


def test_one_store_in_the_loops_of_two_threads(run: Any) -> None:
    """The same asynchronous store can be used by another loop at the same time."""

    async def main(store: aio.Store) -> None:
        async def work(prefix: str) -> None:
            for n in range(20):
                await store.set((prefix, n), n)
                assert await store.get((prefix, n)) == n
            async with store.transaction() as tx:
                tx[prefix] = len(tx.keys(prefix=(prefix,)))

        other = asyncio.to_thread(lambda: asyncio.run(work("b")))
        await asyncio.gather(work("a"), other)
        assert await store.get("a") == await store.get("b") == 20

    run(main)


def test_two_handles_in_one_task(tmp_path: Path) -> None:
    """Inside a block another handle on the same file joins it, and does not wait for itself."""
    path = str(tmp_path / "test.db")

    async def main() -> None:
        async with aio.open(path, **OPTIONS) as one, aio.open(path, **OPTIONS) as two:
            async with one.transaction() as tx:
                tx["a"] = 1
                await two.set("b", 2)
                async with two.transaction() as inner:
                    inner["c"] = tx["b"] + 1
            assert await two.items() == [("a", 1), ("b", 2), ("c", 3)]

    asyncio.run(main())


def test_closing(tmp_path: Path) -> None:
    """Closing waits for queued changes and open blocks; afterwards everything says it is closed."""
    path = str(tmp_path / "test.db")

    async def main() -> None:
        store = await aio.open(path, **OPTIONS)
        entered = asyncio.Event()

        async def slow() -> None:
            async with store.transaction() as tx:
                entered.set()
                await asyncio.sleep(0.01)
                tx["a"] = await store.get("a", 1)
                with pytest.raises(RuntimeError, match="leave its block"):
                    await store.close()

        block = asyncio.create_task(slow())
        await entered.wait()
        change = asyncio.create_task(store.set("b", 2))
        await asyncio.sleep(0)
        rows = aiter(store.keys())
        await asyncio.gather(store.close(), store.close())
        await asyncio.gather(block, change)
        assert store.closed and "closed" in repr(store)
        await store.close()
        for use in (
            store.get("a"),
            store.set("a", 1),
            anext(rows),
            store.transaction().__aenter__(),
        ):
            with pytest.raises(richstore.ClosedError):
                await use
        with pytest.raises(richstore.ClosedError):
            await asyncio.to_thread(lambda: store.sync)
        with pytest.raises(richstore.ClosedError):
            store.sync  # noqa: B018
        async with aio.open(path, "r") as again:
            assert await again.items() == [("a", 1), ("b", 2)]
            with pytest.raises(richstore.ReadOnlyError):
                await again.set("c", 3)
            with pytest.raises(richstore.ReadOnlyError):
                async with again.transaction():
                    pass

    asyncio.run(main())


def test_the_child_of_a_fork(tmp_path: Path) -> None:
    """The child of a fork is told to open anew, and closing there neither waits nor closes here."""

    async def prepare() -> tuple[aio.Store, aio.Snapshot]:
        store = await aio.open(str(tmp_path / "test.db"), **OPTIONS)
        await store.set("a", 1)
        return store, await store.snapshot()

    async def in_child(store: aio.Store, view: aio.Snapshot) -> None:
        for use in (store.get("a"), store.set("a", 2), view.get("a"), view.keys()):
            with pytest.raises(richstore.ClosedError, match="before a fork"):
                await use
        await view.close()
        await store.close()
        async with aio.open(store.path, **OPTIONS) as again:
            await again.set("b", 2)

    async def finish(store: aio.Store, view: aio.Snapshot) -> None:
        assert await view.items() == [("a", 1)]
        await view.close()
        assert await store.items() == [("a", 1), ("b", 2)]
        await store.close()

    store, view = asyncio.run(prepare())
    child = os.fork()
    if child == 0:
        status = 1
        signal.alarm(60)
        try:
            asyncio.run(in_child(store, view))
            status = 0
        except BaseException:
            traceback.print_exc()
        os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    asyncio.run(finish(store, view))


def test_a_store_that_is_dropped_closes_itself(tmp_path: Path) -> None:
    """A store that nobody closes warns, and its file and thread are let go."""

    async def main() -> None:
        store = await aio.open(str(tmp_path / "test.db"), **OPTIONS)
        await store.set("a", 1)
        with pytest.warns(ResourceWarning, match="unclosed store"):
            del store
            gc.collect()

    asyncio.run(main())


def test_a_block_that_is_dropped_is_undone(run: Any) -> None:
    """A task that is thrown away inside a block, and a block that is never left, free the lock."""

    async def main(store: aio.Store) -> None:
        entered = asyncio.Event()

        async def stuck() -> None:
            async with store.snapshot(), store.transaction() as tx:
                tx["a"] = 1
                entered.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(stuck())
        await entered.wait()
        # as the garbage collector does with what a loop has not finished
        task.get_coro().close()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        block = store.transaction()
        await block.__aenter__()
        del block
        gc.collect()
        await store.set("b", 2)
        assert await store.keys() == ["b"]

    run(main)


def test_open_raises_what_open_raises(tmp_path: Path) -> None:
    """A file that cannot be opened raises the same error as for the ordinary store."""

    async def main() -> None:
        for target, flag, error in (
            (str(tmp_path / "none"), "r", FileNotFoundError),
            (str(tmp_path / "no" / "folder"), "c", FileNotFoundError),
            (str(tmp_path / "x"), "z", ValueError),
            (7, "c", TypeError),
        ):
            with pytest.raises(error):
                async with aio.open(target, flag):
                    pass

    asyncio.run(main())


def test_the_timeout_of_ordinary_handles_stays(tmp_path: Path) -> None:
    """Opening with waits in slices leaves the timeout that was asked for, for values as well."""

    async def main() -> None:
        async with aio.open(str(tmp_path / "test.db"), timeout=7.5, **OPTIONS) as store:
            assert store.sync.timeout == 7.5
        async with aio.open("memory:") as store:
            assert store.sync.timeout is None

    asyncio.run(main())
