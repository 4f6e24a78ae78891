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
import re
import secrets
import stat
from typing import Any

from richstore.codec.policy import ANY, ClassPolicy
from richstore.engines.datafile import sync_directory
from richstore.errors import ConflictError, LockTimeoutError
from richstore.ownership import default_policy

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
        # the policy for what was read last
        self.classes: ClassPolicy = ANY
        self._lock: Any = None
        # the content that was read or written last, and its version
        self._known: tuple[bytes | None, Version | None] = None, None
        # when the directory had changed last, when this one had cleared it
        self._cleared: tuple[str, int] | None = None

    def read(self) -> tuple[bytes | None, Version | None]:
        """Return the content and its version; None for both when there is no file.

        Raises:
            OSError: as `open()` would; also for what is no ordinary file.
        """
        try:
            # nothing else is opened: a FIFO would wait for its other end
            self._check_kind(os.stat(self.location).st_mode)
            with open(self.location, "rb") as file:
                data = file.read()
                status = os.fstat(file.fileno())
                version = _version(status)
                self.classes = default_policy(status, os.path.realpath(self.location))
        except FileNotFoundError:
            self._check_directory()
            self.classes = ANY
            self._known = None, None
        else:
            self._known = data, version
        return self._known

    def is_current(self, version: object) -> bool:
        """Tell whether the file is still the one that was read, or has the same content."""
        now = self._version()
        if now == version or now is None or version is None:
            return now == version
        data, known = self._known
        if known is None or known != version or now[-1] != known[-1]:
            return False
        with open(self.location, "rb") as file:
            return file.read() == data

    def write(self, data: bytes, version: object) -> Version:
        """Replace the file, in one step; its lock must be held.

        Args:
            data: the new content.
            version: what it must be now.

        Raises:
            ConflictError: it is another one.
            OSError: it cannot be written; it is as it was.
        """
        if not self.is_current(version):
            raise ConflictError(f"{self.location} was changed by somebody else since it was read")
        target = os.path.realpath(self.location)
        directory = os.path.dirname(target)
        # a long list of files is not to be read for each change: only after somebody else has
        # made or removed one
        if _changed(directory) != self._cleared:
            self._clear(target)
        self._replace(target, data)
        self._cleared = _changed(directory)
        try:
            sync_directory(target)
        except OSError as error:
            self._put_back(target, error)
            raise
        # the change of the name counts as a change of the file
        made = _version(os.stat(target))
        self._known = data, made
        return made

    def _replace(self, target: str, data: bytes) -> None:
        """Write a file beside its place, put it on disk, and give it its name."""
        try:
            old: os.stat_result | None = os.stat(target)
        except FileNotFoundError:
            old = None
        if old is not None and not os.access(target, os.W_OK, effective_ids=_HAS_EFFECTIVE):
            raise PermissionError(
                errno.EACCES, "the document is write-protected; chmod it, or make a copy", target
            )
        directory, name = os.path.split(target)
        temporary = os.path.join(directory, f".{name}.{secrets.token_hex(8)}{_SUFFIX}")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            # nobody may open it before it has the mode of the old one
            fd = os.open(temporary, flags, 0o666 if old is None else 0o600)
        except FileNotFoundError:
            self._check_directory()
            raise
        try:
            try:
                if old is not None:
                    _take_over(fd, old)
                left = memoryview(data)
                while left:
                    left = left[os.write(fd, left) :]
                os.fsync(fd)
            finally:
                os.close(fd)
            os.replace(temporary, target)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            raise

    def _put_back(self, target: str, error: OSError) -> None:
        """Put the old content back after a failure that came when the new one had its name."""
        data, _ = self._known
        try:
            if data is None:
                os.unlink(target)
            else:
                self._replace(target, data)
        except OSError as second:
            error.add_note(
                f"richstore: {target} has the new content, and the old one could not be put back "
                f"({second})"
            )

    def delete(self) -> None:
        """Remove the file; its lock must be held."""
        target = os.path.realpath(self.location)
        self._clear(target)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(target)
            sync_directory(target)
        self._known = None, None

    def acquire(self, timeout: float | None) -> None:
        """Take the lock.

        Raises:
            LockTimeoutError: another one had it for all the time.
        """
        filelock = _filelock()
        # it would make the directory
        self._check_directory()
        target = os.path.realpath(self.location)
        try:
            # who may write the document may lock it
            mode = {"mode": stat.S_IMODE(os.stat(target).st_mode) & 0o666 | 0o600}
        except FileNotFoundError:
            mode = {}
        lock = filelock.FileLock(f"{target}.lock", thread_local=False, **mode)
        try:
            lock.acquire(timeout=-1 if timeout is None else timeout, poll_interval=_POLL)
        except filelock.Timeout:
            raise LockTimeoutError(
                f"another writer had {self.location} locked for more than {timeout:g} s; let it "
                f"end, or wait longer with a larger timeout"
            ) from None
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

    def _check_kind(self, mode: int) -> None:
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(
                errno.EISDIR, "a directory is where the document should be", self.location
            )
        if not stat.S_ISREG(mode):
            raise OSError(
                errno.EINVAL, "a document must be an ordinary file, and this is not", self.location
            )

    @staticmethod
    def _clear(target: str) -> None:
        """Remove what writers that were killed have left."""
        directory, name = os.path.split(target)
        is_left = re.compile(rf"\.{re.escape(name)}\.[0-9a-f]{{16}}{re.escape(_SUFFIX)}").fullmatch
        try:
            with os.scandir(directory) as entries:
                left = [entry.path for entry in entries if is_left(entry.name)]
        except PermissionError:
            return  # a directory that may be written and not read
        except FileNotFoundError:
            return  # who writes there says so better
        for path in left:
            with contextlib.suppress(FileNotFoundError, PermissionError):
                os.unlink(path)


_SUFFIX = ".part"
# seconds between two looks at a lock that another one has
_POLL = 0.01
_HAS_EFFECTIVE = os.access in os.supports_effective_ids


def _changed(directory: str) -> tuple[str, int] | None:
    try:
        return directory, os.stat(directory).st_mtime_ns
    except FileNotFoundError:
        return None  # who writes there says so better


def _version(status: os.stat_result) -> Version:
    return (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size)


def _take_over(fd: int, old: os.stat_result) -> None:
    """Give a new file the mode and owner of the one whose place it takes."""
    new = os.fstat(fd)
    if old.st_gid != new.st_gid:
        _give(fd, -1, old.st_gid)
    if old.st_uid != new.st_uid:
        _give(fd, old.st_uid, -1)
    os.fchmod(fd, stat.S_IMODE(old.st_mode))


def _give(fd: int, owner: int, group: int) -> None:
    """Change owner or group, if this user and this file system can."""
    try:
        os.fchown(fd, owner, group)
    except OSError as error:
        # only root may give a file away; an owner may be unknown in a container
        if error.errno not in (errno.EPERM, errno.EINVAL, errno.ENOTSUP):
            raise


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
