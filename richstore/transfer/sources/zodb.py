"""What ZODB has written to a FileStorage: persistent objects become what they stand for.

`PersistentMapping` and BTrees become dicts, `PersistentList` a list, tree sets and sets a set, a
`Length` an int. Instances of other persistent classes stay instances. What is reached from one key
of the root is one value.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from richstore.codec import foreign
from richstore.transfer.filling import Row
from richstore.transfer.sources.base import Opened, said
from richstore.transfer.sources.filestorage import ROOT, FileStorage, is_file_storage

__all__ = ["files", "is_one", "rows"]

is_one = is_file_storage


def files(path: Path) -> list[Path]:
    """Return the files that are read."""
    return [path]


class _Kind:
    """Stands for a persistent class whose instances become something built in."""

    def __init__(self, name: str, make: Callable[[], Any]) -> None:
        self.name = name
        self.make = make

    def __call__(self, *_: Any) -> Any:
        raise TypeError(f"{self.name} is called in a pickle")

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError("a class of ZODB is left in the value")


class _Reference:
    """Stands for an object that is not read."""

    def __init__(self, oid: bytes) -> None:
        self.oid = oid

    def __deepcopy__(self, memo: Any) -> Any:
        return memo[_LOADER].shell(self.oid)

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError("a reference of ZODB is left in the value")


def _kinds() -> dict[tuple[str, str], Any]:
    found: dict[tuple[str, str], Any] = {
        ("persistent.mapping", "PersistentMapping"): _Kind("mapping", dict),
        ("persistent.dict", "PersistentDict"): _Kind("mapping", dict),
        ("persistent.list", "PersistentList"): _Kind("list", list),
        ("BTrees.Length", "Length"): _Kind("length", int),
        ("ZODB.blob", "Blob"): _Kind("blob", object),
    }
    families = [f"{key}{value}" for key in "OILUQ" for value in "OILUQF"]
    for family in (*families, "fs"):
        for name, kind in (
            ("BTree", _Kind("tree", dict)),
            ("Bucket", _Kind("bucket", dict)),
            ("TreeSet", _Kind("tree set", set)),
            ("Set", _Kind("bucket set", set)),
        ):
            found[f"BTrees.{family}BTree", f"{family}{name}"] = kind
    return found


_KINDS = _kinds()
# Where copies find what resolves references; what else is there are numbers.
_LOADER = "loader"
_TREES = frozenset(("tree", "tree set"))
_BUCKETS = frozenset(("bucket", "bucket set"))
_NODES = _TREES | _BUCKETS


def rows(opened: Opened) -> Iterator[Row]:
    """Yield the items of the root."""
    path = str(opened.path)
    with opened.path.open("rb") as file:
        with said(path):
            storage = FileStorage(file, path)
            root = _Loader(storage, opened).root()
        reached: set[bytes] = set()
        for key, stored in root.items():
            place = f"{path}, [{key!r}]"
            loader = _Loader(storage, opened)
            with said(place):
                value = loader.load(stored)
            for _ in reached.intersection(loader.made):
                opened.note("objects that keys of the root have shared, and are copies now")
            reached.update(loader.made)
            yield Row((), key, value, place)


class _Loader:
    """Reads what is reached from one object.

    Args:
        storage: where the objects are.
        opened: says what may be named.
    """

    def __init__(self, storage: FileStorage, opened: Opened) -> None:
        self.storage = storage
        self.opened = opened
        # by id: what stands for each object, made empty when it is first met
        self.made: dict[bytes, Any] = {}
        self.waiting: deque[Callable[[], None]] = deque()
        # the kinds of objects that are wanted as references; None: all
        self.unread: frozenset[str] | None = frozenset()

    def root(self) -> dict[Any, Any]:
        """Return the root, with references in place of what it refers to."""
        reading, kind = self.begin(ROOT)
        if kind is not _KINDS["persistent.mapping", "PersistentMapping"]:
            raise ValueError("its root is no PersistentMapping")
        self.unread = None
        found: dict[Any, Any] = _data(reading.next(), dict)
        return found

    def load(self, stored: Any) -> Any:
        """Return a value of the root, with what it refers to in place of references."""
        memo: dict[Any, Any] = {_LOADER: self}
        value = copy.deepcopy(stored, memo)
        # not by recursion: objects may be in each other thousands deep
        while self.waiting:
            self.waiting.popleft()()
        return value

    def begin(self, oid: bytes) -> tuple[foreign.Reading, Any]:
        """Begin to read an object; return what reads its state, and its class."""
        reading = foreign.Reading(self.opened.policy, _KINDS, self.fetch)
        return reading, reading.next(self.storage.load(oid))

    def fetch(self, reference: Any) -> Any:
        """Return what a pickle refers to."""
        oid, kind = _target(reference)
        if self.unread is None or (isinstance(kind, _Kind) and kind.name in self.unread):
            return _Reference(oid)
        return self.shell(oid)

    def shell(self, oid: bytes) -> Any:
        """Return what stands for an object, which may not be filled yet."""
        if oid in self.made:
            return self.made[oid]
        reading, kind = self.begin(oid)
        arguments: Any = ()
        if type(kind) is tuple and len(kind) == 2:
            kind, arguments = kind[0], kind[1] or ()
        made: Any
        if not isinstance(kind, _Kind):
            made = reading.new(kind, arguments)
            if any(base.__module__.partition(".")[0] == "persistent" for base in kind.__mro__):
                name = f"{kind.__module__}.{kind.__qualname__}"
                self.opened.note(f"instances of {name}, which still inherits from persistent")
            self.waiting.append(lambda: reading.build(made, reading.next()))
        elif kind.name == "blob":
            raise ValueError("it has a blob, whose bytes lie in another file; take it out before")
        elif kind.name == "length":
            made = reading.next()
        else:
            made = kind.make()
            self.waiting.append(lambda: self.fill(oid, kind, made, reading))
        self.made[oid] = made
        return made

    def fill(self, oid: bytes, kind: _Kind, made: Any, reading: foreign.Reading) -> None:
        """Fill what stands for a persistent container."""
        if kind.name in _NODES:
            for items in self.buckets(oid):
                if type(made) is set:
                    made.update(items)
                else:
                    made.update(zip(items[::2], items[1::2], strict=True))
        elif type(made) is dict:
            made.update(_data(reading.next(), dict))
        else:
            made.extend(_data(reading.next(), list))

    def buckets(self, oid: bytes | None) -> Iterator[tuple[Any, ...]]:
        """Yield what each bucket of a tree holds: members, or keys and values in turn."""
        seen: set[bytes] = set()
        while oid is not None:
            if oid in seen:
                raise ValueError("the buckets of a tree lead in a circle")
            seen.add(oid)
            is_tree = self.begin(oid)[1].name in _TREES
            state = self.state(oid, _NODES if is_tree else _BUCKETS)
            if state is None:
                return
            if is_tree and len(state) == 2:
                # what is below it, and the first bucket, which leads to the others
                oid = state[1].oid
                continue
            if is_tree:
                # a small tree has its only bucket inside, in which trees may be values
                state = self.state(oid, _BUCKETS)[0][0]
            yield state[0]
            oid = state[1].oid if len(state) == 2 else None

    def state(self, oid: bytes, unread: frozenset[str]) -> Any:
        """Return the state of a node of a tree, with references to some kinds of nodes."""
        reading, _ = self.begin(oid)
        self.unread = unread
        try:
            return reading.next()
        finally:
            self.unread = frozenset()


def _data(state: Any, kind: type) -> Any:
    """Return what a persistent list or mapping holds."""
    found = state.get("data", state.get("_container")) if type(state) is dict else None
    if type(found) is not kind:
        raise ValueError(f"a persistent {kind.__name__} does not hold one")
    if len(state) > 1:
        raise ValueError(f"a persistent {kind.__name__} has attributes: {sorted(state)}")
    return found


def _target(reference: Any) -> tuple[bytes, Any]:
    """Return the id of the object that a reference leads to, and its class if that is said."""
    oid, kind = reference if type(reference) is tuple and len(reference) == 2 else (reference, None)
    if type(oid) is not bytes or len(oid) != len(ROOT):
        # a list: weak, or to another database
        raise ValueError("it refers to another database, or refers weakly, which values do not")
    return oid, kind
