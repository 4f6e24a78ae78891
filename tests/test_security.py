"""Whose code runs: what `classes` allows, which files are trusted, and what commands do."""

from __future__ import annotations

import datetime
import grp
import os
import pickle
import pwd
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import hostile
import hostile_gadgets
import pytest
import sample_classes
from conftest import canonical, child_environment, run_python
from sample_classes import Account, Color, Point
from standard_values import STANDARD

import richstore
from richstore import UntrustedClassError, ownership

plain = richstore.plain
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


@pytest.fixture
def stored(path: str) -> str:
    """A store with plain values, and instances of two classes."""
    with richstore.open(path, synchronous="off") as store:
        store["plain"] = [{"n": n, "at": datetime.date(2024, 1, 1)} for n in range(1000)]
        store["account"] = Account("ann", 5)
        store["point"] = Point(1, 2)
        store["many"] = [Point(n) for n in range(500)]
    return path


@pytest.mark.parametrize("name", STANDARD)
def test_standard_values_are_read_under_every_policy(name: str, path: str) -> None:
    """A value of a standard type is stored and read under "none" as it is under "any"."""
    value = STANDARD[name]
    with richstore.open(path, synchronous="off", classes="none") as store:
        store["value"] = {"in": [value]}
    with richstore.open(path, synchronous="off", classes="none") as store:
        found = plain(store["value"])["in"][0]
        assert canonical(found) == canonical(value)
        with store.snapshot() as view:
            assert canonical(plain(view["value"])["in"][0]) == canonical(value)
    with richstore.open(path, synchronous="off", classes="any") as store:
        assert canonical(plain(store["value"])["in"][0]) == canonical(value)


def test_reading_plain_data_imports_nothing(stored: str) -> None:
    """Plain data and standard values come from a file without an import that it causes."""
    code = (
        "import sys, richstore\n"
        "from richstore.codec import strict\n"
        "before = set(sys.modules)\n"
        "with richstore.open(sys.argv[1], classes='none') as store:\n"
        "    assert len(richstore.plain(store['plain'])) == 1000\n"
        "    for name in ('account', 'point', 'many'):\n"
        "        try:\n"
        "            richstore.plain(store[name])\n"
        "        except richstore.UntrustedClassError:\n"
        "            continue\n"
        "        raise AssertionError(name)\n"
        "new = set(sys.modules) - before\n"
        "assert all(name.startswith(('richstore', 'lmdb')) for name in new), new\n"
    )
    done = run_python(code, stored)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "classes",
    [[Account], (Account,), {Account}, [sample_classes], lambda name: name.endswith(".Account")],
    ids=["list", "tuple", "set", "module", "function"],
)
def test_what_is_allowed_is_read(classes: Any, stored: str) -> None:
    """A list of classes or modules, and a function of names, allow just what they say."""
    with richstore.open(stored, classes=classes, synchronous="off") as store:
        account = store["account"]
        account.deposit(3)
        assert account.balance == 8
        if classes != [sample_classes]:
            with pytest.raises(UntrustedClassError, match=r"at \['point'\]: sample_classes\.Point"):
                store["point"]
            with pytest.raises(UntrustedClassError, match=r"at \['many'\]: sample_classes\.Point"):
                store["many"][3]
        else:
            assert store["point"] == Point(1, 2) and store["many"][3] == Point(3)
        assert len(store["plain"]) == 1000
    with richstore.open(stored) as store:
        assert store["account"].balance == 8


def test_a_function_is_asked_before_anything_is_imported(path: str) -> None:
    """The predicate gets "module.Name", and what it refuses is never imported."""
    stream = hostile.call(hostile.named("this_module_is_not_there", "C.D"))
    hostile.make_store(Path(path), hostile.value(stream))
    asked: list[str] = []

    def refuse(name: str) -> bool:
        asked.append(name)
        return False

    with (
        richstore.open(path, classes=refuse) as store,
        pytest.raises(UntrustedClassError, match=r"this_module_is_not_there\.C\.D"),
    ):
        store["evil"]
    assert asked == ["this_module_is_not_there.C.D"]


