"""Files of other packages, made by these packages, become stores: `richstore.transfer.convert`."""

from __future__ import annotations

import contextlib
import datetime
import decimal
import importlib
import os
import pickle
import shelve
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import canonical
from files_of_others.make import KEY
from test_document_formats import THEIRS, THEIRS_VALUE

import richstore
from richstore.transfer import convert

FILES = Path(__file__).parent / "files_of_others"
VALUES: dict[str, Any] = {
    "shops": ["shop1", ("shop2", {3})],
    "größe": {"m": 1.5, 2: None},
    "when": datetime.date(2024, 2, 29),
    "price": decimal.Decimal("1.10"),
    "empty": "",
}


class Order:
    """A class of the user, which the default for a file of others does not allow."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Order) and self.number == other.number

    __hash__ = None  # type: ignore[assignment]


@pytest.fixture
def store() -> Iterator[richstore.Store]:
    """A store in memory."""
    with richstore.open("memory:") as made:
        yield made


def check(store: Any, expected: dict[Any, Any]) -> None:
    """Check that a store has just these items, type by type; each is a value of its own."""
    assert store.keys() == expected.keys()
    for key, value in expected.items():
        assert canonical(richstore.plain(store[key])) == canonical(value), key


# --- shelve


@pytest.mark.parametrize("kind", ["dumb", "gnu", "ndbm", "sqlite3"])
def test_shelve(kind: str, tmp_path: Path, store: richstore.Store) -> None:
    """A shelf is converted with every kind of dbm that this Python has."""
    try:
        module: Any = importlib.import_module(f"dbm.{kind}")
    except ImportError:
        pytest.skip(f"this Python has no dbm.{kind}")
    path = tmp_path / "shelf"
    with shelve.Shelf(module.open(str(path), "c")) as shelf:
        shelf.update(VALUES)
    done = convert(path, store)
    assert done == ("shelve", len(VALUES), [])
    check(store, VALUES)


def test_shelve_of_python_3_13(store: richstore.Store) -> None:
    """A shelf in SQLite, which Python 3.13 makes, is read by every Python."""
    assert convert(FILES / "shelf", store).kind == "shelve"
    check(store, {"shops": ["shop1", ("shop2", {3})], "größe": {"m": 1.5}})


def test_shelve_with_a_format_of_its_own(tmp_path: Path, store: richstore.Store) -> None:
    """`decode` reads what is stored in another way than as pickles."""
    import dbm.dumb

    with contextlib.closing(dbm.dumb.open(str(tmp_path / "texts"), "c")) as file:
        file[b"a"] = b"[1, 2]"
    with pytest.raises(richstore.FormatError, match=r"texts, \['a'\]: it cannot be read"):
        convert(tmp_path / "texts", store)
    import json

    convert(tmp_path / "texts", store, decode=json.loads)
    assert store["a"] == [1, 2]


# --- sqlitedict


def test_sqlitedict(tmp_path: Path, store: richstore.Store) -> None:
    """The table without a name fills the store, every other one a group."""
    sqlitedict = pytest.importorskip("sqlitedict")
    path = tmp_path / "my.sqlite"
    for table, items in (("unnamed", VALUES), ('odd "name"', {"a": [1]})):
        with sqlitedict.SqliteDict(str(path), tablename=table, autocommit=True) as old:
            old.update(items)
    assert convert(path, store) == ("sqlitedict", len(VALUES) + 1, [])
    check(store, VALUES)
    assert store.groups() == ['odd "name"']
    check(store.group('odd "name"'), {"a": [1]})


# --- diskcache


def test_diskcache(tmp_path: Path, store: richstore.Store) -> None:
    """All kinds of keys and values come along, small ones and those in files."""
    diskcache = pytest.importorskip("diskcache")
    items = {
        "text": "short",
        "long text": "a\r\nb\n" * 20_000,
        b"bytes": b"\0\xff",
        "long bytes": b"\0\xff" * 50_000,
        7: 8,
        1.5: -0.0,
        ("a", 1): {"nested": [1, {2}]},
        None: True,
        "large": list(range(20_000)),
        "huge": 1 << 100,
    }
    with diskcache.Cache(tmp_path / "cache") as cache:
        for key, value in items.items():
            cache[key] = value
    assert convert(tmp_path / "cache", store, classes="none") == ("diskcache", len(items), [])
    check(store, items)


def test_diskcache_tells_what_it_drops(tmp_path: Path, store: richstore.Store) -> None:
    """Expired items stay behind, tags and times to expire are dropped, and each is told."""
    diskcache = pytest.importorskip("diskcache")
    with diskcache.Cache(tmp_path / "cache", cull_limit=0) as cache:
        cache.set("old", 1, expire=-1)
        cache.set("new", 2, expire=3600, tag="t")
        cache.set("ever", 3)
    assert convert(tmp_path / "cache", store).notes == [
        "items left out, since they had expired: 1",
        "items kept for good, which would have expired: 1",
        "tags left out: 1",
    ]
    assert store.copy() == {"new": 2, "ever": 3}


def test_other_kinds_of_diskcache(tmp_path: Path, store: richstore.Store) -> None:
    """FanoutCache, Index, Deque and a cache in JSON are read as well."""
    diskcache = pytest.importorskip("diskcache")
    with diskcache.FanoutCache(tmp_path / "fanout", shards=3) as fanout:
        for number in range(20):
            fanout[number] = [number]
    index = diskcache.Index(str(tmp_path / "index"), {"b": 1, "a": 2})
    queue = diskcache.Deque(["x", "y"], str(tmp_path / "deque"))
    queue.appendleft("w")
    with diskcache.Cache(tmp_path / "json", disk=diskcache.JSONDisk) as cache:
        cache["a"], cache["long"] = {"b": [1]}, "x" * 100_000
    index.cache.close()
    queue._cache.close()
    for name in ("fanout", "index", "deque", "json"):
        convert(tmp_path / name, store.group(name), classes="none")
    assert store.group("fanout").copy() == {number: [number] for number in range(20)}
    assert store.group("index").copy() == {"b": 1, "a": 2}
    assert list(store.group("deque").values()) == ["w", "x", "y"]
    assert store.group("json").copy() == {"a": {"b": [1]}, "long": "x" * 100_000}


def test_diskcache_reads_no_other_files(tmp_path: Path, store: richstore.Store) -> None:
    """A cache that says that a value is in a file outside of it is refused."""
    diskcache = pytest.importorskip("diskcache")
    (tmp_path / "secret").write_bytes(b"secret")
    with diskcache.Cache(tmp_path / "cache") as cache:
        cache["a"] = b"x" * 100_000
    with contextlib.closing(sqlite3.connect(tmp_path / "cache" / "cache.db")) as database:
        database.execute("UPDATE Cache SET filename = '../secret'")
        database.commit()
    with pytest.raises(richstore.FormatError, match="is not in the directory of the cache"):
        convert(tmp_path / "cache", store)
    assert not store


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("filename = 'fifo'", "missing, or is no file"),
        ("filename = 'none'", "missing, or is no file"),
        ("filename = x'ff'", "cannot be read"),
        ("expire_time = 'soon'", "no time to expire at"),
        ("filename = NULL, mode = 3", "cannot be read"),
    ],
)
def test_a_wrong_diskcache(tmp_path: Path, store: richstore.Store, change: str, said: str) -> None:
    """A cache that is damaged, or made to mislead, is refused with its key; nothing waits."""
    diskcache = pytest.importorskip("diskcache")
    with diskcache.Cache(tmp_path / "cache") as cache:
        cache["a"] = b"x" * 100_000
    os.mkfifo(tmp_path / "cache" / "fifo")
    with contextlib.closing(sqlite3.connect(tmp_path / "cache" / "cache.db")) as database:
        database.execute(f"UPDATE Cache SET {change}")
        database.commit()
    with pytest.raises(richstore.FormatError, match=rf"\['a'\].*{said}"):
        convert(tmp_path / "cache", store)


# --- saved_instance, atomic_store, JSON


def test_saved_instance(store: richstore.Store) -> None:
    """Simple, secure and rich storages are read, the proxies of rich ones as lists and dicts."""
    for name, options in (
        ("simple", {}),
        ("secure", {"kind": "saved_instance", "key": KEY.decode()}),
        ("rich.svd", {}),
    ):
        for classes in ("none", "any"):
            group = store.group(f"{name} {classes}")
            convert(FILES / name, group, classes=classes, **options)  # type: ignore[arg-type]
    for classes in ("none", "any"):
        simple, secure, rich = (
            store.group(f"{name} {classes}") for name in ("simple", "secure", "rich.svd")
        )
        check(simple, {"message": "Hello World", "shops": ["shop1", ("shop2", {3})]})
        check(secure, {"msg": "Hi", "numbers": [1, 2]})
        shops = ["shop1", {"name": "shop2", "tags": ["new"]}, {"name": "shop3"}, ["a", "list"]]
        theme = {"dark": False, "fonts": ["Inter", "Roboto"]}
        config = {"theme": theme, "limits": (1, {2})}
        safe = {"for": ["processes"]}
        check(rich, {"shops": shops, "config": config, "count": 5, "safe": safe})


def test_saved_instance_with_another_key(store: richstore.Store) -> None:
    """A wrong key, or one for what is not encrypted, is an error that says so; none is told."""
    done = convert(FILES / "secure", store, kind="saved_instance")
    assert done.notes == ["values that look encrypted, and stay so without a key: 2"]
    store.clear()
    wrong = "A" * 43 + "="
    with pytest.raises(richstore.FormatError, match="not encrypted with this key"):
        convert(FILES / "secure", store, kind="saved_instance", key=wrong)
    with pytest.raises(richstore.FormatError, match="leave out the key"):
        convert(FILES / "simple", store, kind="saved_instance", key=KEY.decode())
    assert not store


def test_atomic_store(tmp_path: Path, store: richstore.Store) -> None:
    """A dict becomes the items of the store, any other value lies under the name of its file."""
    for name, suffix in (
        ("default", ".json"),
        ("json, compact", ".json"),
        ("pickle", ".pickle"),
        ("pickle, protocol 0", ".pkl"),
        ("bson", ".bson"),
    ):
        path = tmp_path / f"state{suffix}"
        path.write_bytes(THEIRS[name][1])
        assert convert(path, store.group(name)).kind == "atomic_store"
        check(store.group(name), THEIRS_VALUE)
    path = tmp_path / "runs.json"
    path.write_bytes(b'["2024-02-29"]')
    done = convert(path, store)
    assert done.notes == ["value is under the key 'runs', since it is no dict: 1"]
    check(store, {"runs": ["2024-02-29"]})


def test_json(tmp_path: Path, store: richstore.Store) -> None:
    """The kind decides where the name of the file says something else, or nothing."""
    (tmp_path / "odd.pickle").write_text('{"a": [1]}')
    convert(tmp_path / "odd.pickle", store, kind="json")
    assert store.copy() == {"a": [1]}


# --- ZODB


@pytest.fixture
def zodb(tmp_path: Path) -> Iterator[Any]:
    """A connection to a new FileStorage, at `zodb.path`."""
    pytest.importorskip("ZODB")
    import transaction
    import ZODB.FileStorage

    path = tmp_path / "Data.fs"
    database = ZODB.DB(ZODB.FileStorage.FileStorage(str(path)))

    class Opened:
        def __init__(self) -> None:
            self.path, self.database = path, database
            self.root: Any = database.open().root()

        def commit(self) -> None:
            transaction.commit()

        def close(self) -> None:
            transaction.abort()
            database.close()

    opened = Opened()
    yield opened
    opened.close()


@pytest.mark.parametrize("classes", ["none", "any"])
def test_zodb(zodb: Any, store: richstore.Store, classes: str) -> None:
    """Persistent mappings and lists, trees, sets and lengths become what they stand for."""
    from BTrees.IOBTree import IOBTree
    from BTrees.Length import Length
    from BTrees.LOBTree import LOTreeSet
    from BTrees.OOBTree import OOBTree, OOTreeSet
    from persistent.list import PersistentList
    from persistent.mapping import PersistentMapping

    shared = PersistentList(["shared"])
    loop = PersistentMapping()
    loop["me"] = loop
    zodb.root.update(
        plain=VALUES,
        mapping=PersistentMapping(a=PersistentList([1, PersistentMapping(x=(1,))])),
        large=OOBTree({str(number): PersistentList([number]) for number in range(2000)}),
        small=OOBTree({"a": IOBTree({1: "x", 2: OOBTree({"y": shared})}), "b": shared}),
        empty=OOBTree(),
        names=OOTreeSet("abc"),
        numbers=LOTreeSet(range(1000)),
        count=Length(7),
        loop=loop,
        mixed=[(shared, shared), {"k": PersistentMapping(z=1)}],
    )
    zodb.commit()
    zodb.close()
    done = convert(zodb.path, store, classes=classes)
    assert done.kind == "zodb"
    assert done.notes == ["objects that keys of the root have shared, and are copies now: 1"]
    one = ["shared"]
    circle: dict[str, Any] = {}
    circle["me"] = circle
    check(
        store,
        {
            "plain": VALUES,
            "mapping": {"a": [1, {"x": (1,)}]},
            "large": {key: [int(key)] for key in sorted(map(str, range(2000)))},
            "small": {"a": {1: "x", 2: {"y": one}}, "b": one},
            "empty": {},
            "names": set("abc"),
            "numbers": set(range(1000)),
            "count": 7,
            "loop": circle,
            "mixed": [(one, one), {"k": {"z": 1}}],
        },
    )


def test_zodb_after_changes(zodb: Any, store: richstore.Store) -> None:
    """The last state counts: after changes, an undone transaction, a pack and more changes."""
    from persistent.list import PersistentList

    zodb.root["log"] = PersistentList(["first"])
    zodb.root["gone"] = 1
    zodb.commit()
    zodb.root["log"].append("undone")
    zodb.commit()
    zodb.database.undo(zodb.database.undoInfo()[0]["id"])
    zodb.commit()
    convert(zodb.path, store)
    assert store.copy() == {"log": ["first"], "gone": 1}
    zodb.root["log"].append("second")
    del zodb.root["gone"]
    zodb.commit()
    zodb.database.pack()
    zodb.root["after"] = "pack"
    zodb.commit()
    convert(zodb.path, store, replace=True)
    assert store.copy() == {"log": ["first", "second"], "after": "pack"}


def test_zodb_that_was_cut_off(zodb: Any, store: richstore.Store) -> None:
    """A transaction whose writing was interrupted is not there, as for ZODB itself."""
    zodb.root["a"] = 1
    zodb.commit()
    size = zodb.path.stat().st_size
    zodb.root["a"] = 2
    zodb.commit()
    zodb.close()
    os.truncate(zodb.path, (size + zodb.path.stat().st_size) // 2)
    convert(zodb.path, store)
    assert store.copy() == {"a": 1}


def test_zodb_with_instances(
    zodb: Any, store: richstore.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Instances of a persistent class become instances of the class that it is now."""
    import files_of_others.models as models

    zodb.root["ann"] = models.PersistentAccount("ann")
    zodb.root["ann"].friend = models.PersistentAccount("bob")
    zodb.root["ann"].friend.friend = zodb.root["ann"]
    zodb.commit()
    zodb.close()
    with pytest.raises(richstore.UntrustedClassError, match=r"Data.fs: .*Account is not"):
        convert(zodb.path, store, classes="none")
    assert not store
    # each of the two once
    told = "instances of files_of_others.models.PersistentAccount, which still inherits"
    assert convert(zodb.path, store.group("as they were")).notes == [f"{told} from persistent: 2"]
    monkeypatch.setattr(models, "PersistentAccount", models.Account)
    richstore.renamed("files_of_others.models.PersistentAccount", models.Account)
    convert(zodb.path, store, classes=[models.Account])
    ann = store["ann"]
    assert isinstance(ann, models.Account)
    assert (ann.name, ann.friend.name, ann.friend.friend is ann) == ("ann", "bob", True)


