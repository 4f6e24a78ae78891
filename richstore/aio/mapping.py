"""What asynchronous stores, groups and snapshots have in common: reading, changing, one item.

Each method is one call of the ordinary mapping, in a thread. What it gives is plain data.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, Generic, TypeVar, overload

from richstore import plain
from richstore.aio.block import Block
from richstore.aio.core import Core, Source, resolve
from richstore.aio.rows import Rows

__all__ = ["Item", "ReadItem", "Reading", "Writing"]

K = TypeVar("K")
V = TypeVar("V")
D = TypeVar("D")
T = TypeVar("T")

# What is returned for a value that is not there, and stands for a timeout that was not given.
_MISSING: Any = object()


class Reading(Generic[K, V]):
    """A mapping that is read with `await`; values are plain copies, which belong to the caller."""

    _source: Source
    _path: tuple[str, ...] = ()

    # `in` and loops would fall back on `[]`, which gives an item for every key
    __contains__ = None
    __iter__ = None

    async def _read(self, function: Callable[[Any], T]) -> T:
        path = self._path
        return await self._source.read(lambda mapping: function(resolve(mapping, path)))

    def __getitem__(self, key: K) -> ReadItem[K, V]:
        return ReadItem(self, key)

    @overload
    async def get(self, key: K) -> V | None: ...
    @overload
    async def get(self, key: K, default: V | D) -> V | D: ...

    async def get(self, key: Any, default: Any = None) -> Any:
        """Return the value under `key` as plain data, or `default`."""

        def read(mapping: Any) -> Any:
            value = mapping.get(key, _MISSING)
            return value if value is _MISSING else plain(value)

        value = await self._read(read)
        return default if value is _MISSING else value

    async def contains(self, key: object) -> bool:
        """Tell whether there is a value under `key`."""
        return await self._read(lambda mapping: key in mapping)

    async def len(self) -> int:
        """Return the number of values; what is in groups is not counted."""
        return await self._read(len)

    def keys(
        self, start: Any = None, stop: Any = None, *, prefix: Any = None, reverse: bool = False
    ) -> Rows[K]:
        """Return the keys in order, or a range of them: for `async for`, or `await` for a list.

        Args:
            start: the least key, inclusive; None: from the first.
            stop: the end, exclusive; None: to the last.
            prefix: only keys that begin with this str, bytes or tuple.
            reverse: from the last to the first.
        """
        return self._rows("keys", start, stop, prefix, reverse)

    def values(
        self, start: Any = None, stop: Any = None, *, prefix: Any = None, reverse: bool = False
    ) -> Rows[V]:
        """Return the values in the order of their keys; the arguments are those of `keys`."""
        return self._rows("values", start, stop, prefix, reverse)

    def items(
        self, start: Any = None, stop: Any = None, *, prefix: Any = None, reverse: bool = False
    ) -> Rows[tuple[K, V]]:
        """Return keys and values; the arguments are those of `keys`.

        Example:
            >>> import asyncio
            >>> from richstore import aio
            >>> async def main():
            ...     async with aio.open("memory:") as store:
            ...         await store.update({("ann", 1): "a", ("ann", 2): "b", ("bob", 1): "c"})
            ...         async for key, value in store.items(prefix=("ann",)):
            ...             print(key, value)
            >>> asyncio.run(main())
            ('ann', 1) a
            ('ann', 2) b
        """
        return self._rows("items", start, stop, prefix, reverse)

    def _rows(self, kind: str, start: Any, stop: Any, prefix: Any, reverse: bool) -> Rows[Any]:
        bounds = {"start": start, "stop": stop, "prefix": prefix, "reverse": reverse}
        return Rows(self._source, self._path, kind, bounds)

    async def read(self, function: Callable[[Any], T]) -> T:
        """Call `function(mapping)` in a thread and return what it returns, as plain data.

        For a part of a large value, or several values at once: `mapping` is the ordinary store,
        group or snapshot. It must not change anything.

        Args:
            function: an ordinary function; it is not waited for when the task is cancelled.
        """
        return await self._read(lambda mapping: plain(function(mapping)))

    async def groups(self) -> list[str]:
        """Return the names of the groups in this mapping, in order."""
        return await self._read(lambda mapping: mapping.groups())


class Writing(Reading[K, V]):
    """A mapping that is read and changed with `await`.

    Each change is durable when it returns, as that of the ordinary mapping is. Changes of several
    tasks share a commit. Inside `async with transaction()` they belong to the transaction.

    The value that is handed in is stored by another thread: leave it alone until the call returns.
    """

    _core: Core

    async def _change(self, function: Callable[[Any], T], *, alone: bool = False) -> T:
        path, core = self._path, self._core
        return await core.change(
            lambda store: function(resolve(store, path)), core.timeout, alone=alone
        )

    def __getitem__(self, key: K) -> Item[K, V]:
        return Item(self, key)

    async def set(self, key: K, value: V) -> None:
        """Put a value under `key`.

        Raises:
            EncodingError: the value cannot be stored.
            LockTimeoutError: others were writing for longer than the timeout of the store.
        """
        await self._change(lambda mapping: mapping.__setitem__(key, value))

    async def delete(self, key: K) -> None:
        """Remove the value under `key`.

        Raises:
            KeyError: there is none.
        """
        await self._change(lambda mapping: mapping.__delitem__(key))

    @overload
    async def pop(self, key: K) -> V: ...
    @overload
    async def pop(self, key: K, default: V | D) -> V | D: ...

    async def pop(self, key: Any, default: Any = _MISSING) -> Any:
        """Remove `key` and return its value, or `default` when there is none.

        Raises:
            KeyError: there is no such key, and no default.
        """
        if default is _MISSING:
            return await self._change(lambda mapping: mapping.pop(key))
        value = await self._change(lambda mapping: mapping.pop(key, _MISSING))
        return default if value is _MISSING else value

    async def popitem(self) -> tuple[K, V]:
        """Remove the last item in key order and return it.

        Raises:
            KeyError: there are none.
        """
        return await self._change(lambda mapping: mapping.popitem())

    async def setdefault(self, key: K, default: Any = None) -> V:
        """Return the value under `key`, which becomes `default` when there is none."""
        return await self._change(lambda mapping: plain(mapping.setdefault(key, default)))

    async def update(self, *others: Any, **named: Any) -> None:
        """Set many items: all of them, or on an error none.

        Args:
            others: at most one mapping or iterable of pairs.
            named: items whose keys are str.
        """
        await self._change(lambda mapping: mapping.update(*others, **named))

    async def clear(self) -> None:
        """Remove all items; groups inside stay."""
        await self._change(lambda mapping: mapping.clear())

    async def write(self, function: Callable[[Any], T]) -> T:
        """Call `function(mapping)` in the thread that writes, as one transaction.

        For changes that take long, or need no block: `mapping` is the ordinary store or group, its
        values are live, and all is undone when the function raises.

        Args:
            function: an ordinary function.

        Returns:
            What it returned, as plain data.

        Example:
            >>> import asyncio
            >>> from richstore import aio
            >>> async def main():
            ...     async with aio.open("memory:") as store:
            ...         await store.set("numbers", [3, 1, 2])
            ...         await store.write(lambda store: store["numbers"].sort())
            ...         return await store.get("numbers")
            >>> asyncio.run(main())
            [1, 2, 3]
        """
        return await self._change(lambda mapping: plain(function(mapping)), alone=True)

    def transaction(
        self,
        *,
        timeout: float | None = _MISSING,
        progress: Callable[[int, int], Any] | None = None,
    ) -> Block[K, V]:
        """Return a block for `async with`: what changes inside is committed together, or not.

        The end of the block waits for the commit. On any exception everything is as before, and it
        goes on. Inside another block of the same task it is a savepoint.

        Args:
            timeout: seconds to wait for other writers; by default those of the store.
            progress: as for `richstore.Store.transaction`.

        Raises:
            LockTimeoutError: other writers did not end in time.
            ReadOnlyError: the store is open for reading only.
        """
        seconds = self._core.timeout if timeout is _MISSING else timeout
        return Block(self._core, self._path, seconds, progress)


class ReadItem(Generic[K, V]):
    """The place of one key in a mapping: `await item` gives its value, or raises `KeyError`."""

    def __init__(self, mapping: Reading[K, V], key: K) -> None:
        self._mapping = mapping
        self.key = key

    @overload
    async def get(self) -> V | None: ...
    @overload
    async def get(self, default: V | D) -> V | D: ...

    async def get(self, default: Any = None) -> Any:
        """Return the value, or `default` when there is none."""
        return await self._mapping.get(self.key, default)

    async def exists(self) -> bool:
        """Tell whether there is a value."""
        return await self._mapping.contains(self.key)

    def __await__(self) -> Generator[Any, None, V]:
        return self._value().__await__()

    async def _value(self) -> V:
        value = await self._mapping.get(self.key, _MISSING)
        if value is _MISSING:
            raise KeyError(self.key)
        return value

    def __repr__(self) -> str:
        return f"{self._mapping!r}[{self.key!r}]"


class Item(ReadItem[K, V]):
    """The place of one key in a mapping that can be changed.

    Example:
        >>> import asyncio
        >>> from richstore import aio
        >>> async def main():
        ...     async with aio.open("memory:") as store:
        ...         ages = store.group("ages")
        ...         await ages["ann", "now"].set(41)
        ...         return await ages["ann", "now"], await ages["bob", "now"].get(0)
        >>> asyncio.run(main())
        (41, 0)
    """

    _mapping: Writing[K, V]

    def __init__(self, mapping: Writing[K, V], key: K) -> None:
        super().__init__(mapping, key)

    async def set(self, value: V) -> None:
        """Put a value there."""
        await self._mapping.set(self.key, value)

    async def clear(self) -> None:
        """Remove the value, if there is one."""
        await self._mapping.pop(self.key, None)
