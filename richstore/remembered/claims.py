"""Claims: of all threads, tasks and processes that ask for one result at once, one computes it.

Inside a process a claim is an entry in a table, with a future that ends when the claim does. The
one that has it then takes a lock on a byte of a file, `<path of the store>-claims`, which
keeps out other processes; a hash of the name chooses the byte. The system frees such a lock when
its process dies, however it dies, so nobody waits for the dead, and nothing has to be renewed.
No lock of the store is held meanwhile.

POSIX locks belong to the process and are all lost when it closes *any* descriptor of the file. So a
process has one for each file, which is closed when nobody here needs it.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import suppress
from contextvars import ContextVar, Token

__all__ = ["Claim", "Where"]

# The path of the file of claims, or a number for what belongs to this process alone; and of a group
# its path in the store.
Where = tuple[str | int, tuple[str, ...]]

# Seconds between two attempts at a lock of another process: at first, and at most.
_PAUSE = 0.001
_LONGEST_PAUSE = 0.05

_lock = threading.Lock()
_claims: dict[tuple[Where, str], Claim] = {}
_files: dict[str, _ClaimFile] = {}
# those that the caller is computing for, directly or not
_computing: ContextVar[tuple[Claim, ...]] = ContextVar("richstore_computing", default=())


class _ClaimFile:
    """The file of the claims on results in one store, open while somebody uses it."""

    def __init__(self, path: str) -> None:
        self.path = path
        # has its descriptor while it is open
        self._held: list[int] = []
        self.users: set[Claim] = set()

    @property
    def fd(self) -> int:
        """The descriptor; -1 while it is closed."""
        return self._held[-1] if self._held else -1

    def open(self) -> None:
        """Open the file, with the mode of the store: who may write that may claim."""
        mode = os.stat(self.path.removesuffix("-claims")).st_mode & 0o666
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        # opened and noted in one call of C: Ctrl-C comes between calls
        self._held.extend(map(os.open, (self.path,), (flags,), (mode,)))
        status = os.fstat(self.fd)
        if status.st_mode & 0o666 != mode and status.st_uid == os.geteuid():
            os.fchmod(self.fd, mode)

    def close(self) -> None:
        """Close it; every lock on it ends."""
        # as it was opened
        self._held[:] = filter(None, map(os.close, self._held))


class Claim:
    """The right to compute one result, wanted or had by one thread or task.

    Args:
        where: the results are, the same in all processes if there is a file.
        name: of the result, the same in all processes.
    """

    def __init__(self, where: Where, name: str) -> None:
        self.where = where
        self.name = name
        self.ended: Future[None] = Future()
        # running, so that a task that is cancelled while it waits does not cancel it for the rest
        self.ended.set_running_or_notify_cancel()
        self.path, inside = where
        text = f"{inside!r}{name}".encode("utf-8", "surrogatepass")
        digest = hashlib.blake2b(text, digest_size=8).digest()
        # what a file may be long
        self.byte = int.from_bytes(digest, "big") >> 2
        self.file: _ClaimFile | None = None
        self._token: Token[tuple[Claim, ...]] | None = None

    def wait(self) -> None:
        """Wait for everybody who computes the result, then keep all others out until `end()`.

        Raises:
            RecursionError: the caller is computing that result itself.
        """
        while (other := self._take()) is not None:
            other.ended.result()
        pauses = _pauses()
        while not self._lock_file():
            time.sleep(next(pauses))
        self._token = _computing.set((*_computing.get(), self))

    async def wait_async(self) -> None:
        """Do the same for a task, without blocking its event loop."""
        while (other := self._take()) is not None:
            await asyncio.wrap_future(other.ended)
        pauses = _pauses()
        while not self._lock_file():
            await asyncio.sleep(next(pauses))
        self._token = _computing.set((*_computing.get(), self))

    def _take(self) -> Claim | None:
        """Take it in this process, or return the one that is in the way."""
        with _lock:
            other = _claims.setdefault((self.where, self.name), self)
        if other is self:
            return None
        if other in _computing.get():
            raise RecursionError(f"computing {self.name} needs its result")
        return other

    def _lock_file(self) -> bool:
        """Try to keep other processes out; return whether it is done."""
        if not isinstance(self.path, str):
            return True
        with _lock:
            if self.file is None:
                self.file = _files.setdefault(self.path, _ClaimFile(self.path))
                self.file.users.add(self)
            if self.file.fd < 0:
                self.file.open()
            try:
                fcntl.lockf(self.file.fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, self.byte)
            except (BlockingIOError, PermissionError):
                return False
        return True

    def end(self) -> None:
        """Give back what was taken of it, if anything; who waits for it goes on.

        When Ctrl-C comes while it runs, it can be called again and does the rest.
        """
        with _lock:
            file = self.file
            if file is not None and self in file.users:
                if len(file.users) == 1:
                    file.close()
                    _files.pop(file.path, None)
                elif file.fd >= 0:
                    fcntl.lockf(file.fd, fcntl.LOCK_UN, 1, self.byte)
                file.users.discard(self)
            if _claims.get((self.where, self.name)) is self:
                del _claims[self.where, self.name]
        if not self.ended.done():
            self.ended.set_result(None)
        token, self._token = self._token, None
        if token is not None:
            with suppress(ValueError):
                # a task that was thrown away is closed in the context of somebody else
                _computing.reset(token)


def _pauses() -> Iterator[float]:
    pause = _PAUSE
    while True:
        yield pause
        pause = min(2 * pause, _LONGEST_PAUSE)


def _forked() -> None:
    """Forget, in the child of a fork, the claims of the parent's threads."""
    global _lock
    _lock = threading.Lock()
    _claims.clear()
    for file in _files.values():
        file.users.clear()
        file.close()
    _files.clear()


os.register_at_fork(after_in_child=_forked)
