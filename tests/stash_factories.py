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
        if os.fork():
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(5)
        os._exit(0)
    if what == "lambda":
        return lambda: 0
    if what == "unloadable":
        return Unloadable()
    if what == "set":
        return {key}
    return None if what == "none" else [key]


def pid(key: Any) -> int:
    """Return the process that makes a value."""
    return os.getpid()


def wait_for_file(key: str) -> str:
    """Say which process is at work, and wait until a file is there."""
    with open(f"{key}.{os.getpid()}", "w"):
        pass
    while not os.path.exists(f"{key}.go"):
        time.sleep(0.01)
    return key
