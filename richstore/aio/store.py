"""Asynchronous stores, the groups and snapshots of them, and `open()`."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Coroutine, Generator
from types import TracebackType
from typing import Any, Generic, Protocol, TypeVar, overload

import richstore
from richstore.aio.core import Core, open_core
from richstore.aio.mapping import Writing
from richstore.aio.snapshot import Snapshot, take

__all__ = ["Group", "Opening", "Store", "open"]

K = TypeVar("K")
V = TypeVar("V")
G = TypeVar("G", bound="Group[Any, Any]")


class _Closing(Protocol):
    async def close(self) -> None: ...

    def _abandon(self) -> None: ...


C = TypeVar("C", bound=_Closing)


class Opening(Generic[C]):
    """What is being opened: for `async with`, which closes it, or `await`, and `close()` later."""

    def __init__(self, make: Callable[[], Coroutine[Any, Any, C]]) -> None:
        self._make = make
        self._opened: C | None = None

    def __await__(self) -> Generator[Any, None, C]:
        return self._make().__await__()

    async def __aenter__(self) -> C:
        self._opened = await self._make()
        return self._opened

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        opened, self._opened = self._opened, None
        if opened is None:
            return
        if kind is GeneratorExit:
            # the task is gone, and nothing can be awaited
            opened._abandon()
            return
        await opened.close()


def open(
    target: Any, flag: str = "c", *, timeout: float | None = None, **options: Any
) -> Opening[Store]:
    """Open a store for asyncio: one file, made if it is missing.

    Args:
        target: the path of the file, or `"memory:"`.
        flag: as for `richstore.open`.
        timeout: seconds that a writer waits for the one before it, here and in other processes;
            None waits forever.
        options: all others of `richstore.open`.

    Returns:
        For `async with aio.open(…) as store:`, or `store = await aio.open(…)` and, in the end,
        `await store.close()`.

    Raises:
        LockTimeoutError: a new file could not be made in time, as another process was writing.
        OSError: the path cannot be opened; this and all else as `richstore.open`.

    Example:
        >>> import asyncio
        >>> from richstore import aio
        >>> async def main():
        ...     async with aio.open("memory:") as store:
        ...         await store.set("shops", ["shop1"])
        ...         async with store.transaction() as tx:
        ...             tx["shops"].append("shop2")
        ...         return await store.get("shops")
        >>> asyncio.run(main())
        ['shop1', 'shop2']
    """

    async def make() -> Store:
        return Store(await open_core(target, flag, timeout, options))

    return Opening(make)


class _HasGroups(Writing[K, V]):
    """A mapping that groups are in."""

    @overload
    def group(self, name: str) -> Group[Any, Any]: ...
    @overload
    def group(self, name: str, kind: type[G]) -> G: ...

    def group(self, name: str, kind: Any = None) -> Any:
        """Return a mapping of its own inside this one; the first value makes the group.

        Args:
            name: what it is called.
            kind: the class of the result, a subclass of `Group`, by which its types are known.
        """
        return (Group if kind is None else kind)(self, name)


class Store(_HasGroups[Any, Any]):
    """A store whose methods are awaited; the event loop never waits for the disk or a lock.

    Made by `richstore.aio.open()`. Reads run in a few threads, changes in one, in the order in
    which they came. It can be used by many tasks, and by the loops of several threads.

    A task that is cancelled while it waits for another writer has changed nothing. What is being
    committed by then ends first, and the task is cancelled afterwards.
    """

    def __init__(self, core: Core) -> None:
        self._core = self._source = core

    @property
    def path(self) -> str:
        """The absolute path of the file, or `memory:`."""
        return self._core.store.path

    @property
    def closed(self) -> bool:
        """Whether the store has been closed."""
        return self._core.closed

    @property
    def sync(self) -> richstore.Store:
        """The ordinary store, for other threads: `asyncio.to_thread(store.sync.verify)`.

        In the thread of the loop it blocks, as everywhere.
        """
        self._core.check()
        return self._core.store

    def snapshot(self, *, max_age: float | None = None) -> Opening[Snapshot]:
        """Return a read-only view of the last committed state, for `async with`.

        Args:
            max_age: seconds after which it is ended if it is still open; None: never.

        Example:
            >>> import asyncio
            >>> from richstore import aio
            >>> async def main():
            ...     async with aio.open("memory:") as store:
            ...         await store.set("n", 1)
            ...         async with store.snapshot() as view:
            ...             await store.set("n", 2)
            ...             return await view.get("n"), await store.get("n")
            >>> asyncio.run(main())
            (1, 2)
        """

        async def make() -> Snapshot:
            return Snapshot(await take(self._core, max_age))

        return Opening(make)

    async def close(self) -> None:
        """Let transactions, queued changes and reads end, and close the file; calling it again does
        nothing.

        Raises:
            RuntimeError: the task is inside a transaction of the store.
        """
        await self._core.close()

    def _abandon(self) -> None:
        self._core.abandon()

    def __repr__(self) -> str:
        return f"<richstore.aio.Store {self.path!r}{' (closed)' if self.closed else ''}>"

    def __del__(self) -> None:
        core: Core | None = getattr(self, "_core", None)
        if core is not None and not (core.closed or core.store.closed):
            core.abandon()
            warnings.warn(f"unclosed store {core.store.path}", ResourceWarning, stacklevel=2)


class Group(_HasGroups[K, V], Generic[K, V]):
    """A mapping of its own inside an asynchronous store, with the same methods.

    Made by `group(name)`. A subclass knows its types: `class Ages(aio.Group[str, int])`,
    `store.group("ages", Ages)` or `Ages(store, "ages")`.

    Args:
        parent: the store or group that it is in.
        name: what it is called there.
    """

    def __init__(self, parent: _HasGroups[Any, Any], name: str) -> None:
        if not isinstance(name, str):
            raise TypeError(f"the name of a group must be a str, not {type(name).__name__}")
        self._core = self._source = parent._core
        self._path = (*parent._path, name)
        store = parent.store if isinstance(parent, Group) else parent
        assert isinstance(store, Store)
        self._store = store

    @property
    def name(self) -> str:
        """What it is called."""
        return self._path[-1]

    @property
    def path(self) -> tuple[str, ...]:
        """The names that lead to it from the store."""
        return self._path

    @property
    def store(self) -> Store:
        """The store that it is in."""
        return self._store

    async def drop(self) -> None:
        """Remove it, with all groups inside."""
        await self._change(lambda group: group.drop())

    def __repr__(self) -> str:
        closed = " (closed)" if self._core.closed else ""
        return f"<richstore.aio.Group {self._path!r} of {self._core.store.path!r}{closed}>"
