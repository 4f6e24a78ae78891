"""Snapshots of an asynchronous store."""

from __future__ import annotations

import asyncio
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any, TypeVar

import richstore
from richstore import ClosedError
from richstore.aio.core import Core, Source
from richstore.aio.jobs import wait_out
from richstore.aio.mapping import Reading

__all__ = ["Snapshot", "SnapshotGroup", "take"]

K = TypeVar("K")
V = TypeVar("V")


class _Frozen(Source):
    """A snapshot as a source.

    Args:
        core: the store of which it is.
        snapshot: the ordinary snapshot.
    """

    def __init__(self, core: Core, snapshot: richstore.Snapshot) -> None:
        super().__init__(core.pool)
        self.core = core
        self.snapshot = snapshot
        self.closed = False

    def check(self) -> None:
        """Raise `ClosedError` when it cannot be used."""
        if self.closed:
            raise ClosedError(f"this snapshot of {self.core.store.path} is closed; take a new one")
        if self.core.is_of_parent():
            self.core.check()

    def is_inside(self) -> bool:
        """Tell that no transaction changes it."""
        return False

    def view(self) -> AbstractContextManager[Any]:
        """Return the snapshot, which stays open."""
        return nullcontext(self.snapshot)

    own_view = view


async def take(core: Core, max_age: float | None) -> _Frozen:
    """Take a snapshot in a thread; a cancelled task leaves none."""
    core.check()
    taking = core.pool.start(lambda: core.store.snapshot(max_age=max_age))
    try:
        await wait_out(taking)
    except asyncio.CancelledError:
        if taking.exception() is None:
            core.pool.later(taking.result().close)
        raise
    return _Frozen(core, taking.result())


class _Shown(Reading[K, V]):
    """What a snapshot and the groups in it have in common."""

    _source: _Frozen

    def group(self, name: str) -> SnapshotGroup:
        """Return a group as it was; an empty one if it was not there."""
        return SnapshotGroup(self._source, (*self._path, name))


class Snapshot(_Shown[Any, Any]):
    """A store as it was at one moment, read with `await`; made by `Store.snapshot()`.

    While it is open, the space of what others delete is kept.
    """

    def __init__(self, source: _Frozen) -> None:
        self._source = source

    async def close(self) -> None:
        """End the snapshot. Calling it again does nothing."""
        source = self._source
        if not source.closed:
            source.closed = True
            if source.core.is_of_parent():
                return
            with suppress(ClosedError):
                # a store that is closed has ended it
                await wait_out(source.pool.start(source.snapshot.close))

    def _abandon(self) -> None:
        self._source.closed = True
        self._source.pool.later(self._source.snapshot.close)

    def __repr__(self) -> str:
        return f"<richstore.aio.Snapshot of {self._source.core.store.path!r}>"


class SnapshotGroup(_Shown[Any, Any]):
    """A group as it was in a snapshot."""

    def __init__(self, source: _Frozen, path: tuple[str, ...]) -> None:
        self._source = source
        self._path = path

    @property
    def path(self) -> tuple[str, ...]:
        """The names that lead to it from the store."""
        return self._path

    def __repr__(self) -> str:
        return f"<richstore.aio.SnapshotGroup {self._path!r} of {self._source.core.store.path!r}>"
