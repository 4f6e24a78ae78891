"""The command line: what each command prints, changes and exits with."""

from __future__ import annotations

import collections
import copy
import datetime
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click
import pytest
from click.testing import CliRunner, Result
from conftest import check_store, run_python
from hypothesis import given, settings
from hypothesis import strategies as st
from sample_classes import Bare

import richstore
from richstore.cli import watching
from richstore.cli.main import cli
from richstore.cli.reference import page
from richstore.cli.show import json_text, line, text

PROJECT = Path(richstore.__file__).parent.parent


class Point(NamedTuple):
    x: int
    y: Any


class Slotted:
    __slots__ = ("a", "missing")

    def __init__(self) -> None:
        self.a = [1]


class Rude:
    def __repr__(self) -> str:
        raise LookupError("no repr today")


class Moody:
    is_angry = False

    def __init__(self) -> None:
        self.mood = 1

    def __setstate__(self, state: Any) -> None:
        if Moody.is_angry:
            raise ValueError("not today")
        self.__dict__.update(state)


class Strict:
    def __init__(self) -> None:
        self.n = 0

    def __setattr__(self, name: str, value: Any) -> None:
        if value % 2:
            raise ValueError(f"{value} is odd")
        super().__setattr__(name, value)


class Strange:
    def __getitem__(self, key: str) -> int:
        return len(key)


