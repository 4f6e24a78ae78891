"""`richstore.aio` while others hold the lock: the loop goes on, a cancelled task leaves nothing.

A child process or a task holds the writer's lock for as long as the test wants, so nothing here
depends on how long anything takes.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
from conftest import check_store, child_environment

import richstore
from richstore import aio
from richstore.aio.block import Handover
from richstore.aio.writer import Writer

pytestmark = pytest.mark.timeout(60)

OPTIONS = {"synchronous": "off"}

HOLDER = """
import sys, richstore
with richstore.open(sys.argv[1], synchronous="off") as store, store.transaction():
    print("locked", flush=True)
    sys.stdin.readline()
"""


class Holder:
    """Another process that holds the writer's lock."""

    def __init__(self, path: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=child_environment(),
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "locked\n"

    def release(self) -> None:
        """Let it end; again, nothing happens."""
        self.process.communicate("\n" if self.process.poll() is None else None, timeout=30)


@pytest.fixture
def holder(path: str) -> Iterator[Holder]:
    """A process that holds the lock of the store at `path`, in which `a` is 1."""
    with richstore.open(path, **OPTIONS) as store:  # type: ignore[arg-type]
        store["a"] = 1
    made = Holder(path)
    try:
        yield made
    finally:
        if made.process.poll() is None:
            made.release()


async def check_free(store: aio.Store) -> None:
    """Fail when somebody has the writer's lock, or the store is damaged."""

    def check() -> None:
        with store.sync.transaction(timeout=20):
            pass
        check_store(store.sync)

    await asyncio.to_thread(check)


async def enter(store: aio.Store, **options: Any) -> None:
    """Change something in a block."""
    async with store.transaction(**options) as tx:
        tx["entered"] = 1


async def ticks(count: int) -> None:
    """Let the loop go around as often."""
    for _ in range(count):
        await asyncio.sleep(0.005)


def test_the_loop_goes_on_while_another_process_writes(path: str, holder: Holder) -> None:
    """While another process has the lock, tasks that write wait, and a ticker and reads go on."""

    async def main() -> None:
        async with aio.open(path, **OPTIONS) as store:
            writers = [
                asyncio.create_task(call)
                for call in (
                    enter(store),
                    store.set("b", 2),
                    store.write(lambda store: store.update(c=3)),
                    store.group("g").clear(),
                )
            ]
            # a loop that waits for the lock would never come to release it
            await ticks(100)
            assert await store.get("a") == 1 and await store.items() == [("a", 1)]
            async with store.snapshot() as view:
                assert await view.len() == 1
            assert not any(task.done() for task in writers)
            holder.release()
            await asyncio.gather(*writers)
            assert await store.keys() == ["a", "b", "c", "entered"]

    asyncio.run(main())


@pytest.mark.parametrize("call", ["block", "set", "write", "queued"])
def test_a_wait_for_another_process_can_be_cancelled(path: str, holder: Holder, call: str) -> None:
    """A cancelled wait ends although the other process goes on, and nothing has changed."""

    async def main() -> None:
        async with aio.open(path, **OPTIONS) as store:
            calls: dict[str, Callable[[], Awaitable[Any]]] = {
                "block": lambda: enter(store),
                "set": lambda: store.set("b", 2),
                "write": lambda: store.write(lambda store: store.clear()),
                "queued": lambda: store.set("c", 3),
            }
            other = asyncio.create_task(store.set("a", 2)) if call == "queued" else None
            await ticks(2)
            task = asyncio.ensure_future(calls[call]())
            await ticks(20)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await calls[call]()
            assert holder.process.poll() is None
            holder.release()
            if other is not None:
                await other
            await check_free(store)
            assert await store.items() == [("a", 1 if other is None else 2)]

    asyncio.run(main())


def test_timeouts(path: str, holder: Holder) -> None:
    """Who waits longer than his timeout gets an error: for a process, a task, or not at all."""

    async def main() -> None:
        async with aio.open(path, timeout=0.1, **OPTIONS) as store:
            for call in (store.set("b", 2), enter(store), enter(store, timeout=0)):
                with pytest.raises(richstore.LockTimeoutError, match="for more than 0"):
                    await call
            holder.release()
            await enter(store, timeout=0)
            async with store.transaction(timeout=None):
                for timeout in (0, 0.05):
                    task = asyncio.create_task(enter(store, timeout=timeout))
                    with pytest.raises(richstore.LockTimeoutError):
                        await task
            await check_free(store)
            assert await store.keys() == ["a", "entered"]

    asyncio.run(main())


def test_open_can_be_cancelled(path: str, holder: Holder) -> None:
    """A cancelled `open` that has to wait leaves the file as it was, and nothing open."""

    async def main() -> None:
        opening = asyncio.ensure_future(aio.open(path, "n", **OPTIONS).__aenter__())
        await ticks(40)
        assert not opening.done()
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        with pytest.raises(richstore.LockTimeoutError):
            await aio.open(path, "n", timeout=0.1, **OPTIONS)
        opening = asyncio.ensure_future(aio.open(path, "n", **OPTIONS).__aenter__())
        await ticks(2)
        with richstore.open(path, **OPTIONS) as store:  # type: ignore[arg-type]
            assert store["a"] == 1
        holder.release()
        emptied = await opening
        assert await emptied.len() == 0
        await emptied.close()

    asyncio.run(main())


class Slow:
    """An object that the thread that writes waits for, until it is allowed to go on."""

    begun = threading.Event()
    go_on = threading.Event()

    def __reduce__(self) -> Any:
        if threading.current_thread() is not threading.main_thread():
            Slow.begun.set()
            assert Slow.go_on.wait(30)
        return (Slow, ())


@pytest.fixture
def slow() -> Iterator[type[Slow]]:
    """The class `Slow`, as nobody has used it."""
    Slow.begun.clear()
    Slow.go_on.clear()
    yield Slow
    Slow.go_on.set()


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("how", ["block", "set"])
def test_a_commit_that_has_begun_ends_first(
    path: str, slow: type[Slow], how: str, fails: bool
) -> None:
    """A task that is cancelled during its commit goes on when that has ended, whole or not at all.

    The loop goes on as well, and an error of the commit is the cause of the cancellation.
    """

    async def commit(store: aio.Store) -> None:
        if how == "set":
            await store.set("pair", [slow(), BadAtCommit() if fails else 1])
            return
        async with store.transaction() as tx:
            tx["a"] = 1
            tx["slow"] = slow()
            if fails:
                tx["bad"] = [BadAtCommit()]

    async def main() -> None:
        async with aio.open(path, classes="any", **OPTIONS) as store:
            task = asyncio.create_task(commit(store))
            while not slow.begun.is_set():
                await ticks(1)
            for _ in range(3):
                task.cancel()
                await ticks(3)
                assert not task.done()
            assert await store.len() == 0
            slow.go_on.set()
            with pytest.raises(asyncio.CancelledError) as found:
                await task
            cause: Any = richstore.EncodingError if fails else type(None)
            assert isinstance(found.value.__cause__, cause)
            expected = {"set": ["pair"], "block": ["a", "slow"]}[how]
            assert await store.keys() == ([] if fails else expected)
            await check_free(store)

    asyncio.run(main())


class BadAtCommit:
    """An object that cannot be stored, as the commit finds out."""

    def __reduce__(self) -> Any:
        if threading.current_thread() is not threading.main_thread():
            raise LookupError("not now")
        return (BadAtCommit, ())


def test_a_read_can_be_cancelled(path: str) -> None:
    """A cancelled task does not wait for its read, which closing the store does."""

    async def main() -> None:
        begun, go_on = threading.Event(), threading.Event()
        ended = []

        def read(store: Any) -> None:
            begun.set()
            assert go_on.wait(30)
            ended.append(len(store))

        async with aio.open(path, **OPTIONS) as store:
            task = asyncio.create_task(store.read(read))
            while not begun.is_set():
                await ticks(1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await store.set("a", 1)
            closing = asyncio.create_task(store.close())
            await ticks(5)
            assert not closing.done() and not ended
            go_on.set()
            await closing
            assert ended == [1]

    asyncio.run(main())


def test_a_close_that_is_cancelled_closes_later(path: str) -> None:
    """A cancelled `close()` does not wait for the block of another task, after which it closes."""

    async def main() -> None:
        store = await aio.open(path, **OPTIONS)
        entered, go_on = asyncio.Event(), asyncio.Event()

        async def block() -> None:
            async with store.transaction() as tx:
                entered.set()
                await go_on.wait()
                tx["a"] = 1

        task = asyncio.create_task(block())
        await entered.wait()
        closing = asyncio.create_task(store.close())
        await ticks(2)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        with pytest.raises(richstore.ClosedError):
            await store.set("b", 2)
        go_on.set()
        await task
        await store.close()
        with richstore.open(path, **OPTIONS) as plain:  # type: ignore[arg-type]
            assert dict(plain) == {"a": 1}

    asyncio.run(main())


@contextlib.asynccontextmanager
async def cancelled_at_random(seed: int) -> AsyncIterator[random.Random]:
    """Cancel the task of the block after a random number of turns of the loop, or milliseconds."""
    choose = random.Random(seed)
    task = asyncio.current_task()
    assert task is not None
    inside = True

    async def cancel() -> None:
        if choose.random() < 0.5:
            for _ in range(choose.randrange(12)):
                await asyncio.sleep(0)
        else:
            await asyncio.sleep(choose.random() * 0.02)
        if inside:
            task.cancel()

    canceller = asyncio.create_task(cancel())
    try:
        yield choose
    except asyncio.CancelledError:
        task.uncancel()
    finally:
        inside = False
        with contextlib.suppress(asyncio.CancelledError):
            await canceller
            # it may have come at the very last moment
            await asyncio.sleep(0)


async def some_work(store: aio.Store, choose: random.Random) -> None:
    """Do one of the things that a store is for; each leaves `x == y`, and `total` in the pots."""
    kind = choose.randrange(8)
    number = choose.randrange(1000)
    if kind == 0:
        await store.update(x=number, y=number)
    elif kind <= 2:
        async with store.transaction() as tx:
            pots = tx["pots"]
            pots[0] -= number
            if kind == 2:
                await asyncio.sleep(choose.random() * 0.002)
            async with store.group("log").transaction() as log:
                log[number] = [{"n": n} for n in range(number)]
                await asyncio.sleep(0)
            pots[1] += number
            if choose.random() < 0.3:
                raise LookupError
    elif kind == 3:
        async for _, row in store.group("log").items(reverse=True):
            assert all(set(one) == {"n"} for one in row)
            if choose.random() < 0.3:
                break
            await asyncio.sleep(0)
    elif kind == 4:
        async with store.snapshot() as view:
            assert await view.get("x") == await view.get("y")
            assert sum(await view["pots"]) == 0
    elif kind == 5:
        await store.write(lambda store: store.update(x=number, y=number))
    elif kind == 6:
        async with aio.open(store.path, **OPTIONS) as other, other.transaction() as tx:
            tx["x"] = number
            await asyncio.sleep(0)
            tx["y"] = number
    else:
        await store.group("log").clear()


@pytest.mark.parametrize("seed", range(4))
def test_tasks_are_cancelled_anywhere(path: str, seed: int, request: pytest.FixtureRequest) -> None:
    """Whenever tasks are cancelled, each did all or nothing, the lock is free, the store whole."""
    rounds = 400 if request.config.getoption("--long") else 25

    async def main() -> None:
        async with aio.open(path, **OPTIONS) as store:
            await store.update(pots=[0, 0], x=0, y=0)

            async def worker(number: int) -> None:
                for turn in range(rounds):
                    async with cancelled_at_random(hash((seed, number, turn))) as choose:
                        with contextlib.suppress(LookupError):
                            await some_work(store, choose)

            await asyncio.gather(*[worker(number) for number in range(4)])
            assert sum(await store["pots"]) == 0
            assert await store["x"] == await store["y"]
            await check_free(store)

    asyncio.run(main())


def test_a_lock_that_is_leaked_is_found(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check above notices a cancelled task that does not give its transaction up."""
    jobs: list[Any] = []
    put = Writer.put

    def note(writer: Writer, job: Any) -> None:
        jobs.append(job)
        put(writer, job)

    async def main() -> None:
        async with aio.open(path, **OPTIONS) as store:
            monkeypatch.setattr(Writer, "put", note)
            monkeypatch.setattr(Handover, "give_up", lambda job: None)
            task = asyncio.create_task(enter(store))
            while not jobs:
                await asyncio.sleep(0)
            # it begins while the task has no turn to notice
            while jobs[0].transaction is None:
                threading.Event().wait(0.001)
            task.cancel()
            await ticks(10)
            assert not task.done()
            with pytest.raises(richstore.LockTimeoutError), store.sync.transaction(timeout=0.01):
                pass
            monkeypatch.undo()
            jobs[0].give_up()
            with pytest.raises(asyncio.CancelledError):
                await task
            await check_free(store)

    asyncio.run(main())


WRITER = """
import asyncio, sys
from richstore import aio

async def main():
    async with aio.open(sys.argv[1], synchronous="off") as store:
        for n in range(10**6):
            async with store.transaction() as tx:
                tx["x"] = n
                await asyncio.sleep(0)
                tx.group("g")["y"] = n
            print(n, flush=True)

asyncio.run(main())
"""


def test_a_process_that_is_killed_leaves_no_half_transaction(path: str) -> None:
    """After SIGKILL others write at once, what was told is there, and no block is half there."""

    async def main() -> None:
        async with aio.open(path, **OPTIONS) as store:
            for count in (1, 20):
                child = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-c", WRITER, path),
                    stdout=subprocess.PIPE,
                    env=child_environment(),
                )
                assert child.stdout is not None
                for _ in range(count):
                    told = int(await child.stdout.readline())
                child.kill()
                await child.communicate()
                async with store.transaction() as tx:
                    assert tx["x"] == tx.group("g")["y"] >= told
                await check_free(store)

    asyncio.run(main())
