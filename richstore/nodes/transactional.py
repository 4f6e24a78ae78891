"""`@transactional`: a method of a stored class as one transaction."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from richstore.group_commit import run
from richstore.nodes.base import node_of
from richstore.transaction import current, detached

__all__ = ["transactional"]


def transactional(method: Callable[..., Any]) -> Callable[..., Any]:
    """Make a method of a stored class one transaction.

    Args:
        method: a function whose first argument is the instance.

    Returns:
        The method. On an instance from a store it runs all or nothing; on any other instance as
        ever.

    Example:
        >>> import richstore
        >>> class Account:
        ...     def __init__(self):
        ...         self.balance, self.log = 0, []
        ...     @richstore.transactional
        ...     def deposit(self, amount):
        ...         self.balance += amount
        ...         self.log.append(amount)
        ...         if self.balance < 0:
        ...             raise ValueError("not that much")
        >>> with richstore.open("memory:") as store:
        ...     store["ann"] = Account()
        ...     store["ann"].deposit(5)
        ...     try:
        ...         store["ann"].deposit(-9)
        ...     except ValueError:
        ...         pass
        ...     store["ann"].balance, store["ann"].log
        (5, [5])

    Raises:
        TypeError: the method is a generator or asynchronous.
    """
    # generator, coroutine, asynchronous generator: their bodies run after the call has returned
    if getattr(getattr(method, "__code__", None), "co_flags", 0) & (0x20 | 0x80 | 0x200):
        raise TypeError(
            f"{method.__qualname__} runs on after it has returned, so it cannot be one "
            f"transaction; use `with store.transaction():` inside it"
        )

    @functools.wraps(method)
    def wrapper(self: Any, *arguments: Any, **named: Any) -> Any:
        node = node_of(self)
        if node is None or node.home is None:
            return method(self, *arguments, **named)
        if node.record is None:
            raise detached(node)
        tracker = node.record.tracker
        transaction = current(tracker)
        if transaction is None:
            return run(tracker, tracker.timeout, lambda _: method(self, *arguments, **named))
        with transaction.nested():
            return method(self, *arguments, **named)

    return wrapper
