"""What a key costs: `python -m benchmarks.encryption [DIRECTORY] [ROUNDS]`.

Each round does the same on three stores in turn: without a key, with one, and with one that leaves
the names of keys in the clear. Printed are the medians of the times without a key, and of the
ratios to these in the same round. Times are of the clock, so with `full` they have the wait for the
disk.
"""

from __future__ import annotations

import secrets
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import richstore

KEY = secrets.token_bytes(32)
STORES: dict[str, dict[str, Any]] = {
    "without": {},
    "with a key": {"key": KEY},
    "with names in the clear": {"key": KEY, "encrypt_keys": False},
}
COUNT = 1000
LARGE = 20_000


def per_call(work: Callable[[int], Any], count: int = COUNT) -> float:
    """Return the seconds of one call, of many in a row."""
    begun = time.perf_counter()
    for at in range(count):
        work(at)
    return (time.perf_counter() - begun) / count


def commits(store: Any) -> dict[str, float]:
    """Return the seconds of small commits on an empty store."""
    store["list"] = [{"n": n} for n in range(10)]
    store["large"] = [{"n": n, "text": "text"} for n in range(LARGE)]
    values, large = store["list"], store["large"]

    def append_and_pop(_: int) -> None:
        values.append({"n": 1})
        values.pop()

    append_and_pop(0)
    return {
        "append to a list of 10, and pop": per_call(append_and_pop),
        f"append to a list of {LARGE:,}": per_call(lambda n: large.append({"n": n})),
        "a new small value": per_call(lambda n: store.__setitem__(f"key {n}", {"n": n})),
        "a small value changed": per_call(lambda n: store[f"key {n}"].__setitem__("n", -n)),
    }


def reads(store: Any) -> dict[str, float]:
    """Return the seconds of reads on a store that was opened just now."""
    large = store["large"]

    def walk(_: int) -> None:
        for _item in large:
            pass

    def items(_: int) -> None:
        with store.snapshot() as view:
            for _item in view.items():
                pass

    found = {
        "a small value, cold": per_call(lambda n: store[f"key {n}"]["n"]),
        "a small value, warm": per_call(lambda n: store[f"key {n}"]["n"]),
    }
    held = store["key 1"]
    found["an item of a held value"] = per_call(lambda n: held["n"], 20 * COUNT)
    found[f"a loop over {LARGE:,} items, cold, per item"] = per_call(walk, 1) / LARGE
    found["items() of a snapshot, per item"] = per_call(items, 1) / COUNT
    return found


def main(directory: str | None = None, rounds: int = 7) -> None:
    """Measure and print a table."""
    found: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory(dir=directory) as folder:
        for number in range(rounds):
            for synchronous in ("off", "full"):
                for name, options in STORES.items():
                    path = Path(folder, f"{number} {synchronous} {name}")
                    key = {"key": options["key"]} if options else {}
                    with richstore.open(path, synchronous=synchronous, **options) as store:
                        measured = {
                            f"{what}, `{synchronous}`": s for what, s in commits(store).items()
                        }
                    if synchronous == "off":
                        with richstore.open(path, **key) as store:
                            measured.update(reads(store))
                    for what, seconds in measured.items():
                        found.setdefault(what, {}).setdefault(name, []).append(seconds)
    median = statistics.median
    print(f"| | {' | '.join(STORES)} |\n| --- | {' | '.join(['---:'] * len(STORES))} |")
    for what, times in found.items():
        ratios = []
        for name in list(STORES)[1:]:
            pairs = zip(times[name], times["without"], strict=True)
            ratios.append(f"{median(one / other for one, other in pairs):.2f} ×")
        print(f"| {what} | {1e6 * median(times['without']):.3g} µs | {' | '.join(ratios)} |")


if __name__ == "__main__":
    arguments = sys.argv[1:]
    main(arguments[0] if arguments else None, int(arguments[1]) if len(arguments) > 1 else 7)