def test_zodb_with_what_is_no_value(zodb: Any, store: richstore.Store) -> None:
    """Weak references and damage are refused, with the key, and nothing is stored."""
    from persistent.mapping import PersistentMapping
    from persistent.wref import WeakRef

    zodb.root["strong"] = PersistentMapping(a=1)
    zodb.root["weak"] = PersistentMapping(to=WeakRef(zodb.root["strong"]))
    zodb.commit()
    zodb.close()
    with pytest.raises(richstore.FormatError, match=r"\['weak'\].*refers weakly"):
        convert(zodb.path, store)
    data = bytearray(zodb.path.read_bytes())
    data[-8:] = bytes(8)
    zodb.path.write_bytes(data)
    with pytest.raises(richstore.FormatError, match="is damaged"):
        convert(zodb.path, store)
    assert not store


# --- whose code runs


class Program:
    """Runs a program when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def make_hostile(kind: str, path: Path, value: Any) -> None:
    """Make a file of a kind, with a value that runs a program."""
    if kind == "shelve":
        with shelve.open(str(path)) as shelf:
            shelf["a"] = value
    elif kind == "sqlitedict":
        with contextlib.closing(sqlite3.connect(path)) as database:
            database.execute("CREATE TABLE unnamed (key TEXT PRIMARY KEY, value BLOB)")
            database.execute("INSERT INTO unnamed VALUES ('a', ?)", [pickle.dumps(value)])
            database.commit()
    elif kind == "saved_instance":
        with contextlib.closing(sqlite3.connect(path)) as database:
            database.execute("CREATE TABLE store (key TEXT PRIMARY KEY, value Text)")
            database.execute("INSERT INTO store VALUES ('a', ?)", [pickle.dumps(value)])
            database.commit()
    elif kind == "diskcache":
        diskcache = pytest.importorskip("diskcache")
        with diskcache.Cache(path) as cache:
            cache["a"] = [value, "x" * 100_000]
    elif kind == "zodb":
        pytest.importorskip("ZODB")
        import transaction
        import ZODB.FileStorage

        database = ZODB.DB(ZODB.FileStorage.FileStorage(str(path)))
        database.open().root()["a"] = value
        transaction.commit()
        database.close()
    else:
        path.write_bytes(pickle.dumps({"a": value}))


@pytest.mark.parametrize(
    "kind", ["shelve", "sqlitedict", "saved_instance", "diskcache", "zodb", "pickle"]
)
def test_no_code_runs(kind: str, tmp_path: Path, store: richstore.Store) -> None:
    """A file that others can write runs nothing, and one that only you can write does."""
    path = tmp_path / ("old.pickle" if kind == "pickle" else "old")
    make_hostile(kind, path, Program(tmp_path / "ran"))
    files = [one for one in tmp_path.rglob("*") if one.is_file()]
    for file in files:
        file.chmod(0o666)
    with pytest.raises(
        richstore.UntrustedClassError, match=r"posix\.mkdir is not among.*can write"
    ):
        convert(path, store)
    assert not (tmp_path / "ran").exists() and not store
    assert files == [one for one in tmp_path.rglob("*") if one.is_file()]
    for file in files:
        file.chmod(0o600)
    with contextlib.suppress(FileExistsError, richstore.FormatError):
        convert(path, store)  # the second reading finds the directory there
    assert (tmp_path / "ran").exists()


def test_a_large_value_that_others_can_write(tmp_path: Path, store: richstore.Store) -> None:
    """Of a cache of one's own, a value in a file that others can write is not trusted."""
    diskcache = pytest.importorskip("diskcache")
    with diskcache.Cache(tmp_path / "cache") as cache:
        cache["a"] = [Order(1), "x" * 100_000]
    convert(tmp_path / "cache", store)
    assert store["a"][0] == Order(1)
    (file,) = (tmp_path / "cache").rglob("*.val")
    file.chmod(0o666)
    with pytest.raises(richstore.UntrustedClassError, match=r"\['a'\].*Order is not among"):
        convert(tmp_path / "cache", store)


