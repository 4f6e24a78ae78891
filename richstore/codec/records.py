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

The pickler does the reverse with its own memo, set to `{id(node): (2n + 1, node)}`: nodes come
out as `BINGET`s without a call into Python. Its `fast` mode keeps everything else out of the
memo, which is what makes fragments independent of each other.
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

from richstore.codec import classes
from richstore.errors import CorruptionError, EncodingError, FormatError

__all__ = [
    "BUILT",
    "DICT",
    "EXTERNAL",
    "FIRST_CLASS",
    "LIST",
    "NARROW_ROW",
    "SET",
    "SPREAD",
    "CodeOfUserError",
    "Parts",
    "RecordPickler",
    "built_fragment",
    "count_of",
    "decode",
    "dump_blob",
    "encode",
    "external",
    "faces_in",
    "fill_fragment",
    "is_plain",
    "load_blob",
    "name_fragment",
    "object_fragment",
    "parse",
    "part_of",
    "read_external",
    "reference",
    "row",
    "shape",
    "stored_key",
    "unstorable",
    "with_count",
    "written_fragments",
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

_POP = b"0"
_BUILD = b"b"
_BUILD_POP = _BUILD + _POP
_STOP = b"."
_TUPLE2 = b"\x86"
_REDUCE = b"R"


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


# --- opcodes ------------------------------------------------------------------------------------


def _get(place: int) -> bytes:
    return b"h" + bytes((place,)) if place < 256 else b"j" + place.to_bytes(4, "little")


def _put(place: int) -> bytes:
    return b"q" + bytes((place,)) if place < 256 else b"r" + place.to_bytes(4, "little")


def _take(slot: int, head: int) -> bytes:
    """The prelude of one slot: raw container and face for containers, the face for others."""
    face = b"\x97" + _put(2 * slot + 1) + _POP
    return face if head >= EXTERNAL else b"\x97" + _put(2 * slot) + _POP + face


def _make(slot: int, head: int) -> bytes:
    """The prelude of one slot in a record read as plain data: containers are made right there."""
    if head >= EXTERNAL:
        return _take(slot, head)
    return (b"]", b"}", b"\x8f")[head] + _put(2 * slot) + _put(2 * slot + 1) + _POP


_GETS = [_get(place) for place in range(512)]


def _get_raw(slot: int) -> bytes:
    return _GETS[2 * slot] if slot < 256 else _get(2 * slot)


def _get_face(slot: int) -> bytes:
    return _GETS[2 * slot + 1] if slot < 256 else _get(2 * slot + 1)


# --- writing ------------------------------------------------------------------------------------


class CodeOfUserError(Exception):
    """Encoding would run a user's code, in a thread that is not the user's; nobody gets this."""


class RecordPickler(pickle.Pickler):
    """Turns shallow contents into opcodes; `begin` readies it for one record.

    With a `record`, code of users is not run: `CodeOfUserError`, and the record is `alone`.
    """

    def __init__(self) -> None:
        self.record: Any = None
        self._buffer = io.BytesIO()
        self._faces: dict[int, tuple[int, Any]] = {}
        self._start()

    def _start(self) -> None:
        super().__init__(self._buffer, 5)
        self.fast = True
        self.memo = self._faces

    def begin(self, faces: dict[int, tuple[int, Any]]) -> None:
        """Let `faces` come out as references: `{id(face): (2 * slot + 1, face)}`."""
        self.memo = self._faces = faces

    def release(self) -> None:
        """Forget the faces: a pickler that waits for its next use must keep none alive."""
        self.clear_memo()
        self._faces = {}

    def reducer_override(self, obj: Any) -> Any:
        """Store by value the classes and functions that no name finds."""
        if self.record is not None and classes.runs_code(type(obj)):
            self.record.alone = True
            raise CodeOfUserError
        return _reduce_global(obj)

    def body(self, content: Any) -> bytes:
        """Return the opcodes that make `content`, without protocol, frame and stop.

        Raises:
            EncodingError: pickle refuses it.
        """
        buffer = self._buffer
        buffer.seek(0)
        buffer.truncate()
        try:
            self.dump(content)
        except (EncodingError, CodeOfUserError):
            self._start()
            raise
        except Exception as error:
            self._start()
            if not _holds_frozenset(content):
                raise unstorable(content, error) from error
            return self._assembled(content)
        data = buffer.getvalue()
        if _FROZENSET in data:
            # CPython's fast mode enters a frozenset and never leaves it, and fails after 50 of them
            self._start()
        return data[11:-1] if data[2] == 0x95 else data[2:-1]

    def _assembled(self, content: Any) -> bytes:
        """Return the opcodes of what holds many frozensets, from those of its items."""
        kind = type(content)
        if not _holds_frozenset(content):
            return self.body(content)
        made = self._assembled
        if kind is dict:
            items = b"".join([made(key) + made(value) for key, value in content.items()])
        else:
            items = b"".join(map(made, content))
        begin, end = _ASSEMBLED[kind]
        return begin + items + end


_FROZENSET = b"\x91"


_ASSEMBLED: dict[type, tuple[bytes, bytes]] = {
    list: (b"](", b"e"),
    dict: (b"}(", b"u"),
    set: (b"\x8f(", b"\x90"),
    frozenset: (b"(", _FROZENSET),
    tuple: (b"(", b"t"),
}


def _holds_frozenset(content: Any) -> bool:
    kind = type(content)
    if kind is frozenset:
        return True
    if kind is dict:
        return any(map(_holds_frozenset, content)) or any(map(_holds_frozenset, content.values()))
    return kind in _ASSEMBLED and any(map(_holds_frozenset, content))


def unstorable(content: Any, error: Exception) -> EncodingError:
    """Return the error for a value that pickle refused."""
    kind = type(content)
    return EncodingError(
        f"a value of type {kind.__module__}.{kind.__qualname__} cannot be stored "
        f"({type(error).__name__}: {error}); leave it out, or give its class a __getstate__ "
        f"or __reduce__ that does"
    )


def _reduce_global(obj: Any) -> Any:
    if isinstance(obj, type):
        original = classes.original_class(obj)
        if original is not obj:
            return classes.original_class, (original,)
        if classes.is_importable(obj) or obj in _NAMELESS:
            return NotImplemented
        return classes.by_value(obj)
    if type(obj) is _FUNCTION and not classes.is_importable(obj):
        return classes.by_value(obj)
    return NotImplemented


_FUNCTION = type(_reduce_global)
_NAMELESS = (type(None), type(NotImplemented), type(...))


class _BlobPickler(pickle.Pickler):
    def reducer_override(self, obj: Any) -> Any:
        return _reduce_global(obj)


def dump_blob(value: Any) -> bytes:
    """Pickle a value on its own, aliases and cycles kept; for what holds no nodes."""
    buffer = io.BytesIO()
    try:
        _BlobPickler(buffer, 5).dump(value)
    except EncodingError:
        raise
    except Exception as error:
        raise unstorable(value, error) from error
    return buffer.getvalue()


def load_blob(blob: bytes) -> Any:
    """Return the value of `dump_blob`."""
    return _Unpickler(io.BytesIO(blob)).load()


def reference(place: int) -> bytes:
    """Return the opcodes of a reference to a place of the memo."""
    return _GETS[place] if place < 512 else _get(place)


def name_fragment(place: int, name: str) -> bytes:
    """Return the opcodes that put a string into a place of the memo, ahead of all fragments."""
    text = name.encode("utf-8", "surrogatepass")
    size = len(text)
    head = b"\x8c" + bytes((size,)) if size < 256 else b"X" + size.to_bytes(4, "little")
    return head + text + _put(place) + _POP


def fill_fragment(slot: int, body: bytes) -> bytes:
    """Return the fragment of a list, dict or set from the opcodes of its content.

    The body begins with the one opcode that makes an empty container; the container that is
    there already takes its place.
    """
    return _get_raw(slot) + body[1:] + _POP


def written_fragments(
    slots: list[int], ends: list[int], is_object: list[bool], written: bytes
) -> list[bytes]:
    """Return the fragments of nodes that one pickler wrote one behind the other.

    Args:
        slots: theirs.
        ends: where each ends in what was written.
        is_object: whether each is an instance; the rest are lists, dicts and sets.
        written: all that the pickler wrote.
    """
    found: list[bytes] = []
    start = 0
    for slot, end, instance in zip(slots, ends, is_object, strict=True):
        # protocol, frame; and STOP
        first = start + (11 if written[start + 2] == 0x95 else 2)
        if instance:
            found.append(_get_face(slot) + written[first : end - 1] + _BUILD_POP)
        else:
            # the opcode that makes an empty container is left out
            found.append(_get_raw(slot) + written[first + 1 : end - 1] + _POP)
        start = end
    return found


def object_fragment(slot: int, state: bytes) -> bytes:
    """Return the fragment of an instance from the opcodes of its state."""
    return _get_face(slot) + state + _BUILD_POP


def built_fragment(
    slot: int, pickler: RecordPickler, parts: tuple[Any, ...]
) -> tuple[bytes, bytes]:
    """Return the two fragments of a node whose object is made by a call in the stream.

    Args:
        parts: what `__reduce_ex__` returned.

    Returns:
        The opcodes that make the object and its face, and those that fill the object.
    """
    function, arguments, state, listitems, dictitems, setter = (*parts, *(None,) * 4)[:6]
    make = b"".join(
        (
            pickler.body(function),
            pickler.body(arguments),
            _REDUCE,
            _put(2 * slot),
            _POP,
            # the face: wrap(slot, raw), which is the raw object itself when read as plain data
            _WRAP,
            pickler.body(slot),
            _get_raw(slot),
            _TUPLE2,
            _REDUCE,
            _put(2 * slot + 1),
            _POP,
        )
    )
    fill = [_get_raw(slot)]
    if listitems is not None:
        fill.append(pickler.body(list(listitems))[1:])
    if dictitems is not None:
        fill.append(pickler.body(dict(dictitems))[1:])
    if state is not None and setter is None:
        fill += (pickler.body(state), _BUILD)
    elif state is not None:
        fill += (_POP, pickler.body(setter), _get_raw(slot))
        fill += (pickler.body(state), _TUPLE2, _REDUCE)
    fill.append(_POP)
    return make, b"".join(fill) if len(fill) > 2 else b""


_WRAP = b"\x8c\x0arichstore.\x8c\x04wrap\x93"


class _FaceFinder(pickle.Pickler):
    """Finds what a value refers to by pickling it in vain; for values of unknown make."""

    def __init__(self, is_face: Callable[[Any], bool]) -> None:
        super().__init__(io.BytesIO(), 5)
        self.is_face = is_face
        self.found: list[Any] = []

    def persistent_id(self, obj: Any) -> Any:
        if self.is_face(obj):
            self.found.append(obj)
            return 0
        return None

    def reducer_override(self, obj: Any) -> Any:
        return _reduce_global(obj)


def faces_in(value: Any, is_face: Callable[[Any], bool]) -> list[Any]:
    """Return every face that pickling `value` would meet.

    Raises:
        EncodingError: pickle refuses it.
    """
    finder = _FaceFinder(is_face)
    try:
        finder.dump(value)
    except EncodingError:
        raise
    except Exception as error:
        raise unstorable(value, error) from error
    return finder.found


def part_of(value: Any, whole: Any) -> bool:
    """Tell whether pickling `whole` would meet the very object `value`."""
    return bool(faces_in(whole, lambda obj: obj is value))


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
    parts += (root, _STOP)
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
    """Return what `external` was given."""
    slot, head = _EXTERNAL.unpack_from(link)
    at = _EXTERNAL.size
    end = at + 2 + int.from_bytes(link[at : at + 2], "little")
    return slot, head, link[end:], link[at + 2 : end]


_BIG_ENDIAN = struct.pack("=H", 1) == b"\x00\x01"

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
        raise CorruptionError(f"record {name!r} is too short to be one") from None
    if version != VERSION:
        raise FormatError(
            f"record {name!r} has format version {version}, this richstore reads {VERSION}; "
            f"use the version that wrote it, or a newer one"
        )
    body = memoryview(record)[_ENVELOPE.size :]
    if check and zlib.crc32(body, zlib.crc32(name, flags)) != checksum:
        raise CorruptionError(f"record {name!r} does not have the checksum it was written with")
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

    def find_class(self, module: str, name: str) -> Any:
        if module == "richstore.":
            return self.wrap
        return classes.resolve(module, name)


def decode(
    parts: Parts,
    containers: list[Any],
    wrap: Callable[[int, Any], Any] = _identity,
    *,
    plain: bool = False,
) -> Any:
    """Run a record's stream and return its value.

    Args:
        parts: the record.
        containers: for each row of the node table: raw container and face for a list, dict or
            set; the face alone for others; nothing for a built node.
        wrap: makes the face of a built node from its slot and raw object.
        plain: lists, dicts and sets are made by the stream and not taken from `containers`.
    """
    prelude = _prelude(parts.table, plain)
    stream = parts.stream
    # One frame around everything lets the unpickler read its input in one piece.
    size = (len(prelude) + len(stream)).to_bytes(8, "little")
    data = b"".join((b"\x80\x05\x95", size, prelude, stream))
    if not any(map(stream.__contains__, _IMPORTING)):
        return pickle.loads(data, buffers=containers)
    unpickler = _Unpickler(io.BytesIO(data), buffers=containers)
    unpickler.wrap = wrap
    return unpickler.load()


# The opcodes that ask for a class, and so for an unpickler of our own.
_IMPORTING = (0x93, 0x63, 0x69, 0x82, 0x83, 0x84)
# The preludes of the tables seen lately: records that were written alike have the same slots.
_preludes: dict[tuple[Any, ...], bytes] = {}
_PRELUDES = 256


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


def shape(parts: Parts) -> Any:
    """Return a record's value with stand-ins for instances, nothing of which is imported."""
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
    return _ShapeUnpickler(io.BytesIO(b"".join(stream)), buffers=stands).load()
