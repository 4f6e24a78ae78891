"""Changing the key of a store: at once, or with everything encrypted anew.

Changing the key of the user is writing another header. Encrypting anew is a sequence of commits,
after each of which the store is whole, so it may be killed at any moment and begun again:

1. a header with one more data key, and the new key of the user: from now on everything is written
   with that data key, and who has the old key of the user is shut out;
2. what older data keys have encrypted is written again, some records at a time;
3. a header with the newest data key alone;
4. where names of keys are encrypted, all is written to a new tree: the inner pages of the old one
   have copies of old names;
5. free pages, and gaps in others, where old headers and old records still lie, are overwritten;
6. a header that says that all is done.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

from richstore.engines.base import Engine
from richstore.engines.encrypted.engine import (
    EncryptedEngine,
    EncryptedWriteTransaction,
)
from richstore.engines.encrypted.header import Header, Secret, new_generation
from richstore.errors import RichStoreError

__all__ = ["change_key", "encrypt_anew"]

# Records, and bytes, that are written again in one commit.
_RECORDS = 500
_BYTES = 1 << 20

Writing = Callable[[], AbstractContextManager[EncryptedWriteTransaction]]
"""Begins a write transaction, and commits it at the end of the block."""


def change_key(writing: Writing, secret: Secret) -> None:
    """Let another key of the user open the store."""
    with writing() as transaction:
        transaction.write_header(transaction.header, secret)


def encrypt_anew(
    engine: EncryptedEngine,
    writing: Writing,
    alone: Callable[[], AbstractContextManager[None]],
    secret: Secret,
    timeout: float | None,
    progress: Callable[[int, int], None] | None,
) -> int:
    """Let another key open the store, and leave nothing in the file that the old one opens.

    Args:
        engine: the engine.
        writing: begins a write transaction.
        alone: keeps other threads from writing.
        secret: what the user has given as the new key.
        timeout: seconds to wait for a writer of another process.
        progress: is told the records and bytes so far.

    Returns:
        How many records were written again.

    Raises:
        RichStoreError: snapshots keep old pages in the file, and the rest is done; or the key was
            changed again meanwhile.
    """
    with writing() as transaction:
        transaction.write_header(new_generation(transaction.header), secret)
        ours = transaction.stored_header
    records = size = 0
    for count, written in _rewrite_all(writing):
        records += count
        size += written
        if progress is not None:
            progress(records, size)
    with writing() as transaction:
        _check_ours(engine, transaction, ours)
        transaction.write_header(_newest_alone(transaction.header, is_clean=False), secret)
        ours = transaction.stored_header
        has_names = transaction.header.names
    with alone():
        if has_names:
            _write_anew(engine.below, timeout)
        _overwrite_unused(engine.below, timeout)
    with writing() as transaction:
        _check_ours(engine, transaction, ours)
        transaction.write_header(_newest_alone(transaction.header, is_clean=True), secret)
    return records


def _check_ours(
    engine: EncryptedEngine, transaction: EncryptedWriteTransaction, ours: bytes
) -> None:
    """Raise `RichStoreError` if somebody has changed the key since: writing would undo that."""
    if transaction.stored_header != ours:
        raise RichStoreError(
            f"the key of {engine.path} was changed again while everything was encrypted anew, and "
            f"is that of the other change now; call rekey again to finish"
        )


def _newest_alone(header: Header, *, is_clean: bool) -> Header:
    number = list(header.generations)[-1]
    newest = {number: header.generations[number]}
    return Header(header.identity, newest, names=header.names, is_clean=is_clean)


def _rewrite_all(writing: Writing) -> Iterator[tuple[int, int]]:
    """Write again what is not encrypted with the newest data key; yield records and bytes."""
    start: bytes | None = b"\0"
    while start is not None:
        with writing() as transaction:
            start, records, size = transaction.rewrite(start, _RECORDS, _BYTES)
        yield records, size


def _write_anew(below: Engine, timeout: float | None) -> None:
    """Leave no key of before in the tree of the engine below, where that has one in a file."""
    write: Any = getattr(below, "write_anew", None)
    if write is not None:
        write(timeout)


def _overwrite_unused(below: Engine, timeout: float | None) -> None:
    """Overwrite what nobody can read any more, where the engine below has a file."""
    overwrite: Any = getattr(below, "overwrite_unused", None)
    if overwrite is None:
        return
    try:
        overwrite(timeout)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        raise RichStoreError(
            f"{below.path} is encrypted anew, and old pages could not be overwritten: "
            f"{error.strerror}; close these, and call rekey again"
        ) from error