@pytest.mark.parametrize(
    "name", ["os.system", "system", "Allowed.explode", "Allowed.__init__", "nothing"]
)
@pytest.mark.parametrize(
    "classes", [[hostile_gadgets], lambda name: True], ids=["list", "function"]
)
def test_a_module_allows_what_it_defines_itself(name: str, classes: Any, path: str) -> None:
    """What an allowed module has imported, and methods by dotted names, are not allowed."""
    stream = hostile.call(hostile.named("hostile_gadgets", name))
    hostile.make_store(Path(path), hostile.value(stream))
    with (
        richstore.open(path, classes=classes) as store,
        pytest.raises(UntrustedClassError, match=f"hostile_gadgets.{name} "),
    ):
        store["evil"]


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ([{"a": Point(1)}], r"\['k'\]\[0\]\['a'\]"),
        (Color.RED, r"\['k'\]"),
        ([len], r"\['k'\]"),
        ([lambda: 1], r"\['k'\]"),
        (bytearray, None),
        ([sample_classes.Slotted("x")], r"\['k'\]\[0\]"),
        ((Point(n) for n in range(1000)), r"\['k'\]"),
    ],
)
def test_what_could_not_be_read_is_not_stored(value: Any, place: str | None, path: str) -> None:
    """Storing what the policy would refuse raises at the write, and nothing has changed."""
    with richstore.open(path, synchronous="off", classes="none") as store:
        store["k"] = ["before"]
        if place is None:
            store["k"] = value
            return
        with pytest.raises(UntrustedClassError, match=f"at {place}"):
            store["k"] = value
        assert store["k"] == ["before"]
        with pytest.raises(UntrustedClassError), store.transaction():
            store["other"] = 1
            store["k"].append(Point(1))
        assert dict(store) == {"k": ["before"]}
        with pytest.raises(UntrustedClassError):
            store[Color.RED] = 1
        assert dict(store) == {"k": ["before"]}


def test_members_of_enumerations_are_stored_by_name(path: str, monkeypatch: Any) -> None:
    """A member comes back by class and name, whatever its value is by then; its class is asked."""
    with richstore.open(path, synchronous="off") as store:
        store["color"] = [Color.RED]
        store[Color.RED] = 1
    with richstore.open(path, classes=[Color]) as store:
        assert store["color"][0] is Color.RED and Color.RED in list(store)
    with richstore.open(path, classes="none") as store, pytest.raises(UntrustedClassError):
        store["color"]
    with richstore.open(path) as store:
        monkeypatch.setattr(Color, "_value2member_map_", {})
        assert store["color"][0] is Color.RED


def test_handles_on_one_file_have_one_policy(stored: str) -> None:
    """A second handle has the policy of the first; another one is refused with ValueError."""
    with richstore.open(stored, classes=[Account]) as first:
        with richstore.open(stored) as second, pytest.raises(UntrustedClassError):
            second["point"]
        with richstore.open(stored, "r", classes=[Account]) as third:
            assert third["account"].balance == 5
        for other in ("any", "none", [Point]):
            with pytest.raises(ValueError, match="other classes"):
                richstore.open(stored, classes=other)
        assert first["account"].balance == 5
    with richstore.open(stored, classes="any") as store:
        assert store["point"] == Point(1, 2)


@pytest.mark.parametrize(
    ("classes", "error"), [("all", ValueError), (5, TypeError), ([5], TypeError)]
)
def test_words_for_classes(classes: Any, error: type[Exception], path: str) -> None:
    """What `classes` cannot be is refused, and says what it can be."""
    with pytest.raises(error, match="classes"):
        richstore.open(path, classes=classes)
    assert not os.path.exists(path)


# --- the default


def trusted(path: str) -> str | None:
    """Return why a file is not trusted, as the error of a read says it; None: it is."""
    with richstore.open(path, "r") as store:
        try:
            assert store["point"] == Point(1, 2)
        except UntrustedClassError as error:
            assert len(store["plain"]) == 1000
            return str(error)
    return None


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o640, 0o400, 0o755])
def test_our_own_files_are_trusted(mode: int, stored: str) -> None:
    """A file of ours that others may read opens with "any"."""
    os.chmod(stored, mode)
    assert trusted(stored) is None


@pytest.mark.parametrize("mode", [0o666, 0o602, 0o606])
def test_files_that_all_may_write_are_not(mode: int, stored: str) -> None:
    """A file that everybody may write opens with "none", and the error says why."""
    os.chmod(stored, mode)
    assert f"as everybody can write it (mode {mode:04o})" in (trusted(stored) or "")


@AS_ROOT
def test_files_that_a_group_may_write_are_not(stored: str) -> None:
    """A file that a group may write opens with "none", and the error names the group."""
    group = next(one for one in grp.getgrall() if one.gr_name != pwd.getpwuid(0).pw_name)
    os.chown(stored, -1, group.gr_gid)
    assert trusted(stored) is None
    os.chmod(stored, 0o664)
    assert f"as group {group.gr_name} can write it (mode 0664)" in (trusted(stored) or "")
    os.chmod(stored, 0o644)
    os.chown(stored, 12345, -1)
    assert "as the file belongs to user 12345" in (trusted(stored) or "")


