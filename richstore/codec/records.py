"""Records: the bytes of one value, and how its nodes become pickle opcodes and come back.

Theory of operation
-------------------

A record is *envelope, node table, opcode stream* (`docs/design.md` has it byte by byte).

Every node of a record has a *slot*, a small number. The stream is one pickle in which slot `n`
owns two places of the unpickler's memo: `2n` is its raw container, `2n + 1` is what others see of
it (a proxy when the record is read as live nodes, the raw container itself when it is read as
plain data). The stream fills the containers one after the other:

    BINGET 2n, MARK, items …, APPENDS | SETITEMS | ADDITEMS, POP

so that aliases and cycles are plain memo references, unpickling is one pass in C, and the
*fragment* of a node that did not change can be kept and joined again. The containers themselves
are made before the stream starts, by a *prelude* that is not stored: its `NEXT_BUFFER` opcodes
take the objects from a list, `MEMOIZE`d by explicit number. Who reads decides what is in that
list.
"""

from __future__ import annotations

import io
import pickle
import struct
import zlib
from array import array
from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any, NamedTuple

from richstore.codec.classes import name_in, named
from richstore.codec.missing import MissingType, kept_of
from richstore.codec.notes import Notes, current_notes, reading
from richstore.codec.opcodes import POP, STOP, put
from richstore.codec.policy import ANY, ClassPolicy
from richstore.errors import CorruptionError, FormatError

__all__ = [
    "BUILT",
    "DICT",
    "EXTERNAL",
    "FIRST_CLASS",
    "LIST",
    "NARROW_ROW",
    "SET",
    "SPREAD",
    "Parts",
    "count_of",
    "decode",
    "encode",
    "external",
    "is_plain",
    "load_blob",
    "may_name",
    "names",
    "parse",
    "read_external",
    "row",
    "shape",
    "stored_key",
    "with_count",
]

VERSION = 1
_ENVELOPE = struct.Struct("<BBI")
# of the node table: what its uids are relative to, and its size
_NODES = struct.Struct("<qI")
_EXTERNAL = struct.Struct("<II")
_HAS_KEY = 1
_HAS_NODES = 2
_HAS_LINKS = 4
_IS_SHARED = 8

# Heads: what a slot holds. From FIRST_CLASS on: an instance of the class at `head - FIRST_CLASS`
# in the record's class table. EXTERNAL: the main node of another record. SPREAD + LIST, DICT or
# SET: a container whose items are in records of their own. 8 to 15 are free.
LIST, DICT, SET, BUILT = 0, 1, 2, 3
EXTERNAL = 4
SPREAD = 5
FIRST_CLASS = 16


class Parts(NamedTuple):
    """What a record consists of, still encoded.

    Attributes:
        key: the pickled user key when the engine key does not tell it.
        table: slot, uid less `base`, head of each node, one after the other.
        base: what the uids are relative to.
        classes: the stored forms of the classes of the instances.
        links: for each row with head EXTERNAL or SPREAD: what it refers to.
        references: how many records refer to this one; None for one that is not shared.
        stream: the opcodes.
    """

    key: bytes | None
    table: array[int]
    base: int
    classes: list[bytes]
    links: list[bytes]
    references: int | None
    stream: bytes


# --- writing --------------------------------------------------------------------------------------


def encode(
    name: bytes,
    key: bytes | None,
    count: int | None,
    table: list[bytes],
    rows: int,
    base: int,
    class_table: Iterable[bytes],
    links: list[bytes],
    fragments: list[bytes],
    root: bytes,
) -> bytes:
    """Assemble a record.

    Args:
        name: the engine key it goes under; part of the checksum, so that it cannot be moved.
        key: the pickled user key when the engine key does not tell it.
        count: how many records refer to it, for a shared record.
        table: the `row` of each node; rows may have been joined.
        rows: how many there are.
        base: what the uids in the table are relative to.
        class_table: the stored forms of the classes of its instances.
        links: for each row with head EXTERNAL or SPREAD: what it refers to.
        fragments: those of its nodes, in the order in which they are to be filled.
        root: the opcodes of the value.
    """
    flags = 0
    parts: list[bytes] = []
    if key is not None:
        flags |= _HAS_KEY
        parts += (len(key).to_bytes(4, "little"), key)
    if count is not None:
        flags |= _IS_SHARED
        parts.append(count.to_bytes(4, "little"))
    if table:
        flags |= _HAS_NODES
        packed = _join(table, rows)
        parts += (_NODES.pack(base, len(packed)), packed)
        _add(parts, class_table)
        if links:
            flags |= _HAS_LINKS
            _add(parts, links)
    parts += fragments
    parts += (root, STOP)
    body = b"".join(parts)
    return _ENVELOPE.pack(VERSION, flags, zlib.crc32(body, zlib.crc32(name, flags))) + body


