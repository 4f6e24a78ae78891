"""`Store.verify()`: walk every record of a state, and tell what does not fit together.

Records are read without their classes, so that a store can be verified whatever can be imported.
What belongs to deleted values and waits to be reclaimed is no problem; all else that no value
reaches is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from richstore import pages
from richstore.codec import records
from richstore.codec.missing import Missing
from richstore.codec.policy import NONE, ClassPolicy
from richstore.errors import CorruptionError, FormatError, RichStoreError
from richstore.pages import Directory, Tree, cell_name, entry_form, entry_name, page_name
from richstore.spaces import (
    AFTER_VALUES,
    COUNTER,
    GROUP,
    GROUPED,
    ROOT,
    VALUES,
    paths_in,
    place_of,
    read_space,
)
from richstore.tracker import COUNT_KEY, NUMBERS_KEY

__all__ = ["Report", "verify"]

# How many records are walked before progress is told again.
_TOLD = 32


@dataclass
class Report:
    """What `Store.verify()` found.

    Attributes:
        problems: a sentence for each, with the place; empty when all is well.
        values: the number of values.
        records: the number of records that hold them.
        bytes: the size of their encoded forms.
        unreachable: records that belong to nothing.
        waiting: records of deleted values that later writes, or `compact()`, will remove.
        missing: classes and functions that records name and that cannot be found, each with the
            reason; what they made reads as placeholders.

    Example:
        >>> import richstore
        >>> with richstore.open("memory:") as store:
        ...     store["shops"] = ["shop1"]
        ...     report = store.verify()
        >>> report.ok, report.values, report.records
        (True, 1, 1)
    """

    problems: list[str] = field(default_factory=list)
    values: int = 0
    records: int = 0
    bytes: int = 0
    unreachable: int = 0
    waiting: int = 0
    missing: dict[str, str] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether there is no problem."""
        return not self.problems


class _Cells:
    """The cells of a view, read when asked for."""

    def __init__(self, view: Any) -> None:
        self.view = view

    def cell(self, name: bytes) -> Any:
        return pages.read_cell(name, self.view.get(name))

    def set_cell(self, name: bytes, value: Any) -> None:
        raise AssertionError(name)


def verify(
    view: Any,
    user_key: Callable[[bytes, bytes | None], Any],
    progress: Callable[[int, int], None] | None = None,
    classes: ClassPolicy = NONE,
) -> Report:
    """Return a report on the state of a read transaction.

    Args:
        view: the read transaction.
        user_key: turns the engine key of a value, and its stored key, into the user's key.
        progress: is told the records and bytes so far, now and then and at the end.
        classes: finds the classes and functions that records name, to tell which are missing; no
            other use is made of them, and strict policies look for none.
    """
    verifier = _Verifier(view, user_key, progress, classes)
    report = verifier.run()
    if not classes.strict:
        report.missing = _missing(verifier.named, classes)
    if progress is not None:
        progress(report.records, report.bytes)
    return report


