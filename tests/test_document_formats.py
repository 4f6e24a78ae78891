"""Formats of documents: what comes back equal is stored, all else is refused, and told where."""

from __future__ import annotations

import base64
import collections
import datetime
import decimal
import enum
import json
import marshal
import pickle
import plistlib
import re
import struct
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import bson
import cloudpickle
import msgpack
import numpy
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import richstore
from richstore.documents import Codec
from richstore.documents.comparing import difference

plain = richstore.plain
EncodingError, FormatError = richstore.EncodingError, richstore.FormatError


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


class Word(str):
    __slots__ = ()


class Point(NamedTuple):
    x: Any
    y: Any


def reread(path: Path, **options: Any) -> Any:
    """Return what a new document on the same file has."""
    return plain(richstore.document(path, **options).value)


def strict(value: Any) -> Any:
    """Return what is equal for values of the same types and content only."""
    kind = type(value)
    if kind is float:
        return kind, "nan" if value != value else struct.pack("d", value)
    if kind is complex:
        return kind, strict(value.real), strict(value.imag)
    if kind is dict:
        return kind, frozenset((strict(key), strict(inner)) for key, inner in value.items())
    if isinstance(value, dict):
        return kind, tuple((strict(key), strict(inner)) for key, inner in value.items())
    if isinstance(value, (list, tuple)):
        return kind, tuple(map(strict, value))
    if isinstance(value, (set, frozenset)):
        return kind, frozenset(map(strict, value))
    if isinstance(value, decimal.Decimal):
        return kind, str(value)
    return kind, bytes(value) if kind is bytearray else value


# --- all values ---

TEXT = st.text(st.characters(exclude_categories=[]), max_size=8)
# what all formats take
COMMON = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=8)
FLOATS = st.floats() | st.sampled_from([0.0, -0.0, float("nan"), float("inf"), 1e308])
ODD = st.one_of(
    TEXT,
    FLOATS,
    st.integers(-(2**70), 2**70),
    st.sampled_from([2**63, 2**64, -(2**63) - 1]),
    # too long to be shown
    st.just(5000).map(lambda digits: 10**digits),
    st.binary(max_size=8),
    st.binary(max_size=8).map(bytearray),
    st.datetimes(),
    st.datetimes(timezones=st.just(datetime.UTC)),
    st.dates(),
    st.times(),
    st.decimals(allow_nan=False),
    st.uuids(),
    st.complex_numbers(),
    st.sampled_from([Colour.RED, Level.HIGH, Word("word"), int, len, Ellipsis]),
    st.frozensets(st.integers(0, 3), max_size=3),
    st.sets(st.integers(0, 3) | st.booleans(), max_size=3),
)
KEYS = st.one_of(
    TEXT,
    st.text(max_size=8),
    st.integers(-(2**65), 2**65),
    st.floats(allow_nan=False),
    st.booleans(),
    st.none(),
    st.binary(max_size=3),
    st.tuples(st.integers(0, 2) | st.booleans()),
    st.sampled_from([Colour.RED, Level.HIGH, Word("word")]),
)