class Run:
    """Runs commands on one store."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __call__(self, *words: str, code: int = 0, given: str | None = None) -> str:
        """Run a command that is to end with an exit code; return all that it printed."""
        done = self.run(*words, "-s", self.path, given=given)
        assert done.exit_code == code, done.output
        return done.output

    def run(self, *words: str, given: str | None = None) -> Result:
        done = CliRunner().invoke(cli, words, input=given)
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        assert "Traceback" not in done.output
        return done

    def value(self, key: Any) -> Any:
        with richstore.open(self.path, "r") as store:
            return richstore.plain(store[key])


@pytest.fixture
def run(path: str) -> Iterator[Run]:
    """Commands on a store with some values, which is verified afterwards."""
    with richstore.open(path, synchronous="off") as store:
        store["config"] = {"theme": {"dark": True}, "a b": [1]}
        store["users"] = [{"name": "ann", "tags": {"red", "blue"}}, {"name": "bob"}]
        store["ann"] = Bare(name="Ann", friends=["bob"])
        store[7] = "seven"
        store["alice", 7] = (1, [2])
        store["strange"] = Strange()
        store.group("people").group("eu")["carl"] = {"age": 41}
    yield Run(path)
    with richstore.open(path, "r") as store:
        check_store(store)


# --- reading ---


def test_get_follows_a_path(run: Run) -> None:
    """`get` prints items, attributes, positions and elements; texts as they are."""
    assert run("get", "config.theme.dark") == "True\n"
    assert run("get", "users[1].name") == "bob\n"
    assert run("get", "users[-1]") == "{'name': 'bob'}\n"
    assert run("get", 'config["a b"][0]') == "1\n"
    assert run("get", "ann.friends[0]") == "bob\n"
    assert run("get", "ann") == "Bare(name='Ann', friends=['bob'])\n"
    assert run("get", "[7]") == "seven\n"
    assert run("get", '["alice", 7]') == "(1, [2])\n"
    assert run("get", "users[0].tags.red") == "red\n"
    assert run("get", "carl.age", "-g", "people/eu") == "41\n"


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("nix", "there is no nix"),
        ("config.theme.nix.x", "there is no config.theme.nix; config.theme is a dict of 1"),
        ("users[2]", "there is no users[2]; users is a list of 2"),
        ("users.first", "its items are users[0] and so on"),
        ("users[0].tags.green", "set of 2"),
        ("users[1].name.x", "users[1].name is a str"),
        ("ann.__class__", "there is no ann.__class__"),
        ("ann.nix", "ann is a Bare"),
        ("7", "the number is written [7]"),
        ("7" * 5000, "there is no 777"),
        ("strange[0]", "strange is a Strange"),
    ],
)
def test_what_is_not_there(run: Run, where: str, said: str) -> None:
    """A path that leads nowhere ends with 1, and is told how far it leads."""
    assert said in run("get", where, code=1)


def test_get_json(run: Run) -> None:
    """With --json a value is the nearest to it that JSON has."""
    assert json.loads(run("get", "ann", "--json")) == {"name": "Ann", "friends": ["bob"]}
    assert json.loads(run("get", '["alice", 7]', "--json")) == [1, [2]]


def test_ls(run: Run) -> None:
    """`ls` writes keys in order, as paths, which other commands take."""
    lines = run("ls").splitlines()
    assert lines == ["people/", "[7]", "ann", "config", "strange", "users", '["alice", 7]']
    for line_ in lines[1:]:
        run("get", line_)
    assert run("ls", "--prefix", "a", "--reverse", "-n", "1") == "ann\n"
    assert run("ls", "-g", "people/") == "eu/\n"
    rows = [row.split("\t") for row in run("ls", "-l").splitlines()]
    assert ["users", "list of 2"] in [row[:2] for row in rows]
    found = json.loads(run("ls", "--json", "--prefix", "co"))
    assert [row["path"] for row in found] == ["config"]
    assert found[0]["kind"] == "dict of 2"


def test_tree(run: Run) -> None:
    """`tree` shows what is inside, so deep and so many as it is told."""
    assert run("tree", "config").splitlines() == [
        "config  dict of 2",
        "    config.theme  dict of 1",
        "        config.theme.dark  bool  True",
        '    config["a b"]  list of 1',
        '        config["a b"][0]  int  1',
    ]
    assert run("tree", "config", "--depth", "1").count("\n") == 1
    assert run("tree", "users", "--items", "1", "--depth", "2").splitlines()[-1] == "    …"
    everything = run("tree")
    assert "people/" in everything and "ann.friends[0]  str  'bob'" in everything
    assert len(json.loads(run("tree", "--json"))) == everything.count("\n")


def test_find(run: Run) -> None:
    """`find` looks at keys, names and simple values at any depth, in groups too."""
    assert run("find", "bob").splitlines() == ["ann.friends[0]  'bob'", "users[1].name  'bob'"]
    assert run("find", "carl").splitlines() == ["people/eu  carl  {'age': 41}"]
    assert run("find", "DARK", "-i").startswith("config.theme.dark")
    assert run("find", "^b.b$", "-e", "-n", "1") == "ann.friends[0]  'bob'\n"
    assert "name" not in run("find", "bob", "--keys", code=1).split("nowhere")[0]
    assert json.loads(run("find", "41", "--json")) == [
        {"group": "people/eu", "path": "carl.age", "value": "41"}
    ]
    assert "nowhere" in run("find", "not anywhere", code=1)
    assert "no regular expression" in run("find", "(", "-e", code=2)


def test_stats(run: Run) -> None:
    """`stats` has the figures of the store."""
    figures = json.loads(run("stats", "--json"))
    assert figures["values"] == 7  # of all groups
    assert figures["path"] == run.path
    assert ["values", "7"] in [row.split("\t") for row in run("stats").splitlines()]


# --- changing ---


@pytest.mark.parametrize(
    ("given", "value"),
    [
        ("1", 1),
        ("-5", -5),
        ("1.5", 1.5),
        ("true", True),
        ("True", True),
        ("null", None),
        ('{"a": [1]}', {"a": [1]}),
        ("(1, 2)", (1, 2)),
        ("{1, 2}", {1, 2}),
        ("b'x'", b"x"),
        ('date("2026-01-31")', datetime.date(2026, 1, 31)),
        ("hello", "hello"),
        ("hello world", "hello world"),
        ('"1"', "1"),
        ("", ""),
        ("1,5", "1,5"),
        ("2026-01-31", "2026-01-31"),
        ("01234", "01234"),
        ("NaN", "NaN"),
        ("inf", "inf"),
        ("__import__('os')", "__import__('os')"),
    ],
)
def test_values_given(run: Run, given: str, value: Any) -> None:
    """A value is JSON, else a literal, else a text; what was stored is printed."""
    said = run("set", "new", given)
    assert run.value("new") == value
    assert type(run.value("new")) is type(value)
    assert said == f"new = {line(value)}\n"


def test_values_forced(run: Run) -> None:
    """--str takes anything as a text, --json nothing but JSON; half a container is no text."""
    run("set", "new", "--str", "1")
    assert run.value("new") == "1"
    assert "no JSON" in run("set", "new", "--json", "hello", code=2)
    assert "exclude" in run("set", "new", "--json", "--str", "1", code=2)
    for half in ('{"a": 1', "[1,", '"x', "(1"):
        assert "--str" in run("set", "new", half, code=2)
    assert run.value("new") == "1"
    run("set", "new", "-", given='{"from": "a pipe"}\n')
    assert run.value("new") == {"from": "a pipe"}


def test_set_inside(run: Run) -> None:
    """`set` changes items, positions and attributes in place, and creates no way to them."""
    run("set", "config.theme.dark", "false")
    run("set", 'config["c d"]', "1")
    run("set", "users[1].name", "Bob")
    run("set", "ann.age", "41")
    run("set", "[8]", "8")
    run("set", "dora", "1", "-g", "people/us")
    assert run.value("config") == {"theme": {"dark": False}, "a b": [1], "c d": 1}
    assert run.value("users")[1] == {"name": "Bob"}
    assert run.value("ann").age == 41
    assert run.value(8) == 8
    assert run("ls", "-g", "people").split() == ["eu/", "us/"]
    assert "there is no config.nix" in run("set", "config.nix.x", "1", code=1)
    assert "append" in run("set", "users[2]", "1", code=1)
    for path in ("users.x", "users[0].tags.green", '["alice", 7][0]', "users[1].name.x"):
        assert "cannot be set" in run("set", path, "1", code=3)


def test_set_makes_a_store(run: Run, tmp_path: Path) -> None:
    """`set` makes a store that is missing, and reading one does not."""
    run.path = str(tmp_path / "new.db")
    assert "No such file" in run("get", "a", code=3)
    assert "No such file" in run("del", "a", code=3)
    assert "No such file" in run("set", "a.b", "1", code=3)
    assert "No such file" in run("append", "a[0]", "1", code=3)
    assert "No such file: 'missing'" in run("import", "missing", code=3).replace(
        " or directory", ""
    )
    assert not Path(run.path).exists()
    run("set", "a", "1")
    assert run.value("a") == 1


def test_a_store_in_memory_is_refused(run: Run) -> None:
    """What a command would set in memory alone is not said to be set."""
    run.path = "memory:"
    for words in (("set", "a", "1"), ("get", "a"), ("shell",)):
        assert "keeps nothing" in run(*words, code=3)


def test_append(run: Run) -> None:
    """`append` extends lists and sets, and makes a list where there is nothing."""
    assert run("append", "users", '{"name": "carl"}') == "users[2] = {'name': 'carl'}\n"
    assert run("append", "log", "first") == "log[0] = 'first'\n"
    run("append", "users[0].tags", "green")
    run("append", "ann.friends", "carl")
    assert run.value("users")[0]["tags"] == {"red", "blue", "green"}
    assert run.value("ann").friends == ["bob", "carl"]
    assert "cannot be in a set" in run("append", "users[0].tags", "[]", code=3)
    assert "works on lists" in run("append", "config", "1", code=3)
    assert "there is no nix" in run("append", "nix.x", "1", code=1)


def test_del(run: Run) -> None:
    """`del` removes everything it names, or nothing when something is not there."""
    assert "there is no nix" in run("del", "users", "nix", code=1)
    assert "users" in run("ls")
    run("del", "users[0].tags.red", "config.theme", "ann.friends", "[7]", '["alice", 7]')
    assert run.value("users")[0]["tags"] == {"blue"}
    assert run.value("config") == {"a b": [1]}
    assert not hasattr(run.value("ann"), "friends")
    assert run("ls").split() == ["people/", "ann", "config", "strange", "users"]
    assert "there is no users[1].name.x" in run("del", "users[1].name.x", "ann", code=1)


def test_keys_that_are_made_when_asked_for(run: Run) -> None:
    """What a Counter or defaultdict would have for any key is not there, and is not made."""
    counts = {"red": 1}
    with richstore.open(run.path) as store:
        store["counts"] = collections.Counter(counts)
        store["lists"] = collections.defaultdict(list)
    for path in ("counts.blue", "lists.x"):
        assert f"there is no {path}" in run("get", path, code=1)
        assert f"there is no {path}" in run("del", path, code=1)
    assert "there is no lists.x" in run("set", "lists.x.y", "1", code=1)
    assert run.value("counts") == counts and not run.value("lists")
    assert run("append", "lists.x", "1") == "lists.x[0] = 1\n"


def test_a_change_that_fails_changes_nothing(run: Run) -> None:
    """A command is a transaction: what it did before it failed is undone."""
    before = run("tree", "--depth", "9")
    run("del", "config", "users[0]", "users[9]", code=1)
    run("append", "users[0].tags", "{}", code=3)
    assert run("tree", "--depth", "9") == before


# --- mistakes ---


def test_mistakes_end_with_a_line(run: Run, tmp_path: Path) -> None:
    """A mistake ends with one line that says what to do, and its exit code."""
    assert "begins with a key" in run("get", "", code=2)
    assert "'.' or '['" in run("get", "a[1]b", code=2)
    assert "there is no group nix" in run("ls", "-g", "nix", code=1)
    assert "there is no group people/nix" in run("ls", "-g", "people/nix", code=1)
    assert "/ between" in run("ls", "-g", "people//eu", code=2)
    assert "too long" in run("set", "a", "1", "-g", "x" * 600, code=2)
    assert run.run("nonsense").exit_code == 2
    other = tmp_path / "other"
    other.write_text("no store")
    assert run.run("ls", "-s", str(other)).exit_code == 3
    assert run.run("ls", "-s", str(tmp_path)).exit_code == 3


def test_a_value_that_cannot_be_read(run: Run) -> None:
    """A value of which the class is not allowed is told in its row; the others are shown."""
    Path(run.path).chmod(0o666)
    rows = dict(row.split("\t", 1) for row in run("ls", "-l").splitlines())
    assert rows["ann"].startswith("Unreadable\tat ['ann']: sample_classes.Bare is not among")
    assert rows["config"].startswith("dict of 2")
    assert run("find", "bob") == "users[1].name  'bob'\n"
    assert "can write it" in run("get", "ann", code=3)
    assert run("get", "ann.name", "--classes", "any") == "Ann\n"
    Path(run.path).chmod(0o600)
    assert run("get", "ann.name") == "Ann\n"
    assert "sample_classes.Bare" in run("get", "ann", "--classes", "none", code=3)
    assert "sample_classes.Bare" in run("get", "ann", "--classes", "sample", code=3)
    for names in ("sample_classes", "json, sample_classes.Bare"):
        assert run("get", "ann.name", "--classes", names) == "Ann\n"


def test_missing_classes_are_shown(run: Run) -> None:
    """A value whose class cannot be imported is shown with what it holds."""
    code = f"""
