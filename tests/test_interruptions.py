"""A KeyboardInterrupt at any bytecode: memory is what the disk is, and no lock is left behind.

An operation runs under a trace function that raises at its n-th bytecode, for n = 1, 2, 3, … until
the operation runs through. This is more than Ctrl-C can do: Python looks for signals only at the
begin of a function, after a call, and when a loop goes round. After each interrupt, *while its
traceback is still held* (as an `except` block and the interactive interpreter do), other threads and
processes must be able to write, and what is in memory must be what is on disk: the state before, or
the one after.
"""

from __future__ import annotations

import _thread
import contextvars
import dis
import fcntl
import functools
import gc
import os
import random
import shutil
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest
from conftest import TINY

import richstore
from richstore import paging

pytestmark = pytest.mark.timeout(0)

# Bytecodes between two that are tried, in the short form; the offset is another one each time.
STRIDE = 251


class Pair:
    """Two attributes."""

    def __init__(self) -> None:
        self.x = 0
        self.y = 0


class _Signal(int):
    """A signal number whose attribute `now` lets the signal arrive, without a call in Python.

    After a call Python would look for signals at once, in the trace function itself.
    """

    now = property(_thread.interrupt_main)


SIGINT = _Signal(signal.SIGINT)


# Bytecodes that run nothing of Python and after which it does not look for signals: one that
# arrives before such a bytecode might as well arrive after it.
_QUIET = (
    "COPY",
    "IS_OP",
    "KW_NAMES",
    "LOAD_CONST",
    "LOAD_DEREF",
    "LOAD_FAST",
    "LOAD_GLOBAL",
    "NOP",
    "POP_JUMP_FORWARD",
    "PRECALL",
    "PUSH_NULL",
    "SWAP",
)


@functools.cache
def loud(code: CodeType) -> frozenset[int]:
    """Return the offsets of the other bytecodes of a function."""
    return frozenset(
        instruction.offset
        for instruction in dis.get_instructions(code)
        if not instruction.opname.startswith(_QUIET)
    )


