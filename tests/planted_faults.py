"""Run the state machine on a core with a planted fault; `python planted_faults.py NAME`.

Exits with 1 when the machine finds the fault, with 0 when it does not. In a process of its own:
a broken core leaves files and stores behind.
"""

from __future__ import annotations

import sys
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from richstore.nodes.containers import ContainerKind
from richstore.tracker import Tracker
from richstore.transaction import Transaction

touch = Transaction.touch


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


FAULTS: dict[str, tuple[Any, str, Any]] = {
    "none": (Transaction, "touch", touch),
    "rollback puts nothing back": (Transaction, "_undo", no_undo),
    "change is not encoded": (Transaction, "touch", stale_fragment),
    "no working copy": (ContainerKind, "begin", lambda self, node: None),
    "deleted value stays live": (Tracker, "forget", lambda self, record: None),
}


def main(name: str) -> int:
    """Plant a fault, run the machine, and say whether it failed."""
    from test_machine import StoreMachine

    owner, attribute, fault = FAULTS[name]
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
        run_state_machine_as_test(StoreMachine, settings=quick)
    except Exception as error:  # whatever the fault leads to
        print(f"found: {type(error).__name__}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