def extend(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Return the containers of values."""
    return st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(KEYS, inner, max_size=4),
        st.dictionaries(st.text(max_size=4), inner, max_size=4),
        st.lists(inner, max_size=3).map(tuple),
        st.builds(Point, inner, inner),
        st.dictionaries(st.text(max_size=4), inner, max_size=3).map(collections.OrderedDict),
        inner.map(lambda value: [value, value]),
    )


# values that formats take, with now and then something that they do not
NICE = st.recursive(
    COMMON | FLOATS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4)
    ),
    max_leaves=12,
)
VALUES = NICE | st.recursive(COMMON | ODD, extend, max_leaves=10)


def culprits(value: Any, is_taken: Callable[[Any], bool], takes_key: Any, path: str = "") -> Any:
    """Yield the path to each part of a value that a format does not take."""
    if not is_taken(value):
        yield path
    if isinstance(value, dict):
        for key, inner in value.items():
            text = repr(key)
            step = f"[{text if len(text) < 60 else text[:57] + '...'}]"
            if not takes_key(key):
                yield path + step
            yield from culprits(inner, is_taken, takes_key, path + step)
    elif isinstance(value, (list, tuple)):
        for at, inner in enumerate(value):
            yield from culprits(inner, is_taken, takes_key, f"{path}[{at}]")


def is_text(value: str) -> bool:
    """Tell whether UTF-8 has a form for a string."""
    return not re.search("[\ud800-\udfff]", value)


def json_takes(value: Any) -> bool:
    """Tell whether JSON gives a value back, apart from what is inside it."""
    if type(value) is str:
        # two escapes of halves are read as one character
        return not re.search("[\ud800-\udbff][\udc00-\udfff]", value)
    if type(value) is float:
        return value - value == 0
    if type(value) is int:
        return abs(value) < 10**4300
    return type(value) in (bool, type(None), list, dict)


def msgpack_takes(value: Any) -> bool:
    """Tell whether msgpack gives a value back, apart from what is inside it."""
    if type(value) is str:
        return is_text(value)
    if type(value) is int:
        return -(2**63) <= value < 2**64
    return type(value) in (float, bytes, bool, type(None), list, dict)


def bson_takes(value: Any) -> bool:
    """Tell whether BSON gives a value back, apart from what is inside it."""
    if type(value) is int:
        return -(2**63) <= value < 2**63
    if type(value) is datetime.datetime:
        return value.tzinfo is None and value.microsecond % 1000 == 0 and value.fold == 0
    return msgpack_takes(value)


RULES: dict[str, tuple[Callable[[Any], bool], Callable[[Any], bool]]] = {
    "json": (json_takes, lambda key: type(key) is str and json_takes(key)),
    "msgpack": (
        msgpack_takes,
        lambda key: type(key) not in (list, dict) and msgpack_takes(key),
    ),
    "bson": (bson_takes, lambda key: type(key) is str and is_text(key) and "\0" not in key),
    "pickle": (lambda value: True, lambda key: True),
}


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory for all examples of a test."""
    return tmp_path_factory.mktemp("formats")


MANY = settings(max_examples=settings().max_examples // 4)


@pytest.mark.parametrize("format", RULES)
@pytest.mark.parametrize("way", ["block", "autosave"])
@given(value=VALUES)
@example(value={"a": [1, {"b": [(1,)]}]})
@example(value={1: "a", "1": "b"})
@example(value={"a": {True: 1}, "b": 1.0})
@example(value=[{"": {"\0": "\0"}}, "\ud83d\ude00", "\udc00\ud800", {"\ud800": 1}])
@example(value={"_id": 1, "a": 2})
@example(value={"b": 1, "_id": 2, "a": {"z": 1, "_id": 2}})
@MANY
@pytest.mark.timeout(0)
def test_equal_after_a_round_trip_or_refused(
    directory: Path, format: str, way: str, value: Any
) -> None:
    """A value is refused exactly when the format would not give it back, with the path to what it
    is, and file and memory are then as before; else a new document has it, types included.
    """
    path = directory / f"{way}.{format}"
    old = {"kept": [1]}
    document = richstore.document(path, data=old)
    document.commit()
    document.autosave = way == "autosave"
    before = path.read_bytes()
    new = {"new": value}
    expected = set(culprits(new, *RULES[format]))
    try:
        if way == "block":
            with document:
                document.value = new
        else:
            document.value["new"] = value
            new = {**old, **new}
    except EncodingError as error:
        assert error.path in expected, (error, expected)
        assert path.read_bytes() == before
        assert strict(plain(document.value)) == strict(old)
        assert strict(reread(path)) == strict(old)
    else:
        assert not expected, expected
        assert strict(plain(document.value)) == strict(new)
        assert strict(reread(path)) == strict(new)


@given(value=VALUES)
@MANY
@pytest.mark.timeout(0)
def test_lossy_asks_for_the_conversion_of_the_format(directory: Path, value: Any) -> None:
    """With lossy=True a document has what JSON makes of a value; what it cannot take is refused."""
    path = directory / "lossy.json"
    try:
        text = json.dumps(value)
    except (TypeError, ValueError):
        with pytest.raises(EncodingError):
            richstore.document(path, data=value, lossy=True).commit()
        return
    richstore.document(path, data=value, lossy=True).commit()
    assert strict(reread(path)) == strict(json.loads(text))


def test_the_check_of_round_trips_sees_what_is_lost(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test above fails when a format is not compared, or the path is another one."""
    run: Any = test_equal_after_a_round_trip_or_refused
    inner = run.hypothesis.inner_test
    from richstore.documents import formats

    def elsewhere(ours: Any, theirs: Any) -> Any:
        return difference(ours, theirs) and ("['b']", "this", "that")

    with monkeypatch.context() as patch:
        patch.setattr(formats, "difference", lambda ours, theirs: None)
        with pytest.raises(AssertionError):
            inner(directory, "json", "block", {"a": (1,)})
    with monkeypatch.context() as patch:
        patch.setattr(formats, "difference", elsewhere)
        with pytest.raises(AssertionError):
            inner(directory, "json", "block", {"a": (1,)})


@pytest.mark.parametrize("format", ["json", "msgpack", "bson"])
def test_cycles_and_depth_are_refused(tmp_path: Path, format: str) -> None:
    """A value that has itself inside, or is nested too deep, is refused soon."""
    cycle: dict[str, Any] = {"a": [1]}
    cycle["a"].append(cycle)
    deep: Any = []
    for _ in range(2_000 if format == "msgpack" else 5_000):
        deep = [deep]
    document = richstore.document(tmp_path / f"x.{format}", data={"old": 1})
    document.commit()
    for value in (cycle, {"deep": deep}):
        began = time.monotonic()
        with pytest.raises(EncodingError), document:
            document.value["new"] = value
        assert time.monotonic() - began < 20
        assert document.value == {"old": 1}
    assert reread(tmp_path / f"x.{format}") == {"old": 1}
    while deep:  # a chain this long is taken apart by hand
        deep = deep.pop()


def test_pickle_keeps_cycles_and_aliases(tmp_path: Path) -> None:
    """A pickle has cycles, and what is one object stays one."""
    shared = [1]
    value: dict[str, Any] = {"a": shared, "b": [shared]}
    value["self"] = value
    with richstore.document(tmp_path / "x.pickle", default={}) as document:
        document.value = value
    back = reread(tmp_path / "x.pickle")
    assert back["self"] is back and back["a"] is back["b"][0]


def test_aliases_come_back_as_equal_values(tmp_path: Path) -> None:
    """In the other formats one list at two places is two equal lists afterwards."""
    shared = [1]
    with richstore.document(tmp_path / "x.json", default={}) as document:
        document.value = {"a": shared, "b": [shared]}
        document.value["a"].append(2)
    back = reread(tmp_path / "x.json")
    assert back == {"a": [1, 2], "b": [[1, 2]]}
    assert back["a"] is not back["b"][0]


def test_the_message_says_what_to_do(tmp_path: Path) -> None:
    """A refusal names the path, both values, and the ways out."""
    document = richstore.document(tmp_path / "x.json", data={"a": [1, {"b": (2,)}]})
    with pytest.raises(EncodingError) as caught:
        document.commit()
    assert str(caught.value) == (
        "at ['a'][1]['b']: JSON would give list [2] back for tuple (2,); store another type "
        "there, or open the document with lossy=True or another format"
    )


def test_an_object_whose_repr_fails(tmp_path: Path) -> None:
    """What cannot even be shown is refused like all else."""
    document = richstore.document(tmp_path / "x.json", data={"a": Unshowable()})
    with pytest.raises(EncodingError) as caught:
        document.commit()
    assert caught.value.path == "['a']"


class Unshowable:
    def __repr__(self) -> str:
        raise RuntimeError("no")


# --- comparing ---


class Contrary:
    """Equal to nothing, or raises when it is asked."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("not to be compared")

    __hash__ = None  # type: ignore[assignment]


class Slotted:
    __slots__ = ("x",)

    def __init__(self, x: Any) -> None:
        self.x = x


EQUAL = {
    "nan": lambda: float("nan"),
    "arrays": lambda: {"a": numpy.arange(5), "b": [numpy.float64(1.5)]},
    "contrary": lambda: [Contrary(1)],
    "slots": lambda: (Slotted([1]),),
    "deque": lambda: collections.deque([1, [2]], maxlen=3),
    "moment": lambda: datetime.datetime(2024, 2, 29, 12, tzinfo=datetime.UTC),
    "decimal": lambda: {"x": decimal.Decimal("1.50")},
    "range": lambda: range(5),
    "exception": lambda: ValueError("x", 1),
    "set": lambda: {(1, 2.0), "a", frozenset({1})},
    "key": lambda: {float("nan"): 1, (1, -0.0): 2},
    "cycle": lambda: cyclic(),
}


def cyclic() -> Any:
    """Return a list that has itself inside."""
    value: list[Any] = [1]
    value.append({"self": value, "odd": {1, 2}})
    return value


@pytest.mark.parametrize("name", EQUAL)
def test_equal_values_do_not_differ(name: str) -> None:
    """Two values that were made in the same way have no difference, whatever their `==` says."""
    assert difference(EQUAL[name](), EQUAL[name]()) is None


@pytest.mark.parametrize(
    ("one", "other", "path"),
    [
        (1, True, ""),
        ([1.0], [1], "[0]"),
        (0.0, -0.0, ""),
        (complex(1, 0.0), complex(1, -0.0), ""),
        ({1: "a"}, {True: "a"}, "[1]"),
        ({(1,): "a"}, {(True,): "a"}, "[(1,)]"),
        ({frozenset({1}): "a"}, {frozenset({1.0}): "a"}, "[frozenset({1})]"),
        ({"a": 1}, {"a": 1, "b": 2}, ""),
        ({"a": 1, "b": 2}, {"a": 1}, "['b']"),
        ({1, 2}, {True, 2}, ""),
        ([[], [1]], [[], [1, 2]], "[1]"),
        ({"a": Slotted(1)}, {"a": Slotted(2)}, "['a'][1].x"),
        ([Contrary(1)], [Contrary(2)], "[0].number"),
        ([numpy.arange(3)], [numpy.arange(3.0)], None),
        ([numpy.arange(3)], [numpy.array([0, 1, 3])], None),
        (decimal.Decimal("1.0"), decimal.Decimal("1.00"), None),
        (collections.OrderedDict(a=1, b=2), collections.OrderedDict(b=2, a=1), None),
        (datetime.datetime(2024, 1, 1), datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC), ""),
        (
            datetime.datetime(2024, 1, 1, 1, tzinfo=datetime.timezone(datetime.timedelta(hours=1))),
            datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC),
            "",
        ),
        (int, float, ""),
        (cyclic(), [1, {"self": [1], "odd": {1, 2}}], "[1]['self']"),
    ],
)
def test_different_values_differ(one: Any, other: Any, path: str | None) -> None:
    """Two values that differ in a type, a sign, a key or an item do so at that place."""
    for ours, theirs in ((one, other), (other, one)):
        found = difference(ours, theirs)
        assert found is not None
    found = difference(one, other)
    assert found is not None
    if path is not None and not path.endswith(".x"):
        assert found[0] == path


def test_the_order_of_keys_does_not_matter() -> None:
    """Dicts are equal in any order of their keys, as in Python, so `sort_keys` is no loss."""
    assert difference({"a": 1, "b": {"c": 1, "d": 2}}, {"b": {"d": 2, "c": 1}, "a": 1}) is None


def test_comparing_is_linear() -> None:
    """Four times as many keys take four times as long, also where the pickles are not the same."""

    def seconds(count: int) -> float:
        one = {f"key {n}": {1, n} for n in range(count)}
        other = dict(reversed(one.items()))
        best = float("inf")
        for _ in range(3):
            began = time.process_time()
            assert difference(one, other) is None
            best = min(best, time.process_time() - began)
        return best

    assert seconds(20_000) < 12 * seconds(5_000)


def test_comparing_needs_no_stack() -> None:
    """Values nested deeper than the stack are compared."""

    def nested(inner: Any) -> Any:
        for _ in range(50_000):
            inner = [inner]
        return inner

    one, same, other = nested({1, 2}), nested({2, 1}), nested({1, 3})
    assert difference(one, same) is None
    found = difference(one, other)
    assert found is not None and found[0] == "[0]" * 50_000
    for value in (one, same, other):
        while isinstance(value, list):
            value = value.pop()


# --- which format ---


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("a.json", json.loads),
        ("a.JSON", json.loads),
        ("a", json.loads),
        ("a.txt", json.loads),
        (".json", json.loads),
        ("a.b.pickle", pickle.loads),
        ("a.pkl", pickle.loads),
        ("a.bson", bson.decode),
        ("a.msgpack", msgpack.unpackb),
        ("a.MPK", msgpack.unpackb),
    ],
)
def test_the_suffix_decides(tmp_path: Path, name: str, read: Callable[[bytes], Any]) -> None:
    """Without a format, the suffix of the name says which, and else it is JSON."""
    value = {"a": [1, "ä", None, 2.5]}
    richstore.document(tmp_path / name, data=value).commit()
    assert read((tmp_path / name).read_bytes()) == value
    assert reread(tmp_path / name) == value


