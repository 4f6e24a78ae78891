"""A store as text and back: `richstore.transfer.export` and `load`."""

from __future__ import annotations

import contextlib
import datetime
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sample_classes
from conftest import canonical
from exports import HEADER, MADE, alike, lines, there_and_back
from hypothesis import example, given
from hypothesis import strategies as st

import richstore
from richstore.transfer import export, load


@pytest.fixture
def store() -> Iterator[richstore.Store]:
    """A store in memory."""
    with richstore.open("memory:") as made:
        yield made


# --- everything comes back


@pytest.mark.parametrize("name", MADE)
def test_every_type_comes_back(store: richstore.Store, name: str) -> None:
    """Each value is what it was: type by type, with its aliases, cycles and attributes."""
    store["value"] = MADE[name]()
    with there_and_back(store) as copy:
        alike(copy["value"], store["value"])


atoms = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.complex_numbers()
    | st.text(st.characters(exclude_categories=()))
    | st.binary()
    | st.dates()
    | st.times()
    | st.datetimes(timezones=st.none() | st.just(datetime.UTC) | st.timezones())
    | st.timedeltas()
    | st.decimals()
    | st.fractions()
    | st.uuids()
    | st.sampled_from([*sample_classes.Color, *sample_classes.Level])
)
hashable = st.recursive(
    st.booleans() | st.integers() | st.text() | st.binary() | st.dates() | st.uuids(),
    lambda inner: st.lists(inner, max_size=3).map(tuple) | st.frozensets(inner, max_size=3),
    max_leaves=5,
)


