"""A checker of histories: finds what no order of whole transactions, one after another, explains.

It works in the manner of Elle (Kingsbury and Alvaro): values are unique, so a read tells which
transactions it has seen, and reads of whole lists tell in which order they were committed. That
gives edges between transactions, and a cycle of them is an anomaly (Adya's names):

- *ww*: one wrote the version after that of the other,
- *wr*: one read what the other wrote,
- *rw*: one read the version before that which the other wrote,
- *time*: one had ended before the other began. With these edges the order has to be that of the
  clock as well, which is strict serializability. `time.monotonic_ns()` is one clock for all
  processes of a machine.

A transaction that was rolled back takes part as one that has only read. A read of a value that is
held, without a call of the store, may be behind the commits of other processes, but not behind its
own; a snapshot is a transaction that lasts as long as the call that opened it.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

__all__ = ["Anomaly", "Transaction", "check"]

FOREVER = 1 << 63
TIME = "time"
# Cycles of these kinds of edges, the gravest first; of G-single exactly one edge is "rw".
CLASSES = [
    ("G0", {"ww"}),
    ("G1c", {"ww", "wr"}),
    ("G-single", {"ww", "wr"}),
    ("G2", {"ww", "wr", "rw"}),
]
# How many edges or nodes are tried in search of a short cycle before the first one will do.
TRIES = 200
# How many items of a list are shown.
LAST = 4


@dataclass
class Transaction:
    """What one transaction did, as those saw it who ran it.

    Attributes:
        process: the process it ran in.
        thread: its thread or task there.
        begin, end: when it was begun, and when it was known to have ended; in nanoseconds.
        ops: in their order; of lists `("append", key, value)` and `("read", key, list)`, of sets
            `("add", key, value)` and `("members", key, list)`, of registers, which begin as None,
            `("write", key, value)` and `("read", key, value)`; and `("savepoint",)`, later ended
            by `("keep",)` or `("undo",)`.
        outcome: `"committed"`, `"rolled back"`, or `"unknown"` if nobody was left to tell.
        held: whether it read a held value, which does not ask for the commits of other processes.
    """

    process: Any
    thread: Any
    begin: int
    end: int
    ops: list[tuple[Any, ...]]
    outcome: str = "committed"
    held: bool = False


@dataclass
class Anomaly:
    """Something that must not be: its name, and what shows it."""

    name: str
    explanation: str

    def __str__(self) -> str:
        return f"{self.name}: {self.explanation}"


@dataclass
class Footprint:
    """What others can know of a transaction: what it read of them, and what it left behind."""

    # by key: the version that was there when the transaction first looked
    bases: dict[str, Any] = field(default_factory=dict)
    # by key: the values that count, in order
    written: dict[str, list[Any]] = field(default_factory=dict)
    # keys and values that were rolled back, with the transaction or to a savepoint
    undone: list[tuple[str, Any]] = field(default_factory=list)


def check(history: list[Transaction]) -> list[Anomaly]:
    """Return what is wrong with a history; nothing, if there is an order that explains it."""
    return Checker(history).run()


class Checker:
    """One history, and what is found out about it on the way."""

    def __init__(self, history: list[Transaction]) -> None:
        self.history = history
        self.anomalies: list[Anomaly] = []
        # by key: "list", "set" or "register"
        self.forms: dict[str, str] = {}
        self.prints = [self._footprint(number) for number in range(len(history))]
        # who wrote a value under a key, and whether it is "final", "intermediate" or "undone"
        self.writers: dict[tuple[str, Any], tuple[int, str]] = {}
        # by key: the transactions that read it, and those that wrote it and count
        self.readers: dict[str, list[int]] = defaultdict(list)
        self.changers: dict[str, list[int]] = defaultdict(list)
        # those that take part: what they read or wrote says something
        self.parts: set[int] = set()
        # by node: successors, and for each the kinds of edges with what they stand for
        self.graph: dict[int, dict[int, dict[str, tuple[str, Any]]]] = defaultdict(dict)

    def run(self) -> list[Anomaly]:
        """Find everything."""
        self._index()
        for key, readers in self.readers.items():
            for number in readers:
                self._check_base(number, key)
        for key in {**self.readers, **self.changers}:
            {"list": self._lists, "set": self._sets, "register": self._registers}[self.forms[key]](
                key
            )
        self._lost_updates()
        self._time()
        self._cycles()
        return self.anomalies

    def _found(self, name: str, explanation: str) -> None:
        self.anomalies.append(Anomaly(name, explanation))

    def name(self, number: int) -> str:
        """Describe a transaction."""
        one = self.history[number]
        held = ", of a held value" if one.held else ""
        return (
            f"T{number} ({one.outcome}{held}, process {one.process}, {one.thread}, "
            f"{one.begin} to {one.end})"
        )

    def story(self, number: int) -> str:
        """Describe a transaction with what it did."""
        what = []
        for verb, *rest in self.history[number].ops:
            if len(rest) == 2 and isinstance(rest[1], list) and len(rest[1]) > LAST:
                rest[1] = ["…", *rest[1][-LAST:]]
            what.append(" ".join((verb, *map(str, rest))))
        return f"{self.name(number)}: {'; '.join(what)}"

    # --- each transaction by itself ---

    def _footprint(self, number: int) -> Footprint:
        """Run through a transaction: does it see its own changes, and one version of all else?"""
        one, found = self.history[number], Footprint()
        own: dict[str, list[Any]] = {}
        levels: list[dict[str, list[Any]]] = []
        for op in one.ops:
            match op:
                case ("append" | "add" | "write" as verb, key, value):
                    form = {"append": "list", "add": "set", "write": "register"}[verb]
                    self._set_form(key, form)
                    own.setdefault(key, []).append(value)
                case ("read" | "members" as verb, key, seen):
                    whole = "list" if isinstance(seen, list) else "register"
                    form = "set" if verb == "members" else whole
                    self._set_form(key, form)
                    self._read(number, found.bases, own.get(key, []), key, seen)
                case ("savepoint",):
                    levels.append({key: list(values) for key, values in own.items()})
                case ("undo",):
                    kept = levels.pop()
                    for key, values in own.items():
                        found.undone += [(key, v) for v in values if v not in kept.get(key, [])]
                    own = kept
                case ("keep",):
                    levels.pop()
                case _:
                    raise ValueError(f"{op!r} is no operation")
        if one.outcome == "rolled back":
            found.undone += [(key, value) for key, values in own.items() for value in values]
        else:
            found.written = {key: values for key, values in own.items() if values}
        return found

    def _set_form(self, key: str, form: str) -> None:
        if self.forms.setdefault(key, form) != form:
            raise ValueError(f"{key!r} is a {self.forms[key]} and cannot be a {form}")

    def _read(
        self, number: int, bases: dict[str, Any], own: list[Any], key: str, seen: Any
    ) -> None:
        """Take the transaction's own changes off what it read, and compare with what it knew."""
        form = self.forms[key]
        if form == "register":
            fits, base = not own or seen == own[-1], seen
            if own:
                base = bases.get(key, seen) if fits else seen
                if fits and key not in bases:
                    return
        elif form == "list":
            cut = len(seen) - len(own)
            fits, base = cut >= 0 and seen[cut:] == own, seen[: max(cut, 0)]
        else:
            base = frozenset(seen) - set(own)
            fits = len(set(seen)) == len(seen) and set(own) <= set(seen)
        if not fits or bases.setdefault(key, base) != base:
            self._found(
                "internal",
                f"{self.name(number)} read {seen!r} in {key}, after it had written {own!r} there "
                f"and found {bases.get(key)!r}",
            )

    # --- who wrote what ---

    def _index(self) -> None:
        for number, one in enumerate(self.prints):
            for key, values in one.written.items():
                for value in values:
                    # of a set, which has no last value, `_check_base` looks at all
                    is_last = self.forms[key] == "set" or value == values[-1]
                    self._index_value(key, value, number, "final" if is_last else "intermediate")
            for key, value in one.undone:
                self._index_value(key, value, number, "undone")
            for key in one.bases:
                self.parts.add(number)
                self.readers[key].append(number)
        seen = {
            self.writers[key, value][0]
            for key, readers in self.readers.items()
            for number in readers
            for value in self._values(key, self.prints[number].bases[key])
            if (key, value) in self.writers
        }
        for number, one in enumerate(self.prints):
            # what nobody has seen of a transaction with an unknown end has not happened
            if one.written and (self.history[number].outcome == "committed" or number in seen):
                self.parts.add(number)
                for key in one.written:
                    self.changers[key].append(number)

    def _index_value(self, key: str, value: Any, number: int, state: str) -> None:
        if (key, value) in self.writers:
            raise ValueError(f"{value!r} was written to {key!r} twice, which tells nothing")
        self.writers[key, value] = (number, state)

    def _values(self, key: str, version: Any) -> Iterable[Any]:
        """Return the values that a version is made of."""
        if self.forms[key] == "register":
            return () if version is None else (version,)
        return version  # type: ignore[no-any-return]

    def _check_base(self, number: int, key: str) -> None:
        """Check that what was read are values that were there to be read."""
        base, form = self.prints[number].bases[key], self.forms[key]
        values = list(self._values(key, base))
        what = f"{self.name(number)} read {base!r} in {key}"
        if len(set(values)) != len(values):
            self._found("duplicate", f"{what}, which has a value twice")
        for value in values:
            if (key, value) not in self.writers:
                self._found("garbage", f"{what}, and nobody ever wrote {value!r}")
                continue
            writer, state = self.writers[key, value]
            if state == "undone":
                self._found("G1a", f"{what}; {value!r} was rolled back by {self.name(writer)}")
            elif writer == number:
                self._found("internal", f"{what}, and has {value!r} twice or not yet written")
            elif state == "intermediate" and (form == "register" or value == values[-1]):
                self._found("G1b", f"{what}; {value!r} was not the last of {self.name(writer)}")
            elif form == "set":
                missing = set(self.prints[writer].written[key]) - base
                if missing:
                    self._found("G1b", f"{what}, without {missing} of {self.name(writer)}")

    # --- edges ---

    def _edge(self, kind: str, before: int, after: int, key: str, value: Any) -> None:
        if before != after:
            self.graph[before].setdefault(after, {}).setdefault(kind, (key, value))

    def _writer(self, key: str, value: Any) -> int | None:
        """Return who wrote a value that counts."""
        number, state = self.writers.get((key, value), (None, "undone"))
        return None if state == "undone" else number

    def _unseen(self, key: str, order: Iterable[Any]) -> list[tuple[int, Any]]:
        """Return what counts and is in no version that was read."""
        seen = set(order)
        return [
            (number, value)
            for number in self.changers[key]
            for value in self.prints[number].written[key]
            if value not in seen
        ]

    def _lists(self, key: str) -> None:
        """The longest list is the order of the versions; all others have to be its beginnings."""
        bases = {number: self.prints[number].bases[key] for number in self.readers[key]}
        longest = max(bases, key=lambda number: len(bases[number]), default=None)
        order = [] if longest is None else bases[longest]
        for number, base in bases.items():
            if base != order[: len(base)]:
                self._found(
                    "incompatible order",
                    f"in {key}, {self.name(number)} read {base!r}, and "
                    f"{self.name(longest or 0)} read {order!r}",
                )
        bases = {number: base for number, base in bases.items() if base == order[: len(base)]}
        places = {value: place for place, value in enumerate(order)}
        for number in self.changers[key]:
            own = [value for value in self.prints[number].written[key] if value in places]
            if sorted(own, key=places.__getitem__) != own:
                self._found(
                    "incompatible order",
                    f"{self.name(number)} appended {own!r} to {key}, where is {order!r}",
                )
        unseen = self._unseen(key, order)
        self._check_lost(key, unseen, bases)
        writers = [self._writer(key, value) for value in order]
        for (one, other), value in zip(pairwise(writers), order[1:], strict=True):
            if one is not None and other is not None:
                self._edge("ww", one, other, key, value)
        for number, value in unseen:
            if writers and writers[-1] is not None:
                self._edge("ww", writers[-1], number, key, value)
        for number, base in bases.items():
            at = len(base)
            last = self._writer(key, base[-1]) if base else None
            if last is not None:
                self._edge("wr", last, number, key, base[-1])
            following = unseen if at == len(order) else [(writers[at], order[at])]
            for writer, value in following:
                if writer is not None:
                    self._edge("rw", number, writer, key, value)

    def _check_lost(self, key: str, unseen: list[tuple[int, Any]], bases: dict[int, Any]) -> None:
        """Name what a read that began after the commit should have had, and none has."""
        if not bases:
            return
        begun = [number for number in bases if not self.history[number].held]
        last = max(begun, key=lambda number: self.history[number].begin, default=None)
        for number, value in unseen:
            if last is not None and self.history[last].begin > self._end(number):
                self._found(
                    "lost change",
                    f"{value!r}, put into {key} by {self.name(number)}, is not in what "
                    f"{self.name(last)} read",
                )

    def _sets(self, key: str) -> None:
        """Each set that was read has to be a part of the next larger one."""
        bases = {number: self.prints[number].bases[key] for number in self.readers[key]}
        levels: dict[frozenset[Any], list[int]] = defaultdict(list)
        for number, base in bases.items():
            levels[base].append(number)
        ordered = sorted(levels, key=len)
        for one, other in pairwise(ordered):
            if not one <= other:
                self._found(
                    "incompatible order",
                    f"in {key}, {self.name(levels[one][0])} read {sorted(one)}, and "
                    f"{self.name(levels[other][0])} read {sorted(other)}",
                )
        largest = ordered[-1] if ordered else frozenset()
        unseen = self._unseen(key, largest)
        self._check_lost(key, unseen, bases)
        before: frozenset[Any] = frozenset()
        for at, level in enumerate(ordered):
            following = (
                [(self._writer(key, value), value) for value in ordered[at + 1] - level]
                if at + 1 < len(ordered)
                else unseen
            )
            for number in levels[level]:
                for value in level - before:
                    writer = self._writer(key, value)
                    if writer is not None:
                        self._edge("wr", writer, number, key, value)
                for writer, value in following:
                    if writer is not None:
                        self._edge("rw", number, writer, key, value)
            before = level

    def _registers(self, key: str) -> None:
        """A version comes after the one its writer read, and after those of before its begin."""
        changers = sorted(self.changers[key], key=lambda number: self.history[number].begin)
        begins = [self.history[number].begin for number in changers]
        # from each on, when the first of them had ended
        ends = [*(self._end(number) for number in changers), FOREVER]
        for at in range(len(changers) - 1, -1, -1):
            ends[at] = min(ends[at], ends[at + 1])
        successors: dict[Any, set[int]] = defaultdict(set)
        for version in [None, *(self.prints[number].written[key][-1] for number in changers)]:
            writer = self._writer(key, version)
            first = 0 if writer is None else bisect_right(begins, self._end(writer))
            last = bisect_right(begins, ends[first])
            successors[version] = set(changers[first:last])
        for number in changers:
            bases = self.prints[number].bases
            if key in bases:
                successors[bases[key]].add(number)
        for version, following in successors.items():
            writer = self._writer(key, version)
            for number in following:
                if writer is not None:
                    self._edge("ww", writer, number, key, self.prints[number].written[key][-1])
        for number in self.readers[key]:
            base = self.prints[number].bases[key]
            writer = self._writer(key, base)
            if writer is not None:
                self._edge("wr", writer, number, key, base)
            for other in successors[base]:
                self._edge("rw", number, other, key, self.prints[other].written[key][-1])

    def _end(self, number: int) -> int:
        one = self.history[number]
        return FOREVER if one.outcome == "unknown" else one.end

    def _lost_updates(self) -> None:
        """No two transactions may have changed what both have read."""
        known: dict[tuple[str, Any], int] = {}
        for key, changers in self.changers.items():
            for number in changers:
                base = self.prints[number].bases.get(key, FOREVER)
                if base == FOREVER:
                    continue
                version = (key, tuple(base) if isinstance(base, list) else base)
                other = known.setdefault(version, number)
                if other != number:
                    self._found(
                        "lost update",
                        f"{self.name(other)} and {self.name(number)} both read {base!r} in {key} "
                        f"and then changed it",
                    )

    def _time(self) -> None:
        """Connect each transaction with those that had ended when it began.

        Through a chain of moments, since there are too many pairs: a transaction leads to the
        moment of its end, each moment to the next, and that before a begin to who began.
        """
        parts = sorted(self.parts)
        processes = defaultdict(list)
        for number in parts:
            processes[self.history[number].process].append(number)
        free = iter(range(-1, -2 * len(self.history) - 2, -1))
        self._chain(parts, [n for n in parts if not self.history[n].held], free)
        for own in processes.values():
            self._chain(own, [n for n in own if self.history[n].held], free)

    def _chain(self, before: list[int], after: list[int], free: Iterator[int]) -> None:
        if not after:
            return
        ended = sorted((n for n in before if self._end(n) < FOREVER), key=self._end)
        moments = [next(free) for _ in ended]
        ends = [self._end(number) for number in ended]
        for number, moment in zip(ended, moments, strict=True):
            self.graph[number].setdefault(moment, {})[TIME] = ("", None)
        for one, other in pairwise(moments):
            self.graph[one].setdefault(other, {})[TIME] = ("", None)
        for number in after:
            at = bisect_left(ends, self.history[number].begin)
            if at:
                self.graph[moments[at - 1]].setdefault(number, {})[TIME] = ("", None)

    # --- cycles ---

    def _cycles(self) -> None:
        """Name and explain one short cycle of the gravest class in each knot of the graph."""
        for knot in _knots(self.graph, set(self.graph), {"ww", "wr", "rw", TIME}):
            for clock in (set(), {TIME}):
                found = self._cycle(knot, clock)
                if found is not None:
                    name, cycle = found
                    self._found(name + ("-realtime" if clock else ""), self._explain(cycle))
                    break

    def _cycle(self, knot: set[int], clock: set[str]) -> tuple[str, list[int]] | None:
        for name, kinds in CLASSES:
            allowed = kinds | clock
            if name == "G-single":
                crossings = [
                    (one, other)
                    for one in knot
                    for other, labels in self.graph[one].items()
                    if "rw" in labels and other in knot
                ]
                ways = (
                    _way(self.graph, knot, allowed, other, one) for one, other in crossings[:TRIES]
                )
            else:
                inner = min(_knots(self.graph, knot, allowed), key=len, default=set())
                ways = (
                    _way(self.graph, inner, allowed, one, one) for one in sorted(inner)[-TRIES:]
                )
            cycle = min((way for way in ways if way), key=len, default=None)
            if cycle is not None:
                return name, cycle
        return None

    def _explain(self, way: list[int]) -> str:
        """Say for each edge of a cycle what it stands for."""
        steps = [*way, way[0]] if way[-1] != way[0] else way
        last = next(number for number in steps if number >= 0)
        start = steps.index(last)
        steps = steps[start:-1] + steps[: start + 1]
        parts = [number for number in steps if number >= 0]
        lines = [f"a cycle of {len(parts) - 1} transactions", *map(self.story, parts[1:])]
        for one, other in pairwise(parts):
            labels = self.graph[one].get(other, {})
            reason = f"it had ended before T{other} began (time)"
            for kind, text in (
                ("ww", "T{0} wrote {2!r} in {1} next (ww)"),
                ("wr", "T{0} read its {2!r} in {1} (wr)"),
                ("rw", "it had not seen the {2!r} that T{0} wrote in {1} (rw)"),
            ):
                if kind in labels:
                    reason = text.format(other, *labels[kind])
                    break
            lines.append(f"T{one} comes before T{other}: {reason}")
        return "\n    ".join(lines)