def test_the_format_goes_before_the_suffix(tmp_path: Path) -> None:
    """A format that is given counts, by its name or as the module."""
    for format, read in (("pickle", pickle.loads), (pickle, pickle.loads), (json, json.loads)):
        path = tmp_path / "a.msgpack"
        richstore.document(path, data=[1], format=format).commit()
        assert read(path.read_bytes()) == [1]
        assert reread(path, format=format) == [1]


class Words:
    """A format of text with `dumps` and `loads`."""

    def dumps(self, value: Any, separator: str = " ") -> str:
        return separator.join(value)

    def loads(self, text: str, separator: str = " ") -> Any:
        return text.split(separator)


class Files:
    """A format with `dump` and `load`, of text or bytes."""

    @staticmethod
    def dump(value: Any, file: Any) -> None:
        file.write(value)

    @staticmethod
    def load(file: Any) -> Any:
        return file.read()


class Base85:
    """A format of bytes with `dumps` and `loads`."""

    dumps = staticmethod(lambda value: base64.b85encode(value))
    loads = staticmethod(lambda data: base64.b85decode(data))


@pytest.mark.parametrize(
    ("format", "options", "value"),
    [
        (marshal, {}, {"a": (1, {2}, b"3")}),
        (plistlib, {}, {"b": [1, b"2", True], "a": datetime.datetime(2024, 2, 29)}),
        (plistlib, {"dump_kwargs": {"fmt": plistlib.FMT_BINARY}}, {"a": [1.5]}),
        (cloudpickle, {}, {"a": (1, {2: Slotted})}),
        (Base85, {}, b"some bytes"),
        (Files, {}, b"\xff\r\n\0"),
        (Files(), {"is_binary": False}, "ä\r\n\n\r€"),
        (Words(), {"is_binary": False}, ["ä", "b"]),
        (
            Words(),
            {
                "is_binary": False,
                "load_kwargs": {"separator": "\r\n"},
                "dump_kwargs": {"separator": "\r\n"},
            },
            ["one two", "three"],
        ),
    ],
)
def test_any_module_or_object(tmp_path: Path, format: Any, options: Any, value: Any) -> None:
    """Whatever has dump and load, or dumps and loads, is a format, of bytes or of text."""
    path = tmp_path / "value"
    richstore.document(path, data=value, format=format, **options).commit()
    assert strict(reread(path, format=format, **options)) == strict(value)


