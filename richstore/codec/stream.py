"""The opcode stream of a record: the contents of nodes as pickle opcodes, made one by one and kept.

The pickler's memo is set to `{id(node): (2n + 1, node)}`: nodes come
out as `BINGET`s without a call into Python. Its `fast` mode keeps everything else out of the
memo, which is what makes fragments independent of each other.
"""

from __future__ import annotations

import enum
import io
import pickle
import types
from collections.abc import Callable
from typing import Any

from richstore.codec import classes, members
from richstore.codec.missing import Missing, MissingType, kept_of, reduction
from richstore.codec.opcodes import (
    BUILD,
    BUILD_POP,
    GETS,
    POP,
    REDUCE,
    TUPLE2,
    get,
    get_face,
    get_raw,
    put,
)
from richstore.codec.policy import ANY, ClassPolicy
from richstore.codec.sealed import Sealed, stored_form
from richstore.errors import EncodingError, PlacedError

__all__ = [
    "CodeOfUserError",
    "RecordPickler",
    "built_fragment",
    "dump_blob",
    "faces_in",
    "fill_fragment",
    "name_fragment",
    "object_fragment",
    "part_of",
    "reference",
    "unstorable",
    "written_fragments",
]


class CodeOfUserError(Exception):
    """Encoding would run a user's code, in a thread that is not the user's; nobody gets this."""


class RecordPickler(pickle.Pickler):
    """Turns shallow contents into opcodes; `begin` readies it for one record.

    With a `record`, code of users is not run: `CodeOfUserError`, and the record is `alone`.
    Sealed values are written where it `seals`: all that is written is encrypted there.
    """

    def __init__(self) -> None:
        self.record: Any = None
        self.seals = False
        self.classes: ClassPolicy = ANY
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
        if self.seals and type(obj) is Sealed:
            return stored_form(obj)
        if self.record is not None and classes.runs_code(type(obj)):
            self.record.alone = True
            raise CodeOfUserError
        return _reduce_global(obj, self.classes)

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
        except (PlacedError, CodeOfUserError):
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


def _reduce_global(obj: Any, allowed: ClassPolicy = ANY) -> Any:
    kind = type(obj)
    if issubclass(kind, enum.Enum):
        return members.by_name(obj) or NotImplemented
    if allowed.strict and issubclass(kind, _NAMED) and obj not in _NAMELESS:
        allowed.check_storable(classes.original_class(obj) if issubclass(kind, type) else obj)
    if isinstance(obj, type):
        original = classes.original_class(obj)
        if original is not obj:
            return classes.original_class, (original,)
        if type(obj) is MissingType and obj is not Missing:
            return obj._richstore_reduction
        if classes.is_importable(obj) or obj in _NAMELESS:
            return NotImplemented
        return classes.by_value(obj)
    if kind is _FUNCTION and not classes.is_importable(obj):
        return classes.by_value(obj)
    if type(type(obj)) is MissingType:
        return reduction(obj.__class__, kept_of(obj))
    return NotImplemented


_FUNCTION = types.FunctionType
# what is stored by its name
_NAMED = (type, types.FunctionType, types.BuiltinFunctionType)
_NAMELESS = (type(None), type(NotImplemented), type(...))


class _BlobPickler(pickle.Pickler):
    classes: ClassPolicy = ANY

    def reducer_override(self, obj: Any) -> Any:
        return _reduce_global(obj, self.classes)


def dump_blob(value: Any, allowed: ClassPolicy = ANY) -> bytes:
    """Pickle a value on its own, aliases and cycles kept; for what holds no nodes.

    Raises:
        EncodingError: pickle refuses it.
        UntrustedClassError: it could not be read under a policy.
    """
    buffer = io.BytesIO()
    pickler = _BlobPickler(buffer, 5)
    pickler.classes = allowed
    try:
        pickler.dump(value)
    except PlacedError:
        raise
    except Exception as error:
        raise unstorable(value, error) from error
    return buffer.getvalue()


def reference(place: int) -> bytes:
    """Return the opcodes of a reference to a place of the memo."""
    return GETS[place] if place < 512 else get(place)


def name_fragment(place: int, name: str) -> bytes:
    """Return the opcodes that put a string into a place of the memo, ahead of all fragments."""
    text = name.encode("utf-8", "surrogatepass")
    size = len(text)
    head = b"\x8c" + bytes((size,)) if size < 256 else b"X" + size.to_bytes(4, "little")
    return head + text + put(place) + POP


def fill_fragment(slot: int, body: bytes) -> bytes:
    """Return the fragment of a list, dict or set from the opcodes of its content.

    The body begins with the one opcode that makes an empty container; the container that is
    there already takes its place.
    """
    return get_raw(slot) + body[1:] + POP


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
            found.append(get_face(slot) + written[first : end - 1] + BUILD_POP)
        else:
            # the opcode that makes an empty container is left out
            found.append(get_raw(slot) + written[first + 1 : end - 1] + POP)
        start = end
    return found


def object_fragment(slot: int, state: bytes) -> bytes:
    """Return the fragment of an instance from the opcodes of its state."""
    return get_face(slot) + state + BUILD_POP


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
            REDUCE,
            put(2 * slot),
            POP,
            # the face: wrap(slot, raw), which is the raw object itself when read as plain data
            _WRAP,
            pickler.body(slot),
            get_raw(slot),
            TUPLE2,
            REDUCE,
            put(2 * slot + 1),
            POP,
        )
    )
    fill = [get_raw(slot)]
    if listitems is not None:
        fill.append(pickler.body(list(listitems))[1:])
    if dictitems is not None:
        fill.append(pickler.body(dict(dictitems))[1:])
    if state is not None and setter is None:
        fill += (pickler.body(state), BUILD)
    elif state is not None:
        fill += (POP, pickler.body(setter), get_raw(slot))
        fill += (pickler.body(state), TUPLE2, REDUCE)
    fill.append(POP)
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
        # nothing of it is kept
        return stored_form(obj) if type(obj) is Sealed else _reduce_global(obj)


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
