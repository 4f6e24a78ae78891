"""What a process writes and syncs in a directory, recorded by a library that is loaded before libc.

`recorder.c` is the library, built when it is needed. The record is exact: `replay` gives what the
file has in the end, and the tests see that it does.
"""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from conftest import HERE, child_environment

# kind, inode, place in the file, bytes of data that follow
_HEAD = struct.Struct("=cQQQ")


@dataclass(frozen=True, slots=True)
class Event:
    """One entry of a record.

    Kinds: `W` written, `S` written through a descriptor that syncs (on disk when it returned), `T`
    made as long as `place`, `N` given a name, `F` the file was synced, `D` its directory was, `A`
    change number `place` was acknowledged.
    """

    kind: str
    inode: int
    place: int
    data: bytes


def compiler() -> str | None:
    """Return the C compiler that can build the recorder here, if there is one."""
    return shutil.which("gcc") if sys.platform == "linux" else None


def build(directory: Path) -> Path:
    """Build the recorder."""
    library = directory / "recorder.so"
    source = Path(HERE) / "recorder.c"
    command = [str(compiler()), "-O1", "-shared", "-fPIC", "-o", str(library), str(source)]
    subprocess.run(command, check=True, timeout=60)
    return library


def record(library: Path, directory: Path, arguments: list[str]) -> list[Event]:
    """Run Python with `arguments`, and return what it wrote in `directory`.

    The process acknowledges changes with `acknowledge`.
    """
    log = library.with_name("log")
    log.write_bytes(b"")
    subprocess.run(
        [sys.executable, *arguments],
        env={
            **child_environment(),
            "LD_PRELOAD": str(library),
            "RECORD_DIRECTORY": str(directory),
            "RECORD_LOG": str(log),
            # what Python names in its caches would be in the record
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        check=True,
        timeout=120,
    )
    return list(_entries(log.read_bytes()))


def acknowledge(number: int) -> None:
    """Put into the record that change `number` has returned."""
    log = os.open(os.environ["RECORD_LOG"], os.O_WRONLY | os.O_APPEND)
    os.write(log, _HEAD.pack(b"A", 0, number, 0))
    os.close(log)


def _entries(log: bytes) -> Iterator[Event]:
    at = 0
    while at < len(log):
        kind, inode, place, size = _HEAD.unpack_from(log, at)
        at += _HEAD.size
        yield Event(kind.decode(), inode, place, log[at : at + size])
        at += size


def of_file(events: Iterable[Event], path: Path) -> list[Event]:
    """Return what concerns one file, by whatever name it was written."""
    inode = path.stat().st_ino
    return [event for event in events if event.kind in "DA" or event.inode == inode]


def replay(events: Iterable[Event]) -> bytes:
    """Return what the file holds when all of this has happened."""
    content = bytearray()
    for event in events:
        apply(event, content)
    return bytes(content)


def apply(event: Event, content: bytearray) -> None:
    """Do to `content` what was done to the file."""
    if event.kind == "T":
        assert event.place >= len(content), "nothing here makes a file shorter"
    if event.kind in "WST":
        content.extend(bytes(max(0, event.place + len(event.data) - len(content))))
        content[event.place : event.place + len(event.data)] = event.data