def test_what_another_format_loses_is_refused(tmp_path: Path) -> None:
    """The formats of users are checked as the others are, unless lossy asks for the loss."""
    document = richstore.document(
        tmp_path / "words", data=["a b", "c"], format=Words(), is_binary=False
    )
    with pytest.raises(EncodingError, match=r"Words would give list \['a', 'b', 'c'\] back"):
        document.commit()
    assert not (tmp_path / "words").exists()
    lossy = richstore.document(
        tmp_path / "words", data=["a b", "c"], format=Words(), is_binary=False, lossy=True
    )
    lossy.commit()
    assert (tmp_path / "words").read_text() == "a b c"


def test_what_is_no_format(tmp_path: Path) -> None:
    """A name that is not known, and an object that can only do half, are refused."""

    class Half:
        @staticmethod
        def dumps(value: Any) -> str:
            return ""

    for wrong in ("yaml", "JSON", 3, object(), Half):
        with pytest.raises(ValueError, match="must be 'json', 'pickle', 'bson', 'msgpack'"):
            richstore.document(tmp_path / "x", format=wrong)


def test_options_of_the_format(tmp_path: Path) -> None:
    """`dump_kwargs` and `load_kwargs` reach the format."""
    path = tmp_path / "x.json"
    richstore.document(
        path, data={"b": 1, "a": 0.5}, dump_kwargs={"sort_keys": True, "indent": 1}
    ).commit()
    assert path.read_text() == '{\n "a": 0.5,\n "b": 1\n}'
    exact = richstore.document(path, load_kwargs={"parse_float": decimal.Decimal})
    assert exact.value["a"] == decimal.Decimal("0.5")
    packed = tmp_path / "x.msgpack"
    packed.write_bytes(msgpack.packb([1, [2]]))
    assert richstore.document(packed, load_kwargs={"use_list": False}).value == (1, (2,))


