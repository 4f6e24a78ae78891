"""The stores that are compared, all behind one interface."""

from __future__ import annotations

from benchmarks.adapters.base import Adapter
from benchmarks.adapters.diskcache import DiskCache
from benchmarks.adapters.floor import Floor
from benchmarks.adapters.richstore import RichStore
from benchmarks.adapters.shelve import Shelve
from benchmarks.adapters.sqlitedict import SqliteDict
from benchmarks.adapters.zodb import Zodb

__all__ = ["PEERS", "Adapter", "Floor", "RichStore"]

PEERS: tuple[type[Adapter], ...] = (Zodb, DiskCache, SqliteDict, Shelve)
