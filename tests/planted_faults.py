"""Run a state machine on a core with a planted fault; `python planted_faults.py NAME`.

Exits with 1 when the machine finds the fault, with 0 when it does not. In a process of its own:
a broken core leaves files and stores behind.
"""

from __future__ import annotations

import sys
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from richstore import spaces, tracker
from richstore.nodes.containers import ContainerKind
from richstore.pages import RECLAIM
from richstore.tracker import Tracker
from richstore.transaction import Transaction

touch = Transaction.touch
set_cell = Transaction.set_cell


def no_undo(self: Any, level: Any) -> None:
    """Forget what to put back instead of putting it back."""
    level.saved.clear()
    level.births.clear()


def stale_fragment(self: Any, node: Any) -> Any:
    """Keep the old encoding of a node that is about to change."""
    kept = node.fragment
    kids = touch(self, node)
    node.fragment = kept
    return kids


def no_mark(self: Any, name: bytes, value: Any) -> None:
    """Put all cells but the one that says what is to be reclaimed."""
    if name[:1] != RECLAIM:
        set_cell(self, name, value)


def no_count(self: Any, name: bytes, value: Any) -> None:
    """Put all cells but the number of values in a group that has some."""
    if name[:1] != spaces.COUNTER or not value or name not in self.cells:
        set_cell(self, name, value)


FAULTS: dict[str, tuple[Any, str, Any]] = {
    "none": (Transaction, "touch", touch),
    "rollback puts nothing back": (Transaction, "_undo", no_undo),
    "change is not encoded": (Transaction, "touch", stale_fragment),
    "no working copy": (ContainerKind, "begin", lambda self, node: None),
    "deleted value stays live": (Tracker, "forget", lambda self, record: None),
}
# those that the machine of groups is to find
GROUP_FAULTS: dict[str, tuple[Any, str, Any]] = {
    "cleared elsewhere, and still loaded": (Tracker, "expire_space", lambda self, prefix: None),
    "cleared here, and still loaded": (Tracker, "forget_space", lambda self, prefix, before: None),
    "cleared in the block, and still current": (Transaction, "has_left", lambda self, name: False),
    "cleared, and found": (tracker, "value_in", lambda get, name: get(name)),
    "not marked to be reclaimed": (Transaction, "set_cell", no_mark),
    "not counted": (Transaction, "set_cell", no_count),
}


def main(name: str) -> int:
    """Plant a fault, run the machine, and say whether it failed."""
    from test_groups_machine import GroupsMachine
    from test_machine import StoreMachine

    machine = GroupsMachine if name in GROUP_FAULTS else StoreMachine
    owner, attribute, fault = (FAULTS | GROUP_FAULTS)[name]
    setattr(owner, attribute, fault)
    quick = settings(
        max_examples=100,
        stateful_step_count=50,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    try:
        run_state_machine_as_test(machine, settings=quick)
    except (Exception, pytest.fail.Exception) as error:  # whatever the fault leads to
        print(f"found: {type(error).__name__}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