import sys, types, richstore
module = types.ModuleType("gone")
exec("class User:\\n    def __init__(self): self.handle = 'ann'", module.__dict__)
sys.modules["gone"] = module
with richstore.open({run.path!r}) as store:
    store["user"] = module.User()
"""
    assert run_python(code).returncode == 0
    assert run("get", "user.handle") == "ann\n"
    assert "missing gone.User" in run("ls", "-l")
    assert "'ann'" in run("get", "user")


def test_classes_that_raise(run: Run) -> None:
    """What the code of a class raises, when it is read or changed, is told in a line."""
    with richstore.open(run.path) as store:
        store["moody"], store["strict"] = Moody(), Strict()
    Moody.is_angry = True
    try:
        assert "not today" in run("get", "moody", code=3)
        assert "not today" in run("ls", "-l")
        assert run("find", "seven") == "[7]  'seven'\n"
    finally:
        Moody.is_angry = False
    assert "ValueError: 1 is odd" in run("set", "strict.n", "1", code=3)
    run("set", "strict.n", "2")
    assert run.value("strict").n == 2


# --- upkeep ---


@pytest.mark.parametrize("is_named", [False, True])
def test_files_of_upkeep_as_arguments(tmp_path: Path, is_named: bool) -> None:
    """The file of the store is an argument of its own, or given with `-s`, never both."""
    store, copy, back = (str(tmp_path / name) for name in ("s", "copy", "back"))
    runner = CliRunner()
    assert runner.invoke(cli, ["set", "-s", store, "a", "[1]"]).exit_code == 0
    files = [copy, "-s", store] if is_named else [store, copy]
    assert runner.invoke(cli, ["backup", *files]).exit_code == 0
    files = [copy, "-s", back] if is_named else [copy, back]
    assert runner.invoke(cli, ["restore", *files]).exit_code == 0
    with richstore.open(back) as restored:
        assert dict(restored) == {"a": [1]}
    for words in (
        ["check", store, "-s", back],
        ["backup"],
        ["restore"],
        ["salvage", "1", "2", "3"],
    ):
        done = runner.invoke(cli, words)
        assert done.exit_code == 2, words
        assert "Usage" in done.output


def test_compact_migrate(run: Run) -> None:
    """`compact` and `migrate` say how many records they were about."""
    with richstore.open(run.path) as store:
        store["big"] = ({"n": n} for n in range(20_000))
        del store["big"]
    assert ": 0 records removed" not in run("compact")
    assert ": 0 records removed" in run("compact")
    assert "0 records rewritten" in run("migrate", "--import", "json", "--import", "sample_classes")
    assert "cannot be imported" in run("migrate", "--import", "no.such.module", code=2)
    for name in ("", ".x", "a b"):
        assert "no name of a module" in run("migrate", "--import", name, code=2)


def test_rekey(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`rekey` takes the new key from the environment, and the old one opens nothing any more."""
    old, new = "11" * 32, "22" * 32
    run.path = str(tmp_path / "secret.db")
    monkeypatch.setenv("RICHSTORE_KEY", old)
    run("set", "a", "1")
    assert "RICHSTORE_NEW_KEY" in run("rekey", code=2)  # there is no terminal
    for wrong in ("xyz", "", "11"):
        monkeypatch.setenv("RICHSTORE_NEW_KEY", wrong)
        assert "64 hexadecimal digits" in run("rekey", code=3)
    monkeypatch.setenv("RICHSTORE_NEW_KEY", new)
    run("rekey", "--reencrypt")
    assert "cannot be opened" in run("get", "a", code=3)
    monkeypatch.setenv("RICHSTORE_KEY", new)
    assert run("get", "a") == "1\n"
    monkeypatch.delenv("RICHSTORE_NEW_KEY")
    monkeypatch.setenv("RICHSTORE_NEW_PASSPHRASE", "correct horse")
    run("rekey")
    monkeypatch.delenv("RICHSTORE_KEY")
    assert "is encrypted" in run("get", "a", code=3)
    monkeypatch.setenv("RICHSTORE_PASSPHRASE", "correct horse")
    assert run("get", "a") == "1\n"


