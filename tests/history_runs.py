"""Runs threads, tasks and processes on stores, and returns the histories of what they did."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from conftest import HERE, check_store, child_environment
from histories import Transaction
from history_places import fill
from history_workers import Plan, look_at_all

import richstore

__all__ = ["run"]


def run(directory: Path, paths: list[str], seconds: float, processes: list[dict[str, Any]]) -> Any:
    """Run some processes on some stores at once.

    Args:
        directory: for the stores, and for what the processes write down.
        paths: the names of the stores, or `memory:`.
        seconds: for how long.
        processes: what makes each `Plan`, but for what is common to all.

    Returns:
        For each store the history; it ends with a look at everything.
    """
    files = [path if path == "memory:" else str(directory / path) for path in paths]
    out = directory / "written down"
    out.mkdir()
    plans = [
        Plan(files, str(out), number, seconds=seconds, **more)
        for number, more in enumerate(processes, 1)
    ]
    for path in files:
        if path != "memory:":
            with richstore.open(path, synchronous=plans[0].synchronous) as store:
                fill(store, plans[0].generations)
    started = [
        subprocess.Popen(
            [
                sys.executable,
                "-W",
                "ignore",
                f"{HERE}/history_workers.py",
                json.dumps(asdict(plan)),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=child_environment(),
        )
        for plan in plans
    ]
    try:
        for process in started:
            assert process.stdout is not None
            if process.stdout.readline() != "ready\n":
                raise ChildProcessError("a process did not begin")
        begin = time.monotonic_ns()
        for process in started:
            assert process.stdin is not None
            process.stdin.write(f"{begin}\n")
            process.stdin.flush()
        for process in started:
            process.wait(seconds + 60)
    finally:
        for process in started:
            process.kill()
            process.communicate()
    histories = read_histories(out, len(files))
    for plan, process in zip(plans, started, strict=True):
        if process.returncode != (-signal.SIGKILL if plan.kill_after else 0):
            raise ChildProcessError(f"process {plan.number} ended with {process.returncode}")
    for history, path in zip(histories, files, strict=True):
        if path != "memory:":
            with richstore.open(path) as store:
                if plans[0].fault == "none":
                    check_store(store)
                history.append(look_at_all(store, plans[0].generations))
    return histories


def read_histories(out: Path, stores: int) -> list[list[Transaction]]:
    """Return what the processes have written down, for each store."""
    histories: list[list[Transaction]] = [[] for _ in range(stores)]
    for path in out.iterdir():
        *lines, _torn = path.read_bytes().split(b"\n")
        who, *rest = map(json.loads, lines)
        under_way: dict[int, Any] = {}
        for line in rest:
            if "error" in line:
                raise ChildProcessError(line["error"])
            if "plan" in line:
                under_way[line["store"]] = line
                continue
            under_way.pop(line["store"], None)
            histories[line["store"]].append(
                Transaction(
                    **who,
                    begin=line["begin"],
                    end=line["end"],
                    ops=[tuple(op) for op in line["ops"]],
                    outcome=line["outcome"],
                    held=line.get("held", False),
                )
            )
        for line in under_way.values():
            ops = [tuple(op) for op in line["plan"]]
            histories[line["store"]].append(
                Transaction(
                    **who, begin=line["begin"], end=line["begin"], ops=ops, outcome="unknown"
                )
            )
    return histories
