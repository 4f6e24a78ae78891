"""Where results are kept: in a store or group, in any other mapping, or in memory.

What is kept is an *entry*: a dict with the time under `at`, and the result under `returned` or the
exception under `raised`. It is one value of a store, so it is there as a whole or not at all.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import MutableMapping
from typing import Any, Protocol

from richstore.block import in_transaction
from richstore.documents import Document
from richstore.errors import DetachedError, OrderError
from richstore.groups import Group
from richstore.nodes import is_tracked, plain
from richstore.opening import open
from richstore.remembered.claims import Where
from richstore.store import Store

__all__ = [
    "Entry",
    "GroupPlace",
    "Key",
    "MappingPlace",
    "MemoryPlace",
    "Place",
    "StoreFile",
    "target_of",
]

Key = tuple[Any, ...]
Entry = dict[str, Any]
# In a store, the group that has a group for each function.
_GROUP = "persisted"


class Place(Protocol):
    """Where the results of one function are."""

    claims: Where
    """Where claims on them are made; see `claims`."""
    waits: bool
    """Whether using it may take its time, so that an event loop should not."""

    def is_busy(self) -> bool:
        """Tell whether the caller is in a transaction there, which others wait for."""

    def get(self, key: Key) -> Entry | None:
        """Return what is kept for a call."""

    def set(self, key: Key, entry: Entry) -> None:
        """Keep it."""

    def remove(self, key: Key) -> None:
        """Forget it, if it is there."""

    def clear(self, first: Key) -> None:
        """Forget all, or if `first` is not empty that whose key begins with it."""


class GroupPlace:
    """The results of one function in a group of its own.

    Args:
        target: a store or group.
        name: of the function.
        live: whether to give out the stored values themselves, and no copies of them.
    """

    waits = True

    def __init__(self, target: Store | Group[Any, Any], name: str, *, live: bool) -> None:
        if isinstance(target, Store):
            target = target.group(_GROUP)
        self.group = target.group(name)
        self.live = live
        path = self.group.store.path
        file = id(self.group.store) if path == "memory:" else f"{path}-claims"
        self.claims: Where = (file, self.group.path)

    def is_busy(self) -> bool:
        """Tell whether the caller is in a transaction there."""
        return in_transaction(self.group)

    def get(self, key: Key) -> Entry | None:
        """Return what is kept for a call."""
        while True:
            entry: Any = self.group.get(key)
            if entry is None or (self.live and "raised" not in entry):
                return entry
            try:
                return plain(entry)  # type: ignore[no-any-return]
            except DetachedError:
                # somebody else has replaced a large one just now
                continue

    def set(self, key: Key, entry: Entry) -> None:
        """Keep an entry for a call."""
        self.group[key] = entry

    def remove(self, key: Key) -> None:
        """Forget a call, if it is there."""
        with contextlib.suppress(KeyError):
            del self.group[key]

    def clear(self, first: Key) -> None:
        """Forget all calls, or those whose key begins with `first`."""
        if not first:
            self.group.clear()
            return
        with self.group.transaction():
            for key in self._beginning_with(first):
                del self.group[key]

    def _beginning_with(self, first: Key) -> list[Key]:
        try:
            return list(self.group.keys(prefix=first))
        except OrderError:
            # names of keys are encrypted
            return [key for key in self.group if key[: len(first)] == first]


class MappingPlace:
    """The results of one function in a mapping that is not its own, under keys that are str.

    Args:
        target: the mapping; its keys may be read by others, in JSON for instance.
        name: of the function, with which keys begin.
        live: as for `GroupPlace`; for what a mapping of another kind gives, it makes no difference.
    """

    waits = True

    def __init__(self, target: MutableMapping[Any, Any], name: str, *, live: bool) -> None:
        self.target = target
        self.name = name
        self.live = live
        self.claims: Where = (id(target), ())

    def is_busy(self) -> bool:
        """Tell whether the caller is in a transaction there."""
        return in_transaction(self.target)

    def get(self, key: Key) -> Entry | None:
        """Return what is kept for a call."""
        # not [], for which some mappings make what is missing
        entry: Entry | None = self.target.get(f"{self.name}{key!r}")
        if entry is None:
            return None
        live = not is_tracked(entry) or (self.live and "raised" not in entry)
        return entry if live else plain(entry)

    def set(self, key: Key, entry: Entry) -> None:
        """Keep an entry for a call."""
        self.target[f"{self.name}{key!r}"] = entry

    def remove(self, key: Key) -> None:
        """Forget a call, if it is there."""
        self.target.pop(f"{self.name}{key!r}", None)

    def clear(self, first: Key) -> None:
        """Forget all calls, or those whose key begins with `first`."""
        # without its last bracket, what a tuple begins with is what its text begins with
        start = self.name + repr(first)[:-1]
        for key in list(self.target):
            if isinstance(key, str) and key.startswith(start):
                self.target.pop(key, None)


class MemoryPlace:
    """The results of one function, or of one of an instance, in the memory of this process."""

    waits = False

    def __init__(self, entries: dict[Key, Entry]) -> None:
        self.entries = entries
        self.claims: Where = (id(entries), ())

    def is_busy(self) -> bool:
        """Tell that nobody waits for the caller."""
        return False

    def get(self, key: Key) -> Entry | None:
        """Return what is kept for a call."""
        return self.entries.get(key)

    def set(self, key: Key, entry: Entry) -> None:
        """Keep an entry for a call."""
        self.entries[key] = entry

    def remove(self, key: Key) -> None:
        """Forget a call, if it is there."""
        self.entries.pop(key, None)

    def clear(self, first: Key) -> None:
        """Forget all calls, or those whose key begins with `first`."""
        for key in list(self.entries):
            if key[: len(first)] == first:
                self.entries.pop(key, None)


_opening = threading.Lock()
_opened: dict[str, Store] = {}


class StoreFile:
    """A store given by its path: opened when it is used first, and closed when Python ends.

    All that give the same path share it.
    """

    def __init__(self, path: str) -> None:
        # where it is now, whatever the current directory is when it is opened
        self.path = path if path == "memory:" else os.path.abspath(path)

    @property
    def is_open(self) -> bool:
        """Whether using it takes no time."""
        store = _opened.get(self.path)
        return store is not None and not store.closed

    def store(self) -> Store:
        """Return the open store."""
        with _opening:
            store = _opened.get(self.path)
            if store is None or store.closed:
                store = _opened[self.path] = open(self.path)
            return store

    def close(self) -> None:
        """Close it; it is opened again when somebody uses it."""
        with _opening:
            store = _opened.pop(self.path, None)
        if store is not None:
            store.close()


def _forked() -> None:
    global _opening
    _opening = threading.Lock()


os.register_at_fork(after_in_child=_forked)


def target_of(given: Any) -> StoreFile | MutableMapping[Any, Any]:
    """Return the mapping that was given as a target, or the `StoreFile` of a path.

    Raises:
        TypeError: it is none of the things that results can be kept in.
    """
    if isinstance(given, Document):
        given = given.value
    if isinstance(given, (str, os.PathLike)):
        path = os.fspath(given)
        if isinstance(path, str):
            return StoreFile(path)
    elif isinstance(given, MutableMapping):
        return given
    raise TypeError(
        f"results can be kept in a store, a group, the path of a store, or another mutable mapping "
        f"such as the value of a document, or in one that a function returns; not in {given!r}"
    )
