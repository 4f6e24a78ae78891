"""LMDB's environment: opening one safely, leaving one behind in a fork, and its errors.

The rule: no exception of lmdb leaves this package, and nothing of a file is changed before it is
known to be a whole LMDB file. Knows nothing of transactions of ours, nor of who shares an engine.
"""

from __future__ import annotations

import atexit
import errno
import fcntl
import importlib
import os
import tempfile
from typing import Any

import lmdb

from richstore.engines.datafile import check_lock_file, make_lock_file
from richstore.engines.lmdb.structure import all_findings
from richstore.errors import (
    ClosedError,
    CorruptionError,
    FormatError,
    ReadOnlyError,
    RichStoreError,
)

__all__ = [
    "MAX_READERS",
    "SYNCHRONOUS",
    "abandon",
    "extend_to_last_page",
    "open_environment",
    "translate",
    "write_heads",
]

# From the strictest to the weakest: an open environment also serves everything to its right.
SYNCHRONOUS = ("full", "normal", "off")
MAX_READERS = 1024


def open_environment(
    path: str,
    fd: int,
    sizes: list[int],
    *,
    writable: bool,
    synchronous: str,
    check_complete: bool,
) -> lmdb.Environment:
    """Open the environment with the first size of map that the system gives.

    Args:
        path: the file, symbolic links resolved.
        fd: an open descriptor of it.
        sizes: bytes of address space to try.
        writable: whether the file may be written.
        synchronous: one of `SYNCHRONOUS`.
        check_complete: whether to see that no page is missing; this process must not have the
            writer's lock then.
    """
    check_lock_file(fd, path)
    make_lock_file(path, MAX_READERS)
    left = list(sizes)
    while True:
        try:
            env = lmdb.open(
                # as bytes: a path need not be UTF-8
                os.fsencode(path),
                map_size=left[0],
                subdir=False,
                readonly=not writable,
                sync=synchronous != "off",
                metasync=synchronous == "full",
                mode=0o600,
                max_readers=MAX_READERS,
                max_dbs=0,
                lib_version=0,
            )
            break
        except lmdb.MapResizedError:
            # another process made the file outgrow this map in the middle of the call
            left[0] *= 2
        except lmdb.MemoryError as error:
            del left[0]
            if not left:
                raise translate(error, path) from error
        except lmdb.Error as error:
            raise _open_error(error, path) from error
    try:
        env.reader_check()
        if check_complete and os.fstat(fd).st_size < _needed(env):
            _check_complete(path, fd, writable)
    except BaseException:
        env.close()
        raise
    return env


def write_heads(path: str) -> None:
    """Write to an empty file that nobody else knows what LMDB begins every file with."""
    try:
        lmdb.open(os.fsencode(path), subdir=False, lock=False, max_dbs=0, lib_version=0).close()
    except lmdb.Error as error:
        raise translate(error, path) from error


def _open_error(error: lmdb.Error, path: str) -> Exception:
    if isinstance(error, lmdb.ReadonlyError):
        return PermissionError(
            errno.EACCES,
            "no permission for the lock file beside it, which readers write to as well",
            f"{path}-lock",
        )
    if "already open in this process" in str(error):
        return OSError(
            errno.EBUSY,
            "the file was replaced while it is open in this process, and its lock file was "
            "not; close the open store first, or remove the lock file together with the file",
            path,
        )
    return translate(error, path)


def _check_complete(path: str, fd: int, writable: bool) -> None:
    """Raise `FormatError` if a file that is shorter than its pages has lost some.

    It may be shorter rightly: LMDB does not write pages that were freed in the transaction that
    made them. Telling takes a walk through all pages, so `extend_to_last_page` makes it rare.
    """
    if not writable:
        _verify(path)
    elif _lock_now(fd):
        try:
            _verify(path)
        finally:
            fcntl.flock(fd, fcntl.LOCK_UN)
    # else somebody is writing to it, so it was complete when he opened it


# What the verifier says, in up to three ways, of a file in which nothing is missing: a value that
# was written twice in one transaction, the second time smaller, keeps the pages of the first.
_WHOLE = ("header mp_pages", "overflow pages, record says", "in the freeDB -- a leak")


def _verify(path: str) -> None:
    problems = [one for one in all_findings(path) if not any(word in one for word in _WHOLE)]
    if problems:
        raise FormatError(f"{path} is incomplete ({problems[0]}); restore it from a copy")


def extend_to_last_page(env: lmdb.Environment, fd: int) -> None:
    """Make a file that is rightly shorter than its pages as long, if nobody is writing to it."""
    needed = _needed(env)
    if os.fstat(fd).st_size < needed and _lock_now(fd):
        try:
            # a writer may have been there before the lock was taken; never make it shorter
            if os.fstat(fd).st_size < needed:
                os.ftruncate(fd, needed)
        finally:
            fcntl.flock(fd, fcntl.LOCK_UN)


