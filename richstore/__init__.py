"""Plain Python values that persist themselves: a dict that remembers, on LMDB, in one file."""

from richstore.codec.sealed import Sealed
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
    OrderError,
    ReadOnlyError,
    RichStoreError,
    WrongKeyError,
)
from richstore.nodes import is_tracked, plain, transactional
from richstore.passphrase import Passphrase
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
    "OrderError",
    "Passphrase",
    "ReadOnlyError",
    "Report",
    "RichStoreError",
    "Sealed",
    "Snapshot",
    "Stats",
    "Store",
    "Transaction",
    "WrongKeyError",
    "document",
    "is_tracked",
    "open",
    "plain",
    "restore",
    "transactional",
]
