"""A transaction that one thread begins, another one works in, and the first one ends."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import richstore

pytestmark = [pytest.mark.timeout(60), pytest.mark.usefixtures("page")]


class Beginner(threading.Thread):
    """The thread that begins the transaction, and does in it what it is handed."""

    def __init__(self, store: Any) -> None:
        super().__init__(daemon=True)
        self.store = store
        self.jobs: queue.SimpleQueue[tuple[Callable[[], Any], queue.SimpleQueue[Any]] | None] = (
            queue.SimpleQueue()
        )
        self.start()

    def run(self) -> None:
        while (job := self.jobs.get()) is not None:
            function, answer = job
            try:
                answer.put((None, function()))
            except Exception as error:
                answer.put((error, None))

    def call(self, function: Callable[[], Any]) -> Any:
        answer: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.jobs.put((function, answer))
        error, value = answer.get(timeout=30)
        if error is not None:
            raise error
        return value

    def begin(self) -> richstore.Transaction:
        """Begin a transaction that the calling thread is in afterwards."""
        caller = threading.get_ident()

        def begin() -> richstore.Transaction:
            self.block = self.store.transaction()
            transaction = self.block.__enter__()
            transaction.hand_over(caller, None, self.call)
            return transaction

        transaction: richstore.Transaction = self.call(begin)
        transaction.take_over()
        return transaction

    def end(self, transaction: richstore.Transaction, failed: bool = False) -> None:
        """Commit it, or undo it."""
        transaction.hand_over(self.ident or 0)

        def end() -> None:
            transaction.take_over()
            self.block.leave(failed)

        self.call(end)


@pytest.fixture
def beginner(store: Any) -> Iterator[Beginner]:
    """A thread that begins transactions on the store."""
    thread = Beginner(store)
    yield thread
    thread.jobs.put(None)
    thread.join(30)


@pytest.mark.parametrize("failed", [False, True])
def test_another_thread_works_in_it(store: Any, beginner: Beginner, failed: bool) -> None:
    """All that was changed in the other thread is committed together, or undone together."""
    store["a"] = [1]
    held = store["a"]
    transaction = beginner.begin()
    held.append(2)
    store["large"] = [{"n": n} for n in range(3000)]
    with store.transaction():
        store["b"] = {}
    assert beginner.call(lambda: list(held)) == [1]
    beginner.end(transaction, failed)
    assert held == ([1] if failed else [1, 2])
    assert list(store) == (["a"] if failed else ["a", "b", "large"])
    held.append(3)


def test_an_abort_in_the_other_thread_frees_the_lock(store: Any, beginner: Beginner) -> None:
    """The thread that works in it can undo it, and others can write before it is handed back."""
    store["a"] = [1]
    transaction = beginner.begin()
    store["a"].append(2)
    transaction.abort()
    assert store["a"] == [1]
    assert beginner.call(lambda: store["a"].append(3)) is None
    beginner.end(transaction, failed=True)
    assert store["a"] == [1, 3]


def test_a_change_outside_of_it_does_not_wait_for_its_own_thread(
    store: Any, beginner: Beginner
) -> None:
    """Before it is taken over a change in its thread-to-be raises, and does not wait for ever."""
    store["a"] = [1]
    caller = threading.get_ident()

    def begin() -> richstore.Transaction:
        beginner.block = store.transaction()
        transaction: richstore.Transaction = beginner.block.__enter__()
        transaction.hand_over(caller, None, beginner.call)
        return transaction

    transaction = beginner.call(begin)
    with pytest.raises(richstore.LockTimeoutError):
        store["a"].append(2)
    transaction.take_over()
    store["a"].append(3)
    beginner.end(transaction)
    assert store["a"] == [1, 3]


@pytest.mark.parametrize("synchronous", ["off", "full"])
def test_who_waits_already_is_told(path: str, synchronous: str) -> None:
    """A thread that waits for a lock when the transaction becomes its own does not wait for ever.

    With "full" it waits in the queue for a common commit.
    """
    with richstore.open(path, synchronous=synchronous) as store:
        store["a"] = 1
        beginner = Beginner(store)
        begun, about_to_wait = threading.Event(), threading.Event()
        caller = threading.get_ident()
        answer: queue.SimpleQueue[Any] = queue.SimpleQueue()

        def begin() -> richstore.Transaction:
            beginner.block = store.transaction()
            transaction = beginner.block.__enter__()
            begun.set()
            about_to_wait.wait(30)
            # the test holds as well when it was faster than the other one
            threading.Event().wait(0.05)
            transaction.hand_over(caller, None, beginner.call)
            return transaction

        beginner.jobs.put((begin, answer))
        assert begun.wait(30)
        about_to_wait.set()
        with pytest.raises(richstore.LockTimeoutError, match="another asyncio task"):
            store["a"] = 2
        _, transaction = answer.get(timeout=30)
        transaction.take_over()
        store["a"] = 3
        beginner.end(transaction)
        beginner.jobs.put(None)
        beginner.join(30)
        assert store["a"] == 3


def test_the_timeout_can_be_changed(store: Any, beginner: Beginner) -> None:
    """The timeout that is set holds for the changes that follow, through values too."""
    store["a"] = [1]
    assert store.timeout is None
    store.timeout = 0.01
    assert store.timeout == 0.01
    entered = beginner.call(lambda: (block := store.transaction(), block.__enter__())[0])
    for change in (lambda: store["a"].append(2), lambda: store.update(b=1)):
        with pytest.raises(richstore.LockTimeoutError):
            change()
    beginner.call(lambda: entered.leave(True))
    assert store["a"] == [1]
