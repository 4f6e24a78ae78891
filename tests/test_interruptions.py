"""Ctrl-C at any bytecode: memory is what the disk is, and no lock is left behind.

An operation runs under a trace function that lets SIGINT arrive before its n-th bytecode, for
n = 1, 2, 3, … until the operation runs through. Python raises the KeyboardInterrupt itself, where
it looks for signals next: when a function begins, after a call, when a loop goes round; also in
`finally`, in `__exit__`, and in callbacks. After each interrupt, *while its traceback is still
held* (as an `except` block and the interactive interpreter do), other threads and processes must
be able to write, and what is in memory must be what is on disk: the state before, or the one after.
"""

from __future__ import annotations

import _thread
import ast
import contextlib
import contextvars
import dis
import fcntl
import functools
import gc
import itertools
import os
import random
import shutil
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest
from conftest import TINY

import richstore
from richstore import paging
from richstore.block import Block
from richstore.engines.lmdb.transactions import ENDED, LmdbWriteTransaction
from richstore.transaction import Transaction

pytestmark = [
    pytest.mark.timeout(0),
    # of files that Python itself closes after an interrupt, and of an interrupt inside a __del__
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

plain = richstore.plain

# How many bytecodes of an operation are tried in the short form, others each time.
TRIED = 8


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
        self.before = sys.gettrace()

    def run(self, work: Callable[[], Any]) -> None:
        """Run `work` and let what it raises through."""
        self._watch(True)
        try:
            work()
        finally:
            self._watch(False)

    def _watch(self, on: bool) -> None:
        if monitoring is None:
            sys.settrace(self._enter if on else self.before)
            return
        monitoring.register_callback(_TOOL, monitoring.events.INSTRUCTION, self._count)
        monitoring.set_events(_TOOL, monitoring.events.INSTRUCTION if on else 0)

    def _enter(self, frame: FrameType, event: str, argument: Any) -> Any:
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        return self._step

    def _step(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event == "opcode":
            self._count(frame.f_code, frame.f_lasti)
        return self._step

    def _count(self, code: CodeType, offset: int) -> None:
        if offset in loud(code):
            self.left -= 1
            if self.left == 0:
                self._watch(False)
                SIGINT.now  # noqa: B018 - this is what it is for


# Python 3.12 and later do not trace the bytecodes of all functions, but can monitor them.
monitoring: Any = getattr(sys, "monitoring", None)
_TOOL = 4
if monitoring is not None:
    monitoring.use_tool_id(_TOOL, "interruptions")


@dataclass
class Operation:
    """One operation, and what it makes of the store that `fill` gives.

    Attributes:
        work: the operation.
        warm: whether all values are loaded before.
        parts: what makes other states that may be there after an interrupt.
    """

    work: Callable[[Any], Any]
    warm: bool = True
    parts: Sequence[Callable[[Any], Any]] = ()


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


def empty(store: Any) -> None:
    """Do nothing in a transaction."""
    with store.transaction():
        pass


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


def caught(store: Any) -> None:
    """Catch an interrupt of an operation inside a block, and go on in the block."""
    interrupt = None
    try:
        with store.transaction():
            try:
                store["rows"].insert(3, [[7]])
            except KeyboardInterrupt as error:
                interrupt = error
            store["list"].append([9])
    except richstore.ClosedError:
        # the block was undone, and says so
        if interrupt is None:
            raise
    if interrupt is not None:
        raise interrupt


def caught_at_the_end(store: Any) -> None:
    """Catch an interrupt of the last operation inside a block."""
    interrupt = None
    try:
        with store.transaction():
            store["list"].append([9])
            try:
                store["new"] = [1]
                store["table"].update({"a": 1, "b": [2]})
            except KeyboardInterrupt as error:
                interrupt = error
    except richstore.ClosedError:
        if interrupt is None:
            raise
    if interrupt is not None:
        raise interrupt


def caught_in_a_nested_block(store: Any) -> None:
    """Catch an interrupt inside a block inside a block, which then is as if it had not been."""
    interrupt = None
    with store.transaction():
        store["list"].append([9])
        try:
            with store.transaction():
                try:
                    store["rows"].insert(3, [[7]])
                except KeyboardInterrupt as error:
                    interrupt = error
        except richstore.ClosedError:
            if interrupt is None:
                raise
        store["dict"]["x"] = 1
    if interrupt is not None:
        raise interrupt


def fails(store: Any) -> None:
    """Try what raises an error by itself."""
    with contextlib.suppress(ValueError):
        store["rows"].remove("nothing like that")


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
    "empty": Operation(empty),
    "nested": Operation(nested),
    "rolled back": Operation(rolled_back),
    "rolled back by hand": Operation(rolled_back_by_hand),
    "caught": Operation(caught, parts=[lambda store: store["list"].append([9])]),
    "caught, cold": Operation(caught, False, [lambda store: store["list"].append([9])]),
    "caught at the end": Operation(
        caught_at_the_end,
        parts=[
            lambda store: store["list"].append([9]),
            lambda store: store.update(list=[0, [9]], new=[1]),
        ],
    ),
    "caught in a nested block": Operation(
        caught_in_a_nested_block,
        parts=[
            lambda store: store.update(list=[0, [9]], dict={**plain(store["dict"]), "x": 1}),
        ],
    ),
    "fails": Operation(fails),
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
        self.allowed = [self.before, self.after]
        for part in operation.parts:
            with self._open() as store:
                part(store)
                self.allowed.append(contents(store))

    def _open(self) -> Any:
        shutil.copyfile(self.template, self.path)
        Path(f"{self.path}-lock").unlink(missing_ok=True)
        # (looking for network file systems is left out: it reads a long table)
        return richstore.open(self.path, synchronous="off", timeout=1, allow_network=True)

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
                problem = self.problem(store, held, self.allowed)
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
            if not problem and is_open(self.path):
                problem = "the file is still open"
        finally:
            gc.enable()
            sys.unraisablehook = hook
        self.left = interrupt.left
        came = interrupt.left <= 0
        if came and not place:
            problem = problem or "the interrupt was lost"
        return came, problem and f"bytecode {at}, {place}: {problem}"

    def problem(self, store: Any, held: dict[str, Any], allowed: list[Any]) -> str:
        """Return what is wrong with an open store; "" if nothing is."""
        try:
            with time_limit():
                self._check(store, held, allowed)
        except Exception as error:
            return f"{type(error).__name__}: {str(error)[:200]}"
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


@contextlib.contextmanager
def time_limit() -> Iterator[None]:
    """Let what waits for ever fail."""

    def too_long(*_: Any) -> None:
        raise TimeoutError("it waits for ever")

    before = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(30)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def is_open(path: Path) -> bool:
    """Tell whether this process has a file open."""
    fds = [f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd")]
    return str(path) in [os.readlink(fd) for fd in fds if os.path.lexists(fd)]


def place_of(error: BaseException) -> str:
    """Return where an exception was raised."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{Path(frame.filename).name}:{frame.lineno} {frame.name}"


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
    thread.join(30)  # (the store's own timeout is a second)
    assert not thread.is_alive(), "other threads are locked out"
    if failures:
        raise AssertionError(f"in another thread: {failures[0]!r}")


class OpenTrial:
    """Opens and closes a file, each time with an interrupt at another bytecode."""

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self.path = directory / "store"
        for _ in range(2):
            with self._open() as store:
                store["list"] = [0]

    def _open(self) -> Any:
        # (looking for network file systems is left out: it reads a long table)
        return richstore.open(self.path, synchronous="off", timeout=1, allow_network=True)

    def interrupt_at(self, at: int) -> tuple[bool, str]:
        """Return whether there was a bytecode of that number, and what was wrong afterwards."""
        interrupt = Interrupt(at)
        stores: list[Any] = []
        if self.name == "new":
            for name in (self.path, f"{self.path}-lock"):
                Path(name).unlink(missing_ok=True)
        elif self.name == "close":
            stores.append(self._open())
            assert stores[0]["list"]
        place = problem = ""
        try:
            if self.name == "close":
                interrupt.run(lambda: stores[0].close())
            else:
                interrupt.run(lambda: stores.append(self._open()))
        except KeyboardInterrupt as error:
            place = place_of(error)
            problem = self._problem(stores)
        else:
            problem = self._problem(stores)
        gc.collect()
        if not problem and is_open(self.path):
            problem = "the file is still open"
        self.left = interrupt.left
        return interrupt.left <= 0, problem and f"bytecode {at}, {place}: {problem}"

    def _problem(self, stores: list[Any]) -> str:
        try:
            with time_limit(), self._open() as store:
                store["list"] = [0]
                store["list"].append(1)
                in_thread(lambda: store.__setitem__("other", 1))
                assert store["list"] == [0, 1]
                assert store.verify().problems == []
            for one in stores:
                one.close()
        except Exception as error:
            return repr(error)
        return ""


def last_point(trial: Any) -> int:
    """Return how many bytecodes a trial has."""
    trial.interrupt_at(_NEVER)
    return _NEVER - int(trial.left)


_NEVER = 1 << 40


def points(trial: Any, request: pytest.FixtureRequest) -> Iterator[int]:
    """Yield the bytecodes to try: each of them, or a few."""
    if request.config.getoption("--long"):
        yield from itertools.count(1)
    else:
        last = last_point(trial)
        yield from sorted(random.sample(range(1, last + 1), min(TRIED, last)))


def problems_at(trial: Any, numbers: Iterable[int]) -> list[str]:
    """Return what is wrong after interrupts at some bytecodes, up to the last there is."""
    found = []
    for at in numbers:
        came, problem = trial.interrupt_at(at)
        if problem:
            found.append(problem)
        if not came:
            break
    return found


@pytest.fixture(autouse=True)
def _small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paging, "PAGE", 4 * TINY)


@pytest.mark.parametrize("name", OPERATIONS)
def test_interrupted_operation(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """After Ctrl-C at any bytecode the state is the old or the new one, and all goes on."""
    trial = Trial(OPERATIONS[name], tmp_path)
    assert problems_at(trial, points(trial, request)) == []


@pytest.mark.parametrize("name", ["new", "open", "close"])
def test_interrupted_open(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """After Ctrl-C at any bytecode of open() or close() the file can be opened, and is let go."""
    trial = OpenTrial(name, tmp_path)
    assert problems_at(trial, points(trial, request)) == []


def usual_exit(self: Block, kind: Any, error: Any, trace: Any) -> None:
    """End the block from an `__exit__` as classes have it."""
    self.leave(kind is not None)


def lines_without_a_handler(path: Path) -> Iterator[int]:
    """Yield the lines of loops at whose end Python may take an interrupt past its own handlers.

    From Python 3.12 on the jump back of a loop that ends in a condition is in no `with` or `try`.
    """
    todo = [compile(path.read_text(), str(path), "exec")]
    while todo:
        code = todo.pop()
        todo += [one for one in code.co_consts if isinstance(one, CodeType)]
        if code.co_name.startswith("<"):
            # a generator is left by what runs it
            continue
        ranges = dis.Bytecode(code).exception_entries  # type: ignore[attr-defined]
        line = 0
        for instruction in dis.get_instructions(code):
            if instruction.positions is not None and instruction.positions.lineno:
                line = instruction.positions.lineno
            is_jump = instruction.opname == "JUMP_BACKWARD"
            if is_jump and not any(one.start <= instruction.offset < one.end for one in ranges):
                yield line


def lines_with_a_lock(path: Path) -> set[int]:
    """Return the lines that are inside a `with` of a lock."""
    found: set[int] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.With) and node.end_lineno is not None:
            names = {ast.unparse(item.context_expr).rpartition(".")[2] for item in node.items}
            if names & {"lock", "_lock", "_opening"}:
                found.update(range(node.lineno, node.end_lineno + 1))
    return found


@pytest.mark.skipif(sys.version_info < (3, 12), reason="Python 3.11 keeps to its handlers")
def test_no_loop_takes_an_interrupt_past_a_lock() -> None:
    """No function of the library holds a lock in a loop that an interrupt leaves without it."""
    library = Path(richstore.__file__).parent
    found = [
        f"{path.relative_to(library)}:{line}"
        for path in library.rglob("*.py")
        for line in set(lines_without_a_handler(path)) & lines_with_a_lock(path)
    ]
    assert found == []


def release_then_note(self: Transaction) -> None:
    """Free the lock in one call, and note it in another one."""
    if self.held:
        self.tracker.writer_thread = self.tracker.transaction = None
        self.tracker.writer.release()
        self.held.clear()
    self.ended = True


def abort_once(self: LmdbWriteTransaction) -> None:
    """Free the lock only in the call that ends LMDB's transaction."""
    if self.txn is not ENDED:
        self.let_go()
        self._engine.release()


@pytest.mark.may_leak
@pytest.mark.parametrize(
    ("owner", "attribute", "fault", "name"),
    [
        (Block, "__exit__", usual_exit, "empty"),
        (Transaction, "_release", release_then_note, "empty"),
        (LmdbWriteTransaction, "abort", abort_once, "rolled back by hand"),
    ],
    ids=["exit", "release", "abort"],
)
def test_planted_fault_is_found(
    owner: Any,
    attribute: str,
    fault: Any,
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The trial of an operation fails where the library does not expect an interrupt."""
    monkeypatch.setattr(owner, attribute, fault)
    trial = Trial(OPERATIONS[name], tmp_path)
    # each of them fails near the end of its operation
    assert any(trial.interrupt_at(at)[1] for at in range(last_point(trial), 0, -1))
