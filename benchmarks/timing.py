"""Timing: things to compare run in turns, so that what slows the machine slows all of them.

The rule: nothing is ever compared across rounds. Knows nothing of what is being timed.
"""

from __future__ import annotations

import statistics
import timeit
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from time import perf_counter
from typing import Any

__all__ = ["Result", "Scale", "Timed", "compare", "each", "interleave", "statement"]

# One round of one side: returns seconds per operation.
Timed = Callable[[], float]

# A statement is written out this often in the loop that times it, so that the loop itself, which
# both sides pay alike, does not make their ratio look better than it is.
_UNROLLED = 20


@dataclass(frozen=True)
class Scale:
    """How much is run.

    Attributes:
        rounds: how often all sides of a comparison run.
        sync_rounds: the same where each operation waits for the disk, whose times vary widely.
        reads: operations of a round that take well under a microsecond.
        writes: operations of a round that commit without waiting for the disk.
        syncs: operations of a round that wait for the disk.
        processes: fresh interpreters for each side.
        values: how many values the larger store has.
        sizes: items of lists, dicts and sets.
        rows: lengths of lists of small dicts that are scanned.
        turn: seconds that a visit to a peer lasts at least, or one operation.
        turn_count: operations of a visit at most.
        budget: seconds that the visits to a peer at a size take together, about.
        least: visits that even the slowest gets.
        most: visits at most.
        objects: objects of a transaction.
        payloads: bytes of each of them.
        shots: rounds of that.
        depths: levels of nesting.
        mix: operations of the mix of gets, sets and deletes.
        appends: items that a process appends beside others.
        contests: rounds of one process and of four.
        cold: items that are read cold after an opening.
        counted: operations whose bytes and syncs are counted.
        churn: entries of the dict that is changed over and over.
        churns: how often all of them are changed.
        patience: seconds until a task counts as hopeless.
    """

    rounds: int = 31
    sync_rounds: int = 101
    reads: int = 20_000
    writes: int = 300
    syncs: int = 3
    processes: int = 15
    values: int = 10_000
    sizes: tuple[int, ...] = (10, 10**3, 10**5, 10**6, 10**7)
    rows: tuple[int, ...] = (10**5, 10**6)
    turn: float = 0.01
    turn_count: int = 300
    budget: float = 0.3
    least: int = 3
    most: int = 31
    objects: int = 1000
    payloads: tuple[int, ...] = (128, 256)
    shots: int = 11
    depths: tuple[int, ...] = (1, 3, 10)
    mix: int = 4000
    appends: int = 2000
    contests: int = 7
    cold: int = 50
    counted: int = 5
    churn: int = 10_000
    churns: int = 6
    patience: float = 120.0


@dataclass(frozen=True)
class Result:
    """One figure.

    Attributes:
        group: what it belongs to.
        name: what was done.
        beside: what it is compared to.
        value: the figure: median over the rounds.
        unit: `×` for a ratio of times, `µs` for a time, `ms` for a difference of times.
        limit: what it must not exceed; None where nothing is promised.
        seconds: medians of the two sides, for whoever wants to know; they depend on the machine.
        rounds: the figure of each round.
    """

    group: str
    name: str
    beside: str
    value: float
    unit: str = "×"
    limit: float | None = None
    seconds: tuple[float, float] = (0.0, 0.0)
    rounds: list[float] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        """Whether the figure is within its limit."""
        return self.limit is None or self.value <= self.limit

    def raw(self) -> dict[str, Any]:
        """Return everything, as JSON has it: numbers with as many digits as mean something."""
        figures = {
            "value": _short(self.value),
            "seconds": [_short(value) for value in self.seconds],
            "rounds": [_short(value) for value in self.rounds],
        }
        return {**asdict(self), **figures, "holds": self.holds}


def _short(value: float) -> float:
    return float(f"{value:.4g}")


def interleave(sides: Mapping[str, Timed], rounds: int) -> dict[str, list[float]]:
    """Run all sides in each round, first one leading and then another; return their seconds."""
    for side in sides.values():
        side()
    found: dict[str, list[float]] = {name: [] for name in sides}
    names = list(sides)
    for _ in range(rounds):
        for name in names:
            found[name].append(sides[name]())
        names.append(names.pop(0))
    return found


def compare(
    group: str,
    name: str,
    beside: str,
    ours: Timed,
    base: Timed,
    rounds: int,
    limit: float | None = None,
) -> Result:
    """Return how many times as long `ours` takes as `base`."""
    found = interleave({"ours": ours, "base": base}, rounds)
    ratios = [a / b for a, b in zip(found["ours"], found["base"], strict=True)]
    medians = (statistics.median(found["ours"]), statistics.median(found["base"]))
    return Result(
        group,
        name,
        beside,
        statistics.median(ratios),
        limit=limit,
        seconds=medians,
        rounds=ratios,
    )


def statement(source: str, subject: Any, number: int) -> Timed:
    """Time a statement on a subject, which it calls `p`; for what takes less than a microsecond."""
    timer = timeit.Timer(
        "\n".join([source] * _UNROLLED), "p = subject", globals={"subject": subject}
    )
    loops = max(1, number // _UNROLLED)
    return lambda: timer.timeit(loops) / (loops * _UNROLLED)


def each(
    operation: Callable[[Any], Any],
    number: int,
    *,
    before: Callable[[int], Any] = lambda at: at,
    after: Callable[[], Any] = lambda: None,
) -> Timed:
    """Time every operation on its own and take the median of a round.

    Args:
        operation: what is timed.
        number: how many in a round.
        before: makes the argument of the operation from its number in all rounds, untimed.
        after: puts things back, untimed.
    """
    done = 0

    def run() -> float:
        nonlocal done
        times = []
        for _ in range(number):
            argument = before(done)
            done += 1
            start = perf_counter()
            operation(argument)
            times.append(perf_counter() - start)
            after()
        return statistics.median(times)

    return run
