"""Faults in the library that the checker of histories has to find in what processes have done."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Any

from richstore.nodes.containers import ContainerKind
from richstore.store import Store
from richstore.tracker import Tracker
from richstore.transaction import Transaction

__all__ = ["FAULTS", "plant"]

commit = Transaction.commit
snapshot = Store.snapshot


def take_no_notice(self: Any, number: int, get: Any) -> None:
    """Believe what is in memory, whatever other processes have committed."""
    self.seen = number


def no_undo(self: Any, level: Any) -> None:
    """Forget what to put back instead of putting it back."""
    level.saved.clear()
    level.births.clear()


def forget_some(self: Any) -> None:
    """Do not commit each twentieth time, and say nothing."""
    if self.engine.id % 20 == 0:
        self.undo()
    else:
        commit(self)


class NoBlock:
    """What changes inside is committed as it comes."""

    def __enter__(self) -> NoBlock:
        return self

    def __exit__(self, *error: object) -> None:
        """Do nothing."""

    def abort(self) -> None:
        """Do nothing."""


@contextmanager
def live_view(self: Any) -> Any:
    """Give the store itself, which goes on changing."""
    yield self


@contextmanager
def old_view(self: Any) -> Any:
    """Give the same view again and again."""
    kept = vars(self).setdefault("_kept", [])
    if len(kept) == 50:
        kept.pop(0).close()
    kept.append(snapshot(self))
    yield kept[0]


# the name: what is replaced, by what, and the names of which one at least has to be found
FAULTS: dict[str, tuple[Any, str, Any, set[str]]] = {
    "does not read before it writes": (
        Tracker,
        "catch_up",
        take_no_notice,
        {"lost update", "lost change", "incompatible order"},
    ),
    "does not look for commits of others": (
        Tracker,
        "refresh",
        lambda self: None,
        {"G-single-realtime"},
    ),
    "shows what is not committed": (
        ContainerKind,
        "begin",
        lambda self, node: None,
        {"G1a", "G1b"},
    ),
    "puts nothing back at the end": (Transaction, "_undo", no_undo, {"G1a"}),
    "puts nothing back at a savepoint": (
        Transaction,
        "rollback_to",
        lambda self, savepoint: None,
        {"G1a"},
    ),
    "forgets commits": (Transaction, "commit", forget_some, {"lost change"}),
    "commits parts of a block": (
        Store,
        "transaction",
        lambda self: NoBlock(),
        {"G1b", "G-single", "internal"},
    ),
    "shows a snapshot that changes": (Store, "snapshot", live_view, {"G-single", "internal"}),
    "shows a snapshot of before": (Store, "snapshot", old_view, {"G-single-realtime"}),
    # the worker itself has this one
    "acknowledged too early": (None, "", None, {"G-single-realtime", "lost change"}),
}


def plant(name: str) -> None:
    """Put a fault into the library of this process."""
    if name != "none":
        owner, attribute, fault, _ = FAULTS[name]
        if owner is not None:
            setattr(owner, attribute, fault)