def test_directories_that_others_may_write(stored: str) -> None:
    """In a directory in which others may replace files "none" holds, unless it is sticky."""
    directory = os.path.dirname(stored)
    mode = os.stat(directory).st_mode
    try:
        os.chmod(directory, 0o777)
        assert f"as the directory {directory} can be written by others" in (trusted(stored) or "")
        os.chmod(directory, 0o1777)
        assert trusted(stored) is None
        if os.geteuid() == 0:
            os.chown(directory, 12345, -1)
            assert "belongs to user 12345" in (trusted(stored) or "")
    finally:
        if os.geteuid() == 0:
            os.chown(directory, 0, -1)
        os.chmod(directory, mode)


def test_a_group_of_the_users_own_is_no_other(stored: str, monkeypatch: Any) -> None:
    """A group with the user's name, in which nobody else is, may write; one with others may not."""
    user = pwd.getpwuid(os.geteuid())
    mine = grp.struct_group((user.pw_name, "x", user.pw_gid, []))
    shared = grp.struct_group((user.pw_name, "x", user.pw_gid, ["somebody"]))
    named = grp.struct_group(("staff", "x", user.pw_gid, []))
    os.chown(stored, -1, user.pw_gid)
    os.chmod(stored, 0o660)
    monkeypatch.setattr(pwd, "getpwall", lambda: [user])
    for group, is_trusted in ((mine, True), (shared, False), (named, False)):
        monkeypatch.setattr(grp, "getgrgid", lambda _, group=group: group)
        assert (ownership.strangers(os.stat(stored), stored) is None) is is_trusted
    other = pwd.struct_passwd(("b", "x", user.pw_uid + 1, user.pw_gid, "", "/", "/bin/sh"))
    monkeypatch.setattr(grp, "getgrgid", lambda _: mine)
    monkeypatch.setattr(pwd, "getpwall", lambda: [user, other])
    assert (
        ownership.strangers(os.stat(stored), stored)
        == f"group {user.pw_name} can write it (mode 0660)"
    )


def test_the_link_does_not_matter(stored: str, tmp_path: Path) -> None:
    """The file decides that was opened, and the directory that it is in, not a link to it."""
    (tmp_path / "open").mkdir()
    link = tmp_path / "open" / "link"
    link.symlink_to(stored)
    os.chmod(link.parent, 0o777)
    assert trusted(str(link)) is None
    os.chmod(stored, 0o666)
    assert trusted(str(link)) is not None


@AS_ROOT
def test_another_user_does_not_trust_our_file(stored: str) -> None:
    """A process of another user that opens our file has "none"; its own file it trusts."""
    # that of $TMPDIR, and pytest's own directories, may be for nobody else
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        os.chmod(directory, 0o755)
        ours, theirs = Path(directory, "ours"), Path(directory, "theirs")
        shutil.copy(stored, ours)
        ours.chmod(0o644)
        richstore.open(ours).close()
        Path(f"{ours}-lock").chmod(0o666)
        theirs.mkdir()
        os.chown(theirs, 12345, 12345)
        done = run_python(AS_ANOTHER_USER, str(ours), str(theirs))
    assert done.returncode == 0, done.stderr
    assert "as the file belongs to user root" in done.stdout
    assert "Point(x=1" in done.stdout


AS_ANOTHER_USER = """
import os, sys
import richstore, sample_classes
from richstore.codec import strict
os.setgid(12345)
os.setuid(12345)
try:
    with richstore.open(sys.argv[1], 'r') as store:
        store['point']
except richstore.UntrustedClassError as error:
    print(error)
for _ in range(2):
    with richstore.open(sys.argv[2] + '/own') as store:
        print(store.setdefault('point', sample_classes.Point(1)))
"""


def test_new_stores_and_memory_are_ours(path: str) -> None:
    """A store is made with mode 0600, and opens with "any", as one in memory does."""
    before = os.umask(0)
    try:
        richstore.open(path).close()
    finally:
        os.umask(before)
    assert os.stat(path).st_mode & 0o777 == 0o600
    for target in (path, "memory:"):
        with richstore.open(target) as store:
            store["point"] = Point(1)
            store["code"] = lambda: 5
            assert store["code"]() == 5
    with richstore.open("memory:", classes="none") as store, pytest.raises(UntrustedClassError):
        store["point"] = Point(1)


# --- documents


