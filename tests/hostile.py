"""Stores that an attacker has made: real files with right checksums, each with one hostile value.

`python hostile.py DIRECTORY POLICY [FAULT]` reads the value of every case in every way, each in a
fork with a limit on its memory, and prints a line of JSON for each: what came of it, whether code
was run, and what it took. A fault takes one check away.
"""

from __future__ import annotations

import collections
import json
import os
import pickle
import resource
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hostile_gadgets
import lmdb

import richstore
from richstore import pages
from richstore.codec import keys, policy, records, strict
from richstore.codec.opcodes import get, put

GOOD = [1, {"a": [2, 3]}, (4, "five")]
ROOT = b"\x10"
EVIL = ROOT + keys.encode_key("evil")
COMMAND = "echo ran > $CANARY"
PYTHON = "open(__import__('os').environ['CANARY'], 'w').close()"
Entries = dict[bytes, bytes]

# What reading a hostile value may take, besides what a process has that has read nothing.
MEMORY = 64 << 20
PER_BYTE = 1000
SECONDS = 10


# --- opcodes


def text(value: str) -> bytes:
    """Return the opcodes of a text."""
    raw = value.encode()
    return b"X" + len(raw).to_bytes(4, "little") + raw


def number(value: int) -> bytes:
    """Return the opcodes of a number."""
    return pickle.dumps(value, 2)[2:-1]


def named(module: str, qualname: str) -> bytes:
    """Return the opcodes that look a name up."""
    return text(module) + text(qualname) + b"\x93"


def call(function: bytes, *arguments: bytes) -> bytes:
    """Return the opcodes of a call."""
    return function + b"(" + b"".join(arguments) + b"tR"


def record(
    stream: bytes,
    table: tuple[tuple[int, int, int], ...] = (),
    *,
    name: bytes = EVIL,
    classes: tuple[bytes, ...] = (),
    links: tuple[bytes, ...] = (),
    key: bytes | None = None,
    count: int | None = None,
) -> bytes:
    """Return a record with the right checksum."""
    rows = [records.row(*row) for row in table]
    links_ = list(links)
    return records.encode(
        name, key, count, rows, len(rows), 1 << 30, classes, links_, [stream], b""
    )


def value(stream: bytes, **options: Any) -> Entries:
    """Return a value that is no more than a stream."""
    return {EVIL: record(stream, **options)}


def stored_class(qualname: str, module: str = "hostile_gadgets") -> bytes:
    """Return an entry of a class table."""
    return b"n" + module.encode() + b"\0" + qualname.encode()


ALLOWED = named("hostile_gadgets", "Allowed")
MAKE = named("richstore.codec.containers", "make")
FILL = named("richstore.codec.containers", "fill")
BLOB = named("richstore.codec.records", "load_blob")
INSTANCE = ((0, 0, records.FIRST_CLASS),)


def raw_bytes(data: bytes) -> bytes:
    """Return the opcodes of bytes."""
    return b"B" + len(data).to_bytes(4, "little") + data


class Evil:
    def __reduce__(self) -> Any:
        return os.system, (COMMAND,)


def instance(state: bytes, qualname: str = "Allowed") -> Entries:
    """Return an instance of an allowed class that is given a state."""
    stream = get(1) + state + b"b0" + get(1)
    return value(stream, table=INSTANCE, classes=(stored_class(qualname),))


# --- what runs code

