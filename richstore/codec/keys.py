"""The order-preserving encoding of a user's keys: bytes that sort as the keys do.

Rules: keys that are equal in Python are one key and have one encoding; the byte order of encodings
is the order of keys: None < numbers < str < bytes < date < datetime (naive, then aware) < UUID <
Enum < tuple, each by value, tuples element by element. Where one encoding is the beginning of
another, FF follows, with which no encoding starts, so they nest in tuples as they are.

```
None        10
numbers     20 -inf   21 negative   22 zero   23 positive   24 +inf
            positive: exponent, mantissa with its first 1 leftmost and no zero bytes at its end,
            escaped, 00 00; the exponent e (2**(e-1) <= x < 2**e) is e + 4000h in 2 bytes, or FFFF
            and 8 bytes. negative: the same for -x, every byte after the first complemented
str, bytes  30, 31: UTF-8 (lone surrogates too, in code point order) or the bytes, escaped, 00
date        40, day number in 3 bytes
datetime    41 naive: day number (1 is 1 January of the year 1) and time as microseconds, 8 bytes
            42 aware: the same for the instant in UTC, 00
UUID        50, 16 bytes
Enum        60, module, qualified name of the class, name (a Flag: value), each as a key
tuple       70, elements as keys, 00
escaped     00 is written as 00 FF
```

**Long keys.** A *full form* of more than 464 bytes is *truncated*: its first 464 bytes and a
16-byte BLAKE2b hash of all of it. Nothing else is longer than 464 bytes, so the length alone tells
truncated keys. One sorts rightly against every key that differs from it within 464 bytes, and
after every whole key that is its beginning, as the full forms do. What is left is the *run*:
truncated keys with the same first 464 bytes, neighbours in the store in no useful order. The layer
above sorts a run by `full_key`, and asks `KeyRange.admits` for the keys in it.

**Aware datetimes** are ordered by instant. Python's `hash`, and its `==` within one time zone,
ignore `fold`, so a repeated hour's second pass (`fold=1`) is the same key as its first, as in a
dict. Where the UTC offset depends on `fold` (the repeated and the skipped hour) Python calls a time
unequal to all times in other zones; here likewise it is a key of its own, just after that of the
instant: 42, the instant by `fold=0`, 01, both offsets (microseconds plus one day, 5 bytes each).

This module knows nothing of records, values or engines, and imports no class to decode a key: what
its bytes alone do not give back (`is_canonical`), the record has to keep.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from enum import Enum, Flag
from hashlib import blake2b
from math import frexp, inf, isinf, isnan, ldexp
from typing import Any, Final, TypeAlias
from uuid import UUID, SafeUUID

from richstore.errors import CorruptionError, KeyTypeError

__all__ = [
    "MAX_KEY",
    "Key",
    "KeyRange",
    "decode_key",
    "encode_key",
    "full_key",
    "is_canonical",
    "is_truncated",
    "matches_prefix",
    "prefix_range",
    "range_bounds",
    "same_run",
]

Key: TypeAlias = (
    str | bytes | int | float | bool | date | datetime | UUID | Enum | tuple["Key", ...] | None
)
"""What can be a key of a store."""

MAX_KEY: Final = 480
"""The longest encoded key, in bytes."""

_HASH: Final = 16
_PREFIX: Final = MAX_KEY - _HASH  # the longest full form that is stored as it is

_NONE: Final = b"\x10"
_MINUS_INF: Final = b"\x20"
_NEGATIVE: Final = b"\x21"
_ZERO: Final = b"\x22"
_POSITIVE: Final = b"\x23"
_PLUS_INF: Final = b"\x24"
_STR: Final = b"\x30"
_BYTES: Final = b"\x31"
_DATE: Final = b"\x40"
_NAIVE: Final = b"\x41"
_AWARE: Final = b"\x42"
_UUID: Final = b"\x50"
_ENUM: Final = b"\x60"
_TUPLE: Final = b"\x70"
_END: Final = b"\0"

_BIAS: Final = 0x4000  # floats go down to an exponent of -1073
_HUGE: Final = 0xFFFF - _BIAS
_COMPLEMENT: Final = bytes(255 - byte for byte in range(256))
_MICROSECOND: Final = timedelta(microseconds=1)
_DAY: Final = timedelta(days=1)  # more than any UTC offset
_ALLOWED: Final = (
    "str, bytes, int, float, bool, None, date, datetime, UUID, Enum members and tuples of these"
)
_REMEDIES: Final[dict[type, str]] = {
    list: "use tuple(key)",
    set: "use tuple(sorted(key))",
    frozenset: "use tuple(sorted(key))",
    dict: "use tuple(sorted(key.items()))",
    bytearray: "use bytes(key)",
    memoryview: "use bytes(key)",
}


class _Refusal(Exception):
    """Why a part of a key is refused, and its place: `[1][0]`, or nothing for the key itself."""

    def __init__(self, reason: str, path: str = "") -> None:
        super().__init__(reason, path)
        self.reason = reason
        self.path = path

    def error(self) -> KeyTypeError:
        return KeyTypeError(f"at key{self.path}: {self.reason}" if self.path else self.reason)


# Encoding: one function per exact type, found by a dictionary.


def _encode_none(_key: None) -> bytes:
    return _NONE


def _encode_str(key: str) -> bytes:
    try:
        raw = key.encode()
    except UnicodeEncodeError:
        raw = key.encode("utf-8", "surrogatepass")
    return _STR + raw.replace(b"\0", b"\0\xff") + _END


def _encode_bytes(key: bytes) -> bytes:
    return _BYTES + key.replace(b"\0", b"\0\xff") + _END


def _encode_int(key: int) -> bytes:
    if not key:
        return _ZERO
    bits = key.bit_length()
    size = (bits + 7) >> 3
    mantissa = (abs(key) << ((size << 3) - bits)).to_bytes(size, "big")
    return _encode_number(key < 0, bits, mantissa)


def _encode_float(key: float) -> bytes:
    fraction, exponent = frexp(key)
    if not fraction:
        return _ZERO
    if isinf(key):
        return _PLUS_INF if key > 0 else _MINUS_INF
    if isnan(key):
        raise _Refusal(
            "a NaN cannot be a key: it equals nothing, not even itself, so it could never be "
            "found again; use None or a str such as 'nan'"
        )
    return _encode_number(key < 0, exponent, int(ldexp(abs(fraction), 56)).to_bytes(7, "big"))


def _encode_number(negative: bool, exponent: int, mantissa: bytes) -> bytes:
    if exponent < _HUGE:
        head = (exponent + _BIAS).to_bytes(2, "big")
    else:
        head = b"\xff\xff" + exponent.to_bytes(8, "big")
    # One 00 would be enough for positive numbers. Its complement FF would not do for negative ones:
    # the end of a tuple after it would read as an escape.
    body = head + mantissa.rstrip(b"\0").replace(b"\0", b"\0\xff") + b"\0\0"
    return _NEGATIVE + body.translate(_COMPLEMENT) if negative else _POSITIVE + body


def _encode_date(key: date) -> bytes:
    return _DATE + date.toordinal(key).to_bytes(3, "big")


def _encode_datetime(key: datetime) -> bytes:
    minutes = (date.toordinal(key) * 24 + key.hour) * 60 + key.minute
    moment = (minutes * 60 + key.second) * 1_000_000 + key.microsecond
    # Python takes a tzinfo that gives no offset for none at all.
    offset = None if key.tzinfo is None else key.replace(fold=0).utcoffset()
    if offset is None:
        return _NAIVE + moment.to_bytes(8, "big")
    instant = _AWARE + (moment - offset // _MICROSECOND).to_bytes(8, "big")
    other = offset if type(key.tzinfo) is timezone else key.replace(fold=1).utcoffset()
    if other == offset:
        return instant + b"\0"
    return instant + b"\1" + _encode_offset(offset) + _encode_offset(other)


def _encode_offset(offset: timedelta | None) -> bytes:
    return (0 if offset is None else (offset + _DAY) // _MICROSECOND).to_bytes(5, "big")


def _encode_uuid(key: UUID) -> bytes:
    return _UUID + key.bytes


def _encode_enum(key: Enum) -> bytes:
    # Values need not be keys and combined flags have no name that lasts, so: a name, or bits.
    cls = type(key)
    member = _encode_int(key._value_) if isinstance(key, Flag) else _encode_str(key._name_)
    return _ENUM + _encode_str(cls.__module__) + _encode_str(cls.__qualname__) + member


def _encode_tuple(key: tuple[object, ...]) -> bytes:
    parts = [_TUPLE]
    for position, element in enumerate(key):
        try:
            parts.append(_ENCODERS.get(type(element), _encode_other)(element))
        except _Refusal as refusal:
            raise _Refusal(refusal.reason, f"[{position}]{refusal.path}") from None
    parts.append(_END)
    return b"".join(parts)


_ENCODERS: Final[dict[type, Callable[[Any], bytes]]] = {
    str: _encode_str,
    int: _encode_int,
    tuple: _encode_tuple,
    bytes: _encode_bytes,
    float: _encode_float,
    bool: _encode_int,
    type(None): _encode_none,
    datetime: _encode_datetime,
    date: _encode_date,
    UUID: _encode_uuid,
}

# For subclasses: the base, and how to get its exact value whatever the subclass overrides. Enum is
# last, as a member that is also a str or an int equals that; datetime is before its base.
_BASES: Final[tuple[tuple[Any, Callable[[Any], bytes]], ...]] = (
    (str, lambda key: _encode_str(str.__str__(key))),
    (int, lambda key: _encode_int(int.__int__(key))),
    (tuple, lambda key: _encode_tuple(tuple.__getitem__(key, slice(None)))),
    (bytes, lambda key: _encode_bytes(bytes.__getitem__(key, slice(None)))),
    (float, lambda key: _encode_float(float.__float__(key))),
    (
        datetime,
        lambda key: _encode_datetime(datetime.combine(datetime.date(key), datetime.timetz(key))),
    ),
    (date, _encode_date),
    (UUID, _encode_uuid),
    (Enum, _encode_enum),
)


def _encode_other(key: object) -> bytes:
    """Encode a member of an Enum or an instance of a subclass, or refuse."""
    cls = type(key)
    for base, encode in _BASES:
        if issubclass(cls, base):
            if cls.__eq__ is not base.__eq__ or cls.__hash__ is not base.__hash__:
                remedy = "its name" if base is Enum else f"a plain {base.__name__}"
                raise _Refusal(
                    f"a {_name(cls)} cannot be a key: it is a {base.__name__} with an __eq__ or "
                    f"__hash__ of its own, so what it equals is not known; use {remedy}"
                )
            return encode(key)
    remedy = _REMEDIES.get(cls, "convert it to one of these")
    raise _Refusal(f"a {_name(cls)} cannot be a key; keys are {_ALLOWED}: {remedy}")


def _name(cls: type) -> str:
    module = cls.__module__
    return cls.__qualname__ if module == "builtins" else f"{module}.{cls.__qualname__}"


def full_key(key: object) -> bytes:
    """Return the full form of `key`: order-preserving, of any length.

    Returns:
        The encoding without the limit of `MAX_KEY`; what runs are sorted by.

    Raises:
        KeyTypeError: `key` cannot be a key; the message has the place within tuples.

    >>> sorted([("b",), "b", 2, None, 1.5, "a"], key=full_key)
    [None, 1.5, 2, 'a', 'b', ('b',)]
    """
    try:
        return _ENCODERS.get(type(key), _encode_other)(key)
    except _Refusal as refusal:
        raise refusal.error() from None


def encode_key(key: object) -> bytes:
    """Return the 1 to `MAX_KEY` bytes that `key` is stored under.

    Returns:
        The full form, or 464 bytes of it and a hash if it is longer than that.

    Raises:
        KeyTypeError: `key` cannot be a key; the message has the place within tuples.

    >>> encode_key(1) == encode_key(1.0) == encode_key(True)
    True
    >>> encode_key(("a", [1]))
    Traceback (most recent call last):
        ...
    richstore.errors.KeyTypeError: at key[1]: a list cannot be a key; keys are str, bytes, int, \
