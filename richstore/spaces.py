"""Where values lie in the key space of an engine: those of the store itself, and of its groups.

The values of one mapping share a *space*, the first bytes of their engine keys, and behind it lies
the form of the key. That of a group has a number, its *generation*: clearing a group gives it
another one, and what is in the old space waits to be reclaimed. Two cells lead there:

- under the name of a group, and the id of the group it is in: its own id, and its generation;
- under the generation: how many values there are. Without it, nothing in that space is part of the
  store any more.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from typing import Any
from zlib import crc32

from richstore.codec import keys
from richstore.errors import CorruptionError

__all__ = [
    "AFTER_VALUES",
    "COUNTER",
    "GROUP",
    "GROUPED",
    "NOWHERE",
    "ROOT",
    "VALUES",
    "Space",
    "cells_in",
    "find",
    "form_in",
    "group_form",
    "group_name",
    "names_in",
    "paths_in",
    "place_in",
    "place_of",
    "read_space",
    "space_in",
    "value_in",
]

# First bytes of engine keys: of values of the store itself, and of its groups (a generation of 8
# bytes follows); and of the two cells (the id of the group that it is in, or a generation).
ROOT = b"\x10"
GROUPED = b"\x11"
GROUP = b"\x12"
COUNTER = b"\x13"
# Those of values, and the first byte behind them.
VALUES = (ROOT, GROUPED)
AFTER_VALUES = b"\x12"

# The space of a group that is not there: no generation has the number 0.
NOWHERE = GROUPED + bytes(8)

_CELL = struct.Struct("<IQQ")


class Space:
    """Where a group is: the cell under its name.

    Args:
        cell: the engine key of the cell.
        id: the number of the group, under which the groups in it are.
        generation: the number of the space that has its values.
    """

    __slots__ = ("cell", "generation", "id")

    def __init__(self, cell: bytes, id: int, generation: int) -> None:
        self.cell = cell
        self.id = id
        self.generation = generation

    @property
    def prefix(self) -> bytes:
        """What the engine keys of its values begin with."""
        return GROUPED + self.generation.to_bytes(8, "big")

    @property
    def counter(self) -> bytes:
        """The engine key of the number of its values."""
        return COUNTER + self.generation.to_bytes(8, "big")

    def to_bytes(self) -> bytes:
        """Return what is stored."""
        body = _CELL.pack(0, self.id, self.generation)[4:]
        return _checksum(self.cell, body).to_bytes(4, "little") + body


def _checksum(name: bytes, body: bytes) -> int:
    """Return that of a cell, which is another one under another name."""
    return crc32(body, crc32(name))


def read_space(name: bytes, stored: bytes | None) -> Space | None:
    """Return what is in the cell of a group, None when there is none.

    Raises:
        CorruptionError: it is damaged.
    """
    if stored is None:
        return None
    if len(stored) == _CELL.size:
        checksum, number, generation = _CELL.unpack(stored)
        if _checksum(name, stored[4:]) == checksum:
            return Space(name, number, generation)
    raise CorruptionError(f"the cell {name!r} does not have the checksum it was written with")


def group_form(name: str) -> bytes:
    """Return the form of the name of a group.

    Raises:
        TypeError: it is no str.
        ValueError: it is too long.
    """
    if not isinstance(name, str):
        raise TypeError(f"the name of a group must be a str, not {type(name).__name__}")
    form = keys.encode_key(str(name))
    if keys.is_truncated(form):
        raise ValueError(f"the name of a group has {len(name):,} characters, which is too long")
    return form


def group_name(parent: int, form: bytes) -> bytes:
    """Return the engine key of the cell of a group in another one, or in the store (0)."""
    return GROUP + parent.to_bytes(8, "big") + form


def find(path: Iterable[bytes], cell: Callable[[bytes], Space | None]) -> Space | None:
    """Return where a group is, None when there is none.

    Args:
        path: the forms of the names of the groups that lead to it, and its own.
        cell: returns the content of the cell under an engine key.
    """
    space = None
    for form in path:
        space = cell(group_name(space.id if space is not None else 0, form))
        if space is None:
            return None
    return space


def space_in(view: Any, path: Iterable[bytes]) -> Space | None:
    """Return where a group is in the state of a read transaction."""
    return find(path, lambda name: read_space(name, view.get(name)))


def names_in(parent: int, view: Any, cells: dict[bytes, Any] | None = None) -> list[str]:
    """Return the names of the groups in one, or in the store, in order; see `cells_in`."""
    return [str(keys.decode_key(name[9:])) for name in cells_in(parent, view, cells)]


def cells_in(parent: int, view: Any, cells: dict[bytes, Any] | None = None) -> list[bytes]:
    """Return the engine keys of the cells of the groups in one, or in the store, in order.

    Args:
        parent: its id; 0 for the store.
        view: a transaction of the engine.
        cells: what has changed in a transaction of ours; None under the name of what is gone.
    """
    first, after = group_name(parent, b""), group_name(parent + 1, b"")
    found = dict.fromkeys(name for name, _ in view.scan(first, after))
    for name, cell in (cells or {}).items():
        if first <= name < after:
            found.pop(name, None)
            if cell is not None:
                found[name] = None
    return sorted(found)


def paths_in(view: Any) -> dict[int, tuple[str, ...]]:
    """Return the names that lead to each group, by generation; without damaged groups."""
    cells: dict[int, tuple[int, str, int]] = {}
    for name, stored in view.scan(GROUP, COUNTER):
        try:
            space = read_space(name, stored)
            called = str(keys.decode_key(name[9:]))
        except CorruptionError:
            continue
        assert space is not None
        cells[space.id] = int.from_bytes(name[1:9], "big"), called, space.generation
    paths: dict[int, tuple[str, ...]] = {0: ()}
    found: dict[int, tuple[str, ...]] = {}
    for number, (_, _, generation) in cells.items():
        way: list[int] = []
        # no further than there are groups: damaged cells may lead in a circle
        while number not in paths and number in cells and len(way) < len(cells):
            way.append(number)
            number = cells[number][0]
        if number in paths:
            for one in reversed(way):
                parent, called, _ = cells[one]
                paths[one] = (*paths[parent], called)
            found[generation] = paths[way[0] if way else number]
    return found


def place_in(view: Any, name: bytes) -> str:
    """Return how Python would write the group that the value under an engine key is in."""
    if name[:1] != GROUPED:
        return ""
    # it has no path any more when it was cleared
    return place_of(paths_in(view).get(int.from_bytes(name[1:9], "big"), ()))


def place_of(path: Iterable[str]) -> str:
    """Return how Python would write the way to a group, for errors."""
    return "".join(f".group({name!r})" for name in path)


def form_in(name: bytes) -> bytes:
    """Return the form of the key in the engine key of a value."""
    return name[9:] if name[:1] == GROUPED else name[1:]


def value_in(get: Callable[[bytes], bytes | None], name: bytes) -> bytes | None:
    """Return what a view has under the engine key of a record, unless its group was cleared."""
    if name[:1] == GROUPED and get(COUNTER + name[1:9]) is None:
        return None
    return get(name)
