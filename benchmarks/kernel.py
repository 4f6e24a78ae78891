"""What the kernel counts: bytes written and syncs of a process, and its memory.

With strace, every call that writes or syncs between two marks is seen, in all threads. Without it,
only what `/proc/self/io` counts: bytes and calls that write, no syncs. Memory is `RssAnon`, what
the process allocates; pages of files that it maps belong to the system's cache and come and go
with it, so they are not counted.
"""

from __future__ import annotations

import os
import re
import shutil
import threading
from pathlib import Path
from time import sleep

__all__ = ["Peak", "file_bytes", "io", "mark", "strace", "strace_counts"]

_SYNCS = ("fsync", "fdatasync", "msync", "sync_file_range", "sync", "syncfs")
_WRITES = ("write", "pwrite64", "writev", "pwritev", "pwritev2", "copy_file_range", "sendfile")
_NULL = os.open(os.devnull, os.O_WRONLY)
_MARK, _END = "benchmarks: ", "end"
_MARKED = re.compile(rf"{_MARK}([^;]*);")
_LINE = re.compile(r"^\d+\s+(?:<\.\.\. )?(\w+)(?:\(| resumed>)(.*?)\)?\s+= (-?\d+)")


def io() -> dict[str, int]:
    """Return bytes and calls of this process so far that write; empty where it is not counted."""
    try:
        lines = Path("/proc/self/io").read_text().splitlines()
    except OSError:
        return {}
    found = dict(line.split(": ") for line in lines)
    return {name: int(found[name]) for name in ("wchar", "syscw", "write_bytes")}


def mark(word: str = _END) -> None:
    """Leave a mark that strace sees: what follows counts under a word, or under none."""
    os.write(_NULL, f"{_MARK}{word};".encode())


def strace(log: Path) -> list[str]:
    """Return what to put before a command to have it traced, or nothing without strace."""
    found = shutil.which("strace")
    if found is None:
        return []
    calls = ",".join(f"?{name}" for name in (*_SYNCS, *_WRITES))
    return [found, "-f", "--seccomp-bpf", "-qq", "-s", "80", "-e", f"trace={calls}", "-o", str(log)]


def strace_counts(log: Path) -> dict[str, dict[str, int]]:
    """Return bytes written and syncs between the marks in a log of strace, by their words."""
    counts: dict[str, dict[str, int]] = {}
    inside: dict[str, int] | None = None
    for line in log.read_text(errors="replace").splitlines():
        found_mark = _MARKED.search(line)
        if found_mark is not None:
            inside = None
            if found_mark[1] != _END:
                inside = counts.setdefault(found_mark[1], {"bytes": 0, "syncs": 0})
            continue
        # a call that another thread interrupts in the log ends in a line of its own
        found = _LINE.match(line) if inside is not None else None
        if found is None or inside is None:
            continue
        name, result = found[1], int(found[3])
        if name in _SYNCS:
            inside["syncs"] += 1
        elif result > 0:
            inside["bytes"] += result
    return counts


class Peak:
    """The highest `RssAnon` of a process while a block runs, looked at from outside.

    Looks every millisecond; so a peak that is shorter can be missed.

    Attributes:
        baseline: bytes at the beginning.
        highest: bytes at the peak.
    """

    def __init__(self, pid: int) -> None:
        self.status = f"/proc/{pid}/status"
        self.baseline = self.highest = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def _now(self) -> int:
        with open(self.status) as file:
            for line in file:
                if line.startswith("RssAnon:"):
                    return int(line.split()[1]) * 1024
        raise OSError(f"{self.status} has no RssAnon")

    def _look(self) -> None:
        while not self._done.is_set():
            self.highest = max(self.highest, self._now())
            sleep(0.001)

    def __enter__(self) -> Peak:
        self.baseline = self.highest = self._now()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        self.highest = max(self.highest, self._now())

    @property
    def above(self) -> int:
        """Bytes above the baseline."""
        return self.highest - self.baseline


def file_bytes(directory: Path) -> int:
    """Return the bytes that the files below a directory take on the disk."""
    return sum(path.stat().st_blocks * 512 for path in directory.rglob("*") if path.is_file())
