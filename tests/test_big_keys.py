"""Keys of big dicts and elements of big sets: whatever is equal is one, as in a plain dict.

A spread dict finds its entries by bytes. So keys of all classes that are equal to each other are
tried here, and probes that decide for themselves what they are equal to.
"""

from __future__ import annotations

import datetime as dt
import pathlib
import uuid
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from sample_classes import Color, Hashable, Label, Level, Metres
from test_big import N, numbered

import richstore

pytestmark = pytest.mark.timeout(90)

plain = richstore.plain

# --- keys -----------------------------------------------------------------------------------

PLUS = dt.timezone(dt.timedelta(hours=2))
# a key, and objects of other classes that are equal to it
EQUAL: dict[str, tuple[Any, list[Any]]] = {
    "int": (3, [3.0, Decimal(3), Fraction(3), 3 + 0j, Metres(3)]),
    "one": (1, [True, 1.0, Decimal("1.00")]),
    "true": (True, [1, 1.0, Fraction(1)]),
    "zero": (0, [False, -0.0, 0j]),
    "minus zero": (-0.0, [0, False]),
    "float": (2.5, [Decimal("2.5"), Fraction(5, 2), 2.5 + 0j]),
    "huge": (2**70, [float(2**70), Decimal(2**70)]),
    "infinity": (float("inf"), [Decimal("Infinity")]),
    "decimal": (Decimal("7.5"), [7.5, Fraction(15, 2), Decimal("7.50")]),
    "whole decimal": (Decimal(7), [7, 7.0, Metres(7)]),
    "exact decimal": (Decimal("0.1"), [Fraction(1, 10)]),
    "fraction": (Fraction(1, 4), [0.25, Decimal("0.25")]),
    "third": (Fraction(1, 3), [Fraction(2, 6)]),
    "whole fraction": (Fraction(8), [8, 8.0]),
    "complex": (9 + 0j, [9, 9.0]),
    "imaginary": (1 + 2j, [complex(1.0, 2.0)]),
    "metres": (Metres(11), [11, 11.0]),
    "text": ("text", [Label("text")]),
    "label": (Label("label"), ["label"]),
    "bytes": (b"bytes", [bytes(bytearray(b"bytes"))]),
    "none": (None, [None]),
    "ellipsis": (..., [Ellipsis]),
    "long": ("long " * 300, [Label("long " * 300)]),
    "empty": ("", [Label("")]),
    "tuple": ((1, "a", (True, 2)), [(1.0, "a", (1, 2.0)), (True, Label("a"), (1, Decimal(2)))]),
    "no tuple": ((), [()]),
    "long tuple": ((*range(400),), [tuple(map(float, range(400)))]),
    "frozenset": (frozenset({1, "x"}), [frozenset({1.0, "x"}), frozenset({"x", True})]),
    "enum": (Color.RED, [Color.RED]),
    "int enum": (Level.HIGH, [2, 2.0]),
    "date": (dt.date(2024, 2, 29), [dt.date(2024, 2, 29)]),
    "datetime": (dt.datetime(2024, 1, 1, 12), [dt.datetime(2024, 1, 1, 12, fold=1)]),
    "aware": (
        dt.datetime(2024, 1, 1, 12, tzinfo=dt.UTC),
        [dt.datetime(2024, 1, 1, 14, tzinfo=PLUS)],
    ),
    "time": (dt.time(5), [dt.time(5, 0)]),
    "duration": (dt.timedelta(days=1), [dt.timedelta(hours=24)]),
    "uuid": (uuid.UUID(int=5), [uuid.UUID(int=5)]),
    "range": (range(0, 3, 2), [range(0, 4, 2)]),
    "path": (pathlib.PurePosixPath("a/b"), [pathlib.PurePosixPath("a//b")]),
    "class": (int, [int]),
    "instance": (Hashable(5), [Hashable(5)]),
}
LOOKALIKES = ["3", b"3", ("text",), [3], "None", "1", b"text", (1, "a"), "Color.RED"]


