"""The checker of histories finds each anomaly, and nothing in histories that have an order."""

from __future__ import annotations

import copy
import random
from typing import Any

import pytest
from histories import Transaction, check
from hypothesis import given
from hypothesis import strategies as st


def names(history: list[Transaction]) -> set[str]:
    """Return the names of what is found."""
    return {anomaly.name for anomaly in check(history)}


def at(begin: int, *ops: tuple[Any, ...], end: int | None = None, **more: Any) -> Transaction:
    """Return a transaction that begins at a time and takes 5 of its units if not told otherwise."""
    process = more.pop("process", 1)
    return Transaction(process, "main", begin, begin + 5 if end is None else end, [*ops], **more)


def together(*each: list[tuple[Any, ...]]) -> list[Transaction]:
    """Return transactions that all ran at the same time, so that only what they did orders them."""
    return [at(0, *ops, end=100) for ops in each]


FAULTY: dict[str, tuple[str, list[Transaction]]] = {
    "two lists with their appends in different orders": (
        "G0",
        together(
            [("append", "x", 1), ("append", "y", 1)],
            [("append", "x", 2), ("append", "y", 2)],
            [("read", "x", [1, 2])],
            [("read", "y", [2, 1])],
        ),
    ),
    "a read of what was rolled back": (
        "G1a",
        [at(0, ("append", "x", 1), outcome="rolled back"), at(10, ("read", "x", [1]))],
    ),
    "a read of a register that was rolled back": (
        "G1a",
        [at(0, ("write", "r", 1), outcome="rolled back"), at(10, ("read", "r", 1))],
    ),
    "a read of what was rolled back to a savepoint": (
        "G1a",
        [
            at(0, ("append", "x", 1), ("savepoint",), ("append", "x", 2), ("undo",)),
            at(10, ("read", "x", [1, 2])),
        ],
    ),
    "a read in the middle of two appends": (
        "G1b",
        together([("append", "x", 1), ("append", "x", 2)], [("read", "x", [1])]),
    ),
    "a read of a register that was written again": (
        "G1b",
        together([("write", "r", 1), ("write", "r", 2)], [("read", "r", 1)]),
    ),
    "a read of a set in the middle of two additions": (
        "G1b",
        together([("add", "s", 1), ("add", "s", 2)], [("members", "s", [2])]),
    ),
    "two that read what the other wrote": (
        "G1c",
        together(
            [("append", "x", 1), ("read", "y", [2])], [("append", "y", 2), ("read", "x", [1])]
        ),
    ),
    "a reader that sees one half of a transaction": (
        "G-single",
        together([("append", "x", 1), ("append", "y", 2)], [("read", "x", [1]), ("read", "y", [])]),
    ),
    "a reader that sees one half of a transaction on a set and a register": (
        "G-single",
        together(
            [("add", "s", 1), ("write", "r", 2)],
            [("members", "s", [1]), ("read", "r", None)],
            [("read", "r", 2), ("write", "r", 3)],
        ),
    ),
    "write skew": (
        "G2",
        together(
            [("read", "x", []), ("append", "y", 1)],
            [("read", "y", []), ("append", "x", 2)],
            [("read", "x", [2]), ("read", "y", [1])],
        ),
    ),
    "an update that another one has overwritten": (
        "lost update",
        together(
            [("read", "r", None), ("write", "r", 1)], [("read", "r", None), ("write", "r", 2)]
        ),
    ),
    "an append that is gone": (
        "lost change",
        [at(0, ("append", "x", 1)), at(10, ("append", "x", 2)), at(20, ("read", "x", [2]))],
    ),
    "a member that is gone": (
        "lost change",
        [at(0, ("add", "s", 1)), at(10, ("add", "s", 2)), at(20, ("members", "s", [2]))],
    ),
    "lists that cannot follow each other": (
        "incompatible order",
        together([("append", "x", 1)], [("append", "x", 2)], [("read", "x", [1])])
        + [at(0, ("read", "x", [2, 1]))],
    ),
    "two appends of a transaction in the wrong order": (
        "incompatible order",
        [at(0, ("append", "x", 1), ("append", "x", 2)), at(10, ("read", "x", [2, 1]))],
    ),
    "sets that cannot follow each other": (
        "incompatible order",
        together([("add", "s", 1)], [("add", "s", 2)], [("members", "s", [1])])
        + [at(0, ("members", "s", [2]))],
    ),
    "a value that nobody wrote": ("garbage", [at(0, ("read", "x", [7]))]),
    "a register that nobody wrote": ("garbage", [at(0, ("read", "r", 7))]),
    "a value that is there twice": (
        "duplicate",
        [at(0, ("append", "x", 1)), at(10, ("read", "x", [1, 1]))],
    ),
    "a transaction that does not see its own append": (
        "internal",
        [at(0, ("append", "x", 1), ("read", "x", []))],
    ),
    "a transaction that does not see its own write": (
        "internal",
        [at(0, ("write", "r", 1), ("read", "r", None))],
    ),
    "a transaction that still sees what it rolled back to a savepoint": (
        "G1a",
        [at(0, ("savepoint",), ("append", "x", 1), ("undo",), ("read", "x", [1]))],
    ),
    "a transaction that sees another commit on its way": (
        "internal",
        together([("append", "x", 1)], [("read", "x", []), ("read", "x", [1])]),
    ),
    "a read behind a commit that had returned": (
        "G-single-realtime",
        [at(0, ("append", "x", 1)), at(10, ("read", "x", []))],
    ),
    "a register behind a commit that had returned": (
        "G-single-realtime",
        [at(0, ("write", "r", 1)), at(10, ("write", "r", 2)), at(20, ("read", "r", 1))],
    ),
    "a read that goes back behind another process": (
        "G-single-realtime",
        [
            at(0, ("append", "x", 1), end=100, process=1),
            at(10, ("read", "x", [1]), process=2),
            at(20, ("read", "x", []), process=1),
        ],
    ),
    "a read of what begins later": (
        "G1c-realtime",
        [at(0, ("read", "x", [1])), at(10, ("append", "x", 1))],
    ),
    "a held value behind a commit of its own process": (
        "G-single-realtime",
        [at(0, ("append", "x", 1)), at(10, ("read", "x", []), held=True)],
    ),
    "a held value that goes back": (
        "G-single-realtime",
        [
            at(0, ("append", "x", 1), process=2),
            at(10, ("read", "x", [1]), held=True),
            at(20, ("read", "x", []), held=True),
        ],
    ),
    "half of a transaction whose process was killed": (
        "G-single",
        [
            at(0, ("append", "x", 1), ("append", "y", 1), outcome="unknown"),
            at(10, ("read", "x", [1]), ("read", "y", [])),
        ],
    ),
    "a killed transaction that is there and then not": (
        "G-single-realtime",
        [
            at(0, ("append", "x", 1), outcome="unknown"),
            at(10, ("read", "x", [1])),
            at(20, ("read", "x", [])),
        ],
    ),
    "a rolled back transaction that had seen one half of another": (
        "G-single",
        together([("append", "x", 1), ("append", "y", 1)])
        + [at(0, ("read", "x", [1]), ("read", "y", []), end=100, outcome="rolled back")],
    ),
}

