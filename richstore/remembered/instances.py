"""What is remembered with an instance: in its memory, and gone with it.

It lies in the instance's own `__dict__`, so that results which refer to the instance are freed with
it. An instance without a `__dict__`, and one from a store, where an attribute would be stored, has
it in a table beside. It belongs to the one instance: a copy or a pickle begins without it, but for
what is to be pickled.
"""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from types import TracebackType
from typing import Any, Self

from richstore.documents import Document
from richstore.groups import Group
from richstore.remembered.places import Entry, Key
from richstore.snapshot import Snapshot
from richstore.store import Store

__all__ = ["Persistable", "results_of"]

_NAME = "_richstore_results"
# by the id of the instance
_beside: dict[int, tuple[weakref.ref[Any], Results]] = {}


class Results:
    """The results of an instance, by the name of the function.

    Args:
        owner: the instance.
        entries: those of its pickle, which become part of this.
    """

    def __init__(self, owner: Any, entries: dict[str, dict[Key, Entry]] | None = None) -> None:
        self.owner = weakref.ref(owner)
        self.entries: dict[str, dict[Key, Entry]] = {} if entries is None else entries
        # the functions whose results are pickled with the instance
        self.pickled: set[str] = set(self.entries)

    def of(self, name: str, *, pickled: bool) -> dict[Key, Entry]:
        """Return the results of one function."""
        if pickled:
            self.pickled.add(name)
        return self.entries.setdefault(name, {})

    def lasting(self) -> dict[str, dict[Key, Entry]]:
        """Return a copy of what is pickled, to which no thread adds any more."""
        kept = {name: self.entries.get(name, {}).copy() for name in self.pickled.copy()}
        return {name: calls for name, calls in kept.items() if calls}

    def __reduce__(self) -> Any:
        # a standard value, for who reads the instance with its own class alone
        return OrderedDict, (), None, None, iter(self.lasting().items())


def results_of(instance: Any) -> Results:
    """Return the results of an instance.

    Raises:
        TypeError: there is no place for them.
    """
    kind = type(instance)
    own = getattr(instance, "__dict__", None) if instance.__class__ is kind else None
    try:
        if not isinstance(own, dict):
            return _results_beside(instance)
        found = own.get(_NAME)
        if found is None:
            found = own.setdefault(_NAME, Results(instance))
        elif not isinstance(found, Results):
            # it has just been read; should two threads be here, they share what is in it
            found = own[_NAME] = Results(instance, found)
        elif found.owner() is not instance:
            # copy.copy has taken along those of another one
            found = own[_NAME] = Results(instance)
    except TypeError:
        raise TypeError(
            f"level='instance' keeps results with the instance, and a {kind.__qualname__} has no "
            f"place for them; add '__weakref__' to its __slots__, or weakref_slot=True to its "
            f"dataclass, or choose another level"
        ) from None
    return found


def _results_beside(instance: Any) -> Results:
    number = id(instance)
    known = _beside.get(number)
    if known is not None and known[0]() is not instance:
        _forget(_beside, number, known[0])
    # given the table, since when Python ends the names of this module are gone first
    reference = weakref.ref(instance, partial(_forget, _beside, number))
    return _beside.setdefault(number, (reference, Results(instance)))[1]


def _forget(
    table: dict[int, tuple[weakref.ref[Any], Results]], number: int, gone: weakref.ref[Any]
) -> None:
    """Forget the results of an instance that is gone; another may have its number by now."""
    known = table.get(number)
    if known is not None and known[0] is gone:
        table.pop(number, None)


class Persistable:
    """Base of classes whose instances hold remembered results, stores or documents.

    Such an instance can be pickled and copied: results in its memory, and attributes that are
    stores, groups, snapshots or documents, are left out. What its methods have made with
    `level="instance"` belongs to it: `close()`, or the end of a `with` block, closes what of it has
    a `close`, and forgets it all. Safe to use from many threads.

    Example:
        >>> import copy, richstore
        >>> class Corpus(richstore.Persistable):
        ...     def __init__(self, path):
        ...         self.path = path
        ...     @property
        ...     @richstore.persisted(level="instance")
        ...     def store(self):
        ...         return richstore.open(self.path)
        >>> with Corpus("memory:") as corpus:
        ...     corpus.store["words"] = ["a"]
        ...     store, other = corpus.store, copy.copy(corpus)
        >>> store.closed, vars(other)
        (True, {'path': 'memory:'})
    """

    __slots__ = ("__weakref__",)

    def __getstate__(self) -> Any:
        """Return the state of the instance, without what stays in this process."""
        state: Any = super().__getstate__()
        if isinstance(state, tuple):
            # with the slots, apart
            return tuple(map(_lasting, state))
        return _lasting(state)

    def close(self) -> None:
        """Close what remembered methods have made and kept with the instance, and forget it.

        The last is closed first. All are closed, though closing one fails. The instance can be
        used again: its methods compute anew.
        """
        results = results_of(self)
        with ExitStack() as stack:
            for made in _taken_from(results):
                # of its class: a table may have a column of that name
                if callable(getattr(type(made), "close", None)):
                    stack.callback(made.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _taken_from(results: Results) -> Iterator[Any]:
    """Take all that was returned out of results, in the order in which it was made."""
    entries = [calls.pop(key) for calls in list(results.entries.values()) for key in list(calls)]
    entries.sort(key=lambda entry: entry["at"])
    return (entry["returned"] for entry in entries if "returned" in entry)


def _lasting(state: Any) -> Any:
    if not isinstance(state, dict):
        return state
    return {
        name: value
        for name, value in state.items()
        if not isinstance(value, (Store, Group, Snapshot, Document))
        and not (isinstance(value, Results) and not value.lasting())
    }
