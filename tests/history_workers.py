"""One of the processes that make histories: `python history_workers.py PLAN`.

It does what a `Plan` says in threads, tasks and forks of it, and writes down what it does, line by
line, so that what a killed process has done is known as well.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
import random
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from histories import Transaction
from history_faults import plant
from history_places import Group, Place, all_places, big_places, fill, small_places

import richstore

__all__ = ["Plan", "look_at_all"]

# How many nanoseconds a set of small values is used before the next: short lists are read fast.
GENERATION = 250_000_000
BIG_SHARE = 0.04  # of all that is done, since it takes long
now = time.monotonic_ns


@dataclass
class Plan:
    """What a process is to do.

    Attributes:
        paths: the files of the stores; or `memory:`, which the process fills itself, and looks at.
        out: the directory for what is written down.
        number: tells this process from the others.
        seed: what all choices follow from.
        seconds: how long it is to take; `begin`, which the process is told when all are ready, is
            when that begins.
        synchronous: how the stores are opened.
        threads, tasks, forks: how many of each; each fork has as many threads and tasks again.
        kill_after: seconds after which it kills itself; 0 for never.
        fault: what is wrong with the library in it.
    """

    paths: list[str]
    out: str
    number: int
    seed: int
    seconds: float
    begin: int = 0
    synchronous: str = "off"
    threads: int = 2
    tasks: int = 0
    forks: int = 0
    kill_after: float = 0
    fault: str = "none"

    @property
    def end(self) -> int:
        """When it is to end."""
        return self.begin + int(self.seconds * 1e9)

    @property
    def generations(self) -> int:
        """How many sets of small values are used in the time."""
        return int(self.seconds * 1e9) // GENERATION + 1


class Undo(Exception):
    """Leaves a block so that it is rolled back."""


class Process:
    """The stores as one process has them open, and what it holds of them."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.stores = [
            richstore.open(path, synchronous=plan.synchronous, timeout=60) for path in plan.paths
        ]
        if plan.paths == ["memory:"]:
            fill(self.stores[0], plan.generations)
        self.big = big_places()
        self.small = [small_places(generation) for generation in range(plan.generations)]
        self.places = {place.key: place for part in (self.big, *self.small) for place in part}
        self.held = {
            (at, key): place.reach(store)
            for key, place in self.places.items()
            for at, store in enumerate(self.stores)
        }

    def run(self, number: int) -> None:
        """Run all threads and tasks of this process, or of a fork of it, to their end."""
        plan = self.plan
        names = [f"thread {n}" for n in range(plan.threads)] + [
            f"task {n}" for n in range(plan.tasks)
        ]
        workers = [Worker(self, number * 10 + at, name) for at, name in enumerate(names)]
        threads = [threading.Thread(target=one.run) for one in workers[: plan.threads]]
        for thread in threads:
            thread.start()
        if plan.kill_after:
            threading.Thread(target=kill, args=(plan.kill_after,), daemon=True).start()

        async def run_tasks() -> None:
            await asyncio.gather(*(one.run_as_task() for one in workers[plan.threads :]))

        asyncio.run(run_tasks())
        for thread in threads:
            thread.join()

    def close(self) -> None:
        """Close the stores, after a last look at what nobody else can open."""
        if self.plan.paths == ["memory:"]:
            last = look_at_all(self.stores[0], self.plan.generations)
            writer = Worker(self, 0, "at the end")
            writer.write(store=0, begin=last.begin, end=last.end, ops=last.ops, outcome="committed")
            os.close(writer.fd)
        for store in self.stores:
            store.close()


def kill(seconds: float) -> None:
    """Kill this process after some seconds."""
    time.sleep(seconds)
    os.kill(os.getpid(), signal.SIGKILL)