SOUND: dict[str, list[Transaction]] = {
    "nothing": [],
    "one after another": [
        at(0, ("append", "x", 1), ("write", "r", 1)),
        at(10, ("read", "x", [1]), ("append", "x", 2), ("read", "x", [1, 2])),
        at(20, ("read", "r", 1), ("write", "r", 2), ("read", "r", 2), ("add", "s", 1)),
        at(30, ("read", "x", [1, 2]), ("read", "r", 2), ("members", "s", [1])),
    ],
    "a reader that is as old as its begin allows": [
        at(0, ("append", "x", 1), end=50),
        at(10, ("read", "x", []), end=60),
        at(20, ("read", "x", [1]), end=70),
    ],
    "a killed transaction that has not happened": [
        at(0, ("append", "x", 1), ("write", "r", 1), outcome="unknown"),
        at(10, ("append", "x", 2)),
        at(20, ("read", "x", [2]), ("read", "r", None)),
    ],
    "a killed transaction that has happened": [
        at(0, ("append", "x", 1), ("write", "r", 1), outcome="unknown"),
        at(10, ("append", "x", 2)),
        at(20, ("read", "x", [2, 1]), ("read", "r", 1)),
    ],
    "a held value behind another process": [
        at(0, ("append", "x", 1), process=2),
        at(10, ("read", "x", []), held=True),
        at(20, ("read", "x", [1])),
        at(30, ("read", "x", [1]), held=True),
    ],
    "a rolled back transaction that sees its own changes": [
        at(0, ("append", "x", 1), ("read", "x", [1]), outcome="rolled back"),
        at(10, ("read", "x", [])),
    ],
    "a savepoint kept, and one rolled back": [
        at(
            0,
            ("savepoint",),
            ("append", "x", 1),
            ("savepoint",),
            ("append", "x", 2),
            ("read", "x", [1, 2]),
            ("undo",),
            ("read", "x", [1]),
            ("keep",),
        ),
        at(10, ("read", "x", [1])),
    ],
}


