"""The LMDB engine in this process, and in another one that does what it is told."""

from __future__ import annotations

import signal
import subprocess
import sys

from conftest import child_environment

from richstore.engines.lmdb import LmdbEngine, open_lmdb


def open_it(path: str, flag: str = "c", **options: object) -> LmdbEngine:
    """Open a file with settings that are good for tests."""
    settings = {"synchronous": "off", "timeout": 10.0, **options}
    return open_lmdb(path, flag, **settings)  # type: ignore[arg-type]


class Other:
    """A second process that has the file open and does what it is told, line by line."""

    HEAD = """
import os, sys
from richstore.engines.lmdb import open_lmdb
from richstore.errors import *
def say(*words): print(*words, flush=True)
e = open_lmdb(sys.argv[1], "c", synchronous="off", timeout=10.0, map_size=eval(sys.argv[2]))
say("ready")
for line in sys.stdin:
    exec(line)
    say("done")
"""

    def __init__(self, path: str, map_size: int | None = None) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", self.HEAD, path, repr(map_size)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=child_environment(),
        )
        assert self.process.stdout is not None and self.process.stdin is not None
        self.out, self.into = self.process.stdout, self.process.stdin
        assert self.out.readline() == "ready\n"

    def tell(self, line: str) -> None:
        self.into.write(line + "\n")
        self.into.flush()

    def do(self, line: str) -> str:
        """Run a line there and return what it said."""
        self.tell(line)
        said = ""
        while (answer := self.out.readline()) != "done\n":
            assert answer, "the other process died"
            said += answer
        return said.strip()

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self.into.close()
        self.out.close()