def with_aliases(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Return values that hold others, one of them in several places."""
    return (
        st.lists(inner, max_size=4)
        | st.dictionaries(hashable, inner, max_size=4)
        | st.lists(inner, max_size=3).map(tuple)
        | st.sets(hashable, max_size=4)
        | st.builds(lambda one, key: [one, {key: one}, (one,)], inner, hashable)
        | st.builds(sample_classes.Point, inner, inner)
        | st.builds(sample_classes.NamedList, st.lists(inner, max_size=3), inner)
    )


values = st.recursive(atoms | hashable, with_aliases, max_leaves=12)
keys = st.recursive(
    st.text() | st.integers() | st.binary(max_size=5) | st.dates() | st.booleans() | st.none(),
    lambda inner: st.lists(inner, max_size=3).map(tuple),
    max_leaves=4,
)
groups = st.lists(st.text(min_size=1, max_size=3), max_size=2).map(tuple)


@given(st.dictionaries(groups, st.dictionaries(keys, values, max_size=3), max_size=3))
@example({(): {"a": float("nan")}, ("g",): {0: [(), [[]]]}})
def test_a_store_comes_back(content: dict[tuple[str, ...], dict[Any, Any]]) -> None:
    """What is loaded from the export of a store is the store, with its keys and groups."""
    with richstore.open("memory:") as store:
        for path, items in content.items():
            place: Any = store
            for name in path:
                place = place.group(name)
            place.update(items)
        with there_and_back(store) as copy:
            same(store, copy)


def same(one: Any, other: Any) -> None:
    """Check that two stores or groups have the same items, type by type, and the same groups."""
    ours, theirs = list(one.items()), list(other.items())
    assert [canonical(key) for key, _ in ours] == [canonical(key) for key, _ in theirs]
    for (_, value), (_, found) in zip(ours, theirs, strict=True):
        alike(value, found)
    filled = [name for name in one.groups() if one.group(name) or one.group(name).groups()]
    assert filled == other.groups()
    for name in filled:
        same(one.group(name), other.group(name))


def test_large_values_come_back(store: richstore.Store) -> None:
    """Containers that are spread over pages, and share items, are written as one value."""
    store["list"] = [[number] for number in range(3000)]
    store["list"].append(store["list"][0])
    store["dict"] = {number: str(number) for number in range(3000)}
    with there_and_back(store) as copy:
        assert copy["list"] == store["list"] and copy["dict"] == store["dict"]
        copy["list"][0].append("shared")
        assert copy["list"][3000] == [0, "shared"]


def test_the_text(store: richstore.Store) -> None:
    """The text is what the documentation says, line by line."""
    store["shops"] = ["shop1", ("größe", {1})]
    store.group("users").group("admins")["ann", 7] = datetime.date(2024, 2, 29)
    text = io.BytesIO()
    assert export(store, text) == 2
    assert text.getvalue().decode().splitlines() == [
        '{"richstore": "export", "version": 1}',
        '{"key": "shops", "value": ["shop1", {"$tuple": ["größe", {"$set": [1]}]}]}',
        '{"group": ["users", "admins"], "key": {"$tuple": ["ann", 7]}, '
        '"value": {"$date": "2024-02-29"}}',
        '{"end": 2}',
    ]


def test_old_states_are_upgraded(store: richstore.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """An instance that an older version of its class has exported is upgraded when it is loaded."""
    cls = sample_classes.Bare
    monkeypatch.setattr(cls, "__richstore_version__", 1, raising=False)
    store["old"] = [cls(name="ann")]
    text = io.BytesIO()
    export(store, text)
    assert b'"version": 1}' in text.getvalue().splitlines()[1]

    def upgrade(cls: Any, state: dict[str, Any], version: int) -> dict[str, Any]:
        return {"full_name": state["name"], "was": version}

    monkeypatch.setattr(cls, "__richstore_version__", 2)
    monkeypatch.setattr(cls, "upgrade", classmethod(upgrade), raising=False)
    text.seek(0)
    with richstore.open("memory:") as copy:
        load(text, copy, classes=[cls])
        assert vars(copy["old"][0]) == {"full_name": "ann", "was": 1}
    monkeypatch.setattr(cls, "__richstore_version__", 0)
    text.seek(0)
    with (
        richstore.open("memory:") as copy,
        pytest.raises(richstore.UpgradeError, match="version 1"),
    ):
        load(text, copy, classes=[cls])


# --- what cannot be kept


class WithSetter:
    def __reduce__(self) -> Any:
        return WithSetter, (), {"a": 1}, None, None, set_state


def set_state(value: Any, state: Any) -> None:
    """Do what a class has no method for."""


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (sample_classes.make_local(), "can be found by no import"),
        (lambda: None, "can be found by no import"),
        (WithSetter(), "given its state by a function of its own"),
    ],
)
def test_what_cannot_be_kept(store: richstore.Store, tmp_path: Path, value: Any, said: str) -> None:
    """A value that would not come back is refused, with its path, and no file is left."""
    store["fine"] = 1
    store.group("g")["key"] = {"a": [0, (1, value)]}
    with pytest.raises(richstore.EncodingError, match=said) as caught:
        export(store, tmp_path / "out.jsonl")
    assert caught.value.path == ".group('g')['key']['a'][1][1]"
    assert list(tmp_path.iterdir()) == []


def test_secrets_are_not_exported() -> None:
    """A sealed value is refused; exported is what the store reveals."""
    with richstore.open("memory:", key=bytes(32)) as store:
        store["token"] = richstore.Sealed("s3cret")
        with pytest.raises(richstore.EncodingError, match=r"at \['token'\]: a Sealed"):
            export(store, io.BytesIO())


def test_placeholders_are_not_exported(box: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """An instance whose class cannot be found is refused."""
    box.store["ann"] = [sample_classes.Account("ann")]
    monkeypatch.delattr(sample_classes, "Account")
    box.reopen()
    with pytest.raises(richstore.EncodingError, match=r"at \['ann'\]\[0\]: it is a placeholder"):
        export(box.store, io.BytesIO())
    monkeypatch.undo()


def test_values_nested_too_deep(store: richstore.Store) -> None:
    """A value that is nested too deep for text is refused, and a file with one as well."""
    value: Any = []
    for _ in range(5000):
        value = [value]
    store["deep"] = value
    with pytest.raises(richstore.EncodingError, match="nested too deep"):
        export(store, io.BytesIO())
    row = b'{"key": 1, "value": ' + b"[" * 100_000 + b"]" * 100_000 + b"}\n"
    with pytest.raises(richstore.FormatError, match="line 2"):
        load(io.BytesIO(HEADER + row), store)
    row = b'{"key": 1, "value": ' + b'{"$set": [' * 900 + b"]}" * 900 + b"}\n"
    with pytest.raises(richstore.FormatError, match="line 2"):
        load(io.BytesIO(HEADER + row), store)


# --- files


def test_the_file_appears_when_it_is_complete(store: richstore.Store, tmp_path: Path) -> None:
    """A file is private, replaces no other without being told to, and fails as a whole."""
    path = tmp_path / "out.jsonl"
    store["a"] = 1
    export(store, path)
    assert path.stat().st_mode & 0o777 == 0o600
    before = path.read_bytes()
    with pytest.raises(FileExistsError, match="is there already"):
        export(store, path)
    store["b"] = lambda: None
    with pytest.raises(richstore.EncodingError):
        export(store, path, replace=True)
    assert path.read_bytes() == before
    del store["b"]
    store["a"] = 2
    export(store, path, replace=True)
    assert path.read_bytes() != before
    assert list(tmp_path.iterdir()) == [path]
    assert path.stat().st_mode & 0o777 == 0o600


def test_what_an_export_does_not_replace(tmp_path: Path) -> None:
    """An open store, as the one that is exported, and what is no file stay when told to replace."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    path = tmp_path / "shop.db"
    with richstore.open(path) as store:
        store["a"] = 1
        with pytest.raises(OSError, match="open in this process"):
            export(store, path, replace=True)
        for name in ("fifo", "folder"):
            for write in (export, richstore.Store.backup):
                with pytest.raises(FileExistsError, match="no regular file"):
                    write(store, tmp_path / name, replace=True)
    with richstore.open(path) as store:
        assert store["a"] == 1
    assert (tmp_path / "fifo").is_fifo()
    assert sorted(one.name for one in tmp_path.iterdir() if one.suffix != ".db-lock") == [
        *("fifo", "folder", "shop.db"),
    ]


def test_names_that_are_no_unicode(store: richstore.Store) -> None:
    """Halves of surrogate pairs come back in names of groups, keys and values."""
    store.group("\ud800")["\udfff"] = "\ud801"
    with there_and_back(store) as made:
        assert made.group("\ud800").copy() == {"\udfff": "\ud801"}


def test_one_state_is_exported(store: richstore.Store) -> None:
    """What is committed while an export goes on is not in it, nor what is not committed."""
    store.update(a=1, b=2)
    text = io.BytesIO()
    export(store, text, progress=lambda count: store.update(b=3, c=count))
    assert json.loads(text.getvalue().splitlines()[2]) == {"key": "b", "value": 2}
    assert json.loads(text.getvalue().splitlines()[3]) == {"end": 2}
    with store.transaction():
        store["d"] = 1
        text = io.BytesIO()
        assert export(store, text) == 3


def test_parts_of_a_store(store: richstore.Store) -> None:
    """A group, a snapshot and a group of one are exported as a store is, and loaded anywhere."""
    users = store.group("users")
    users["ann"] = [1]
    users.group("old")["bob"] = [2]
    expected = [{"key": "ann", "value": [1]}, {"group": ["old"], "key": "bob", "value": [2]}]
    with store.snapshot() as view:
        users.clear()
        users["new"] = [3]
        for source, rows in (
            (view.group("users"), expected),
            (view, [{**row, "group": ["users", *row.get("group", [])]} for row in expected]),
        ):
            text = io.BytesIO()
            export(source, text)
            assert list(map(json.loads, text.getvalue().splitlines()[1:-1])) == rows
    text = io.BytesIO()
    assert export(users, text) == 2
    text.seek(0)
    load(text, store.group("copy"))
    assert store.group("copy").copy() == {"new": [3]}
    assert store.group("copy").group("old").copy() == {"bob": [2]}


def test_replacing(store: richstore.Store) -> None:
    """Items are put beside what is there; with `replace` nothing else is there afterwards."""
    store.update(a=1, b=2)
    store.group("g")["x"] = 1
    store.group("h").group("i")["x"] = 1
    text = lines({"key": "b", "value": 3}, {"group": ["g"], "key": "y", "value": 4})
    assert load(text, store) == 2
    assert store.copy() == {"a": 1, "b": 3}
    assert store.group("g").copy() == {"x": 1, "y": 4}
    text.seek(0)
    load(text, store, replace=True)
    assert store.copy() == {"b": 3} and store.groups() == ["g"]
    assert store.group("g").copy() == {"y": 4}
    assert load(lines(), store, replace=True) == 0
    assert not store and store.groups() == []


# --- plain JSON


def test_plain_json(store: richstore.Store, tmp_path: Path) -> None:
    """What JSON has is one object, which other programs read, and which comes back."""
    items = {"a": [1, 1.5, None, True], "größe": {"": "\ud800"}, "b": {}}
    store.update(items)
    path = tmp_path / "out.json"
    assert export(store, path) == 3
    assert json.loads(path.read_text()) == items
    with richstore.open("memory:") as copy:
        assert load(path, copy) == 3
        assert copy.copy() == items


@pytest.mark.parametrize(
    ("key", "value", "path", "lossy"),
    [
        ("a", [(1, 2)], "['a'][0]", [[1, 2]]),
        ("a", {"b": {1: 2}}, "['a']['b'][1]", {"b": {"1": 2}}),
        ("a", [[float("inf")]], "['a'][0][0]", [[float("inf")]]),
        (7, [1], "[7]", [1]),
        ("a", {1}, "['a']", None),
        ("a", {"1": 1, 1: 2}, "['a'][1]", None),
        (("a", 1), 1, "[('a', 1)]", None),
        ("a", sample_classes.make_cycle(), "['a']", None),
    ],
)
def test_json_that_would_change_a_value(
    store: richstore.Store, key: Any, value: Any, path: str, lossy: Any
) -> None:
    """What would come back as something else is refused; `lossy` writes what is like it."""
    store[key] = value
    text = io.BytesIO()
    with pytest.raises(richstore.EncodingError) as caught:
        export(store, text, format="json")
    assert caught.value.path == path
    text = io.BytesIO()
    if lossy is None:
        with pytest.raises(richstore.EncodingError):
            export(store, text, format="json", lossy=True)
    else:
        export(store, text, format="json", lossy=True)
        assert json.loads(text.getvalue()) == {str(key): lossy}


def test_groups_in_json(store: richstore.Store) -> None:
    """An object has no groups: one can be exported alone, or all as objects with `lossy`."""
    store["a"] = 1
    store.group("users")["ann"] = {"age": 41}
    with pytest.raises(richstore.EncodingError, match=r"at \.group\('users'\): an object of JSON"):
        export(store, io.BytesIO(), format="json")
    text = io.BytesIO()
    export(store.group("users"), text, format="json")
    assert json.loads(text.getvalue()) == {"ann": {"age": 41}}
    text = io.BytesIO()
    export(store, text, format="json", lossy=True)
    assert json.loads(text.getvalue()) == {"a": 1, "users": {"ann": {"age": 41}}}
    store["users"] = 1
    with pytest.raises(richstore.EncodingError, match="a key is 'users' as well"):
        export(store, io.BytesIO(), format="json", lossy=True)
    del store["users"]
    store["1"] = store[1] = 1
    with pytest.raises(richstore.EncodingError, match="two keys would be '1'"):
        export(store, io.BytesIO(), format="json", lossy=True)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"[1]", "has a list outermost"),
        (b'{"a": 1, "a": 2}', "an object has the key 'a' twice"),
        (b'{"a": 1', "is not JSON"),
        (b"", "is not JSON"),
        (b"\xff", "is not JSON"),
    ],
)
def test_wrong_json(store: richstore.Store, text: bytes, said: str) -> None:
    """JSON that is no object, or says two things of one key, is refused."""
    with pytest.raises(richstore.FormatError, match=said):
        load(io.BytesIO(text), store, format="json")
    assert not store


def test_wrong_words(store: richstore.Store, tmp_path: Path) -> None:
    """An unknown format or a missing file is an error before anything happens."""
    with pytest.raises(ValueError, match="format is 'xml', and must be 'jsonl' or 'json'"):
        export(store, tmp_path / "out", format="xml")
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "missing.jsonl", store)
    with pytest.raises(TypeError, match="must be a store or a group, not a dict"):
        load(lines(), {})
    with pytest.raises(FileNotFoundError), contextlib.suppress(richstore.RichStoreError):
        export(store, tmp_path / "no" / "folder.jsonl")
    assert list(tmp_path.iterdir()) == []
