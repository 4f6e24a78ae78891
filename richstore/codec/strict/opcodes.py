"""The opcodes that our writer emits, each a function on the machine; every other one is refused."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, ClassVar

from richstore.codec.strict.machine import Machine, Stop

__all__ = ["Reader", "refused"]

_FLOAT = struct.Struct(">d")
_INT = struct.Struct("<i")


def refused(machine: Machine) -> None:
    """Refuse an opcode."""
    raise ValueError(f"the opcode {machine.data[machine.at - 1]:#x} is never written")


def _constant(value: Any) -> Callable[[Machine], None]:
    return lambda machine: machine.stack.append(value)


def _new(kind: Any) -> Callable[[Machine], None]:
    return lambda machine: machine.stack.append(kind())


def _unsigned(size: int) -> Callable[[Machine], None]:
    return lambda machine: machine.stack.append(machine.number(size))


def _long(size: int) -> Callable[[Machine], None]:
    def read(machine: Machine) -> None:
        stored = machine.take(machine.number(size))
        machine.stack.append(int.from_bytes(stored, "little", signed=True))

    return read


def _text(size: int) -> Callable[[Machine], None]:
    def read(machine: Machine) -> None:
        data, at = machine.data, machine.at
        start = at + size
        end = start + (data[at] if size == 1 else int.from_bytes(data[at:start], "little"))
        if end > len(data):
            raise ValueError("it ends too early")
        machine.at = end
        machine.stack.append(str(data[start:end], "utf-8", "surrogatepass"))

    return read


def _raw(size: int, kind: Any = bytes) -> Callable[[Machine], None]:
    return lambda machine: machine.stack.append(kind(machine.take(machine.number(size))))


def _get(size: int) -> Callable[[Machine], None]:
    return lambda machine: machine.stack.append(machine.memo[machine.number(size)])


def _get1(machine: Machine) -> None:
    at = machine.at
    machine.at = at + 1
    machine.stack.append(machine.memo[machine.data[at]])


def _put(size: int) -> Callable[[Machine], None]:
    def read(machine: Machine) -> None:
        machine.memo[machine.number(size)] = machine.stack[-1]

    return read


def _memoize(machine: Machine) -> None:
    machine.memo[len(machine.memo)] = machine.stack[-1]


def _mark(machine: Machine) -> None:
    machine.marks.append(machine.stack)
    machine.stack = []


def _pop(machine: Machine) -> None:
    if machine.stack:
        machine.stack.pop()
    else:
        machine.stack = machine.marks.pop()


def _pop_mark(machine: Machine) -> None:
    machine.to_mark()


def _tuple(machine: Machine) -> None:
    items = tuple(machine.to_mark())
    machine.stack.append(machine.nest(items, items))


def _tuple_of(count: int) -> Callable[[Machine], None]:
    def read(machine: Machine) -> None:
        stack = machine.stack
        if len(stack) < count:
            raise IndexError("a tuple is incomplete")
        items = tuple(stack[-count:])
        stack[-count:] = [machine.nest(items, items)]

    return read


def _frozenset(machine: Machine) -> None:
    items = machine.to_mark()
    is_users = machine.hashed(items, items)
    made = machine.user(frozenset, items) if is_users else frozenset(items)
    machine.hashes.pop(id(items), None)
    machine.stack.append(machine.nest(made, items))


def _append(machine: Machine) -> None:
    item = machine.stack.pop()
    machine.extend(machine.stack[-1], [item])


def _appends(machine: Machine) -> None:
    items = machine.to_mark()
    machine.extend(machine.stack[-1], items)


def _set_item(machine: Machine) -> None:
    value = machine.stack.pop()
    key = machine.stack.pop()
    machine.put(machine.stack[-1], [key, value])


def _set_items(machine: Machine) -> None:
    items = machine.to_mark()
    machine.put(machine.stack[-1], items)


def _add_items(machine: Machine) -> None:
    items = machine.to_mark()
    machine.add(machine.stack[-1], items)


def _global(machine: Machine) -> None:
    qualname = machine.stack.pop()
    machine.stack.append(machine.find(machine.stack.pop(), qualname))


def _reduce(machine: Machine) -> None:
    arguments = machine.stack.pop()
    machine.stack[-1] = machine.call(machine.stack[-1], arguments)


def _new_object(machine: Machine) -> None:
    arguments = machine.stack.pop()
    machine.stack[-1] = machine.new(machine.stack[-1], arguments, {})


def _new_object_ex(machine: Machine) -> None:
    named = machine.stack.pop()
    arguments = machine.stack.pop()
    machine.stack[-1] = machine.new(machine.stack[-1], arguments, named)


def _build(machine: Machine) -> None:
    state = machine.stack.pop()
    machine.build(machine.stack[-1], state)


def _stop(machine: Machine) -> None:
    raise Stop


def _skip(size: int) -> Callable[[Machine], None]:
    def read(machine: Machine) -> None:
        machine.take(size)

    return read


def _float(machine: Machine) -> None:
    machine.stack.append(_FLOAT.unpack(machine.take(8))[0])


def _int(machine: Machine) -> None:
    machine.stack.append(_INT.unpack(machine.take(4))[0])


_OPCODES: dict[bytes, Callable[[Machine], None]] = {
    b"\x80": _skip(1), b"\x95": _skip(8), b".": _stop,
    b"N": _constant(None), b"\x88": _constant(True), b"\x89": _constant(False),
    b"J": _int, b"K": _unsigned(1), b"M": _unsigned(2), b"\x8a": _long(1), b"\x8b": _long(4),
    b"G": _float, b"\x8c": _text(1), b"X": _text(4), b"\x8d": _text(8),
    b"C": _raw(1), b"B": _raw(4), b"\x8e": _raw(8), b"\x96": _raw(8, bytearray),
    b")": _new(tuple), b"]": _new(list), b"}": _new(dict), b"\x8f": _new(set),
    b"(": _mark, b"0": _pop, b"1": _pop_mark,
    b"t": _tuple, b"\x85": _tuple_of(1), b"\x86": _tuple_of(2), b"\x87": _tuple_of(3),
    b"a": _append, b"e": _appends, b"s": _set_item, b"u": _set_items,
    b"\x90": _add_items, b"\x91": _frozenset,
    b"h": _get1, b"j": _get(4), b"q": _put(1), b"r": _put(4), b"\x94": _memoize,
    b"\x93": _global, b"R": _reduce, b"\x81": _new_object, b"\x92": _new_object_ex,
    b"b": _build,
}  # fmt: skip


class Reader(Machine):
    """Runs the opcodes of records."""

    handlers: ClassVar = [_OPCODES.get(bytes((code,)), refused) for code in range(256)]