@pytest.mark.parametrize("case", FAULTY)
def test_an_anomaly_is_found(case: str) -> None:
    """A history with an anomaly is reported under the anomaly's name, with who took part."""
    name, history = FAULTY[case]
    found = check(history)
    assert name in {anomaly.name for anomaly in found}, list(map(str, found))
    assert all(anomaly.explanation.count("T") > 0 for anomaly in found)


@pytest.mark.parametrize("case", SOUND)
def test_a_sound_history_passes(case: str) -> None:
    """A history that an order of whole transactions explains is not reported."""
    assert list(map(str, check(SOUND[case]))) == []


def test_a_cycle_is_explained() -> None:
    """The explanation of a cycle names each transaction, and what it has to do with the next."""
    _, history = FAULTY["a reader that sees one half of a transaction"]
    (anomaly,) = check(history)
    assert "a cycle of 2 transactions" in anomaly.explanation
    assert "T1 read its 1 in x (wr)" in anomaly.explanation
    assert "it had not seen the 2 that T0 wrote in y (rw)" in anomaly.explanation


def test_what_tells_nothing_is_refused() -> None:
    """A value written twice, or a key of two forms, is an error of the history's maker."""
    with pytest.raises(ValueError, match="twice"):
        check([at(0, ("append", "x", 1)), at(10, ("append", "x", 1))])
    with pytest.raises(ValueError, match="is a list and cannot be a register"):
        check([at(0, ("append", "x", 1), ("write", "x", 2))])
    with pytest.raises(ValueError, match="no operation"):
        check([at(0, ("pop", "x", 1))])


class Serial:
    """Runs random transactions one after another on plain values, and keeps their history.

    Args:
        dice: what chooses.
        overlap: how much longer than it took each transaction is said to have taken, both ways.
        unknown: how often the outcome of one is not known; such a one may have come at any time.
    """

    LISTS, SETS, REGISTERS = ("x", "y"), ("s", "t"), ("r", "q")

    def __init__(self, dice: random.Random, overlap: int = 0, unknown: float = 0) -> None:
        self.dice, self.overlap, self.unknown = dice, overlap, unknown
        self.values: dict[str, Any] = {key: [] for key in self.LISTS}
        self.values |= {key: set() for key in self.SETS} | dict.fromkeys(self.REGISTERS)
        self.next_value = 0
        self.history: list[Transaction] = []

    def run(self, count: int) -> list[Transaction]:
        for number in range(count):
            self.transaction(100 * number)
        # as the runs on real stores end: somebody looks at all
        self.transaction(100 * count + 1000 * self.overlap, final=True)
        return self.history

    def transaction(self, moment: int, final: bool = False) -> None:
        dice, before = self.dice, copy.deepcopy(self.values)
        outcome = dice.choices(["committed", "rolled back", "unknown"], [6, 1, self.unknown])[0]
        ops: list[tuple[Any, ...]] = []
        if final:
            outcome = "committed"
            ops = [self._read(key) for key in self.values]
        else:
            self._ops(ops, dice.randint(1, 5))
        happened = outcome == "committed" or (outcome == "unknown" and dice.random() < 0.5)
        if not happened:
            self.values = before
        if outcome == "unknown":
            # nobody was left to tell what it read
            ops = [op for op in ops if op[0] not in ("read", "members")]
        early, late = (dice.randint(0, 300) * self.overlap for _ in range(2))
        self.history.append(
            Transaction(dice.randrange(2), "main", moment - early, moment + 10 + late, ops, outcome)
        )

    def _ops(self, ops: list[tuple[Any, ...]], count: int) -> None:
        for _ in range(count):
            choice = self.dice.random()
            if choice < 0.1:
                kept = copy.deepcopy(self.values)
                ops.append(("savepoint",))
                self._ops(ops, 2)
                if self.dice.random() < 0.5:
                    self.values = kept
                    ops.append(("undo",))
                else:
                    ops.append(("keep",))
            elif choice < 0.5:
                ops.append(self._read(self.dice.choice([*self.values])))
            else:
                ops.append(self._change(self.dice.choice([*self.values])))

    def _read(self, key: str) -> tuple[Any, ...]:
        value = self.values[key]
        if isinstance(value, set):
            return ("members", key, sorted(value))
        return ("read", key, list(value) if isinstance(value, list) else value)

    def _change(self, key: str) -> tuple[Any, ...]:
        self.next_value += 1
        value = self.values[key]
        if isinstance(value, set):
            value.add(self.next_value)
            return ("add", key, self.next_value)
        if isinstance(value, list):
            value.append(self.next_value)
            return ("append", key, self.next_value)
        self.values[key] = self.next_value
        return ("write", key, self.next_value)


