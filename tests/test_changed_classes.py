"""Classes that change: attributes added later, new names, versions, and `Store.migrate`."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from class_versions import Versions

import richstore


@pytest.fixture
def versions(tmp_path: Path) -> Versions:
    """An empty store, and no modules."""
    return Versions(tmp_path)


OLD = """
    from dataclasses import dataclass, field

    class Plain:
        def __init__(self, n):
            self.n = n

    @dataclass
    class Data:
        n: int

    @dataclass(slots=True)
    class Slots:
        n: int

    class Own:
        def __init__(self, n):
            self.n = n

        def __setstate__(self, state):
            self.__dict__.update(state)
"""
NEW = """
    from dataclasses import dataclass, field

    class Plain:
        vip = False

        def __init__(self, n):
            self.n = n

    @dataclass
    class Data:
        n: int
        vip: bool = False
        tags: list = field(default_factory=list)

    @dataclass(slots=True)
    class Slots:
        n: int
        vip: bool = False
        tags: list = field(default_factory=list)

    class Own:
        def __init__(self, n):
            self.n = n

        def __setstate__(self, state):
            self.__dict__.update({"vip": state["n"] > 5}, **state)
"""


def test_attributes_added_later(versions: Versions) -> None:
    """What was stored before has the defaults of the class, and nothing is written for it."""
    versions.write("shop", OLD)
    versions.run(
        """
        import shop
        for cls in (shop.Plain, shop.Data, shop.Slots, shop.Own):
            store[cls.__name__] = [cls(7)]
        """
    )
    versions.write("shop", NEW)
    before = versions.store.read_bytes()
    versions.run(
        """
        with store.snapshot() as view:
            for mapping in (store, view):
                assert mapping["Plain"][0].vip is False and mapping["Own"][0].vip is True
                for name in ("Data", "Slots"):
                    found = mapping[name][0]
                    assert (found.n, found.vip, list(found.tags)) == (7, False, []), name
                    assert repr(found) == f"{name}(n=7, vip=False, tags=[])"
                    assert richstore.plain(found) == found
        """
    )
    assert versions.store.read_bytes() == before
    versions.run(
        """
        for name in ("Data", "Slots"):
            store[name][0].tags.append("new")
            store[name][0].vip = True
        """
    )
    versions.run(
        """
        for name in ("Data", "Slots"):
            assert repr(store[name][0]) == f"{name}(n=7, vip=True, tags=['new'])"
        """
    )


CUSTOMER_1 = """
    class Customer:
        def __init__(self, name):
            self.name = name
"""
CUSTOMER_3 = """
    class Customer:
        __richstore_version__ = 3

        def __init__(self, first, last):
            self.first, self.last, self.notes = first, last, []

        @classmethod
        def upgrade(cls, state, from_version):
            assert from_version in (0, 1), from_version
            first, last = state.pop("name").split(" ")
            return {**state, "first": first, "last": last, "notes": [from_version]}