class Proxy:
    """Equal to what it stands for, with its hash."""

    def __init__(self, target: Any) -> None:
        self.target = target

    def __eq__(self, other: object) -> bool:
        return bool(self.target == other)

    def __hash__(self) -> int:
        return hash(self.target)


@pytest.mark.parametrize("kind", EQUAL)
def test_a_key_and_its_equals(box: Any, kind: str) -> None:
    """An entry of a big dict is found, replaced and removed by any object equal to its key."""
    key, equals = EQUAL[kind]
    model: dict[Any, Any] = {**numbered(1000), key: ["x"], **{f"z{n}": n for n in range(1000)}}
    box.store["k"] = dict(model)
    for store in box.live_and_reopened():
        big = store["k"]
        for probe in equals:
            assert probe in big
            assert big[probe] == ["x"]
            assert big.get(probe) == ["x"]
            assert probe in big.keys()  # noqa: SIM118 - the view is what is asked
        for probe in [Proxy(key), *LOOKALIKES]:
            assert found(big, probe) == found(model, probe)
        assert classes(big) == classes(model)
        assert list(big) == list(model)
    for probe in equals:
        big[probe] = [str(type(probe))]
        model[probe] = [str(type(probe))]
        assert len(big) == len(model) == 2001
        assert big.setdefault(probe, 5) == [str(type(probe))]
    for store in box.live_and_reopened():
        big = store["k"]
        assert classes(big) == classes(model)
        assert list(big.items()) == list(model.items())
    assert big.pop(equals[0]) == model.pop(equals[0])
    with pytest.raises(KeyError):
        big[key]
    big[equals[0]] = model[equals[0]] = "again, at the end"
    for store in box.live_and_reopened():
        big = store["k"]
        assert list(big.items()) == list(model.items())


@pytest.mark.parametrize("kind", EQUAL)
def test_a_member_and_its_equals(box: Any, kind: str) -> None:
    """An element of a big set is found, kept and removed by any object equal to it."""
    key, equals = EQUAL[kind]
    model = {f"m {n}" for n in range(N)} | {key}
    box.store["k"] = set(model)
    for store in box.live_and_reopened():
        big = store["k"]
        for probe in equals:
            assert probe in big
            big.add(probe)
            assert len(big) == N + 1
        for probe in [Proxy(key), *LOOKALIKES]:
            assert found(big, probe) == found(model, probe)
        assert big == model
        assert big & {equals[0]} == {key}
        (member,) = (x for x in big if x == key)
        assert member.__class__ is key.__class__
    big.remove(equals[0])
    assert key not in big
    big.discard(key)
    big |= {equals[-1]}
    assert box.stored("k") == model


def classes(container: Any) -> list[type]:
    """Return the class of each key, as isinstance sees it."""
    return [key.__class__ for key in container]


def found(container: Any, probe: Any) -> Any:
    """Return whether a probe is found and what under it, or the class of what asking raises."""
    try:
        return probe in container, container.get(probe) if hasattr(container, "get") else None
    except Exception as error:
        return type(error)


def test_every_key_in_one_dict(box: Any) -> None:
    """Keys of all kinds live beside each other in one big dict, in the order of their insertion."""
    model: dict[Any, Any] = {}
    for at, (key, _equals) in enumerate(EQUAL.values()):
        if not isinstance(key, Hashable):
            model[key] = [at]
            model.update((f"between {at} {n}", n) for n in range(60))
    box.store["k"] = {}
    big = box.store["k"]
    with box.store.transaction():
        for key, value in model.items():
            big[key] = value
    for store in box.live_and_reopened():
        assert list(store["k"].items()) == list(model.items())
        assert classes(store["k"]) == classes(model)
        assert list(reversed(store["k"])) == list(reversed(model))
        assert all(store["k"][key] == value for key, value in model.items())
    big = box.store["k"]
    for key in list(model)[::3]:
        assert plain(big.pop(key)) == model.pop(key)
    assert list(box.stored("k").items()) == list(model.items())


