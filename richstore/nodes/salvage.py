"""Plain copies of damaged values: what can be read of them, and what was lost.

What cannot be read is left out of the innermost list, dict, set or instance that it is in: an item,
an attribute, all items of a page. A tuple, and an object that pickle makes in one piece, is left
out as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from richstore.codec import keys
from richstore.codec.policy import ClassPolicy
from richstore.errors import CorruptionError, RichStoreError
from richstore.node import Node
from richstore.nodes.base import node_of
from richstore.nodes.frozen import freeze, frozen_value
from richstore.nodes.plain import SAME, Plain
from richstore.nodes.spread.base import FrozenView, SpreadContent
from richstore.pages import Directory, Index, cell_name, entry_name, page_name

__all__ = ["salvage"]


def salvage(
    view: Any, classes: ClassPolicy, name: bytes, stored: bytes, place: str
) -> tuple[Any, list[str]]:
    """Return what can be read of a value, and a line for each part that was lost.

    Args:
        view: a read transaction.
        classes: finds the classes and functions that records name.
        name: the engine key of the value's record.
        stored: its bytes.
        place: where it is, as Python would write it: `['shops']`.

    Raises:
        Exception: nothing of it can be read.
    """
    frozen = _SalvageView(view, classes)
    copies = _Salvage(frozen, place)
    made = copies(frozen_value(frozen, name, stored))
    return made, copies.losses


class _SalvageView(FrozenView):
    """A view that goes on where a record that others refer to cannot be read."""

    def __init__(self, view: Any, classes: ClassPolicy) -> None:
        super().__init__(view, frozen_value, classes)
        self.lost: dict[Node, Exception] = {}

    def unreadable(self, node: Node | None, error: Exception) -> Any:
        """Remember that the content of a node is lost; return what stands for one to be made."""
        stand_in = None
        if node is None:
            stand_in = freeze([])
            node = node_of(stand_in)
            assert node is not None
        self.lost[node] = error
        return stand_in


class _Gap:
    """Stands among the parts of a list for what cannot be read, or put in order."""

    def __init__(self, count: int | None, error: Exception, *, is_there: bool = False) -> None:
        self.count = count
        self.error = error
        self.is_there = is_there


class _Salvage(Plain):
    def __init__(self, view: _SalvageView, place: str) -> None:
        super().__init__({})
        self.view = view
        self.root = self.place = place
        self.losses: list[str] = []

    def lose(self, place: str, error: Exception) -> None:
        """Report a loss."""
        text = str(error).removeprefix(f"in the value at {self.root}: ")
        if not isinstance(error, RichStoreError):
            text = f"{type(error).__name__}: {text}"
        self.losses.append(f"{place}: {text}")

    def _copy(self, value: Any) -> Any:
        node = node_of(value)
        if node is not None and node in self.view.lost:
            raise self.view.lost[node]
        return super()._copy(value)

    def later(self, fill: Callable[[], None]) -> None:
        """Fill a copy later; what goes wrong then is lost at the place that is current now."""
        place = self.place

        def guarded() -> None:
            self.place = place
            try:
                fill()
            except Exception as error:  # noqa: BLE001 - whatever damage does to it is its loss
                self.lose(place, error)

        super().later(guarded)

    def part(
        self, place: str, value: Any, copy: Callable[[Any], Any], keep: Callable[[Any], Any]
    ) -> None:
        """Copy one part and keep it, or report that it is lost."""
        self.place = place
        try:
            keep(value if type(value) in SAME else copy(value))
        except Exception as error:  # noqa: BLE001 - whatever damage does to it is its loss
            self.lose(place, error)

    def as_list(self, original: Any, items: Any) -> list[Any]:
        """Copy what can be read of a list; what is behind a loss moves up."""
        made: list[Any] = []
        self.keep(original, made)
        place = self.place

        def fill() -> None:
            at = 0
            for part in self._list_parts(items):
                if isinstance(part, _Gap):
                    end = "" if part.count is None else at + part.count
                    if part.is_there:
                        self.lose(f"{place}[{at}:{end}], the order of these items", part.error)
                        continue
                    self.lose(f"{place}[{at}:{end}]", part.error)
                    at += part.count or 0
                else:
                    for offset, item in enumerate(part):
                        self.part(f"{place}[{at + offset}]", item, self, made.append)
                    at += len(part)

        self.later(fill)
        return made

    def as_dict(self, original: Any, content: dict[Any, Any]) -> dict[Any, Any]:
        """Copy what can be read of a dict."""
        made: dict[Any, Any] = {}
        self.keep(original, made)
        place = self.place

        def put(item: tuple[Any, Any]) -> None:
            key, value = item
            made[key if type(key) in SAME else self.complete(key)] = (
                value if type(value) in SAME else self(value)
            )

        def fill() -> None:
            for part in self._keyed_parts(content, place, made):
                for key, value in part.items():
                    self.part(f"{place}[{key!r}]", (key, value), put, _nothing)

        self.later(fill)
        return made

    def as_set(self, original: Any, items: Any) -> set[Any]:
        """Copy what can be read of a set."""
        made: set[Any] = set()
        self.keep(original, made)
        place = self.place

        def fill() -> None:
            for part in self._keyed_parts(items, place, made):
                for item in part:
                    self.part(f"{place}, the element {item!r}", item, self.complete, made.add)

        self.later(fill)
        return made

    def as_state(self, state: dict[str, Any]) -> dict[str, Any]:
        """Copy the attributes of an instance that can be read."""
        made: dict[str, Any] = {}
        place = self.place
        for name, value in state.items():
            self.part(f"{place}.{name}", value, self, partial(made.__setitem__, name))
        return made

    # --- the pages of large containers ---

    def _page(self, content: SpreadContent, pid: int, count: int | None) -> Any:
        """Return the container on a page, or a gap."""
        try:
            return content.page(pid)
        except Exception as error:  # noqa: BLE001 - whatever damage does to it is its loss
            return _Gap(count, error)

    def _list_parts(self, content: Any) -> Iterator[Any]:
        """Yield the items of a list in parts, and a gap for each that cannot be read."""
        if not isinstance(content, SpreadContent):
            yield content
            return
        cid = content.cid
        found: list[tuple[int, int | None] | _Gap] = []
        self._walk(cid, cell_name(cid), None, True, found)
        reached = {one[0] for one in found if isinstance(one, tuple)}
        for one in found:
            if isinstance(one, tuple):
                yield self._page(content, *one)
                continue
            # its pages are still there, and their numbers tell in which order they were made
            yield _Gap(one.count, one.error, is_there=True)
            left = sorted(set(self._pids(cid)) - reached)
            reached.update(left)
            there = 0
            for part in (self._page(content, pid, None) for pid in left):
                there += 0 if isinstance(part, _Gap) else len(part)
                yield part
            if one.count is not None and there < one.count:
                yield _Gap(one.count - there, one.error)

    def _walk(
        self,
        cid: int,
        name: bytes,
        count: int | None,
        is_last: bool,
        found: list[tuple[int, int | None] | _Gap],
    ) -> None:
        """Find the pages below an index, each with its number of items, which the last has not."""
        try:
            index = self.view.cell(name)
            if not isinstance(index, Index):
                raise CorruptionError(f"the index {name!r} of a list is missing")
        except CorruptionError as error:
            found.append(_Gap(count, error))
            return
        for at, (child, below) in enumerate(zip(index.ids, index.counts, strict=True)):
            last = is_last and at == len(index.ids) - 1
            known = None if last else below
            if index.level:
                self._walk(cid, cell_name(cid, child), known, last, found)
            else:
                found.append((child, known))

    def _pids(self, cid: int) -> Iterator[int]:
        """Yield the numbers of the pages that are there, whatever leads to them."""
        for name, _ in self.view.view.scan(page_name(cid, 0), page_name(cid + 1, 0)):
            yield int.from_bytes(name[9:], "big")

    def _keyed_parts(self, content: Any, place: str, made: Any) -> Iterator[Any]:
        """Yield the items of a dict or set in parts; then report what is missing."""
        if not isinstance(content, SpreadContent):
            yield content
            return
        cid = content.cid
        broken: dict[int, Exception] = {}
        read: set[int] = set()
        seen = 0
        for pid in self._pids(cid):
            part = self._page(content, pid, None)
            if isinstance(part, _Gap):
                broken[pid] = part.error
                continue
            read.add(pid)
            seen += len(part)
            yield part
        count = self._count(cid, place)
        if seen == count and not broken:
            return
        # the index of the keys tells what was on the pages that cannot be read
        for pid, lost in sorted(self._keys_elsewhere(cid, read, made).items()):
            error = broken.pop(pid, None) or CorruptionError("their page is missing")
            self.lose(f"{place}, {len(lost)} items: {', '.join(map(repr, lost))}", error)
            seen += len(lost)
        for error in broken.values():
            self.lose(f"{place}, some items", error)
        if count is not None and seen < count and not broken:
            self.lose(f"{place}, {count - seen} items", CorruptionError("nothing leads to them"))

    def _count(self, cid: int, place: str) -> int | None:
        """Return how many items a dict or set is to have; None when that cannot be read."""
        try:
            directory = self.view.cell(cell_name(cid))
            if not isinstance(directory, Directory):
                raise CorruptionError("the directory of a dict or set is missing")
        except CorruptionError as error:
            self.lose(f"{place}, the number of its items", error)
            return None
        return directory.count

    def _keys_elsewhere(self, cid: int, read: set[int], made: Any) -> dict[int, list[Any]]:
        """Return the keys that are on none of some pages, by the number of their page."""
        found: dict[int, list[Any]] = {}
        for name, stored in self.view.view.scan(entry_name(cid, b""), entry_name(cid + 1, b"")):
            pid = int.from_bytes(stored, "big")
            if pid in read:
                continue
            try:
                key = keys.decode_key(name[9:])
            except CorruptionError:
                key = name[9:]  # too long: only its beginning is in its name
            if key not in made:
                found.setdefault(pid, []).append(key)
        return found


def _nothing(_: Any) -> None:
    """Keep nothing: it has been put where it belongs."""