def _add(parts: list[bytes], strings: Iterable[bytes]) -> None:
    stored = list(strings)
    parts.append(len(stored).to_bytes(2, "little"))
    for one in stored:
        parts += (len(one).to_bytes(4, "little"), one)


def external(slot: int, head: int, cls: bytes, name: bytes) -> bytes:
    """Return the link of a node in another record.

    Args:
        slot: its slot there.
        head: its head; FIRST_CLASS for an instance.
        cls: the stored class of an instance, else nothing.
        name: the engine key of the other record.
    """
    return _EXTERNAL.pack(slot, head) + len(name).to_bytes(2, "little") + name + cls


def read_external(link: bytes) -> tuple[int, int, bytes, bytes]:
    """Return what `external` was given.

    Raises:
        CorruptionError: it is shorter than that.
    """
    try:
        slot, head = _EXTERNAL.unpack_from(link)
    except struct.error:
        raise CorruptionError(f"{link!r} is half a reference to another record") from None
    at = _EXTERNAL.size
    end = at + 2 + int.from_bytes(link[at : at + 2], "little")
    return slot, head, link[end:], link[at + 2 : end]


_BIG_ENDIAN = struct.pack("=H", 1) == b"\x00\x01"


def _take(slot: int, head: int) -> bytes:
    """The prelude of one slot: raw container and face for containers, the face for others."""
    face = b"\x97" + put(2 * slot + 1) + POP
    return face if head >= EXTERNAL else b"\x97" + put(2 * slot) + POP + face


def _make(slot: int, head: int) -> bytes:
    """The prelude of one slot in a record read as plain data: containers are made right there."""
    if head >= EXTERNAL:
        return _take(slot, head)
    return (b"]", b"}", b"\x8f")[head] + put(2 * slot) + put(2 * slot + 1) + POP


# --- reading ------------------------------------------------------------------------------------


def parse(name: bytes, record: bytes, *, check: bool = True) -> Parts:
    """Check the envelope of a record and take it apart.

    Args:
        name: its engine key.
        record: its bytes.
        check: whether to compare the checksum.

    Raises:
        FormatError: it was written by a newer version.
        CorruptionError: it is not what was written.
    """
    try:
        version, flags, checksum = _ENVELOPE.unpack_from(record)
    except struct.error:
        raise CorruptionError(
            f"record {name!r} is too short to be one (or, in an encrypted store, was changed, "
            f"moved there, or written with another key)"
        ) from None
    if version != VERSION:
        raise FormatError(
            f"record {name!r} has format version {version}, this richstore reads {VERSION}; "
            f"use the version that wrote it, or a newer one"
        )
    body = memoryview(record)[_ENVELOPE.size :]
    if check and zlib.crc32(body, zlib.crc32(name, flags)) != checksum:
        raise CorruptionError(f"record {name!r} does not have the checksum it was written with")
    try:
        at = 0
        key: bytes | None = None
        count: int | None = None
        table = array("H")
        base = 0
        class_table: list[bytes] = []
        links: list[bytes] = []
        if flags & _HAS_KEY:
            size = int.from_bytes(body[:4], "little")
            key = bytes(body[4 : 4 + size])
            at = 4 + size
        if flags & _IS_SHARED:
            count = int.from_bytes(body[at : at + 4], "little")
            at += 4
        if flags & _HAS_NODES:
            base, size = _NODES.unpack_from(body, at)
            at += _NODES.size
            table = _split(body[at : at + size])
            class_table, at = _strings(body, at + size)
            if flags & _HAS_LINKS:
                links, at = _strings(body, at)
        return Parts(key, table, base, class_table, links, count, bytes(body[at:]))
    except (struct.error, IndexError, ValueError):
        raise CorruptionError(f"record {name!r} is not made as records are") from None


def _strings(body: memoryview, at: int) -> tuple[list[bytes], int]:
    """Return what `_add` wrote, and where it ends."""
    count = int.from_bytes(body[at : at + 2], "little")
    at += 2
    found: list[bytes] = []
    for _ in range(count):
        size = int.from_bytes(body[at : at + 4], "little")
        at += 4
        found.append(bytes(body[at : at + size]))
        at += size
    return found, at


def stored_key(record: Any) -> bytes | None:
    """Return the pickled user key of a record without checking the rest of it."""
    if isinstance(record, (bytes, memoryview)):
        if len(record) >= _ENVELOPE.size and record[1] & _HAS_KEY:
            at = _ENVELOPE.size
            size = int.from_bytes(record[at : at + 4], "little")
            return bytes(record[at + 4 : at + 4 + size])
        return None
    found: bytes | None = record.stored_key
    return found


