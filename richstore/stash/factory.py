"""A stash that makes what it does not have."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any, TypeVar, cast

from richstore.stash.base import Lock
from richstore.stash.delegate import DelegateStash

__all__ = ["FactoryStash", "check_factory", "make"]

K = TypeVar("K")
V = TypeVar("V")


class FactoryStash(DelegateStash[K, V]):
    """A stash that makes a value when it is asked for and missing, and keeps it in its delegate.

    The factory is a function of the key, or a mapping, whose keys are then keys of the stash from
    the beginning. `[]` makes what is missing. `get` and `in` go by the keys: with a function, as
    in a `defaultdict`, a key is there once its value was made; with a mapping, all of its keys are
    there, and `get` makes their values. A factory that has nothing for a key raises `KeyError`.
    None is a value, and made once.

    Safe to use from many threads if the delegate is: one stash makes a value once, and the threads
    that ask meanwhile wait for it. A factory that fails has failed for the thread that called it;
    the next one tries again. Two stashes or processes on one delegate may both make a value; the
    one that is kept first counts, for both, if the delegate's `setdefault` is one step, as that of
    a `Store` is. Do not ask for values that others may be making inside a transaction of the
    delegate's store: if making one needs the store, both wait.

    `delete` and `clear` remove values from the delegate; with a mapping as the factory the keys
    stay, and their values are made anew.

    Args:
        delegate: keeps the values: a `Store`, a `Group`, a dict, a `DirectoryStash`.
        factory: makes them: a function of a key, or a mapping.

    Raises:
        TypeError: the delegate is no mapping, or the factory nothing that makes values.

    Example:
        >>> import richstore
        >>> from richstore.stash import FactoryStash
        >>> with richstore.open("memory:") as store:
        ...     lengths = FactoryStash(store, len)
        ...     lengths["four"], "four" in store, lengths.get("five")
        (4, True, None)
    """

    def __init__(self, delegate: Mapping[K, V], factory: Callable[[K], V] | Mapping[K, V]) -> None:
        super().__init__(delegate)
        self.factory = check_factory(factory)
        self._lock = Lock()
        # a lock for each value that is being made, and how many threads are at it
        self._making: dict[Hashable, tuple[Lock, int]] = {}

    def load(self, key: K) -> V:
        """Return the value of a key, made if it is missing.

        Raises:
            KeyError: the factory has none.
        """
        try:
            return self.delegate[key]
        except KeyError:
            pass
        # a key may be anything that a delegate takes; what cannot be hashed cannot be a key
        hashed = cast(Hashable, key)
        with self._lock:
            lock, users = self._making.get(hashed, (Lock(), 0))
            self._making[hashed] = lock, users + 1
        try:
            with lock:
                return self._made(key)
        finally:
            with self._lock:
                users = self._making[hashed][1]
                if users == 1:
                    del self._making[hashed]
                else:
                    self._making[hashed] = lock, users - 1

    def _made(self, key: K) -> V:
        try:
            # another thread may have been first
            return self.delegate[key]
        except KeyError:
            pass
        value: V = make(self.factory, key)
        # what the delegate gives for it, from now on, or what another process has kept meanwhile
        return self._changeable().setdefault(key, value)

    def exists(self, key: object) -> bool:
        """Tell whether the delegate has a key, or the mapping that is the factory."""
        return key in self.delegate or (isinstance(self.factory, Mapping) and key in self.factory)

    def __iter__(self) -> Iterator[K]:
        if not isinstance(self.factory, Mapping):
            yield from self.delegate
            return
        # in this order nothing is left out or comes twice, though values are made meanwhile
        yield from self.factory
        for key in self.delegate:
            if key not in self.factory:
                yield key

    def __len__(self) -> int:
        if isinstance(self.factory, Mapping):
            return sum(1 for _ in self)
        return len(self.delegate)


def check_factory(factory: Any) -> Any:
    """Return what is a factory.

    Raises:
        TypeError: it is none.
    """
    if not isinstance(factory, Mapping) and not callable(factory):
        raise TypeError(
            f"factory must be a function of a key, or a mapping, not a {type(factory).__name__}"
        )
    return factory


def make(factory: Any, key: Any) -> Any:
    """Return what a factory makes for a key."""
    return factory[key] if isinstance(factory, Mapping) else factory(key)
