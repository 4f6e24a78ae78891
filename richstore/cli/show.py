"""Values as text and as JSON, for people and for other programs.

No code of a value's class is run for it where the attributes tell what there is.
"""

from __future__ import annotations

import base64
import json
import math
from collections import deque
from collections.abc import Iterator, Mapping
from datetime import date
from typing import Any

from richstore.cli.failures import Failure
from richstore.cli.inside import children
from richstore.cli.literals import write_key

__all__ = ["as_json", "json_text", "line", "text"]

WIDTH = 100
_BUILT_IN = (list, tuple, set, dict)


def line(value: Any, width: int = 60) -> str:
    """Return a value on one line, cut where it is longer."""
    made = ""
    for piece in _pieces(value, ()):
        made += piece
        if len(made) > width:
            return made[: width - 1] + "…"
    return made


def text(value: Any, indent: int = 0, before: tuple[int, ...] = ()) -> str:
    """Return all of a value, over several lines where one is not enough."""
    made = ""
    for piece in _pieces(value, before):
        made += piece
        if len(made) > WIDTH - indent:
            break
    else:
        return made
    parts = None if id(value) in before else _parts(value)
    if parts is None:
        return "".join(_pieces(value, before))
    opening, closing, inside = parts
    margin = " " * (indent + 4)
    rows = [
        f"{margin}{label}{text(item, indent + 4, (*before, id(value)))},\n"
        for label, item in inside
    ]
    return f"{opening}\n{''.join(rows)}{' ' * indent}{closing}"


def _pieces(value: Any, before: tuple[int, ...]) -> Iterator[str]:
    parts = _parts(value)
    if parts is None:
        yield _simple(value)
        return
    opening, closing, inside = parts
    if id(value) in before:
        yield f"{opening}...{closing}"
        return
    yield opening
    count = 0
    for label, item in inside:
        yield f", {label}" if count else label
        yield from _pieces(item, (*before, id(value)))
        count += 1
    yield f",{closing}" if count == 1 and (opening, closing) == ("(", ")") else closing


def _parts(value: Any) -> tuple[str, str, Iterator[tuple[str, Any]]] | None:
    """Return how a container begins and ends, and its items with what stands before each."""
    name = value.__class__.__qualname__
    if isinstance(value, Mapping):
        brackets = "{}"
        inside = ((f"{_simple(key)}: ", item) for key, item in value.items())
    elif isinstance(value, (set, frozenset, list, deque, tuple)) and not hasattr(value, "_fields"):
        brackets = "{}" if isinstance(value, (set, frozenset)) else "[]"
        brackets = "()" if isinstance(value, tuple) else brackets
        inside = (("", item) for item in value)
    else:
        named = list(children(value))
        inside = ((f"{key}=", item) for key, item in named)
        return (f"{name}(", ")", inside) if named else None
    if value.__class__ in _BUILT_IN:
        is_empty_set = brackets == "{}" and not value and not isinstance(value, Mapping)
        return ("set(", ")", inside) if is_empty_set else (*brackets, inside)
    return f"{name}({brackets[0]}", f"{brackets[1]})", inside


def _simple(value: Any) -> str:
    cls = value.__class__
    if cls.__repr__ is object.__repr__:
        # an address says nothing, and is another one each time
        return f"{cls.__qualname__}()"
    if cls is int and not _has_digits(value):
        return hex(value)
    try:
        return repr(value)
    except Exception as error:  # noqa: BLE001 - whatever a class of the user's does
        return f"<{value.__class__.__qualname__}, whose repr fails: {error}>"


def _has_digits(value: int) -> bool:
    """Tell whether Python writes an int with its digits, as it does up to some thousands."""
    try:
        str(value)
    except ValueError:
        return False
    return True


def json_text(value: Any, indent: int | None = 2) -> str:
    """Return a value as JSON, which tells less: see `as_json`."""
    made = as_json(value)
    try:
        text = json.dumps(made, indent=indent, ensure_ascii=False)
        text.encode()
    except UnicodeEncodeError:
        text = json.dumps(made, indent=indent)
    return text


def as_json(value: Any, before: tuple[int, ...] = ()) -> Any:
    """Return the nearest to a value that JSON has.

    Sequences and sets are lists, instances are objects with their attributes, bytes are base64,
    and dates, numbers of other kinds and what is not known are texts. Keys that are no texts are
    written as in paths.

    Raises:
        Failure: the value contains itself, or a dict has two keys that JSON writes alike.
    """
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        return value if _has_digits(value) else hex(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if id(value) in before:
        raise Failure("the value contains itself, which JSON cannot say")
    before = (*before, id(value))
    if isinstance(value, (bytes, bytearray)):
        return base64.b64encode(bytes(value)).decode()
    if isinstance(value, (set, frozenset, list, deque, tuple)) and not hasattr(value, "_fields"):
        return [as_json(item, before) for item in value]
    if isinstance(value, Mapping) or (inside := dict(children(value))):
        pairs = value.items() if isinstance(value, Mapping) else inside.items()
        made = {_json_key(key): as_json(item, before) for key, item in pairs}
        if len(made) != len(pairs):
            raise Failure("two keys of a dict are the same in JSON, such as 1 and '1'")
        return made
    if isinstance(value, date):
        return value.isoformat()
    return str(value) if value.__class__.__module__ != "builtins" else _simple(value)


def _json_key(key: Any) -> str:
    return key if type(key) is str else write_key(key)