def row(slot: int, uid: int, head: int) -> bytes:
    """Return a row of the node table, narrow when its numbers allow it."""
    if slot < 65536 and 0 <= uid < 65536 and head < 65536:
        return _NARROW.pack(slot, uid, head)
    if slot < 65536 and -(1 << 31) <= uid < 1 << 31 and head < 65536:
        return _MIDDLE.pack(slot, uid, head)
    return _WIDE.pack(slot, uid, head)


_NARROW = struct.Struct("<HHH")
_MIDDLE = struct.Struct("<HiH")
_WIDE = struct.Struct("<qqq")
NARROW_ROW = _NARROW.size


def _join(rows: list[bytes], count: int) -> bytes:
    """Return a node table: all rows narrow, middle or wide."""
    joined = b"".join(rows)
    if len(joined) == _NARROW.size * count:
        return b"\x02" + joined
    # here each row stands by itself: only narrow ones come joined, and only with other narrow ones
    if max(map(len, rows)) == _MIDDLE.size:
        return b"\x04" + b"".join([_widened(one, _MIDDLE) for one in rows])
    return b"\x08" + b"".join([_widened(one, _WIDE) for one in rows])


def _widened(one: bytes, width: struct.Struct) -> bytes:
    """Return a row at least as wide as it is."""
    if len(one) == width.size:
        return one
    return width.pack(*(_NARROW if len(one) == _NARROW.size else _MIDDLE).unpack(one))


def _split(table: memoryview) -> array[int]:
    """Return the numbers of a node table."""
    if table[0] == 4:
        return array("q", chain.from_iterable(_MIDDLE.iter_unpack(table[1:])))
    numbers = array("H" if table[0] == 2 else "q")
    numbers.frombytes(table[1:])
    if _BIG_ENDIAN:
        numbers.byteswap()
    return numbers


def _identity(slot: int, raw: Any) -> Any:
    return raw


class _Unpickler(pickle.Unpickler):
    wrap: Callable[[int, Any], Any] = staticmethod(_identity)
    classes: ClassPolicy = ANY

    def find_class(self, module: str, name: str) -> Any:
        if module == "richstore.":
            return self.wrap
        if (module, name) == _NAMED:
            return self.classes.find
        return self.classes.find(module, name)


def decode(
    parts: Parts,
    containers: list[Any],
    classes: ClassPolicy,
    wrap: Callable[[int, Any], Any] = _identity,
    *,
    plain: bool = False,
    notes: Notes | None = None,
) -> Any:
    """Run a record's stream and return its value.

    Args:
        parts: the record.
        containers: for each row of the node table: raw container and face for a list, dict or
            set; the face alone for others; nothing for a built node.
        classes: finds the classes and functions that it names.
        wrap: makes the face of a built node from its slot and raw object.
        plain: lists, dicts and sets are made by the stream and not taken from `containers`.
        notes: takes note of what is not as it would be written now.
    """
    if classes.strict:
        with reading(notes or current_notes() or Notes()):
            return _strict().decode(parts, containers, classes, wrap, plain)
    prelude = _prelude(parts.table, plain)
    stream = parts.stream
    # One frame around everything lets the unpickler read its input in one piece.
    size = (len(prelude) + len(stream)).to_bytes(8, "little")
    data = b"".join((b"\x80\x05\x95", size, prelude, stream))
    if not any(map(stream.__contains__, _IMPORTING)):
        return pickle.loads(data, buffers=containers)
    unpickler = _Unpickler(io.BytesIO(data), buffers=containers)
    unpickler.wrap = wrap
    unpickler.classes = classes
    with reading(notes or current_notes() or Notes()):
        return unpickler.load()


# How what cannot be found is named.
_NAMED = (named.__module__, named.__qualname__)


def _strict() -> Any:
    """Return the strict reader, which loads much of the standard library that few need."""
    from richstore.codec import strict

    return strict


# The opcodes that ask for a class, and so for an unpickler of our own.
_IMPORTING = (0x93, 0x63, 0x69, 0x82, 0x83, 0x84)
# The preludes of the tables seen lately: records that were written alike have the same slots.
_preludes: dict[tuple[Any, ...], bytes] = {}
_PRELUDES = 256


def load_blob(blob: bytes, classes: ClassPolicy = ANY) -> Any:
    """Return the value of `dump_blob`."""
    if classes.strict:
        return _strict().load(blob, classes)
    unpickler = _Unpickler(io.BytesIO(blob))
    unpickler.classes = classes
    with reading(current_notes() or Notes()):
        found = unpickler.load()
    if type(type(found)) is MissingType:
        # written again as it was, with what refers to itself in it
        kept_of(found).whole = load_blob, (blob,)
    return found


