"""Commits of several threads at once: `python -m benchmarks.group_commit [DIRECTORY] [ROUNDS]`.

Each round measures bare LMDB, then 1, 2, 4 and 8 threads that append to a list each, one change a
commit, `synchronous="full"`. Printed are the medians of the rounds, and the ratios to one thread of
the same round. The directory decides what a sync costs; the default is where temporary files are.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

import lmdb

import richstore

SECONDS = 0.7
THREADS = (1, 2, 4, 8)


def changes_per_second(path: Path, count: int) -> float:
    """Return how many changes so many threads make a second, each on a list of its own."""
    with richstore.open(path, "n") as store:
        for at in range(count):
            store[f"list {at}"] = []
        lists = [store[f"list {at}"] for at in range(count)]
        made = [0] * count
        end = time.perf_counter() + SECONDS

        def work(at: int) -> None:
            values = lists[at]
            while time.perf_counter() < end:
                values.append(made[at])
                made[at] += 1
                if made[at] % 500 == 0:
                    values.clear()

        threads = [threading.Thread(target=work, args=(at,)) for at in range(count)]
        begun = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sum(made) / (time.perf_counter() - begun)


def puts_per_second(path: Path) -> float:
    """Return how many commits of one put bare LMDB makes a second."""
    env = lmdb.open(str(path), subdir=False, map_size=1 << 30)
    try:
        made = 0
        begun = time.perf_counter()
        while time.perf_counter() - begun < SECONDS:
            with env.begin(write=True) as transaction:
                transaction.put(b"key", b"x" * 500)
            made += 1
        return made / (time.perf_counter() - begun)
    finally:
        env.close()


def main(directory: str | None = None, rounds: int = 5) -> None:
    """Measure and print a table."""
    rates: dict[int, list[float]] = {count: [] for count in THREADS}
    bare: list[float] = []
    with tempfile.TemporaryDirectory(dir=directory) as folder:
        for _ in range(rounds):
            bare.append(puts_per_second(Path(folder, "bare")))
            for count in THREADS:
                rates[count].append(changes_per_second(Path(folder, "store"), count))
    median = statistics.median
    print(f"bare LMDB, one put a commit: {median(bare):,.0f} a second")
    print("| threads | changes a second | to one thread |\n| ---: | ---: | ---: |")
    for count, found in rates.items():
        ratios = [rate / one for rate, one in zip(found, rates[1], strict=True)]
        spread = f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        print(f"| {count} | {median(found):,.0f} | {spread} |")


if __name__ == "__main__":
    arguments = sys.argv[1:]
    main(arguments[0] if arguments else None, int(arguments[1]) if len(arguments) > 1 else 5)
