"""Sealed values: shown when asked for, stored in stores with a key alone."""

from __future__ import annotations

import copy
import pickle
from collections import deque
from pathlib import Path
from typing import Any

import pytest
from conftest import check_store, run_python
from hypothesis import given
from hypothesis import strategies as st
from sample_classes import Account

pytest.importorskip("cryptography", reason="the extra `secure` is not installed")

import richstore
from richstore import Sealed

KEY = bytes(32)
SECRET = "SecretSecret"


def open_store(path: str, **options: Any) -> Any:
    """Open a store with a key."""
    return richstore.open(path, key=KEY, **{"synchronous": "off", **options})


def test_a_sealed_value(path: str) -> None:
    """A sealed value comes back sealed, shows nothing, and reveals what was put into it."""
    with open_store(path) as store:
        store["token"] = Sealed(SECRET)
        assert store["token"] == Sealed(SECRET)
    with open_store(path) as store:
        token = store["token"]
        assert type(token) is Sealed
        assert token.reveal() == SECRET
        texts = [repr(token), str(token), f"{token}", repr(dict(store)), repr([token])]
        texts += [repr(token.__reduce_ex__.__self__), str(dir(token))]
        assert not any(SECRET in text for text in texts)
        with store.snapshot() as view:
            assert view["token"].reveal() == SECRET
        check_store(store)


PLACES = {
    "list": lambda sealed: [1, sealed],
    "dict": lambda sealed: {"a": {"b": sealed}},
    "tuple": lambda sealed: (1, (sealed,)),
    "attribute": lambda sealed: Account(sealed),
    "deque": lambda sealed: deque([sealed]),
    "set": lambda sealed: {sealed},
    "large": lambda sealed: [*range(3000), sealed, *range(3000)],
    "large dict": lambda sealed: {f"key {n}": sealed if n == 77 else n for n in range(3000)},
    "generator": lambda sealed: (value for value in [1, sealed]),
}


@pytest.mark.parametrize("name", PLACES)
def test_places(name: str, path: str) -> None:
    """A sealed value may be anywhere inside a value, and stays when what is beside changes."""
    with open_store(path) as store:
        store["value"] = PLACES[name](Sealed(SECRET))
        store["other"] = [0]
        store["other"].append(store["value"])
    for _ in range(2):
        with open_store(path) as store:
            # a plain copy has it as well, sealed
            found = pickle_of(richstore.plain(store["value"]))
            assert found.count(SECRET) == 1
            store["other"].append(1)
            check_store(store)


def pickle_of(value: Any) -> str:
    """Return the repr of a plain value with sealed ones revealed."""
    if isinstance(value, Sealed):
        return str(value.reveal())
    if isinstance(value, dict):
        return pickle_of(list(value.values()))
    if isinstance(value, Account):
        return pickle_of(list(vars(value).values()))
    if isinstance(value, (list, tuple, deque, set)):
        return " ".join(map(pickle_of, value))
    return repr(value)


@pytest.mark.parametrize("name", PLACES)
def test_without_a_key(name: str, path: str) -> None:
    """A store without a key refuses a sealed value, wherever it is, and is as it was."""
    with richstore.open(path) as store:
        store["value"] = ["before"]
        with pytest.raises(TypeError) as caught:
            store["value"] = PLACES[name](Sealed(SECRET))
        with pytest.raises(TypeError):
            store["value"].append(PLACES[name](Sealed(SECRET)))
        assert "key" in str(caught.value)
        assert dict(store) == {"value": ["before"]}
        check_store(store)
    assert SECRET.encode() not in Path(path).read_bytes()
    assert b"SecretSecret" not in Path(path).read_bytes()


