"""Stashes that show the keys of others in an order, some of them, or those of several at once."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, TypeVar

from richstore.stash.base import Stash
from richstore.stash.delegate import DelegateStash, ReadOnlyStash, check_mapping

__all__ = ["KeyLimitStash", "KeySubsetStash", "SortedStash", "UnionStash"]

K = TypeVar("K")
V = TypeVar("V")


class SortedStash(DelegateStash[K, V]):
    """A stash that goes through the keys of another mapping in order.

    As safe to use from many threads as the mapping.

    Args:
        delegate: the mapping.
        key: what to sort by, given a key; None: the keys themselves.
        reverse: from the greatest to the least.

    Example:
        >>> from richstore.stash import SortedStash
        >>> list(SortedStash({"b": 1, "a": 2}))
        ['a', 'b']
    """

    def __init__(
        self,
        delegate: Mapping[K, V],
        key: Callable[[K], Any] | None = None,
        *,
        reverse: bool = False,
    ) -> None:
        super().__init__(delegate)
        self._key = key
        self._reverse = reverse

    def __iter__(self) -> Iterator[K]:
        keys: list[Any] = list(self.delegate)
        keys.sort(key=self._key, reverse=self._reverse)
        return iter(keys)


class KeyLimitStash(ReadOnlyStash[K, V]):
    """The first keys of another mapping, read only: a small sample to try things on.

    A key beyond the limit is not there, however one asks; each question goes through as many keys
    as the limit allows. As safe to use from many threads as the mapping.

    Args:
        delegate: the mapping.
        limit: how many keys.

    Raises:
        ValueError: `limit` is negative.

    Example:
        >>> from richstore.stash import KeyLimitStash
        >>> few = KeyLimitStash({"a": 1, "b": 2, "c": 3}, 2)
        >>> dict(few), "c" in few, few.get("c")
        ({'a': 1, 'b': 2}, False, None)
    """

    def __init__(self, delegate: Mapping[K, V], limit: int) -> None:
        super().__init__(delegate)
        if limit < 0:
            raise ValueError(f"limit is {limit}, and must be 0 or more keys")
        self.limit = limit

    def load(self, key: K) -> V:
        """Return the value of a key that is within the limit."""
        if not self.exists(key):
            raise KeyError(key)
        return self.delegate[key]

    def exists(self, key: object) -> bool:
        """Tell whether a key is within the limit."""
        # the mapping says quickly what it does not have at all
        return key in self.delegate and any(key is found or key == found for found in self)

    def __iter__(self) -> Iterator[K]:
        return islice(iter(self.delegate), self.limit)

    def __len__(self) -> int:
        return min(self.limit, len(self.delegate))


class KeySubsetStash(ReadOnlyStash[K, V]):
    """Some of the keys of another mapping, read only.

    Of the keys that were chosen, those are there that the mapping has at that moment, in the order
    in which they were given. As safe to use from many threads as the mapping.

    Args:
        delegate: the mapping.
        keys: the keys, or the path of a text file with one in each line.

    Raises:
        OSError: the file cannot be read.
        TypeError: `keys` is a str, which is neither.

    Example:
        >>> from richstore.stash import KeySubsetStash
        >>> dict(KeySubsetStash({"a": 1, "b": 2}, ["b", "x"]))
        {'b': 2}
    """

    def __init__(self, delegate: Mapping[K, V], keys: Iterable[K] | os.PathLike[str]) -> None:
        super().__init__(delegate)
        chosen: Iterable[Any]
        if isinstance(keys, str):
            raise TypeError(
                f"keys is {keys!r}, and must be a list of keys or a pathlib.Path of a file of them"
            )
        if isinstance(keys, os.PathLike):
            with open(keys, encoding="utf-8") as file:
                chosen = [line.strip() for line in file if line.strip()]
        else:
            chosen = keys
        # a set that keeps its order
        self._chosen: dict[K, None] = dict.fromkeys(chosen)

    def load(self, key: K) -> V:
        """Return the value of a key that was chosen."""
        if not self.exists(key):
            raise KeyError(key)
        return self.delegate[key]

    def exists(self, key: object) -> bool:
        """Tell whether a key was chosen and the mapping has it."""
        return key in self._chosen and key in self.delegate

    def __iter__(self) -> Iterator[K]:
        return (key for key in self._chosen if key in self.delegate)

    def __len__(self) -> int:
        return sum(1 for _ in self)


class UnionStash(Stash[K, V]):
    """Several mappings as one, read only; where two have a key, the first one counts.

    As safe to use from many threads as the mappings.

    Args:
        stashes: the mappings.

    Raises:
        TypeError: one of them is no mapping.

    Example:
        >>> from richstore.stash import UnionStash
        >>> dict(UnionStash({"a": 1}, {"a": 2, "b": 3}))
        {'a': 1, 'b': 3}
    """

    def __init__(self, *stashes: Mapping[K, V]) -> None:
        self.stashes: tuple[Mapping[K, V], ...] = tuple(map(check_mapping, stashes))

    def load(self, key: K) -> V:
        """Return the value of a key in the first mapping that has it."""
        for stash in self.stashes:
            if key in stash:
                return stash[key]
        raise KeyError(key)

    def exists(self, key: object) -> bool:
        """Tell whether one of the mappings has a key."""
        return any(key in stash for stash in self.stashes)

    def __iter__(self) -> Iterator[K]:
        # a set of all keys that were seen might be too large
        for at, stash in enumerate(self.stashes):
            before = self.stashes[:at]
            for key in stash:
                if not any(key in one for one in before):
                    yield key
