"""A workload whose state after each change is known, and the hunt for a crash state that is wrong.

    python crash_hunt.py write DIRECTORY SYNCHRONOUS STEPS
    python crash_hunt.py hunt DIRECTORY JOB

`write` does the workload on a store and puts into the record what has returned. `hunt` rebuilds
states from a record and looks at each as a user would: in a process of its own, since a file that
was damaged below the records may bring it down. It prints what it has seen and exits with 1 at the
first state that is wrong.
"""

from __future__ import annotations

import contextlib
import copy
import json
import pickle
import random
import sys
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from crash_states import Disk, crash_points
from recording import Event, acknowledge

import richstore


def change(store: Any, n: int) -> None:
    """Do change number `n`, one commit, to a store or to a plain dict."""
    dice = random.Random(n)
    transaction = getattr(store, "transaction", contextlib.nullcontext)
    kind = n % 9
    if n == 1:
        with transaction():
            store["log"], store["rows"], store["sum"] = [], [], 0
            store["table"], store["config"] = {}, {"theme": {"n": 0}}
    elif kind == 0:
        store["log"].append((n, "x" * dice.randrange(300)))
    elif kind == 1:
        store["config"]["theme"]["n"] = n
    elif kind == 2:
        store["text", n % 4] = dice.randbytes(dice.randrange(20_000)).hex()
    elif kind == 3:
        store["big"] = [[n, at] for at in range(dice.randrange(300, 900))]
    elif kind == 4:
        store["log"].extend((n, at) for at in range(40))
    elif kind == 5:
        with transaction():
            store["big"][dice.randrange(300)].append(n)
            del store["big"][:100]
            store["config"]["theme"]["n"] = -n
    elif kind == 6:
        with transaction():
            del store["big"]
            store["table"].pop(n - 9, None)
    else:
        with transaction():
            store["log"].append((n, "y" * dice.randrange(300)))
            store["rows"].append({"n": n, "tags": [n] * dice.randrange(9)})
            store["table"][n] = {"n": n, "text": "z" * dice.randrange(3000)}
            store["sum"] = store["sum"] + n
            with contextlib.suppress(KeyError), transaction():
                store["table"].get(n, {}).get("tags", [])
                raise KeyError(n)


def expected(steps: int) -> list[dict[Any, Any]]:
    """Return the states after 0, 1, 2, … changes."""
    plain: dict[Any, Any] = {}
    states = [{}]
    for n in range(1, steps + 1):
        change(plain, n)
        states.append(copy.deepcopy(plain))
    return states


def contents(store: Any) -> dict[Any, Any]:
    """Return all that is in a store, as plain values."""
    return {key: richstore.plain(store[key]) for key in store}


def write(directory: str, synchronous: str, steps: int) -> None:
    """Do the workload, and say after each change that it has returned."""
    path = Path(directory) / "store"
    store = richstore.open(path, synchronous=synchronous)
    acknowledge(0)
    for n in range(1, steps + 1):
        if n % 20 == 0:
            store.close()
            store = richstore.open(path, synchronous=synchronous)
        change(store, n)
        acknowledge(n)
    assert contents(store) == expected(steps)[-1]
    store.close()


def check(path: Path, states: list[dict[Any, Any]], least: int, most: int) -> int:
    """Return which state a file has: it is well, one of those allowed, and can go on from there."""
    with richstore.open(path, synchronous="off") as store:
        _verify(store)
        found = contents(store)
        number = next((n for n in range(most, least - 1, -1) if states[n] == found), None)
        assert number is not None, f"not a state after {least} to {most} changes"
        if number + 1 < len(states):
            change(store, number + 1)
            assert contents(store) == states[number + 1], "the next change was wrong"
            _verify(store)
    return number


def _verify(store: Any) -> None:
    report = store.verify()
    assert report.ok, report.problems
    assert report.unreachable == 0


@dataclass
class Job:
    """What is hunted: how many states of a record, and what may be wrong with them.

    `kind` is `power` or `kill`; `losses` how many acknowledged changes may be missing at the end.
    """

    states: int
    steps: int
    kind: str = "power"
    losses: int = 0
    seed: int = 0


def hunt(directory: Path, job: Job) -> dict[int, int]:
    """Rebuild and check states; raise at the first that is wrong.

    Returns:
        How many states lacked no, one, … acknowledged changes.
    """
    events: list[Event] = pickle.loads((directory / "events").read_bytes())
    states = expected(job.steps)
    dice = random.Random(job.seed)
    disk, done, acknowledged = Disk(), 0, -1
    path, lock = directory / "state", directory / "state-lock"
    lost: Counter[int] = Counter()
    for at in crash_points(len(events), job.states, dice):
        for event in events[done:at]:
            disk.do(event)
            acknowledged = event.place if event.kind == "A" else acknowledged
        done = at
        after = disk.after_kill if job.kind == "kill" else disk.after_power_loss
        _lay(path, after(events[at], dice))
        _lay(lock, dice.choice([None, bytes(65_664), dice.randbytes(dice.randrange(1, 70_000))]))
        print(f"event {at} of {len(events)}, {acknowledged} acknowledged", file=sys.stderr)
        most = min(acknowledged + 1, job.steps)
        found = check(path, states, max(0, acknowledged - job.losses), most)
        lost[max(0, acknowledged - found)] += 1
    return dict(lost)


def _lay(path: Path, content: bytes | None) -> None:
    """Make a file with this content, or none."""
    path.unlink(missing_ok=True)
    if content is not None:
        path.write_bytes(content)


def main(what: str, directory: str, *arguments: str) -> None:
    """Write, or hunt."""
    if what == "write":
        write(directory, arguments[0], int(arguments[1]))
    else:
        print(json.dumps(hunt(Path(directory), Job(**json.loads(arguments[0])))))


def as_argument(job: Job) -> str:
    """Return a job in the form in which `main` takes it."""
    return json.dumps(asdict(job))


if __name__ == "__main__":
    main(*sys.argv[1:])
