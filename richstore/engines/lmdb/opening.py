"""Opening an LMDB file: which engine serves it, and whether it may be opened at all.

The rule: a file has one engine in a process, under whichever name it is opened, and no file is
touched that should not be.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator

from richstore.engines.datafile import file_key, make_whole, open_data_file, sync_directory
from richstore.engines.lmdb.engine import LmdbEngine, registry
from richstore.engines.lmdb.environment import SYNCHRONOUS, write_heads
from richstore.engines.netfs import refuse_network

__all__ = ["open_lmdb", "unused"]


def open_lmdb(
    path: str,
    flag: str,
    *,
    synchronous: str,
    timeout: float | None,
    map_size: int | None = None,
    allow_network: bool = False,
) -> LmdbEngine:
    """Open a file, or share the engine that this process has for it.

    Every call needs one `close()` of the engine. An open file keeps the `synchronous` it was first
    opened with (`full` if that was with `r`): who asks for a weaker one gets it, who asks for a
    stricter one an error.

    Args:
        path: the file; a lock file lies beside it, `<path>-lock`.
        flag: `r` an existing file, for reading; `w` an existing file; `c` made if missing; `n`
            emptied if it exists.
        synchronous: `full`: a commit is on disk when it returns. `normal`: the last commits may
            be lost when the power fails. `off`: so may more, and the file can be damaged then;
            the death of the process alone never loses anything.
        timeout: how many seconds `n` waits for a writer; None for ever.
        map_size: bytes of address space to begin with; None for more than the disk has.
        allow_network: open it on a network file system too.

    Raises:
        OSError: as `open()` would; with `ENOTSUP` on a network file system.
        FormatError: the file is not one of LMDB, or is incomplete; nothing was changed.
        LockTimeoutError: with `n`, another process did not finish writing in time.
        ValueError: `flag` or `synchronous` is none of the words above, or the file is open in this
            process with a weaker `synchronous`.
    """
    if flag not in ("r", "w", "c", "n"):
        raise ValueError(f"flag is {flag!r}, and must be 'r', 'w', 'c' or 'n'")
    if synchronous not in SYNCHRONOUS:
        raise ValueError(f"synchronous is {synchronous!r}, and must be 'full', 'normal' or 'off'")
    # two names of one file must lead to one lock file
    path = os.path.realpath(path)
    if not allow_network:
        refuse_network(path)
    engine: LmdbEngine | None = None
    try:
        with registry.lock:
            if flag in "cn" and not os.path.lexists(path):
                _make(path, is_synced=synchronous != "off")
            fd, writable = open_data_file(path, flag)
            mine = True
            try:
                key = file_key(fd)
                known = registry.get(key)
                if known is not None:
                    _share(known, flag, synchronous)
                    engine = known
                else:
                    _refuse_replaced(path)
                    engine = LmdbEngine(
                        path,
                        fd,
                        key,
                        writable=writable,
                        readonly=flag == "r",
                        synchronous="full" if flag == "r" else synchronous,
                        map_size=map_size,
                    )
                    mine = False
                    registry.add(key, engine)
            finally:
                if mine:
                    os.close(fd)
            if writable and not engine.last_commit():
                # whoever made the file: a commit is of no use where its name is lost with the power
                sync_directory(path)
        if flag == "n" and engine.last_commit():
            engine.clear(timeout)
        return engine
    except BaseException:
        if engine is not None:
            engine.close()
        raise


def _share(engine: LmdbEngine, flag: str, synchronous: str) -> None:
    """Count one more who has opened a file that is open."""
    if engine.closed:
        raise OSError(
            errno.EBUSY,
            "the file was closed while another thread of this process was inside a transaction on "
            "it; let that end first",
            engine.path,
        )
    engine.share(flag, synchronous)


def _refuse_replaced(path: str) -> None:
    """Raise `OSError` when the lock file is that of another file, which had this name before."""
    replaced = any(other.path == path for other in registry.all())
    if replaced and os.path.lexists(f"{path}-lock"):
        raise OSError(
            errno.EBUSY,
            "the file was replaced while it is open in this process, and its lock file was not; "
            "close the open store first, or remove the lock file together with the file",
            path,
        )


def _make(path: str, *, is_synced: bool) -> None:
    """Make a file without commits that has its name when it is whole (and on disk), not before.

    LMDB writes the beginning of a file in place. A full disk, a kill or a power failure in that
    moment would leave something that it takes for a file of something else, for ever.
    """

    def write(fd: int, part: str) -> None:
        write_heads(part)
        if is_synced:
            os.fsync(fd)

    make_whole(path, write)


@contextlib.contextmanager
def unused(path: str) -> Iterator[None]:
    """Keep everybody from opening a file while another one gets its name.

    LMDB keeps what the processes on a file share in the lock file beside it, and that goes by name:
    whoever still had the old file open, deleted or not, would mislead all who open the new one.

    Raises:
        OSError: this process or another has the file open, or one of its name that was deleted.
    """
    path = os.path.realpath(path)
    with registry.lock:
        if any(engine.path == path for engine in registry.all()):
            raise OSError(errno.EBUSY, "the file is open in this process; close that store", path)
        try:
            fd = os.open(f"{path}-lock", os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            yield
            return
        try:
            try:
                # every process that has the environment open shares a lock on this byte
                fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1)
            except OSError as error:
                if error.errno not in (errno.EACCES, errno.EAGAIN):
                    raise
                raise OSError(
                    errno.EBUSY,
                    "another process has the file open, or one of that name that was deleted; "
                    "close it there first",
                    path,
                ) from error
            yield
            os.unlink(f"{path}-lock")
        finally:
            os.close(fd)
