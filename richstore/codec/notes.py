"""Notes on a record that is being read: what is found in it that is not as it would be written now.

They lie in a place of the thread, since pickle calls the functions that a record names with nothing
but what the record gives them.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager
from types import MappingProxyType
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

    # of the class until there is something to note, since notes are made for each record
    outdated = False
    pending: Mapping[int, tuple[Any, int, Any]] = MappingProxyType({})
    current: Set[int] = frozenset()

    def add_pending(self, raw: Any, version: int, state: Any) -> None:
        """Note that an object was given the state of another version of its class."""
        if not self.pending:
            self.pending = {}
        self.pending[id(raw)] = raw, version, state  # type: ignore[index]

    def add_current(self, raw: Any) -> None:
        """Note that an object was given a state of the version of its class."""
        if not self.current:
            self.current = set()
        self.current.add(id(raw))  # type: ignore[attr-defined]


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