def test_revealing_store(path: str) -> None:
    """With reveal=True the value of a key is given revealed; inside values it stays sealed."""
    with open_store(path, reveal=True) as store:
        store["token"] = Sealed([SECRET])
        store["nested"] = {"token": Sealed(SECRET)}
        for place in (store, store.snapshot()):
            assert place["token"] == [SECRET]
            assert place.get("token") == [SECRET]
            assert dict(place.items())["token"] == [SECRET]
            assert [SECRET] in list(place.values())
            assert place["nested"]["token"] == Sealed(SECRET)
        with store.transaction():
            store["other"] = Sealed(1)
            assert store["other"] == 1
            assert dict(store)["other"] == 1
        assert store.pop("other") == 1
        assert store.setdefault("token", None) == [SECRET]
        with open_store(path) as sealed:
            assert sealed["token"] == Sealed([SECRET])
    with open_store(path) as store:
        assert store["token"] == Sealed([SECRET])


def test_what_is_revealed_is_a_copy(path: str) -> None:
    """Changing what was sealed, or what was revealed, changes nothing in the store."""
    value = [SECRET]
    sealed = Sealed(value)
    value.append("more")
    sealed.reveal().append("more")
    assert sealed.reveal() == [SECRET]
    with open_store(path) as store:
        store["rows"] = [1, 2]
        store["sealed"] = Sealed(store["rows"])
        store["rows"].append(3)
        revealed = store["sealed"].reveal()
        assert revealed == [1, 2]
        assert type(revealed) is list


def test_it_is_not_pickled_nor_changed() -> None:
    """Pickle and assignments refuse it; copies are the same object; equal ones hash alike."""
    sealed = Sealed(SECRET)
    with pytest.raises(TypeError, match="stores with a key alone"):
        pickle.dumps(sealed)
    with pytest.raises(AttributeError, match="make a new one"):
        sealed._blob = b""
    with pytest.raises(TypeError, match="sealed already"):
        Sealed(sealed)
    assert copy.copy(sealed) is copy.deepcopy(sealed) is sealed
    assert sealed == Sealed(SECRET)
    assert sealed != Sealed("other")
    assert sealed != SECRET
    assert len({sealed, Sealed(SECRET), Sealed("other")}) == 2
    with pytest.raises(richstore.EncodingError):
        Sealed(value for value in [])


@given(st.recursive(st.none() | st.text() | st.integers(), st.lists, max_leaves=5))
def test_any_value(value: Any) -> None:
    """What is revealed equals what was sealed, also after being stored."""
    with richstore.open("memory:", key=KEY) as store:
        store["value"] = Sealed(value)
        assert store["value"].reveal() == Sealed(value).reveal() == value


def test_instances_in_another_process(path: str) -> None:
    """Instances can be sealed, and are revealed in another process."""
    with open_store(path) as store:
        store["account"] = Sealed(Account(SECRET))
    code = (
        "import sys, richstore\n"
        "with richstore.open(sys.argv[1], key=bytes(32), reveal=True) as store:\n"
        "    print(type(store['account']).__name__, store['account'].name)\n"
    )
    done = run_python(code, path)
    assert done.stdout.split() == ["Account", SECRET], done.stderr


def test_policies(path: str) -> None:
    """What a sealed value names has to be allowed, when it is stored and when it is revealed."""
    with open_store(path) as store:
        store["text"] = Sealed(SECRET)
        store["account"] = Sealed(Account(SECRET))
    for classes in ("none", [Account]):
        with open_store(path, classes=classes) as store:
            assert store["text"].reveal() == SECRET
            store["more"] = Sealed([SECRET, {1, 2}])
            if classes == "none":
                with pytest.raises(richstore.UntrustedClassError, match="Account"):
                    store["account"].reveal()
                with pytest.raises(richstore.UntrustedClassError, match="Account"):
                    store["other"] = Sealed(Account(SECRET))
            else:
                assert store["account"].reveal() == Account(SECRET)
                store["other"] = Sealed(Account(SECRET))
            assert store["more"].reveal() == [SECRET, {1, 2}]
            check_store(store)