Graph = dict[int, dict[int, dict[str, tuple[str, Any]]]]


def _knots(graph: Graph, nodes: set[int], kinds: set[str]) -> list[set[int]]:
    """Return the sets of nodes each of which reaches all others of its set (Tarjan)."""

    def following(node: int) -> Iterator[int]:
        edges = graph.get(node, {}).items()
        return (other for other, labels in edges if other in nodes and not kinds.isdisjoint(labels))

    numbers: dict[int, int] = {}
    lowest: dict[int, int] = {}
    waiting: list[int] = []
    on_the_way: set[int] = set()
    found = []
    for root in nodes:
        if root in numbers:
            continue
        stack = [(root, following(root))]
        numbers[root] = lowest[root] = len(numbers)
        waiting.append(root)
        on_the_way.add(root)
        while stack:
            node, rest = stack[-1]
            for other in rest:
                if other not in numbers:
                    numbers[other] = lowest[other] = len(numbers)
                    waiting.append(other)
                    on_the_way.add(other)
                    stack.append((other, following(other)))
                    break
                if other in on_the_way:
                    lowest[node] = min(lowest[node], numbers[other])
            else:
                stack.pop()
                if stack:
                    lowest[stack[-1][0]] = min(lowest[stack[-1][0]], lowest[node])
                if lowest[node] == numbers[node]:
                    knot = set()
                    while node not in knot:
                        knot.add(waiting.pop())
                    on_the_way -= knot
                    if len(knot) > 1:
                        found.append(knot)
    return found


def _way(graph: Graph, nodes: set[int], kinds: set[str], start: int, end: int) -> list[int] | None:
    """Return the shortest way from one node to another, or around to the same; both are in it."""
    came: dict[int, int] = {}
    queue = deque([start])
    while queue:
        node = queue.popleft()
        for other, labels in graph.get(node, {}).items():
            if other not in nodes or kinds.isdisjoint(labels):
                continue
            if other == end:
                way = [end, node]
                while way[-1] != start:
                    way.append(came[way[-1]])
                return way[::-1]
            if other not in came and other != start:
                came[other] = node
                queue.append(other)
    return None