"""


def test_versions_are_upgraded_when_read(versions: Versions) -> None:
    """Old instances are upgraded in stores, snapshots and copies, and written all together."""
    versions.write("shop", CUSTOMER_1)
    versions.run(
        """
        from shop import Customer
        ann = Customer("ann lee")
        store["all"] = {"a": ann, "again": [ann], "bob": Customer("bob ray")}
        store["rows"] = [Customer(f"n{n} m") for n in range(300)]
        """
    )
    versions.write("shop", CUSTOMER_3)
    versions.run(
        """
        with store.snapshot() as view:
            for every in (view["all"], richstore.plain(store["all"]), store["all"]):
                assert (every["a"].first, every["a"].last, every["a"].notes) == ("ann", "lee", [0])
                assert every["a"] is every["again"][0] and not hasattr(every["a"], "name")
            try:
                view["all"]["a"].notes.append(1)
            except richstore.ReadOnlyError:
                pass
            else:
                raise AssertionError
        assert [row.first for row in store["rows"]] == [f"n{n}" for n in range(300)]
        every["a"].notes.append("x")
        every["bob"].first = "rob"
        store["rows"][150].notes.append("y")
        assert not store.verify().problems
        """
    )
    versions.run(
        """
        every = store["all"]
        assert every["a"].notes == [0, "x"] and every["bob"].first == "rob", every["a"].notes
        assert every["bob"].notes == [0]
        assert [row.notes for row in store["rows"]][149:152] == [[0], [0, "y"], [0]]
        """
    )
    raw = versions.store.read_bytes()
    assert b"shop\0Customer\x003" in raw


KINDS = """
    import collections

    class Named:
        def __init__(self, name):
            self.name = name

    class Slots:
        __slots__ = ("name", "other")

        def __init__(self, name):
            self.name = name

    class Own(Named):
        def __getstate__(self):
            return ("state", self.name)

        def __setstate__(self, state):
            kind, self.name = state

    class Given(Named):
        def __new__(cls, name):
            return super().__new__(cls)

        def __getnewargs__(self):
            return (self.name,)

    class Reduced(Named):
        def __reduce__(self):
            return (Reduced, (self.name,), {"extra": [1]})

    class Rows(list):
        pass

    class Table(dict):
        pass

    class Queue(collections.deque):
        pass

    class Failure(Exception):
        pass

    KINDS = (Named, Slots, Own, Given, Reduced)
    HOLDERS = (Rows, Table, Queue, Failure)

    def fill(store):
        for cls in KINDS:
            store[cls.__name__] = [cls("old")]
        for cls in HOLDERS:
            made = cls()
            made.name = "old"
            store[cls.__name__] = [made]
"""
KINDS_2 = (
    KINDS
    + """
    def upgrade(cls, state, from_version):
        assert from_version == BEFORE, from_version
        if isinstance(state, tuple) and state[0] == "state":
            return ("state", ["new"])
        if isinstance(state, tuple):
            return (None, {"name": ["new"], "other": 1})
        state = dict(state)
        state["name"] = ["new"]
        return state

    for _cls in (*KINDS, *HOLDERS):
        _cls.__richstore_version__ = 2
        _cls.upgrade = classmethod(upgrade)
