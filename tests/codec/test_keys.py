"""The encoding of keys against Python's own `==`, `hash` and `<`, and an order written out here."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from decimal import Decimal
from enum import Enum, Flag, IntEnum, IntFlag, StrEnum, auto
from typing import Any, NamedTuple
from uuid import UUID, SafeUUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from richstore.codec.keys import (
    MAX_KEY,
    KeyRange,
    decode_key,
    encode_key,
    full_key,
    is_canonical,
    is_truncated,
    matches_prefix,
    prefix_range,
    range_bounds,
    same_run,
)
from richstore.errors import CorruptionError, KeyTypeError

LONGEST_WHOLE = MAX_KEY - 16


class Colour(Enum):
    RED = 1j  # a value that could not be a key
    GREEN = 2j
    ROUGE = 1j  # an alias of RED


class Size(Enum):
    BIG = 1
    name = 2  # type: ignore[assignment]  # hides the property of that name


class Right(Flag):
    READ = auto()
    WRITE = auto()
    RUN = auto()


class Level(IntEnum):
    LOW = 1
    HIGH = 2


class Bits(IntFlag):
    A = 1
    B = 2


class Word(StrEnum):
    A = "a"
    EMPTY = ""


class OldWord(str, Enum):  # noqa: UP042 - not the same as a StrEnum, and still common
    AB = "ab"


class Point(NamedTuple):
    x: Any
    y: Any


class Name(str):
    """A str with a method of its own that must not matter."""

    def encode(self, *_: Any) -> bytes:
        return b"wrong"


class Stamp(datetime):
    """A datetime that `replace` cannot make another of."""

    def __new__(cls, moment: datetime) -> Stamp:
        return super().__new__(
            cls, *moment.timetuple()[:6], moment.microsecond, moment.tzinfo, fold=moment.fold
        )


class Switching(tzinfo):
    """A zone that is an hour ahead from 1 March 2000, 2:00 to 1 October 2000, 3:00."""

    def __init__(self, hours: int) -> None:
        self.base = timedelta(hours=hours)

    def utcoffset(self, moment: datetime | None) -> timedelta:
        assert moment is not None
        naive, hour = datetime.combine(moment.date(), moment.time()), timedelta(hours=1)
        if datetime(2000, 3, 1, 2) <= naive < datetime(2000, 3, 1, 3):
            return self.base + hour * moment.fold
        if datetime(2000, 10, 1, 2) <= naive < datetime(2000, 10, 1, 3):
            return self.base + hour * (1 - moment.fold)
        summer = datetime(2000, 3, 1, 3) <= naive < datetime(2000, 10, 1, 2)
        return self.base + hour * summer

    def dst(self, moment: datetime | None) -> timedelta:
        return self.utcoffset(moment) - self.base

    def tzname(self, moment: datetime | None) -> str:
        return f"switching {self.base}"


class Nowhere(tzinfo):
    """A zone that gives no offset, which Python takes for none at all."""

    def utcoffset(self, moment: datetime | None) -> None:
        return None

    dst = utcoffset
    tzname = utcoffset


EAST, WEST, NOWHERE = Switching(1), Switching(-5), Nowhere()
ZONES = [None, UTC, timezone(timedelta(hours=2)), timezone(-timedelta(hours=23, minutes=59))]

edges = [2**53 + d for d in (-1, 0, 1)] + [2**k + d for k in (0, 8, 64, 1024) for d in (-1, 0, 1)]
floats = st.floats(allow_nan=False) | st.sampled_from(
    [0.0, -0.0, 0.5, 5e-324, -5e-324, 2.2250738585072014e-308, 1.7976931348623157e308]
)
shifted = st.builds(
    lambda mantissa, shift: mantissa << shift,
    st.integers(-(2**70), 2**70),
    st.sampled_from([0, 1, 7, 960, 1020, 5000, 49_100, 49_151, 70_000]),
)
whole = st.integers() | st.integers(-(2**600), 2**600) | st.sampled_from(edges) | shifted
numbers = (
    st.sampled_from([-1, 0, 1, 2, True, False, 1.0, 2.0, Level.LOW, Bits.A, Bits.A | Bits.B])
    | whole
    | whole.filter(lambda n: abs(n) < 2**1023).map(float)
    | floats
)
texts = (
    st.text(st.sampled_from("a\0\x01é\ud7ff\ud800\udfff\ue000\uffff\U00010000"), max_size=4)
    | st.text(st.characters(exclude_categories=()), max_size=20)
    | st.sampled_from([Word.A, Word.EMPTY, OldWord.AB, Name("ab")])
)
blobs = st.binary(max_size=12) | st.lists(st.sampled_from(b"\0\x01\xfe\xff"), max_size=4).map(bytes)
around_switches = st.builds(
    lambda switch, minutes, zone, fold: (switch + timedelta(minutes=minutes)).replace(
        tzinfo=zone, fold=fold
    ),
    st.sampled_from([datetime(2000, 3, 1, 2), datetime(2000, 10, 1, 2)]),
    st.integers(-8, 8).map(lambda quarters: quarters * 15),
    st.sampled_from([*ZONES, EAST, WEST, NOWHERE]),
    st.sampled_from([0, 1]),
)
moments = (
    st.datetimes(timezones=st.sampled_from([*ZONES, EAST, WEST]), allow_imaginary=True)
    | around_switches
    | around_switches.map(Stamp)
)
days = st.dates() | st.sampled_from([date(2000, 3, 1), date(2000, 10, 1), date.min, date.max])
uuids = st.uuids() | st.integers(0, 2).map(lambda n: UUID(int=n))
members = st.sampled_from([*Colour, *Size, *Right, Right.READ | Right.RUN, Right(0)])
atoms = st.none() | numbers | texts | blobs | days | moments | uuids | members
keys = st.recursive(
    atoms,
    lambda inner: st.lists(inner, max_size=3).map(tuple) | st.builds(Point, inner, inner),
    max_leaves=5,
)


def with_longer(many: list[Any]) -> list[Any]:
    """Return `many` and, of the texts in them, those with a zero more: the nearest after them."""

    def longer(key: Any) -> Any:
        if isinstance(key, tuple):
            return (*key[:-1], longer(key[-1])) if key else ((),)
        if isinstance(key, str):
            return str(key) + "\0"
        return key + b"\0" if isinstance(key, bytes) else key

    return many + [longer(key) for key in many]


def several(kinds: st.SearchStrategy[Any], least: int = 0) -> st.SearchStrategy[list[Any]]:
    """Return a strategy of lists of keys, half of them with the nearest to every text too."""
    lists = st.lists(kinds, min_size=least, max_size=8)
    return lists | lists.map(with_longer)


# Keys whose full forms are about as long as may be kept whole, and begin alike.
tails = st.text(st.sampled_from("ab\0"), max_size=3)
long_texts = st.builds(
    lambda size, tail, more: "x" * size + tail + "y" * more,
    st.integers(LONGEST_WHOLE - 8, LONGEST_WHOLE + 2),
    tails,
    st.sampled_from([0, 0, 1, 600]),
)
near_limit = st.one_of(
    long_texts,
    long_texts.map(str.encode),
    long_texts.map(lambda text: (text,)),
    st.tuples(long_texts, tails),
    st.tuples(long_texts, tails, st.sampled_from([0, 1, -1])),
    st.sampled_from([2**3700, 2**3800 - 1, 2**3800 - 2, 1 - 2**3800]),
)


def offsets(moment: datetime) -> tuple[timedelta | None, timedelta | None]:
    """Return the UTC offsets of `moment` with `fold=0` and with `fold=1`."""
    plain = datetime.combine(moment.date(), moment.timetz())
    return plain.replace(fold=0).utcoffset(), plain.replace(fold=1).utcoffset()


def rank(key: Any) -> int:
    """Return the place of the key's type in the documented order."""
    types: list[Any] = [type(None), (int, float), str, bytes, date, datetime, UUID, Enum, tuple]
    if isinstance(key, datetime):
        return types.index(datetime)
    return next(place for place, kind in enumerate(types) if isinstance(key, kind))


