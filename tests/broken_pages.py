"""Damage the pages of LMDB at random, and compare what `check` says with what can be read.

`python broken_pages.py FILE FIRST LAST` makes rounds with these numbers on copies of a store's file
and prints one line of JSON: how many files were told to be damaged, were fine, or brought `check`
down. It ends with 1 when `check` said that all is well, and the content was another. A fourth one
plants a fault: `no structure` lets `check` look at records alone, `no check` at nothing.

Each round runs in forks of this process, which has no store open: a damaged file may bring one
down.
"""

from __future__ import annotations

import faulthandler
import json
import os
import pickle
import random
import signal
import struct
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import richstore
from richstore import salvaging
from richstore.cli import upkeep
from richstore.cli.target import Target
from richstore.projects import Place

PAGE = 4096
# page header: number, pad, flags, lower, upper
HEADER = struct.Struct("<QHHHH")
BRANCH, LEAF, OVERFLOW, META = 1, 2, 4, 8


def targets(content: bytes) -> dict[str, list[tuple[int, int]]]:
    """Return ranges of bytes of each kind of thing in a file that LMDB itself reads."""
    found: dict[str, list[tuple[int, int]]] = {}
    at = 0
    while at < len(content):
        _, _, flags, lower, upper = HEADER.unpack_from(content, at)
        name = {BRANCH: "branch", LEAF: "leaf", OVERFLOW: "overflow", META: "meta"}.get(flags)
        step = PAGE
        if name == "meta":
            found.setdefault("meta", []).append((at, at + 16 + 136))
        elif name is not None:
            found.setdefault(f"{name} header", []).append((at, at + HEADER.size))
        if name in ("branch", "leaf"):
            found.setdefault("pointers", []).append((at + HEADER.size, at + lower))
            for place in range(at + HEADER.size, at + lower, 2):
                (offset,) = struct.unpack_from("<H", content, place)
                found.setdefault("node", []).append((at + offset, at + offset + 8))
                if name == "branch":
                    (size,) = struct.unpack_from("<H", content, at + offset + 6)
                    found.setdefault("branch key", []).append(
                        (at + offset + 8, at + offset + 8 + max(size, 1))
                    )
        if name == "overflow":
            step = PAGE * max(1, lower | upper << 16)
        at += step
    return found


def broken(content: bytes, dice: random.Random) -> tuple[str, bytes]:
    """Return a file in which one thing of LMDB's is not what it was, and which."""
    kinds = targets(content)
    kind = dice.choice(sorted(kinds))
    start, end = dice.choice(kinds[kind])
    changed = bytearray(content)
    way = dice.randrange(3)
    if way == 0:
        changed[dice.randrange(start, end)] ^= 1 << dice.randrange(8)
    elif way == 1:
        changed[start:end] = bytes(end - start)
    else:
        place = dice.randrange(start, end)
        changed[place : place + 2] = dice.randbytes(len(changed[place : place + 2]))
    return kind, bytes(changed)


def in_fork(function: Callable[[], int]) -> int:
    """Run a function in a fork; return its exit code, or minus the signal that ended it."""
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            faulthandler.disable()  # what brings it down is no news here
            signal.alarm(20)  # what a damaged tree makes of a loop
            silence = os.open(os.devnull, os.O_WRONLY)
            os.dup2(silence, 1)
            os.dup2(silence, 2)
            code = function()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def differs(path: Path, expected: Path) -> int:
    """Return 1 when the content of a store is not what was pickled."""
    with richstore.open(path, "r") as store:
        found = {key: richstore.plain(value) for key, value in store.items()}
    return int(found != pickle.loads(expected.read_bytes()))


def main(source: Path, first: int, last: int, fault: str = "") -> int:
    """Make the rounds."""
    if fault == "no structure":
        salvaging.structure_problems = lambda path: []  # type: ignore[attr-defined]
    if fault == "no check":
        upkeep.check_here = lambda target: 0  # type: ignore[assignment]
    content = source.read_bytes()
    expected = source.with_suffix(".expected")
    counts: Counter[str] = Counter()
    wrong: list[Any] = []
    for number in range(first, last):
        kind, changed = broken(content, random.Random(number))
        path = source.with_suffix(".broken")
        path.write_bytes(changed)
        path.with_name(f"{path.name}-lock").unlink(missing_ok=True)
        code = in_fork(lambda path=path: upkeep.check_here(Target(Place(str(path)))))
        if code:
            counts["told" if code == 1 else f"ended by {code}"] += 1
            continue
        different = in_fork(lambda path=path: differs(path, expected))
        counts["wrong" if different else "fine"] += 1
        if different:
            wrong.append((number, kind, different))
    print(json.dumps({"counts": counts, "wrong": wrong}))
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:]))
