"""The operations on spread lists, dicts and sets.

`SPREAD_OPERATIONS` has for each operation on a whole container the one on a spread one, a function
`(transaction, node, *arguments)`. Most of them run the operation on a page and count; those that
touch everything *gather* the container first: it is whole until the commit.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from typing import Any

from richstore import paging
from richstore.node import Node, Spread
from richstore.nodes import operations as op
from richstore.nodes.adopt import ATOMS
from richstore.nodes.change import Edit, apply
from richstore.nodes.plain import plain
from richstore.nodes.spread.lists import SpreadList
from richstore.nodes.spread.mappings import SpreadDict, element, page_with
from richstore.pages import (
    STEP,
    Directory,
    Step,
    Tree,
    cell_name,
    entry_form,
    entry_name,
    page_name,
)
from richstore.record import Record
from richstore.transaction import Nested, Transaction

__all__ = ["SPREAD_OPERATIONS", "gather"]

# A page that has this part of its size does not take another item at its end.
_FULL = 0.93


def _page(node: Node, pid: int) -> Record:
    """Return a page of a container, loaded."""
    record = node.record
    assert record is not None
    found: Record | None = record.tracker.page(page_name(node.work.cid, pid), node)
    if found is None:
        node.work.page(pid)  # says that it is missing
    assert found is not None
    return found


def _main(record: Record) -> Node:
    main = record.main
    assert main is not None
    return main


def _on_page(
    tx: Transaction, record: Record, operation: Callable[..., Any], *arguments: Any, removes: bool
) -> Any:
    return apply(tx, _main(record), operation, arguments, removes)


def _new_page(tx: Transaction, node: Node, pid: int) -> Record:
    """Return a new, empty page of a container."""
    kind: Any = node.kind
    owner = node.record
    assert owner is not None
    record = Record(tx.tracker, page_name(node.work.cid, pid), None, owner.root, node)
    main = kind.make(None, -1, -1, kind.clean)
    record.value = main.face
    tx.born(record, main)
    main.kids = []
    tx.fresh[record.name] = record
    tx.tracker.live[record.name] = record
    return record


def _is_full(record: Record) -> bool:
    """Tell whether a page should take no more at its end, as far as its size is known."""
    main = _main(record)
    return main.tx is None and record.size > paging.PAGE * _FULL and len(main.work) > 1


def gather(tx: Transaction, node: Node, content: Any = None) -> None:
    """Let a spread container be a whole one until the commit.

    Args:
        tx: the transaction.
        node: the container.
        content: what it is to hold; None: what it holds now.
    """
    kind: Any = node.kind
    spread = node.work
    if content is None:
        content = spread.whole()
    tx.take(node)
    kind.gather(node, content)
    assert node.record is not None
    tx.removed(node.record)


class _Together(Nested):
    """Does all of an operation on several pages or nothing; an object that occurs twice is one
    node.
    """

    __slots__ = ("outer",)

    def __enter__(self) -> Transaction:
        transaction = super().__enter__()
        self.outer = transaction.memo
        if self.outer is None:
            transaction.memo = {}
        return transaction

    def leave(self, failed: bool) -> None:
        """End the block."""
        if self.level is not None and self.outer is None:
            self.transaction.memo = None
        super().leave(failed)


def _gathered(operation: Callable[..., Any], removes: bool) -> Callable[..., Any]:
    """Return an operation that gathers the container and then runs as on a whole one."""

    def run(tx: Transaction, node: Node, *arguments: Any) -> Any:
        with tx.nested():
            gather(tx, node)
            return apply(tx, node, operation, arguments, removes)

    return run


def _popped(tx: Transaction, item: Any, remove: Callable[..., Any], *arguments: Any) -> Any:
    """Remove an item and return it as plain data, made when its container is complete again: the
    item may refer to that.
    """
    if type(item) in ATOMS:
        remove(*arguments)
        return item
    with tx.nested():
        remove(*arguments)
        return plain(item)


# --- lists --------------------------------------------------------------------------------------


def _tree(tx: Transaction, node: Node) -> Tree:
    return Tree(tx, node.work.cid)


def _length(tx: Transaction, node: Node) -> int:
    pid, before, _ = _tree(tx, node).last()
    return before + len(_main(_page(node, pid)).work)


def _found(tx: Transaction, node: Node, at: int) -> tuple[Record, int, list[Step]]:
    """Return the page with a position, the position in it, and the way to it."""
    pid, offset, path = _tree(tx, node).locate(at)
    record = _page(node, pid)
    record.trail = [name for name, _, _ in path]
    return record, offset, path


def _position(tx: Transaction, node: Node, index: Any, message: str) -> int:
    if not hasattr(type(index), "__index__"):
        raise TypeError(f"list indices must be integers or slices, not {type(index).__name__}")
    at = operator.index(index)
    if at < 0 or not at < _tree(tx, node).last()[1]:
        length = _length(tx, node)
        if at < 0:
            at += length
        if not 0 <= at < length:
            raise IndexError(message)
    return at


def _append_at(edit: Edit, node: Node, item: Any, at: int) -> None:
    node.work.append(edit.adopt(item, f"[{at}]"))


def _insert_at(edit: Edit, node: Node, offset: int, items: list[Any], at: int) -> None:
    adopt = edit.adopt
    made = [adopt(item, f"[{at + n}]") for n, item in enumerate(items)]
    node.work[offset:offset] = made


def _set_at(edit: Edit, node: Node, offset: int, item: Any, at: int) -> None:
    node.work[offset] = edit.adopt(item, f"[{at}]")


def _last(tx: Transaction, node: Node) -> tuple[Record, int]:
    """Return the page that takes what is appended, and how many items are before it."""
    tree = _tree(tx, node)
    pid, before, path = tree.last()
    record = _page(node, pid)
    record.trail = [name for name, _, _ in path]
    if not _is_full(record):
        return record, before
    count = len(_main(record).work)
    number = tx.tracker.number()
    tree.replace(path, path[-1][2] + 1, [(pid, count), (number, 0)], tx.tracker.number)
    return _new_page(tx, node, number), before + count


def list_append(tx: Transaction, node: Node, item: Any) -> None:
    record, before = _last(tx, node)
    at = before + len(_main(record).work)
    _on_page(tx, record, _append_at, item, at, removes=False)


def list_extend(tx: Transaction, node: Node, items: Iterable[Any]) -> None:
    record, before = _last(tx, node)
    main = _main(record)
    offset = len(main.work)
    _on_page(tx, record, _insert_at, offset, list(items), before + offset, removes=False)


def list_insert(tx: Transaction, node: Node, index: Any, item: Any) -> None:
    length = _length(tx, node)
    if index < 0:
        index = max(0, index + length)
    if index >= length:
        list_append(tx, node, item)
        return
    record, offset, path = _found(tx, node, index)
    _on_page(tx, record, _insert_at, offset, [item], index, removes=False)
    _tree(tx, node).add(path, 1)


def list_set(tx: Transaction, node: Node, index: Any, value: Any) -> None:
    if not isinstance(index, slice):
        at = _position(tx, node, index, "list assignment index out of range")
        record, offset, _ = _found(tx, node, at)
        _on_page(tx, record, _set_at, offset, value, at, removes=True)
        return
    length = _length(tx, node)
    start, stop, step = index.indices(length)
    if step == 1:
        with tx.nested():
            _splice(tx, node, start, max(start, stop), value)
        return
    wanted = range(start, stop, step)
    if len(wanted) != len(value):
        raise ValueError(
            f"attempt to assign sequence of size {len(value)} to extended slice of size "
            f"{len(wanted)}"
        )
    with _Together(tx):
        for at, item in zip(wanted, value, strict=True):
            list_set(tx, node, at, item)


def _splice(tx: Transaction, node: Node, start: int, stop: int, items: list[Any]) -> None:
    """Put items in the place of a range of positions."""
    if start == 0 and stop >= _length(tx, node) and not items:
        clear(tx, node)
        return
    if items:
        if start >= _length(tx, node):
            list_extend(tx, node, items)
        else:
            record, offset, path = _found(tx, node, start)
            _on_page(tx, record, _insert_at, offset, items, start, removes=False)
            _tree(tx, node).add(path, len(items))
    first = start + len(items)
    left = stop - start
    while left > 0:
        record, offset, path = _found(tx, node, first)
        count = min(left, len(_main(record).work) - offset)
        if count <= 0:
            # an empty page: it goes at the commit
            _, index, child = path[-1]
            raise AssertionError(f"nothing at {first} of {index.ids[child]}")
        _on_page(tx, record, op.delete, slice(offset, offset + count), removes=True)
        _tree(tx, node).add(path, -count)
        left -= count


def list_delete(tx: Transaction, node: Node, index: Any) -> None:
    if not isinstance(index, slice):
        at = _position(tx, node, index, "list assignment index out of range")
        record, offset, path = _found(tx, node, at)
        _cut(tx, node, record, offset, path)
        return
    start, stop, step = index.indices(_length(tx, node))
    if step == 1:
        _splice(tx, node, start, max(start, stop), [])
        return
    for at in sorted(range(start, stop, step), reverse=True):
        list_delete(tx, node, at)


def list_pop(tx: Transaction, node: Node, index: Any = -1) -> Any:
    try:
        at = operator.index(index)
    except TypeError:
        raise TypeError(
            f"'{type(index).__name__}' object cannot be interpreted as an integer"
        ) from None
    if at == -1:
        tree = _tree(tx, node)
        pid, _, path = tree.last()
        record = _page(node, pid)
        work = _main(record).work
        if work:
            # nothing counts what is on the last page
            record.trail = [name for name, _, _ in path]
            return _popped(tx, work[-1], _cut, tx, node, record, -1, None)
    length = _length(tx, node)
    if not length:
        raise IndexError("pop from empty list")
    at = _position(tx, node, at, "pop index out of range")
    record, offset, path = _found(tx, node, at)
    return _popped(tx, _main(record).work[offset], _cut, tx, node, record, offset, path)


def _cut(tx: Transaction, node: Node, record: Record, offset: int, path: Any) -> None:
    """Remove an item from a page, and from the counts on the path to it if there are any."""
    _on_page(tx, record, op.delete, offset, removes=True)
    if path is not None:
        _tree(tx, node).add(path, -1)


def list_remove(tx: Transaction, node: Node, value: Any) -> None:
    before = 0
    for pid in _tree(tx, node).pages():
        items = _main(_page(node, pid)).work
        for at, item in enumerate(items):
            if item is value or item == value:
                list_delete(tx, node, before + at)
                return
        before += len(items)
    raise ValueError("list.remove(x): x not in list")


def clear(tx: Transaction, node: Node) -> None:
    kind: Any = node.kind
    gather(tx, node, kind.builtin())


# --- dicts and sets -----------------------------------------------------------------------------


def _keyed(tx: Transaction, node: Node, key: Any) -> Record | None:
    """Return the page that has a key, or None."""
    pid = page_with(node.work, key)
    return None if pid is None else _page(node, pid)


def _count(tx: Transaction, node: Node, change: int) -> None:
    name = cell_name(node.work.cid)
    root = tx.cell(name)
    tx.set_cell(name, Directory(root.count + change, root.last))


def _page_for_new(tx: Transaction, node: Node) -> tuple[Record, int]:
    """Return the page that takes new keys, and its id."""
    cid = node.work.cid
    root = node.work.root
    record = _page(node, root.last)
    if not _is_full(record):
        return record, root.last
    pid = root.last + STEP
    tx.set_cell(cell_name(cid), Directory(root.count, pid))
    return _new_page(tx, node, pid), pid


def dict_set(tx: Transaction, node: Node, key: Any, value: Any) -> None:
    record = _keyed(tx, node, key)
    if record is not None:
        _on_page(tx, record, op.dict_set, key, value, removes=True)
        return
    _insert(tx, node, key, op.dict_set, value)


def _insert(tx: Transaction, node: Node, key: Any, operation: Any, *value: Any) -> None:
    """Put a key that is not there yet, with the operation of a page."""
    form = entry_form(key)
    if form is None:
        with tx.nested():
            gather(tx, node)
            apply(tx, node, operation, (key, *value), False)
        return
    record, pid = _page_for_new(tx, node)
    _on_page(tx, record, operation, key, *value, removes=False)
    tx.set_cell(entry_name(node.work.cid, form), pid.to_bytes(8, "big"))
    _count(tx, node, 1)


def dict_setdefault(tx: Transaction, node: Node, key: Any, default: Any) -> Any:
    record = _keyed(tx, node, key)
    if record is None:
        dict_set(tx, node, key, default)
    return node.work[key]


def dict_update(tx: Transaction, node: Node, new: dict[Any, Any]) -> None:
    with _Together(tx):
        for key, value in new.items():
            if isinstance(node.work, SpreadDict):
                dict_set(tx, node, key, value)
            else:
                apply(tx, node, op.dict_set, (key, value), True)


def _remove(
    tx: Transaction, node: Node, record: Record, key: Any, operation: Callable[..., Any]
) -> None:
    """Remove a key or element from its page and from the index."""
    form = entry_form(key)
    if form is None:
        # an object equal to a key of another type: the key on the page is what counts
        form = next(
            found
            for one in _main(record).work
            if one == key and (found := entry_form(one)) is not None
        )
    tx.set_cell(entry_name(node.work.cid, form), None)
    _count(tx, node, -1)
    _on_page(tx, record, operation, key, removes=True)


def keyed_delete(tx: Transaction, node: Node, key: Any) -> None:
    record = _keyed(tx, node, key)
    if record is None:
        raise KeyError(key)
    _remove(tx, node, record, key, op.delete)


def dict_pop(tx: Transaction, node: Node, key: Any, *default: Any) -> Any:
    record = _keyed(tx, node, key)
    if record is None:
        if default:
            return default[0]
        raise KeyError(key)
    item = _main(record).work[key]
    return _popped(tx, item, _remove, tx, node, record, key, op.delete)


def dict_popitem(tx: Transaction, node: Node) -> Any:
    for pid in node.work.page_ids(True):
        record = _page(node, pid)
        work = _main(record).work
        if work:
            item = next(reversed(work.items()))
            return _popped(tx, item, _remove, tx, node, record, item[0], op.delete)
    raise KeyError("popitem(): dictionary is empty")


def set_add(tx: Transaction, node: Node, item: Any) -> None:
    if _keyed(tx, node, item) is None:
        _insert(tx, node, item, op.set_add)


def set_update(tx: Transaction, node: Node, items: list[Any]) -> None:
    with _Together(tx):
        for item in items:
            if isinstance(node.work, Spread):
                set_add(tx, node, item)
            else:
                apply(tx, node, op.set_add, (item,), False)


def set_discard(tx: Transaction, node: Node, item: Any) -> None:
    item = element(item)
    record = _keyed(tx, node, item)
    if record is not None:
        _remove(tx, node, record, item, op.set_discard)


def set_remove(tx: Transaction, node: Node, item: Any) -> None:
    if _keyed(tx, node, element(item)) is None:
        raise KeyError(item)
    set_discard(tx, node, item)


def set_combine(tx: Transaction, node: Node, combine: Callable[..., Any], others: Any) -> None:
    if combine is set.union:
        set_update(tx, node, [item for other in others for item in other])
    elif combine is set.difference:
        with _Together(tx):
            for item in [item for other in others for item in other]:
                set_discard(tx, node, item)
    else:
        _gather_combine(tx, node, combine, others)


_gather_combine = _gathered(op.set_combine, True)


def set_pop(tx: Transaction, node: Node) -> Any:
    for item in node.work:
        return _popped(tx, item, set_discard, tx, node, item)
    raise KeyError("pop from an empty set")


def pop(tx: Transaction, node: Node, *arguments: Any) -> Any:
    if isinstance(node.work, SpreadList):
        return list_pop(tx, node, *arguments)
    if isinstance(node.work, SpreadDict):
        return dict_pop(tx, node, *arguments)
    return set_pop(tx, node, *arguments)


def delete(tx: Transaction, node: Node, key: Any) -> None:
    if isinstance(node.work, SpreadList):
        list_delete(tx, node, key)
    else:
        keyed_delete(tx, node, key)


SPREAD_OPERATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    op.list_append: list_append,
    op.list_insert: list_insert,
    op.list_extend: list_extend,
    op.list_set: list_set,
    op.list_sort: _gathered(op.list_sort, False),
    op.list_imul: _gathered(op.list_imul, True),
    op.list_reverse: _gathered(op.list_reverse, False),
    op.list_remove: list_remove,
    op.pop: pop,
    op.delete: delete,
    op.clear: clear,
    op.dict_set: dict_set,
    op.dict_setdefault: dict_setdefault,
    op.dict_update: dict_update,
    op.dict_popitem: dict_popitem,
    op.set_add: set_add,
    op.set_update: set_update,
    op.set_discard: set_discard,
    op.set_remove: set_remove,
    op.set_keep: _gathered(op.set_keep, True),
    op.set_combine: set_combine,
}
