"""Writing a store as text: `export`."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, BinaryIO

from richstore.codec.to_text import to_text
from richstore.errors import EncodingError, PlacedError
from richstore.groups import Group
from richstore.nodes import plain
from richstore.snapshot import Snapshot
from richstore.store import Store
from richstore.transfer.files import format_of, written
from richstore.transfer.plain_json import json_bytes, plain_json, write_object

__all__ = ["HEADER", "export"]

HEADER = {"richstore": "export", "version": 1}


def export(
    source: Mapping[Any, Any],
    target: str | os.PathLike[str] | BinaryIO,
    *,
    format: str | None = None,
    lossy: bool = False,
    replace: bool = False,
    progress: Callable[[int], object] | None = None,
) -> int:
    """Write all that is in a store, or in a group, as text.

    JSON Lines keeps every type, shared references inside of a value, and the groups; plain JSON is
    one object, and what it would not give back equal is refused. One value at a time is in memory.
    What is written is one state of the store, whatever others commit meanwhile. What the current
    transaction has not committed is not in it.

    Args:
        source: a store, a group, or a snapshot of one.
        target: the path of a new file, which others than you cannot read and which gets its name
            when it is complete; or a file that is open for writing bytes.
        format: `"jsonl"` or `"json"`; None: `"json"` if the path ends so, else `"jsonl"`.
        lossy: for `"json"`: write what is like it where JSON does not have a type: lists for
            tuples, strings for keys that are none, objects for groups.
        replace: whether a file that is there is replaced.
        progress: called with the number of items that are written.

    Returns:
        How many items were written.

    Raises:
        EncodingError: a value cannot be kept exactly; `path` leads to what cannot.
        FileExistsError: the file is there, and not to be replaced, or no regular file.
        OSError: it is a store that is open.

    Example:
        >>> import io, richstore, richstore.transfer
        >>> file = io.BytesIO()
        >>> with richstore.open("memory:") as store:
        ...     store["shops"] = ["shop1", ("shop2", {3})]
        ...     richstore.transfer.export(store, file)
        1
        >>> print(file.getvalue().decode().splitlines()[1])
        {"key": "shops", "value": ["shop1", {"$tuple": ["shop2", {"$set": [3]}]}]}
    """
    chosen = format_of(format, target)
    tell = progress or (lambda count: None)
    with _frozen(source) as view, written(target, replace) as file:
        if chosen == "json":
            return write_object(_plain_rows(view, lossy), file, tell)
        count = 0
        _write_line(file, HEADER)
        for path, key, value in _rows(view):
            line: dict[str, Any] = {"group": path} if path else {}
            line["key"], line["value"] = _as_text(path, key, value)
            _write_line(file, line)
            count += 1
            tell(count)
        _write_line(file, {"end": count})
    return count


def _frozen(source: Any) -> AbstractContextManager[Any]:
    """Return a state of what is exported that does not change meanwhile."""
    if isinstance(source, Store):
        return source.snapshot()
    if isinstance(source, Group):
        return _GroupAsItIs(source)
    return nullcontext(source)


class _GroupAsItIs:
    """A group in a snapshot of its own."""

    def __init__(self, group: Group[Any, Any]) -> None:
        self._snapshot: Snapshot = group.store.snapshot()
        self._path = group.path

    def __enter__(self) -> Any:
        view: Any = self._snapshot
        for name in self._path:
            view = view.group(name)
        return view

    def __exit__(self, *_: object) -> None:
        self._snapshot.close()


def _rows(view: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any, Any]]:
    for key, value in view.items():
        yield path, key, value
    for name in view.groups() if hasattr(view, "groups") else ():
        yield from _rows(view.group(name), (*path, name))


def _place(path: tuple[str, ...], key: Any) -> str:
    return "".join(f".group({name!r})" for name in path) + f"[{key!r}]"


def _as_text(path: tuple[str, ...], key: Any, value: Any) -> tuple[Any, Any]:
    try:
        return to_text(plain(key)), to_text(plain(value))
    except PlacedError as error:
        raise error.inside(_place(path, key)) from error.__cause__


def _write_line(file: BinaryIO, line: dict[str, Any]) -> None:
    file.write(json_bytes(line) + b"\n")


def _plain_rows(view: Any, lossy: bool) -> Iterator[tuple[str, Any]]:
    """Yield keys and values of the object that stands for a store, or for a group in it."""
    names: set[str] = set()
    for key, value in view.items():
        try:
            name = _name(key, lossy)
            if name in names:
                raise EncodingError(f"two keys would be {name!r}; export as JSON Lines")
            if lossy:
                # else keys are their own names
                names.add(name)
            yield name, plain_json(plain(value), lossy)
        except PlacedError as error:
            raise error.inside(_place((), key)) from error.__cause__
    for name in view.groups() if hasattr(view, "groups") else ():
        place = f".group({name!r})"
        if not lossy:
            raise EncodingError(
                "an object of JSON has no groups; export as JSON Lines, export this group alone, "
                "or write groups as objects with lossy=True",
                place,
            )
        if name in names:
            raise EncodingError(f"a key is {name!r} as well; export as JSON Lines", place)
        try:
            yield name, dict(_plain_rows(view.group(name), lossy))
        except PlacedError as error:
            raise error.inside(place) from error.__cause__


def _name(key: Any, lossy: bool) -> str:
    if type(key) is str:
        return key
    if lossy and (key is None or type(key) in (int, float, bool)):
        # as json has it for the keys of a dict
        return str(next(iter(json.loads(json.dumps({key: None})))))
    raise EncodingError(
        "the keys of an object of JSON are str; export as JSON Lines"
        + ("" if lossy else ", or write other keys as str with lossy=True")
    )
