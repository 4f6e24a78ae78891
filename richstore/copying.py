"""Copies of whole files: `Store.backup()` and `restore()`.

The rule: a copy gets its final name when it is complete, on the disk and verified, and not before.
Until then it lies beside it under a name of its own, which an interrupted copy leaves behind as
`<name>.<random>.part`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator
from functools import partial

from richstore import group_commit, reclaiming
from richstore.codec.policy import ANY, NONE, ClassPolicy
from richstore.encryption import audit, check_plain, encrypted, is_encrypted, like, secret_of
from richstore.engines.base import Engine
from richstore.engines.datafile import sync_directory
from richstore.engines.lmdb import open_lmdb, unused
from richstore.errors import CorruptionError, FormatError
from richstore.mapping import user_key
from richstore.nodes import Faces
from richstore.ownership import default_policy
from richstore.passphrase import KeySource
from richstore.tracker import FORMAT_KEY, LOG_KEY, Tracker, check_format_record
from richstore.verification import Report, verify

__all__ = ["copy_file", "publish", "restore"]


def restore(
    backup: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    replace: bool = False,
    key: KeySource | None = None,
) -> Report:
    """Put a copy of a backup, verified, where a store is to be.

    The backup stays. No process may have the target open, nor a deleted file of its name.

    Args:
        backup: a file that `Store.backup` made, or any store's file.
        target: the path of the store.
        replace: whether a file that is there already may be replaced.
        key: that of the store, if it has one; it is needed to verify it.

    Returns:
        What verifying the new file found; it is well.

    Raises:
        FileExistsError: the target exists, and `replace` is False.
        OSError: the target is open somewhere; or a file cannot be read or written.
        CorruptionError: the backup is damaged; the target is as it was.
        FormatError: the backup is no store.
        WrongKeyError: the backup is encrypted with another key, or `key` is missing.

    Example:
        >>> import richstore, tempfile, os
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     path, copy = os.path.join(directory, "shops"), os.path.join(directory, "copy")
        ...     with richstore.open(path) as store:
        ...         store["shops"] = ["shop1"]
        ...         report = store.backup(copy)
        ...         del store["shops"]
        ...     report = richstore.restore(copy, path, replace=True)
        ...     with richstore.open(path) as store:
        ...         store["shops"]
        ['shop1']
    """
    source = open_lmdb(os.fspath(backup), "r", synchronous="full", timeout=None)
    try:
        if key is not None:
            engine = encrypted(source, secret_of(key))
            return copy_file(engine, os.fspath(target), ANY, replace=replace)
        classes = default_policy(os.fstat(source.fd), source.path)
        return copy_file(source, os.fspath(target), classes, replace=replace)
    finally:
        source.close()


def copy_file(
    engine: Engine,
    target: str,
    classes: ClassPolicy,
    *,
    replace: bool,
    compact: bool = False,
) -> Report:
    """Copy the last committed state of an engine into a file, and verify that.

    Args:
        engine: what is copied; others may go on writing.
        target: the path of the copy.
        classes: the policy for what is copied.
        replace: whether a file that is there already may be replaced.
        compact: whether to leave out what deleted values have left behind.

    Returns:
        What verifying the copy found.

    Raises:
        FileExistsError: the target exists, and `replace` is False.
        OSError: it is open somewhere, or a file cannot be written.
        CorruptionError: the copy is not well; there is no file under the target's name.
    """
    target = os.path.abspath(target)
    _check_target(target, replace)
    with _part(target) as part:
        _copy(engine, part)
        if compact:
            _compact(engine, part)
            source = open_lmdb(part, "r", synchronous="full", timeout=None)
            try:
                with _part(target) as smaller:
                    _copy(like(engine, source), smaller)
                    os.replace(smaller, part)
            finally:
                source.close()
        report = _verified(engine, part, target, classes)
        with unused(target):
            publish(part, target, replace)
    return report


def _check_target(target: str, replace: bool) -> None:
    if os.path.lexists(target) and not replace:
        raise FileExistsError(
            errno.EEXIST, "the file exists; give another name, or replace=True", target
        )


@contextlib.contextmanager
def _part(target: str) -> Iterator[str]:
    """Give the name of a new empty file beside the target; it is removed unless it was renamed."""
    directory, name = os.path.split(target)
    fd, part = tempfile.mkstemp(prefix=f"{name}.", suffix=".part", dir=directory)
    os.close(fd)
    try:
        yield part
    finally:
        for leftover in (part, f"{part}-lock"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(leftover)


def _copy(engine: Engine, part: str) -> None:
    """Fill an empty file with what an engine has, durably."""
    _check_format(engine)
    # what is encrypted is copied as it is
    view = getattr(engine, "below", engine).read()
    try:
        fd = os.open(part, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
        try:
            is_copied = view.copy(fd)
            # where there is no change log to leave out, the commit below writes and syncs nothing
            os.fsync(fd)
        finally:
            os.close(fd)
        copy = open_lmdb(part, "c", synchronous="full", timeout=None)
        try:
            transaction = copy.write(None)
            try:
                if not is_copied:
                    transaction.put_many(view.scan(b"\0", None))
                # commits of the copy have numbers of their own
                transaction.delete(LOG_KEY)
                transaction.commit()
            finally:
                transaction.abort()
        finally:
            copy.close()
    finally:
        view.close()


def _compact(engine: Engine, part: str) -> None:
    """Take out of a copy what deleted values have left behind."""
    file = open_lmdb(part, "w", synchronous="full", timeout=None)
    try:
        # nothing is read of the values; and what is copied may be another's, though the copy is not
        tracker = Tracker(like(engine, file), Faces, partial(user_key, NONE), 0, NONE)
        tracker.refresh()
        group_commit.run(tracker, None, reclaiming.compact)
    finally:
        file.close()


def _check_format(engine: Engine) -> None:
    view = engine.read()
    try:
        if not is_encrypted(engine):
            check_plain(view, engine.path)
        stored = view.get(FORMAT_KEY)
    finally:
        view.close()
    if stored is None:
        raise FormatError(f"{engine.path} is not a store of richstore, so it is not copied")
    check_format_record(engine.path, stored)


def _verified(engine: Engine, part: str, target: str, classes: ClassPolicy) -> Report:
    file = open_lmdb(part, "r", synchronous="full", timeout=None)
    try:
        copy = like(engine, file)
        report = Report(audit(copy))
        if report.ok:
            view = copy.read()
            try:
                report = verify(view, partial(user_key, NONE), classes=classes)
            finally:
                view.close()
    finally:
        file.close()
    if not report.ok:
        raise CorruptionError(
            f"the copy was not put at {target}, since what was copied is damaged "
            f"({len(report.problems)} problems): {report.problems[0]}"
        )
    return report


def publish(part: str, target: str, replace: bool) -> None:
    """Give a complete file its name, durably; a device, FIFO or folder is not replaced."""
    if replace:
        if os.path.exists(target) and not os.path.isfile(target):
            raise FileExistsError(
                errno.EEXIST, "this is no regular file, and is not replaced", target
            )
        os.replace(part, target)
    else:
        try:
            # unlike a rename it does not replace a file that has come meanwhile
            os.link(part, target)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EMLINK):
                raise
            _check_target(target, replace)
            os.rename(part, target)
    sync_directory(target)
