"""The opcodes of pickle that records are made of.

Slot `n` of a record owns two places of the unpickler's memo: `2n` is its raw container, `2n + 1`
what others see of it.
"""

from __future__ import annotations

__all__ = [
    "BUILD",
    "BUILD_POP",
    "GETS",
    "POP",
    "REDUCE",
    "STOP",
    "TUPLE2",
    "get",
    "get_face",
    "get_raw",
    "put",
]

POP = b"0"
BUILD = b"b"
BUILD_POP = BUILD + POP
STOP = b"."
TUPLE2 = b"\x86"
REDUCE = b"R"


def get(place: int) -> bytes:
    """Return the opcode that takes a place of the memo."""
    return b"h" + bytes((place,)) if place < 256 else b"j" + place.to_bytes(4, "little")


def put(place: int) -> bytes:
    """Return the opcode that fills a place of the memo."""
    return b"q" + bytes((place,)) if place < 256 else b"r" + place.to_bytes(4, "little")


GETS = [get(place) for place in range(512)]


def get_raw(slot: int) -> bytes:
    """Return the opcode that takes the raw container of a slot."""
    return GETS[2 * slot] if slot < 256 else get(2 * slot)


def get_face(slot: int) -> bytes:
    """Return the opcode that takes what others see of a slot."""
    return GETS[2 * slot + 1] if slot < 256 else get(2 * slot + 1)
