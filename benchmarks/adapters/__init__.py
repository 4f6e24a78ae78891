"""The stores that are compared, all behind one interface."""

from __future__ import annotations

from benchmarks.adapters.base import CONTAINER, Adapter, Keyed
from benchmarks.adapters.dbzero import Dbzero
from benchmarks.adapters.diskcache import DiskCache
from benchmarks.adapters.floor import Floor
from benchmarks.adapters.richstore import RichStore
from benchmarks.adapters.rocksdict import RocksDict
from benchmarks.adapters.shelve import Shelve
from benchmarks.adapters.sqlitedict import SqliteDict
from benchmarks.adapters.zodb import Zodb, ZodbBTrees

__all__ = ["ADAPTERS", "CONTAINER", "PEERS", "Adapter", "Floor", "Keyed", "RichStore"]

PEERS: tuple[type[Adapter], ...] = (
    Zodb,
    ZodbBTrees,
    Dbzero,
    DiskCache,
    SqliteDict,
    Shelve,
    RocksDict,
)
_ALL: tuple[type[Adapter], ...] = (RichStore, Floor, *PEERS)
ADAPTERS: dict[str, type[Adapter]] = {kind.name: kind for kind in _ALL}
