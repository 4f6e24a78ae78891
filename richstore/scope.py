"""Blocks of `with` statements that end, whenever Ctrl-C comes.

Python looks for signals when a function begins. An `__exit__` that is interrupted there has done
nothing and is not called again, and the traceback keeps its frame and so the block, which would
stay open and take in whatever is done next. So what the `with` statement gets as `__exit__` is a
call of C that has the only reference to a guard. The statement lets go of it in any case, and what
has not been left by then is undone.
"""

from __future__ import annotations

import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Any

__all__ = ["Scope"]

Exit = Callable[[type[BaseException] | None, BaseException | None, TracebackType | None], None]


class _Guard:
    """Undoes what a `with` statement has begun and not left; dropped with its `__exit__`."""

    __slots__ = ("__weakref__", "depth", "scope")

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.depth = scope.depth

    def __del__(self) -> None:
        self.scope.undo_to(self.depth)


def _leave(guard: weakref.ref[_Guard], kind: Any, error: Any, traceback: Any) -> None:
    # no name for it here: the traceback would keep what it stands for
    guard().scope.leave(kind is not None)  # type: ignore[union-attr]


class _Exit:
    """The attribute `__exit__` of scopes."""

    def __get__(self, scope: Any, owner: type) -> Exit:
        if scope is None:
            # `contextlib.ExitStack` asks the class
            return lambda scope, kind, error, traceback: scope.leave(kind is not None)  # type: ignore
        guard = _Guard(scope)
        leave = partial(_leave, weakref.ref(guard))
        leave.__dict__["guard"] = guard
        return leave


class Scope(ABC):
    """The base of context managers that begin in `__enter__` and end in `leave`."""

    __slots__ = ("__weakref__",)

    __exit__ = _Exit()

    @property
    @abstractmethod
    def depth(self) -> int:
        """How many `with` statements are inside it."""

    @abstractmethod
    def leave(self, failed: bool) -> None:
        """End the innermost: keep what was done in it, or undo it when it has failed.

        An exception in it may leave the rest of its work to `undo_to`.
        """

    @abstractmethod
    def undo_to(self, depth: int) -> None:
        """Undo and end all that are deeper; do nothing when there are none."""
