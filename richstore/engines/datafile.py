"""The data file as the operating system sees it: opened, recognised, locked.

A file is opened here before LMDB sees it, so that what is wrong with it is said in Python's own
errors and a file of something else is never touched. The descriptor stays open for the writer's
lock: `flock` on the data file, on which LMDB itself takes no locks. (It must not be the lock file:
LMDB's locks there are `fcntl` locks, which a process loses when it closes *any* descriptor of that
file.) Knows the first bytes of an LMDB file and nothing else of LMDB.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import stat
import struct
import sys
import time
from collections.abc import Callable

from richstore.errors import FormatError, LockTimeoutError

__all__ = [
    "check_header",
    "check_lock_file",
    "file_key",
    "make_lock_file",
    "make_whole",
    "open_data_file",
    "sync_directory",
    "wait_for_lock",
]

_MAGIC = 0xBEEFC0DE
_DATA_VERSION = 1
# The first page starts with a header of 12 or 16 bytes, then the magic number and the version.
_HEAD = 64

_FIRST_SLEEP = 0.00005
_LONGEST_SLEEP = 0.00025


def open_data_file(path: str, flag: str) -> tuple[int, bool]:
    """Open the file with the access that `flag` needs, creating it (mode 0600) for `c` and `n`.

    With `r` the file is opened for writing too where that is allowed, so that a later `w` in the
    same process can share the environment; nothing is written through it.

    Returns:
        The descriptor, and whether it can be written.

    Raises:
        OSError: as `open()` would.
        FormatError: it is not a regular file, or empty with `r` or `w`.
    """
    access = os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK
    if flag in "cn":
        access |= os.O_CREAT
    writable = True
    # opened and noted in one call of C: an interrupt comes between calls
    fds: list[int] = []
    try:
        try:
            fds.extend(map(os.open, (path,), (access,), (0o600,)))
        except OSError as error:
            if flag != "r" or error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise
            access = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
            fds.extend(map(os.open, (path,), (access,)))
            writable = False
        check_header(fds[0], path, empty_allowed=flag in "cn")
    except BaseException as error:
        for fd in fds:
            os.close(fd)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = path
        raise
    return fds[0], writable


def check_header(fd: int, path: str, *, empty_allowed: bool) -> None:
    """Raise `FormatError` unless the file starts as an LMDB file does (or is empty and may be)."""
    status = os.fstat(fd)
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if not stat.S_ISREG(status.st_mode):
        raise FormatError(f"{path} is not a regular file; a store needs one")
    head = os.pread(fd, _HEAD, 0)
    if not head:
        if empty_allowed:
            return
        raise FormatError(f"{path} is empty, so not a store; open it with flag 'c' to make one")
    words = struct.unpack_from(f"={len(head) // 4}I", head)
    if _MAGIC not in words[:-1]:
        raise FormatError(f"{path} is a file of something else; nothing was changed, use another")
    version = words[words.index(_MAGIC) + 1]
    if version != _DATA_VERSION:
        raise FormatError(
            f"{path} is an LMDB file of data format {version}, and this version reads format "
            f"{_DATA_VERSION}; open it with the program that made it, and export it"
        )


def make_whole(path: str, write: Callable[[int, str], None]) -> None:
    """Make a file that has its name when it is whole, not before.

    Where files cannot be made in this way, none is made, and whoever opens it says why.

    Args:
        path: the file.
        write: fills it; is called with a descriptor and the name it has meanwhile.
    """
    part = f"{path}.{secrets.token_hex(8)}.part"
    try:
        # a file object, since that is closed whenever Ctrl-C comes
        file = open(part, "xb", buffering=0, opener=_private)  # noqa: SIM115 - closed below
    except OSError:
        return
    with file:
        try:
            write(file.fileno(), part)
            try:
                os.link(part, path)
            except FileExistsError:
                pass  # somebody else was faster
            except OSError as error:
                if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EMLINK):
                    raise
        finally:
            os.unlink(part)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def make_lock_file(path: str, readers: int) -> None:
    """Make the lock file of a data file, if there is none, with all its pages on disk.

    LMDB makes one without them and writes to it through a mapping, and where the disk has no room
    for a page then, the system ends the process.
    """
    lock = f"{path}-lock"
    size = _LOCK_HEAD + (readers - 1) * _LOCK_READER
    if not os.path.lexists(lock):
        make_whole(lock, lambda fd, _: _write_all(fd, bytes(size)))


# Bytes that LMDB has in the lock file for the writer and one reader, and for each other one.
_LOCK_HEAD, _LOCK_READER = 192, 64


def _write_all(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


def sync_directory(path: str) -> None:
    """Put the name of a file on disk, which syncing the file does not promise to do."""
    try:
        fd = os.open(os.path.dirname(os.path.abspath(path)), os.O_RDONLY | os.O_CLOEXEC)
    except PermissionError:
        return  # a directory that may be written and not read cannot be synced
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise  # the others: a file system that syncs no directories
    finally:
        os.close(fd)


def file_key(fd: int) -> tuple[int, int]:
    """Return what tells this file from every other one that exists now."""
    status = os.fstat(fd)
    return status.st_dev, status.st_ino


def check_lock_file(fd: int, path: str) -> None:
    """Mark the data file as open, and see that the lock file beside it is not another file's.

    What the processes on a file share is in the lock file, which goes by name. Where the data file
    was deleted or replaced while a process had it open, that process would mislead all others: they
    would begin at states of another file, and lose commits. So each holds a shared lock on a byte
    far behind the end of the data file itself, and one who finds the lock file in use, and nobody
    else on the data file, does not open it. (Locks of the open file: closing another descriptor
    does not give them up. Where the system has none, nothing is checked.)

    Raises:
        OSError: another process has a file open that had this name.
    """
    if not hasattr(fcntl, "F_OFD_SETLK"):
        return
    fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _flock_of(fcntl.F_RDLCK, _MARK))
    try:
        lock = os.open(f"{path}-lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return  # LMDB will make it, or say why not
    try:
        _refuse_lock_of_another_file(fd, lock, path)
    finally:
        os.close(lock)


def _refuse_lock_of_another_file(fd: int, lock: int, path: str) -> None:
    # a process that is just ending may give up the two one after the other
    deadline = time.monotonic() + _ENDING
    while _is_locked(lock, 0) and not _is_locked(fd, _MARK):
        if time.monotonic() > deadline:
            raise OSError(
                errno.EBUSY,
                "the file was deleted or replaced while another process has it open (or a "
                "program other than richstore has it open); close it there first",
                path,
            )
        time.sleep(_ENDING / 50)


# Where the mark is; no file is so long.
_MARK = 1 << 62
# Seconds for a process to end in.
_ENDING = 0.5
# `struct flock`, with the padding that the machine gives it
_FLOCK = struct.Struct("hhqqi0q")


def _flock_of(kind: int, start: int) -> bytes:
    return _FLOCK.pack(kind, os.SEEK_SET, start, 1, 0)


def _is_locked(fd: int, start: int) -> bool:
    """Tell whether anybody else has a lock on a byte."""
    found = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, _flock_of(fcntl.F_WRLCK, start))
    return bool(_FLOCK.unpack(found)[0] != fcntl.F_UNLCK)


def wait_for_lock(fd: int, path: str, timeout: float | None) -> None:
    """Take the writer's lock, which another process holds, as soon as it is free.

    The lock of a process that dies is free. Without `timeout` the wait can be interrupted by
    Ctrl-C; with one the lock is asked for every quarter of a millisecond, since `flock` cannot
    be told when to give up.

    Raises:
        LockTimeoutError: it was not free within `timeout` seconds.
    """
    if timeout is None:
        fcntl.flock(fd, fcntl.LOCK_EX)
        return
    deadline = time.monotonic() + timeout
    pause = _FIRST_SLEEP
    while True:
        left = deadline - time.monotonic()
        if left <= 0:
            raise LockTimeoutError(
                f"another process was writing to {path} for more than {timeout:g} s; let it end "
                f"its transaction, or wait longer with a larger timeout"
            )
        time.sleep(min(pause, left))
        pause = min(pause * 2, _LONGEST_SLEEP)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            continue


def map_sizes(path: str) -> list[int]:
    """Return the sizes of map to try, in bytes, the largest first.

    An address range costs nothing, so the first is one that the disk cannot fill; the smaller ones
    are for machines and limits (`ulimit -v`) that do not give so much.
    """
    if sys.maxsize < 1 << 32:
        return [1 << 30, 1 << 28, 1 << 26]
    largest = 1 << 40
    while largest < 4 * disk_size(path):
        largest <<= 1
    return [largest, *(1 << power for power in (39, 36, 33, 30, 28, 26))]


def disk_size(path: str) -> int:
    """Return the size of the file system that holds `path`, in bytes."""
    status = os.statvfs(path)
    return status.f_frsize * status.f_blocks
