"""Stashes on another mapping: the same, to be refined; read only; or a dict of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar, cast

from richstore.errors import ReadOnlyError
from richstore.groups import Group
from richstore.stash.base import MutableStash, Stash
from richstore.store import Store

__all__ = ["DelegateStash", "DictionaryStash", "ReadOnlyStash", "check_mapping", "transaction_of"]

K = TypeVar("K")
V = TypeVar("V")
_MISSING: Any = object()


class _OnMapping(Stash[K, V]):
    """A stash that reads from another mapping."""

    def __init__(self, delegate: Mapping[K, V]) -> None:
        self.delegate: Mapping[K, V] = check_mapping(delegate)

    def load(self, key: K) -> V:
        """Return the value of a key in the delegate."""
        return self.delegate[key]

    def exists(self, key: object) -> bool:
        """Tell whether the delegate has a key."""
        return key in self.delegate

    def get(self, key: K, default: Any = None) -> Any:
        """Return the value of a key, or a default if it is not there."""
        # `[]` of some delegates makes what is missing
        return super().get(key, default) if self.exists(key) else default

    def __iter__(self) -> Iterator[K]:
        return iter(self.delegate)

    def __len__(self) -> int:
        return len(self.delegate)

    def __repr__(self) -> str:
        return f"{super().__repr__()[:-1]} on {_short(self.delegate)}>"


class DelegateStash(_OnMapping[K, V], MutableStash[K, V]):
    """A stash that passes everything on to another mapping; a base for those that add something.

    As safe to use from many threads as the mapping. `pop`, `setdefault` and `update` are made of
    `load`, `dump` and `delete`, and so are several steps; on a `Store` put them into one
    `transaction()`.

    Args:
        delegate: any mapping: a `Store`, a `Group`, a dict, the value of a `Document`, a stash.

    Raises:
        TypeError: it is no mapping.

    Example:
        >>> from richstore.stash import DelegateStash
        >>> class Upper(DelegateStash):
        ...     def dump(self, key, value):
        ...         super().dump(key, value.upper())
        >>> names = {}
        >>> Upper(names).update(a="ann")
        >>> names
        {'a': 'ANN'}
    """

    def pop(self, key: K, default: Any = _MISSING) -> Any:
        """Remove a key and return its value, or a default if it is not there.

        Raises:
            KeyError: it is not there, and there is no default.
        """
        if not self.exists(key):
            if default is _MISSING:
                raise KeyError(key)
            return default
        return super().pop(key) if default is _MISSING else super().pop(key, default)

    def setdefault(self, key: K, default: Any = None) -> Any:
        """Return the value of a key, which is the default if it was not there."""
        if not self.exists(key):
            self.dump(key, default)
        return self.load(key)

    def dump(self, key: K, value: V) -> None:
        """Keep a value in the delegate.

        Raises:
            ReadOnlyError: the delegate cannot be changed.
        """
        self._changeable()[key] = value

    def delete(self, key: K) -> None:
        """Remove a key from the delegate.

        Raises:
            KeyError: it is not there.
            ReadOnlyError: the delegate cannot be changed.
        """
        del self._changeable()[key]

    def clear(self) -> None:
        """Remove all keys from the delegate."""
        self._changeable().clear()

    def _changeable(self) -> MutableMapping[K, V]:
        if not isinstance(self.delegate, MutableMapping):
            raise ReadOnlyError(
                f"{_short(self.delegate)} cannot be changed, and so {self!r} cannot"
            )
        return self.delegate


class ReadOnlyStash(_OnMapping[K, V]):
    """Another mapping, read only. The values themselves are those of the mapping.

    What can be changed in place still can be: of a `Store`, use `store.snapshot()` where that
    matters. As safe to use from many threads as the mapping.

    Args:
        delegate: any mapping.

    Raises:
        TypeError: it is no mapping.

    Example:
        >>> from richstore.stash import ReadOnlyStash
        >>> ReadOnlyStash({"a": 1})["a"]
        1
        >>> ReadOnlyStash({"a": 1})["a"] = 2
        Traceback (most recent call last):
        ...
        richstore.errors.ReadOnlyError: <richstore.stash.ReadOnlyStash on dict> cannot be ...
    """


class DictionaryStash(DelegateStash[K, V]):
    """A stash in memory: a new dict, or one that is given.

    Args:
        data: the dict.

    Example:
        >>> from richstore.stash import DictionaryStash
        >>> stash = DictionaryStash({"a": None})
        >>> stash["a"] is None, "a" in stash
        (True, True)
    """

    def __init__(self, data: MutableMapping[K, V] | None = None) -> None:
        super().__init__({} if data is None else data)

    @property
    def data(self) -> MutableMapping[K, V]:
        """The dict itself."""
        return cast(MutableMapping[K, V], self.delegate)


def check_mapping(delegate: Any) -> Any:
    """Return what is a mapping.

    Raises:
        TypeError: it is none.
    """
    if not isinstance(delegate, Mapping):
        raise TypeError(
            f"a stash needs a mapping, such as a Store, a Group, a dict, the value of a Document "
            f"or another stash, and not {_short(delegate)}"
        )
    return delegate


def transaction_of(mapping: Any) -> AbstractContextManager[Any]:
    """Return a transaction of the store that stashes stand on; without a store, a block of none."""
    while isinstance(mapping, _OnMapping):
        mapping = mapping.delegate
    return mapping.transaction() if isinstance(mapping, (Store, Group)) else nullcontext()


def _short(mapping: Any) -> str:
    return repr(mapping) if isinstance(mapping, Stash) else type(mapping).__name__
