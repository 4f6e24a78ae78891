"""Stashes that keep in memory what was read: all of it, or what was used last."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any, TypeVar

from richstore.stash.base import Lock, MutableStash
from richstore.stash.delegate import DelegateStash

__all__ = ["CacheStash", "LRUCacheStash"]

K = TypeVar("K")
V = TypeVar("V")
_MISSING: Any = object()


class CacheStash(DelegateStash[K, V]):
    """A stash that reads each value of another mapping once.

    What is dumped or deleted through it leaves the cache, and the next read asks the mapping again:
    so it gives what the mapping gives, and not the object that was dumped. It does not notice when
    others change the mapping: `forget()` does that. A key that is missing is not remembered as
    missing. Safe to use from many threads if the mapping is.

    A value that can be changed in place is one object for all who read it. Between a stash that
    reads from files and its users this is a difference; a `Store` does that already, and needs no
    cache.

    Args:
        delegate: the mapping.
        cache: where to keep what was read: None: a dict, which keeps all of it; an `LRUCacheStash`
            keeps less. Nobody else should use it.

    Example:
        >>> from richstore.stash import CacheStash, LRUCacheStash
        >>> slow = {"a": 1}
        >>> quick = CacheStash(slow, LRUCacheStash(100))
        >>> quick["a"]
        1
        >>> quick["a"] = 2
        >>> quick["a"], slow["a"]
        (2, 2)
    """

    def __init__(self, delegate: Mapping[K, V], cache: MutableMapping[K, V] | None = None) -> None:
        super().__init__(delegate)
        self.cache: MutableMapping[K, V] = {} if cache is None else cache
        self._lock = Lock()
        # how often something was changed, so that nobody keeps what he read before a change
        self._changes = 0

    def load(self, key: K) -> V:
        """Return the value of a key, from the cache if it is there."""
        with self._lock:
            value: V = self.cache.get(key, _MISSING)
            before = self._changes
        if value is not _MISSING:
            return value
        value = super().load(key)
        with self._lock:
            if before == self._changes:
                self.cache[key] = value
        return value

    def get(self, key: K, default: Any = None) -> Any:
        """Return the value of a key, from the cache if it is there, or a default."""
        with self._lock:
            value = self.cache.get(key, _MISSING)
        return super().get(key, default) if value is _MISSING else value

    def dump(self, key: K, value: V) -> None:
        """Keep a value in the mapping."""
        try:
            super().dump(key, value)
        finally:
            # also if that failed: who knows how far it came
            self.forget(key)

    def delete(self, key: K) -> None:
        """Remove a key from the mapping."""
        try:
            super().delete(key)
        finally:
            self.forget(key)

    def clear(self) -> None:
        """Remove all keys from the mapping."""
        try:
            super().clear()
        finally:
            self.forget()

    def forget(self, key: K = _MISSING) -> None:
        """Read again, at the next use, what others may have changed.

        Args:
            key: one key; by default all of them.
        """
        with self._lock:
            self._changes += 1
            if key is _MISSING:
                self.cache.clear()
            else:
                self.cache.pop(key, None)


class LRUCacheStash(MutableStash[K, V]):
    """A stash in memory that keeps the values that were used last.

    Reading or dumping a value is using it; asking whether it is there is not. Keys are in the order
    of their use, the last one at the end. Safe to use from many threads.

    Args:
        maxsize: how many values.

    Raises:
        ValueError: `maxsize` is less than 1.

    Example:
        >>> from richstore.stash import LRUCacheStash
        >>> last = LRUCacheStash(2)
        >>> last.update(a=1, b=2)
        >>> last["a"]
        1
        >>> last["c"] = 3
        >>> sorted(last)
        ['a', 'c']
    """

    def __init__(self, maxsize: int) -> None:
        if maxsize < 1:
            raise ValueError(f"maxsize is {maxsize}, and must be 1 value or more")
        self.maxsize = maxsize
        self._data: OrderedDict[K, V] = OrderedDict()
        self._lock = Lock()

    def load(self, key: K) -> V:
        """Return the value of a key, which is the one used last from now on."""
        with self._lock:
            value = self._data[key]
            self._data.move_to_end(key)
            return value

    def exists(self, key: object) -> bool:
        """Tell whether a key is kept."""
        return key in self._data

    def dump(self, key: K, value: V) -> None:
        """Keep a value, and no longer the one that was not used for the longest time."""
        with self._lock:
            self._data[key] = value
            self._data.move_to_end(key)
            while len(self._data) > self.maxsize:
                self._data.popitem(last=False)

    def delete(self, key: K) -> None:
        """Remove a key."""
        with self._lock:
            del self._data[key]

    def clear(self) -> None:
        """Remove all keys."""
        with self._lock:
            self._data.clear()

    def __iter__(self) -> Iterator[K]:
        with self._lock:
            # of now: a loop that reads the values changes the order
            return iter(list(self._data))

    def __len__(self) -> int:
        return len(self._data)
