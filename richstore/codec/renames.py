"""What classes and functions are called now: the names they had when records were written.

Names are matched whole, module and qualified name joined by a dot, and then by what they are inside
of: what is renamed takes the classes inside it along.
"""

from __future__ import annotations

import threading
import types
from typing import Any

__all__ = ["mentions_old_name", "names_of_now", "new_name", "renamed"]

_lock = threading.Lock()
# old name → the class or function; replaced as a whole, so that readers need no lock
_renamed: dict[str, Any] = {}

_FUNCTIONS = (types.FunctionType, types.BuiltinFunctionType)


def renamed(old: str, new: Any) -> None:
    """Say what a class or function is called now that records name by an old name.

    It holds for all stores of the process, also those that are open, from the next record that is
    read; values that are loaded already stay what they are until they are read again. What is
    written names the new one. `Store.migrate()` rewrites all that name the old one.

    Args:
        old: the name that records have: module and qualified name, joined by a dot.
        new: the class or function.

    Raises:
        TypeError: `new` is no class or function.
        ValueError: `old` is not such a name, is said to be another class already, or comes to be
            called itself.

    Example:
        >>> import datetime, richstore
        >>> richstore.renamed("app.models.Day", datetime.date)
    """
    if not isinstance(old, str):
        raise TypeError(f"old must be the name as a str, not {type(old).__name__}")
    parts = old.split(".")
    if len(parts) < 2 or not all(part.isidentifier() or part == "<locals>" for part in parts):
        raise ValueError(
            f"old is {old!r}, and must be a module and a name in it, as in 'app.models.User'"
        )
    if not isinstance(new, (type, *_FUNCTIONS)) or hasattr(new, "__richstore_missing__"):
        raise TypeError(f"new must be a class or function that is there, not {new!r}")
    with _lock:
        known = _renamed.get(old)
        if known is not None and _name_of(known) != _name_of(new):
            raise ValueError(
                f"{old} was said to be {_name_of(known)} now, and cannot be {_name_of(new)} too"
            )
        extended = {**_renamed, old: new}
        at: Any = new
        seen = {old}
        while at is not None:
            name = _name_of(at)
            if name in seen:
                raise ValueError(f"{old} cannot be {_name_of(new)}, which comes to be {name} again")
            seen.add(name)
            at = extended.get(name)
        _replace(extended)


def _replace(names: dict[str, Any]) -> None:
    global _renamed
    _renamed = names


def _name_of(thing: Any) -> str:
    return f"{thing.__module__}.{thing.__qualname__}"


def names_of_now() -> object:
    """Return what is another object as soon as something else is renamed."""
    return _renamed


def new_name(module: str, qualname: str) -> Any:
    """Return the class or function that is called otherwise now; None: it is not.

    Raises:
        AttributeError: it is inside of one that has nothing of that name.
    """
    names = _renamed
    if not names:
        return None
    name = f"{module}.{qualname}"
    inside: list[str] = []
    while len(name) > len(module):
        found = names.get(name)
        if found is not None:
            while _name_of(found) in names:
                found = names[_name_of(found)]
            for step in inside:
                found = getattr(found, step)
            return found
        name, _, step = name.rpartition(".")
        inside.insert(0, step)
    return None


def mentions_old_name(stored: bytes) -> bool:
    """Tell whether the pickle of a class by value seems to name what is called otherwise now."""
    for name in _renamed:
        parts = name.split(".")
        for at in range(1, len(parts)):
            module, qualname = ".".join(parts[:at]).encode(), ".".join(parts[at:]).encode()
            if _as_pickled(module) in stored and _as_pickled(qualname) in stored:
                return True
    return False


def _as_pickled(name: bytes) -> bytes:
    return b"\x8c" + bytes((len(name),)) + name if len(name) < 256 else name
