"""A Hypothesis state machine: a store on LMDB against the same calls on plain Python.

The model is a dict of plain values. Each stored container has a plain *twin*; both are reached by
the same path, changed by the same call, and compared by content and aliasing after each step. The
model is rolled back in place, so that a twin stays the twin of its proxy.
"""

from __future__ import annotations

import contextlib
import copy
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from conftest import TINY, canonical, check_store
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from sample_classes import Bare

import richstore

KEYS = st.sampled_from(["a", "b", (1, "c")])
ATOMS = st.one_of(
    st.integers(-3, 3), st.sampled_from(["x", "y", "", None, True, 1.5, b"b", (1, "t")])
)
NAMES = st.sampled_from(["p", "q", "r"])
BIG = 60  # containers; above it a value is not made larger


class Hole:
    """The place of an existing container in a template of a new value."""


HOLE = Hole()


def containers_of(children: Any) -> Any:
    """Return a strategy of containers that hold `children`."""
    return st.one_of(
        st.lists(children, max_size=4),
        st.dictionaries(NAMES | st.integers(0, 3), children, max_size=3),
        st.sets(ATOMS, max_size=3),
        st.tuples(children, children),
        st.builds(lambda state: Bare(**state), st.dictionaries(NAMES, children, max_size=3)),
        st.builds(lambda child: [child, {"again": child}], st.lists(children, max_size=2)),
    )


VALUES = containers_of(st.recursive(ATOMS, containers_of, max_leaves=6)) | ATOMS
TEMPLATES = st.recursive(ATOMS | st.just(HOLE), containers_of, max_leaves=5)
PICK = st.integers(0, 500)  # modulo the number of what can be picked
CHANGES = st.lists(
    st.tuples(PICK, PICK, TEMPLATES, PICK, st.integers(0, 5)), min_size=1, max_size=3
)


def fill(template: Any, filler: Any) -> Any:
    """Return a copy of the template with the holes filled, its own aliases kept."""
    return copy.deepcopy(template, _Memo(filler))


class _Memo(dict[int, Any]):
    """A deepcopy memo that knows what to put in place of the hole."""

    def __init__(self, filler: Any) -> None:
        super().__init__({id(HOLE): filler})


def children(value: Any) -> list[Any]:
    """Return what a plain or stored container holds, in a fixed order."""
    if isinstance(value, (list, tuple)):
        return list(value)
    if isinstance(value, dict):
        return list(value.values())
    if isinstance(value, Bare):
        return [item for _name, item in sorted(vars(value).items())]
    return []


def is_node(value: Any) -> bool:
    """Whether a value is a mutable container."""
    return isinstance(value, (list, dict, set, Bare))


def reachable(value: Any) -> dict[int, Any]:
    """Return all mutable containers in a plain value by id."""
    found: dict[int, Any] = {}
    todo = [value]
    while todo:
        item = todo.pop()
        if is_node(item):
            if id(item) in found:
                continue
            found[id(item)] = item
        todo += children(item)
    return found


def contents(item: Any) -> Any:
    """Return a shallow copy of a container's content."""
    return dict(vars(item)) if isinstance(item, Bare) else copy.copy(item)


def restore(item: Any, content: Any) -> None:
    """Give a container the content that `contents` returned."""
    target = vars(item) if isinstance(item, Bare) else item
    target.clear()
    target.extend(content) if isinstance(target, list) else target.update(content)


def fail(*_args: Any) -> Any:
    """Raise as user code may."""
    raise LookupError("user code")


def sort_key(item: Any) -> str:
    """Order anything, by what does not depend on identity."""
    return item.__class__.__name__ if is_node(item) else repr(item)


def failing(items: list[Any]) -> Any:
    """Yield some items, then raise."""
    yield from items
    fail()


