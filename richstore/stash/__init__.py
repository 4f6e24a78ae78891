"""Stashes: mappings that stack, each of which does one thing for the one below it."""

from richstore.stash.base import MutableStash, Stash
from richstore.stash.caching import CacheStash, LRUCacheStash
from richstore.stash.delegate import DelegateStash, DictionaryStash, ReadOnlyStash
from richstore.stash.directory import DirectoryStash
from richstore.stash.factory import FactoryStash
from richstore.stash.multiprocess import MultiProcessStash
from richstore.stash.numbered import IncrementKeyDirectoryStash
from richstore.stash.priming import OneShotFactoryStash, PreemptiveStash, PrimeableStash
from richstore.stash.selecting import KeyLimitStash, KeySubsetStash, SortedStash, UnionStash
from richstore.stash.shelf import ShelveStash
from richstore.stash.zipped import ZipStash

__all__ = [
    "CacheStash",
    "DelegateStash",
    "DictionaryStash",
    "DirectoryStash",
    "FactoryStash",
    "IncrementKeyDirectoryStash",
    "KeyLimitStash",
    "KeySubsetStash",
    "LRUCacheStash",
    "MultiProcessStash",
    "MutableStash",
    "OneShotFactoryStash",
    "PreemptiveStash",
    "PrimeableStash",
    "ReadOnlyStash",
    "ShelveStash",
    "SortedStash",
    "Stash",
    "UnionStash",
    "ZipStash",
]
