"""What reading may cost: memory and time in proportion to the stream.

What is read takes at least as many bytes there; what is *copied* (a bytearray from bytes that were
read once) or hashed counts, and there is a limit to the sum. A tuple counts as all that it holds,
for it is hashed anew each time, and may not be nested so deep that hashing it in C would overflow
the stack. Keys of one container with one hash are limited as well: each new one is compared with
all of them.
"""

from __future__ import annotations

import types
from collections import Counter
from typing import Any

from richstore.codec import standard

__all__ = ["ALLOWANCE", "FACTOR", "Limits"]

# What may be copied and hashed: so many items or bytes, and so many more for each byte read.
ALLOWANCE = 1_000_000
FACTOR = 64
# How deep tuples and the like may be inside each other.
_DEPTH = 1000
# Keys with one hash that a container may have.
_COLLIDING = 64
# Types whose hash is known to cost little, and not to be chosen by who writes them.
_CHEAP = frozenset((str, bytes, bool, type(None)))
_NESTING = frozenset((tuple, frozenset, types.GenericAlias))
# Integers less than this in size have hashes of their own.
_PRIME = (1 << 61) - 1


class Limits:
    """Counts what reading a stream costs.

    `Machine.__init__` gives the attributes their values, all at once: there are many small streams.
    """

    data: bytes
    left: int
    # by id, with the object, so that nothing else takes its id meanwhile: nested immutables with
    # their weight and depth
    nested: dict[int, tuple[Any, int, int]]
    # of containers with keys whose hashes can be chosen: how often each hash occurs
    hashes: dict[int, tuple[Any, Counter[int]]]
    users_error: BaseException | None

    def charge(self, amount: int) -> None:
        """Count what is copied, or hashed."""
        self.left -= amount
        if self.left < 0:
            raise ValueError("it takes more than is in proportion to its size")

    def weigh(self, value: Any) -> tuple[int, int]:
        """Return how many items an immutable value has, those of its items included, and depth."""
        kind = type(value)
        if kind is tuple or kind is frozenset:
            known = self.nested.get(id(value))
            return (len(value) + 1, 1) if known is None else known[1:]
        if kind is int:
            return 1 + (value.bit_length() >> 6), 0
        known = self.nested.get(id(value)) if kind is types.GenericAlias else None
        return (1, 0) if known is None else known[1:]

    def nest(self, value: Any, items: Any) -> Any:
        """Take note of a new immutable that may hold others; return it."""
        for one in items:
            if type(one) in _NESTING:
                break
        else:
            return value
        weight, depth = 1, 0
        for one in items:
            inner, below = self.weigh(one)
            weight += inner
            depth = max(depth, below)
        if depth >= _DEPTH:
            raise ValueError("tuples are nested too deep")
        if weight > ALLOWANCE + FACTOR * len(self.data):
            raise ValueError("it takes more than is in proportion to its size")
        self.nested[id(value)] = value, weight, depth + 1
        return value

    def charge_keys(self, keys: Any) -> None:
        """Count what hashing some keys costs."""
        for key in keys:
            if type(key) not in _CHEAP:
                self.charge(self.weigh(key)[0])

    def hashed(self, container: Any, keys: Any) -> bool:
        """Count what hashing keys of a container costs, and how many of them are alike.

        Returns:
            Whether code of users may run when they are put into the container.
        """
        if _CHEAP.issuperset(map(type, keys)):
            return False
        is_users = False
        known = self.hashes.get(id(container))
        if known is None:
            known = self.hashes[id(container)] = container, Counter()
        counts = known[1]
        for key in keys:
            kind = type(key)
            if kind in _CHEAP or (kind is int and -_PRIME < key < _PRIME):
                continue
            self.charge(self.weigh(key)[0])
            is_known = standard.is_value_class(kind)
            is_users = is_users or not is_known
            one = hash(key) if is_known else self.user(hash, key)
            counts[one] += 1
            if counts[one] > _COLLIDING:
                raise ValueError("too many keys have the same hash")
        return is_users

    def user(self, function: Any, *arguments: Any) -> Any:
        """Call what the policy allows; its errors are its own."""
        try:
            return function(*arguments)
        except Exception as error:
            self.users_error = error
            raise
