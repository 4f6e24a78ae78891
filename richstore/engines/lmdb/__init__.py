"""The LMDB engine: one file, readers that nobody blocks, one writer at a time.

`engine` has the theory of operation. This is the only package that imports lmdb, and no exception
of lmdb leaves it.
"""

from richstore.engines.lmdb.engine import LmdbEngine
from richstore.engines.lmdb.opening import open_lmdb, unused
from richstore.engines.lmdb.structure import structure_problems
from richstore.engines.lmdb.transactions import LmdbReadTransaction, LmdbWriteTransaction

__all__ = [
    "LmdbEngine",
    "LmdbReadTransaction",
    "LmdbWriteTransaction",
    "open_lmdb",
    "structure_problems",
    "unused",
]