def test_bson_numbers(tmp_path: Path) -> None:
    """BSON's 64-bit numbers are read as int, also where the user has options of their own."""
    path = tmp_path / "x.bson"
    path.write_bytes(bson.encode({"a": 2**40, "b": [bson.Int64(1)]}))
    assert strict(reread(path)) == strict({"a": 2**40, "b": [1]})
    own = bson.codec_options.CodecOptions(tz_aware=True)
    assert type(reread(path, load_kwargs={"codec_options": own})["a"]) is bson.Int64
    moment = datetime.datetime(2024, 2, 29, tzinfo=datetime.UTC)
    options = {"codec_options": own}
    richstore.document(path, data={"t": moment}, load_kwargs=options).commit()
    assert reread(path, load_kwargs=options) == {"t": moment}
    with pytest.raises(EncodingError, match="outermost value must be a dict"):
        richstore.document(path, data=[1]).commit()


@pytest.mark.parametrize("name", ["bson", "msgpack"])
def test_an_extra_that_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Without its package a format says what to install."""
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ModuleNotFoundError, match=rf"pip install 'richstore\[{name}\]'"):
        richstore.document(tmp_path / f"x.{name}")


def test_the_other_package_bson(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package `bson` that is not that of pymongo is told from it."""

    class Other:
        dumps = loads = None

    monkeypatch.setitem(sys.modules, "bson", Other)  # type: ignore[misc]
    with pytest.raises(ModuleNotFoundError, match="not that of pymongo"):
        richstore.document(tmp_path / "x.bson")


