"""Processes that are killed at any moment: all that was acknowledged is there, nothing by half."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import child_environment

import richstore

plain = richstore.plain

# Writes until it is killed; a line on standard output for each commit that has returned.
WRITER = """
import os, sys, time
import richstore

path, synchronous, name, fault = sys.argv[1:]
store = richstore.open(path, synchronous=synchronous)
n = store["last"].get(name, -1)
while True:
    n += 1
    if fault == "acknowledged too early":
        os.write(1, b"%d\\n" % n)
        time.sleep(0.01)
    kind = n % 4
    with store.transaction():
        store["log"].append((name, n))
        store["last"][name] = n
        store["rows"].append({"name": name, "n": n, "tags": [n]})
        if kind == 0:
            store["table"][name, n] = {"n": n, "text": "x" * (n % 700)}
        elif kind == 1:
            store["table"].pop((name, n - 1), None)
            store["set"] ^= {n, n // 2}
        elif kind == 2 and n % 40 == 2:
            store["big", name] = [[n, at] for at in range(1500)]
        elif kind == 3 and n % 60 == 3:
            store.pop(("big", name), None)
        store["sum"] = store["sum"] + n
    if fault != "acknowledged too early":
        os.write(1, b"%d\\n" % n)
"""


class Load:
    """Some writers on one file, killed together."""

    def __init__(self, path: Path, synchronous: str, fault: str = "none", writers: int = 2) -> None:
        self.path, self.synchronous, self.fault = path, synchronous, fault
        self.names = [f"writer {n}" for n in range(writers)]
        self.acknowledged = dict.fromkeys(self.names, -1)
        with richstore.open(path, synchronous=synchronous) as store:
            store["log"], store["rows"], store["last"] = [], [], {}
            store["table"], store["set"], store["sum"] = {}, set(), 0

    def round(self, dice: random.Random) -> None:
        """Let them write for a moment, kill them, and look at what is there."""
        processes = {
            name: subprocess.Popen(
                [sys.executable, "-c", WRITER, self.path, self.synchronous, name, self.fault],
                stdout=subprocess.PIPE,
                env=child_environment(),
            )
            for name in self.names
        }
        try:
            heard = {name: self._first_line(process) for name, process in processes.items()}
            time.sleep(dice.random() * 0.12)
        finally:
            for process in processes.values():
                process.send_signal(signal.SIGKILL)
        for name, process in processes.items():
            assert process.stdout is not None
            lines = (heard[name] + process.stdout.read()).split()
            process.stdout.close()
            assert process.wait() == -signal.SIGKILL
            if lines:
                self.acknowledged[name] = max(self.acknowledged[name], int(lines[-1]))
        self.check()

    @staticmethod
    def _first_line(process: subprocess.Popen[bytes]) -> bytes:
        assert process.stdout is not None
        return os.read(process.stdout.fileno(), 1 << 16)

    def check(self) -> None:
        """Compare the file with what was acknowledged, and with itself."""
        with richstore.open(self.path, synchronous=self.synchronous, timeout=10) as store:
            report = store.verify()
            assert report.ok, report.problems
            log, last = plain(store["log"]), plain(store["last"])
            for name in self.names:
                found = [n for one, n in log if one == name]
                assert found == list(range(len(found))), name
                assert len(found) - 1 == last.get(name, -1), name
                assert len(found) - 1 >= self.acknowledged[name], name
            assert [(row["name"], row["n"]) for row in plain(store["rows"])] == log
            assert store["sum"] == sum(n for _, n in log)
            for (name, n), value in plain(store["table"]).items():
                assert value["n"] == n <= last[name]
            # and the next one can write
            with store.transaction():
                store["set"].add(-1)
                store["set"].discard(-1)


@pytest.mark.timeout(0)
@pytest.mark.parametrize("synchronous", ["full", "normal", "off"])
def test_killed_at_any_moment(
    tmp_path: Path, synchronous: str, request: pytest.FixtureRequest
) -> None:
    """After kill -9 of all writers every acknowledged commit is there, and none is by half."""
    dice = random.Random(synchronous)
    load = Load(tmp_path / "store", synchronous)
    rounds = 170 if request.config.getoption("--long") else 5
    for _ in range(rounds):
        load.round(dice)
    assert all(n > 0 for n in load.acknowledged.values())


@pytest.mark.timeout(60)
def test_a_commit_that_is_acknowledged_too_early_is_seen(tmp_path: Path) -> None:
    """The check above fails for a store that says so before a change is there."""
    dice = random.Random(1)
    load = Load(tmp_path / "store", "off", "acknowledged too early")
    with pytest.raises(AssertionError, match="writer"):
        for _ in range(20):
            load.round(dice)


def tear(store: Any) -> None:
    """Undo a part of the last transaction."""
    store["log"].pop()


@pytest.mark.timeout(60)
def test_half_a_transaction_is_seen(tmp_path: Path) -> None:
    """The check above fails for a file that has a part of a transaction."""
    load = Load(tmp_path / "store", "off")
    load.round(random.Random(2))
    with richstore.open(tmp_path / "store") as store:
        tear(store)
    with pytest.raises(AssertionError):
        load.check()