def test_nan_is_a_key_of_its_own(box: Any) -> None:
    """Each nan is another key; they stay, in order, and another nan does not find them."""
    first, second = float("nan"), float("nan")
    box.store["k"] = {**numbered(), first: "first", "z": 1, second: "second"}
    box.store["s"] = {first, second, *range(N)}
    for store in box.live_and_reopened():
        big, members = store["k"], store["s"]
        assert len(big) == N + 3
        assert list(big.values())[N:] == ["first", 1, "second"]
        assert [key != key for key in list(big)[N:]] == [True, False, True]
        assert float("nan") not in big
        assert big.get(float("nan"), "none") == "none"
        assert len(members) == N + 2
        assert sum(x != x for x in members) == 2
        assert float("nan") not in members
    big[float("nan")] = "third"
    assert len(big) == N + 4
    (_nan, value), (other, _) = big.popitem(), big.popitem()
    assert value == "third"
    assert other != other
    assert list(box.stored("k").values())[N:] == ["first", 1]


def test_keys_with_their_own_equality(box: Any) -> None:
    """A big dict and set whose keys are instances with __eq__ work as any other."""
    model: dict[Any, Any] = {Hashable(n): [n] for n in range(N)}
    box.store["k"], box.store["s"] = dict(model), set(model)
    for store in box.live_and_reopened():
        big, members = store["k"], store["s"]
        assert big[Hashable(1500)] == [1500]
        assert Hashable(N) not in big
        assert Hashable(7) in members
        assert [key.number for key in big] == list(range(N))
    big[Hashable(1500)].append("x")
    big[Hashable(3)] = "replaced"
    del big[Hashable(5)]
    big["of another kind"] = [1]
    members.remove(Hashable(7))
    members.add(7)
    for store in box.live_and_reopened():
        big, members = store["k"], store["s"]
        assert big[Hashable(1500)] == [1500, "x"]
        assert big[Hashable(3)] == "replaced"
        assert [key.number for key in list(big)[:6]] == [0, 1, 2, 3, 4, 6]
        assert list(big)[-1] == "of another kind"
        assert Hashable(7) not in members
        assert len(members) == N


def test_a_key_with_its_own_equality_comes_into_a_big_dict(box: Any) -> None:
    """A big dict that gets a key with its own __eq__, and loses it again, keeps all it has."""
    model: dict[Any, Any] = numbered()
    box.store["k"] = numbered()
    big = box.store["k"]
    held = big["key 01500"]
    for v in (big, model):
        v[Hashable(5)] = ["special"]
        v["after"] = [1]
    assert big[Hashable(5)] == ["special"]
    assert big["key 01500"] is held
    held.append("x")
    model["key 01500"].append("x")
    assert list(box.stored("k").values()) == list(model.values())
    big = box.store["k"]
    del big[Hashable(5)], model[Hashable(5)]
    assert list(box.stored("k").items()) == list(model.items())


def test_probes_that_decide_for_themselves(box: Any) -> None:
    """A probe with its own __eq__ and __hash__ finds in a big dict what it finds in a dict."""

    class Shy(str):
        def __eq__(self, other: object) -> bool:
            return False

        __hash__ = str.__hash__

    class Lower(str):
        def __eq__(self, other: object) -> bool:
            return isinstance(other, str) and self.lower() == other.lower()

        def __hash__(self) -> int:
            return hash(self.lower())

    class Angry:
        def __eq__(self, other: object) -> bool:
            raise LookupError("compared")

        def __hash__(self) -> int:
            return hash("key 00005")

    model = numbered()
    box.store["k"] = numbered()
    for store in box.live_and_reopened():
        big = store["k"]
        for probe in (Shy("key 00005"), Lower("KEY 00005"), Lower("KEY x"), Angry(), Proxy(5)):
            assert found(big, probe) == found(model, probe), type(probe)