CASES: dict[str, Callable[[], Entries]] = {
    "os.system": lambda: value(call(named("os", "system"), text(COMMAND))),
    "posix.system": lambda: value(call(named("posix", "system"), text(COMMAND))),
    "eval": lambda: value(call(named("builtins", "eval"), text(PYTHON))),
    "exec": lambda: value(call(named("builtins", "exec"), text(PYTHON))),
    "getattr of a class": lambda: value(
        call(call(named("builtins", "getattr"), ALLOWED, text("explode")))
    ),
    "getattr of an instance": lambda: value(
        call(call(named("builtins", "getattr"), call(ALLOWED), text("method")))
    ),
    "method by a dotted name": lambda: value(call(named("hostile_gadgets", "Allowed.explode"))),
    "module in a module": lambda: value(call(named("hostile_gadgets", "os.system"), text(COMMAND))),
    "function of another module": lambda: value(
        call(named("hostile_gadgets", "system"), text(COMMAND))
    ),
    "class that is not allowed": lambda: value(call(named("hostile_gadgets", "Unlisted"))),
    "new of a class that is not allowed": lambda: value(
        named("hostile_gadgets", "Unlisted") + b")\x81" + number(1) + b"b"
    ),
    "function that is not allowed": lambda: value(call(named("hostile_gadgets", "dangerous"))),
    "partial": lambda: value(
        call(call(named("functools", "partial"), named("os", "system"), text(COMMAND)))
    ),
    "methodcaller": lambda: value(
        call(call(named("operator", "methodcaller"), text("explode")), ALLOWED)
    ),
    "attrgetter": lambda: value(
        call(call(call(named("operator", "attrgetter"), text("explode")), ALLOWED))
    ),
    "map": lambda: value(
        call(
            named("builtins", "list"),
            call(named("builtins", "map"), named("os", "system"), b"(" + text(COMMAND) + b"t"),
        )
    ),
    "set by a setter": lambda: value(
        call(named("builtins", "setattr"), ALLOWED, text("name"), text("x"))
    ),
    "nested pickle": lambda: value(call(BLOB, raw_bytes(pickle.dumps(Evil(), 5)))),
    "pickle.loads": lambda: value(
        call(named("_pickle", "loads"), raw_bytes(pickle.dumps(Evil(), 5)))
    ),
    "function by value": lambda: value(
        call(
            named("richstore.codec.classes", "function_by_value"),
            raw_bytes(pickle.dumps(Evil(), 5)),
        )
    ),
    "class by value": lambda: value(
        call(
            named("richstore.codec.classes", "class_by_value"),
            text("1" * 32),
            text("m"),
            text("C"),
            raw_bytes(pickle.dumps(Evil(), 5)),
        )
    ),
    "class table by value": lambda: value(
        get(1) + b"}b0" + get(1),
        table=INSTANCE,
        classes=(b"v" + pickle.dumps(("1" * 32, "m", "C", pickle.dumps(Evil(), 5)), 5),),
    ),
    "class table by an evil pickle": lambda: value(
        get(1), table=INSTANCE, classes=(b"v" + pickle.dumps(Evil(), 5),)
    ),
    "class table with a function": lambda: value(
        get(1) + b"}b0" + get(1), table=INSTANCE, classes=(stored_class("system", "os"),)
    ),
    "class table with a class that is not allowed": lambda: value(
        get(1) + b"}b0" + get(1), table=INSTANCE, classes=(stored_class("Unlisted"),)
    ),
    "class of a reference": lambda: (
        value(
            get(1),
            table=((0, 0, records.EXTERNAL),),
            links=(
                records.external(0, records.FIRST_CLASS, b"v" + pickle.dumps(Evil(), 5), SHARED),
            ),
        )
        | {SHARED: record(b"N", name=SHARED, count=1)}
    ),
    "key": lambda: value(b"N", key=pickle.dumps(Evil(), 5)),
    "text opcodes": lambda: value(b"cos\nsystem\n(" + text(COMMAND) + b"tR"),
    "INST": lambda: value(b"(" + text(COMMAND) + b"ios\nsystem\n"),
    "OBJ": lambda: value(b"(" + named("os", "system") + text(COMMAND) + b"o"),
    "persistent id": lambda: value(text("x") + b"Q"),
    "extension": lambda: value(b"\x82\x01"),
    "wrap of a function": lambda: value(
        call(b"\x8c\x0arichstore.\x8c\x04wrap\x93", number(0), named("os", "system"))
    ),
    "factory": lambda: value(
        call(named("collections", "defaultdict"), named("hostile_gadgets", "dangerous"))
    ),
    # --- out of what is allowed
    "state with a class": lambda: instance(
        b"N}" + text("__class__") + named("hostile_gadgets", "Slotted") + b"s\x86"
    ),
    "state with a dict": lambda: instance(b"N}" + text("__dict__") + b"}s\x86"),
    "state with a reduction": lambda: instance(b"}" + text("__reduce_ex__") + ALLOWED + b"s"),
    "state of slots with a class": lambda: instance(
        b"N}" + text("__class__") + ALLOWED + b"s\x86", "Slotted"
    ),
    "setstate as an attribute": lambda: instance(
        b"}" + text("__setstate__") + named("builtins", "bytearray") + b"sb" + number(10**12)
    ),
    "state of a class": lambda: value(ALLOWED + b"}" + text("name") + text("x") + b"sb"),
    "state of a number": lambda: value(number(7) + b"}" + text("real") + text("x") + b"sb"),
    "state of a list": lambda: value(
        get(1) + b"}" + text("__class__") + number(1) + b"sb", table=((0, 0, records.LIST),)
    ),
    "items into a face": lambda: value(
        get(1) + b"(" + number(1) + b"e", table=((0, 0, records.LIST),)
    ),
    "fill with a class": lambda: value(
        call(MAKE, named("builtins", "ValueError"), b"N")
        + put(9)
        + call(
            FILL,
            get(9),
            b"()}" + text("__class__") + named("builtins", "KeyError") + b"s\x86"[:1] + b"t",
        )
        + b"0"
        + get(9)
    ),
    "fill of what was not made here": lambda: value(
        call(FILL, ALLOWED, b"(N}" + text("name") + number(1) + b"st")
    ),
    "make of a class that is none": lambda: value(call(MAKE, number(1), b"N")),
    "path of a time zone": lambda: value(
        call(
            call(named("builtins", "getattr"), named("zoneinfo", "ZoneInfo"), text("_unpickle")),
            text("../../../etc/passwd"),
            number(1),
        )
    ),
    "any attribute of a time zone": lambda: value(
        call(call(named("builtins", "getattr"), named("zoneinfo", "ZoneInfo"), text("from_file")))
    ),
}