"""
)


@pytest.mark.parametrize("before", [0, 1])
def test_all_kinds_of_instances_are_upgraded(versions: Versions, before: int) -> None:
    """Instances with slots, own states and reductions, and subclasses of containers, are too."""
    one = "\n    for _cls in (*KINDS, *HOLDERS):\n        _cls.__richstore_version__ = 1\n"
    versions.write("kinds", KINDS + (one if before else ""))
    versions.run("import kinds\nkinds.fill(store)")
    versions.write("kinds", KINDS_2.replace("BEFORE", str(before)))
    check = """
        import kinds
        with store.snapshot() as view:
            for cls in (*kinds.KINDS, *kinds.HOLDERS):
                for mapping in (view, store):
                    found = mapping[cls.__name__][0]
                    assert list(found.name)[:1] == ["new"], (cls, found.name)
        """
    versions.run(check)
    versions.run(
        check
        + """
        for cls in (*kinds.KINDS, *kinds.HOLDERS):
            if cls is not kinds.Own:
                assert richstore.is_tracked(found.name), cls
                store[cls.__name__][0].name.append("more")
            store[cls.__name__].append(1)
        """
    )
    versions.run(
        check
        + """
        for cls in (*kinds.KINDS, *kinds.HOLDERS):
            expected = ["new"] if cls is kinds.Own else ["new", "more"]
            assert store[cls.__name__][0].name == expected, cls
        assert not store.verify().problems
        """
    )


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("raise KeyError('name')", "KeyError: 'name'"),
        ("return None", "returned None"),
        ("return 5", "does not fit"),
        ("STORE['other'].append(1)", "must not change"),
        ("STORE['new'] = 1", "must not change"),
        ("STORE['one']", "reads the record"),
        (None, "no classmethod upgrade"),
    ],
)
def test_upgrades_that_fail(versions: Versions, body: str | None, told: str) -> None:
    """An upgrade that fails names class, versions and place; the rest reads, nothing is written."""
    versions.write("shop", CUSTOMER_1)
    versions.run(
        """
        from shop import Customer
        store["one"] = [Customer("ann lee")]
        store["other"] = [1]
        """
    )
    source = "class Customer:\n    __richstore_version__ = 2\nSTORE = None\n"
    if body is not None:
        source = (
            "class Customer:\n    __richstore_version__ = 2\n\n    @classmethod\n"
            f"    def upgrade(cls, state, from_version):\n        {body}\n"
        )
    versions.write("shop", source)
    shown = versions.run(
        """
        import shop
        shop.STORE = store
        for _ in range(2):
            with store.snapshot() as view:
                for mapping in (store, view):
                    try:
                        mapping["one"]
                        if mapping is store:
                            raise AssertionError
                    except richstore.UpgradeError as error:
                        print(error)
            store["other"].append(2)
            with store.transaction():
                try:
                    store["one"]
                except richstore.UpgradeError:
                    store["other"].append(3)
        assert store["other"] == [1, 2, 3, 2, 3] and "new" not in store
        assert not store.verify().problems
        """
    )
    assert told in shown and "['one']" in shown and "Traceback" not in shown
    if "must not" not in told and "reads" not in told and "fit" not in told:
        assert "shop.Customer" in shown and "version 0" in shown and "version 2" in shown
    versions.write("shop", CUSTOMER_3)
    versions.run("assert store['one'][0].first == 'ann'")


def test_an_upgrade_that_reads_the_store(versions: Versions) -> None:
    """An upgrade may read other values, small and large, while others commit."""
    versions.write("shop", CUSTOMER_1)
    versions.run(
        """
        from shop import Customer
        store["one"] = [Customer("ann lee")]
        store["two"] = [Customer("bob ray")]
        store["table"] = {f"key {n}": [n] for n in range(3000)}
        store["list"] = list(range(5000))
        """
    )
    versions.write(
        "shop",
        """
        import subprocess, sys
        STORE = None
        COMMAND = None

        class Customer:
            __richstore_version__ = 2

            @classmethod
            def upgrade(cls, state, from_version):
                if state["name"] == "ann lee":
                    subprocess.run(COMMAND, check=True)
                    assert STORE["two"][0].sum == sum(range(5000)) + 2999
                total = sum(STORE["list"]) + STORE["table"]["key 2999"][0]
                assert sum(1 for _ in STORE["table"]) == 3000
                return {**state, "sum": total}
        """,
    )
    versions.run(
        f"""
        import shop
        shop.STORE = store
        code = '''
        import richstore, sys
        with richstore.open({str(versions.store)!r}) as store:
            store["list"].append(1000000)
            store["table"]["key 2999"][0] += 1
        '''
        import textwrap
        shop.COMMAND = [sys.executable, "-c", textwrap.dedent(code)]
        one = store["one"]
        assert one[0].sum == sum(range(5000)) + 2999, one[0].sum
        assert len(store["list"]) == 5001 and store["table"]["key 2999"] == [3000]
        assert not store.verify().problems
        """
    )


def test_a_version_that_is_newer_than_the_class(versions: Versions) -> None:
    """What was written by a newer version of the class raises an error that says so."""
    versions.write("shop", CUSTOMER_3)
    versions.run(
        "from shop import Customer\nstore['one'] = [Customer('ann', 'lee')]\nstore['n'] = 1\n"
    )
    versions.write("shop", CUSTOMER_3.replace("= 3", "= 2"))
    shown = versions.run(
        """
        try:
            store["one"]
        except richstore.UpgradeError as error:
            print(error)
        assert store["n"] == 1 and store.verify().ok
        """
    )
    assert "version 3" in shown and "version 2" in shown and "newer" in shown and "['one']" in shown


def test_a_class_by_value_has_its_version(versions: Versions) -> None:
    """Instances of a class of a script are upgraded as those of modules are."""
    versions.run(
        """
        class Local:
            __richstore_version__ = 1
        local = Local()
        local.n = 1
        store["local"] = local
        """
    )
    versions.run(
        """
        class Local:
            __richstore_version__ = 2
            @classmethod
            def upgrade(cls, state, from_version):
                assert from_version == 1
                return {"n": state["n"] + 1}
        assert store["local"].n == 2
        store["local"].n += 1
        """
    )
    versions.run("assert store['local'].n == 3 and store['local'].__richstore_version__ == 2")


def test_instances_that_several_records_refer_to(versions: Versions) -> None:
    """An old instance with a record of its own is upgraded once, wherever it is reached from."""
    versions.write("shop", CUSTOMER_1)
    versions.run(
        """
        from shop import Customer
        both = Customer("ann lee")
        both.friends = [both, Customer("bob ray")]
        rows = [[n, "x" * 60] for n in range(300)]
        store["rows"] = [[both], *rows, [both]]
        """
    )
    versions.write("shop", CUSTOMER_3)
    check = """
        with store.snapshot() as view:
            for rows in (view["rows"], store["rows"], richstore.plain(store["rows"])):
                ann = rows[0][0]
                assert ann is rows[-1][0] is ann.friends[0] and ann.first == "ann", rows
                assert ann.friends[1].last == "ray" and ann.notes == [0]
        assert store.verify().ok
        """
    versions.run(check)
    versions.run("assert store.migrate() > 1\nassert store.migrate() == 0")
    versions.run(check)
    assert leftovers(versions.store, b"shop\0Customer")
    rows = leftovers(versions.store, b"shop\0Customer\0" + b"3")
    assert rows == leftovers(versions.store, b"shop\0Customer")


def test_others_wait_for_an_upgrade(versions: Versions) -> None:
    """A thread that reads a value while another upgrades it sees the upgraded one, never half."""
    versions.write("shop", CUSTOMER_1)
    write = "from shop import Customer\nstore['one'] = [Customer('ann lee'), Customer('bob ray')]"
    versions.run(write)
    slow = CUSTOMER_3.replace(
        "assert from_version", "import time; time.sleep(0.1); assert from_version"
    )
    versions.write("shop", slow)
    versions.run(
        """
        import threading, time
        failed = []
        def read():
            try:
                one = store["one"]
                assert [x.first for x in one] == ["ann", "bob"] and one[1].notes == [0]
            except BaseException as error:
                failed.append(error)
        threads = [threading.Thread(target=read) for _ in range(4)]
        for thread in threads:
            thread.start()
            time.sleep(0.03)
        for thread in threads:
            thread.join()
        assert not failed, failed
        """
    )


def test_a_reader_that_another_process_overtakes(versions: Versions) -> None:
    """What an old program writes into held instances is upgraded when they are read again."""
    versions.write("shop", CUSTOMER_1)
    versions.run("import shop\nstore['one'] = [shop.Customer('ann lee')]")
    versions.write("shop", CUSTOMER_3)
    reader = versions.start(
        """
        import shop
        ann = store["one"][0]
        assert ann.first == "ann"
        print("ready", flush=True)
        sys.stdin.readline()
        store.refresh()
        assert (ann.first, ann.last, ann.notes) == ("cy", "dan", [0]), vars(ann)
        assert ann is store["one"][0]
        ann.notes.append("x")
        """
    )
    assert reader.stdout is not None and reader.stdout.readline() == "ready\n"
    versions.write("shop", CUSTOMER_1)
    versions.run("store['one'][0].name = 'cy dan'\nstore['one'].append(1)")
    reader.communicate("go\n", timeout=60)
    assert reader.returncode == 0
    versions.write("shop", CUSTOMER_3)
    versions.run("assert store['one'][0].notes == [0, 'x'] and store['one'][1] == 1")


def test_reading_only(versions: Versions) -> None:
    """A store that is open for reading only upgrades what it shows, and writes nothing."""
    versions.write("shop", CUSTOMER_1)
    versions.run("import shop\nstore['one'] = [shop.Customer('ann lee')]")
    versions.write("shop", CUSTOMER_3)
    before = versions.store.read_bytes()
    versions.run(
        """
        store.close()
        with richstore.open(sys.argv[1], "r") as store:
            assert store["one"][0].first == "ann"
            try:
                store["one"][0].first = "x"
            except richstore.ReadOnlyError:
                pass
            else:
                raise AssertionError
            try:
                store.migrate()
            except richstore.ReadOnlyError:
                pass
            else:
                raise AssertionError
        """
    )
    assert versions.store.read_bytes() == before


# --- names


def test_names_that_cannot_be_registered() -> None:
    """Wrong names, things that are no class, contradictions and circles are refused."""
    renamed = richstore.renamed
    for wrong in ("", "name", "a..b", "a.b-c", "1.b"):
        with pytest.raises(ValueError, match="must be a module and a name"):
            renamed(wrong, Path)
    for nothing in (None, "x", 5, sys):
        with pytest.raises(TypeError, match="class or function"):
            renamed("old_module.Name", nothing)
    with pytest.raises(TypeError, match="as a str"):
        renamed(Path, Path)  # type: ignore[arg-type]
    renamed("old_module.First", Versions)
    renamed("old_module.First", Versions)
    with pytest.raises(ValueError, match="cannot be"):
        renamed("old_module.First", Path)
    with pytest.raises(ValueError, match="again"):
        renamed(f"{Versions.__module__}.{Versions.__qualname__}", Versions)
    renamed("old_module.Second", Path)
    with pytest.raises(ValueError, match="again"):
        renamed(f"{Path.__module__}.Path", type("Second", (), {"__module__": "old_module"}))


def test_names_are_registered_while_a_store_is_open(versions: Versions) -> None:
    """A rename holds from the next reading, also for what is inside of the class."""
    versions.write("old", "class A:\n    class B:\n        def __init__(self): self.n = 1\n")
    versions.run("import old\nstore['b'] = [old.A.B()]\nstore['a'] = [old.A()]")
    versions.remove("old")
    versions.write("new", "class C:\n    class B: pass\n")
    versions.run(
        """
        import threading, new
        threads = [
            threading.Thread(target=richstore.renamed, args=(f"old.{name}", new.C))
            for name in ("A", *(f"X{n}" for n in range(20)))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert isinstance(store["b"][0], new.C.B) and store["b"][0].n == 1
        assert isinstance(store["a"][0], new.C)
        richstore.renamed("older.A", type("A", (), {"__module__": "old"}))
        """
    )


OLD_SHOP = """
    import enum, collections
    class Outer:
        class Inner:
            def __init__(self, n):
                self.n = n
    class Color(enum.Enum):
        RED = 1
    class Rows(list):
        pass
    class Pair(collections.namedtuple("Pair", "a b")):
        pass
    class Base:
        pass
    class Reduced:
        def __init__(self, n):
            self.n = n
        def __reduce__(self):
            return (Reduced, (self.n,))
    def function():
        return "old"
"""
RENAME = """
    import new_shop
    richstore.renamed("old_shop.Outer.Inner", new_shop.Item)
    richstore.renamed("old_shop.Color", new_shop.Colour)
    richstore.renamed("old_shop.Rows", new_shop.Lines)
    richstore.renamed("old_shop.Pair", new_shop.Two)
    richstore.renamed("old_shop.Base", new_shop.Root)
    richstore.renamed("old_shop.Reduced", new_shop.Made)
    richstore.renamed("old_shop.function", new_shop.work)
"""
CHECK = """
    every = store["every"]
    item = every["item"]
    assert type(richstore.plain(item)) is new_shop.Item and item.n == 1
    assert every["member"] is new_shop.Colour.RED
    assert isinstance(every["rows"], new_shop.Lines) and list(every["rows"]) == [1]
    assert type(every["pair"]) is new_shop.Two and every["pair"].b == [2]
    assert isinstance(every["reduced"], new_shop.Made) and every["reduced"].n == 3
    assert every["function"] is new_shop.work
    assert isinstance(every["local"], new_shop.Root), type(every["local"]).__mro__
    assert list(store) == ["atom", "every", "shared", "table", new_shop.Colour.RED], list(store)
    assert store["atom"] is new_shop.Colour.RED
    assert all(isinstance(one, new_shop.Item) for one in store["table"].values())
    assert store["shared"][0][0] is store["shared"][-1][0]
"""


@pytest.fixture
def renamed_shop(versions: Versions) -> Versions:
    """A store with all that a module has, which is another one now."""
    versions.write("old_shop", OLD_SHOP)
    versions.run(
        """
        import old_shop
        class Local(old_shop.Base):
            pass
        store["every"] = {
            "item": old_shop.Outer.Inner(1),
            "member": old_shop.Color.RED,
            "rows": old_shop.Rows([1]),
            "pair": old_shop.Pair(1, [2]),
            "reduced": old_shop.Reduced(3),
            "function": old_shop.function,
            "local": Local(),
        }
        store[old_shop.Color.RED] = "a value"
        store["atom"] = old_shop.Color.RED
        store["table"] = {n: old_shop.Outer.Inner(n) for n in range(500)}
        both = old_shop.Outer.Inner("shared")
        store["shared"] = [[both], *([n, "x" * 60] for n in range(300)), [both]]
        """
    )
    versions.remove("old_shop")
    source = OLD_SHOP.replace("class Outer:\n        class Inner:", "class Item:")
    source = source.replace(
        "            def __init__(self, n):\n                self.n = n\n", "", 1
    )
    source = source.replace(
        "class Item:\n", "class Item:\n        def __init__(self, n):\n            self.n = n\n", 1
    )
    for old, new in (
        ("Color", "Colour"),
        ("Rows", "Lines"),
        ("Pair", "Two"),
        ("Base", "Root"),
        ("Reduced", "Made"),
        ("function", "work"),
    ):
        source = source.replace(old, new)
    versions.write("new_shop", source)
    return versions


def test_renamed_classes_and_functions(renamed_shop: Versions) -> None:
    """Records that name the old ones give the new ones, and name these when they are written."""
    renamed_shop.run(RENAME + CHECK)
    renamed_shop.run(
        RENAME
        + """
    store["every"]["n"] = 1
    store["table"][3].n = 33
    """
    )
    renamed_shop.run(RENAME + CHECK + "\n    assert store['table'][3].n == 33\n")
    renamed_shop.run(
        """
        every = store["every"]
        assert every["item"].n == 1 and every["member"].value == 1 and every["function"]() == "old"
        assert not any(isinstance(one, richstore.Missing) for one in every.values())
        assert store["table"][3].n == 33
        """
    )


# --- migrating


def leftovers(path: Path, old: bytes) -> list[bytes]:
    """Return the engine keys of the records that have some bytes."""
    with richstore.open(path, "r") as store:
        view = store._tracker.engine.read()
        try:
            rows = list(view.scan(b"\x10", b"\x30"))
        finally:
            view.close()
    return [name for name, stored in rows if old in name or old in stored]


def test_migrating_renamed_classes(renamed_shop: Versions) -> None:
    """Afterwards no record names an old module, and all reads without what was registered."""
    assert len(leftovers(renamed_shop.store, b"old_shop")) > 5
    shown = renamed_shop.run(
        RENAME
        + """
    seen = []
    done = store.migrate(progress=lambda records, size: seen.append((records, size)))
    assert seen and seen[-1] == max(seen), seen
    assert store.migrate() == 0
    assert store.verify().problems == []
    assert store[new_shop.Colour.RED] == "a value"
    print(done)
    """
    )
    assert int(shown) > 5
    assert leftovers(renamed_shop.store, b"old_shop") == []
    renamed_shop.run("    import new_shop" + CHECK)


@pytest.mark.parametrize("before", [0, 1])
def test_migrating_versions(versions: Versions, before: int) -> None:
    """Afterwards instances of all kinds have the version of their class."""
    one = "\n    for _cls in (*KINDS, *HOLDERS):\n        _cls.__richstore_version__ = 1\n"
    versions.write("kinds", KINDS + (one if before else ""))
    versions.run(
        """
        import kinds
        kinds.fill(store)
        store["large"] = [[kinds.Named("old"), kinds.Rows([n])] for n in range(500)]
        """
    )
    versions.write("kinds", KINDS_2.replace("BEFORE", str(before)))
    versions.run("assert store.migrate() > 9\nassert store.migrate() == 0")
    versions.write("kinds", KINDS_2.replace("BEFORE", "'never'"))
    versions.run(
        """
        import kinds
        for cls in (*kinds.KINDS, *kinds.HOLDERS):
            assert store[cls.__name__][0].name == ["new"], cls
        assert all(one.name == ["new"] for one, _ in store["large"])
        assert not store.verify().problems
        """
    )


MIGRATE = RENAME.replace("\n    ", "\n") + "\nprint(store.migrate(), flush=True)\n"


def test_a_migration_that_is_killed(renamed_shop: Versions) -> None:
    """A migration that is killed in the middle leaves a whole store, and another does the rest."""
    before = leftovers(renamed_shop.store, b"old_shop")
    killed = renamed_shop.start(
        RENAME.replace("\n    ", "\n")
        + """
import os, signal
import richstore.migrating as migrating
migrating._RECORDS = 1
rewrite = migrating._Migration._rewrite
def counted(self, transaction, found, done=[0]):
    done[0] += 1
    if done[0] == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return rewrite(self, transaction, found)
migrating._Migration._rewrite = counted
store.migrate()
"""
    )
    killed.communicate(timeout=60)
    assert killed.returncode == -9
    left = leftovers(renamed_shop.store, b"old_shop")
    assert left and len(left) < len(before)
    renamed_shop.run(RENAME + CHECK)
    renamed_shop.run(MIGRATE)
    assert leftovers(renamed_shop.store, b"old_shop") == []
    renamed_shop.run("    import new_shop" + CHECK + "\n    assert store.verify().ok\n")


def test_others_write_while_a_store_is_migrated(renamed_shop: Versions) -> None:
    """What other processes commit meanwhile is there, and reads of theirs see whole values."""
    others = [
        renamed_shop.start(
            RENAME.replace("\n    ", "\n")
            + f"""
print("ready", flush=True)
sys.stdin.readline()
for n in range(100):
    store["table"][n % 50].n = ("by", {number}, n)
    store["mine", {number}] = n
    assert len(store["table"]) == 500
    assert store["shared"][0][0] is store["shared"][-1][0]
"""
        )
        for number in range(2)
    ]
    for one in others:
        assert one.stdout is not None and one.stdin is not None
        assert one.stdout.readline() == "ready\n"
    for one in others:
        assert one.stdin is not None
        one.stdin.write("go\n")
        one.stdin.flush()
    renamed_shop.run(MIGRATE)
    for one in others:
        one.communicate(timeout=60)
        assert one.returncode == 0
    assert leftovers(renamed_shop.store, b"old_shop") == []
    renamed_shop.run(
        """
        assert store["mine", 0] == store["mine", 1] == 99
        assert all(store["table"][n].n[2] in (n, n + 50) for n in range(50))
        assert [store["table"][n].n for n in range(50, 500)] == list(range(50, 500))
        assert store.verify().ok
        """
    )


@pytest.mark.parametrize("step", ["_pages", "_remember", "_move"])
def test_a_migration_that_forgets_some_is_found(renamed_shop: Versions, step: str) -> None:
    """Looking for old names finds those that a migration without one of its steps has left."""
    renamed_shop.run(
        RENAME
        + f"""
    import richstore.migrating as migrating
    migrating._Migration.{step} = lambda self, *arguments: 0
    store.migrate()
    """
    )
    assert leftovers(renamed_shop.store, b"old_shop")


def test_migrating_what_is_missing(renamed_shop: Versions) -> None:
    """What cannot be found stays as it is, beside what is migrated."""
    before = len(leftovers(renamed_shop.store, b"old_shop"))
    renamed_shop.run(
        """
        import new_shop
        richstore.renamed("old_shop.Rows", new_shop.Lines)
        assert store.migrate() == 1
        assert isinstance(store["every"]["rows"], new_shop.Lines)
        assert isinstance(store["every"]["item"], richstore.Missing)
        assert store.migrate() == 0
        """
    )
    assert len(leftovers(renamed_shop.store, b"old_shop")) == before
    renamed_shop.run(RENAME + CHECK)