class Worker:
    """A thread or task of a process, which does one random thing after another.

    What it does is written as generators, which stop where others may come in between.
    """

    def __init__(self, process: Process, number: int, name: str) -> None:
        self.process, self.plan, self.name = process, process.plan, name
        self.dice = random.Random(self.plan.seed * 1000 + number)
        self.next_value = number * 1_000_000
        self.is_task = name.startswith("task")
        path = Path(self.plan.out) / f"{number}.lines"
        self.fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
        self.write(process=os.getpid(), thread=name)

    def run(self) -> None:
        """Do this and that until the time is over, as a thread."""
        with self.noting_errors():
            while now() < self.plan.end:
                for _ in self.step():
                    if self.dice.random() < 0.3:
                        time.sleep(self.dice.random() * 0.0004)

    async def run_as_task(self) -> None:
        """Do this and that until the time is over, as a task."""
        with self.noting_errors():
            while now() < self.plan.end:
                for _ in self.step():
                    await asyncio.sleep(0)
                await asyncio.sleep(self.dice.random() * 0.0004)

    @contextmanager
    def noting_errors(self) -> Iterator[None]:
        """Write down an error, which nobody expects, before it goes on."""
        try:
            yield
        except BaseException:
            self.write(error=traceback.format_exc())
            raise
        finally:
            os.close(self.fd)

    def write(self, **line: Any) -> None:
        """Write down something; it stays when the process is killed."""
        os.write(self.fd, json.dumps(line).encode() + b"\n")

    # --- choices ---

    def value(self) -> int:
        """Return a value that nobody has had."""
        self.next_value += 1
        return self.next_value

    def generation(self) -> int:
        """Return which small values are in use."""
        return min(max(now() - self.plan.begin, 0) // GENERATION, self.plan.generations - 1)

    def some(self) -> list[Place | Group]:
        """Return places to choose from: seldom those in large values."""
        return (
            self.process.big
            if self.dice.random() < BIG_SHARE
            else self.process.small[self.generation()]
        )

    def place(self) -> Place:
        """Choose what to change."""
        return self.dice.choice([one for one in self.some() if isinstance(one, Place)])

    def container(self, at: int, place: Place | Group) -> Any:
        """Return the container of a place, taken from the store or held since before."""
        if self.dice.random() < 0.5:
            return place.reach(self.process.stores[at])
        return self.process.held[at, place.key]

    def step(self) -> Iterator[None]:
        """Do one random thing."""
        at = self.dice.randrange(len(self.process.stores))
        what = self.dice.choices(
            [self.change, self.update, self.read, self.read_held, self.look, self.block],
            [4, 0.5, 3, 2, 2, 4],
        )[0]
        yield
        yield from what(at)

    # --- things to do ---

    def change(self, at: int) -> Iterator[None]:
        """Make one change outside a block."""
        place, value = self.place(), self.value()
        put = functools.partial(self.put, at, place, value)
        yield from self.do_at_once(at, put, [[place.verb, place.key, value]])

    def put(self, at: int, place: Place, value: int) -> None:
        """Change a place."""
        place.put(self.container(at, place), value)

    def update(self, at: int) -> Iterator[None]:
        """Set several values of the store in one call."""
        generation = self.generation()
        tops = [part[-1].key for part in self.process.small[generation : generation + 2]]
        new = {top: self.value() for top in tops}
        put = functools.partial(self.process.stores[at].update, new)
        yield from self.do_at_once(at, put, [["write", top, value] for top, value in new.items()])

    def do_at_once(self, at: int, put: Callable[[], Any], ops: list[Any]) -> Iterator[None]:
        """Run a transaction of one call."""
        begin, outcome = now(), "committed"
        self.write(store=at, begin=begin, plan=ops)
        early = self.acknowledge_early(at, begin, ops)
        try:
            put()
        except richstore.LockTimeoutError:
            self.refused()
            outcome = "rolled back"
        if not early:
            self.write(store=at, begin=begin, end=now(), ops=ops, outcome=outcome)
        yield

    def refused(self) -> None:
        """Another task of this thread is in a block; threads wait for each other instead."""
        if not self.is_task:
            raise

    def acknowledge_early(self, at: int, begin: int, ops: list[Any]) -> bool:
        """Say that something was done before it is, if that is the fault."""
        if self.plan.fault != "acknowledged too early":
            return False
        self.write(store=at, begin=begin, end=now(), ops=ops, outcome="committed")
        time.sleep(0.002)
        return True

    def read(self, at: int) -> Iterator[None]:
        """Read one thing, beginning at the store."""
        place = self.dice.choice(self.some())
        begin = now()
        ops = place.read(place.reach(self.process.stores[at]))
        self.write(store=at, begin=begin, end=now(), ops=ops, outcome="committed")
        yield

    def read_held(self, at: int) -> Iterator[None]:
        """Read one thing that is held."""
        place = self.dice.choice(self.some())
        begin = now()
        ops = place.read(self.process.held[at, place.key])
        self.write(store=at, begin=begin, end=now(), ops=ops, outcome="committed", held=True)
        yield

    def look(self, at: int) -> Iterator[None]:
        """Read several things in a snapshot, which is of the moment in which it is opened."""
        begin = now()
        ops: list[Any] = []
        with self.process.stores[at].snapshot() as view:
            end = now()
            for _ in range(self.dice.randint(1, 5)):
                place = self.dice.choice(self.some())
                ops += place.read(place.reach(view))
                yield
        self.write(store=at, begin=begin, end=end, ops=ops, outcome="committed")

    def block(self, at: int) -> Iterator[None]:
        """Run a block; now and then, one on the second store inside one on the first."""
        both = len(self.process.stores) > 1 and self.dice.random() < 0.2
        stores = [0, 1] if both else [at]
        plans = {at: self.planned() for at in stores}
        leave = self.dice.choices(["commit", "raise", "abort"], [6, 1, 1])[0]
        begins: dict[int, int] = {}
        ops: dict[int, list[Any]] = {at: [] for at in stores}
        outcomes = dict.fromkeys(stores, "rolled back")
        # a task that pauses inside a block has to hold a lock that its thread wants last
        pauses = not self.is_task or stores == [0]
        early = False
        for at in stores:
            plan = [op for op in plans[at] if op[0] != "look"]
            self.write(store=at, begin=now(), plan=plan)
        try:
            with ExitStack() as stack:
                for at in stores:
                    begins[at] = now()
                    transaction = stack.enter_context(self.process.stores[at].transaction())
                    for _ in self.do(at, plans[at], ops[at]):
                        if pauses:
                            yield
                if leave == "raise":
                    raise Undo
                if leave == "abort":
                    transaction.abort()
                elif not both:
                    early = self.acknowledge_early(at, begins[at], ops[at])
        except Undo:
            pass
        except richstore.LockTimeoutError:
            self.refused()
        else:
            outcomes = dict.fromkeys(stores, "committed")
            if leave == "abort":
                outcomes[stores[-1]] = "rolled back"
        end = now()
        for at in stores if not early else ():
            begin = begins.get(at, end)
            self.write(store=at, begin=begin, end=end, ops=ops[at], outcome=outcomes[at])
        yield

    def planned(self) -> list[list[Any]]:
        """Choose what a block is to do; what it looks at is chosen then."""
        ops: list[list[Any]] = []
        levels = 0
        for _ in range(self.dice.randint(1, 7)):
            choice = self.dice.random()
            if choice < 0.35:
                ops.append(["look"])
            elif choice < 0.45:
                ops.append(["savepoint"])
                levels += 1
            elif choice < 0.55 and levels:
                ops.append([self.dice.choice(["keep", "undo"])])
                levels -= 1
            else:
                place = self.place()
                ops.append([place.verb, place.key, self.value()])
        return ops + [[self.dice.choice(["keep", "undo"])] for _ in range(levels)]

    def do(self, at: int, plan: list[list[Any]], ops: list[Any]) -> Iterator[None]:
        """Do what was planned in a block, and put it into `ops`."""
        levels: list[Any] = []
        written: list[str] = []
        for op in plan:
            match op:
                case ["look"]:
                    # half of the time at what was written before
                    again = written and self.dice.random() < 0.5
                    place = (
                        self.process.places[self.dice.choice(written)]
                        if again
                        else self.dice.choice(self.some())
                    )
                    ops += place.read(self.container(at, place))
                case ["savepoint"]:
                    levels.append(self.process.stores[at].transaction())
                    levels[-1].__enter__()
                    ops.append(op)
                case ["keep"]:
                    levels.pop().__exit__(None, None, None)
                    ops.append(op)
                case ["undo"]:
                    levels.pop().__exit__(Undo, Undo(), None)
                    ops.append(op)
                case [_, key, value]:
                    place = self.process.places[key]
                    assert isinstance(place, Place)
                    self.put(at, place, value)
                    ops.append(op)
                    written.append(key)
            yield


def main(plan: Plan) -> None:
    """Be one of the processes."""
    sys.setswitchinterval(random.Random(plan.seed).choice([0.00002, 0.0002, 0.005]))
    plant(plan.fault)
    process = Process(plan)
    print("ready", flush=True)
    plan.begin = int(sys.stdin.readline())
    children = []
    for number in range(plan.forks):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                process.run(plan.number + 20 * (number + 1))
                code = 0
            finally:
                os._exit(code)
        children.append(child)
    process.run(plan.number)
    failed = [child for child in children if os.waitpid(child, 0)[1]]
    process.close()
    if failed:
        raise ChildProcessError(f"{len(failed)} of {len(children)} forks failed")


def look_at_all(store: Any, generations: int) -> Transaction:
    """Read all places in one snapshot."""
    begin = now()
    with store.snapshot() as view:
        end = now()
        places = [one for one in all_places(generations) if isinstance(one, Place)]
        ops = [tuple(op) for place in places for op in place.read(place.reach(view))]
    return Transaction(os.getpid(), "at the end", begin, end, ops)


if __name__ == "__main__":
    main(Plan(**json.loads(sys.argv[1])))