SHARED = pages.SHARED + (7).to_bytes(8, "big")


# --- what takes memory or time


def nested_tuples(levels: int) -> bytes:
    """Return a tuple that holds the one before twice, and so has 2 ** levels items."""
    return b")" + b"".join(put(5) + b"0" + get(5) + get(5) + b"\x86" for _ in range(levels))


def copies(what: bytes, how: Callable[[bytes], bytes], count: int) -> bytes:
    """Return a list of many copies of something that is stored once."""
    return what + put(5) + b"0](" + b"".join(how(get(5)) for _ in range(count)) + b"e"


def many(size: int) -> str:
    """Return a long text."""
    return "x" * size


CASES |= {
    "large bytearray": lambda: value(call(named("builtins", "bytearray"), number(10**12))),
    "large list": lambda: value(
        call(
            named("builtins", "list"),
            call(named("builtins", "range"), number(0), number(10**12), number(1)),
        )
    ),
    "large bytes of an allowed class": lambda: value(
        named("hostile_gadgets", "Bytes") + number(10**12) + b"\x85\x81"
    ),
    "large bytes made": lambda: value(
        call(MAKE, named("hostile_gadgets", "Bytes"), number(10**12))
    ),
    "large tuple made": lambda: value(call(MAKE, named("builtins", "tuple"), number(10**12))),
    "large fraction": lambda: value(call(named("fractions", "Fraction"), text("1e999999999"))),
    "large array": lambda: value(
        call(
            named("array", "_array_reconstructor"),
            named("array", "array"),
            text("d"),
            number(17),
            number(10**9),
        )
    ),
    "large place in the memo": lambda: value(b"N" + put(2**31)),
    "large bytes announced": lambda: value(b"\x8e" + (2**40).to_bytes(8, "little")),
    "larger bytes announced": lambda: value(b"\x8e" + (2**63).to_bytes(8, "little")),
    "large bytearray announced": lambda: value(b"\x96" + (2**40).to_bytes(8, "little")),
    "large text announced": lambda: value(b"X" + (2**31).to_bytes(4, "little")),
    "large number announced": lambda: value(b"\x8b" + (2**31 - 1).to_bytes(4, "little")),
    "large frame": lambda: value(b"\x95" + (2**62).to_bytes(8, "little") + b"N"),
    "buffers": lambda: value(b"\x97"),
    "buffers of nodes": lambda: value(
        b"\x97\x97" + get(1), table=((0, 0, records.LIST), (1, 1, records.LIST))
    ),
    "copied bytes": lambda: value(
        copies(
            raw_bytes(bytes(100_000)),
            lambda one: call(named("builtins", "bytearray"), one),
            20_000,
        )
    ),
    "copied pickles": lambda: value(
        copies(raw_bytes(pickle.dumps(list(range(50_000)), 5)), lambda one: call(BLOB, one), 20_000)
    ),
    "copied texts in paths": lambda: value(
        copies(
            text(many(100_000)),
            lambda one: call(named("pathlib", "PurePosixPath"), one, one),
            5_000,
        )
    ),
    "copied state": lambda: value(
        b"}("
        + b"".join(text(f"k{at}") + number(at) for at in range(5000))
        + b"u"
        + copies(
            b"",
            lambda one: call(named("types", "SimpleNamespace")) + one + b"b",
            20_000,
        ).replace(put(5) + b"0", put(5) + b"0", 1)
    ),
    "pickles in pickles": lambda: value(call(BLOB, raw_bytes(nested_blobs(500)))),
    "tuples of tuples as a key": lambda: value(b"}" + nested_tuples(60) + b"Ns"),
    "tuples of tuples as an element": lambda: value(b"\x8f(" + nested_tuples(60) + b"\x90"),
    "tuples of tuples frozen": lambda: value(b"(" + nested_tuples(60) + b"\x91"),
    "tuples of tuples": lambda: value(nested_tuples(60)),
    "deep tuples as a key": lambda: value(b"})" + b"\x85" * 100_000 + b"Ns"),
    "deep tuples": lambda: value(b")" + b"\x85" * 100_000),
    "deep lists": lambda: value(b"]" * 100_000 + b"a" * 99_999),
    "deep lists in a list": lambda: value(
        get(0) + b"(" + b"]" * 100_000 + b"a" * 99_999 + b"e0" + get(1),
        table=((0, 0, records.LIST),),
    ),
    "deep marks": lambda: value(b"(" * 100_000),
    "deep types": lambda: value(b"}" + named("builtins", "int") + deep_alias(50_000) + b"Ns"),
    "keys with one hash": lambda: value(
        b"\x8f(" + b"".join(number(at * ((1 << 61) - 1)) for at in range(1, 20_000)) + b"\x90"
    ),
    "keys with one hash, one by one": lambda: value(
        b"\x8f" + b"".join(b"(" + number(at * ((1 << 61) - 1)) + b"\x90" for at in range(1, 20_000))
    ),
    "a large number as many keys": lambda: value(
        number(1 << 4_000_000) + put(5) + b"0](" + (b"}" + get(5) + b"Ns") * 50_000 + b"e"
    ),
    "large pattern": lambda: value(
        call(named("re", "_compile"), text("(" * 50_000 + ")" * 50_000), number(32))
    ),
    "pattern that prints": lambda: value(call(named("re", "_compile"), text("a"), number(128))),
    "many sets": lambda: value(b"](" + b"\x8f" * 50_000 + b"e"),
    "many deques": lambda: value(
        named("collections", "deque") + put(5) + b"0](" + (get(5) + b")R") * 20_000 + b"e"
    ),
}


