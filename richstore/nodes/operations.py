"""The operations on lists, dicts and sets: what `change` runs on a working copy.

Each is a function `(edit, node, *arguments)` and does all of its work or none. What is taken out is
handed out as plain data.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from richstore.node import Node
from richstore.nodes.adopt import ATOMS
from richstore.nodes.change import Edit
from richstore.nodes.plain import plain


def list_append(edit: Edit, node: Node, item: Any) -> None:
    work = node.work
    work.append(item if type(item) in ATOMS else edit.adopt(item, f"[{len(work)}]"))


def list_insert(edit: Edit, node: Node, index: Any, item: Any) -> None:
    node.work.insert(index, edit.adopt(item, f"[{index}]"))


def list_extend(edit: Edit, node: Node, items: list[Any]) -> None:
    work = node.work
    adopt = edit.adopt
    start = len(work)
    work += [adopt(item, f"[{start + at}]") for at, item in enumerate(items)]


def list_set(edit: Edit, node: Node, index: Any, value: Any) -> None:
    if isinstance(index, slice):
        adopt = edit.adopt
        node.work[index] = [adopt(item, f"[{at}]") for at, item in enumerate(value)]
    else:
        node.work[index] = edit.adopt(value, f"[{index}]")


def list_sort(edit: Edit, node: Node, key: Any, reverse: Any) -> None:
    # sorted apart, so that an error in `key` or a comparison leaves the list as it was
    before = node.work.copy()
    ordered = sorted(before, key=key, reverse=reverse)
    if len(before) != len(node.work) or not all(map(operator.is_, before, node.work)):
        raise ValueError("list modified during sort")
    node.work[:] = ordered


def list_imul(edit: Edit, node: Node, times: Any) -> None:
    node.work.__imul__(times)


def list_reverse(edit: Edit, node: Node) -> None:
    node.work.reverse()


def list_remove(edit: Edit, node: Node, value: Any) -> None:
    node.work.remove(value)


def pop(edit: Edit, node: Node, *arguments: Any) -> Any:
    return plain(node.work.pop(*arguments))


def delete(edit: Edit, node: Node, key: Any) -> None:
    del node.work[key]


def clear(edit: Edit, node: Node) -> None:
    node.work.clear()


def dict_set(edit: Edit, node: Node, key: Any, value: Any) -> None:
    if type(key) not in ATOMS:
        hash(key)
        key = edit.adopt.hashed(key, f"[key {key!r}]")
    node.work[key] = value if type(value) in ATOMS else edit.adopt(value, f"[{key!r}]")


def dict_setdefault(edit: Edit, node: Node, key: Any, default: Any) -> Any:
    work = node.work
    if key not in work:
        dict_set(edit, node, key, default)
    return work[key]


def dict_update(edit: Edit, node: Node, new: dict[Any, Any]) -> None:
    made: dict[Any, Any] = {}
    for key, value in new.items():
        made[edit.adopt.hashed(key, f"[key {key!r}]")] = edit.adopt(value, f"[{key!r}]")
    update(node, made)


def update(node: Node, made: Any) -> None:
    """Update a dict or set with all of `made`, or with nothing when a comparison fails."""
    if all(type(key) in ATOMS for key in made):
        node.work.update(made)
        return
    before = node.work.copy()
    try:
        node.work.update(made)
    except BaseException:
        node.work.clear()
        node.work.update(before)
        raise


def dict_popitem(edit: Edit, node: Node) -> Any:
    return plain(node.work.popitem())


def set_add(edit: Edit, node: Node, item: Any) -> None:
    if type(item) not in ATOMS:
        hash(item)
        item = edit.adopt.hashed(item, "{…}")
    node.work.add(item)


def set_update(edit: Edit, node: Node, items: list[Any]) -> None:
    update(node, {edit.adopt.hashed(item, "{…}") for item in items})


def set_discard(edit: Edit, node: Node, item: Any) -> None:
    node.work.discard(item)


def set_remove(edit: Edit, node: Node, item: Any) -> None:
    node.work.remove(item)


def set_keep(edit: Edit, node: Node, result: set[Any]) -> None:
    made = {edit.adopt.hashed(item, "{…}") for item in result}
    node.work.clear()
    node.work.update(made)


def set_combine(edit: Edit, node: Node, combine: Callable[..., Any], others: Any) -> None:
    set_keep(edit, node, combine(set(node.work), *others))
