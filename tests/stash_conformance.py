"""What every stash does, whatever is below it: the checks, and the delegates that they run on."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import richstore
from richstore.stash import (
    DictionaryStash,
    DirectoryStash,
    LRUCacheStash,
    MutableStash,
    ShelveStash,
)

NOWHERE = object()


def agree(stash: Any, expected: Mapping[Any, Any], missing: Any) -> None:
    """Fail unless all ways to ask a stash give what a dict has."""
    keys, view = set(expected), stash.keys()
    assert len(stash) == len(expected)
    assert bool(stash) == bool(expected)
    assert sorted(stash, key=repr) == sorted(expected, key=repr)
    assert view == keys and len(view) == len(keys)
    assert sorted(stash.values(), key=repr) == sorted(expected.values(), key=repr)
    assert dict(stash.items()) == expected
    assert stash == expected
    for key, value in expected.items():
        assert stash[key] == value
        assert stash.load(key) == value
        assert stash.get(key, NOWHERE) == value
        assert key in stash and stash.exists(key) and key in view
    for ask in (stash.__getitem__, stash.load):
        with pytest.raises(KeyError) as caught:
            ask(missing)
        assert caught.value.args == (missing,)
    assert stash.get(missing) is None
    assert stash.get(missing, NOWHERE) is NOWHERE
    assert missing not in stash and not stash.exists(missing) and missing not in view


def changes(stash: Any, keys: list[Any]) -> None:
    """Fail unless each way to change an empty stash does what it does to a dict."""
    assert isinstance(stash, MutableMapping) and isinstance(stash, MutableStash)
    model: dict[Any, Any] = {}
    a, b, c, missing = keys[:4]

    def same(done: Any = None, wanted: Any = None) -> None:
        assert done == wanted
        agree(stash, model, missing)

    same()
    for key, value in ((a, 1), (b, None), (a, [2, {"deep": []}]), (c, ""), (b, None)):
        stash.dump(key, value)
        model[key] = value
        same()
    stash[a] = model[a] = {"x": None}
    same()
    same(stash.setdefault(b, 5), model.setdefault(b, 5))
    stash.delete(b)
    del model[b]
    same()
    same(stash.setdefault(b, 6), model.setdefault(b, 6))
    same(stash.pop(b), model.pop(b))
    same(stash.pop(b, 7), 7)
    for ask in (stash.delete, stash.__delitem__, stash.pop):
        with pytest.raises(KeyError):
            ask(b)
    stash.update({a: 0, b: False})
    model.update({a: 0, b: False})
    same()
    key, value = stash.popitem()
    same(value, model.pop(key))
    del stash[a if a in model else b]
    del model[a if a in model else b]
    same()
    stash.clear()
    model.clear()
    same()
    with pytest.raises(KeyError):
        stash.popitem()
    stash.update({key: [key] for key in keys[:3]})
    same(None, model.update({key: [key] for key in keys[:3]}))


def at_random(stash: Any, keys: list[Any], seed: int, steps: int = 40) -> None:
    """Fail if one of many steps, taken at random, does not do what it does to a dict."""
    chance = random.Random(seed)
    model: dict[Any, Any] = {}
    *keys, missing = keys
    for step in range(steps):
        key = chance.choice(keys)
        what = chance.choice(["dump", "dump", "delete", "load", "get", "pop", "setdefault"])
        if what in ("dump", "setdefault"):
            value = chance.choice([None, step, [step], {"step": step}, ""])
            if what == "dump":
                stash.dump(key, value)
                model[key] = value
            else:
                assert stash.setdefault(key, value) == model.setdefault(key, value)
        elif key in model:
            expected = model[key]
            if what in ("delete", "pop"):
                del model[key]
            assert getattr(stash, what)(key) == (None if what == "delete" else expected)
        elif what == "get":
            assert stash.get(key, NOWHERE) is NOWHERE
        else:
            with pytest.raises(KeyError):
                getattr(stash, what)(key)
    agree(stash, model, missing)


def refuses(stash: Any, key: Any) -> None:
    """Fail unless a stash that is read only says so, and stays as it is."""
    before = dict(stash)
    assert isinstance(stash, Mapping) and not isinstance(stash, MutableMapping)
    for change in (stash.dump, stash.__setitem__):
        with pytest.raises(richstore.ReadOnlyError, match="cannot be changed"):
            change(key, "other")
    for change in (stash.delete, stash.__delitem__):
        with pytest.raises(richstore.ReadOnlyError, match="cannot be changed"):
            change(key)
    assert dict(stash) == before


# --- what can be below a stash ---


@contextmanager
def _store(target: str, names: tuple[str, ...] = ()) -> Iterator[Any]:
    with richstore.open(target, synchronous="off") as store:
        # what is beside the groups is none of their business
        there: Any = store
        for name in names:
            there["beside"] = 1
            there = there.group(name)
        yield there
        report = store.verify()
        assert report.ok, report.problems


@contextmanager
def _plain(made: Any) -> Iterator[Any]:
    yield made


@contextmanager
def _open_shelf(path: Path) -> Iterator[Any]:
    with ShelveStash(path) as stash:
        yield stash


DELEGATES: dict[str, Callable[[Path], Any]] = {
    "dict": lambda path: _plain({}),
    "DictionaryStash": lambda path: _plain(DictionaryStash()),
    "LRUCacheStash": lambda path: _plain(LRUCacheStash(100)),
    "memory": lambda path: _store("memory:"),
    "store": lambda path: _store(str(path / "test.db")),
    "group": lambda path: _store("memory:", ("a",)),
    "nested-group": lambda path: _store("memory:", ("a", "b")),
    "document": lambda path: _plain(richstore.document(path / "x.json", default={}).value),
    "json-files": lambda path: _plain(DirectoryStash(path / "files", format="json")),
    "pickle-files": lambda path: _plain(DirectoryStash(path / "files")),
    "named-files": lambda path: _plain(DirectoryStash(path / "files", "{name}", escape=False)),
    "shelf": lambda path: _plain(ShelveStash(path / "shelf")),
    "open-shelf": lambda path: _open_shelf(path / "shelf"),
}
