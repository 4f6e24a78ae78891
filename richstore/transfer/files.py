"""The files on both sides: written whole or not at all, and read with the trust they deserve."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from richstore.codec.policy import ClassPolicy, StrictPolicy, policy_of
from richstore.copying import publish
from richstore.engines.lmdb.opening import unused
from richstore.ownership import default_policy

__all__ = ["FORMATS", "Source", "format_of", "policy_for", "readable", "written"]

FORMATS = ("jsonl", "json")


def format_of(format: str | None, place: Any) -> str:
    """Return the format that is meant for a path or an open file.

    Raises:
        ValueError: there is no such format.
    """
    if format is None:
        named = isinstance(place, (str, os.PathLike)) and os.fspath(place).lower()
        return "json" if named and named.endswith(".json") else "jsonl"
    if format not in FORMATS:
        raise ValueError(f"format is {format!r}, and must be 'jsonl' or 'json'")
    return format


@contextmanager
def written(target: str | os.PathLike[str] | BinaryIO, replace: bool) -> Iterator[BinaryIO]:
    """Open a file for writing; one at a path gets its name at the end, if nothing failed."""
    if not isinstance(target, (str, os.PathLike)):
        yield target
        return
    path = Path(target)
    if path.exists() and not replace:
        raise FileExistsError(f"{path} is there already; give another name, or replace it")
    handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    temporary = Path(name)
    try:
        with open(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        # a store that is in use, and may be the one that is exported, is not replaced by text
        with unused(os.fspath(path)):
            publish(name, os.fspath(path), replace)
    finally:
        temporary.unlink(missing_ok=True)


class Source(NamedTuple):
    """A file that is read: open, what errors call it, and which classes it may name."""

    file: BinaryIO
    name: str
    classes: ClassPolicy


@contextmanager
def readable(source: str | os.PathLike[str] | BinaryIO, classes: Any) -> Iterator[Source]:
    """Open a file for reading.

    Args:
        source: its path, or a file that is open for reading bytes.
        classes: as in `richstore.open`; None: all for a file of one's own, else none.
    """
    wanted = None if classes is None else policy_of(classes)
    if not isinstance(source, (str, os.PathLike)):
        name = getattr(source, "name", None)
        unknown = StrictPolicy("nobody can know who has written it")
        yield Source(source, name if isinstance(name, str) else "<file>", wanted or unknown)
        return
    with open(source, "rb") as file:
        path = os.path.realpath(source)
        yield Source(
            file, os.fspath(source), wanted or default_policy(os.fstat(file.fileno()), path)
        )


def policy_for(paths: list[Path], classes: Any) -> ClassPolicy:
    """Return the policy for files that belong together: the strictest that one of them asks for."""
    if classes is not None:
        return policy_of(classes)
    found: ClassPolicy | None = None
    for path in paths:
        found = default_policy(path.stat(), os.path.realpath(path))
        if found.strict:
            break
    assert found is not None
    return found