class Interrupt:
    """Lets SIGINT arrive just before the n-th bytecode of an operation.

    Attributes:
        left: bytecodes that are still to go.
    """

    def __init__(self, at: int) -> None:
        self.left = at

    def run(self, work: Callable[[], Any]) -> None:
        """Run `work` and let what it raises through."""
        before = sys.gettrace()
        sys.settrace(self._enter)
        try:
            work()
        finally:
            sys.settrace(before)

    def _enter(self, frame: FrameType, event: str, argument: Any) -> Any:
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        return self._step

    def _step(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event == "opcode" and frame.f_lasti in loud(frame.f_code):
            self.left -= 1
            if self.left == 0:
                sys.settrace(None)
                SIGINT.now  # noqa: B018 - this is what it is for
        return self._step


@dataclass
class Operation:
    """One operation, and what it makes of the store that `fill` gives.

    Attributes:
        work: the operation.
        warm: whether all values are loaded before.
    """

    work: Callable[[Any], Any]
    warm: bool = True


def fill(store: Any) -> None:
    """Put in what the operations work on."""
    store.update(
        list=[0],
        dict={"a": 1, "inner": [1]},
        set={1, 2},
        pair=Pair(),
        rows=[[number] for number in range(60)],
        table={f"key {number}": number for number in range(60)},
    )


def block(store: Any) -> None:
    """Change something of every kind in one transaction."""
    with store.transaction():
        store["list"].append(1)
        store["pair"].x += 1
        store["pair"].y += 1
        store["rows"].extend([[1]] * 2)
        del store["table"]["key 5"]
        store["new"] = [1]
        store["dict"] = {"other": []}
        del store["set"]


def nested(store: Any) -> None:
    """Keep a savepoint, and leave another one by an exception."""
    with store.transaction():
        store["list"].append(1)
        with store.transaction():
            store["rows"][5].append(1)
            store["new"] = [1]
        try:
            with store.transaction():
                store["rows"].append(1)
                store["dict"]["inner"].append(2)
                del store["new"]
                raise LookupError
        except LookupError:
            pass
        store["list"].append(2)


def rolled_back(store: Any) -> None:
    """Change something of every kind, and roll it back."""
    try:
        with store.transaction():
            store["list"].append(1)
            store["pair"].x += 1
            store["rows"].insert(3, [7])
            store["table"]["other"] = 1
            store["new"] = list(range(60))
            store["built"] = iter(range(60))
            del store["set"]
            raise LookupError
    except LookupError:
        pass


def rolled_back_by_hand(store: Any) -> None:
    """Go back to a savepoint, and abort."""
    with store.transaction() as transaction:
        store["list"].append(1)
        point = transaction.savepoint()
        store["rows"].append(1)
        transaction.rollback_to(point)
        transaction.abort()


def read(store: Any) -> None:
    """Load something of every kind."""
    assert store["list"][0] == 0
    assert store["rows"][45][0] == 45
    assert store["table"]["key 50"] == 50
    assert store["pair"].x == 0
    assert "set" in store
    assert sum(1 for _ in store["rows"]) == 60
    assert len(store) == 6


def walk(store: Any) -> None:
    """Read in a snapshot, and walk the keys."""
    with store.snapshot() as view:
        assert view["rows"][5] == [5]
        assert list(view) == list(store)


def swap(store: Any) -> None:
    """Move values between places in one transaction."""
    with store.transaction():
        rows = store["rows"]
        rows[0], rows[45] = rows[45], rows[0]
        store["list"].append(rows[30])
        store["dict"]["inner"] = rows.pop(20)


OPERATIONS = {
    "list.append": Operation(lambda store: store["list"].append([1])),
    "list.append, cold": Operation(lambda store: store["list"].append([1]), warm=False),
    "dict[key] =": Operation(lambda store: store["dict"].__setitem__("x", [1])),
    "set.add": Operation(lambda store: store["set"].add(3)),
    "attribute": Operation(lambda store: setattr(store["pair"], "x", 5)),
    "store[key] = new": Operation(lambda store: store.__setitem__("new", {"a": [1]})),
    "store[key] = again": Operation(lambda store: store.__setitem__("dict", {"a": [1]})),
    "del store[key]": Operation(lambda store: store.__delitem__("rows")),
    "store.pop": Operation(lambda store: store.pop("dict"), warm=False),
    "rows.append": Operation(lambda store: store["rows"].append([1])),
    "rows.insert, a split": Operation(lambda store: store["rows"].insert(9, list(range(30)))),
    "rows.extend": Operation(lambda store: store["rows"].extend([[n] for n in range(8)])),
    "del rows[:], joins": Operation(lambda store: store["rows"].__delitem__(slice(3, 30))),
    "table[key] =": Operation(lambda store: store["table"].__setitem__("more", 1), warm=False),
    "table.pop": Operation(lambda store: store["table"].pop("key 20")),
    "rows.sort": Operation(lambda store: store["rows"].sort(reverse=True)),
    "a generator": Operation(lambda store: store.__setitem__("new", ([n] for n in range(20)))),
    "block": Operation(block),
    "nested": Operation(nested),
    "rolled back": Operation(rolled_back),
    "rolled back by hand": Operation(rolled_back_by_hand),
    "swap": Operation(swap),
    "read": Operation(read, warm=False),
    "walk": Operation(walk, warm=False),
    "compact": Operation(lambda store: store.compact()),
}


def contents(mapping: Any) -> dict[str, Any]:
    """Return all that is in a store or a snapshot, to be compared."""
    found = richstore.plain(dict(mapping))
    return {key: vars(value) if isinstance(value, Pair) else value for key, value in found.items()}


class Trial:
    """Runs one operation on copies of one file, each time with an interrupt at another bytecode."""

    def __init__(self, operation: Operation, directory: Path) -> None:
        self.operation = operation
        self.template = directory / "template"
        self.path = directory / "store"
        with richstore.open(self.template, synchronous="off") as store:
            fill(store)
            self.before = contents(store)
        # twice, so that what is imported or cached at first is there
        for _ in range(2):
            with self._open() as store:
                self._warm(store)
                operation.work(store)
                self.after = contents(store)

    def _open(self) -> Any:
        shutil.copyfile(self.template, self.path)
        Path(f"{self.path}-lock").unlink(missing_ok=True)
        return richstore.open(self.path, synchronous="off", timeout=1)

    def _warm(self, store: Any) -> dict[str, Any]:
        """Hold all values if the operation is to find them loaded."""
        if not self.operation.warm:
            return {}
        contents(store)
        return dict(store.items())

    def interrupt_at(self, at: int) -> tuple[bool, str]:
        """Return whether there was a bytecode of that number, and what was wrong afterwards."""
        # a context of its own, so that what one leaves behind does not reach the next
        return contextvars.Context().run(self._interrupt_at, at)

    def _interrupt_at(self, at: int) -> tuple[bool, str]:
        store = self._open()
        held = self._warm(store)
        interrupt = Interrupt(at)
        lost: list[Any] = []
        hook, sys.unraisablehook = sys.unraisablehook, lost.append
        gc.disable()
        place = problem = ""
        try:
            try:
                interrupt.run(lambda: self.operation.work(store))
            except KeyboardInterrupt as error:
                place = place_of(error)
                problem = self.problem(store, held, [self.before, self.after])
            except Exception as error:
                place = place_of(error)
                problem = f"it raised {error!r}"
            else:
                # only what Python ignores, an interrupt inside a __del__, may be lost
                place = "ignored" if lost else ""
                problem = self.problem(store, held, [self.after])
            lost.clear()
            try:
                store.close()
            except Exception as error:
                problem = problem or f"close() raised {error!r}"
            problem = problem or self._problem_when_closed()
        finally:
            gc.enable()
            sys.unraisablehook = hook
        came = interrupt.left <= 0
        if came and not place:
            problem = problem or "the interrupt was lost"
        return came, problem and f"bytecode {at}, {place}: {problem}"

    def problem(self, store: Any, held: dict[str, Any], allowed: list[Any]) -> str:
        """Return what is wrong with an open store; "" if nothing is."""

        def too_long(*_: Any) -> None:
            raise TimeoutError("it waits for ever")

        before = signal.signal(signal.SIGALRM, too_long)
        signal.alarm(5)
        try:
            self._check(store, held, allowed)
        except Exception as error:
            return f"{type(error).__name__}: {str(error)[:200]}"
        finally:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, before)
        return ""

    def _check(self, store: Any, held: dict[str, Any], allowed: list[Any]) -> None:
        with open(self.path, "rb") as file:  # as another process would
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise AssertionError("other processes are locked out") from None
        with store.snapshot() as view:
            stored = contents(view)
        assert stored in allowed, "what is stored is neither the old state nor the new one"
        live = contents(store)
        assert live == stored, "memory is not what is stored"
        for key, value in held.items():
            if key in store and store[key] is value:
                found = vars(value) if isinstance(value, Pair) else richstore.plain(value)
                assert found == stored[key], f"the held {key!r} is not what is stored"
        in_thread(lambda: store.__setitem__("from a thread", 1))
        store["after"] = 1
        store["rows" if "rows" in store else "list"].append("more")
        live = contents(store)
        with store.snapshot() as view:
            assert live == contents(view), "a later change is not stored"
        assert live.keys() == {*stored, "after", "from a thread"}
        report = store.verify()
        assert report.problems == []
        assert report.unreachable == 0

    def _problem_when_closed(self) -> str:
        names = {os.readlink(f"/proc/self/fd/{fd}") for fd in descriptors()}
        return "the file is still open" if str(self.path) in names else ""


