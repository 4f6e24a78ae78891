"""What worker processes make in the tests of stashes, where they can import it."""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Any, NoReturn


class Awkward(Exception):
    """An error that pickle cannot make again."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} and {second}")


class Unloadable:
    """A value, or a factory, that cannot be unpickled."""

    def __reduce__(self) -> Any:
        return _fail, ()

    def __call__(self, key: Any) -> Any:
        return key


def _fail() -> NoReturn:
    raise ImportError("not to be loaded")


def by_name(key: str) -> Any:
    """Do what the key says."""
    what = key.partition("-")[0]
    if what == "error":
        raise ValueError(f"no {key}")
    if what == "awkward":
        raise Awkward("one", "two")
    if what == "exit":
        sys.exit("enough")
    if what == "die":
        os._exit(3)
    if what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "orphan":
        # a child that goes on when the worker is dead, and has the worker's end of the pipe
        child = os.fork()
        if not child:
            time.sleep(60)
            os._exit(0)
        with open("orphan", "w") as file:
            file.write(str(child))
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "interrupt":
        # from the keyboard it goes to all processes; the parent decides
        os.kill(os.getpid(), signal.SIGINT)
    if what == "lambda":
        return lambda: 0
    if what == "unloadable":
        return Unloadable()
    if what == "set":
        return {key}
    return None if what == "none" else [key]


def pid(key: int) -> int:
    """Return the process that makes a value; for 3, wait until a file is there."""
    if key == 3:
        _wait_for("go")
    return os.getpid()


def wait_for_file(key: str) -> str:
    """Say which process is at work, and wait until a file is there."""
    with open(f"{key}.{os.getpid()}", "w"):
        pass
    _wait_for(f"{key}.go")
    return key


def _wait_for(path: str) -> None:
    end = time.monotonic() + 300  # nobody is left who would make it
    while not os.path.exists(path) and time.monotonic() < end:
        time.sleep(0.01)
