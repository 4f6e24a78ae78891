"""Stores for asyncio: `async with aio.open(path) as store:`, and nothing blocks the event loop.

The calls of the ordinary store are awaited. All commits of a store are made by one thread of its
own, and reads by a few others. Inside `async with store.transaction() as tx:` values are live, as
they are in an ordinary block.
"""

from richstore.aio.block import Block, Transaction
from richstore.aio.mapping import Item, ReadItem
from richstore.aio.rows import Rows
from richstore.aio.snapshot import Snapshot, SnapshotGroup
from richstore.aio.store import Group, Opening, Store, open

__all__ = [
    "Block",
    "Group",
    "Item",
    "Opening",
    "ReadItem",
    "Rows",
    "Snapshot",
    "SnapshotGroup",
    "Store",
    "Transaction",
    "open",
]
