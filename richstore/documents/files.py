"""Documents in files: read, locked, and replaced in one step.

A file is written beside its place, put on disk, and given its name; so whoever reads sees the old
content or the new, at any moment. The lock is a file of its own, `<path>.lock`: the document itself
is another file after each commit. Who has the lock is the only one that writes, so what is left of
temporary files then belongs to writers that were killed, and is removed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from typing import Any

from richstore.engines.datafile import sync_directory
from richstore.errors import ConflictError, LockTimeoutError

__all__ = ["FilePlace"]

Version = tuple[int, ...]


class FilePlace:
    """One file.

    Args:
        path: where it is; a symbolic link is followed and stays.
    """

    def __init__(self, path: str) -> None:
        self.location = os.path.abspath(path)
        self.name = os.path.basename(path)
        self._lock: Any = None

    def read(self) -> tuple[bytes | None, Version | None]:
        """Return the content and its version; None for both when there is no file.

        Raises:
            OSError: as `open()` would.
        """
        try:
            with open(self.location, "rb") as file:
                data = file.read()
                return data, _version(os.fstat(file.fileno()))
        except FileNotFoundError:
            self._check_directory()
            return None, None

    def is_current(self, version: object) -> bool:
        """Tell whether the file is still the one that was read."""
        return self._version() == version

    def write(self, data: bytes, version: object) -> Version:
        """Replace the file, in one step; its lock must be held.

        Args:
            data: the new content.
            version: what it must be now.

        Raises:
            ConflictError: it is another one.
            OSError: it cannot be written; it is as it was.
        """
        if self._version() != version:
            raise ConflictError(f"{self.location} was changed by somebody else since it was read")
        target = os.path.realpath(self.location)
        self._clear(target)
        directory, name = os.path.split(target)
        try:
            temporary = os.path.join(directory, f".{name}.{secrets.token_hex(8)}{_SUFFIX}")
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        except FileNotFoundError:
            self._check_directory()
            raise
        try:
            try:
                _take_over(fd, target)
                left = memoryview(data)
                while left:
                    left = left[os.write(fd, left) :]
                os.fsync(fd)
                made = _version(os.fstat(fd))
            finally:
                os.close(fd)
            os.replace(temporary, target)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            raise
        sync_directory(target)
        # the change of the name counts as a change of the file
        return self._version() or made

    def delete(self) -> None:
        """Remove the file; its lock must be held."""
        target = os.path.realpath(self.location)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(target)
            sync_directory(target)

    def acquire(self, timeout: float | None) -> None:
        """Take the lock.

        Raises:
            LockTimeoutError: another one had it for all the time.
        """
        filelock = _filelock()
        lock = filelock.FileLock(f"{os.path.realpath(self.location)}.lock", thread_local=False)
        try:
            lock.acquire(timeout=-1 if timeout is None else timeout)
        except filelock.Timeout:
            raise LockTimeoutError(
                f"another process was writing to {self.location} for more than {timeout:g} s; let "
                f"it end, or wait longer with a larger timeout"
            ) from None
        except FileNotFoundError:
            self._check_directory()
            raise
        self._lock = lock

    def release(self) -> None:
        """Give the lock back."""
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.release()

    def forked(self) -> None:
        """Give up, in the child of a fork, a lock that the parent has."""
        lock, self._lock = self._lock, None
        context = None if lock is None else lock._context
        if context is not None and context.lock_file_fd is not None:
            # releasing it would release the parent's
            os.close(context.lock_file_fd)
            context.lock_file_fd = None
            context.lock_counter = 0

    def _version(self) -> Version | None:
        try:
            return _version(os.stat(self.location))
        except FileNotFoundError:
            return None

    def _check_directory(self) -> None:
        directory = os.path.dirname(os.path.realpath(self.location))
        if not os.path.isdir(directory):
            raise FileNotFoundError(
                errno.ENOENT, "the directory of the document does not exist; make it", directory
            )

    @staticmethod
    def _clear(target: str) -> None:
        """Remove what writers that were killed have left."""
        directory, name = os.path.split(target)
        prefix = f".{name}."
        with os.scandir(directory) as entries:
            for entry in entries:
                if entry.name.startswith(prefix) and entry.name.endswith(_SUFFIX):
                    with contextlib.suppress(OSError):
                        os.unlink(entry.path)


_SUFFIX = ".part"


def _version(status: os.stat_result) -> Version:
    return (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size)


def _take_over(fd: int, target: str) -> None:
    """Give a new file the mode and owner of the one whose place it takes."""
    try:
        old = os.stat(target)
    except FileNotFoundError:
        return
    new = os.fstat(fd)
    if (old.st_uid, old.st_gid) != (new.st_uid, new.st_gid):
        with contextlib.suppress(PermissionError):
            # only root may give a file away
            os.fchown(fd, old.st_uid, old.st_gid)
    os.fchmod(fd, stat.S_IMODE(old.st_mode))


def _filelock() -> Any:
    try:
        import filelock
    except ModuleNotFoundError as error:
        if error.name != "filelock":
            raise
        raise ModuleNotFoundError(
            "documents in files need a package more: pip install 'richstore[documents]'",
            name="filelock",
        ) from error
    return filelock
