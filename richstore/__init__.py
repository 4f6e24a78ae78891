"""Plain Python values that persist themselves: a dict that remembers, on LMDB, in one file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from richstore.block import in_transaction
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

if TYPE_CHECKING:
    from richstore.remembered import Persistable, persisted

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
    "Persistable",
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
    "in_transaction",
    "is_tracked",
    "open",
    "persisted",
    "plain",
    "renamed",
    "restore",
    "transactional",
]


def __getattr__(name: str) -> Any:
    """Import what not every program uses when it is asked for."""
    if name not in ("Persistable", "persisted"):
        raise AttributeError(f"module 'richstore' has no attribute {name!r}")
    from richstore import remembered

    value = globals()[name] = getattr(remembered, name)
    return value