def nested_blobs(levels: int) -> bytes:
    """Return pickles inside each other."""
    inner = b"N."
    for _ in range(levels):
        inner = call(BLOB, raw_bytes(inner)) + b"."
    return inner


def deep_alias(levels: int) -> bytes:
    """Return types inside each other."""
    alias = (
        named("types", "GenericAlias") + put(6) + b"0" + named("builtins", "list") + put(7) + b"0"
    )
    return alias + b"".join(
        put(5) + b"0" + get(6) + get(7) + get(5) + b"\x85\x86R" for _ in range(levels)
    )


# --- what is forged around the stream


def table_only(*rows: tuple[int, int, int], **options: Any) -> Entries:
    """Return a value with a forged table."""
    return value(get(1) if rows[0][0] == 0 else b"N", table=rows, **options)


def large_list(cells: Entries, some_pages: Entries | None = None) -> Entries:
    """Return a large list with forged indexes."""
    entries = value(get(1), table=((0, 0, records.SPREAD),), links=((99).to_bytes(8, "big"),))
    return entries | cells | (page(1) if some_pages is None else some_pages)


def page(pid: int, stream: bytes | None = None, **options: Any) -> Entries:
    """Return a page of the large list."""
    name = pages.page_name(99, pid)
    options.setdefault("table", ((0, pid, records.LIST),))
    stream = get(0) + b"(" + number(1) * 100 + b"e0" + get(1) if stream is None else stream
    return {name: record(stream, name=name, **options)}


def index(level: int, children: list[int], counts: list[int], iid: int | None = None) -> Entries:
    """Return an index of the large list."""
    return {pages.cell_name(99, iid): pages.Index(level, children, counts).to_bytes()}


