"""Reading what `export` has written: `load`."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from richstore.codec.from_text import from_text
from richstore.errors import FormatError, PlacedError
from richstore.opening import Classes
from richstore.transfer.exporting import HEADER
from richstore.transfer.files import Source, format_of, readable
from richstore.transfer.filling import Row, count_all, fill
from richstore.transfer.plain_json import without_doubles

__all__ = ["load"]


def load(
    source: str | os.PathLike[str] | BinaryIO,
    target: Any,
    *,
    format: str | None = None,
    classes: Classes | None = None,
    replace: bool = False,
    atomic: bool = False,
    progress: Callable[[int], object] | None = None,
) -> int:
    """Put what `export` has written into a store, or into a group of one.

    A file is data: nothing that it names is imported or called that `classes` does not allow. It
    is read to its end before anything is changed, so what is wrong in it leaves the store as it
    was. Then up to 10,000 items are one transaction, and more of them several; running it again
    completes what was interrupted.

    Args:
        source: the path of the file, or a file that is open for reading bytes.
        target: the store, or the group.
        format: `"jsonl"` or `"json"`; None: `"json"` if the path ends so, else `"jsonl"`.
        classes: as in `richstore.open`: by default `"any"` for a file that nobody but you may
            write, and `"none"` for every other.
        replace: whether what is there is removed before, groups too; else the items of the file
            are put beside it, or in its place where keys are equal.
        atomic: whether all is one transaction, which needs about 4 KB of memory for each item. A
            file that can be read only once, such as a pipe, is always read so.
        progress: called with the number of items that are stored.

    Returns:
        How many items were stored.

    Raises:
        FormatError: the file is not what `export` writes; the message names line and place.
        UntrustedClassError: it names a class that is not allowed.

    Example:
        >>> import io, richstore, richstore.transfer
        >>> file = io.BytesIO(b'{"shops": ["shop1"], "open": true}')
        >>> with richstore.open("memory:") as store:
        ...     richstore.transfer.load(file, store, format="json")
        ...     store.copy()
        2
        {'open': True, 'shops': ['shop1']}
    """
    read = _object if format_of(format, source) == "json" else _lines
    tell = progress or (lambda count: None)
    with readable(source, classes) as opened:
        count = None
        if not atomic and opened.file.seekable():
            start = opened.file.tell()
            count = count_all(target, read(opened))
            opened.file.seek(start)
        return fill(target, read(opened), replace=replace, count=count, tell=tell)


def _lines(source: Source) -> Iterator[Row]:
    """Yield the items of JSON Lines."""
    ended = False
    count = 0
    for number, text in enumerate(source.file, 1):
        where = f"{source.name}, line {number}"
        line = _parsed(text, where)
        if ended:
            raise FormatError(f"{where}: there is more behind the end; it was put together")
        if number == 1:
            _check_header(line, where)
        elif "end" in line:
            ended = True
            if line["end"] != count:
                raise FormatError(f"{where}: {line['end']} items are said, and {count} are there")
        else:
            yield _row(line, where, source)
            count += 1
    if not ended:
        raise FormatError(f"{source.name} ends too early; it is not complete")


def _parsed(text: bytes, where: str) -> dict[str, Any]:
    try:
        line = json.loads(text, object_pairs_hook=without_doubles)
    except FormatError as error:
        raise FormatError(f"{where}: {error}") from None
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{where}: it is not JSON ({error})") from error
    if type(line) is not dict:
        raise FormatError(f"{where}: it is not an object, but {type(line).__name__}")
    return line


def _check_header(line: dict[str, Any], where: str) -> None:
    if line.get("richstore") != HEADER["richstore"]:
        raise FormatError(
            f"{where}: an export begins with {json.dumps(HEADER)}; for plain JSON, give "
            f'format="json"'
        )
    if line.get("version") != HEADER["version"]:
        raise FormatError(
            f"{where}: a newer version has written it, {line.get('version')!r}; update richstore"
        )


def _row(line: dict[str, Any], where: str, source: Source) -> Row:
    path = line.get("group", [])
    unknown = line.keys() - {"group", "key", "value"}
    if unknown or not {"key", "value"} <= line.keys():
        raise FormatError(f"{where}: it has to have a key and a value, and maybe a group")
    if type(path) is not list or not all(type(name) is str for name in path):
        raise FormatError(f"{where}: its group is not a list of names")
    try:
        key = from_text(line["key"], source.classes)
    except PlacedError as error:
        raise error.inside(f"{where}, the key") from None
    except FormatError as error:
        raise FormatError(f"{where}, the key: {error}") from error
    place = f"{where}, [{key!r}]"
    try:
        value = from_text(line["value"], source.classes)
    except PlacedError as error:
        raise error.inside(place) from None
    except FormatError as error:
        raise FormatError(f"{place}: {error}") from error
    return Row(tuple(path), key, value, place)


def _object(source: Source) -> Iterator[Row]:
    """Yield the members of one object of plain JSON."""
    try:
        found = json.loads(source.file.read(), object_pairs_hook=without_doubles)
    except FormatError as error:
        raise FormatError(f"{source.name}: {error}") from None
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{source.name} is not JSON ({error})") from error
    if type(found) is not dict:
        raise FormatError(
            f"{source.name} has a {type(found).__name__} outermost; a store is made of an object"
        )
    for key, value in found.items():
        yield Row((), key, value, f"{source.name}, [{key!r}]")
