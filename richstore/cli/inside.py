"""What is inside a value, under which key of a path: items, positions, elements, attributes."""

from __future__ import annotations

import re
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

from richstore import Missing, Sealed
from richstore.cli.failures import Absent, Failure
from richstore.cli.paths import Path, write_path
from richstore.errors import RichStoreError

__all__ = ["Unreadable", "attributes", "children", "kind", "put", "readable", "remove", "value_at"]

_SEQUENCES = (list, tuple, deque)
_SETS = (set, frozenset)


class Unreadable:
    """What is shown of a value that is damaged, or of a class that is not allowed."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def __repr__(self) -> str:
        return str(self._error)


# Shown by their `repr` alone: what is no data, or hides it.
_WHOLE = (
    *(type, FunctionType, BuiltinFunctionType, ModuleType, Enum),
    *(Missing, Sealed, Unreadable),
)


def attributes(value: Any) -> dict[str, Any]:
    """Return the attributes of an instance, those in slots too; of what Python brings, none."""
    if isinstance(value, _WHOLE):
        return {}
    names = dict.fromkeys(getattr(value, "__dict__", ()))
    for cls in value.__class__.__mro__:
        if cls.__module__.partition(".")[0] not in sys.stdlib_module_names:
            slots = cls.__dict__.get("__slots__", ())
            names |= dict.fromkeys([slots] if isinstance(slots, str) else slots)
    return {
        name: getattr(value, name)
        for name in names
        if name not in ("__dict__", "__weakref__") and hasattr(value, name)
    }


def children(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield what is inside a value, with the key that leads to it; nothing for a simple value."""
    if isinstance(value, Mapping):
        yield from value.items()
    elif isinstance(value, tuple) and hasattr(value, "_fields"):
        yield from zip(value._fields, value, strict=True)
    elif isinstance(value, _SEQUENCES):
        yield from enumerate(value)
    elif isinstance(value, _SETS):
        yield from ((element, element) for element in value)
    else:
        yield from attributes(value).items()


def kind(value: Any) -> str:
    """Return what a value is, for people: `list of 3`, `str`, `Account`."""
    if isinstance(value, Missing):
        return f"missing {value.__class__.__richstore_missing__}"
    name = value.__class__.__qualname__
    has_size = isinstance(value, (Mapping, *_SEQUENCES, *_SETS)) and not hasattr(value, "_fields")
    return f"{name} of {len(value):,}" if has_size else name


def readable(place: Any, keys: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
    """Yield the values of keys, and for each that cannot be read what is shown instead."""
    for key in keys:
        try:
            yield key, place[key]
        except OSError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever the code of a class does
            # it may have been deleted just now
            if key in place:
                yield key, Unreadable(error)


def value_at(root: Mapping[Any, Any], path: Path) -> Any:
    """Return the value that a path leads to.

    Raises:
        Absent: there is none.
    """
    value: Any = root
    for at, key in enumerate(path):
        try:
            value = _step(value, key)
        except (LookupError, TypeError):
            raise Absent(_absent(root, path[:at], value, key)) from None
    return value


def _step(value: Any, key: Any) -> Any:
    if isinstance(value, Mapping):
        # asked before, since `[]` of a Counter or defaultdict has something for every key
        if key in value:
            return value[key]
    elif isinstance(value, _SETS):
        if key in value:
            return key
    elif isinstance(key, str):
        if key in attributes(value) or key in getattr(value, "_fields", ()):
            return getattr(value, key)
        if isinstance(value, Missing) and hasattr(value, key):
            return getattr(value, key)
    elif isinstance(key, int) and _has_positions(value):
        return value[key]
    raise KeyError(key)


def _has_positions(value: Any) -> bool:
    return hasattr(value.__class__, "__getitem__") and not isinstance(value, (str, bytes))


def _absent(root: Any, above: Path, value: Any, key: Any) -> str:
    said = f"there is no {write_path((*above, key))}"
    if not above:
        is_number = isinstance(key, str) and re.fullmatch(r"-?[0-9]{1,18}", key)
        return f"{said}; the number is written [{key}]" if is_number and int(key) in root else said
    said += f"; {write_path(above)} is a {kind(value)}"
    if isinstance(value, _SEQUENCES) and isinstance(key, str) and not hasattr(value, "_fields"):
        said += f", and its items are {write_path(above)}[0] and so on"
    return said


def put(root: Any, path: Path, value: Any) -> None:
    """Set what a path leads to.

    Raises:
        Absent: what it is to be in is not there.
        Failure: it cannot be set there.
    """
    parent, key = value_at(root, path[:-1]), path[-1]
    if isinstance(parent, _SETS) or (
        isinstance(key, str) and isinstance(parent, _SEQUENCES) and not attributes(parent)
    ):
        raise Failure(f"{write_path(path)} cannot be set: {_what(path)} is a {kind(parent)}")
    try:
        if isinstance(parent, Mapping) or not isinstance(key, str):
            parent[key] = value
        else:
            setattr(parent, key, value)
    except IndexError:
        raise Absent(_absent(root, path[:-1], parent, key) + "; append adds to it") from None
    except (RichStoreError, OSError):
        raise
    except Exception as error:
        raise _refused(path, "set", error) from error


def remove(root: Any, path: Path) -> None:
    """Remove what a path leads to.

    Raises:
        Absent: it is not there.
        Failure: it cannot be removed.
    """
    parent, key = value_at(root, path[:-1]), path[-1]
    value_at(root, path)
    try:
        if isinstance(parent, _SETS):
            parent.remove(key)  # type: ignore[union-attr]
        elif isinstance(parent, Mapping) or not isinstance(key, str):
            del parent[key]
        else:
            delattr(parent, key)
    except (RichStoreError, OSError):
        raise
    except Exception as error:
        raise _refused(path, "removed", error) from error


def _refused(path: Path, what: str, error: Exception) -> Failure:
    """Return what is to be raised for what the code of a value's class raised."""
    text = f"{error.__class__.__name__}: {error}"
    return Failure(f"{write_path(path)} cannot be {what}: {text}")


def _what(path: Path) -> str:
    return write_path(path[:-1]) or "the store"
