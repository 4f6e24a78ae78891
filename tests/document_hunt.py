"""Writers of one document that are killed, or that compete; run as a process of its own.

`python document_hunt.py MODE DIRECTORY FAULT NUMBER` ends with an AssertionError when something is
wrong, and else prints what was seen. The writers are forks of this process, so that one costs
milliseconds. FAULT plants a fault in the files of documents, which must be found.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import richstore
from richstore.documents import files
from richstore.documents.files import FilePlace

SECONDS = 20


def write_in_place(self: Any, target: str, data: bytes) -> None:
    """Overwrite the file, in two steps."""
    with open(target, "wb", buffering=0) as file:
        file.write(data[: len(data) // 2])
        time.sleep(0.002)
        file.write(data[len(data) // 2 :])


def append_twice(document: Any, n: int) -> None:
    """Make two changes of what is to be one."""
    document.value["a"] = n
    document.value["b"] = n


FAULTS: dict[str, Callable[[], None]] = {
    "none": lambda: None,
    "in place": lambda: setattr(FilePlace, "_replace", write_in_place),
    "leftovers stay": lambda: setattr(FilePlace, "_clear", lambda self, target: None),
    "acknowledged too early": lambda: None,
    "two steps": lambda: globals().update(change=append_twice),
    "no lock": lambda: setattr(FilePlace, "acquire", lambda self, timeout: None),
}


def change(document: Any, n: int) -> None:
    """Make a change of several parts in a block."""
    with document:
        document.value["a"] = n
        document.value["pad"] = "x" * (n * 7919 % 200_000)
        document.value["b"] = n


def new_document(path: Path) -> Any:
    """Open the document that the writers change."""
    return richstore.document(
        path, default={"a": 0, "b": 0, "n": 0, "pad": ""}, autosave=True, timeout=SECONDS
    )


def fork(work: Callable[[], None]) -> int:
    """Run a function in a new process, and return its id."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def write_until_killed(path: Path, pipe: int, early: bool) -> None:
    """Change the document again and again, and tell each change that has returned."""
    document = new_document(path)
    n = document.value["n"]
    while True:
        n += 1
        if early:
            os.write(pipe, b"%d\n" % n)
            time.sleep(0.002)
        change(document, n)
        document.value["n"] = n
        if not early:
            os.write(pipe, b"%d\n" % n)


def check(path: Path, acknowledged: int, ahead: int = 1) -> dict[str, Any]:
    """Look at what a killed writer has left, and write once."""
    found: dict[str, Any] = json.loads(path.read_bytes())
    assert found["a"] == found["b"], "a block by half"
    assert found["n"] <= found["a"] <= found["n"] + ahead, "changes in another order"
    assert found["n"] >= acknowledged, "an acknowledged change is missing"
    with richstore.document(path, timeout=SECONDS) as document:
        assert document.value == found
        document.value["n"] = found["a"]
        document.value["checks"] = found.get("checks", 0) + 1
    left = {file.name for file in path.parent.iterdir()} - {path.name, f"{path.name}.lock"}
    assert not left, f"litter: {left}"
    return {**found, "n": found["a"]}


def kill(path: Path, fault: str, rounds: int) -> dict[str, int]:
    """Kill a writer at a random moment, in each round."""
    dice = random.Random(rounds)
    seen = {"changes": 0, "leftovers": 0}
    acknowledged = 0
    new_document(path)
    early = fault == "acknowledged too early"
    for _ in range(rounds):
        heard, tell = os.pipe()
        pid = fork(lambda tell=tell: write_until_killed(path, tell, early))
        os.close(tell)
        told = os.read(heard, 1 << 16)
        time.sleep(dice.uniform(0.005, 0.02))
        os.kill(pid, signal.SIGKILL)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
        while more := os.read(heard, 1 << 16):
            told += more
        os.close(heard)
        last = int(told.split()[-1])
        seen["changes"] += last - acknowledged
        seen["leftovers"] += len(list(path.parent.glob(".*.part")))
        acknowledged = check(path, last)["n"]
    return seen


def die_at_line(number: int) -> None:
    """Let this process be killed when it comes to the n-th line of the module for files."""
    passed = 0

    def local(frame: Any, event: str, argument: Any) -> Any:
        nonlocal passed
        if event == "line":
            passed += 1
            if passed == number:
                os.kill(os.getpid(), signal.SIGKILL)
        return local

    sys.settrace(
        lambda frame, event, argument: local if frame.f_code.co_filename == files.__file__ else None
    )


def lines(path: Path, fault: str, changes: int) -> dict[str, int]:
    """Kill a writer at each line that it comes to while it makes changes, one by one."""

    def work(number: int) -> None:
        document = new_document(path)
        n = document.value["n"]
        die_at_line(number)
        for more in range(1, changes + 1):
            change(document, n + more)

    seen = {"lines": 0, "leftovers": 0}
    new_document(path)
    n = 0
    while True:
        pid = fork(lambda: work(seen["lines"] + 1))
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        seen["leftovers"] += len(list(path.parent.glob(".*.part")))
        n = check(path, n, changes)["n"]
        if code == 0:
            return seen
        assert code == -signal.SIGKILL
        seen["lines"] += 1


def appends(path: Path, fault: str, each: int) -> dict[str, int]:
    """Append from eight processes, to one list by single changes, to another by blocks."""

    def work(name: int) -> None:
        document = richstore.document(path, autosave=True, timeout=60)
        for n in range(each):
            document.value["single"].append([name, n])
            with document:
                document.value["blocks"].append([name, n])
                document.value["count"] += 1

    richstore.document(path, data={"single": [], "blocks": [], "count": 0}, autosave=True)
    pids = [fork(lambda name=name: work(name)) for name in range(8)]
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    assert codes == [0] * 8, "a writer failed"
    found = json.loads(path.read_bytes())
    assert found["count"] == 8 * each, "lost updates"
    for log in (found["single"], found["blocks"]):
        for name in range(8):
            mine = [n for one, n in log if one == name]
            assert mine == list(range(each)), "lost updates"
    return {"changes": 16 * each}


MODES = {"kill": kill, "lines": lines, "appends": appends}


def main(mode: str, directory: str, fault: str, number: str) -> str:
    """Plant the fault, and hunt."""
    FAULTS[fault]()
    return json.dumps(MODES[mode](Path(directory) / "document.json", fault, int(number)))


if __name__ == "__main__":
    print(main(*sys.argv[1:]))
