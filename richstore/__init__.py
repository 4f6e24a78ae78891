"""Plain Python values that persist themselves: a dict that remembers, on LMDB, in one file."""

from richstore.copying import restore
from richstore.documents import Document, document
from richstore.errors import (
    ClosedError,
    ConflictError,
    CorruptionError,
    DetachedError,
    EncodingError,
    FormatError,
    KeyTypeError,
    LockTimeoutError,
    ReadOnlyError,
    RichStoreError,
    UntrustedClassError,
)
from richstore.nodes import is_tracked, plain, transactional
from richstore.snapshot import Snapshot
from richstore.statistics import Stats
from richstore.store import Store, open
from richstore.transaction import Transaction
from richstore.verification import Report

__all__ = [
    "ClosedError",
    "ConflictError",
    "CorruptionError",
    "DetachedError",
    "Document",
    "EncodingError",
    "FormatError",
    "KeyTypeError",
    "LockTimeoutError",
    "ReadOnlyError",
    "Report",
    "RichStoreError",
    "Snapshot",
    "Stats",
    "Store",
    "Transaction",
    "UntrustedClassError",
    "document",
    "is_tracked",
    "open",
    "plain",
    "restore",
    "transactional",
]