LIST_CALLS: dict[str, Callable[[Any, int, Any], Any]] = {
    "append": lambda v, n, x: v.append(x),
    "insert": lambda v, n, x: v.insert(n - 3, x),
    "setitem": lambda v, n, x: v.__setitem__(n - 3, x),
    "extend": lambda v, n, x: v.extend([x, n]),
    "iadd": lambda v, n, x: v.__iadd__((x, x)) and None,
    "slice": lambda v, n, x: v.__setitem__(slice(n % 3, n), [x, n]),
    "step": lambda v, n, x: v.__setitem__(slice(None, None, 2), [x] * n),
    "delitem": lambda v, n, x: v.__delitem__(n - 3),
    "del slice": lambda v, n, x: v.__delitem__(slice(n % 3, n)),
    "pop": lambda v, n, x: v.pop(n - 3),
    "clear": lambda v, n, x: v.clear() if n == 0 else v.reverse(),
    "sort": lambda v, n, x: v.sort(key=sort_key, reverse=bool(n % 2)),
    "imul": lambda v, n, x: v.__imul__(2 if len(v) < 5 else 1) and None,
    "swap": lambda v, n, x: v.__setitem__(slice(None), v[1:] + v[:1]),
    "alias": lambda v, n, x: v.append(v[n - 3]),
    "remove": lambda v, n, x: v.remove(n),
    "grow": lambda v, n, x: v.__setitem__(slice(n, n), range(n * 8)) if len(v) < 90 else None,
    "shrink": lambda v, n, x: v.__delitem__(slice(n, len(v) - n)),
    "bad": lambda v, n, x: v.extend([x, threading.Lock(), n]),
    "bad iterable": lambda v, n, x: v.extend(failing([x])),
    "bad key": lambda v, n, x: v.sort(key=fail) if len(v) else fail(),
}
DICT_CALLS: dict[str, Callable[[Any, int, Any], Any]] = {
    "setitem": lambda v, n, x: v.__setitem__("pqrs"[n % 4], x),
    "int key": lambda v, n, x: v.__setitem__(n, x),
    "update": lambda v, n, x: v.update({"p": x, n: x}),
    "ior": lambda v, n, x: v.__ior__({"q": x}) and None,
    "setdefault": lambda v, n, x: v.setdefault("pqrs"[n % 4], x) and None,
    "delitem": lambda v, n, x: v.__delitem__(next(iter(v), "none")),
    "pop": lambda v, n, x: v.pop("pqrs"[n % 4]),
    "popitem": lambda v, n, x: v.popitem(),
    "clear": lambda v, n, x: v.clear() if n == 0 else None,
    "move": lambda v, n, x: v.update({"moved": v["p"]}) or v.__delitem__("p"),
    "grow": lambda v, n, x: v.update((f"grown {m}", m) for m in range(n * 5)),
    "shrink": lambda v, n, x: [v.popitem() for _ in range(len(v) - n)] and None,
    "bad": lambda v, n, x: v.update({"p": x, "bad": [threading.Lock()]}),
    "bad iterable": lambda v, n, x: v.update(failing([("p", x)])),
}
SET_CALLS: dict[str, Callable[[Any, int, Any], Any]] = {
    "add": lambda v, n, x: v.add(n),
    "update": lambda v, n, x: v.update([n, n + 1, "z"]),
    "discard": lambda v, n, x: v.discard(n - 3),
    "remove": lambda v, n, x: v.remove(n - 3),
    "isub": lambda v, n, x: v.__isub__({1, 2, "x"}) and None,
    "ixor": lambda v, n, x: v.__ixor__({n, "x"}) and None,
    "clear": lambda v, n, x: v.clear() if n == 0 else None,
    "grow": lambda v, n, x: v.update(range(100, 100 + n * 8)),
    "shrink": lambda v, n, x: v.difference_update(range(100 + n, 200)),
    "bad": lambda v, n, x: v.update(failing([n, "w"])),
    "unhashable": lambda v, n, x: v.update([n, [1]]),
}
BARE_CALLS: dict[str, Callable[[Any, int, Any], Any]] = {
    "setattr": lambda v, n, x: setattr(v, "pqrs"[n % 4], x),
    "delattr": lambda v, n, x: delattr(v, "pqrs"[n % 4]),
    "alias": lambda v, n, x: setattr(v, "alias", v.p),
    "bad": lambda v, n, x: setattr(v, "p", [x, threading.Lock()]),
}
BY_KIND = [(list, LIST_CALLS), (dict, DICT_CALLS), (set, SET_CALLS), (Bare, BARE_CALLS)]