def comparable(key: Any) -> Any:
    """Return what Python itself orders as the documented order has it, within one rank."""
    if key is None:
        return ()
    if isinstance(key, datetime):
        first, second = offsets(key)
        since = datetime.combine(key.date(), key.time()) - datetime(1, 1, 1)
        if first is None or second is None:
            return (0, since)
        return (1, since - first, *((first, second) if first != second else ()))
    if isinstance(key, Right):
        return (type(key).__module__, type(key).__qualname__, key.value)
    if isinstance(key, Enum) and not isinstance(key, str | int):
        return (type(key).__module__, type(key).__qualname__, key._name_)
    return key


def compare(a: Any, b: Any) -> int:
    """Return -1, 0 or 1: the documented order, written with Python's comparisons."""
    if rank(a) != rank(b):
        return -1 if rank(a) < rank(b) else 1
    if isinstance(a, tuple):
        for x, y in zip(a, b, strict=False):
            if found := compare(x, y):
                return found
        return (len(a) > len(b)) - (len(a) < len(b))
    less: bool = comparable(a) < comparable(b)
    more: bool = comparable(a) > comparable(b)
    return more - less


by_key = functools.cmp_to_key(compare)


def identical(a: Any, b: Any) -> bool:
    """Tell whether two keys are equal with the same types and details all through."""
    if type(a) is not type(b) or a != b:
        return False
    if isinstance(a, tuple):
        return all(map(identical, a, b))
    if isinstance(a, datetime):
        return (a.tzinfo, a.fold) == (b.tzinfo, b.fold)
    if isinstance(a, UUID):
        return a.is_safe is b.is_safe
    return a != 0 or str(a) == str(b)  # -0.0 == 0.0


