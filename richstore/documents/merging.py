"""Bringing a live value up to date with plain data, so that what users hold goes on living.

The formats of documents have no identities. So what is at the same place and of the same type is
taken for the same container.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from richstore.documents.comparing import difference
from richstore.nodes.plain import plain

__all__ = ["merge"]


def merge(old: Any, new: Any, replace: Callable[[Any], None]) -> None:
    """Make a live value equal to plain data, by as few changes as the places allow.

    Args:
        old: a value of a store, inside a transaction.
        new: plain data.
        replace: puts another value in its place.
    """
    todo: list[tuple[Any, Any, Callable[[Any], None]]] = [(old, new, replace)]
    while todo:
        old, new, replace = todo.pop()
        if type(new) is dict and isinstance(old, dict):
            todo += _merge_dict(old, new)
        elif type(new) is list and isinstance(old, list):
            todo += _merge_list(old, new)
        elif difference(plain(old), new) is not None:
            replace(new)


def _merge_dict(old: Any, new: dict[Any, Any]) -> list[tuple[Any, Any, Callable[[Any], None]]]:
    kept = [key for key in old if key in new]
    if [(type(key), key) for key in kept] != [(type(key), key) for key in new][: len(kept)]:
        # another order, or keys that only seem the same: what is kept comes again in order
        before = {key: old[key] for key in kept}
        old.clear()
        old.update({key: before.get(key) for key in new})
    for key in [key for key in old if key not in new]:
        del old[key]
    found = []
    for key, value in new.items():
        if key in old:
            found.append((old[key], value, _setter(old, key)))
        else:
            old[key] = value
    return found


def _merge_list(old: Any, new: list[Any]) -> list[tuple[Any, Any, Callable[[Any], None]]]:
    if len(old) > len(new):
        del old[len(new) :]
    both = len(old)
    if len(new) > both:
        old.extend(new[both:])
    return [(old[at], new[at], _setter(old, at)) for at in range(both)]


def _setter(container: Any, key: Any) -> Callable[[Any], None]:
    def put(value: Any) -> None:
        container[key] = value

    return put
