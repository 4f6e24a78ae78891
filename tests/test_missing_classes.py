"""Classes and functions that cannot be found: placeholders that are kept as they were."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from class_versions import Versions

import richstore
from richstore.codec import records, stream
from richstore.codec.classes import resolve
from richstore.codec.policy import ClassPolicy

MODELS = """
    import collections
    import dataclasses
    import enum


    class User:
        def __init__(self, name, age):
            self.name = name
            self.age = age
            self.tags = []

        def __eq__(self, other):
            return vars(self) == vars(other)

        __hash__ = None


    class Slots:
        __slots__ = ("a", "b")


    class Odd:
        def __getstate__(self):
            return (1, [2])

        def __setstate__(self, state):
            self.state = state


    class Color(enum.Enum):
        RED = 1


    class Rows(list):
        pass


    class Table(dict):
        pass


    class Point(collections.namedtuple("Point", "x y")):
        pass


    class Reduced:
        def __init__(self, x):
            self.x = x

        def __reduce__(self):
            return (Reduced, (self.x,), {"y": [3]})


    class Made:
        def __init__(self, x):
            self.x = x

        @classmethod
        def of(cls, x):
            return cls(x)

        def __reduce__(self):
            return (Made.of, (self.x,))


    class Failure(Exception):
        pass


    class Text(str):
        pass


    class Bytes(bytearray):
        pass


    class Queue(collections.deque):
        pass


    class Key:
        def __init__(self, n):
            self.n = n

        def __eq__(self, other):
            return self.n == other.n

        def __hash__(self):
            return hash(self.n)


    def function():
        return 7


    def values():
        slots = Slots()
        slots.a, slots.b = 1, [2]
        rows = Rows([1, [2]])
        rows.title = ["t"]
        table = Table(a=[1])
        table.me = table
        user = User("ann", 3)
        circle = User("bob", 4)
        circle.me = [circle]
        return {
            "user": user,
            "slots": slots,
            "odd": Odd(),
            "member": Color.RED,
            "rows": rows,
            "table": table,
            "point": Point(1, [2]),
            "reduced": Reduced([4]),
            "made": Made(5),
            "failure": Failure("x", [1]),
            "text": Text("text"),
            "bytes": Bytes(b"abc"),
            "queue": Queue([User("q", 1)], 5),
            "function": function,
            "class": User,
            "factory": collections.defaultdict(User),
            "keys": {Key(1): 1, Key(2): [2]},
            "elements": {Key(1), Key(2)},
            "frozen": frozenset([Key(1), Key(2)]),
            "members": {Color.RED: (Color.RED, [Color.RED])},
            "alias": [user, [user]],
            "inside": (user, Point(user, [User("in", 1)])),
        }


    def show(value, seen=()):
        "Return what tells two values apart, identities included."
        if isinstance(value, (int, bytes, type(None), type, type(function))):
            return value if not isinstance(value, enum.Enum) else ("member", value.name)
        if isinstance(value, str):
            return type(value).__name__, str(value)
        if id(value) in seen:
            return "again", seen.index(id(value))
        seen = (*seen, id(value))
        state = getattr(value, "__dict__", {})
        inside = []
        if isinstance(value, dict):
            inside = [(show(k, seen), show(v, seen)) for k, v in value.items()]
        elif isinstance(value, (set, frozenset)):
            inside = sorted(show(one, seen) for one in value)
        elif isinstance(value, (list, tuple, collections.deque)):
            inside = [show(one, seen) for one in value]
        elif isinstance(value, (bytearray, BaseException)):
            inside = [bytes(value)] if isinstance(value, bytearray) else show(value.args, seen)
        names = ("a", "b") if isinstance(value, Slots) else ()
        slots = [getattr(value, name) for name in names]
        return (
            value.__class__.__name__,
            inside,
            [(name, show(one, seen)) for name, one in dict(state).items()],
            [show(one, seen) for one in slots],
        )