def place_of(error: BaseException) -> str:
    """Return where an exception was raised."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{Path(frame.filename).name}:{frame.lineno} {frame.name}"


def descriptors() -> list[str]:
    """Return the open descriptors, without that of the listing itself."""
    return [fd for fd in os.listdir("/proc/self/fd") if os.path.lexists(f"/proc/self/fd/{fd}")]


def in_thread(work: Callable[[], Any]) -> None:
    """Run something in another thread, which must not have to wait for this one."""
    failures: list[BaseException] = []

    def target() -> None:
        try:
            work()
        except BaseException as error:  # raised again in the caller's thread
            failures.append(error)

    thread = threading.Thread(target=target, daemon=True)
    thread.start()
    thread.join(0.5)
    assert not thread.is_alive(), "other threads are locked out"
    if failures:
        raise AssertionError(f"in another thread: {failures[0]!r}")


@pytest.mark.parametrize("name", OPERATIONS)
def test_interrupt_at_any_bytecode(
    name: str,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After a KeyboardInterrupt at any bytecode the state is the old or the new, and all goes on."""
    monkeypatch.setattr(paging, "PAGE", 4 * TINY)
    trial = Trial(OPERATIONS[name], tmp_path)
    stride = 1 if request.config.getoption("--long") else STRIDE
    at = random.randrange(1, stride + 1)
    came, problems = True, []
    while came:
        came, problem = trial.interrupt_at(at)
        if problem:
            problems.append(problem)
        at += stride
    assert problems == []
