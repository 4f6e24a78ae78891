"""Those who ask for one result at once, in threads, tasks and processes, compute it once."""

from __future__ import annotations

import asyncio
import contextvars
import os
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import CodeType
from typing import Any

import pytest
from conftest import child_environment, run_python
from test_interruptions import Interrupt

import richstore
from richstore.remembered import claims

pytestmark = pytest.mark.timeout(90)

WORKER = """
import os, sys
import richstore

store, log, mode = sys.argv[1:4]

def note(line):
    with open(log, "a") as file:
        file.write(line + chr(10))

@richstore.persisted(store, name="work")
def work(x):
    note(f"computing {os.getpid()}")
    if mode == "hang":
        print("computing", flush=True)
        sys.stdin.readline()
    if mode == "fail":
        raise ValueError("failed")
    return [x, os.getpid()]

print("ready", flush=True)
sys.stdin.readline()
print(work(7), flush=True)
"""


class Worker:
    """A process that asks for `work(7)` when it is told to."""

    def __init__(self, directory: Path, mode: str = "quick") -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER, directory / "r.db", directory / "log", mode],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=child_environment(),
        )

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def go(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()

    def end(self) -> str:
        """Wait for its end and return what it said on the way, or its error."""
        out, error = self.process.communicate(timeout=60)
        return out.strip() or error


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Worker]]:
    """A function that starts a worker."""
    workers: list[Worker] = []

    def made(mode: str = "quick") -> Worker:
        workers.append(Worker(tmp_path, mode))
        return workers[-1]

    yield made
    for worker in workers:
        worker.process.kill()
        worker.process.communicate()


def computed(directory: Path) -> int:
    """Count the computations of all workers."""
    return len((directory / "log").read_text().splitlines())


# --- processes ---


def test_who_may_write_the_store_may_claim(tmp_path: Path) -> None:
    """The file of claims has the mode of the store, and no link is followed to another file."""
    path = tmp_path / "r.db"
    with richstore.open(path, synchronous="off") as store:
        work = richstore.persisted(store, name="work")(lambda x: x)
        for mode in (0o600, 0o660):
            path.chmod(mode)
            work(mode)
            assert (tmp_path / "r.db-claims").stat().st_mode & 0o777 == mode
        (tmp_path / "r.db-claims").unlink()
        (tmp_path / "r.db-claims").symlink_to(tmp_path / "other")
        for _ in range(2):
            with pytest.raises(OSError, match=r"r\.db-claims"):
                work(1)
        (tmp_path / "r.db-claims").unlink()
        assert work(1) == 1 and not (tmp_path / "other").exists()


EIGHT = """
import os, sys

begin, go = os.pipe()
children = []
for _ in range(8):
    children.append(os.fork())
    if children[-1] == 0:
        os.close(go)
        os.read(begin, 1)
        os.write(1, f"{work(7)}{os.linesep}".encode())
        os._exit(0)
os.close(go)
for child in children:
    assert os.waitpid(child, 0)[1] == 0
"""


def test_eight_processes_compute_once(tmp_path: Path) -> None:
    """Eight processes that ask at once get the result of one of them."""
    code = WORKER[: WORKER.index('print("ready')] + EIGHT
    path, log = str(tmp_path / "r.db"), str(tmp_path / "log")
    done = run_python(code, path, log, "quick")
    assert done.returncode == 0, done.stderr
    answers = done.stdout.splitlines()
    assert len(answers) == 8 and len(set(answers)) == 1
    assert computed(tmp_path) == 1
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"log", "r.db", "r.db-lock", "r.db-claims"}


def test_the_computing_process_is_killed(start: Any, tmp_path: Path) -> None:
    """When the process that computes is killed, one of those that wait computes."""
    first, *others = start("hang"), start(), start()
    for worker in (first, *others):
        assert worker.line() == "ready"
    first.go()
    assert first.line() == "computing"
    for worker in others:
        worker.go()
    with richstore.open(tmp_path / "r.db") as store:
        # who computes keeps nobody from writing
        store["meanwhile"] = 1
    assert computed(tmp_path) == 1
    first.process.kill()
    answers = {worker.end() for worker in others}
    assert len(answers) == 1 and answers != {""}
    assert computed(tmp_path) == 2


