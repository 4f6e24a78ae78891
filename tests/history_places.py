"""What is in the stores that histories are made of, and how it is changed and read.

A *place* is a list, set or register in a store, with a key that is its name in the history.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sample_classes import Account

__all__ = ["Group", "Place", "all_places", "big_places", "fill", "small_places"]

BIG = 10_500  # items: some dozens of pages


@dataclass(frozen=True)
class Place:
    """A list, set or register in a store.

    Attributes:
        key: its name in histories.
        verb: what a change of it is called there.
        reach: returns the container that it is, or is in; of a store or a snapshot.
        put: changes it, in its container.
        get: reads it, as it is written down.
    """

    key: str
    verb: str
    reach: Callable[[Any], Any]
    put: Callable[[Any, Any], Any]
    get: Callable[[Any], Any]

    def read(self, container: Any) -> list[list[Any]]:
        """Read it, for the history."""
        return [["members" if self.verb == "add" else "read", self.key, self.get(container)]]


@dataclass(frozen=True)
class Group:
    """Registers in one container, which are read all at once; `keys` are their names."""

    key: str
    keys: tuple[str, ...]
    reach: Callable[[Any], Any]
    get: Callable[[Any], list[Any]]

    def read(self, container: Any) -> list[list[Any]]:
        """Read them, for the history."""
        found = self.get(container)
        return [["read", key, value] for key, value in zip(self.keys, found, strict=True)]


def _register(key: str, name: Any, reach: Callable[[Any], Any]) -> Place:
    def put(container: Any, value: int) -> None:
        container[name] = value

    return Place(key, "write", reach, put, lambda container: container[name])


def _appended(found: list[Any]) -> list[Any]:
    """Return what was put behind the items that a large list has from the beginning."""
    return found[BIG:] if found[:BIG] == [-1] * BIG else found


CELLS = (0, BIG // 2, BIG - 1)


def big_places() -> list[Place | Group]:
    """Return the places in values that are spread over many pages."""

    def cells(root: Any) -> Any:
        return root["big"]["cells"]

    def index(root: Any) -> Any:
        return root["big"]["index"]

    return [
        Place(
            "big.log",
            "append",
            lambda root: root["big"]["log"],
            lambda log, value: log.append(value),
            lambda log: _appended(list(log)),
        ),
        Place(
            "big.members",
            "add",
            lambda root: root["big"]["members"],
            lambda members, value: members.add(value),
            lambda members: sorted(value for value in members if type(value) is int),
        ),
        *(_register(f"big.cells.{at}", at, cells) for at in CELLS),
        Group(
            "big.cells",
            tuple(f"big.cells.{at}" for at in CELLS),
            cells,
            lambda found: list(map(list(found).__getitem__, CELLS)),
        ),
        *(_register(f"big.index.{at}", f"key {at}", index) for at in CELLS),
        Group(
            "big.index",
            tuple(f"big.index.{at}" for at in CELLS),
            index,
            lambda found: list(map(dict(found.items()).__getitem__, (f"key {n}" for n in CELLS))),
        ),
    ]


def small_places(generation: int) -> list[Place | Group]:
    """Return the places in the small values of a generation."""
    name = f"small{generation}"

    def inside(part: str) -> Callable[[Any], Any]:
        return lambda root: root[name][part]

    return [
        Place(f"{name}.log", "append", inside("log"), lambda log, v: log.append(v), list),
        Place(
            f"{name}.table",
            "append",
            inside("table"),
            lambda table, value: table.setdefault(value, value),
            list,
        ),
        Place(f"{name}.members", "add", inside("members"), lambda s, v: s.add(v), sorted),
        Place(
            f"{name}.account.history",
            "append",
            lambda root: root[name]["account"].history,
            lambda history, value: history.extend([value]),
            list,
        ),
        Place(
            f"{name}.account.balance",
            "write",
            inside("account"),
            lambda account, value: setattr(account, "balance", value),
            lambda account: account.balance,
        ),
        *(_register(f"{name}.registers.{one}", one, inside("registers")) for one in "ab"),
        Group(
            f"{name}.registers",
            tuple(f"{name}.registers.{one}" for one in "ab"),
            inside("registers"),
            # dict(registers) would ask for one after the other
            lambda registers: list(map(registers.copy().__getitem__, "ab")),
        ),
        _register(f"{name}.top", f"{name}.top", lambda root: root),
    ]


def fill(store: Any, generations: int) -> None:
    """Put in what all places are in."""
    with store.transaction():
        for generation in range(generations):
            store[f"small{generation}"] = {
                "log": [],
                "table": {},
                "members": set(),
                "account": Account("ann", None),  # type: ignore[arg-type]
                "registers": {"a": None, "b": None},
            }
            store[f"small{generation}.top"] = None
        store["big"] = {
            "log": [-1] * BIG,
            "members": {f"member {n}" for n in range(BIG)},
            "cells": [None] * BIG,
            "index": {f"key {n}": None for n in range(BIG)},
        }


def all_places(generations: int) -> list[Place | Group]:
    """Return all places."""
    return [
        *big_places(),
        *(place for number in range(generations) for place in small_places(number)),
    ]
