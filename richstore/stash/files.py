"""Files that are replaced in one step, and what is left of those that were not.

A file is written beside its place under a name of its own, put on disk, and given its name. While
that goes on its writer has a lock on it; so a file of that kind which nobody has locked belongs to
a writer that was killed.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import stat
from collections.abc import Callable

__all__ = ["add", "make_directories", "remove_left", "replace", "sync_directory"]

_BEGIN = ".richstore-"
_END = ".part"


def replace(path: str, data: bytes, directory: str) -> None:
    """Make a file have this content, in one step, and durably; its mode stays.

    Args:
        path: of the file.
        data: the content.
        directory: where to write it first.

    Raises:
        OSError: it cannot be written; it is as it was.
    """
    try:
        mode = stat.S_IMODE(os.stat(path).st_mode)
    except FileNotFoundError:
        _write(path, data, directory, os.replace)
        return
    if not os.access(path, os.W_OK):
        # to give its name to another file, one need not be allowed to write it
        raise PermissionError(errno.EACCES, "the file is write-protected; chmod it", path)
    _write(path, data, directory, os.replace, mode)


def add(path: str, data: bytes, directory: str) -> None:
    """Make a file that is not there yet, in one step, and durably; arguments as for `replace`.

    Raises:
        FileExistsError: it is there.
        OSError: it cannot be written.
    """
    _write(path, data, directory, os.link)


def _write(
    path: str,
    data: bytes,
    directory: str,
    give_name: Callable[[str, str], None],
    mode: int | None = None,
) -> None:
    while True:
        temporary = os.path.join(directory, f"{_BEGIN}{secrets.token_hex(8)}{_END}")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        # nobody may read it before it has the mode of the old one
        fd = os.open(temporary, flags, 0o666 if mode is None else 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            if os.fstat(fd).st_nlink == 0:
                # somebody took it for one that was left, before it was locked
                continue
            if mode is not None:
                os.fchmod(fd, mode)
            left = memoryview(data)
            while left:
                left = left[os.write(fd, left) :]
            os.fsync(fd)
            give_name(temporary, path)
            sync_directory(os.path.dirname(path))
            return
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            os.close(fd)


def sync_directory(directory: str) -> None:
    """Put the names in a directory on disk."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_directories(directory: str) -> None:
    """Make a directory and those above it that are missing, durably.

    Raises:
        NotADirectoryError: something else is there.
    """
    if os.path.isdir(directory):
        return
    above = os.path.dirname(directory)
    make_directories(above)
    try:
        os.makedirs(directory, exist_ok=True)
    except FileExistsError:
        raise NotADirectoryError(
            errno.ENOTDIR, "something else is where a directory should be", directory
        ) from None
    sync_directory(above)


def remove_left(directory: str) -> None:
    """Remove what writers have left in a directory that were killed."""
    with os.scandir(directory) as entries:
        names = [
            entry.path
            for entry in entries
            if entry.name.startswith(_BEGIN) and entry.name.endswith(_END)
        ]
    for name in names:
        with contextlib.suppress(FileNotFoundError, PermissionError):
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.unlink(name)
            except BlockingIOError:
                pass  # it is being written
            finally:
                os.close(fd)
