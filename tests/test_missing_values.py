"""Random values of classes that are not there for a while: they come back as they were."""

from __future__ import annotations

import contextlib
import copy
import pickle
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import canonical
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import richstore
from richstore.codec.missing import Missing
from richstore.nodes.missing import MissingKind

SOURCE = """
import collections
import enum

class Plain:
    def __init__(self, x, y):
        self.x, self.y = x, y

class Slots:
    __slots__ = ("a", "b")
    def __init__(self, a):
        self.a = a

class Own:
    def __init__(self, x):
        self.x = x
    def __getstate__(self):
        return ("state", self.x)
    def __setstate__(self, state):
        self.x = state[1]

class Reduced:
    def __init__(self, x):
        self.x = x
    def __reduce__(self):
        return (Reduced, (1,), {"x": self.x})

class Rows(list):
    pass

class Table(dict):
    pass

class Pair(collections.namedtuple("Pair", "x y")):
    pass

class Color(enum.Enum):
    RED = 1
    BLUE = 2

def rows(items, title):
    made = Rows(items)
    made.title = title
    return made
"""
MODULE = types.ModuleType("absent_module")
exec(SOURCE, MODULE.__dict__)
absent: Any = MODULE


@contextlib.contextmanager
def there() -> Iterator[None]:
    """Let the module be there."""
    sys.modules["absent_module"] = MODULE
    try:
        yield
    finally:
        del sys.modules["absent_module"]


LEAVES = st.one_of(
    st.integers(-5, 5),
    st.text(max_size=3),
    st.none(),
    st.sampled_from([absent.Color.RED, absent.Color.BLUE, absent.Plain, absent.rows]),
)


def _larger(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    items = st.lists(inner, max_size=3)
    return st.one_of(
        items,
        items.map(tuple),
        st.dictionaries(st.text(max_size=2), inner, max_size=3),
        st.dictionaries(st.sampled_from(list(absent.Color)), inner),
        st.builds(absent.Plain, inner, inner),
        st.builds(absent.Slots, inner),
        st.builds(absent.Own, st.integers()),
        st.builds(absent.Reduced, inner),
        st.builds(absent.rows, items, inner),
        st.dictionaries(st.text(max_size=2), inner, max_size=2).map(absent.Table),
        st.builds(absent.Pair, inner, inner),
        inner.map(lambda value: [value, value]),
    )


VALUES = st.recursive(LEAVES, _larger, max_leaves=12)


def beside(store: Any) -> None:
    """Change something beside it."""
    store["v"][0] += 1


def again(store: Any) -> None:
    """Assign it again, as plain data."""
    store["v"] = richstore.plain(store["v"])


def from_snapshot(store: Any) -> None:
    """Assign what a snapshot has."""
    with store.snapshot() as view:
        store["v"] = view["v"]


def deeply(store: Any) -> None:
    """Assign a deep copy."""
    store["v"] = copy.deepcopy(store["v"])


def pickled(store: Any) -> None:
    """Assign what pickle makes of it."""
    store["v"] = pickle.loads(pickle.dumps(store["v"]))


def moved(store: Any) -> None:
    """Move it to another key, and back."""
    store["w"] = store["v"]
    del store["v"]
    store["v"] = store["w"]


def grown(store: Any) -> None:
    """Let its record be divided, and joined again."""
    store["v"].extend("x" * 200 for _ in range(30))
    del store["v"][2:]


def twice_copied(store: Any) -> None:
    """Assign a copy of a copy."""
    store["v"] = copy.deepcopy(richstore.plain(store["v"]))


STEPS = st.lists(
    st.sampled_from([twice_copied, beside, again, from_snapshot, deeply, pickled, moved, grown]),
    max_size=4,
)


def come_back(path: Path, value: Any, steps: list[Any]) -> None:
    """Store a value, let its classes be missing for some steps, and compare it afterwards."""
    with there(), richstore.open(path, "n", synchronous="off") as store:
        store["v"] = [0, value]
    with there(), richstore.open(path, "r") as store:
        before = canonical(richstore.plain(store["v"][1]))
    for step in steps:
        with richstore.open(path, "w", synchronous="off") as store:
            step(store)
            assert not store.verify().problems
    with there(), richstore.open(path, "r") as store:
        assert canonical(richstore.plain(store["v"][1])) == before


@settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(value=VALUES, steps=STEPS)
def test_values_come_back(tmp_path: Path, value: Any, steps: list[Any]) -> None:
    """Whatever is done with a value while its classes are missing, it is what it was with them."""
    come_back(tmp_path / "store", value, steps)


@pytest.mark.parametrize("fault", ["scan", "state"])
def test_losses_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    """Placeholders that forget what they refer to, or a part of their state, do not pass."""
    value = [absent.Plain([1], [2]), absent.Slots([3]), absent.Own(1)]
    come_back(tmp_path / "store", value, [again, beside])
    if fault == "scan":
        monkeypatch.setattr(MissingKind, "scan", lambda self, node, adopt: [])
    else:
        keep = Missing.__deepcopy__

        def forgetful(self: Any, memo: Any) -> Any:
            made = keep(self, memo)
            made._richstore_kept.state = None
            return made

        monkeypatch.setattr(Missing, "__deepcopy__", forgetful)
    with pytest.raises((AssertionError, AttributeError, TypeError, pickle.UnpicklingError)):
        come_back(tmp_path / "faulty", value, [again, pickled, twice_copied, beside])