def stored(many: Iterable[Any], within: KeyRange | None = None) -> list[Any]:
    """Return distinct keys as a store gives them: by encoding, runs sorted by full form."""
    within = within or KeyRange()
    table = {encode_key(key): key for key in many}
    hit = [e for e in sorted(table) if within.start <= e and (not within.stop or e < within.stop)]
    result: list[Any] = []
    while hit:
        run = [e for e in hit if e == hit[0] or same_run(e, hit[0])]
        assert run == hit[: len(run)]  # a run is not interrupted
        hit = hit[len(run) :]
        fulls = sorted((full_key(table[e]), e) for e in run)
        result += [table[e] for full, e in fulls if not is_truncated(e) or within.admits(full)]
    return result


def distinct(many: Iterable[Any]) -> list[Any]:
    """Return `many` with one of all those that are one key."""
    return list({encode_key(key): key for key in many}.values())


# Identity and order


@given(several(keys, 2))
@example([0, False, 0.0, -0.0, 1, True, 1.0, Level.LOW, Bits.A])
@example(["a", Word.A, b"a", ("a",), ("a", "b"), Point("a", "b"), "", Word.EMPTY])
@example([Colour.RED, Colour.ROUGE, Colour.GREEN, "RED", Size.BIG, 1])
@example([date(2000, 3, 1), datetime(2000, 3, 1), datetime(2000, 3, 1, tzinfo=UTC)])
def test_identity(many: list[Any]) -> None:
    """Two keys have one encoding exactly if Python calls them equal, and then hashes agree."""
    for a, b in itertools.combinations(many, 2):
        assert (a == b and hash(a) == hash(b)) == (encode_key(a) == encode_key(b)), (a, b)


@given(several(keys, 2))
def test_order(many: list[Any]) -> None:
    """The bytes of any two keys compare as the documented order says, full forms too."""
    for a, b in itertools.combinations(many, 2):
        for encode in (encode_key, full_key):
            x, y = encode(a), encode(b)
            assert (x > y) - (x < y) == compare(a, b), (a, b)


@given(numbers, numbers)
@example(2**53, 2.0**53)
@example(2**53 + 1, 2.0**53)
@example(-(2**53) - 1, -(2.0**53))
@example(5e-324, 0)
@example(-5e-324, 0)
@example(math.inf, 2**5000)
@example(-math.inf, -(2**5000))
@example(2**49_150, 2**49_151)
@example(-(2**49_150), -(2**49_151))
@example(0.1, 0.1 + 2**-56)
def test_numbers(a: Any, b: Any) -> None:
    """Ints of any size and floats compare exactly as in Python, without rounding."""
    x, y = full_key(a), full_key(b)
    assert (x < y, x == y, x > y) == (a < b, a == b, a > b)
    u, v = full_key((a, "")), full_key((b, ""))
    assert (u < v, u == v, u > v) == (a < b, a == b, a > b)


@given(texts, texts)
def test_texts(a: str, b: str) -> None:
    """Strings with zeros and lone surrogates sort by code point, alone and within tuples."""
    assert (full_key(a) < full_key(b)) == (a < b)
    assert (full_key((a, 1)) < full_key((b, 0))) == (a < b)


@given(several(keys | near_limit, 2))
def test_nesting(many: list[Any]) -> None:
    """Where a full form is the beginning of another FF follows, which no full form starts with."""
    for a, b in itertools.permutations(map(full_key, many), 2):
        assert 0 < a[0] < 0xFF
        assert a == b or not b.startswith(a) or b[len(a)] == 0xFF