def halves(levels: int) -> Entries:
    """Return indexes of which each leads to the two below it twice."""
    found = index(levels, [2 * levels, 2 * levels + 1], [1, 0])
    for level in range(levels - 1, -1, -1):
        below = [2 * level, 2 * level + 1] if level else [1]
        for one in (2 * (level + 1), 2 * (level + 1) + 1):
            found |= index(level, below, [1] * len(below), one)
    return found


def large_dict(directory: bytes, *, kind: int = records.DICT) -> Entries:
    """Return a large dict with a forged directory."""
    link = (99).to_bytes(8, "big")
    entries = value(get(1), table=((0, 0, records.SPREAD + kind),), links=(link,))
    return entries | {pages.cell_name(99): directory}


def circle(count: int) -> Entries:
    """Return large lists each of which has the next on its page, and the last the first."""
    first = value(get(1), table=((0, 0, records.SPREAD),), links=((100).to_bytes(8, "big"),))
    for at in range(count):
        name = pages.page_name(100 + at, 1)
        first[pages.cell_name(100 + at)] = pages.Index(0, [1], [0]).to_bytes()
        first[name] = record(
            get(0) + b"(" + get(3) + b"e0" + get(1),
            name=name,
            table=((0, 2 * at + 1, records.LIST), (1, 2 * at + 2, records.SPREAD)),
            links=((100 + (at + 1) % count).to_bytes(8, "big"),),
        )
    return first


def shared_circle() -> Entries:
    """Return two shared records, made by calls, that refer to each other."""
    other = SHARED[:-1] + b"\x08"
    made = call(MAKE, named("collections", "deque"), b"N") + put(0) + b"0"
    made += call(b"\x8c\x0arichstore.\x8c\x04wrap\x93", number(0), get(0)) + put(1)
    rows = ((1, 5, records.EXTERNAL), (0, 0, records.BUILT))
    entries = value(
        get(3), table=((1, 0, records.EXTERNAL),), links=(records.external(0, 3, b"", SHARED),)
    )
    for name, link in ((SHARED, other), (other, SHARED)):
        entries[name] = record(
            made, rows, name=name, count=1, links=(records.external(0, 3, b"", link),)
        )
    return entries


def moved() -> Entries:
    """Return a record of another value under this name."""
    good = ROOT + keys.encode_key("good")
    return {EVIL: record(b"N", name=good)}


def with_body(body: bytes, flags: int) -> Entries:
    """Return a record with any content and the right checksum."""
    from zlib import crc32

    head = struct.pack("<BBI", records.VERSION, flags, crc32(body, crc32(EVIL, flags)))
    return {EVIL: head + body}