"""
SHOW = """
    import pickle
    from app.models import show, values
    expected = pickle.loads(pickle.dumps(values()))
    expected = {key: show(value) for key, value in expected.items()}
"""


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Versions:
    """A store with one of each kind of value."""
    made = Versions(tmp_path_factory.mktemp("written"))
    made.write("app.models", MODELS)
    made.run(
        """
        from app.models import Color, values
        store["all"] = {"n": 0, **values()}
        for key, value in values().items():
            store[key, "alone"] = value
        store[Color.RED] = "by member"
        store["page"] = [values()["user"] for _ in range(300)]
        """
    )
    return made


@pytest.fixture
def versions(written: Versions, tmp_path: Path) -> Versions:
    """The store with one of each kind of value, whose classes are not there."""
    made = Versions(tmp_path)
    made.write("app.other", "")
    shutil.copy(written.store, made.store)
    return made


def test_placeholders_show_what_they_have(versions: Versions) -> None:
    """Each object of a missing class, and the class and function, say what is missing, and show."""
    shown = versions.run(
        """
        for key, value in store["all"].items():
            print(key, "|", value, "|", isinstance(value, richstore.Missing))
        user = store["all"]["user"]
        print(user.name, user.age, user.tags, user.__richstore_missing__)
        print(user.__richstore_reason__)
        print(store["all"]["slots"].b, store["all"]["rows"].title)
        print(type(store["all"]["alias"][0]) is type(user), hasattr(user, "nothing"))
        """
    )
    lines = dict(line.split(" | ", 1) for line in shown.splitlines() if " | " in line)
    one = "app.models."
    assert lines["user"] == f"<missing {one}User name='ann' age=3 tags=[]> | True"
    assert lines["slots"] == f"<missing {one}Slots a=1 b=[2]> | True"
    assert lines["odd"] == f"<missing {one}Odd (1, [2])> | True"
    assert lines["member"] == f"<missing {one}Color 'RED'> | True"
    assert lines["rows"] == f"<missing {one}Rows title=['t'] [1, [2]]> | True"
    assert lines["table"] == f"<missing {one}Table me=<missing …> {{'a': [1]}}> | True"
    assert lines["point"] == f"<missing {one}Point 1 [2]> | True"
    assert lines["reduced"] == f"<missing {one}Reduced [4] y=[3]> | True"
    assert lines["failure"] == f"<missing {one}Failure ('x', [1])> | True"
    assert lines["text"] == f"<missing {one}Text 'text'> | True"
    assert lines["bytes"] == f"<missing {one}Bytes b'abc'> | True"
    assert lines["function"] == f"<missing {one}function> | True"
    assert lines["class"] == f"<missing {one}User> | True"
    assert lines["factory"] == f"defaultdict(<missing {one}User>, {{}}) | False"
    assert len(lines["elements"].split("n=")) == 3
    assert shown.splitlines()[-4:] == [
        "ann 3 [] app.models.User",
        "ModuleNotFoundError: No module named 'app.models'",
        "[2] ['t']",
        "True False",
    ]


@pytest.mark.parametrize(
    "change",
    [
        "store['all']['n'] += 1",
        "store['other'] = store['all']",
        "store['other'] = richstore.plain(store['all'])",
        "store['other'] = store.snapshot()['all']",
        "store['all'] = store.snapshot()['all']; store['all']['n'] = 1",
        "import copy; store['other'] = copy.deepcopy(store['all'])",
        "import pickle; store['other'] = pickle.loads(pickle.dumps(store['all']))",
        "store['all']['more'] = [{'x': 'y' * 50, 'n': n} for n in range(200)]",
    ],
)
def test_what_is_written_again_reads_as_it_was(versions: Versions, change: str) -> None:
    """What is written again, copied and grown with placeholders is all there with the class."""
    assert versions.run(change + "\nprint(store.verify().problems)").splitlines()[-1] == "[]"
    versions.write("app.models", MODELS)
    versions.run(
        SHOW
        + """
    for name in {"all", "other"} & {key for key in store if isinstance(key, str)}:
        for key, value in store[name].items():
            if key not in ("n", "more"):
                assert show(value) == expected[key], (name, key, show(value), expected[key])
        every = store[name]
        assert every["alias"][0] is every["alias"][1][0] is every["user"] is every["inside"][0]
        assert every["members"][every["member"]][0] is every["member"]
        assert every["inside"][1][0] is every["user"]
        assert richstore.is_tracked(every["user"].tags), name
        every["user"].tags.append(1)
        assert not store.verify().problems
    """
    )


def test_values_of_one_placeholder(versions: Versions) -> None:
    """A placeholder that is a value by itself is moved to another key, and reads as it was."""
    versions.run(
        """
        for key in [key for key in store if isinstance(key, tuple)]:
            store[key[0], "moved"] = store[key]
            store[key[0], "plain"] = richstore.plain(store[key])
            del store[key]
        assert not store.verify().problems
        """
    )
    versions.write("app.models", MODELS)
    versions.run(
        SHOW
        + """
    for key in [key for key in store if isinstance(key, tuple)]:
        assert show(store[key]) == expected[key[0]], (key, show(store[key]))
    """
    )


def test_what_is_inside_can_be_changed(versions: Versions) -> None:
    """A list inside a placeholder is tracked: what is put there is there when the class is."""
    versions.run(
        """
        store["all"]["user"].tags.append("new")
        store["all"]["rows"].title.append("new")
        with store.transaction():
            store["page"][7].tags.extend("x" * 9 for _ in range(1000))
        """
    )
    versions.write("app.models", MODELS)
    versions.run(
        """
        assert store["all"]["user"].tags == ["new"] and store["all"]["rows"].title == ["t", "new"]
        assert len(store["page"][7].tags) == 1000 and len(store["page"]) == 300
        assert not store.verify().problems
        """
    )


def test_changing_a_placeholder_says_what_to_do(versions: Versions) -> None:
    """Every change of a placeholder, and a call of a missing class, raises and changes nothing."""
    versions.run(
        """
        every = store["all"]
        user = every["user"]

        def change(action):
            try:
                action()
            except richstore.MissingClassError as error:
                assert "app.models" in str(error) and "richstore.renamed" in str(error), error
                assert "No module named" in str(error), error
            else:
                raise AssertionError(action)

        change(lambda: setattr(user, "name", "other"))
        change(lambda: delattr(user, "name"))
        change(lambda: user.__setitem__(1, 2))
        change(lambda: every["function"]())
        change(lambda: every["class"]("x", 1))
        change(lambda: every["factory"]["new"])
        change(lambda: setattr(richstore.plain(user), "name", "other"))
        assert user.name == "ann" and list(every["factory"]) == []
        with store.snapshot() as view:
            frozen = view["all"]["user"]
            assert frozen.name == "ann" and isinstance(frozen, richstore.Missing)
            try:
                frozen.name = "other"
            except (richstore.ReadOnlyError, richstore.MissingClassError):
                pass
            else:
                raise AssertionError
        """
    )


def test_copies_and_equality(versions: Versions) -> None:
    """Placeholders are equal by what they hold, and copies of all kinds are equal to them."""
    versions.run(
        """
        import copy, pickle
        every = store["all"]
        with store.snapshot() as view:
            for key, value in every.items():
                if key in ("table", "elements", "keys", "frozen", "members"):
                    continue
                assert richstore.plain(value) == value == view["all"][key], key
                assert copy.deepcopy(value) == value, key
                assert pickle.loads(pickle.dumps(richstore.plain(value))) == value, key
        assert every["user"] != every["slots"] and every["user"] != 1
        assert every["user"] != store["page"][0] or every["user"].tags == []
        assert len({every["user"], store["page"][0]}) == 2
        assert hash(every["user"]) == hash(every["user"])
        """
    )


def test_keys_of_a_missing_enum(versions: Versions) -> None:
    """A key that is a member of a missing Enum is a placeholder, by which its value is found."""
    versions.run(
        """
        (key,) = [key for key in store if isinstance(key, richstore.Missing)]
        assert store[key] == "by member"
        store[key] = "again"
        """
    )
    versions.write("app.models", MODELS)
    versions.run("from app.models import Color\nassert store[Color.RED] == 'again'")


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import no_such_dependency\nclass User: pass\n", "No module named 'no_such_dependency'"),
        ("raise ImportError('not on this machine')\n", "not on this machine"),
        ("class Other: pass\n", "has no attribute 'User'"),
        ("def User(): pass\n", "no class"),
    ],
)
def test_modules_that_do_not_have_it(versions: Versions, source: str, reason: str) -> None:
    """A module whose dependency is missing, or that has no such class, gives placeholders."""
    versions.write("app.models", source)
    shown = versions.run("print(store['user', 'alone'].__richstore_reason__)")
    assert reason in shown


@pytest.mark.parametrize("source", ["class User:\n", "raise RuntimeError('broken')\n"])
def test_modules_that_are_broken(versions: Versions, source: str) -> None:
    """Any other error of a module is raised, with the place of the record that asked for it."""
    versions.write("app.models", source)
    versions.run(
        """
        with store.snapshot() as view:
            for mapping in (store, view):
                try:
                    mapping["all"]
                except (SyntaxError, RuntimeError) as error:
                    assert "['all']" in error.__notes__[0], error.__notes__
                else:
                    raise AssertionError
        assert not store.verify().problems
        """
    )


def test_classes_by_value_that_cannot_be_loaded(tmp_path: Path) -> None:
    """A class and a function stored by value whose code needs what is missing are placeholders."""
    versions = Versions(tmp_path)
    versions.write("base", "class Base: pass\n")
    versions.run(
        """
        import base
        class Local(base.Base):
            def __init__(self):
                self.x = [1]
        def function():
            return base.Base()
        store["local"] = [Local(), Local, function, 0]
        """
    )
    versions.remove("base")
    versions.run(
        """
        local, cls, function, _ = store["local"]
        assert all(isinstance(one, richstore.Missing) for one in (local, cls, function))
        assert local.x == [1] and "base" in local.__richstore_reason__
        assert local.__richstore_missing__ == "__main__.Local", local.__richstore_missing__
        store["local"][3] += 1
        """
    )
    versions.write("base", "class Base: pass\n")
    versions.run(
        """
        import base
        local, cls, function, _ = store["local"]
        assert isinstance(local, base.Base) and local.x == [1] and isinstance(local, cls)
        assert type(function()) is base.Base
        """
    )


def test_verify_tells_what_is_missing(versions: Versions) -> None:
    """A report says which classes and functions cannot be found; that is no problem."""
    versions.run(
        """
        report = store.verify()
        assert report.ok and not report.problems
        names = "User Slots Odd Color Rows Table Point Reduced Made Failure Text Bytes Queue Key"
        expected = {f"app.models.{name}" for name in [*names.split(), "function"]}
        found = {name for name in report.missing}
        assert expected <= found and all(name.startswith("app.models.") for name in found), found
        assert "No module named" in report.missing["app.models.User"]
        """
    )
    versions.write("app.models", MODELS)
    versions.run("assert store.verify().missing == {}")


class _Refusing(ClassPolicy):
    """Allows nothing, and remembers what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    def find(self, module: str, qualname: str) -> Any:
        self.asked.append((module, qualname))
        raise richstore.RichStoreError(qualname)


def test_missing_names_are_asked_of_the_policy() -> None:
    """What names a missing class again goes through the policy of the store, under its own name."""
    stand_in = resolve("no_such_module_at_all", "Thing.Inner")
    blob = stream.dump_blob(stand_in)
    assert records.load_blob(blob) is stand_in
    policy = _Refusing()
    with pytest.raises(richstore.RichStoreError, match=r"Thing\.Inner"):
        records.load_blob(blob, policy)
    assert policy.asked == [("no_such_module_at_all", "Thing.Inner")]