seeds = st.integers(0, 1 << 40)


@given(seeds, st.integers(0, 40), st.booleans())
def test_every_serial_history_passes(seed: int, count: int, overlap: bool) -> None:
    """What ran one after another is sound, also when the clock allows other orders."""
    history = Serial(random.Random(seed), overlap, unknown=1).run(count)
    random.Random(seed).shuffle(history)
    assert list(map(str, check(history))) == []


def changeable(history: list[Transaction], least: int) -> list[tuple[Transaction, int]]:
    """Return the reads of lists and sets with at least so many items."""
    return [
        (one, number)
        for one in history
        for number, op in enumerate(one.ops)
        if op[0] in ("read", "members") and isinstance(op[2], list) and len(op[2]) >= least
    ]


def drop(dice: random.Random, history: list[Transaction]) -> bool:
    """Let a read miss an item."""
    reads = changeable(history, 1)
    if not reads:
        return False
    one, number = dice.choice(reads)
    seen = one.ops[number][2]
    del seen[dice.randrange(len(seen))]
    return True


def swap(dice: random.Random, history: list[Transaction]) -> bool:
    """Let a read find two items of a list in the wrong order."""
    reads = [(one, n) for one, n in changeable(history, 2) if one.ops[n][0] == "read"]
    if not reads:
        return False
    one, number = dice.choice(reads)
    seen = one.ops[number][2]
    first, second = dice.sample(range(len(seen)), 2)
    seen[first], seen[second] = seen[second], seen[first]
    return True


def invent(dice: random.Random, history: list[Transaction]) -> bool:
    """Let a read find an item that nobody wrote, or one twice."""
    reads = changeable(history, 1)
    if not reads:
        return False
    one, number = dice.choice(reads)
    seen = one.ops[number][2]
    seen.insert(dice.randrange(len(seen)), dice.choice([-1, seen[0]]))
    return True


def go_back(dice: random.Random, history: list[Transaction]) -> bool:
    """Let a read find an older value of a register than it did."""
    reads = [
        (one, number)
        for one in history
        for number, op in enumerate(one.ops)
        if op[0] == "read" and not isinstance(op[2], list) and op[2] is not None
    ]
    if not reads:
        return False
    one, number = dice.choice(reads)
    verb, key, seen = one.ops[number]
    written = [op[2] for other in history for op in other.ops if op[:2] == ("write", key)]
    one.ops[number] = (verb, key, dice.choice([None, *(v for v in written if v < seen)]))
    return True


def roll_back(dice: random.Random, history: list[Transaction]) -> bool:
    """Let a transaction say that it was rolled back although others have seen its changes."""
    final = {
        value for op in history[-1].ops for value in (op[2] if isinstance(op[2], list) else ())
    }
    seen = [
        one
        for one in history
        if any(op[0] in ("append", "add") and op[2] in final for op in one.ops)
    ]
    if not seen:
        return False
    dice.choice(seen).outcome = "rolled back"
    return True


def claim(dice: random.Random, history: list[Transaction]) -> bool:
    """Let a transaction say that it was committed although it was rolled back."""
    others = [
        one
        for one in history
        if one.outcome == "rolled back"
        and any(op[0] in ("append", "add") for op in one.ops)
        and not any(op == ("undo",) for op in one.ops)
    ]
    if not others:
        return False
    dice.choice(others).outcome = "committed"
    return True


@pytest.mark.parametrize("mutate", [drop, swap, invent, go_back, roll_back, claim])
@given(seed=seeds)
def test_a_falsified_history_fails(mutate: Any, seed: int) -> None:
    """A serial history is reported when a single thing in it is changed."""
    dice = random.Random(seed)
    history = Serial(dice).run(25)
    if mutate(dice, history):
        assert names(history)
