"""What a task changes values in inside a block: the store or group, live."""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, KeysView, MutableMapping, ValuesView
from typing import Any, TypeVar

import richstore
from richstore import ClosedError

__all__ = ["Transaction"]

K = TypeVar("K")
V = TypeVar("V")


class Transaction(MutableMapping[K, V]):
    """What `async with store.transaction() as tx:` gives: the store or group, with live values.

    A mapping as the ordinary `richstore.Store` is. Values are read and changed in place, by the
    task of the block alone; nothing waits for the disk but the end of the block.

    Example:
        >>> import asyncio
        >>> from richstore import aio
        >>> async def main():
        ...     async with aio.open("memory:") as store:
        ...         async with store.transaction() as tx:
        ...             tx["shops"] = ["shop1"]
        ...             tx["shops"].append("shop2")
        ...             tx.group("users")["ann"] = {"age": 41}
        ...         return await store.get("shops"), await store.group("users").keys()
        >>> asyncio.run(main())
        (['shop1', 'shop2'], ['ann'])
    """

    def __init__(self, transaction: richstore.Transaction, mapping: Any) -> None:
        self._transaction = transaction
        self._mapping = mapping

    def _live(self) -> Any:
        """Return the mapping, if the caller is in the transaction."""
        if self._transaction.left or not self._transaction.is_here():
            raise ClosedError(
                "this transaction has ended, or belongs to another task; use it inside its block, "
                "and what else needs it, get() and set() of the store"
            )
        return self._mapping

    def __getitem__(self, key: K) -> V:
        value: V = self._live()[key]
        return value

    def __setitem__(self, key: K, value: V) -> None:
        self._live()[key] = value

    def __delitem__(self, key: K) -> None:
        del self._live()[key]

    def __iter__(self) -> Iterator[K]:
        return iter(self._live())

    def __reversed__(self) -> Iterator[K]:
        keys: Iterator[K] = reversed(self._live())
        return keys

    def __len__(self) -> int:
        return len(self._live())

    def __contains__(self, key: object) -> bool:
        return key in self._live()

    def keys(
        self, start: Any = None, stop: Any = None, *, prefix: Any = None, reverse: bool = False
    ) -> KeysView[K]:
        """Return a view of the keys, or of a range of them, as `richstore.Store.keys` does."""
        view: KeysView[K] = self._live().keys(start, stop, prefix=prefix, reverse=reverse)
        return view

    def items(
        self, start: Any = None, stop: Any = None, *, prefix: Any = None, reverse: bool = False
    ) -> ItemsView[K, V]:
        """Return a view of the items; the arguments are those of `keys`."""
        view: ItemsView[K, V] = self._live().items(start, stop, prefix=prefix, reverse=reverse)
        return view

    def values(
        self, start: Any = None, stop: Any = None, *, prefix: Any = None, reverse: bool = False
    ) -> ValuesView[V]:
        """Return a view of the values; the arguments are those of `keys`."""
        view: ValuesView[V] = self._live().values(start, stop, prefix=prefix, reverse=reverse)
        return view

    def clear(self) -> None:
        """Remove all items; groups inside stay."""
        self._live().clear()

    def group(self, name: str) -> Transaction[Any, Any]:
        """Return a group inside this mapping, in the same transaction."""
        return Transaction(self._transaction, self._live().group(name))

    def groups(self) -> list[str]:
        """Return the names of the groups in this mapping, in order."""
        names: list[str] = self._live().groups()
        return names

    def abort(self) -> None:
        """Undo everything; what follows in the block may read, but not change anything."""
        self._live()
        self._transaction.abort()

    def savepoint(self) -> Any:
        """Return a point that `rollback_to` can go back to."""
        self._live()
        return self._transaction.savepoint()

    def rollback_to(self, savepoint: Any) -> None:
        """Undo all changes since `savepoint`, which stays valid."""
        self._live()
        self._transaction.rollback_to(savepoint)

    def __repr__(self) -> str:
        return f"<richstore.aio.Transaction on {self._mapping!r}>"