float, bool, None, date, datetime, UUID, Enum members and tuples of these: use tuple(key)
    """
    full = full_key(key)
    if len(full) <= _PREFIX:
        return full
    return full[:_PREFIX] + blake2b(full, digest_size=_HASH).digest()


def is_truncated(encoded: bytes) -> bool:
    """Return whether `encoded` is only the beginning and a hash of a full form."""
    return len(encoded) > _PREFIX


def same_run(a: bytes, b: bytes) -> bool:
    """Return whether two encoded keys are of one run, whose order only full forms tell."""
    return len(a) > _PREFIX and len(b) > _PREFIX and a[:_PREFIX] == b[:_PREFIX]


# Decoding.


_CANONICAL: Final[dict[type, Callable[[Any], bool]]] = {
    **dict.fromkeys((str, bytes, type(None), int, date), lambda key: True),
    float: lambda key: not key.is_integer(),
    datetime: lambda key: key.tzinfo is None and not key.fold,
    UUID: lambda key: key.is_safe is SafeUUID.unknown,
    tuple: lambda key: all(map(_gives_itself_back, key)),
}


def _gives_itself_back(key: object) -> bool:
    check = _CANONICAL.get(type(key))
    return check is not None and check(key)


def is_canonical(key: object, encoded: bytes) -> bool:
    """Return whether `decode_key(encoded)` is `key`, type and all; else the record must keep it.

    Args:
        key: a key.
        encoded: `encode_key(key)`.

    >>> [is_canonical(key, encode_key(key)) for key in (1, 1.5, "a", (None, b""), True, 1.0)]
    [True, True, True, True, False, False]
    """
    return len(encoded) <= _PREFIX and _gives_itself_back(key)


def decode_key(encoded: bytes) -> Key:
    """Return the key whose encoding is `encoded`.

    Args:
        encoded: the encoding of a canonical key.

    Raises:
        CorruptionError: `encoded` is not the encoding of a canonical key.

    >>> decode_key(encode_key(("a", 1, 0.5)))
    ('a', 1, 0.5)
    """
    if len(encoded) <= _PREFIX:
        try:
            key, end = _decode(encoded, 0)
        except (LookupError, ValueError, OverflowError) as error:
            raise CorruptionError(f"{encoded!r} is not the encoding of a whole key") from error
        if end == len(encoded):
            return key
    raise CorruptionError(f"{encoded!r} is not the encoding of a whole key")


def _decode(encoded: bytes, at: int) -> tuple[Key, int]:
    """Return the key that begins at `at`, and where it ends."""
    return _DECODERS[encoded[at]](encoded, at + 1)


def _decode_str(encoded: bytes, at: int) -> tuple[str, int]:
    raw, end = _unescape(encoded, at)
    return raw.decode("utf-8", "surrogatepass"), end + 1


def _decode_bytes(encoded: bytes, at: int) -> tuple[bytes, int]:
    raw, end = _unescape(encoded, at)
    return raw, end + 1


def _decode_positive(encoded: bytes, at: int) -> tuple[int | float, int]:
    exponent = _fixed(encoded, at, 2) - _BIAS
    at += 2
    if exponent == _HUGE:
        exponent = _fixed(encoded, at, 8)
        at += 8
    raw, end = _unescape(encoded, at)
    mantissa = int.from_bytes(raw, "big")
    shift = exponent - 8 * len(raw)
    if shift >= 0:
        return mantissa << shift, end + 2
    if mantissa & ((1 << -shift) - 1):
        return ldexp(mantissa, shift), end + 2
    return mantissa >> -shift, end + 2


def _decode_negative(encoded: bytes, at: int) -> tuple[int | float, int]:
    number, size = _decode_positive(encoded[at:].translate(_COMPLEMENT), 0)
    return -number, at + size


def _decode_date(encoded: bytes, at: int) -> tuple[date, int]:
    return date.fromordinal(_fixed(encoded, at, 3)), at + 3


def _decode_naive(encoded: bytes, at: int) -> tuple[datetime, int]:
    return datetime.min + (_fixed(encoded, at, 8) * _MICROSECOND - _DAY), at + 8


def _decode_uuid(encoded: bytes, at: int) -> tuple[UUID, int]:
    return UUID(int=_fixed(encoded, at, 16)), at + 16


def _decode_tuple(encoded: bytes, at: int) -> tuple[tuple[Key, ...], int]:
    elements = []
    while encoded[at]:
        element, at = _decode(encoded, at)
        elements.append(element)
    return tuple(elements), at + 1


_DECODERS: Final[dict[int, Callable[[bytes, int], tuple[Key, int]]]] = {
    _NONE[0]: lambda encoded, at: (None, at),
    _MINUS_INF[0]: lambda encoded, at: (-inf, at),
    _NEGATIVE[0]: _decode_negative,
    _ZERO[0]: lambda encoded, at: (0, at),
    _POSITIVE[0]: _decode_positive,
    _PLUS_INF[0]: lambda encoded, at: (inf, at),
    _STR[0]: _decode_str,
    _BYTES[0]: _decode_bytes,
    _DATE[0]: _decode_date,
    _NAIVE[0]: _decode_naive,
    _UUID[0]: _decode_uuid,
    _TUPLE[0]: _decode_tuple,
}


def _unescape(encoded: bytes, start: int) -> tuple[bytes, int]:
    """Return the escaped bytes that begin at `start`, and where the 00 after them is."""
    end = encoded.index(b"\0", start)
    while encoded[end + 1 : end + 2] == b"\xff":
        end = encoded.index(b"\0", end + 2)
    return encoded[start:end].replace(b"\0\xff", b"\0"), end


def _fixed(encoded: bytes, at: int, size: int) -> int:
    if len(encoded) < at + size:
        raise ValueError("it ends too early")
    return int.from_bytes(encoded[at : at + size], "big")


# Ranges.


@dataclass(frozen=True, slots=True)
class KeyRange:
    """The keys whose full form is at least `low` and less than `high` (None: no limit).

    Scan the encoded keys from `start` to `stop`. Those that are not truncated are in the range;
    of those that are, `admits` tells.
    """

    low: bytes = b""
    high: bytes | None = None

    @property
    def start(self) -> bytes:
        """Where to begin, inclusive: a bound within a run takes in the whole run."""
        if len(self.low) <= _PREFIX:
            return self.low
        # The least hash: a key of just these 464 bytes is not in the run, and below `low`.
        return self.low[:_PREFIX] + bytes(_HASH)

    @property
    def stop(self) -> bytes | None:
        """Where to end, exclusive: a bound within a run takes in the whole run."""
        if self.high is None or len(self.high) <= _PREFIX:
            return self.high
        return _after(self.high[:_PREFIX])

    def admits(self, full: bytes) -> bool:
        """Return whether a key between `start` and `stop`, given as its full form, is meant."""
        return self.low <= full and (self.high is None or full < self.high)


def range_bounds(start: object = None, stop: object = None, prefix: object = None) -> KeyRange:
    """Return the range of the keys from `start` up to and without `stop`, that begin with `prefix`.

    Args:
        start: the first key, None for no limit (which says the same, as None is the least key).
        stop: the key to end before, None for no limit (before the least key there is nothing).
        prefix: as for `prefix_range`, or None for any key.

    Raises:
        KeyTypeError: `start` or `stop` cannot be a key, or `prefix` is no str, bytes or tuple.

    >>> within = range_bounds(start=("a", 2), prefix=("a",))
    >>> [key for key in [("a", 1), ("a", 2), ("b", 3)] if within.admits(full_key(key))]
    [('a', 2)]
    """
    low = b"" if start is None else full_key(start)
    high = None if stop is None else full_key(stop)
    if prefix is not None:
        first, after = _prefix_bounds(prefix)
        low = max(low, first)
        high = after if high is None else min(high, after)
    return KeyRange(low, high)


def prefix_range(prefix: object) -> tuple[bytes, bytes | None]:
    """Return the encoded bounds, start inclusive, stop exclusive, of the keys that begin so.

    Args:
        prefix: a str or bytes that others start with, or a tuple whose elements, each as a whole,
            are the first ones of other tuples.

    Returns:
        A range that holds all such keys and, except for truncated ones, only these: ask
        `matches_prefix` of those.

    Raises:
        KeyTypeError: `prefix` is of another type.
    """
    within = KeyRange(*_prefix_bounds(prefix))
    return within.start, within.stop


def matches_prefix(key: object, prefix: object) -> bool:
    """Return whether `key` is a str, bytes or tuple as `prefix` is and begins with it.

    Raises:
        KeyTypeError: `key` cannot be a key, or `prefix` is no str, bytes or tuple.

    >>> matches_prefix(("a", 1), ("a",)), matches_prefix(("ab", 1), ("a",))
    (True, False)
    """
    low, high = _prefix_bounds(prefix)
    return low <= full_key(key) < high


def _prefix_bounds(prefix: object) -> tuple[bytes, bytes]:
    """Return between what, start inclusive, stop exclusive, the full forms lie that begin so."""
    full = full_key(prefix)
    body = full[: -len(_END)]
    if full.startswith((_STR, _BYTES)):
        return body, _after(body)
    if full.startswith(_TUPLE):
        # With FF after it, the end of the last element would be an escape in a longer one.
        return body, body + b"\xff"
    raise KeyTypeError(
        f"a prefix is a str, bytes or a tuple, not a {_name(type(prefix))}; "
        "for other keys give start and stop"
    )


def _after(body: bytes) -> bytes:
    """Return the first bytes after all that begin with `body`, which is not all FF."""
    kept = body.rstrip(b"\xff")
    return kept[:-1] + bytes((kept[-1] + 1,))
