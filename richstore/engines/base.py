"""What an engine is: ordered bytes → bytes with transactions.

Engines know nothing of records, keys of users or nodes. Keys are 1 to 511 bytes, values any length.
Commits are numbered 1, 2, 3, …; every reader sees exactly the state after one commit. What has
ended, by itself or with its engine, raises `ClosedError` when it is used; dropping a transaction
ends it. `tests/engines/conformance.py` is this page as a test suite.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

__all__ = [
    "HEADER_KEY",
    "HEADER_MAGIC",
    "Engine",
    "EngineStats",
    "ReadTransaction",
    "WriteTransaction",
]

HEADER_KEY = b"\x00key"
"""Where an engine that encrypts keeps what leads to its keys; layers above use no such key."""

HEADER_MAGIC = b"richstore key\x00"
"""What it begins with; so do encrypted documents."""


@dataclass(frozen=True, slots=True)
class EngineStats:
    """How an engine stood at one moment; None is what does not exist or cannot be known.

    Pages are those of the file: `pages` = used ones + `pages_free` + `pages_pinned`.
    """

    commits: int
    """The number of the last commit."""
    entries: int
    """How many keys are stored."""
    page_size: int | None
    """Bytes."""
    pages: int | None
    pages_free: int | None
    """Free pages that the next commits write to before the file grows."""
    pages_pinned: int | None
    """Pages that are free as soon as the oldest reader ends."""
    file_size: int | None
    """Bytes; less than that on disk where the file has holes."""
    map_size: int | None
    """Bytes of address space, which the file cannot outgrow unless the map can."""
    readers: int
    """How many read transactions are open, in all living processes."""
    oldest_reader_commit: int | None
    """The number of the last commit that the oldest of them sees."""
    oldest_reader_pid: int | None
    """Its process, this one if it has one as old."""
    oldest_reader_age: float | None
    """Seconds since it began; None when it belongs to another process."""


class ReadTransaction(Protocol):
    """A frozen view of one committed state; safe to use from many threads."""

    @property
    def id(self) -> int:
        """The number of the last commit that this view contains (0 for an empty engine)."""

    def get(self, key: bytes) -> bytes | None:
        """Return the value under `key`, or None."""

    def scan(
        self, start: bytes, stop: bytes | None, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """Yield the items with `start <= key < stop` in the order of their keys, lazily.

        Inside a write transaction the iterator stays valid while the transaction is written to.
        """

    def copy(self, fd: int) -> bool:
        """Write a file with the state of this view, without free pages, to a descriptor.

        Returns:
            False, and nothing was written, when the engine has no files.
        """

    def close(self) -> None:
        """End the view; calling it again does nothing."""


class WriteTransaction(Protocol):
    """The one open write transaction of an engine; used by the thread that began it.

    Reads inside see the latest committed state and the transaction's own writes.
    """

    @property
    def id(self) -> int:
        """The number that this commit will have (has, when it has ended)."""

    @property
    def committed(self) -> bool:
        """Whether `commit` was done, for certain, also when an interrupt or an error ended it."""

    def get(self, key: bytes) -> bytes | None:
        """Return the value under `key`, own writes included, or None."""

    def scan(
        self, start: bytes, stop: bytes | None, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """As `ReadTransaction.scan`, own writes included."""

    def put(self, key: bytes, value: bytes) -> None:
        """Store `value` under `key`.

        Raises:
            ValueError: the key is empty or longer than 511 bytes.
        """

    def put_many(self, items: Iterable[tuple[bytes, bytes]]) -> None:
        """Store every value under its key, taking a few items at a time from the iterable.

        As `put` for each, in the same order, at a lower cost. When the iterable or a key raises,
        some of the items are stored.
        """

    def delete(self, key: bytes) -> bool:
        """Remove `key`; return whether it was there."""

    def commit(self) -> None:
        """Make the writes durable as the engine was told to, visible at once, and end.

        A commit without writes takes no number. On any exception the transaction has ended, and
        nothing was written unless `committed` says otherwise.

        Raises:
            ConflictError: an optimistic engine saw another commit first.
            OSError: the disk is full or failed.
        """

    def abort(self) -> None:
        """Forget the writes and end; calling it after the end does nothing."""


class Engine(Protocol):
    """An open database; safe to use from many threads."""

    @property
    def path(self) -> str:
        """The absolute path of the file, or `memory:`."""

    @property
    def readonly(self) -> bool:
        """Whether write transactions are refused."""

    def last_commit(self) -> int:
        """Return the number of the last commit by any process; well under a microsecond."""

    def read(self) -> ReadTransaction:
        """Begin a read transaction on the latest committed state."""

    def write(self, timeout: float | None) -> WriteTransaction:
        """Begin the write transaction, waiting for that of another process at most `timeout` s.

        The caller has made sure that no other thread of this process has one open.

        Raises:
            LockTimeoutError: another process did not finish in time.
        """

    def stats(self) -> EngineStats:
        """Return how the engine stands now, in time that grows with the free pages alone."""

    def problems(self) -> list[str]:
        """Return what is wrong with the file itself, below the records; a sentence for each."""

    def reopen_after_fork(self) -> None:
        """Replace, in the child of a fork, what belongs to the parent; called before any use."""

    def close(self, noted: list[bool] | None = None) -> None:
        """Release the database; open read transactions end. Calling it again does nothing.

        Args:
            noted: has an item as soon as this opening is no longer counted. With the same list an
                interrupted call is made again.
        """
