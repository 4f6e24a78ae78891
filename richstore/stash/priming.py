"""Stashes that do something once, before they are used; and one that is filled that way."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

from richstore.stash.base import Lock
from richstore.stash.delegate import DelegateStash, transaction_of

__all__ = ["OneShotFactoryStash", "PreemptiveStash", "PrimeableStash"]

K = TypeVar("K")
V = TypeVar("V")
Items = Mapping[K, V] | Iterable[tuple[K, V]]


class PreemptiveStash(DelegateStash[K, V]):
    """A stash that tells whether it has anything. As safe to use from many threads as its delegate.

    Args:
        delegate: the mapping.

    Example:
        >>> from richstore.stash import PreemptiveStash
        >>> PreemptiveStash({}).has_data, PreemptiveStash({"a": None}).has_data
        (False, True)
    """

    @property
    def has_data(self) -> bool:
        """Whether the delegate has any key, at this moment."""
        return any(True for _ in self.delegate)


class PrimeableStash(PreemptiveStash[K, V]):
    """A stash that does some work once, before it is read or changed for the first time.

    `clear()` alone does not wait for it: it removes what the delegate has, and the work, if it was
    not done yet, is done at the next use.

    The work is `prepare`, which a subclass has, or a function that is given. It may use the stash
    itself. If it fails, whoever used the stash gets the error, and the next use tries again. Safe
    to use from many threads if the delegate is: others wait while one does the work. (Where the
    work changes a store, call `prime()` before you use the stash inside a transaction of that
    store: one thread would have the store's lock and wait for the work, and the work for the lock.)

    Args:
        delegate: the mapping; one that is primeable too is primed first.
        prepare: the work.

    Example:
        >>> from richstore.stash import PrimeableStash
        >>> stash = PrimeableStash({}, lambda: print("once"))
        >>> "a" in stash
        once
        False
        >>> len(stash)
        0
    """

    def __init__(
        self, delegate: Mapping[K, V], prepare: Callable[[], object] | None = None
    ) -> None:
        super().__init__(delegate)
        self._prepare = prepare
        self._primed = False
        self._priming = False
        self._prime_lock = Lock()

    def prepare(self) -> None:
        """Do the work."""
        if self._prepare is not None:
            self._prepare()

    def prime(self) -> None:
        """Do the work now, if it was not done yet."""
        if self._primed:
            return
        with self._around(), self._prime_lock:
            # the work itself uses the stash
            if self._primed or self._priming:
                return
            self._priming = True
            try:
                if isinstance(self.delegate, PrimeableStash):
                    self.delegate.prime()
                self.prepare()
                self._primed = True
            finally:
                self._priming = False

    def _around(self) -> AbstractContextManager[Any]:
        """Return the block around the work, entered before one waits for others who do it."""
        return nullcontext()

    # everything else is made of these

    def load(self, key: K) -> V:
        """Return the value of a key."""
        self.prime()
        return super().load(key)

    def exists(self, key: object) -> bool:
        """Tell whether a key has a value."""
        self.prime()
        return super().exists(key)

    def dump(self, key: K, value: V) -> None:
        """Keep a value."""
        self.prime()
        super().dump(key, value)

    def delete(self, key: K) -> None:
        """Remove a key."""
        self.prime()
        super().delete(key)

    def __iter__(self) -> Iterator[K]:
        self.prime()
        return super().__iter__()

    def __len__(self) -> int:
        self.prime()
        return super().__len__()


class OneShotFactoryStash(PrimeableStash[K, V]):
    """A stash that is filled at its first use, if its delegate is empty.

    All of it or nothing: on a `Store` or `Group` it is filled in one transaction, so that a worker
    that fails leaves nothing, a process that is killed neither, and of several processes one fills
    it. On other delegates, what a worker that fails has made is removed; but a process that is
    killed leaves a part, which the next one takes for the whole: `clear()` it first. Threads as for
    `PrimeableStash`.

    Args:
        delegate: where the items go.
        worker: a mapping, pairs of key and value, or a function that returns one of these.

    Raises:
        TypeError: the delegate is no mapping.

    Example:
        >>> import richstore
        >>> from richstore.stash import OneShotFactoryStash
        >>> def worker():
        ...     for number in range(3):
        ...         yield number, number * number
        >>> with richstore.open("memory:") as store:
        ...     squares = OneShotFactoryStash(store, worker)
        ...     len(store), squares[2], dict(store)
        (0, 4, {0: 0, 1: 1, 2: 4})
    """

    def __init__(
        self,
        delegate: Mapping[K, V],
        worker: Callable[[], Items[K, V]] | Items[K, V],
    ) -> None:
        super().__init__(delegate)
        self._worker = worker

    def prepare(self) -> None:
        """Fill the delegate, if it is empty."""
        if self.has_data:
            return
        worker = self._worker
        if isinstance(worker, Iterator):
            # a second attempt would take the rest for the whole
            self._worker = _used_up
        kept: list[K] = []
        try:
            items = worker() if callable(worker) else worker
            for key, value in items.items() if isinstance(items, Mapping) else items:
                kept.append(key)
                self._changeable()[key] = value
        except BaseException:
            # a transaction would have forgotten them by itself
            for key in kept:
                self._changeable().pop(key, None)
            raise

    def _around(self) -> AbstractContextManager[Any]:
        # what was filled in a transaction is there as a whole or not at all
        return nullcontext() if self.has_data else transaction_of(self.delegate)


def _used_up() -> Any:
    raise RuntimeError(
        "an attempt to fill the stash failed, and its items were given as an iterator, of which a "
        "part is used up; give a function that returns them"
    )