@given(around_switches, around_switches)
def test_zones(a: datetime, b: datetime) -> None:
    """Around switches of summer time, datetimes are one key exactly if Python calls them equal."""
    assert (a == b) == (encode_key(a) == encode_key(b))


def test_repeated_hour() -> None:
    """Both passes of a repeated hour are one key, as in a dict, and neither is a UTC instant."""
    first = datetime(2000, 10, 1, 2, 30, tzinfo=EAST)
    second = first.replace(fold=1)
    assert encode_key(first) == encode_key(second)
    instants = {encode_key(first.astimezone(UTC)), encode_key(second.astimezone(UTC))}
    assert len(instants) == 2
    assert encode_key(first) not in instants
    alike = Switching(1)
    assert encode_key(first) == encode_key(first.replace(tzinfo=alike))


def test_extreme_datetimes() -> None:
    """Aware datetimes whose instant in UTC is outside the years 1 to 9999 sort as others do."""
    ahead, behind = timezone(timedelta(hours=23)), timezone(-timedelta(hours=23))
    many = [
        datetime.min.replace(tzinfo=ahead),
        datetime.min.replace(tzinfo=UTC),
        datetime.min.replace(tzinfo=behind),
        datetime.max.replace(tzinfo=ahead),
        datetime.max.replace(tzinfo=UTC),
        datetime.max.replace(tzinfo=behind),
    ]
    assert stored(reversed(many)) == many


def test_types_in_order() -> None:
    """The types follow each other as documented."""
    many = [
        None,
        -math.inf,
        -1,
        0,
        0.5,
        True,
        math.inf,
        "",
        b"",
        date.max,
        datetime.min,
        datetime.min.replace(tzinfo=UTC),
        UUID(int=0),
        Colour.GREEN,
        Colour.RED,
        Right.READ,
        Right.WRITE,
        Right.READ | Right.WRITE,
        (),
        (None,),
        (None, None),
        ((),),
    ]
    assert stored(reversed(many)) == many


# Getting keys back


@given(keys | near_limit)
@example(2**1_000_000)
@example(-(2**49_151))
@example(UUID(int=1, is_safe=SafeUUID.safe))
def test_round_trip(key: Any) -> None:
    """A canonical key comes back with its type and every detail."""
    encoded = encode_key(key)
    assert 1 <= len(encoded) <= MAX_KEY
    if is_canonical(key, encoded):
        assert identical(decode_key(encoded), key)


@pytest.mark.parametrize(
    "key",
    [
        "a\0\ud800",
        b"\0\xff\0",
        None,
        0,
        -1,
        2**1800 + 1,
        -0.1,
        5e-324,
        -math.inf,
        date.max,
        datetime.max,
        datetime.min,
        UUID(int=2**128 - 1),
        (),
        (("",), (-1, (None,)), b"\0"),
    ],
    ids=repr,
)
def test_canonical(key: Any) -> None:
    """Plain keys of every type come back from their bytes alone."""
    encoded = encode_key(key)
    assert is_canonical(key, encoded)
    assert identical(decode_key(encoded), key)


@pytest.mark.parametrize(
    "key",
    [
        True,
        1.0,
        -0.0,
        1e300,
        datetime(2000, 1, 1, tzinfo=UTC),
        datetime(2000, 1, 1, tzinfo=NOWHERE),
        datetime(2000, 1, 1, fold=1),
        Stamp(datetime(2000, 1, 1)),
        UUID(int=1, is_safe=SafeUUID.safe),
        Colour.RED,
        Right.READ,
        Level.LOW,
        Word.A,
        Name("a"),
        Point(1, 2),
        (1, (True,)),
        "x" * MAX_KEY,
        2**5000 - 1,
    ],
    ids=lambda key: repr(key)[:40],
)
def test_not_canonical(key: Any) -> None:
    """A key that its bytes do not give back exactly is said to be so."""
    assert not is_canonical(key, encode_key(key))


@pytest.mark.parametrize(
    "encoded",
    [
        b"",
        b"\0",
        b"\xff",
        b"\x30abc",
        b"\x30\xff\0",
        b"\x23\x40",
        b"\x40\0\0\0",
        b"\x41" + b"\xff" * 8,
        b"\x50\1",
        b"\x70\x10",
        encode_key(1) + b"\0",
        encode_key(Colour.RED),
        encode_key(datetime(2000, 1, 1, tzinfo=UTC)),
        encode_key("x" * MAX_KEY),
    ],
)
def test_undecodable(encoded: bytes) -> None:
    """Bytes that are not a canonical key's are reported as corruption."""
    with pytest.raises(CorruptionError, match="is not the encoding of a whole key"):
        decode_key(encoded)