CASES |= {
    "moved record": moved,
    "slot that is too high": lambda: table_only((0, 0, 0), (2**40, 1, records.LIST)),
    "slot that is high": lambda: table_only((0, 0, 0), (2**23, 1, records.LIST)),
    "slot below nothing": lambda: table_only((0, 0, 0), (-5, 2**40, records.LIST)),
    "slot twice": lambda: table_only((0, 0, 0), (0, 1, records.DICT)),
    "number twice": lambda: table_only((0, 0, 0), (1, 0, records.LIST)),
    "number that is too high": lambda: table_only((0, 2**62, 0), (1, 0, 0)),
    "head that is free": lambda: table_only((0, 0, 9)),
    "head below nothing": lambda: table_only((0, 2**40, -3)),
    "head of no class": lambda: table_only((0, 0, 300)),
    "reference without a link": lambda: table_only((0, 0, records.EXTERNAL)),
    "half a link": lambda: table_only((0, 0, records.EXTERNAL), links=(b"abc",)),
    "link to itself": lambda: table_only(
        (0, 0, records.EXTERNAL), links=(records.external(0, 0, b"", EVIL),)
    ),
    "link into another value": lambda: table_only(
        (0, 0, records.EXTERNAL),
        links=(records.external(0, 0, b"", ROOT + keys.encode_key("good")),),
    ),
    "link to a page": lambda: table_only(
        (0, 0, records.EXTERNAL), links=(records.external(0, 0, b"", pages.page_name(9, 9)),)
    ),
    "link to what is not there": lambda: table_only(
        (0, 0, records.EXTERNAL), links=(records.external(0, 0, b"", SHARED),)
    ),
    "link to another node": lambda: (
        table_only((0, 3, records.EXTERNAL), links=(records.external(0, 0, b"", SHARED),))
        | {SHARED: record(get(1), ((0, 9, records.LIST),), name=SHARED, count=1)}
    ),
    "wrong count": lambda: (
        table_only((0, 3, records.EXTERNAL), links=(records.external(0, 0, b"", SHARED),))
        | {SHARED: record(get(1), ((0, 3, records.LIST),), name=SHARED, count=2**32 - 1)}
    ),
    "shared records in a circle": shared_circle,
    "half a table": lambda: with_body(struct.pack("<qI", 0, 3) + b"\x02ab" + bytes(2) + b"N.", 2),
    "empty table": lambda: with_body(struct.pack("<qI", 0, 0), 2),
    "large table announced": lambda: with_body(struct.pack("<qI", 0, 2**32 - 1) + b"\x02", 2),
    "many classes announced": lambda: with_body(
        struct.pack("<qI", 0, 7) + b"\x02" + bytes(6) + b"\xff\xff", 2
    ),
    "no content": lambda: with_body(b"", 0),
    "all flags": lambda: with_body(b"\xff" * 100, 255),
    "index in a circle": lambda: large_list(index(1, [7], [0]) | index(1, [7], [0], 7)),
    "root in a circle": lambda: large_list(index(3, [7], [0]) | index(2, [7], [0], 7)),
    "index that is a directory": lambda: large_list(
        {pages.cell_name(99): pages.Directory(3, 1).to_bytes()}
    ),
    "index with one page often": lambda: large_list(index(0, [1] * 5000, [100] * 4999 + [0])),
    "indexes that share all": lambda: large_list(halves(60)),
    "large counts": lambda: large_list(index(0, [1, 2], [2**63, 0]), page(1) | page(2)),
    "large counts, believable": lambda: large_list(index(0, [1, 2], [10**9, 0]), page(1) | page(2)),
    "page with a dict": lambda: large_list(
        index(0, [1], [0]), page(1, get(1), table=((0, 1, records.DICT),))
    ),
    "page with a number": lambda: large_list(index(0, [1], [0]), page(1, number(5), table=())),
    "page that is missing": lambda: large_list(index(0, [5], [0])),
    "large containers in a circle": lambda: circle(100),
    "large container in itself": lambda: circle(1),
    "large count of a dict": lambda: large_dict(pages.Directory(2**63, 1).to_bytes()),
    "believable count of a dict": lambda: large_dict(pages.Directory(10**9, 1).to_bytes()),
    "large count of a set": lambda: large_dict(
        pages.Directory(2**40, 1).to_bytes(), kind=records.SET
    ),
    "cell that is too short": lambda: large_list({pages.cell_name(99): b"abc"}),
    # --- opcodes out of order
    "nothing on the stack": lambda: value(b"0"),
    "no mark": lambda: value(b"]e"),
    "two values": lambda: value(number(1) + number(2)),
    "place that is empty": lambda: value(get(77)),
    "half a pair": lambda: value(b"}(" + number(1) + b"u"),
    "key without a hash": lambda: value(b"}]Ns"),
    "elements into a list": lambda: value(b"](" + number(1) + b"\x90"),
    "unknown opcode": lambda: value(b"\xff"),
    "UUID without content": lambda: value(b"}" + named("uuid", "UUID") + b")\x81Ns"),
    "date that is none": lambda: value(
        call(named("datetime", "date"), raw_bytes(b"\x07\xe4\x02\xff"))
    ),
    "address that is a number": lambda: value(call(named("ipaddress", "IPv4Network"), number(5))),
    "text that is none": lambda: value(b"X\x02\x00\x00\x00\xff\xff"),
}


# --- the runs


def make_store(path: Path, entries: Entries) -> None:
    """Make a store with good values and a hostile one, all with right checksums."""
    with richstore.open(path, synchronous="off") as store:
        store["good"] = GOOD
        store["rows"] = [{"n": n} for n in range(500)]
        store["zoo"] = {"last": True}
    Path(f"{path}-lock").unlink()
    env = lmdb.open(str(path), subdir=False, lock=False, map_size=1 << 30)
    with env, env.begin(write=True) as transaction:
        for name, stored in entries.items():
            transaction.put(name, stored)


def consume(found: Any) -> None:
    """Use a value as programs do."""
    len(found) if hasattr(found, "__len__") else None
    richstore.plain(found)
    if isinstance(found, collections.abc.MutableSequence):
        found[:10]
        list(found)
    if isinstance(found, collections.abc.Mapping):
        list(found.items())
        found.get("x")


