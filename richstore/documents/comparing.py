"""Comparing what was written with what comes back: strictly, type by type.

Nearly always they are equal, and `_have_one_pickle` says so at the speed of C. Only what is not
byte for byte the same there is walked, so the walk may take its time for a good answer.
"""

from __future__ import annotations

import datetime
import io
import math
import pickle
import struct
from collections.abc import Callable
from typing import Any

__all__ = ["difference", "short"]


def difference(ours: Any, theirs: Any) -> tuple[str, str, str] | None:
    """Return where two values differ, and what is there in each; None if they are equal.

    Equal are values of the same type and content all through; the order of the keys of a plain
    dict does not matter, and NaN is equal to NaN. What `==` of other classes says does not count:
    their states are compared, as pickle has them.
    """
    if ours is theirs or _are_equal_atoms(ours, theirs) or _have_one_pickle(ours, theirs):
        return None
    todo: list[tuple[_Path, Any, Any]] = [(None, ours, theirs)]
    # the values are kept with their ids, or an id could come again
    seen: dict[tuple[int, int], tuple[Any, Any]] = {}
    while todo:
        path, one, other = todo.pop()
        pair = id(one), id(other)
        if one is other or pair in seen or _are_equal_atoms(one, other):
            continue
        seen[pair] = one, other
        found = _compare(one, other) if type(one) is type(other) else _differ(one, other)
        if isinstance(found, tuple):
            step, *texts = found
            return (_text((path, step)), *texts)  # type: ignore[return-value]
        todo += [((path, step), a, b) for step, a, b in reversed(found)]
    return None


# the steps that lead to a value: those to its container, and the last one
_Path = tuple[Any, str] | None
_Parts = list[tuple[str, Any, Any]]
_Difference = tuple[str, str, str]
_ATOMS: frozenset[type] = frozenset({int, str, bytes, bool, type(None)})


def _are_equal_atoms(one: Any, other: Any) -> bool:
    kind = type(one)
    return kind is type(other) and kind in _ATOMS and bool(one == other)


def _have_one_pickle(one: Any, other: Any) -> bool:
    """Tell whether two values surely are equal: most are, and this is C alone."""
    try:
        return _fast_pickle(one) == _fast_pickle(other)
    except Exception:  # noqa: BLE001 - what cannot be pickled is compared in another way
        return False


def _fast_pickle(value: Any) -> bytes:
    file = io.BytesIO()
    pickler = pickle.Pickler(file, 5)
    pickler.fast = True  # no references, so it does not matter what is the same object
    pickler.dump(value)
    return file.getvalue()


def _compare(one: Any, other: Any) -> _Parts | _Difference:
    """Return the parts of two values of one type that must be equal, or how they differ."""
    kind = type(one)
    if kind is dict:
        return _compare_dicts(one, other)
    if kind is list or kind is tuple:
        if len(one) != len(other):
            return _differ(one, other)
        return [(f"[{at}]", a, b) for at, (a, b) in enumerate(zip(one, other, strict=True))]
    if kind in _COMPARED:
        return [] if _COMPARED[kind](one, other) else _differ(one, other)
    return _compare_states(one, other)


def _compare_dicts(one: dict[Any, Any], other: dict[Any, Any]) -> _Parts | _Difference:
    theirs = {_exact(key): key for key in other}
    parts = []
    missing = []
    for key, value in one.items():
        key_of_theirs = theirs.pop(_exact(key), _MISSING)
        step = f"[{short(key)}]"
        if key_of_theirs is _MISSING:
            missing.append(step)
        else:
            parts.append((step, value, other[key_of_theirs]))
    if missing or theirs:
        step = missing[0] if missing else ""
        ours = f"the key {step[1:-1]}" if missing else "no such key"
        return (
            step,
            ours,
            next((f"the key {short(key)}" for key in theirs.values()), "no such key"),
        )
    return parts


def _compare_states(one: Any, other: Any) -> _Parts | _Difference:
    """Compare two objects by what pickle would make them from."""
    try:
        ours, theirs = one.__reduce_ex__(4), other.__reduce_ex__(4)
    except Exception:  # noqa: BLE001 - it cannot be pickled
        return [] if _is_equal(one, other) else _differ(one, other)
    if isinstance(ours, str) or isinstance(theirs, str):
        # a name: only the same object is equal
        return _differ(one, other)
    function, arguments, state, items, pairs = (*ours, None, None, None)[:5]
    its = (*theirs, None, None, None)[:5]
    parts = [
        ("", function, its[0]),
        ("", arguments, its[1]),
        ("", list(items or ()), list(its[3] or ())),
        ("", list(pairs or ()), list(its[4] or ())),
    ]
    if type(state) is dict and type(its[2]) is dict and state.keys() == its[2].keys():
        return parts + [(f".{name}", state[name], its[2][name]) for name in state]
    return [*parts, ("", state, its[2])]


def _is_equal(one: Any, other: Any) -> bool:
    try:
        return bool(one == other)
    except Exception:  # noqa: BLE001 - what cannot be compared is not equal
        return False


def _differ(one: Any, other: Any) -> _Difference:
    return "", _say(one), _say(other)


def _equal_floats(one: float, other: float) -> bool:
    return struct.pack("d", one) == struct.pack("d", other) or (
        math.isnan(one) and math.isnan(other)
    )


def _equal_times(one: Any, other: Any) -> bool:
    """Tell whether two times are the same with the same offset, whatever class has the offset."""
    return bool(one == other and one.utcoffset() == other.utcoffset() and one.fold == other.fold)


_MISSING: Any = object()
_COMPARED: dict[type, Callable[[Any, Any], bool]] = {
    **{kind: lambda one, other: bool(one == other) for kind in _ATOMS},
    float: _equal_floats,
    complex: lambda one, other: (
        _equal_floats(one.real, other.real) and _equal_floats(one.imag, other.imag)
    ),
    bytearray: lambda one, other: bool(one == other),
    set: lambda one, other: {*map(_exact, one)} == {*map(_exact, other)},
    frozenset: lambda one, other: {*map(_exact, one)} == {*map(_exact, other)},
    datetime.datetime: _equal_times,
    datetime.time: _equal_times,
}


def _exact(key: Any) -> Any:
    """Return what is equal for keys of the same type and content only."""
    kind = type(key)
    if kind is float:
        return kind, "nan" if math.isnan(key) else struct.pack("d", key)
    if kind is tuple:
        return kind, tuple(map(_exact, key))
    if kind is frozenset:
        return kind, frozenset(map(_exact, key))
    return kind, key


def _text(path: _Path) -> str:
    steps = []
    while path is not None:
        path, step = path
        steps.append(step)
    return "".join(reversed(steps))


def _say(value: Any) -> str:
    return f"{type(value).__name__} {short(value)}"


def short(value: Any) -> str:
    """Return the repr of a value, cut where it is long."""
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - the error about the value is not to be replaced by another
        text = object.__repr__(value)
    return text if len(text) < 60 else text[:57] + "..."
