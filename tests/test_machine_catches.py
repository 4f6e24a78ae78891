"""The state machine must be able to fail: faults planted in the core are found by it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import child_environment
from planted_faults import FAULTS, GROUP_FAULTS

HERE = Path(__file__).parent
# of the faults of groups, those that are tried each time
FEW = ("cleared here, and still loaded", "not marked to be reclaimed", "not counted")


@pytest.mark.parametrize("name", [*FAULTS, *GROUP_FAULTS])
def test_planted_faults_are_found(name: str, request: pytest.FixtureRequest) -> None:
    """The state machines fail on a core with a fault, and only on one."""
    if name in GROUP_FAULTS and name not in FEW and not request.config.getoption("--long"):
        pytest.skip("runs with --long")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(HERE / "planted_faults.py"), name],
        cwd=HERE,
        capture_output=True,
        text=True,
        env=child_environment(),
    )
    expected = 0 if name == "none" else 1
    assert (done.returncode, done.stdout.startswith("found")) == (expected, name != "none"), (
        done.stderr
    )