def test_pickle_documents_obey_the_same_rules(tmp_path: Path) -> None:
    """A pickle document is read by `classes`, and by default as its file's owner and mode say."""
    path = tmp_path / "doc.pickle"
    path.write_bytes(pickle.dumps({"at": datetime.date(2024, 1, 1), "point": Point(1)}))
    assert richstore.document(path).value["point"] == Point(1)
    with pytest.raises(UntrustedClassError, match="Point"):
        richstore.document(path, classes="none")
    assert richstore.document(path, classes=[Point]).value["point"] == Point(1)
    os.chmod(path, 0o666)
    with pytest.raises(UntrustedClassError, match=r"everybody can write it \(mode 0666\)"):
        richstore.document(path)
    path.write_bytes(pickle.dumps(list(STANDARD.values())))
    document = richstore.document(path)
    assert canonical(plain(document.value)) == canonical(list(STANDARD.values()))
    document.value.append(Point(2))
    with pytest.raises(UntrustedClassError, match="Point"):
        document.commit()
    assert len(pickle.loads(path.read_bytes())) == len(STANDARD)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_protocols_of_plain_pickles(protocol: int, tmp_path: Path) -> None:
    """What pickle writes of plain data with other protocols is read under "none"."""
    path = tmp_path / "doc.pickle"
    value = {"a": [1, (2.5, None)], "s": {1, 2}, "b": b"xy", "at": datetime.date(2024, 1, 1)}
    path.write_bytes(pickle.dumps(value, protocol))
    assert plain(richstore.document(path, classes="none").value) == value


def test_a_hostile_pickle_document_runs_nothing(tmp_path: Path, monkeypatch: Any) -> None:
    """A pickle that calls os.system runs nothing under "none", and does under "any"."""
    canary = tmp_path / "canary"
    monkeypatch.setenv("CANARY", str(canary))
    path = tmp_path / "doc.pickle"
    path.write_bytes(pickle.dumps(hostile.Evil()))
    with pytest.raises(UntrustedClassError, match="system"):
        richstore.document(path, classes="none")
    os.chmod(path, 0o666)
    with pytest.raises(UntrustedClassError, match="system"):
        richstore.document(path)
    assert not canary.exists()
    richstore.document(path, classes="any")
    assert canary.exists()


def test_objects_in_buckets_are_not_trusted(s3: Any) -> None:
    """An object in a bucket opens with "none", one in memory with "any"."""
    s3.put(pickle.dumps({"point": Point(1)}))
    with pytest.raises(UntrustedClassError, match="nobody can know who writes to a bucket"):
        s3.open(format="pickle")
    assert s3.open(format="pickle", classes=[Point]).value["point"] == Point(1)
    s3.put(pickle.dumps({"at": datetime.date(2024, 1, 1)}))
    assert s3.open(format="pickle").value == {"at": datetime.date(2024, 1, 1)}
    memory = richstore.document("memory://here/doc.pickle", default={}, autosave=True)
    memory.value["point"] = Point(1)
    assert richstore.document("memory://here/doc.pickle").value["point"] == Point(1)


def test_cloudpickle_documents_need_any(tmp_path: Path) -> None:
    """What cloudpickle writes is code, and is read with "any" alone."""
    import cloudpickle

    path = tmp_path / "doc.bin"
    document = richstore.document(path, default={}, format=cloudpickle)
    document.value["f"] = 1
    document.commit()
    assert richstore.document(path, format=cloudpickle).value == {"f": 1}
    with pytest.raises(UntrustedClassError, match="cloudpickle"):
        richstore.document(path, format=cloudpickle, classes="none")


# --- commands


@pytest.mark.parametrize("command", ["check", "backup", "salvage"])
@pytest.mark.parametrize("case", ["os.system", "key", "class table by value"])
def test_commands_run_nothing_of_a_file(
    command: str, case: str, tmp_path: Path, monkeypatch: Any
) -> None:
    """check, backup and salvage of a file of others run nothing; salvage says what is not read."""
    path = tmp_path / "store"
    canary = tmp_path / "canary"
    hostile.make_store(path, hostile.CASES[case]())
    path.chmod(0o666)
    arguments = ["-s", str(path)] + ([str(tmp_path / "new")] if command != "check" else [])
    done = subprocess.run(
        [sys.executable, "-m", "richstore", command, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**child_environment(), "CANARY": str(canary)},
    )
    assert not canary.exists()
    assert "Traceback" not in done.stderr
    if command == "salvage":
        assert "lost" in done.stdout and "can write it" in done.stdout
        with richstore.open(tmp_path / "new") as store:
            assert plain(store["good"]) == hostile.GOOD