# What is refused


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (
            [1],
            r"^a list cannot be a key; keys are str, bytes, .* tuples of these: use tuple\(key\)",
        ),
        (("a", (1, {})), r"^at key\[1\]\[1\]: a dict cannot be a key; .*: use tuple"),
        (Point(1, {2}), r"^at key\[1\]: a set cannot be a key"),
        (Decimal(1), r"^a decimal\.Decimal cannot be a key; keys are"),
        (1j, "^a complex cannot be a key"),
        (timedelta(1), r"^a datetime\.timedelta cannot be a key"),
        (object, "^a type cannot be a key"),
        (math.nan, "^a NaN cannot be a key: it equals nothing"),
        ((0, math.nan), r"^at key\[1\]: a NaN cannot be a key"),
    ],
    ids=repr,
)
def test_refused(key: Any, message: str) -> None:
    """Any other type and a NaN are refused with the place, the reason and the remedy."""
    for encode in (encode_key, full_key):
        with pytest.raises(KeyTypeError, match=message):
            encode(key)


@pytest.mark.parametrize(
    ("base", "value"),
    [
        (str, "a"),
        (bytes, b"a"),
        (int, 1),
        (float, 0.5),
        (tuple, ()),
        (date, "2000-01-01"),
        (datetime, "2000-01-01"),
    ],
)
def test_subclasses(base: Any, value: Any) -> None:
    """A subclass is its base's key, unless it has an `__eq__` or `__hash__` of its own."""
    make: Callable[[Any], Any]
    plain = type("Plain", (base,), {})
    equal = type("Equal", (base,), {"__eq__": lambda self, other: True, "__hash__": base.__hash__})
    hashed = type("Hashed", (base,), {"__hash__": lambda self: 1})
    make = (lambda cls: cls.fromisoformat(value)) if issubclass(base, date) else lambda c: c(value)
    assert encode_key(make(plain)) == encode_key(make(base))
    for cls in (equal, hashed):
        with pytest.raises(KeyTypeError, match=f"is a {base.__name__} with an __eq__ or __hash__"):
            encode_key(make(cls))


def test_enum_with_own_equality() -> None:
    """An Enum that defines equality is refused, and its members' names are proposed."""

    class Loose(Enum):
        A = 1

        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = Enum.__hash__

    with pytest.raises(KeyTypeError, match="use its name"):
        encode_key(("a", Loose.A))


# Long keys


@given(several(near_limit | keys, 2))
def test_long_keys_in_order(many: list[Any]) -> None:
    """With runs sorted by full form, keys of any length are in the documented order."""
    assert stored(many) == sorted(distinct(many), key=by_key)


@given(several(near_limit, 2))
def test_runs(many: list[Any]) -> None:
    """Truncated keys are told apart, and out of order only within a run of truncated keys."""
    for a, b in itertools.permutations(many, 2):
        x, y = encode_key(a), encode_key(b)
        assert (x == y) == (full_key(a) == full_key(b))
        assert is_truncated(x) == (x != full_key(a))
        assert same_run(x, y) == same_run(y, x)
        if same_run(x, y):
            assert is_truncated(x)
            assert is_truncated(y)
        else:
            assert (x < y) == (full_key(a) < full_key(b))


def test_limit() -> None:
    """A full form of 464 bytes is kept whole, one of 465 is truncated to the longest key."""
    fits, over = "x" * (LONGEST_WHOLE - 2), "x" * (LONGEST_WHOLE - 1)
    assert len(full_key(fits)) == LONGEST_WHOLE
    assert encode_key(fits) == full_key(fits)
    assert not is_truncated(encode_key(fits))
    assert len(encode_key(over)) == len(encode_key("x" * 10_000)) == MAX_KEY
    assert same_run(encode_key(over), encode_key("x" * 10_000))
    assert not same_run(encode_key(over), encode_key(fits))
    assert encode_key(fits) < encode_key(over) < encode_key("y")


# Ranges


def begins(key: Any, prefix: Any) -> bool:
    """Tell by brute force whether `key` begins with `prefix`."""
    if isinstance(prefix, tuple):
        if not isinstance(key, tuple) or len(key) < len(prefix):
            return False
        return all(x == y for x, y in zip(key, prefix, strict=False))
    kind = str if isinstance(prefix, str) else bytes
    return isinstance(key, kind) and key.startswith(prefix)