def _prelude(table: array[int], plain: bool) -> bytes:
    """Return the opcodes before a record's stream, which put its containers into the memo."""
    slots, heads = table[::3], table[2::3]
    alike = (plain, table.typecode, slots.tobytes(), heads.tobytes())
    found = _preludes.get(alike)
    if found is None:
        found = b"".join(
            _make(slot, head) if plain else _take(slot, head)
            for slot, head in zip(slots, heads, strict=True)
            if head != BUILT
        )
        if len(_preludes) >= _PRELUDES:
            _preludes.clear()
        _preludes[alike] = found
    return found


def is_plain(parts: Parts) -> bool:
    """Tell whether a record holds lists, dicts and sets alone, so that `decode` can make them."""
    table = parts.table
    return not table or max(table[2::3]) < BUILT


def may_name(parts: Parts) -> bool:
    """Tell whether a record may name classes or functions, or refer to records that do."""
    return not is_plain(parts) or any(map(parts.stream.__contains__, _IMPORTING))


def count_of(record: bytes) -> int | None:
    """Return how many records refer to a shared one, without checking the rest of it."""
    if not record[1] & _IS_SHARED:
        return None
    at = _ENVELOPE.size
    return int.from_bytes(record[at : at + 4], "little")


def with_count(name: bytes, record: bytes, count: int) -> bytes:
    """Return a shared record with another number of references."""
    at = _ENVELOPE.size
    body = count.to_bytes(4, "little") + record[at + 4 :]
    flags = record[1]
    return _ENVELOPE.pack(VERSION, flags, zlib.crc32(body, zlib.crc32(name, flags))) + body


class _Anything:
    """Stands for whatever a stream would import, and for what that would make."""

    def __new__(cls, *_: Any, **__: Any) -> _Anything:
        return object.__new__(cls)

    def __call__(self, *_: Any) -> _Anything:
        return _Anything()

    def _ignore(self, *_: Any) -> None:
        """Take items and states, and forget them."""

    append = extend = add = __setitem__ = __setstate__ = _ignore


class _ShapeUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if module == "richstore.":
            return _identity
        return _Anything


class _NamesUnpickler(pickle.Unpickler):
    """Takes note of names, those in pickles within the pickle included."""

    names: set[tuple[str, str]]

    def find_class(self, module: str, name: str) -> Any:
        if module == "richstore.":
            return _identity
        if (module, name) == _NAMED:
            return self._named
        if (module, name) == _BLOB:
            return self._blob
        if not module.startswith("richstore."):
            self.names.add((module, name))
        return _Anything

    def _named(self, module: str, name: str) -> Any:
        self.names.add((module, name))
        return _Anything

    def _blob(self, blob: bytes) -> Any:
        inner = _NamesUnpickler(io.BytesIO(blob))
        inner.names = self.names
        return inner.load()


# What reads a pickle within a pickle.
_BLOB = (load_blob.__module__, load_blob.__qualname__)


def names(parts: Parts) -> set[tuple[str, str]]:
    """Return modules and names of the classes and functions that a record names.

    Classes and functions that it has by value, and what these name, are not among them.
    """
    found = {name_in(stored) for stored in parts.classes if stored[:1] == b"n"}
    if any(map(parts.stream.__contains__, _IMPORTING)):
        data, stands = _without_instances(parts)
        unpickler = _NamesUnpickler(io.BytesIO(data), buffers=stands)
        unpickler.names = found
        unpickler.load()
    return found


def shape(parts: Parts, classes: ClassPolicy = ANY) -> Any:
    """Return a record's value with stand-ins for instances, nothing of which is imported."""
    if classes.strict:
        return _strict().shape(parts, classes)
    data, stands = _without_instances(parts)
    return _ShapeUnpickler(io.BytesIO(data), buffers=stands).load()


def _without_instances(parts: Parts) -> tuple[bytes, list[Any]]:
    """Return the pickle that reads a record, and the buffers that stand for its instances."""
    stream = [b"\x80\x05\x95", b""]
    stands: list[Any] = []
    table = parts.table
    for at in range(0, len(table), 3):
        slot, head = table[at], table[at + 2]
        if head != BUILT:
            stream.append(_make(slot, head))
            if head >= EXTERNAL:
                stands.append(_Anything())
    stream.append(parts.stream)
    stream[1] = sum(map(len, stream[2:])).to_bytes(8, "little")
    return b"".join(stream), stands
