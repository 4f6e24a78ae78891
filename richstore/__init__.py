"""Plain Python values that persist themselves: a dict that remembers, on LMDB, in one file."""

from richstore.codec.missing import Missing
from richstore.codec.renames import renamed
from richstore.codec.sealed import Sealed
from richstore.copying import restore
from richstore.documents import Document, document
from richstore.errors import (
    ClosedError,
    ConflictError,
    CorruptionError,
    DetachedError,
    EncodingError,
    FillError,
    FormatError,
    KeyTypeError,
    LockTimeoutError,
    MissingClassError,
    OrderError,
    ProjectError,
    ReadOnlyError,
    RichStoreError,
    UntrustedClassError,
    UpgradeError,
    WrongKeyError,
)
from richstore.groups import Group
from richstore.nodes import is_tracked, plain, transactional
from richstore.opening import open
from richstore.passphrase import Passphrase
from richstore.snapshot import Snapshot
from richstore.statistics import Stats
from richstore.store import Store
from richstore.transaction import Transaction
from richstore.verification import Report

__all__ = [
    "ClosedError",
    "ConflictError",
    "CorruptionError",
    "DetachedError",
    "Document",
    "EncodingError",
    "FillError",
    "FormatError",
    "Group",
    "KeyTypeError",
    "LockTimeoutError",
    "Missing",
    "MissingClassError",
    "OrderError",
    "Passphrase",
    "ProjectError",
    "ReadOnlyError",
    "Report",
    "RichStoreError",
    "Sealed",
    "Snapshot",
    "Stats",
    "Store",
    "Transaction",
    "UntrustedClassError",
    "UpgradeError",
    "WrongKeyError",
    "document",
    "is_tracked",
    "open",
    "plain",
    "renamed",
    "restore",
    "transactional",
]