@st.composite
def keys_and_prefix(draw: st.DrawFn) -> tuple[list[Any], Any]:
    """Draw keys, and a prefix that is mostly the beginning of one of them."""
    many = draw(several(keys | near_limit, 1))
    sized = [key for key in many if isinstance(key, str | bytes | tuple)]
    whole = draw(st.sampled_from(sized) if sized else texts | blobs)
    if isinstance(whole, tuple):
        return many, tuple(whole)[: draw(st.integers(0, len(whole)))]
    size = len(whole)
    return many, whole[: draw(st.integers(0, size) | st.integers(max(0, size - 4), size))]


@given(keys_and_prefix())
@example((["a", "a\0", "ab", "b", b"a"], "a"))
@example(([("a",), ("a\0",), ("a", "b"), ("a\0", "b")], ("a",)))
@example(([(b"a", b"a"), (b"a", b"a\0\xff"), ((b"a",), b"a"), (b"a", -1)], (b"a",)))
@example(([b"\xff", b"\xff\xff", b"\0", b"\0\xff"], b"\0"))
@example(([b"\xff", b"\xff\xff", "a"], b"\xff"))
@example(([("a",), ("ab",), ("a", 1), (), "a", (("a",),)], ("a",)))
def test_prefixes(drawn: tuple[list[Any], Any]) -> None:
    """A prefix finds what a filter finds, exactly but for truncated keys, and those by asking."""
    many, prefix = drawn
    start, stop = prefix_range(prefix)
    assert stop is not None
    for key in many:
        encoded = encode_key(key)
        inside = start <= encoded < stop
        assert matches_prefix(key, prefix) == begins(key, prefix)
        assert inside or not begins(key, prefix)
        assert not inside or begins(key, prefix) or is_truncated(encoded)
    expected = sorted((k for k in distinct(many) if begins(k, prefix)), key=by_key)
    assert stored(many, range_bounds(prefix=prefix)) == expected


@given(several(keys | near_limit), keys | near_limit, keys | near_limit)
def test_bounds(many: list[Any], start: Any, stop: Any) -> None:
    """A range has the keys from `start` up to and without `stop`, however long they all are."""
    many = [*many, start, stop]
    expected = [
        key
        for key in sorted(distinct(many), key=by_key)
        if compare(start, key) <= 0 and (stop is None or compare(key, stop) < 0)
    ]
    assert stored(many, range_bounds(start, stop)) == expected


@given(several(near_limit | texts), long_texts | texts, keys_and_prefix())
def test_bounds_within_prefix(many: list[Any], bound: Any, drawn: tuple[list[Any], Any]) -> None:
    """A prefix with a start or a stop gives the keys that satisfy both."""
    more, prefix = drawn
    found = sorted((k for k in distinct(many + more) if begins(k, prefix)), key=by_key)
    from_bound = [key for key in found if compare(bound, key) <= 0]
    to_bound = [key for key in found if compare(key, bound) < 0]
    assert stored(many + more, range_bounds(bound, prefix=prefix)) == from_bound
    assert stored(many + more, range_bounds(stop=bound, prefix=prefix)) == to_bound


@pytest.mark.parametrize("more", range(-4, 4))
def test_bound_after_its_beginning(more: int) -> None:
    """A long bound leaves out the key of which it is the nearest longer one, at any length."""
    key = "x" * (LONGEST_WHOLE - 2 + more)
    many = [key, key + "\0", key + "\0\0", key + "a"]
    assert stored(many) == many
    assert stored(many, range_bounds(many[1])) == many[1:]
    assert stored(many, range_bounds(None, many[1])) == many[:1]
    assert stored(many, range_bounds(prefix=many[1])) == many[1:3]
    nested = [(one,) for one in many] + [(many[3], 1)]
    assert stored(nested) == nested
    for one in nested[:3]:
        assert stored(nested, range_bounds(prefix=one)) == [one]
    assert stored(nested, range_bounds(prefix=nested[3])) == nested[3:]


def test_unbounded() -> None:
    """Without bounds a range is everything, None included."""
    assert range_bounds() == KeyRange(b"", None)
    assert stored([None, 1, ()], range_bounds()) == [None, 1, ()]


@pytest.mark.parametrize("prefix", [1, None, Colour.RED, date.min], ids=repr)
def test_wrong_prefix(prefix: Any) -> None:
    """Only a str, bytes or a tuple can be a prefix, and the error says so."""
    with pytest.raises(KeyTypeError, match="a prefix is a str, bytes or a tuple, not a "):
        prefix_range(prefix)
