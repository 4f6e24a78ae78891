"""The state machine of `test_machine` on groups: its keys are those of a store, of a group in it,
and of a group in that; groups are cleared, dropped and made anew meanwhile. The two handles have
trackers of their own, as two processes have.
"""

from __future__ import annotations

import contextlib
import copy
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule
from test_machine import PICK, VALUES, StoreMachine, TinyStoreMachine

import richstore
from richstore import paging
from richstore.engines.lmdb import open_lmdb
from richstore.opening import store_on

PATHS: list[tuple[str, ...]] = [(), ("g",), ("g", "h")]
PLACES = st.tuples(st.sampled_from(PATHS), st.sampled_from(["a", (1, "b")]))
HANDLES = st.integers(0, 1)


class Flat:
    """A store or snapshot and two groups in it as one mapping, whose keys are (path, key)."""

    def __init__(self, store: Any) -> None:
        self.store = store
        # the same handles all the time, whatever becomes of the groups
        self.at = {(): store, ("g",): store.group("g")}
        self.at["g", "h"] = self.at["g",].group("h")

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    def __getitem__(self, place: Any) -> Any:
        return self.at[place[0]][place[1]]

    def __setitem__(self, place: Any, value: Any) -> None:
        self.at[place[0]][place[1]] = value

    def __delitem__(self, place: Any) -> None:
        del self.at[place[0]][place[1]]

    def pop(self, place: Any) -> Any:
        return self.at[place[0]].pop(place[1])

    def __iter__(self) -> Iterator[Any]:
        return iter([(path, key) for path, group in self.at.items() for key in group])

    def __len__(self) -> int:
        return sum(map(len, self.at.values()))

    def snapshot(self) -> Flat:
        return Flat(self.store.snapshot())


class GroupsMachine(StoreMachine):
    """Groups that come and go, in two trackers, against one dict of (path, key)."""

    def __init__(self) -> None:
        # the groups that are there
        self.made: frozenset[tuple[str, ...]] = frozenset()
        self.reclaimed = paging.RECLAIM
        super().__init__()

    def teardown(self) -> None:
        try:
            super().teardown()
        finally:
            paging.RECLAIM = self.reclaimed

    def _open(self) -> None:
        engine = open_lmdb(self.path, "c", synchronous="off", timeout=10)
        other = store_on(engine, timeout=10, cache_size=1 << 20)
        self.stores = [Flat(richstore.open(self.path, **self.options)), Flat(other)]

    def _save(self) -> Any:
        return self.made, super()._save()

    def _go_back(self, state: Any) -> None:
        self.made = state[0]
        super()._go_back(state[1])

    def _put(self, place: Any, value: Any) -> None:
        path = place[0]
        self.made |= {path[:at] for at in range(1, len(path) + 1)}
        self.model[place] = copy.deepcopy(value)

    @initialize(key=PLACES, value=VALUES, reclaimed=st.sampled_from([0, 1, 64]))
    def start(self, key: Any, value: Any, reclaimed: int) -> None:  # type: ignore[override]
        # the fewer, the longer what is cleared stays in the file
        paging.RECLAIM = reclaimed
        self.put(0, key, value)

    @rule(handle=HANDLES, key=PLACES, value=VALUES)
    def put(self, handle: int, key: Any, value: Any) -> None:
        self._choose(handle)[key] = value
        self._put(key, value)

    @rule(key=PLACES, value=VALUES)
    def put_bad(self, key: Any, value: Any) -> None:
        with pytest.raises(richstore.EncodingError):
            self.store[key] = {"fine": value, "bad": [threading.Lock()]}

    @rule(handle=HANDLES, key=PLACES, pops=st.booleans())
    def remove(self, handle: int, key: Any, pops: bool) -> None:  # type: ignore[override]
        store = self._choose(handle)
        if pops:
            self._run(lambda: store.pop(key), lambda: self.model.pop(key))
        else:
            self._run(lambda: store.__delitem__(key), lambda: self.model.__delitem__(key))

    @precondition(lambda self: self.model)
    @rule(handle=HANDLES, pick=PICK, to=PLACES)
    def copy_to_another_key(self, handle: int, pick: int, to: Any) -> None:
        store = self._choose(handle)
        key, proxy, twin = self._pick(pick)
        if key is not None and key != to:
            store[to] = proxy
            self._put(to, twin)

    @rule(handle=HANDLES, path=st.sampled_from(PATHS), value=VALUES, fails=st.booleans())
    def update(self, handle: int, path: Any, value: Any, fails: bool) -> None:
        """Set several keys of a group at once, or none when one cannot be stored."""
        items = {"a": value, "c": [value], (1, "b"): threading.Lock() if fails else 1}
        with pytest.raises(richstore.EncodingError) if fails else contextlib.nullcontext():
            self._choose(handle).at[path].update(items)
            for key, one in items.items():
                self._put((path, key), one)

    @rule(handle=HANDLES, path=st.sampled_from(PATHS), again=st.booleans(), value=VALUES)
    def clear(self, handle: int, path: Any, again: bool, value: Any) -> None:
        """Clear a group or the store, and perhaps fill it again in the same transaction."""
        store = self._choose(handle)
        with store.transaction():
            store.at[path].clear()
            if again:
                store[path, "a"] = value
        self._take_out(lambda place: place[0] == path)
        if again:
            self._put((path, "a"), value)

    @rule(handle=HANDLES, path=st.sampled_from(PATHS[1:]))
    def drop(self, handle: int, path: Any) -> None:
        """Drop a group with what is in it."""
        self._choose(handle).at[path].drop()
        self.made = frozenset(one for one in self.made if one[: len(path)] != path)
        self._take_out(lambda place: place[0][: len(path)] == path)

    def _take_out(self, is_gone: Callable[[Any], bool]) -> None:
        """Take values out of the model; what the handle in use holds of them is detached."""
        held = [
            (proxy, twin)
            for handle, proxy, twin in self.held
            if handle == self.handle and any(map(is_gone, self._key_of(twin) or ()))
        ]
        self.model = {place: one for place, one in self.model.items() if not is_gone(place)}
        for proxy, twin in held:
            with pytest.raises(richstore.DetachedError):
                self._add_to(proxy, twin)

    @precondition(lambda self: not self.blocks)
    @rule(handle=HANDLES)
    def compact(self, handle: int) -> None:
        self._choose(handle).compact()
        assert self.store.verify().waiting == 0

    @invariant()
    def groups_are_known(self) -> None:
        """Names of groups, their lengths and the number of all values are right."""
        for store in [self.store] if self.blocks else self.stores:
            for path, group in store.at.items():
                inside = sorted(one[-1] for one in self.made if one[:-1] == path)
                assert group.groups() == inside
                assert len(group) == sum(place[0] == path for place in self.model)
            if not self.blocks:
                assert store.stats().values == len(self.model)


class TinyGroupsMachine(TinyStoreMachine, GroupsMachine):
    """The same, with a page target at which nearly every container spreads over many records."""


def quick(machine: type[GroupsMachine], examples: int) -> Any:
    """Return the test of a machine, with a part of the usual examples."""
    test = machine.TestCase
    long = settings().max_examples > 1000
    test.settings = settings(max_examples=settings().max_examples // 10 if long else examples)
    test.__doc__ = "Any sequence of calls leaves groups, in both trackers, equal to the model."
    return pytest.mark.timeout(0)(test)


TestGroupsMachine = quick(GroupsMachine, 12)
TestTinyGroupsMachine = quick(TinyGroupsMachine, 6)