def test_sealed_values(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sealed value is shown on demand alone."""
    run.path = str(tmp_path / "secret.db")
    monkeypatch.setenv("RICHSTORE_KEY", "11" * 32)
    with richstore.open(run.path, key=bytes.fromhex("11" * 32)) as store:
        store["token"] = richstore.Sealed("hunter2")
        store["nested"] = [richstore.Sealed("hunter2")]
    for words in (["get", "token"], ["ls", "-l"], ["tree"], ["get", "token", "--json"]):
        assert "hunter2" not in run(*words)
    for words in (["get", "nested"], ["get", "nested", "--json"]):
        assert "hunter2" not in run(*words)
    run("find", "hunter2", code=1)
    assert run("get", "token", "--reveal") == "hunter2\n"


# --- texts of values ---


def circle() -> list[Any]:
    """Return a list that contains itself."""
    made: list[Any] = [1]
    made.append(made)
    return made


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ([1, "a", None], "[1, 'a', None]"),
        ((1,), "(1,)"),
        ((), "()"),
        (set(), "set()"),
        ({3}, "{3}"),
        (frozenset({3}), "frozenset({3})"),
        (frozenset(), "frozenset({})"),
        ({}, "{}"),
        (collections.OrderedDict(a=1), "OrderedDict({'a': 1})"),
        (collections.deque([1]), "deque([1])"),
        (Point(1, [2]), "Point(x=1, y=[2])"),
        (Slotted(), "Slotted(a=[1])"),
        (datetime.date(2026, 1, 2), "datetime.date(2026, 1, 2)"),
        (circle(), "[1, [...]]"),
        ([Strange()], "[Strange()]"),
        ([Rude()], "[<Rude, whose repr fails: no repr today>]"),
    ],
)
def test_texts(value: Any, shown: str) -> None:
    """Values are shown as Python writes them, instances by their attributes, circles once."""
    assert text(value) == shown
    assert line(value, 200) == shown


def test_long_texts() -> None:
    """What does not fit on a line takes one for each item, and is read by Python again."""
    value = {"users": [{"name": "x" * 30, "tags": list(range(40))} for _ in range(3)], "t": (1,)}
    made = text(value)
    assert max(map(len, made.splitlines())) <= 110
    assert eval(made) == value
    assert line(value, 20) == "{'users': [{'name':…"
    assert len(line("x" * 1000)) == 60


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=40) | st.binary(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=8) | st.integers(), inner, max_size=5)
        | st.sets(st.integers(), max_size=4)
    ),
    max_leaves=20,
)


@settings(max_examples=60)
@given(PLAIN)
def test_python_reads_texts(value: Any) -> None:
    """The text of a value of built-in types is the value, when Python reads it."""
    assert eval(text(value)) == value
    assert text(value).startswith(line(value, 80).removesuffix("…")) or "\n" in text(value)


@settings(max_examples=60)
@given(PLAIN, PLAIN)
def test_values_differ_when_there_are_changes(old: Any, new: Any) -> None:
    """There are changes from one value to another that is not equal, and none to a copy."""
    assert list(watching.changes(old, copy.deepcopy(old), ("k",))) == []
    assert old == new or list(watching.changes(old, new, ("k",)))


def test_json_of_values() -> None:
    """JSON has lists for sequences and sets, objects for instances, and texts for the rest."""
    value = {
        ("a", 1): (1, {2}),
        "bytes": b"\x00",
        "day": datetime.date(2026, 1, 2),
        "nan": float("nan"),
        "point": Point(1, [2]),
        "slotted": Slotted(),
        "what": 1 + 2j,
        3: None,
    }
    assert json.loads(json_text(value)) == {
        '("a", 1)': [1, [2]],
        "bytes": "AA==",
        "day": "2026-01-02",
        "nan": "nan",
        "point": {"x": 1, "y": [2]},
        "slotted": {"a": [1]},
        "what": "(1+2j)",
        "3": None,
    }
    assert json.loads(json_text("\ud800")) == "\ud800"
    # more than a float holds, and more digits than Python writes
    assert json.loads(json_text([10**400, 16**5000])) == [10**400, "0x1" + "0" * 5000]
    assert text(16**5000) == "0x1" + "0" * 5000
    with pytest.raises(click.ClickException, match="contains itself"):
        json_text(circle())
    with pytest.raises(click.ClickException, match="two keys of a dict are the same in JSON"):
        json_text([{1: "a", "1": "b"}])


def test_children_are_reached_by_their_keys(run: Run) -> None:
    """Every key that is shown inside a value leads to what is shown there."""
    rows = json.loads(run("tree", "--json", "--depth", "9"))
    paths = [row["path"] for row in rows if not row["path"].endswith("/")]
    assert len(paths) > 15
    for path in paths:
        (shown,) = json.loads(run("tree", path, "--json", "--depth", "1"))
        assert shown["path"] == path
        assert shown["kind"] in [row["kind"] for row in rows if row["path"] == path]


# --- changes, as `watch` tells them ---


def test_changes() -> None:
    """The differences of two values are told with the innermost path that tells them."""
    old = {"a": [1, 2], "b": {"c": 1}, "d": {1}, "same": "x" * 20_000, "e": [], "f": 1}
    new = {"a": [1, 3, 4], "b": {}, "d": {1, 2}, "same": "x" * 20_000, "e": [5], "f": 1.0}
    found = {path: (was, now) for path, was, now in watching.changes(old, new, ())}
    gone = watching.NOTHING
    assert found == {
        ("a", 1): (2, 3),
        ("a", 2): (gone, 4),
        ("b", "c"): (1, gone),
        ("d", 2): (gone, 2),
        ("e", 0): (gone, 5),
        ("f",): (1, 1.0),
    }
    ends = "x" * 20_000 + "y", "x" * 20_000 + "z"
    assert list(watching.changes(*ends, ("k",))) == [(("k",), *ends)]


# --- help ---


def test_everything_has_help() -> None:
    """Each command and each option says what it is for, and values of options have names."""
    assert len(cli.commands) >= 18
    for name, command in cli.commands.items():
        assert command.help, name
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.help, (name, parameter.name)
                assert parameter.is_flag or parameter.metavar, (name, parameter.name)


def test_help_is_shown(run: Run) -> None:
    """Each command shows its help, and the group lists them all."""
    listed = run.run("--help").output
    for name in cli.commands:
        assert f"\n  {name} " in listed
        assert run.run(name, "-h").exit_code == 0


def test_the_reference_is_that_of_the_commands() -> None:
    """docs/cli.md is what `python -m richstore.cli.reference` writes."""
    assert (PROJECT / "docs" / "cli.md").read_text(encoding="utf-8") == page()
