"""Histories of threads, tasks and processes on real stores have an order that explains them.

With `--long` the runs go on for an hour, or as many seconds as `RICHSTORE_HISTORY_SECONDS` says.
"""

from __future__ import annotations

import os
import random
import shutil
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from histories import Transaction, check
from history_faults import FAULTS
from history_runs import run

pytestmark = pytest.mark.timeout(120)

# by what runs: the stores, and for each process what is not as always; some are killed
MIXES: dict[str, tuple[list[str], list[dict[str, Any]]]] = {
    "threads": (["a"], [{"threads": 4}]),
    "threads in memory": (["memory:"], [{"threads": 3, "tasks": 2}]),
    "tasks": (["a"], [{"threads": 0, "tasks": 4}]),
    "spawned processes": (["a"], [{"threads": 1}, {"threads": 1}, {"threads": 1}]),
    "forked processes": (["a"], [{"threads": 1, "forks": 2}]),
    "all of them on one store": (
        ["a"],
        [
            {"threads": 2, "tasks": 1, "forks": 1},
            {"threads": 1, "tasks": 2},
            {"threads": 2, "is_killed": True},
        ],
    ),
    "all of them on two stores": (
        ["a", "b"],
        [
            {"threads": 2, "tasks": 1, "forks": 1},
            {"threads": 1, "tasks": 2},
            {"threads": 2, "is_killed": True},
        ],
    ),
}
MODES = ["full", "normal", "off"]


def run_mix(
    directory: Path, mix: str, seconds: float, seed: int, **more: Any
) -> list[list[Transaction]]:
    """Run a mix of threads, tasks and processes, and return the history of each store."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    paths, processes = MIXES[mix]
    dice = random.Random(seed)
    plans = []
    for number, process in enumerate(processes):
        plan = {**process, **more, "seed": seed * 10 + number}
        if plan.pop("is_killed", False):
            plan["kill_after"] = seconds * dice.uniform(0.1, 0.8)
        plans.append(plan)
    return run(directory, paths, seconds, plans)


def assert_sound(history: list[Transaction]) -> None:
    """Fail with an explanation when no order of its transactions explains a history."""
    found = list(map(str, check(history)))
    assert found == [], f"{len(found)} anomalies:\n" + "\n".join(found[:5])


# the others are in these as well, and in the long form
@pytest.mark.parametrize(
    "mix",
    [
        "threads in memory",
        "forked processes",
        "all of them on one store",
        "all of them on two stores",
    ],
)
def test_histories_have_an_order(tmp_path: Path, mix: str) -> None:
    """What all have read and written fits one order of whole transactions, that of the clock."""
    mode = MODES[[*MIXES].index(mix) % len(MODES)]
    # again, and longer, where others leave them no time
    for seconds in (0.6, 4, 16):
        outcomes, found = Counter[str](), set()
        for history in run_mix(tmp_path / "run", mix, seconds, 1, synchronous=mode):
            assert_sound(history)
            outcomes.update(one.outcome for one in history)
            for op in (op for one in history for op in one.ops if op[0] in ("read", "members")):
                if op[2]:
                    found.add(op[1].split(".")[0])
        if outcomes["committed"] > 40 and outcomes["rolled back"] and {"big", "small0"} <= found:
            return
    pytest.fail(f"too little happened: {outcomes}, {found}")


@pytest.mark.timeout(0)
def test_histories_have_an_order_for_long(
    tmp_path: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same for an hour: mixes, modes and seeds in turn."""
    if not request.config.getoption("--long"):
        pytest.skip("runs with --long")
    seconds = float(os.environ.get("RICHSTORE_HISTORY_SECONDS", 3600))
    dice = random.Random()
    until, tally = time.monotonic() + seconds, Counter[str]()
    while time.monotonic() < until:
        mix, synchronous, seed = dice.choice([*MIXES]), dice.choice(MODES), dice.randrange(1 << 30)
        try:
            for history in run_mix(tmp_path / "run", mix, 3, seed, synchronous=synchronous):
                tally["histories"] += 1
                tally.update(one.outcome for one in history)
                tally["reads of held values"] += sum(one.held for one in history)
                assert_sound(history)
        except (AssertionError, ChildProcessError) as error:
            error.add_note(f"{mix}, {synchronous}, seed {seed}; so far {dict(tally)}")
            raise
    with capsys.disabled():
        print(f"\n{dict(tally)}")


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_faults_are_found(tmp_path: Path, fault: str) -> None:
    """A library with a fault makes histories that no order explains, and they are reported."""
    *_, expected = FAULTS[fault]
    for seed in range(20):
        try:
            (history,) = run_mix(tmp_path / "run", "forked processes", 0.3, seed, fault=fault)
        except ChildProcessError:
            # it may break the library altogether; that is no proof that the checker sees it
            continue
        if expected & {anomaly.name for anomaly in check(history)}:
            return
    pytest.fail("nothing was found")