WAYS: dict[str, Callable[[Any], Any]] = {
    "live": lambda store: consume(store["evil"]),
    "keys": lambda store: list(store),
    "values": lambda store: list(map(richstore.plain, store.values())),
    "verify": lambda store: store.verify(),
    "change": lambda store: store["evil"].append(1),
    "replace": lambda store: store.update(evil=1, new=2),
}


def snapshot(store: Any) -> None:
    """Use the value of a snapshot."""
    with store.snapshot() as view:
        consume(view["evil"])


WAYS = {"snapshot": snapshot, **WAYS}

CLEAR = (richstore.RichStoreError,)
# What Python itself says of a harmless value that is no list.
HARMLESS = (AttributeError, TypeError, RecursionError)


def outcome(path: Path, classes: Any) -> dict[str, str]:
    """Read a hostile value in every way; return what came of each."""
    found: dict[str, str] = {}
    options = {} if classes is None else {"classes": classes}
    with richstore.open(path, synchronous="off", **options) as store:
        for way, use in WAYS.items():
            try:
                use(store)
                found[way] = "fine"
            except CLEAR as error:
                found[way] = type(error).__name__
                assert str(error)
            except HARMLESS as error:
                allowed = "change" if not isinstance(error, RecursionError) else way
                found[way] = "fine" if way == allowed else f"unclear: {error!r}"
            except MemoryError:
                found[way] = "unclear: MemoryError"
            except Exception as error:
                found[way] = f"unclear: {error!r}"
        found["good"] = str(
            richstore.plain(store["good"]) == GOOD
            and [one["n"] for one in store["rows"]] == list(range(500))
            and store["zoo"] == {"last": True}
        )
    return found


POLICIES: dict[str, Any] = {
    "mode": None,
    "none": "none",
    "classes": [hostile_gadgets.Allowed, hostile_gadgets.Slotted, hostile_gadgets.Bytes],
    "any": "any",
}


def nothing(*_: Any) -> None:
    """Check nothing."""


def believe(self: Any, module: str, qualname: str) -> Any:
    """Find everything."""
    return policy.ANY.find(module, qualname)


FAULTS: dict[str, tuple[Any, str, Any]] = {
    "every class is found": (policy.StrictPolicy, "find", believe),
    "nothing is counted": (strict.Reader, "charge", nothing),
    "hashes are not compared": (strict.Reader, "hashed", lambda *_: False),
    "tables are believed": (strict, "check_parts", nothing),
}


def run(path: Path, classes: Any, size: int) -> None:
    """Read in this process, which is a fork, and print what came of it."""
    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    limit = 2 << 30
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CPU, (2 * SECONDS, 2 * SECONDS))
    begin = time.process_time()
    found: dict[str, Any] = {"ways": outcome(path, classes)}
    found["seconds"] = time.process_time() - begin
    found["memory"] = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base)
    found["bound"] = MEMORY + PER_BYTE * size
    print(json.dumps(found), flush=True)


def main(directory: Path, policy_name: str, fault: str, cases: list[str]) -> None:
    """Run cases, all if none is named."""
    if fault:
        owner, name, replacement = FAULTS[fault]
        setattr(owner, name, replacement)
    strict.load(b"N.", policy.NONE)
    for name in cases or list(CASES):
        entries = CASES[name]()
        path = directory / "store"
        path.unlink(missing_ok=True)
        Path(f"{path}-lock").unlink(missing_ok=True)
        canary = directory / "canary"
        canary.unlink(missing_ok=True)
        os.environ["CANARY"] = str(canary)
        child = os.fork()
        if child == 0:
            make_store(path, entries)
            os._exit(0)
        os.waitpid(child, 0)
        if policy_name == "mode":
            path.chmod(0o666)
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.dup2(writing, 1)
            os.close(reading)
            try:
                run(path, POLICIES[policy_name], sum(map(len, entries.values())))
            except BaseException as error:
                print(json.dumps({"failed": repr(error)}), flush=True)
            os._exit(0)
        os.close(writing)
        with open(reading) as told:
            answer = told.read().splitlines()
        status = os.waitpid(child, 0)[1]
        found = json.loads(answer[-1]) if answer else {"failed": f"ended with {status}"}
        print(json.dumps({"case": name, "ran": canary.exists(), **found}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else "", sys.argv[4:])