class StoreMachine(RuleBasedStateMachine):
    """Nested values, aliases, moves, held proxies, blocks, reopening, snapshots, two handles."""

    options: Mapping[str, Any] = {"synchronous": "off"}

    def __init__(self) -> None:
        super().__init__()
        memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # thousands of files
        self.directory = tempfile.TemporaryDirectory(dir=memory)
        self.path = str(Path(self.directory.name) / "machine.db")
        self.model: dict[Any, Any] = {}
        self.held: list[tuple[int, Any, Any]] = []  # handle, proxy, twin
        self.blocks: list[tuple[Any, Any, Any]] = []  # block, transaction, state to go back to
        self.views: list[tuple[Any, Any]] = []  # snapshot, canonical content
        self.committed: Any = []
        self.handle = 0
        self._open()

    def _open(self) -> None:
        self.stores = [richstore.open(self.path, **self.options) for _ in range(2)]

    def _verify(self) -> None:
        if not self.blocks and hasattr(self.store, "verify"):
            check_store(self.store)

    def _close(self) -> None:
        for view, _expected in self.views:
            view.close()
        for store in self.stores:
            store.close()
        self.views, self.held = [], []

    @property
    def store(self) -> Any:
        return self.stores[self.handle]

    def _choose(self, handle: int) -> Any:
        """Use a handle; inside a block the one that began it."""
        if not self.blocks:
            self.handle = handle
        return self.store

    def _save(self) -> Any:
        """Return the state of the model, for going back to it in place."""
        items = reachable(list(self.model.values())).values()
        return dict(self.model), [(item, contents(item)) for item in items]

    def _go_back(self, state: Any) -> None:
        self.model, items = dict(state[0]), state[1]
        for item, content in items:
            restore(item, content)

    def _pairs(self) -> list[tuple[Any, Any, Any]]:
        """Return the key, the proxy and the twin of each container, found by walking down both."""
        found: list[tuple[Any, Any, Any]] = []
        seen: set[int] = set()
        for key, value in self.model.items():
            todo = [(self.store[key], value)]
            while todo:
                proxy, twin = todo.pop()
                if is_node(twin):
                    if id(twin) in seen:
                        continue
                    seen.add(id(twin))
                    found.append((key, proxy, twin))
                inside = children(proxy), children(twin)
                assert len(inside[0]) == len(inside[1])
                todo += zip(*inside, strict=True)
        return found

    def _pick(self, number: int) -> tuple[Any, Any, Any]:
        """Return one of the pairs, or an atom when there are none."""
        pairs = self._pairs()
        return pairs[number % len(pairs)] if pairs else (None, 0, 0)

    def _run(self, call: Callable[[], Any], twin_call: Callable[[], Any]) -> None:
        """Do a call on the store and on the model; an error must be the same and change nothing."""
        before = self._save()
        error = twin_error = None
        result = expected = None
        try:
            expected = twin_call()
        except Exception as caught:
            twin_error = caught
            self._go_back(before)
        try:
            result = call()
        except richstore.EncodingError as caught:
            error = caught
            self._go_back(before)  # a lock is fine in the model, and not in the store
        except Exception as caught:
            error = caught
        if isinstance(error, richstore.EncodingError):
            assert "lock" in str(error)
        else:
            assert type(error) is type(twin_error), (error, twin_error)
            assert canonical(richstore.plain(result)) == canonical(expected)

    # --- values -----------------------------------------------------------------------------

    @initialize(key=KEYS, value=VALUES)
    def start(self, key: Any, value: Any) -> None:
        self.put(0, key, value)

    @rule(handle=st.integers(0, 1), key=KEYS, value=VALUES)
    def put(self, handle: int, key: Any, value: Any) -> None:
        self._choose(handle)[key] = value
        self.model[key] = copy.deepcopy(value)

    @rule(key=KEYS, value=VALUES)
    def put_bad(self, key: Any, value: Any) -> None:
        with pytest.raises(richstore.EncodingError):
            self.store[key] = {"fine": value, "bad": [threading.Lock()]}

    @rule(handle=st.integers(0, 1), key=KEYS, pops=st.booleans(), any_key=st.booleans())
    def remove(self, handle: int, key: Any, pops: bool, any_key: bool) -> None:
        store = self._choose(handle)
        if any_key and self.model:
            key = next(reversed(self.model))
        if pops:
            self._run(lambda: store.pop(key), lambda: self.model.pop(key))
        else:
            self._run(lambda: store.__delitem__(key), lambda: self.model.__delitem__(key))

    @precondition(lambda self: self.model)
    @rule(handle=st.integers(0, 1), pick=PICK, to=KEYS)
    def copy_to_another_key(self, handle: int, pick: int, to: Any) -> None:
        store = self._choose(handle)
        key, proxy, twin = self._pick(pick)
        if key is not None and key != to and len(reachable(list(self.model.values()))) < 2 * BIG:
            store[to] = proxy
            self.model[to] = copy.deepcopy(twin)

    # --- changes ----------------------------------------------------------------------------

    @precondition(lambda self: self.model)
    @rule(handle=st.integers(0, 1), changes=CHANGES)
    def change(self, handle: int, changes: Any) -> None:
        """Call mutators of any containers with new values that may hold existing containers."""
        self._choose(handle)
        for pick, *change in changes:
            self._change(*self._pick(pick), *change)

    @precondition(lambda self: self.model)
    @rule(handle=st.integers(0, 1), changes=CHANGES)
    def change_by_existing(self, handle: int, changes: Any) -> None:
        """Call mutators of any containers with existing containers."""
        self._choose(handle)
        for pick, other, _template, call, number in changes:
            self._change(*self._pick(pick), other, HOLE, call, number)

    @precondition(lambda self: self.held)
    @rule(changes=CHANGES)
    def change_the_held(self, changes: Any) -> None:
        """Call mutators of containers that were reached earlier."""
        for pick, *change in changes:
            held = [(p, t) for h, p, t in self.held if h == self.handle and self._key_of(t)]
            if held:
                proxy, twin = held[pick % len(held)]
                (key,) = self._key_of(twin)
                self._change(key, proxy, twin, *change)

    def _change(self, key: Any, proxy: Any, twin: Any, other: int, template: Any, call: int,
                number: int) -> None:  # fmt: skip
        if key is None:
            return
        other_key, other_proxy, other_twin = self._pick(other)
        own = reachable(self.model[key])
        if len(own) + len(reachable(other_twin)) > BIG:
            template = 0
        value = fill(template, other_proxy)
        memo = dict(own) if other_key == key else {}
        twin_value = copy.deepcopy(fill(template, other_twin), memo)
        kind = next(calls for cls, calls in BY_KIND if isinstance(twin, cls))
        function = list(kind.values())[call % len(kind)]
        self._run(
            lambda: function(proxy, number, value), lambda: function(twin, number, twin_value)
        )

    def _key_of(self, twin: Any) -> Any:
        """Return the key, in a tuple, of the value that a container is part of."""
        for key, value in self.model.items():
            if id(twin) in reachable(value):
                return (key,)
        return None

    # --- held proxies -----------------------------------------------------------------------

    @precondition(lambda self: self.model)
    @rule(handle=st.integers(0, 1), pick=PICK)
    def hold(self, handle: int, pick: int) -> None:
        self._choose(handle)
        key, proxy, twin = self._pick(pick)
        if key is not None:
            for number, known, known_twin in self.held:
                if number == self.handle and self._key_of(known_twin):
                    assert (known is proxy) == (known_twin is twin)
            self.held = [*self.held[-7:], (self.handle, proxy, twin)]

    @precondition(lambda self: self.held)
    @rule(pick=st.integers(0, 7))
    def change_the_detached(self, pick: int) -> None:
        handle, proxy, twin = self.held[pick % len(self.held)]
        if (self.blocks and handle != self.handle) or self._key_of(twin):
            return
        try:
            before = canonical(richstore.plain(proxy))
        except richstore.DetachedError as error:
            # a large container below it that nobody was seen to hold when it left
            assert "too large to be kept in memory" in str(error)
            return
        try:
            self._add_to(proxy, twin)
        except richstore.DetachedError:
            assert canonical(richstore.plain(proxy)) == before
        else:
            # what pages share that wait to be reclaimed, as far as a block can tell
            assert self.blocks
            self.held = [one for one in self.held if one[1] is not proxy]

    @staticmethod
    def _add_to(proxy: Any, twin: Any) -> None:
        """Change what stands for a container."""
        if isinstance(twin, list):
            proxy.append(1)
        elif isinstance(twin, dict):
            proxy["new"] = 1
        elif isinstance(twin, set):
            proxy.add("new")
        else:
            proxy.new = 1

    # --- blocks -----------------------------------------------------------------------------

    @precondition(lambda self: len(self.blocks) < 3)
    @rule(handle=st.integers(0, 1))
    def begin(self, handle: int) -> None:
        block = self._choose(handle).transaction()
        self.blocks.append((block, block.__enter__(), self._save()))

    @precondition(lambda self: self.blocks)
    @rule(how=st.sampled_from(["commit", "roll back", "go on"]))
    def end(self, how: str) -> None:
        if how != "go on":
            block, _transaction, state = self.blocks.pop()
            if how == "commit":
                block.__exit__(None, None, None)
            else:
                error = LookupError("roll back")
                assert not block.__exit__(LookupError, error, None)
                self._go_back(state)

    @precondition(lambda self: self.blocks)
    @rule(changes=CHANGES)
    def change_and_roll_back(self, changes: Any) -> None:
        """Make changes after a savepoint of the open block and go back to it."""
        _block, transaction, _state = self.blocks[-1]
        savepoint, state = transaction.savepoint(), self._save()
        for pick, *change in changes:
            self._change(*self._pick(pick), *change)
        transaction.rollback_to(savepoint)
        self._go_back(state)

    # --- reopening, snapshots ---------------------------------------------------------------

    @precondition(lambda self: not self.blocks)
    @rule()
    def reopen(self) -> None:
        self._close()
        self._open()

    @precondition(lambda self: len(self.views) < 3)
    @rule()
    def snapshot(self) -> None:
        self.views.append((self.store.snapshot(), self.committed))

    @precondition(lambda self: self.views)
    @rule(pick=st.integers(0, 2))
    def close_snapshot(self, pick: int) -> None:
        view, expected = self.views.pop(pick % len(self.views))
        assert self._content(view) == expected
        view.close()

    @precondition(lambda self: not self.blocks)
    @rule()
    def verify(self) -> None:
        """Walk all records of the store, now and then."""
        self._verify()

    # --- what always holds ------------------------------------------------------------------

    @staticmethod
    def _content(mapping: Any) -> Any:
        """Return the canonical content of a mapping, its values apart from each other."""
        found = [(key, canonical(richstore.plain(mapping[key]))) for key in mapping]
        return sorted(found, key=repr)

    @invariant()
    def store_equals_model(self) -> None:
        expected = sorted(((k, canonical(v)) for k, v in self.model.items()), key=repr)
        for store in [self.store] if self.blocks else self.stores:
            if not self.blocks:
                store.refresh()
            assert self._content(store) == expected
            assert len(store) == len(self.model)
        if not self.blocks:
            self.committed = expected

    @invariant()
    def held_proxies_equal_their_twins(self) -> None:
        for handle, proxy, twin in self.held:
            if self.blocks and handle != self.handle:
                continue
            alive = self._key_of(twin) is not None
            if not self.blocks:
                self.stores[handle].refresh()
                if not alive and richstore.is_tracked(proxy):
                    # what pages share leaves the store with them, when they are reclaimed
                    self.store.compact()
                    self.stores[handle].refresh()
                assert richstore.is_tracked(proxy) == alive
            if alive:
                assert canonical(richstore.plain(proxy)) == canonical(twin)

    @invariant()
    def snapshots_are_frozen(self) -> None:
        for view, expected in self.views:
            assert self._content(view) == expected

    def teardown(self) -> None:
        while self.blocks:
            block, _transaction, state = self.blocks.pop()
            with contextlib.suppress(richstore.ClosedError):
                block.__exit__(LookupError, LookupError("teardown"), None)
            self._go_back(state)
        try:
            self._verify()
        finally:
            self._close()
        expected = sorted(((k, canonical(v)) for k, v in self.model.items()), key=repr)
        try:
            self._open()
            found = self._content(self.store)
        finally:
            self._close()
            self.directory.cleanup()
        assert found == expected


TestStoreMachine = StoreMachine.TestCase
TestStoreMachine.settings = settings()
TestStoreMachine.__doc__ = "Any sequence of calls leaves store and plain model equal."
TestStoreMachine = pytest.mark.timeout(0)(TestStoreMachine)


class TinyStoreMachine(StoreMachine):
    """The same, with a page target at which nearly every container spreads over many records."""

    def __init__(self) -> None:
        paging = pytest.importorskip("richstore.paging", reason="values spread over no pages yet")
        self.page, paging.PAGE = paging.PAGE, TINY
        try:
            super().__init__()
        except BaseException:
            paging.PAGE = self.page
            raise

    def teardown(self) -> None:
        try:
            super().teardown()
        finally:
            sys.modules["richstore.paging"].PAGE = self.page  # type: ignore[attr-defined]


TestTinyStoreMachine = TinyStoreMachine.TestCase
TestTinyStoreMachine.settings = settings(
    max_examples=max(
        50, settings().max_examples // 6
    )  # each takes thrice the time of the other machine
)
TestTinyStoreMachine.__doc__ = "Any sequence of calls leaves spread store and plain model equal."
TestTinyStoreMachine = pytest.mark.timeout(0)(TestTinyStoreMachine)
