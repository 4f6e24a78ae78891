"""What a benchmark asks of a store, whatever its make.

Every change is committed when the call returns, as durably as `synchronous` says, or at the end of
the `transaction()` block that it is in. Three sorts of things are asked for: values under keys; one
large container (`build` makes it and `hold` gives what the calls on its items are made with); and
many small objects.

What a store cannot do is said in `without`, what would take it too long in `largest`, both with
the reason, so that nothing is left out silently.
"""

# ruff: noqa: D102 - `Adapter` says what the methods of `Keyed` do

from __future__ import annotations

import abc
import contextlib
from collections.abc import Iterable, Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

from benchmarks.values import Thing, items

__all__ = ["CONTAINER", "Adapter", "Keyed", "Place"]

# The steps into a value: dict keys and list indices.
Place: TypeAlias = tuple[Any, ...]
# The key of the one large container of a store.
CONTAINER = "container"


class Adapter(abc.ABC):
    """One open store in a directory of its own.

    Here for stores whose containers change in place; those that know only whole values under keys
    are `Keyed`.

    Args:
        directory: where its files go.
        synchronous: `"full"`: on the disk, through a power failure, when a call returns. `"off"`:
            handed to the system.

    Attributes:
        name: what it is called in the figures.
        module: the package that it needs.
        durable: what it does for each word of `synchronous`, in words; a word that is missing is
            one that it does not offer.
        without: reasons for what it cannot do, by feature: `"insert"`, `"set"`, `"processes"`,
            `"appends"` (to one list by several processes), `"snapshot"`.
        largest: the size up to which it is measured and the reason, by kind of container.
    """

    name: ClassVar[str]
    module: ClassVar[str]
    durable: ClassVar[dict[str, str]]
    without: ClassVar[dict[str, str]] = {}
    largest: ClassVar[dict[str, tuple[int, str]]] = {}

    def __init__(self, directory: Path, synchronous: str) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.grouped = False
        self.open(directory, synchronous)

    @classmethod
    def missing(cls) -> str:
        """Return why the package cannot be used here, or nothing when it can."""
        if find_spec(cls.module) is None:
            return "not installed"
        try:
            import_module(cls.module)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is named in the report
            return f"import fails: {error!r}"
        return ""

    @classmethod
    def word(cls, synchronous: str) -> str:
        """Return the durability that it runs with when asked for one: the next more durable."""
        return synchronous if synchronous in cls.durable else "full"

    @abc.abstractmethod
    def open(self, directory: Path, synchronous: str) -> None:
        """Open the store."""

    @abc.abstractmethod
    def close(self) -> None:
        """Close the store."""

    def cool(self) -> None:  # noqa: B027 - most have nothing to forget
        """Forget the objects that were loaded, but keep the store open."""

    def commit(self) -> None:  # noqa: B027 - most commit by themselves
        """Commit what was changed, except in a `transaction()` block."""

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Put the changes of a block into one commit."""
        self.grouped = True
        try:
            yield
        finally:
            self.grouped = False
        self.commit()

    def snapshot(self) -> contextlib.AbstractContextManager[None]:
        """Keep the present state readable for as long as a block runs.

        Not abstract: a store that has none says why in `without`, and then nobody asks it.
        """
        raise NotImplementedError(f"{self.name} has no snapshots")

    # --- values under keys ---

    @abc.abstractmethod
    def put(self, key: str, value: Any) -> None:
        """Set a value under a key."""

    @abc.abstractmethod
    def get(self, key: str) -> Any:
        """Return the value under a key, or raise KeyError."""

    @abc.abstractmethod
    def delete(self, key: str) -> None:
        """Remove a key; when there is none, do nothing."""

    def change(self, key: str, place: Place, value: Any) -> None:
        """Set an item inside a value."""
        _walk(self.get(key), place[:-1])[place[-1]] = value
        self.commit()

    def change_attribute(self, key: str, depth: int, value: Any) -> None:
        """Set the attribute `attr` of the innermost of instances that hold each other as `data`."""
        _descend(self.get(key), depth).attr = value
        self.commit()

    def read(self, key: str, place: Place) -> Any:
        """Return an item inside a value."""
        return _walk(self.get(key), place)

    # --- objects ---

    def thing(self, attr: int, data: Any) -> Any:
        """Return an instance with two attributes, of the sort that this store keeps."""
        return Thing(attr, data)

    def start_objects(self) -> None:
        """Make the mapping of objects, empty."""
        self.put("objects", {})

    def add_objects(self, objects: dict[str, Any]) -> None:
        """Add objects, in one commit."""
        with self.transaction():
            self.get("objects").update(objects)

    def update_objects(self, names: Iterable[str], value: int) -> None:
        """Set the attribute of objects, in one commit."""
        with self.transaction():
            found = self.get("objects")
            for name in names:
                found[name].attr = value

    def read_objects(self) -> int:
        """Return the sum of the attributes of all objects."""
        return sum(each.attr for each in self.get("objects").values())

    # --- one large container ---

    @abc.abstractmethod
    def build(self, kind: str, size: int) -> None:
        """Make the large container."""

    def hold(self) -> Any:
        """Return what the calls below take for the large container."""
        return self.get(CONTAINER)

    def append(self, held: Any, item: Any) -> None:
        """Append an item to the list."""
        held.append(item)
        self.commit()

    def pop(self, held: Any) -> None:
        """Remove the last item of the list."""
        held.pop()
        self.commit()

    def insert(self, held: Any, at: int, item: Any) -> None:
        """Put an item before another one of the list."""
        held.insert(at, item)
        self.commit()

    def remove(self, held: Any, at: Any) -> None:
        """Delete an item of the list or an entry of the dict."""
        del held[at]
        self.commit()

    def set_item(self, held: Any, at: Any, item: Any) -> None:
        """Set an item of the list or an entry of the dict, which may be new."""
        held[at] = item
        self.commit()

    def item(self, held: Any, at: Any) -> Any:
        """Return an item of the list or of the dict."""
        return held[at]

    def last(self, held: Any, size: int) -> Any:
        """Return the last item of a list of a size."""
        return self.item(held, size - 1)

    def add(self, held: Any, element: int) -> None:
        """Add an element to the set."""
        held.add(element)
        self.commit()

    def discard(self, held: Any, element: int) -> None:
        """Remove an element of the set."""
        held.discard(element)
        self.commit()

    def scan(self, held: Any) -> Iterator[Any]:
        """Yield the items of the list."""
        yield from held

    def __enter__(self) -> Adapter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Keyed(Adapter):
    """A store of whole values under keys.

    A list is one value, read and stored again at each change. A dict and the objects are the store
    itself, one key for each entry, since that is what these stores are for.
    """

    without: ClassVar[dict[str, str]] = {
        "set": "it stores whole values: a set would be the same row as a list",
        "appends": "it reads, changes and stores the whole list: appends of others get lost",
    }

    def change(self, key: str, place: Place, value: Any) -> None:
        whole = self.get(key)
        _walk(whole, place[:-1])[place[-1]] = value
        self.put(key, whole)

    def change_attribute(self, key: str, depth: int, value: Any) -> None:
        whole = self.get(key)
        _descend(whole, depth).attr = value
        self.put(key, whole)

    def start_objects(self) -> None:
        self.names: list[str] = []

    def add_objects(self, objects: dict[str, Any]) -> None:
        with self.transaction():
            for name, each in objects.items():
                self.put(name, each)
        self.names = list(dict.fromkeys([*self.names, *objects]))

    def update_objects(self, names: Iterable[str], value: int) -> None:
        with self.transaction():
            for name in names:
                each = self.get(name)
                each.attr = value
                self.put(name, each)

    def read_objects(self) -> int:
        return sum(self.get(name).attr for name in self.names)

    def build(self, kind: str, size: int) -> None:
        if kind != "dict":
            self.put(CONTAINER, list(items(kind, size)))
            return
        with self.transaction():
            for key, item in items(kind, size):
                self.put(key, item)

    def hold(self) -> Any:
        return CONTAINER

    def append(self, held: Any, item: Any) -> None:
        whole = self.get(held)
        whole.append(item)
        self.put(held, whole)

    def pop(self, held: Any) -> None:
        whole = self.get(held)
        whole.pop()
        self.put(held, whole)

    def insert(self, held: Any, at: int, item: Any) -> None:
        whole = self.get(held)
        whole.insert(at, item)
        self.put(held, whole)

    def remove(self, held: Any, at: Any) -> None:
        if isinstance(at, str):
            self.delete(at)
            return
        whole = self.get(held)
        del whole[at]
        self.put(held, whole)

    def set_item(self, held: Any, at: Any, item: Any) -> None:
        if isinstance(at, str):
            self.put(at, item)
            return
        whole = self.get(held)
        whole[at] = item
        self.put(held, whole)

    def item(self, held: Any, at: Any) -> Any:
        return self.get(at) if isinstance(at, str) else self.get(held)[at]

    def scan(self, held: Any) -> Iterator[Any]:
        yield from self.get(held)


def _walk(value: Any, place: Place) -> Any:
    for step in place:
        value = value[step]
    return value


def _descend(value: Any, depth: int) -> Any:
    for _ in range(depth - 1):
        value = value.data
    return value