# --- reading what others wrote ---


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b'\xef\xbb\xbf["\xc3\xa4"]', ["ä"]),
        (b"[1,\r\n 2]\r\n", [1, 2]),
        (b' {"a": 1, "a": 2} ', {"a": 2}),
        (b'["\\ud83d\\ude00", "\\ud800"]', ["\U0001f600", "\ud800"]),
        (b"NaN", float("nan")),
        (b"3", 3),
    ],
)
def test_json_of_others(tmp_path: Path, data: bytes, value: Any) -> None:
    """JSON with a byte order mark, other line ends, doubled keys and escapes is read as json does;
    what is not changed stays byte for byte.
    """
    path = tmp_path / "x.json"
    path.write_bytes(data)
    with richstore.document(path) as document:
        assert strict(plain(document.value)) == strict(value)
    assert path.read_bytes() == data


BROKEN = {
    "empty": (b"", "is empty"),
    "blank": (b"  \n", "is not JSON"),
    "cut": (b'{"a": [1, 2', "is not JSON"),
    "text": (b"hello", "is not JSON"),
    "latin-1": (b'["\xe4"]', "is not JSON"),
    "utf-16": ('["ä"]'.encode("utf-16"), "is not JSON"),
    "zeros": (bytes(100), "is not JSON"),
    "deep": (b"[" * 200_000, "is not JSON"),
    "a list": (b"[1]", "holds a list, and the default is a dict"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_file_that_is_something_else(tmp_path: Path, name: str) -> None:
    """A file without the right content is an error that says so, and stays as it is: when it is
    opened, and when it becomes so.
    """
    data, said = BROKEN[name]
    path = tmp_path / "x.json"
    path.write_bytes(data)
    with pytest.raises(FormatError, match=said) as caught:
        richstore.document(path, default={}, autosave=True)
    assert str(path) in str(caught.value)
    assert path.read_bytes() == data
    path.write_bytes(b'{"a": 1}')
    document = richstore.document(path, default={}, autosave=True)
    path.write_bytes(data)
    for touch in (
        lambda: document.value.update(b=2),
        document.reload,
        document.__enter__,
        lambda: document.update(lambda value: value.update(b=2)),
    ):
        with pytest.raises(FormatError, match=said):
            touch()
        assert path.read_bytes() == data
        assert document.value == {"a": 1}
    path.write_bytes(b'{"a": 3}')
    document.value["b"] = 2
    assert json.loads(path.read_bytes()) == {"a": 3, "b": 2}


@pytest.mark.parametrize("format", ["pickle", "bson", "msgpack"])
@pytest.mark.parametrize("data", [b"", b"\x80", b"\x00" * 5, b"hello world"])
def test_another_format_than_said(tmp_path: Path, format: str, data: bytes) -> None:
    """The same for the other formats, where the first bytes stand for nothing."""
    if format == "msgpack" and data == b"\x80":
        data = b"\xc1"  # the other is an empty map
    path = tmp_path / f"x.{format}"
    path.write_bytes(data)
    with pytest.raises(FormatError):
        richstore.document(path, default={}, autosave=True)
    assert path.read_bytes() == data


def test_truncated_anywhere(tmp_path: Path) -> None:
    """A file that was cut anywhere is never taken for a whole one."""
    for format in ("json", "pickle", "bson", "msgpack"):
        path = tmp_path / f"x.{format}"
        richstore.document(path, data={"a": [1, "text", {"b": None}]}).commit()
        whole = path.read_bytes()
        for size in range(len(whole)):
            path.write_bytes(whole[:size])
            with pytest.raises(FormatError):
                richstore.document(path)


def test_a_pickle_of_a_class_that_is_gone(tmp_path: Path) -> None:
    """A pickle whose class cannot be imported raises what pickle does, and notes the file."""
    path = tmp_path / "x.pickle"
    path.write_bytes(b"\x80\x04cno_such_module\nThing\n)R.")
    with pytest.raises(ModuleNotFoundError, match="no_such_module") as caught:
        richstore.document(path)
    assert str(path) in caught.value.__notes__[0]


# --- atomic_store ---

# what atomic_store 0.0.1 (bson 0.5.10) has written for this value
THEIRS_VALUE = {
    "runs": ["2024-02-29 12:00:00", "ä €"],
    "counts": {"a": 1, "b": -2.5},
    "big": 1099511627776,
    "none": None,
    "yes": True,
    "": [],
}
THEIRS = {
    "default": (
        None,
        b'{"runs": ["2024-02-29 12:00:00", "\\u00e4 \\u20ac"], "counts": {"a": 1, "b": -2.5}, '
        b'"big": 1099511627776, "none": null, "yes": true, "": []}',
    ),
    "json, compact": (
        "json",
        b'{"":[],"big":1099511627776,"counts":{"a":1,"b":-2.5},"none":null,'
        b'"runs":["2024-02-29 12:00:00","\\u00e4 \\u20ac"],"yes":true}',
    ),
    "pickle": (
        "pickle",
        b"\x80\x04\x95q\x00\x00\x00\x00\x00\x00\x00}\x94(\x8c\x04runs\x94]\x94(\x8c\x13"
        b"2024-02-29 12:00:00\x94\x8c\x06\xc3\xa4 \xe2\x82\xac\x94e\x8c\x06counts\x94}\x94(\x8c\x01"
        b"a\x94K\x01\x8c\x01b\x94G\xc0\x04\x00\x00\x00\x00\x00\x00u\x8c\x03big\x94\x8a\x06\x00\x00"
        b"\x00\x00\x00\x01\x8c\x04none\x94N\x8c\x03yes\x94\x88\x8c\x00\x94]\x94u.",
    ),
    "pickle, protocol 0": (
        "pickle",
        b"(dp0\nVruns\np1\n(lp2\nV2024-02-29 12:00:00\np3\naV\xe4 \\u20ac\np4\nasVcounts\np5\n"
        b"(dp6\nVa\np7\nI1\nsVb\np8\nF-2.5\nssVbig\np9\nL1099511627776L\nsVnone\np10\nNsVyes\n"
        b"p11\nI01\nsV\np12\n(lp13\ns.",
    ),
    "bson": (
        "bson",
        b"x\x00\x00\x00\x04runs\x00.\x00\x00\x00\x020\x00\x14\x00\x00\x002024-02-29 12:00:00\x00"
        b"\x021\x00\x07\x00\x00\x00\xc3\xa4 \xe2\x82\xac\x00\x00\x03counts\x00\x17\x00\x00\x00"
        b"\x10a\x00\x01\x00\x00\x00\x01b\x00\x00\x00\x00\x00\x00\x00\x04\xc0\x00\x12big\x00\x00"
        b"\x00\x00\x00\x00\x01\x00\x00\nnone\x00\x08yes\x00\x01\x04\x00\x05\x00\x00\x00\x00\x00",
    ),
}


@pytest.mark.parametrize("name", THEIRS)
def test_files_of_atomic_store(tmp_path: Path, name: str) -> None:
    """A file that atomic_store wrote opens as it is, is left alone, and can be changed."""
    format, data = THEIRS[name]
    path = tmp_path / "state"
    path.write_bytes(data)
    with richstore.document(path, format=format) as document:
        assert strict(plain(document.value)) == strict(THEIRS_VALUE)
    assert path.read_bytes() == data
    with richstore.document(path, format=format) as document:
        document.value["counts"]["c"] = 3
    changed = {**THEIRS_VALUE, "counts": {"a": 1, "b": -2.5, "c": 3}}
    assert strict(reread(path, format=format)) == strict(changed)


def test_formats_of_atomic_store(tmp_path: Path) -> None:
    """What its users wrote on its abstract classes is a format: dumps and loads, or dump and load,
    each with the keywords.
    """

    class Reversed:  # as AbstractFormatBstr
        def dumps(self, value: Any, **kwargs: Any) -> bytes:
            return json.dumps(value, **kwargs).encode()[::-1]

        def loads(self, data: bytes, **kwargs: Any) -> Any:
            return json.loads(data[::-1], **kwargs)

    class Wrapped:  # as WrapBinaryFormat, which is an AbstractFormatFile
        def dump(self, value: Any, file: Any, **kwargs: Any) -> None:
            file.write(Reversed().dumps(value, **kwargs))

        def load(self, file: Any, **kwargs: Any) -> Any:
            return Reversed().loads(file.read(), **kwargs)

    for format in (Reversed(), Wrapped()):
        path = tmp_path / type(format).__name__
        options = {"format": format, "dump_kwargs": {"separators": (",", ":")}}
        richstore.document(path, data={"a": [1, 2]}, **options).commit()
        assert path.read_bytes() == b'{"a":[1,2]}'[::-1]
        assert reread(path, **options) == {"a": [1, 2]}


# --- size ---


def test_formats_without_documents(tmp_path: Path) -> None:
    """A codec has the formats of documents, trusts bytes of unknown origin least, and has a key."""
    codec = Codec("pickle")
    data = codec.dumps({"a": [Word("word")]})
    with pytest.raises(richstore.UntrustedClassError, match=r"at the letter: .*Word"):
        codec.loads(data, "the letter")
    path = tmp_path / "x.pickle"
    path.write_bytes(data)
    assert codec.load(str(path)) == codec.loads(data, "", [str(path)]) == {"a": [Word("word")]}
    assert Codec("pickle", classes=[Word]).loads(data, "") == {"a": [Word("word")]}
    (tmp_path / "other").touch(0o666)
    (tmp_path / "other").chmod(0o666)
    with pytest.raises(richstore.UntrustedClassError):
        codec.loads(data, "", [str(path), str(tmp_path / "other")])
    with pytest.raises(EncodingError, match="JSON would give list"):
        Codec("json").dumps((1, 2))
    sealed = Codec("pickle", key=bytes(32))
    assert sealed.loads(sealed.dumps({"a": [Word("word")]}), "") == {"a": [Word("word")]}
    assert b"word" not in sealed.dumps("word")
    with richstore.open("memory:") as store:
        store["x"] = {"a": [1]}
        assert Codec("json").dumps(store["x"]) == b'{"a": [1]}'


def rows(count: int) -> list[Any]:
    """Return records of about a hundred bytes of JSON each."""
    return [{"n": n, "text": "x" * 40, "tags": [n, "t"], "f": n * 0.5} for n in range(count)]


@pytest.mark.timeout(0)
def test_a_large_document_costs_what_its_size_is(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Opening, changing and reloading a document take time in proportion to its size."""
    count = 100_000 if request.config.getoption("--long") else 2_000

    def seconds(count: int) -> Iterator[float]:
        path = tmp_path / f"{count}.json"
        path.write_text(json.dumps(rows(count)))
        began = time.process_time()
        document = richstore.document(path, autosave=True)
        yield time.process_time() - began
        for change in (
            lambda: document.value.append(1),
            lambda: document.value[5].update(n=-1),
            document.reload,
        ):
            began = time.process_time()
            change()
            yield time.process_time() - began

    small, large = list(seconds(count)), list(seconds(4 * count))
    request.node.user_properties.append(("seconds", large))
    for step, (one, other) in enumerate(zip(small, large, strict=True)):
        assert other < 12 * one + 0.5, (step, small, large)
    assert len(json.loads((tmp_path / f"{4 * count}.json").read_bytes())) == 4 * count + 1
