"""What every stash is: a mapping made of a few methods, so that all ways to ask agree.

A stash that is read only has `load` and `__iter__`; one that can be changed has `dump` and `delete`
as well. `[]`, `get`, `in`, `len`, `keys`, `items`, `values`, `pop`, `update` and the rest are made
of these here and in `collections.abc`, and nowhere else.
"""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections.abc import Mapping, MutableMapping
from types import TracebackType
from typing import Any, NoReturn, TypeVar

from richstore.errors import ReadOnlyError

__all__ = ["Lock", "MutableStash", "Stash"]

K = TypeVar("K")
V = TypeVar("V")


class Stash(Mapping[K, V]):
    """A mapping that can be read, and the base of all stashes.

    A subclass has `load` and `__iter__`, and `exists` where there is a quicker way than going
    through all keys. Whether it is safe to use from many threads is up to these.

    Example:
        >>> from richstore.stash import Stash
        >>> class Squares(Stash):
        ...     def load(self, key):
        ...         if key not in range(5):
        ...             raise KeyError(key)
        ...         return key * key
        ...     def __iter__(self):
        ...         return iter(range(5))
        >>> squares = Squares()
        >>> squares[3], squares.get(7), 7 in squares, len(squares), list(squares.values())
        (9, None, False, 5, [0, 1, 4, 9, 16])
    """

    @abstractmethod
    def load(self, key: K) -> V:
        """Return the value of a key.

        Raises:
            KeyError: there is none. None is a value as any other.
        """

    def exists(self, key: object) -> bool:
        """Tell whether a key has a value."""
        return any(key is found or key == found for found in self)

    def dump(self, key: K, value: V) -> None:
        """Refuse to keep a value.

        Raises:
            ReadOnlyError: always.
        """
        self._refuse()

    def delete(self, key: K) -> None:
        """Refuse to delete a value.

        Raises:
            ReadOnlyError: always.
        """
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise ReadOnlyError(f"{self!r} cannot be changed; change what it reads from")

    # what a mapping asks for

    def __getitem__(self, key: K) -> V:
        return self.load(key)

    def __setitem__(self, key: K, value: V) -> None:
        self.dump(key, value)

    def __delitem__(self, key: K) -> None:
        self.delete(key)

    def __contains__(self, key: object) -> bool:
        return self.exists(key)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return f"<richstore.stash.{type(self).__name__}>"


class MutableStash(Stash[K, V], MutableMapping[K, V]):
    """A mapping that can be changed: `dump` and `delete` beside what a `Stash` has."""

    @abstractmethod
    def dump(self, key: K, value: V) -> None:
        """Keep a value under a key; if that fails, the value before it stays."""

    @abstractmethod
    def delete(self, key: K) -> None:
        """Remove a key and its value.

        Raises:
            KeyError: there is none.
        """

    def clear(self) -> None:
        """Remove all keys."""
        for key in list(self):
            self.pop(key, None)


class Lock:
    """A lock that one thread can take several times; a copy, and what is unpickled, is free."""

    def __init__(self) -> None:
        self._lock = threading.RLock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._lock.release()

    def __reduce__(self) -> tuple[Any, ...]:
        return (Lock, ())
