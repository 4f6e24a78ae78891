"""Groups: mappings of their own inside a store.

A group is a path of names. Where its values are is looked up each time (`spaces`), so that a handle
on a group shows what other processes make of it, and is worth nothing to close.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar, get_origin, overload

from richstore.collection import MISSING, Collection
from richstore.errors import ClosedError
from richstore.mapping import K, V
from richstore.spaces import (
    NOWHERE,
    Space,
    cells_in,
    find,
    group_form,
    group_name,
    names_in,
    place_of,
    read_space,
    space_in,
)
from richstore.transaction import Transaction, current

if TYPE_CHECKING:
    from richstore.block import Block
    from richstore.store import Store

__all__ = ["Group", "HasGroups"]

G = TypeVar("G", bound="Group[Any, Any]")


class HasGroups(Collection[K, V]):
    """A collection that groups are in: a store, or another group."""

    @overload
    def group(self, name: str) -> Group[Any, Any]: ...
    @overload
    def group(self, name: str, kind: type[G]) -> G: ...

    def group(self, name: str, kind: Any = None) -> Any:
        """Return a mapping of its own inside this one; the first value makes the group.

        Args:
            name: what it is called; groups of other names, and the keys beside it, have nothing to
                do with it.
            kind: the class of the result, a subclass of `Group`, by which its types are known.

        Raises:
            TypeError: the name is no str, or `kind` is no such class.
            ValueError: the name is too long.

        Example:
            >>> import richstore
            >>> with richstore.open("memory:") as store:
            ...     users = store.group("users")
            ...     users["alice", 7] = {"langs": ["en"]}
            ...     users["alice", 7]["langs"].append("de")
            ...     list(users.items(prefix=("alice",))), list(store), store.groups()
            ([(('alice', 7), {'langs': ['en', 'de']})], [], ['users'])
        """
        made = Group if kind is None else kind
        origin = get_origin(made) or made
        if not (isinstance(origin, type) and issubclass(origin, Group)):
            raise TypeError(f"kind must be a subclass of Group, not {kind!r}")
        return made(self, name)

    def groups(self) -> list[str]:
        """Return the names of the groups in this mapping, in order."""
        if self._closed:
            raise self._closed_error()
        tracker = self._tracker
        transaction = current(tracker)
        if transaction is not None and not transaction.ended:
            number = self._number(transaction.cell)
            if number is None:
                return []
            return names_in(number, transaction.engine, transaction.cells)
        with tracker.lock, tracker.view() as view:
            number = self._number(lambda name: read_space(name, view.get(name)))
            return [] if number is None else names_in(number, view)

    def _number(self, cell: Callable[[bytes], Space | None]) -> int | None:
        """Return the id of this group, 0 for the store; None when it is not there."""
        space = find(self._forms, cell)
        return space.id if space is not None else None if self._forms else 0

    _store: Store
    # the names that lead to it, and their forms
    _path: tuple[str, ...] = ()
    _forms: tuple[bytes, ...] = ()


class Group(HasGroups[K, V], Generic[K, V]):
    """A mapping of its own inside a store: keys, order, ranges and length are its own.

    Made by `Store.group()`. It has every method that a `Store` has as a mapping; transactions and
    snapshots are those of the store, and hold for all its groups. Groups may be in groups. A group
    is there from its first value on until `drop()`. Safe to use from many threads and tasks.

    Args:
        parent: the store, or the group, that it is in.
        name: what it is called there.

    Example:
        >>> import richstore
        >>> class Ages(richstore.Group[str, int]):
        ...     pass
        >>> with richstore.open("memory:") as store:
        ...     ages = store.group("ages", Ages)
        ...     ages["alice"] = 41
        ...     with store.transaction():
        ...         ages["alice"] += 1
        ...         store["changed"] = ["alice"]
        ...     ages, store
        (<richstore.Group ('ages',) of 'memory:'>, <richstore.Store 'memory:'>)
    """

    def __init__(self, parent: HasGroups[Any, Any], name: str) -> None:
        form = group_form(name)
        self._parent = parent
        self._store = parent._store
        self._tracker = parent._tracker
        self._forms = (*parent._forms, form)
        self._path = (*parent._path, str(name))
        self._place = place_of(self._path)

    @property
    def name(self) -> str:
        """What it is called in the store, or in the group that it is in."""
        return self._path[-1]

    @property
    def path(self) -> tuple[str, ...]:
        """The names that lead to it."""
        return self._path

    @property
    def store(self) -> Store:
        """The store it is in."""
        return self._store

    @property
    def parent(self) -> HasGroups[Any, Any]:
        """The store, or the group, that it is in."""
        return self._parent

    # --- as a collection ---

    @property
    def _closed(self) -> bool:  # type: ignore[override]
        return self._store._closed

    @property
    def _reveal(self) -> bool:  # type: ignore[override]
        return self._store._reveal

    def _closed_error(self) -> ClosedError:
        return self._store._closed_error()

    def _check_writable(self) -> None:
        self._store._check_writable()

    def _run(self, work: Any, is_plain: Callable[[], bool] | None = None) -> Any:
        return self._store._run(work, is_plain)

    @property
    def _space(self) -> bytes:
        tracker = self._tracker
        if self._closed:
            raise self._closed_error()
        transaction = current(tracker)
        if transaction is None or transaction.ended:
            tracker.refresh()
            space = find(self._forms, tracker.cell)
        else:
            space = find(self._forms, transaction.cell)
        return NOWHERE if space is None else space.prefix

    def _space_in(self, view: Any, transaction: Transaction | None) -> bytes:
        if transaction is None:
            space = space_in(view, self._forms)
        else:
            space = find(self._forms, transaction.cell)
        return NOWHERE if space is None else space.prefix

    def _get(self, form: bytes) -> Any:
        while True:
            space = self._space
            value = self._read(space + form)
            # it may have been cleared between, and filled again
            if value is not MISSING or self._space == space:
                return value

    def _has(self, form: bytes) -> bool:
        while True:
            space = self._space
            if super()._has(form):
                return True
            if self._space == space:
                return False

    def __len__(self) -> int:
        if self._closed:
            raise self._closed_error()
        tracker = self._tracker
        transaction = current(tracker)
        if transaction is not None and not transaction.ended:
            space = find(self._forms, transaction.cell)
            stored = None if space is None else transaction.entry(space.counter)
        else:
            with tracker.lock, tracker.view() as view:
                space = space_in(view, self._forms)
                stored = None if space is None else view.get(space.counter)
        return int.from_bytes(stored or b"", "little")

    # --- changing ---

    def _assign(self, transaction: Transaction, key: Any, form: bytes, value: Any) -> None:
        if find(self._forms, transaction.cell) is not None:
            super()._assign(transaction, key, form, value)
            return
        # a value that cannot be stored makes no group
        with transaction.nested():
            self._make(transaction)
            super()._assign(transaction, key, form, value)

    def _make(self, transaction: Transaction) -> None:
        """Make the group, and those that it is in."""
        transaction.check_changing()
        parent = 0
        for form in self._forms:
            cell = group_name(parent, form)
            space = transaction.cell(cell)
            if space is None:
                number = transaction.tracker.number
                space = Space(cell, number(), number())
                transaction.set_cell(cell, space)
                transaction.set_cell(space.counter, bytes(8))
            parent = space.id

    def clear(self) -> None:
        """Remove all items, however many, in a short transaction; the groups in it stay.

        What was there is deleted bit by bit by later writes.
        """

        def work(transaction: Transaction) -> None:
            space = find(self._forms, transaction.cell)
            if space is None or not len(self):
                return
            transaction.leave_space(space)
            new = Space(space.cell, space.id, transaction.tracker.number())
            transaction.set_cell(new.cell, new)
            transaction.set_cell(new.counter, bytes(8))

        self._run(work)

    def drop(self) -> None:
        """Remove the group, with all that is in it and in the groups inside of it.

        Using it again makes a new one.

        Example:
            >>> import richstore
            >>> with richstore.open("memory:") as store:
            ...     users = store.group("users")
            ...     users["alice"] = 1
            ...     users.drop()
            ...     store.groups(), len(users)
            ([], 0)
        """

        def work(transaction: Transaction) -> None:
            space = find(self._forms, transaction.cell)
            # all are found before any is dropped: a cell may be damaged
            spaces = [] if space is None else [space]
            for space in spaces:
                cells = cells_in(space.id, transaction.engine, transaction.cells)
                spaces += filter(None, map(transaction.cell, cells))
            for space in spaces:
                transaction.leave_space(space)
                transaction.set_cell(space.cell, None)

        self._run(work)

    def transaction(
        self,
        *,
        timeout: float | None = MISSING,
        progress: Callable[[int, int], Any] | None = None,
    ) -> Block:
        """Return a transaction of the store, as `Store.transaction` does: of all its groups."""
        if timeout is MISSING:
            return self._store.transaction(progress=progress)
        return self._store.transaction(timeout=timeout, progress=progress)

    def __repr__(self) -> str:
        closed = " (closed)" if self._closed else ""
        return f"<richstore.Group {self._path!r} of {self._store.path!r}{closed}>"