def _needed(env: lmdb.Environment) -> int:
    return (env.info()["last_pgno"] + 1) * env.stat()["psize"]


def _lock_now(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def translate(error: lmdb.Error, path: str, *, closed: bool = False) -> Exception:
    """Return the error that the user is to see in place of LMDB's."""
    if closed:
        return ClosedError(f"the store {path} is closed; open it again")
    if isinstance(error, lmdb.DiskError):
        return _os_error(errno.ENOSPC, path)
    if isinstance(error, lmdb.MapFullError):
        return OSError(errno.ENOSPC, "the memory map of the file is full", path)
    if isinstance(error, lmdb.MemoryError):
        return OSError(errno.ENOMEM, os.strerror(errno.ENOMEM), path)
    if isinstance(error, lmdb.ReadersFullError):
        return OSError(
            errno.EAGAIN, f"{MAX_READERS} snapshots of the file are open; close some", path
        )
    if isinstance(error, lmdb.BadValsizeError):
        return ValueError("a key of an engine has 1 to 511 bytes")
    if isinstance(error, lmdb.ReadonlyError):
        return ReadOnlyError(f"{path} is open for reading only; open it with flag 'w'")
    if isinstance(error, (lmdb.InvalidError, lmdb.VersionMismatchError)):
        return FormatError(f"{path} (or its lock file) is not a file that LMDB can use: {error}")
    if isinstance(error, _DAMAGE):
        return CorruptionError(f"{path} is damaged ({error}); restore it from a copy")
    if "closed/deleted/dropped" in str(error):
        return ClosedError("this transaction has ended; begin a new one")
    if isinstance(error, lmdb.PanicError):
        return OSError(errno.EIO, "writing the head of the file failed", path)
    code = getattr(error, "code", 0)
    if code == errno.EIO:
        # maybe a write that was cut short, as LMDB sees it
        code = _limit(path) or code
    if code > 0:
        return _os_error(code, path)
    return RichStoreError(f"{path}: {error}")


def _os_error(code: int, path: str) -> OSError:
    text = os.strerror(code)
    return OSError(code, f"{text}; {_ADVICE[code]}" if code in _ADVICE else text, path)


_ADVICE = {
    errno.ENOSPC: "make room on the disk and try again",
    errno.EDQUOT: "make room within the quota, or have it raised, and try again",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f) and try again",
    errno.EROFS: "make it writable and try again, or open the store with flag 'r'",
    errno.EIO: "the disk has failed; see what the system says of it, and try again",
}


def _limit(path: str) -> int:
    """Return why a transaction of any size cannot be written: the disk is full, or a limit."""
    try:
        status = os.statvfs(path)
        if status.f_bavail * status.f_frsize < _ROOM:
            return errno.ENOSPC
        end = os.stat(path).st_size
        with tempfile.TemporaryFile(dir=os.path.dirname(path)) as probe:
            for at in range(end, end + _ROOM, _PROBE):
                os.pwrite(probe.fileno(), bytes(_PROBE), at)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return error.errno
    return 0


# Bytes that are free where a disk is not full; and how many are written at a time to find out.
_ROOM = 1 << 20
_PROBE = 1 << 14

_DAMAGE = (
    lmdb.CorruptedError,
    lmdb.PageNotFoundError,
    lmdb.PageFullError,
    lmdb.CursorFullError,
    lmdb.BadTxnError,
)

# Environments of the parent, in the child of a fork: freeing one would touch the parent's.
_abandoned: list[lmdb.Environment] = []


def abandon(env: lmdb.Environment) -> None:
    """Leave an environment of the parent behind, untouched; in the child of a fork."""
    _abandoned.append(env)
    _forget_environments_of_parent()


@atexit.register
def _keep_abandoned() -> None:
    """Give the parent's environments a reference that the end of the interpreter cannot take."""
    if _abandoned:
        import ctypes

        for env in _abandoned:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(env))


def _forget_environments_of_parent() -> None:
    """Let lmdb open in this child what it remembers as open from the parent.

    It refuses to open a file twice in a process, and its memory of what is open survives a fork.
    It recognises files by what `env_keys` says, so the child answers with its own number added.
    """
    identity: Any = importlib.import_module("lmdb._envid")
    keys = identity.env_keys

    def env_keys(path: Any, subdir: int) -> tuple[Any, ...]:
        return tuple((os.getpid(), key) for key in keys(path, subdir))

    if not getattr(keys, "knows_forks", False):
        env_keys.knows_forks = True  # type: ignore[attr-defined]
        identity.env_keys = env_keys
