"""Plain JSON: what it gives back equal, and an object that is written bit by bit."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from typing import Any, BinaryIO

from richstore.errors import EncodingError, FormatError

__all__ = ["json_bytes", "plain_json", "without_doubles", "write_object"]

_REMEDY = "export as JSON Lines, or write something like it with lossy=True"


def plain_json(value: Any, lossy: bool) -> Any:
    """Return a value that JSON can hold.

    Raises:
        EncodingError: JSON would not give it back equal, or, where that is wanted, has nothing
            like it.
    """
    try:
        if not lossy:
            _check(value)
        text = json.dumps(value, allow_nan=lossy)
        if lossy:
            # 1 and "1" are one key there
            json.loads(text, object_pairs_hook=without_doubles)
    except RecursionError:
        raise EncodingError("it is nested too deep for JSON, or holds itself") from None
    except EncodingError:
        raise
    except FormatError as error:
        raise EncodingError(f"as JSON {error}; export as JSON Lines") from None
    except (TypeError, ValueError) as error:
        raise EncodingError(f"JSON cannot hold it ({error}); export as JSON Lines") from error
    return value


def _check(value: Any) -> None:
    kind = type(value)
    if value is None or kind in (bool, int, str):
        return
    if kind is float:
        if not math.isfinite(value):
            raise EncodingError(f"JSON does not have {value!r}; {_REMEDY}")
    elif kind is list:
        for at, item in enumerate(value):
            _inside(f"[{at}]", item)
    elif kind is dict:
        for key, item in value.items():
            if type(key) is not str:
                raise EncodingError(
                    f"JSON would give back the key {key!r} as a str; {_REMEDY}", f"[{key!r}]"
                )
            _inside(f"[{key!r}]", item)
    else:
        raise EncodingError(f"JSON does not have the type {kind.__qualname__}; {_REMEDY}")


def _inside(step: str, value: Any) -> None:
    try:
        _check(value)
    except EncodingError as error:
        raise error.inside(step) from None


def write_object(
    rows: Iterable[tuple[str, Any]], file: BinaryIO, tell: Callable[[int], object]
) -> int:
    """Write an object whose members come one after the other; return how many there were."""
    count = 0
    file.write(b"{")
    for name, value in rows:
        file.write((b",\n" if count else b"\n") + json_bytes(name) + b": " + json_bytes(value))
        count += 1
        tell(count)
    file.write(b"\n}\n")
    return count


def json_bytes(value: Any) -> bytes:
    """Return a value as JSON in UTF-8."""
    try:
        return json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        # half a surrogate pair, which only an escape can hold
        return json.dumps(value).encode()


def without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make a dict of an object of JSON: what `json.loads` takes as `object_pairs_hook`.

    Raises:
        FormatError: a key is there twice.
    """
    made = dict(pairs)
    if len(made) != len(pairs):
        seen: set[str] = set()
        double = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise FormatError(f"an object has the key {double!r} twice")
    return made