def test_the_computing_process_fails(start: Any, tmp_path: Path) -> None:
    """When computing raises, the error is of that process, and the next one computes."""
    first, second = start("fail"), start()
    for worker in (first, second):
        assert worker.line() == "ready"
    first.go()
    assert "ValueError: failed" in first.end()
    second.go()
    assert second.end().startswith("[7, ")
    assert computed(tmp_path) == 2


def test_another_process_takes_over_while_threads_wait(start: Any, tmp_path: Path) -> None:
    """Threads here wait for a process there, and get what it has computed."""
    first = start("hang")
    assert first.line() == "ready"
    first.go()
    assert first.line() == "computing"
    work = richstore.persisted(tmp_path / "r.db", name="work")(lambda x: "computed here")
    answers: list[Any] = []
    threads = [threading.Thread(target=lambda: answers.append(work(7))) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert work(8) == "computed here"
    first.go()
    said = first.end()
    for thread in threads:
        thread.join()
    work.close()
    assert [str(answer) for answer in answers] == [said] * 3


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_the_child_of_a_fork(tmp_path: Path) -> None:
    """A child of a fork has no claims of its parent, and shares its results."""
    log = tmp_path / "log"
    started, go_on = threading.Event(), threading.Event()

    def compute(x: int) -> list[int]:
        with log.open("a") as file:
            file.write(f"{x}\n")
        if x == 1 and os.getpid() == parent:
            started.set()
            assert go_on.wait(60)
        return [x]

    parent = os.getpid()
    work = richstore.persisted(tmp_path / "r.db", name="work")(compute)
    thread = threading.Thread(target=work, args=(1,))
    thread.start()
    assert started.wait(60)
    child = os.fork()
    if child == 0:
        status = 1
        signal.alarm(60)
        try:
            # the second one waits for the parent's thread
            status = 0 if work(2) == [2] and work(1) == [1] else 2
        except BaseException:
            traceback.print_exc()
        os._exit(status)
    while "2" not in log.read_text().split():
        os.sched_yield()
    go_on.set()
    thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert work(2) == [2]
    work.close()
    assert sorted(log.read_text().split()) == ["1", "2"]


SCRIPT = """
import multiprocessing
import richstore

@richstore.persisted("r.db")
def square(x):
    with open("log", "a") as file:
        file.write("computing\\n")
    return x * x

if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        print(pool.map(square, [3, 3, 3]))
    print(square(3))
    with richstore.open("r.db") as store:
        print(store.group("persisted").groups())
"""


def test_a_pool_of_processes(tmp_path: Path) -> None:
    """A script's functions have the script's name in the processes of a pool, too."""
    (tmp_path / "jobs.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "-W", "error", "jobs.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        env=child_environment(),
        check=False,
    )
    assert done.stdout.splitlines() == ["[9, 9, 9]", "9", "['jobs.square']"], done.stderr
    assert computed(tmp_path) == 1 and done.stderr == ""


# --- threads ---


@pytest.fixture(params=["file", "memory", "dict", "process"])
def remember(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    """A function that decorates another one, with results in each kind of place."""
    if request.param == "process":
        yield richstore.persisted(level="process", name="work")
    elif request.param == "dict":
        yield richstore.persisted({}, name="work")
    else:
        path = "memory:" if request.param == "memory" else tmp_path / "r.db"
        with richstore.open(path, synchronous="off") as store:
            yield richstore.persisted(store, name="work")
    assert "r.db-claims" not in " ".join(os.listdir("/proc/self/fd"))


def in_threads(count: int, function: Callable[[int], Any]) -> list[Any]:
    """Call a function in threads that begin together; return what each returned or raised."""
    results: list[Any] = [None] * count
    barrier = threading.Barrier(count)

    def run(number: int) -> None:
        barrier.wait()
        try:
            results[number] = function(number)
        except Exception as error:
            results[number] = error

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_threads_compute_once(remember: Any) -> None:
    """Threads that ask at once compute once; other calls compute meanwhile."""
    calls: list[int] = []
    both = threading.Barrier(2)

    def compute(x: int) -> list[int]:
        calls.append(x)
        # only if the other one computes at the same time
        both.wait(60)
        return [x]

    work = remember(compute)
    assert in_threads(8, lambda number: work(number % 2)) == [[0], [1]] * 4
    assert sorted(calls) == [0, 1]


def test_threads_and_failures(remember: Any) -> None:
    """Each failure is raised by the thread that computed; the next one in line computes."""
    calls: list[int] = []

    def compute() -> str:
        calls.append(1)
        if len(calls) < 4:
            raise ValueError(len(calls))
        return "done"

    work = remember(compute)
    results = in_threads(8, lambda _: work())
    assert len(calls) == 4
    assert sorted(map(str, results)) == ["1", "2", "3"] + ["done"] * 5


@pytest.mark.parametrize("kind", ["store", "group", "value"])
def test_a_transaction_does_not_wait(tmp_path: Path, kind: str) -> None:
    """Who is in a transaction computes at once, since who computes already waits for its end."""
    calls: list[int] = []
    started = threading.Event()
    with richstore.open(tmp_path / "r.db", synchronous="off") as store:

        def compute() -> str:
            calls.append(1)
            started.set()
            if len(calls) == 1:
                # has to wait for the transaction
                store["seen"] = True
            return "done"

        store["value"] = {}
        targets = {"store": store, "group": store.group("a"), "value": store["value"]}
        work = richstore.persisted(targets[kind], name="work")(compute)
        with store.transaction():
            thread = threading.Thread(target=work)
            thread.start()
            assert started.wait(60)
            assert work() == "done" and len(calls) == 2
        thread.join()
        assert store["seen"] and work() == "done" and len(calls) == 2


def test_an_interrupt(tmp_path: Path) -> None:
    """What is interrupted is not kept, and keeps nobody waiting."""
    with richstore.open(tmp_path / "r.db", synchronous="off") as store:
        interrupted = []

        def compute() -> str:
            if not interrupted:
                interrupted.append(1)
                raise KeyboardInterrupt
            return "done"

        work = richstore.persisted(store, name="work", exceptions=Exception)(compute)
        with pytest.raises(KeyboardInterrupt):
            work()
        assert not work.is_set()
        assert work() == "done"


class _Interrupt(Interrupt):
    """Counts the bytecodes of remembered functions alone."""

    def _count(self, code: CodeType, offset: int) -> None:
        if f"{os.sep}remembered{os.sep}" in code.co_filename:
            super()._count(code, offset)


@pytest.mark.parametrize("level", ["store", "process"])
def test_an_interrupt_anywhere(tmp_path: Path, level: str) -> None:
    """Wherever Ctrl-C comes, even while its traceback is held nobody has to wait for that call."""
    with richstore.open(tmp_path / "r.db", synchronous="off") as store:
        target = store if level == "store" else None
        work = richstore.persisted(target, level=level, name="work")(len)
        held: list[KeyboardInterrupt] = []
        for number in range(1, 10_000, 3):
            interrupt = _Interrupt(number)
            try:
                interrupt.run(lambda: work(f"{number:05}"))  # noqa: B023 - it is called at once
            except KeyboardInterrupt as error:
                held.append(error)
            assert not any(file.users for file in claims._files.values())
            assert work(f"{number:05}") == 5
            if interrupt.left > 0:
                break
        assert len(held) > 60


# --- asynchronous functions ---


def test_a_task_that_is_thrown_away(remember: Any) -> None:
    """A task whose loop is gone keeps nobody waiting, and raises nothing."""

    async def stuck() -> None:
        entered.set()
        await asyncio.Event().wait()

    async def main() -> None:
        task = asyncio.create_task(work())
        await entered.wait()
        # as the garbage collector does, in a context of its own
        contextvars.Context().run(task.get_coro().close)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        again = asyncio.create_task(work())
        entered.clear()
        await entered.wait()
        again.cancel()

    entered = asyncio.Event()
    work = remember(stuck)
    asyncio.run(main())


def test_tasks_compute_once(remember: Any) -> None:
    """An asynchronous function is awaited once for all tasks that ask, and its result kept."""
    calls: list[int] = []

    async def compute(x: int) -> list[int]:
        calls.append(x)
        await asyncio.sleep(0)
        return [x]

    work = remember(compute)

    async def main() -> Any:
        return await asyncio.gather(*(work(number % 3) for number in range(60)))

    assert asyncio.run(main()) == [[0], [1], [2]] * 20
    assert sorted(calls) == [0, 1, 2]
    assert work.is_set(1)
    assert asyncio.run(work(1)) == [1]
    work.clear()
    work.set("known", 1)
    assert asyncio.run(work(1)) == "known" and len(calls) == 3


def test_a_cancelled_task(remember: Any) -> None:
    """When the task that computes is cancelled another computes; one that waits may end, too."""
    calls: list[int] = []

    async def main() -> Any:
        started, go_on = asyncio.Event(), asyncio.Event()

        async def compute() -> str:
            calls.append(1)
            started.set()
            await go_on.wait()
            return "done"

        work = remember(compute)
        first = asyncio.create_task(work())
        await started.wait()
        waiting = [asyncio.create_task(work()) for _ in range(3)]
        for _ in range(5):
            await asyncio.sleep(0.001)
        waiting[0].cancel()
        started.clear()
        first.cancel()
        await started.wait()
        go_on.set()
        return await asyncio.gather(first, *waiting, return_exceptions=True)

    cancelled, also, *answers = asyncio.run(main())
    assert isinstance(cancelled, asyncio.CancelledError)
    assert isinstance(also, asyncio.CancelledError)
    assert answers == ["done", "done"] and len(calls) == 2


def test_asynchronous_methods_and_failures(remember: Any) -> None:
    """Methods, kept exceptions and results that cannot be kept are as in other functions."""

    class Client:
        @richstore.persisted(level="instance", exceptions=KeyError)
        async def fetch(self, x: int) -> list[int]:
            calls.append(x)
            if x == 0:
                raise KeyError(x)
            return [x]

        @richstore.persisted(level="instance", exceptions=richstore.EncodingError)
        async def rows(self) -> Any:
            return generator()

    calls: list[int] = []
    client = Client()

    async def generator() -> Any:
        yield 1

    async def main() -> None:
        first = await client.fetch(1)
        assert await client.fetch(1) is first
        for _ in range(2):
            with pytest.raises(KeyError):
                await client.fetch(0)
        with pytest.raises(RecursionError):
            await around(1)
        with pytest.raises(richstore.EncodingError, match="async_generator"):
            await broken()
        with pytest.raises(richstore.EncodingError, match="async_generator"):
            await client.rows()
        assert not client.rows.is_set()

    async def returns_generator() -> Any:
        return generator()

    async def asks_itself(x: int) -> Any:
        # in tasks of their own, which it waits for
        return await asyncio.gather(around(x))

    around, broken = remember(asks_itself), remember(returns_generator)
    asyncio.run(main())
    assert calls == [1, 0]


def test_the_loop_goes_on(tmp_path: Path) -> None:
    """While a result waits for the writer's lock, the loop and its threads are free."""
    path = tmp_path / "r.db"

    async def compute() -> str:
        return "done"

    work = richstore.persisted(path, name="work")(compute)
    with richstore.open(path, synchronous="full") as store:
        locked, go_on = threading.Event(), threading.Event()

        def hold() -> None:
            with store.transaction():
                locked.set()
                assert go_on.wait(60)

        async def main() -> str:
            thread = threading.Thread(target=hold)
            thread.start()
            asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
            await asyncio.to_thread(locked.wait, 60)
            task = asyncio.create_task(work())
            for _ in range(200):
                await asyncio.sleep(0.001)
            assert not task.done()
            await asyncio.to_thread(go_on.set)
            answer = await task
            thread.join()
            return answer

        assert asyncio.run(main()) == "done"
        assert work.is_set()
    work.close()


def test_a_task_in_a_transaction(tmp_path: Path) -> None:
    """A task in a transaction keeps its results in it, without waiting for itself."""

    async def compute(x: int) -> int:
        await asyncio.sleep(0)
        return x

    with richstore.open(tmp_path / "r.db", synchronous="off") as store:
        work = richstore.persisted(store, name="work")(compute)

        async def main() -> None:
            with pytest.raises(RuntimeError), store.transaction():
                assert await work(1) == 1
                assert work.is_set(1)
                raise RuntimeError
            assert not work.is_set(1)
            with store.transaction():
                assert await work(2) == 2
                assert await work(2) == 2

        asyncio.run(main())
        assert work.is_set(2) and not work.is_set(1)