class _Verifier:
    def __init__(
        self,
        view: Any,
        user_key: Callable[[bytes, bytes | None], Any],
        progress: Callable[[int, int], None] | None,
        classes: ClassPolicy,
    ) -> None:
        self.classes = classes
        self.progress = progress
        self.view = view
        self.user_key = user_key
        # the value that is being walked, for the problems
        self.place = ""
        self.report = Report()
        self.cells = _Cells(view)
        self.seen: set[bytes] = set()
        self.uids: dict[int, bytes] = {}
        self.owners: dict[int, bytes] = {}
        self.references: Counter[bytes] = Counter()
        self.used_cells: set[bytes] = set()
        # the names that lead to groups: by generation, and by the engine key of their counters
        self.paths: dict[int, tuple[str, ...]] = {}
        self.counters: dict[bytes, tuple[str, ...]] = {}
        # engine keys of values whose group was cleared
        self.left: list[bytes] = []
        # modules and names of classes and functions
        self.named: set[tuple[str, str]] = set()

    def problem(self, text: str) -> None:
        self.report.problems.append(self.place + text)

    def run(self) -> Report:
        report = self.report
        self._groups()
        counts: Counter[bytes] = Counter()
        for name, stored in self.view.scan(ROOT, AFTER_VALUES):
            counter = COUNTER + name[1:9] if name[:1] == GROUPED else COUNT_KEY
            self._look_up(name)
            if counter != COUNT_KEY and counter not in self.counters:
                # of a group that was cleared: it has to wait to be reclaimed
                self.left.append(name)
                continue
            counts[counter] += 1
            self.place = self._place(name, stored)
            self.walk(name, stored)
        self.place = ""
        report.values = counts.total()
        for counter in (COUNT_KEY, *self.counters):
            count = int.from_bytes(self.view.get(counter) or b"", "little")
            if count != counts[counter]:
                group = f"the store{place_of(self.counters.get(counter, ()))}"
                self.problem(
                    f"{group} says that it has {count} values, and it has {counts[counter]}"
                )
        numbers = int.from_bytes(self.view.get(NUMBERS_KEY) or b"", "little")
        if self.uids and max(self.uids) >= numbers:
            self.problem(
                f"numbers up to {max(self.uids)} are in use, and the store would give the number "
                f"{numbers} next, a second time"
            )
        waiting = self._waiting()
        for name, stored in self._all(pages.SHARED):
            said = records.count_of(stored)
            if name in self.seen and said != self.references[name]:
                self.problem(
                    f"shared record {name!r} says that {said} records refer to it, and "
                    f"{self.references[name]} do"
                )
        for first in (pages.PAGE, pages.SHARED, pages.ENTRY, pages.CELL):
            for name, _ in self._all(first):
                self._look_up(name)
                if name not in self.seen and name not in self.used_cells:
                    self._unused(name, waiting)
        for name in self.left:
            self._unused(name, waiting)
        return report

    def _unused(self, name: bytes, waiting: set[bytes]) -> None:
        """Note what no value reaches: a problem, unless it waits to be reclaimed."""
        if name in waiting:
            self.report.waiting += name[:1] in (*VALUES, pages.PAGE, pages.SHARED)
            return
        self.report.unreachable += 1
        self.problem(f"nothing refers to the record {name!r}")

    def _groups(self) -> None:
        """Check the cells of groups, and that they lead to each other."""
        self.paths = paths_in(self.view)
        known = {0}
        inside: list[tuple[bytes, int]] = []
        for name, stored in self._all(GROUP):
            self._look_up(name)
            try:
                space = read_space(name, stored)
                assert space is not None
            except CorruptionError as error:
                self.problem(str(error))
                continue
            if space.id in known:
                self.problem(f"two groups have the number {space.id}")
            known.add(space.id)
            inside.append((name, int.from_bytes(name[1:9], "big")))
            if self.view.get(space.counter) is None or space.counter in self.counters:
                self.problem(f"the group of the cell {name!r} has no values of its own")
            self.counters[space.counter] = self.paths.get(space.generation, ("?",))
        for name, parent in inside:
            if parent not in known:
                self.problem(f"the group of the cell {name!r} is in none that is there")
        for name, _ in self._all(COUNTER):
            self._look_up(name)
            if name not in self.counters:
                self.problem(f"nothing refers to the record {name!r}")

    def _look_up(self, name: bytes) -> None:
        """Check that what was met in order is found by its key as well."""
        if self.view.get(name) is None:
            self.problem(f"the record {name!r} is there, and is not found by its key")

    def _place(self, name: bytes, stored: bytes) -> str:
        try:
            key = repr(self.user_key(name, records.stored_key(stored)))
        except Exception:  # noqa: BLE001 - a damaged key: the engine's own name says where
            key = repr(name)
        group = place_of(self.counters[COUNTER + name[1:9]]) if name[:1] == GROUPED else ""
        return f"in the value at {group}[{key}]: "

    def _all(self, first: bytes) -> Iterator[tuple[bytes, bytes]]:
        found: Iterator[tuple[bytes, bytes]] = self.view.scan(first, bytes((first[0] + 1,)))
        return found

    def walk(self, name: bytes, stored: bytes | None) -> None:
        """Check a record and all below it."""
        todo = [(name, stored)]
        while todo:
            name, stored = todo.pop()
            parts = self.check(name, stored)
            if parts is None:
                continue
            for row, link in _links(parts):
                if row == records.EXTERNAL:
                    other = records.read_external(link)[3]
                    if other[:1] in VALUES:
                        continue
                    self.references[other] += 1
                    if other not in self.seen:
                        self.seen.add(other)
                        todo.append((other, self.view.get(other)))
                    continue
                cid = int.from_bytes(link, "big")
                if cid in self.owners:
                    self.problem(
                        f"the spread container {cid} is in record {name!r} and in "
                        f"{self.owners[cid]!r}"
                    )
                    continue
                self.owners[cid] = name
                todo += self.spread(cid, row - records.SPREAD)

    def check(self, name: bytes, stored: bytes | None) -> records.Parts | None:
        """Check one record by itself."""
        self.seen.add(name)
        if stored is None:
            self.problem(f"the record {name!r} is missing")
            return None
        self.report.records += 1
        self.report.bytes += len(stored)
        if self.progress is not None and self.report.records % _TOLD == 0:
            self.progress(self.report.records, self.report.bytes)
        try:
            parts = records.parse(name, stored)
            # what no writer writes; that no class is allowed does not matter for this
            NONE.check_parts(name, parts, None)
        except (CorruptionError, FormatError) as error:
            self.problem(str(error))
            return None
        try:
            if not self.classes.strict:
                self.named |= records.names(parts)
        except Exception as error:  # noqa: BLE001 - whatever damaged opcodes do is the finding
            self.problem(f"the record {name!r} cannot be decoded ({type(error).__name__}: {error})")
        table = parts.table
        for at in range(0, len(table), 3):
            if table[at + 2] == records.EXTERNAL:
                continue
            uid = parts.base + table[at + 1]
            other = self.uids.setdefault(uid, name)
            if other != name:
                self.problem(f"the node {uid} is in record {name!r} and in {other!r}")
        return parts

    def spread(self, cid: int, head: int) -> list[tuple[bytes, bytes | None]]:
        """Check what leads to the pages of a container; return these."""
        try:
            if head == records.LIST:
                return self._list(cid)
            return self._keyed(cid)
        except (CorruptionError, FormatError) as error:
            self.problem(str(error))
            return []

    def _list(self, cid: int) -> list[tuple[bytes, bytes | None]]:
        tree = Tree(self.cells, cid)
        found: list[tuple[bytes, bytes | None]] = []
        counted: dict[bytes, int] = {}
        for name, index in tree.cells_below():
            self.used_cells.add(name)
            if len(index.ids) != len(index.counts):
                self.problem(f"the index {name!r} is damaged")
        last_pid, _, path = tree.last()
        rightmost = {name for name, _, _ in path}
        for pid in tree.pages():
            name = page_name(cid, pid)
            stored = self.view.get(name)
            if name in counted:
                self.problem(f"the page {name!r} is in its index twice")
                continue
            counted[name] = self._items(name, stored)
            found.append((name, stored))
        self._count(tree, tree.root, rightmost, counted)
        del last_pid
        return found

    def _count(
        self, tree: Tree, name: bytes, rightmost: set[bytes], counted: dict[bytes, int]
    ) -> int:
        """Compare what an index says with the pages; return the number of items below it."""
        index = self.cells.cell(name)
        total = 0
        for at, child in enumerate(index.ids):
            if index.level:
                below = self._count(tree, cell_name(tree.cid, child), rightmost, counted)
            else:
                below = counted.get(page_name(tree.cid, child), 0)
            is_last = name in rightmost and at == len(index.ids) - 1
            if not is_last and below != index.counts[at]:
                self.problem(
                    f"the index {name!r} says that there are {index.counts[at]} items below child "
                    f"{at}, and there are {below}"
                )
            total += below
        return total

    def _keyed(self, cid: int) -> list[tuple[bytes, bytes | None]]:
        name = cell_name(cid)
        root = self.cells.cell(name)
        self.used_cells.add(name)
        if not isinstance(root, Directory):
            self.problem(f"the directory {name!r} of a dict or set is missing")
            return []
        found: list[tuple[bytes, bytes | None]] = []
        count = 0
        last: int | None = None
        for page, stored in self.view.scan(page_name(cid, 0), page_name(cid + 1, 0)):
            found.append((page, stored))
            last = int.from_bytes(page[9:], "big")
            for key in self._content(page, stored) or ():
                form = entry_form(key)
                entry = entry_name(cid, form or b"")
                self.used_cells.add(entry)
                count += 1
                if self.view.get(entry) != page[9:]:
                    self.problem(f"the key {key!r} is on page {page!r}, and its entry denies it")
        if count != root.count:
            self.problem(
                f"the directory {name!r} says that there are {root.count} keys, and there are "
                f"{count}"
            )
        if last != root.last:
            self.problem(f"the directory {name!r} does not know its last page, {last}")
        return found

    def _items(self, name: bytes, stored: bytes | None) -> int:
        content = self._content(name, stored)
        return 0 if content is None else len(content)

    def _content(self, name: bytes, stored: bytes | None) -> Any:
        """Return the container on a page, without classes; None when it cannot be read."""
        if stored is None:
            return None
        try:
            content = records.shape(records.parse(name, stored), self.classes)
            if type(content) not in (list, dict, set):
                self.problem(f"the page {name!r} holds no list, dict or set")
                return None
            return content
        except (CorruptionError, FormatError):
            return None  # `check` says it
        except Exception as error:  # noqa: BLE001 - whatever damaged opcodes do is the finding
            self.problem(f"the record {name!r} cannot be decoded ({type(error).__name__}: {error})")
            return None

    def _waiting(self) -> set[bytes]:
        """Return the names of what is below containers that wait to be reclaimed."""
        found: set[bytes] = set()
        after = bytes((pages.RECLAIM[0] + 1,))
        todo = [name[1:] for name, _ in self.view.scan(pages.RECLAIM, after)]
        while todo:
            mark = todo.pop()
            if len(mark) == 9 and mark[:1] == pages.SHARED:
                rows = [(mark, self.view.get(mark))]
            elif len(mark) == 9:
                end = (int.from_bytes(mark, "big") + 1).to_bytes(9, "big")
                rows = list(self.view.scan(mark, end))
            else:
                end = (int.from_bytes(mark, "big") + 1).to_bytes(8, "big")
                rows = [
                    row
                    for first in (pages.PAGE, pages.ENTRY, pages.CELL)
                    for row in self.view.scan(first + mark, first + end)
                ]
            for name, stored in rows:
                if name in found or name in self.seen or stored is None:
                    continue
                found.add(name)
                if name[:1] not in (*VALUES, pages.PAGE, pages.SHARED):
                    continue
                for row, link in _links(records.parse(name, stored)):
                    if row == records.EXTERNAL:
                        link = records.read_external(link)[3]
                        self.references[link] += 1
                        if link[:1] != pages.SHARED:
                            continue  # a value, which is walked by itself
                    todo.append(link)
        return found


def _missing(named: set[tuple[str, str]], classes: ClassPolicy) -> dict[str, str]:
    """Return which classes and functions cannot be found, and why."""
    found: dict[str, str] = {}
    for module, qualname in sorted(named):
        try:
            thing = classes.find(module, qualname)
        except Exception as error:  # noqa: BLE001 - a module that cannot be imported is the finding
            if not isinstance(error, RichStoreError):
                found[f"{module}.{qualname}"] = f"{type(error).__name__}: {error}"
            continue
        if isinstance(thing, Missing):
            found[f"{module}.{qualname}"] = thing.__richstore_reason__
    return found


def _links(parts: records.Parts) -> list[tuple[int, bytes]]:
    heads = [head for head in parts.table[2::3] if records.EXTERNAL <= head < records.FIRST_CLASS]
    return list(zip(heads, parts.links, strict=True))