# --- errors


def test_what_is_not_there(tmp_path: Path, store: richstore.Store) -> None:
    """A path with nothing, with something unknown, and a kind that does not fit, are told apart."""
    with pytest.raises(FileNotFoundError, match="there is nothing at"):
        convert(tmp_path / "missing", store)
    with pytest.raises(FileNotFoundError, match="there is nothing of diskcache"):
        convert(tmp_path / "missing", store, kind="diskcache")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(richstore.FormatError, match="is nothing that is known; say with kind"):
        convert(tmp_path / "text", store)
    for kind in ("sqlitedict", "zodb", "shelve", "json"):
        with pytest.raises(richstore.FormatError, match="text"):
            convert(tmp_path / "text", store, kind=kind)
    with pytest.raises(ValueError, match="kind is 'pickles', and must be one of atomic_store"):
        convert(tmp_path / "text", store, kind="pickles")
    assert list(tmp_path.iterdir()) == [tmp_path / "text"]


def test_a_class_that_is_gone(tmp_path: Path, store: richstore.Store) -> None:
    """A class that cannot be imported is named, with its key, and nothing is stored."""
    with shelve.open(str(tmp_path / "old")) as shelf:
        shelf["a"] = 1
        shelf["order"] = Order(1)
    for file in tmp_path.iterdir():
        file.write_bytes(file.read_bytes().replace(b"Order", b"Ordex"))
    with pytest.raises(richstore.FormatError, match=r"\['order'\]: .*cannot be imported.*Ordex"):
        convert(tmp_path / "old", store)
    assert not store
    richstore.renamed(f"{Order.__module__}.Ordex", Order)
    convert(tmp_path / "old", store)
    assert store["order"] == Order(1)


def test_nothing_is_written_to_the_source(tmp_path: Path, store: richstore.Store) -> None:
    """Converting changes no file, and makes none beside."""
    with shelve.open(str(tmp_path / "old")) as shelf:
        shelf.update(VALUES)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for file in tmp_path.iterdir():
        file.chmod(0o400)
    convert(tmp_path / "old", store)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
