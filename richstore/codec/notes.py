"""Notes on a record that is being read: what is found in it that is not as it would be written now.

They lie in a place of the thread, since pickle calls the functions that a record names with nothing
but what the record gives them.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["Notes", "current_notes", "reading"]


class Notes:
    """What was noticed while a record was read.

    Attributes:
        outdated: whether it names a class or function by an old name.
        pending: by id, objects that the stream has made and whose state is of an old version: the
            object, the version, the state.
        current: ids of objects whose state was of the version that their class has.
    """

    __slots__ = ("current", "outdated", "pending")

    def __init__(self) -> None:
        self.outdated = False
        self.pending: dict[int, tuple[Any, int, Any]] = {}
        self.current: set[int] = set()


class _Place(threading.local):
    notes: Notes | None = None


_place = _Place()


def current_notes() -> Notes | None:
    """Return the notes on what this thread is reading; None when it reads nothing."""
    return _place.notes


@contextmanager
def reading(notes: Notes) -> Iterator[None]:
    """Take notes while a stream is read."""
    outer = _place.notes
    _place.notes = notes
    try:
        yield
    finally:
        _place.notes = outer
