"""Changing the key of a store: at once, or with everything encrypted anew.

Changing the key of the user is writing another header. Encrypting anew is a sequence of commits,
after each of which the store is whole, so it may be killed at any moment and begun again:

1. a header with one more data key, and the new key of the user: from now on everything is written
   with that data key, and who has the old key of the user is shut out;
2. what older data keys have encrypted is written again, some records at a time;
3. a header with the newest data key alone;
4. the free pages of the file, where the old header and old records still lie, are overwritten;
5. a header that says that all is done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from itertools import islice

from richstore.engines.base import Engine
from richstore.engines.encrypted.engine import (
    SCRUB,
    EncryptedEngine,
    EncryptedWriteTransaction,
)
from richstore.engines.encrypted.header import Header, Secret, new_generation
from richstore.errors import RichStoreError

__all__ = ["change_key", "encrypt_anew"]

# Records, and bytes, that are written again in one commit.
_RECORDS = 500
_BYTES = 1 << 20
# Pages that are overwritten in one commit.
_PAGES = 10_000
# Commits after which pages that were freed may be used again, with some to spare.
_RIPEN = 4
# Bytes of a page of LMDB that a large value does not get.
_PAGE_HEAD = 16

Writing = Callable[[], AbstractContextManager[EncryptedWriteTransaction]]
"""Begins a write transaction, and commits it at the end of the block."""


def change_key(engine: EncryptedEngine, writing: Writing, secret: Secret) -> None:
    """Let another key of the user open the store."""
    with engine.changing(secret), writing() as transaction:
        transaction.write_header(transaction.header)


def encrypt_anew(
    engine: EncryptedEngine,
    writing: Writing,
    secret: Secret,
    progress: Callable[[int, int], None] | None,
) -> int:
    """Let another key open the store, and leave nothing in the file that the old one opens.

    Returns:
        How many records were written again.

    Raises:
        RichStoreError: snapshots keep old pages in the file; the rest is done.
    """
    with engine.changing(secret), writing() as transaction:
        transaction.write_header(new_generation(transaction.header))
    records = size = 0
    for count, written in _rewrite_all(writing):
        records += count
        size += written
        if progress is not None:
            progress(records, size)
    with writing() as transaction:
        transaction.write_header(_newest_alone(transaction.header, is_clean=False))
    _overwrite_free_pages(engine.below, writing)
    with writing() as transaction:
        transaction.write_header(_newest_alone(transaction.header, is_clean=True))
    return records


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


def _overwrite_free_pages(below: Engine, writing: Writing) -> None:
    """Overwrite the free pages of a file, by storing zeros in all of them and deleting these."""
    found = below.stats()
    if found.pages is None or found.page_size is None:
        return
    _remove_zeros(writing)
    for _ in range(_RIPEN):
        with writing() as transaction:
            transaction.write_header(transaction.header)
    found = below.stats()
    if found.readers or found.pages_pinned:
        raise RichStoreError(
            f"{below.path} is encrypted anew, and old pages could not be overwritten: snapshots or "
            f"loops, of this process or another, still read them; close these, and call rekey "
            f"again"
        )
    zeros = bytes((found.page_size or 0) - _PAGE_HEAD)
    left = (found.pages_free or 0) + _RIPEN
    names = (SCRUB + number.to_bytes(8) for number in range(left))
    while part := list(islice(names, _PAGES)):
        with writing() as transaction:
            transaction.put_below([(name, zeros) for name in part])
    _remove_zeros(writing)


def _remove_zeros(writing: Writing) -> None:
    removed = 1
    while removed:
        with writing() as transaction:
            removed = transaction.delete_below(SCRUB, _PAGES)
