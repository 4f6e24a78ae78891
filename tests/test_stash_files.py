"""Stashes in files: directories, shelves and zip archives, whatever the keys and the values."""

from __future__ import annotations

import contextlib
import dbm.dumb
import importlib
import json
import os
import pickle
import plistlib
import shelve
import signal
import stat
import subprocess
import sys
import threading
import zipfile
from pathlib import Path
from typing import Any

import pytest
import stash_conformance as conformance
from conftest import child_environment
from hypothesis import example, given
from hypothesis import strategies as st
from sample_classes import Account
from stash_conformance import agree

import richstore
from richstore.stash import DirectoryStash, IncrementKeyDirectoryStash, ShelveStash, ZipStash
from richstore.stash.names import Escaped

ODD_KEYS = [
    "",
    " ",
    ".",
    "..",
    "../up",
    "/etc/passwd",
    "a/b",
    "a\\b",
    "a\0b",
    "a\nb",
    "%",
    "%2e",
    "%-",
    "Foo",
    "foo",
    "FOO",
    ".hidden",
    "é",
    "e\N{COMBINING ACUTE ACCENT}",
    "ß",
    "\ud800",
    "😀",
    "x.json",
    ".richstore-00.part",
    "con",
    "*",
    "{name}",
    "a" * 119 + "%" + "b",
    "a" * 120,
    "a" * 121,
    "A" * 500,
    "a" * 119 + "." * 300,
    "a" * 120 + ".richstore-00.part",
]


def files_in(path: Path) -> list[str]:
    """Return the paths of all files below a directory."""
    return sorted(str(one.relative_to(path)) for one in path.rglob("*") if one.is_file())


# --- names ---


def test_odd_keys(tmp_path: Path) -> None:
    """Any strings can be keys at once; each has a file of its own, inside the directory."""
    path = tmp_path / "files"
    stash = DirectoryStash(path, format="json")
    for at, key in enumerate(ODD_KEYS):
        stash[key] = at
    agree(stash, {key: at for at, key in enumerate(ODD_KEYS)}, "missing")
    assert files_in(tmp_path) == sorted(f"files/{name}" for name in files_in(path))
    assert len({name.lower() for name in files_in(path)}) == len(ODD_KEYS)
    for key in ODD_KEYS:
        assert stash.path_of(key).startswith(f"{path}/")
        del stash[key]
    agree(stash, {}, "a")
    assert files_in(tmp_path) == []


@given(st.text(st.characters(exclude_categories=[]), max_size=150))
@example("a" * 119 + "é" * 200)
def test_names_lead_back(key: str) -> None:
    """Each key has a name of plain characters, in pieces that fit, which leads back to it."""
    name = Escaped().name(key)
    assert Escaped().key(name) == key
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-_.%/")
    pieces = name.split("/")
    assert all(0 < len(piece) <= 121 for piece in pieces) and name[0] != "."
    assert all(piece.endswith("%") for piece in pieces[:-1])
    assert not {".", ".."} & set(pieces)


@given(st.text("aA%2ef-./é", max_size=10))
@example("%%/-")
def test_names_of_others(name: str) -> None:
    """A name that reads like a key is one only if that key would get this very name."""
    key = Escaped().key(name)
    assert key is None or Escaped().name(key) == name


def test_keys_that_are_no_strings(tmp_path: Path) -> None:
    """Other keys are refused, and never there; an int is no string of digits."""
    stash = DirectoryStash(tmp_path)
    stash["1"] = "one"
    for key in (1, None, b"1", ("a", 1)):
        with pytest.raises(richstore.KeyTypeError, match="is a str"):
            stash[key] = 1  # type: ignore[index]
        assert key not in stash and stash.get(key) is None  # type: ignore[call-overload]
        with pytest.raises(KeyError):
            del stash[key]  # type: ignore[arg-type]
    numbers = IncrementKeyDirectoryStash(tmp_path)
    for key in ("1", True, 1.0):
        with pytest.raises(richstore.KeyTypeError, match="is an int"):
            numbers[key] = 1  # type: ignore[index]
    assert list(stash) == ["1"] and list(numbers) == []


def test_a_key_too_long_for_any_path(tmp_path: Path) -> None:
    """A key whose path the file system cannot hold is refused, and is not there."""
    stash = DirectoryStash(tmp_path)
    with pytest.raises(ValueError, match="too long for the file system"):
        stash["x" * 100_000] = 1
    agree(stash, {}, "x" * 100_000)


def test_names_as_they_are(tmp_path: Path) -> None:
    """With escape=False keys are names, as others have made them; what is no name is refused."""
    for name in ("Foo", "a b", "é"):
        (tmp_path / f"{name}.dat").write_bytes(pickle.dumps(name))
    stash = DirectoryStash(tmp_path, "{name}.dat", escape=False)
    agree(stash, {"Foo": "Foo", "a b": "a b", "é": "é"}, "foo")
    for key in ("", ".", "..", "../up", "/etc", "a\0b", "x" * 256, ".hidden"):
        with pytest.raises(ValueError, match="cannot be the name"):
            stash[key] = 1
        assert key not in stash and stash.get(key) is None
    with pytest.raises(richstore.KeyTypeError):
        stash[1] = 1  # type: ignore[index]
    agree(DirectoryStash(tmp_path, "{name}.dat"), {}, "Foo")


def test_files_of_others_are_no_keys(tmp_path: Path) -> None:
    """What has another name, is no file, or reads like a key and is not, is left alone."""
    stash = DirectoryStash(tmp_path, "x-{name}.json", format="json")
    stash["a"] = 1
    for name in ("README", "x-A.json", "x-%2E.json", "x-%61.json", "x-b.jsonl", "y-a.json"):
        (tmp_path / name).write_text("{}")
    (tmp_path / "x-dir.json").mkdir()
    os.mkfifo(tmp_path / "x-fifo.json")
    (tmp_path / "piece%").mkdir()
    (tmp_path / "piece%" / "x-b.json").write_text("{}")
    agree(stash, {"a": 1}, "dir")
    assert "fifo" not in stash and stash.get("fifo") is None
    with pytest.raises(KeyError):
        stash["A"]
    stash.clear()
    assert len(files_in(tmp_path)) == 7


@pytest.mark.parametrize("pattern", ["data", "{name}{name}", "a/{name}", "../{name}", ".{name}"])
def test_patterns_that_are_none(tmp_path: Path, pattern: str) -> None:
    """A pattern without a place for the key, or that leads elsewhere, is refused."""
    with pytest.raises(ValueError, match="must be the name of a file"):
        DirectoryStash(tmp_path, pattern)


# --- values ---


def test_formats(tmp_path: Path) -> None:
    """The formats are those of documents, by the same names; a file is one that others read."""
    value = {"a": [1, "x"], "b": {"c": 1.5}}
    for format in ("json", "pickle", "bson", "msgpack", plistlib, json):
        stash = DirectoryStash(tmp_path, format=format)
        stash["k"] = value
        assert stash["k"] == value
    assert files_in(tmp_path) == ["k.bson", "k.json", "k.msgpack", "k.pickle", "k.plistlib"]
    assert json.loads((tmp_path / "k.json").read_text()) == value
    assert pickle.loads((tmp_path / "k.pickle").read_bytes()) == value
    assert plistlib.loads((tmp_path / "k.plistlib").read_bytes()) == value
    with richstore.document(tmp_path / "k.json") as doc:
        doc.value["a"].append(2)
    assert DirectoryStash(tmp_path, format="json")["k"]["a"] == [1, "x", 2]
    indented = DirectoryStash(tmp_path, format="json", dump_kwargs={"indent": 1})
    indented["k"] = value
    assert "\n" in (tmp_path / "k.json").read_text()
    with pytest.raises(ValueError, match="format is 'xml'"):
        DirectoryStash(tmp_path, format="xml")


def test_what_a_format_cannot_hold(tmp_path: Path) -> None:
    """A value that would not come back equal is refused, with key and place; `lossy` takes it."""
    stash = DirectoryStash(tmp_path, format="json")
    with pytest.raises(richstore.EncodingError, match=r"at \['k'\]\['a'\]\[1\]: JSON would give"):
        stash["k"] = {"a": [1, (2, 3)]}
    assert files_in(tmp_path) == []
    DirectoryStash(tmp_path, format="json", lossy=True)["k"] = {"a": [1, (2, 3)]}
    assert stash["k"] == {"a": [1, [2, 3]]}


def test_a_failed_dump_leaves_the_old_value(tmp_path: Path) -> None:
    """A value that cannot be pickled, or not copied, does not destroy the one before it."""
    stash = DirectoryStash(tmp_path)
    stash["a"] = "old"
    for bad in (lambda: 0, {"x": (number for number in [1])}, threading.Lock()):
        with pytest.raises(richstore.EncodingError, match=r"at \['a'\]"):
            stash["a"] = bad
        assert stash["a"] == "old"
    assert files_in(tmp_path) == ["a.pickle"]


def test_a_full_disk_leaves_the_old_value(small_disk: Path) -> None:
    """When the disk is full, the dump says so, the old value stays, and nothing else is left."""
    stash = DirectoryStash(small_disk)
    stash["a"] = b"old"
    for _ in range(2):
        with pytest.raises(OSError, match="No space left"):
            stash["a"] = bytes(4_000_000)
        assert stash["a"] == b"old"
        assert [path.name for path in small_disk.iterdir()] == ["a.pickle"]
    stash["a"] = b"new"
    assert stash["a"] == b"new"


def test_tracked_values_are_stored_plain(tmp_path: Path) -> None:
    """What comes from a store is written as plain data, which needs no richstore to be read."""
    with richstore.open("memory:") as store:
        store["x"] = {"a": [1, {2}]}
        for format in ("pickle", "json"):
            stash = DirectoryStash(tmp_path, format=format, lossy=format == "json")
            if format == "json":
                del store["x"]["a"][1]
            stash["x"] = [store["x"]]
        assert b"richstore" not in (tmp_path / "x.pickle").read_bytes()
        assert (tmp_path / "x.json").read_text() == '[{"a": [1]}]'
        assert not richstore.is_tracked(stash["x"])


def test_classes_of_pickles(tmp_path: Path) -> None:
    """A pickle that others may have written runs no code of theirs, unless it is allowed."""
    stash = DirectoryStash(tmp_path)
    stash["ann"] = Account("ann")
    assert stash["ann"].name == "ann"
    os.chmod(tmp_path / "ann.pickle", 0o666)
    with pytest.raises(richstore.UntrustedClassError, match=r"everybody can write it"):
        stash["ann"]
    assert DirectoryStash(tmp_path, classes=[Account])["ann"].name == "ann"
    with pytest.raises(richstore.UntrustedClassError, match="so it was not imported"):
        DirectoryStash(tmp_path, classes="none")["ann"]
    with pytest.raises(richstore.UntrustedClassError, match=r"at \['bob'\]"):
        DirectoryStash(tmp_path, classes="none")["bob"] = Account("bob")
    stash["bob"] = {"plain": [1, "data"]}
    os.chmod(tmp_path / "bob.pickle", 0o666)
    assert stash["bob"] == {"plain": [1, "data"]}


def test_encrypted_files(tmp_path: Path) -> None:
    """With a key nothing of a value can be read in its file, nor by a stash without the key."""
    stash = DirectoryStash(tmp_path, format="json", key=bytes(32))
    stash["a"] = "penicillin"
    assert DirectoryStash(tmp_path, format="json", key=bytes(32))["a"] == "penicillin"
    assert b"penicillin" not in (tmp_path / "a.json").read_bytes()
    with pytest.raises(richstore.WrongKeyError):
        DirectoryStash(tmp_path, format="json")["a"]
    with pytest.raises(richstore.WrongKeyError):
        DirectoryStash(tmp_path, format="json", key=bytes(31) + b"x")["a"]


def test_damaged_files(tmp_path: Path) -> None:
    """A file that is empty, cut or of another format is an error that names it, and no other."""
    stash = DirectoryStash(tmp_path)
    stash.update(a=1, b=2)
    for data in (b"", b"\x80\x05", b"{}"):
        (tmp_path / "a.pickle").write_bytes(data)
        with pytest.raises(richstore.FormatError, match=r"a\.pickle"):
            stash["a"]
    assert stash["b"] == 2 and "a" in stash
    stash["a"] = 3
    assert dict(stash) == {"a": 3, "b": 2}


# --- the directory ---


def test_reading_makes_nothing(tmp_path: Path) -> None:
    """A directory is made by the first dump; before, and when it is gone, the stash is empty."""
    path = tmp_path / "a" / "b"
    stash = DirectoryStash(path)
    agree(stash, {}, "x")
    stash.clear()
    assert list(tmp_path.iterdir()) == []
    stash["x"] = 1
    assert files_in(tmp_path) == ["a/b/x.pickle"]
    (path / "x.pickle").unlink()
    path.rmdir()
    agree(stash, {}, "x")
    stash["y"] = 1
    agree(stash, {"y": 1}, "x")
    (tmp_path / "file").touch()
    for use in (len, lambda stash: stash.dump("a", 1)):
        with pytest.raises(NotADirectoryError):
            use(DirectoryStash(tmp_path / "file"))


def test_a_directory_one_may_not_look_into(tmp_path: Path) -> None:
    """Where the system does not say whether a file is there, that is an error, no missing key."""
    stash = DirectoryStash(tmp_path / "loop")
    (tmp_path / "loop").symlink_to("loop")
    for ask in (
        lambda: "a" in stash,
        lambda: stash["a"],
        lambda: stash.get("a"),
        lambda: len(stash),
        lambda: stash.pop("a", None),
    ):
        with pytest.raises(OSError, match="symbolic links"):
            ask()


def test_another_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative path is that of the directory in which the stash was made."""
    monkeypatch.chdir(tmp_path)
    stash = DirectoryStash("files")
    monkeypatch.chdir("/")
    stash["a"] = 1
    assert files_in(tmp_path) == ["files/a.pickle"]


def test_modes_of_files(tmp_path: Path) -> None:
    """A new file has the mode that the process gives to files, and keeps the one it is given."""
    stash = DirectoryStash(tmp_path)
    stash["a"] = 1
    (tmp_path / "other").touch()
    file = tmp_path / "a.pickle"
    assert file.stat().st_mode == (tmp_path / "other").stat().st_mode
    for mode in (0o600, 0o640):
        file.chmod(mode)
        stash["a"] = mode
        assert stat.S_IMODE(file.stat().st_mode) == mode and stash["a"] == mode


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everything")
def test_files_that_are_write_protected(tmp_path: Path) -> None:
    """A file that one may not write is not replaced by another one."""
    stash = DirectoryStash(tmp_path)
    stash["a"] = 1
    (tmp_path / "a.pickle").chmod(0o400)
    with pytest.raises(PermissionError, match="write-protected"):
        stash["a"] = 2
    assert stash["a"] == 1


def test_a_value_is_on_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The content is put on disk, then renamed, then the directory is put on disk."""
    done: list[str] = []

    def record(name: str) -> None:
        real = getattr(os, name)

        def recorded(*arguments: Any) -> None:
            what = arguments[0]
            if name == "fsync":
                what = "directory" if stat.S_ISDIR(os.fstat(what).st_mode) else "content"
            done.append(what if name == "fsync" else name)
            real(*arguments)

        monkeypatch.setattr(os, name, recorded)

    stash, numbers = DirectoryStash(tmp_path), IncrementKeyDirectoryStash(tmp_path)
    for name in ("fsync", "replace", "link", "unlink"):
        record(name)
    stash["a"] = 1
    assert done == ["content", "replace", "directory", "unlink"]
    done.clear()
    numbers.append(1)
    assert done == ["content", "link", "directory", "unlink"]
    done.clear()
    del stash["a"]
    assert done == ["unlink", "directory"]
    done.clear()
    stash["a" * 130] = 1
    assert done == ["directory", "content", "replace", "directory", "unlink"]


WRITER = """
import sys
from richstore.stash import DirectoryStash
stash = DirectoryStash(sys.argv[1])
for number in range(10**9):
    stash["a"] = [number] * 20_000
    if number == 0:
        print("ready", flush=True)
"""


def test_writers_that_are_killed(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """A process killed in the middle leaves the old value or the new one; its litter is removed."""
    stash = DirectoryStash(tmp_path)
    for round in range(20 if request.config.getoption("--long") else 2):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path)],
            stdout=subprocess.PIPE,
            env=child_environment(),
        ) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"ready\n"
            # while it writes, every value that is read is whole, and is one that was written
            for _ in range(30 + 7 * round):
                value = stash["a"]
                assert len(value) == 20_000 and len(set(value)) == 1
            writer.send_signal(signal.SIGKILL)
            assert writer.wait() == -signal.SIGKILL
        value = stash["a"]
        assert len(value) == 20_000 and len(set(value)) == 1
        assert list(stash) == ["a"]
    (tmp_path / ".richstore-0123456789abcdef.part").write_bytes(b"left by one that was killed")
    DirectoryStash(tmp_path)["b"] = 1
    assert files_in(tmp_path) == ["a.pickle", "b.pickle"]


def test_a_file_that_is_being_written_is_not_litter(tmp_path: Path) -> None:
    """The first dump of one stash does not remove what another is just writing."""
    began, go = threading.Event(), threading.Event()

    real = os.fsync

    def fsync(fd: int) -> None:
        if threading.current_thread() is thread and not began.is_set():
            began.set()
            assert go.wait(30)
        real(fd)

    thread = threading.Thread(target=lambda: DirectoryStash(tmp_path).dump("a", 1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        thread.start()
        assert began.wait(30)
        DirectoryStash(tmp_path)["b"] = 2
        go.set()
        thread.join()
    assert dict(DirectoryStash(tmp_path)) == {"a": 1, "b": 2}


APPENDER = """
import sys
from richstore.stash import IncrementKeyDirectoryStash
stash = IncrementKeyDirectoryStash(sys.argv[1], format="json")
print(*[stash.append(sys.argv[2]) for _ in range(20)])
"""


def test_two_processes_append(tmp_path: Path) -> None:
    """Processes that append at once get numbers of their own, and no value is overwritten."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", APPENDER, str(tmp_path), name],
            stdout=subprocess.PIPE,
            env=child_environment(),
        )
        for name in "ab"
    ]
    numbers = {
        name: [int(word) for word in process.communicate(timeout=60)[0].split()]
        for name, process in zip("ab", processes, strict=True)
    }
    assert sorted(numbers["a"] + numbers["b"]) == list(range(1, 41))
    stash = IncrementKeyDirectoryStash(tmp_path, format="json")
    for name, mine in numbers.items():
        assert mine == sorted(mine) and {stash[key] for key in mine} == {name}


def test_numbers_go_on(tmp_path: Path) -> None:
    """`append` goes on after the greatest number, None is a value, and the last one is at hand."""
    stash = IncrementKeyDirectoryStash(tmp_path)
    assert stash.last_key is None
    with pytest.raises(KeyError, match="no file yet"):
        stash.last()
    assert [stash.append(value) for value in ("a", None)] == [1, 2]
    assert (stash.last_key, stash.last()) == (2, None)
    stash[9] = "nine"
    assert IncrementKeyDirectoryStash(tmp_path).append("ten") == 10
    assert stash.last() == "ten" and sorted(stash) == [1, 2, 9, 10]
    with pytest.raises(richstore.EncodingError, match=r"at \[11\]"):
        stash.append(lambda: 0)
    assert stash.last_key == 10
    (tmp_path / "data-011.pickle").touch()
    (tmp_path / "data-x.pickle").touch()
    assert sorted(stash) == [1, 2, 9, 10]


# --- shelves ---

DBMS: list[Any] = [dbm.dumb]
for name in ("dbm.gnu", "dbm.ndbm", "dbm.sqlite3"):
    with contextlib.suppress(ImportError):  # what this Python is built without
        DBMS.append(importlib.import_module(name))


@pytest.fixture(params=DBMS, ids=lambda module: module.__name__)
def shelf(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The path of a shelf that `shelve` has written, on each dbm that this Python has."""
    path = str(tmp_path / "shelf")
    with shelve.Shelf(request.param.open(path, "c")) as made:
        made.update(PEOPLE)
    return path


PEOPLE = {"ann": {"age": 30}, "bob": None, "": [1], "é 😀/": "odd"}


def test_shelves_of_others(shelf: str) -> None:
    """A file of `shelve` is read as it is, changed, and read by `shelve` again."""
    stash = ShelveStash(shelf)
    agree(stash, PEOPLE, "x")
    stash["ann"] = {"age": 31}
    del stash["bob"]
    with stash:
        stash["new"] = Account("new")
    with shelve.Shelf(importlib.import_module(dbm.whichdb(shelf) or "").open(shelf, "r")) as there:
        assert there["ann"] == {"age": 31} and "bob" not in there
        assert there["new"].name == "new" and len(there) == 4


def test_a_new_shelf(tmp_path: Path) -> None:
    """A shelf is made by the first dump, not by reading, and is one for `shelve`."""
    stash = ShelveStash(tmp_path / "shelf")
    agree(stash, {}, "a")
    assert list(tmp_path.iterdir()) == []
    stash["a"] = None
    with shelve.open(str(tmp_path / "shelf"), "r") as there:
        assert dict(there) == {"a": None}


def test_flags_of_shelves(shelf: str, tmp_path: Path) -> None:
    """With "r" nothing is changed, not even a byte; a missing file is an error but with "c"."""
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    stash = ShelveStash(shelf, "r")
    for change in (
        lambda: stash.dump("ann", 1),
        lambda: stash.delete("ann"),
        lambda: stash.clear(),
        lambda: stash.pop("ann"),
    ):
        with pytest.raises(richstore.ReadOnlyError, match="opened with 'r'"):
            change()
    with stash:
        agree(stash, PEOPLE, "x")
    # SQLite makes others beside its file when it reads
    assert {name: (tmp_path / name).read_bytes() for name in before} == before
    for flag in ("r", "w"):
        with pytest.raises(FileNotFoundError, match="there is no shelf"):
            ShelveStash(tmp_path / "nothing", flag)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="flag is 'n'"):
        ShelveStash(shelf, "n")  # type: ignore[arg-type]
    ShelveStash(shelf, "w")["ann"] = 1
    assert ShelveStash(shelf)["ann"] == 1


def test_classes_of_shelves(shelf: str, tmp_path: Path) -> None:
    """A shelf that others may write runs no code of theirs, unless it is allowed; data is read."""
    stash = ShelveStash(shelf)
    stash["acc"] = Account("acc")
    assert stash["acc"].name == "acc"
    for path in tmp_path.iterdir():
        os.chmod(path, 0o666)
    with pytest.raises(richstore.UntrustedClassError, match=r"shelf\['acc'\]"):
        stash["acc"]
    assert stash["ann"] == {"age": 30}
    assert ShelveStash(shelf, classes=[Account])["acc"].name == "acc"


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_old_pickles_of_shelves(tmp_path: Path, protocol: int) -> None:
    """What any version of pickle has written is read; that of Python 3, trusting nobody too."""
    value = {"a": [1, 2.5, "é", b"x", None, True, (1, 2)], "s": {3}}
    path = str(tmp_path / "shelf")
    with shelve.Shelf(dbm.dumb.open(path, "c"), protocol=protocol) as made:
        made["a"] = value
    assert ShelveStash(path, "r")["a"] == value
    if protocol >= 2:
        assert ShelveStash(path, "r", classes="none")["a"] == value


def test_what_is_no_shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of something else is told apart from one whose dbm this Python does not have."""
    (tmp_path / "text").write_text("hello, this is no dbm")
    with pytest.raises(richstore.FormatError, match="is not the file of a shelf"):
        ShelveStash(tmp_path / "text")
    (tmp_path / "gnu").write_bytes((0x13579ACE).to_bytes(4, "little") + bytes(60))
    monkeypatch.setitem(sys.modules, "dbm.gnu", None)
    with pytest.raises(ModuleNotFoundError, match=r"a file of dbm\.gnu, which this Python"):
        ShelveStash(tmp_path / "gnu")


def test_a_failed_dump_leaves_the_shelf(shelf: str) -> None:
    """What cannot be pickled, and a key that is no str, are refused; the old value stays."""
    stash = ShelveStash(shelf)
    with pytest.raises(richstore.EncodingError, match=r"at \['ann'\]"):
        stash["ann"] = lambda: 0
    for key in (1, b"ann", "\ud800"):
        with pytest.raises(richstore.KeyTypeError):
            stash[key] = 1  # type: ignore[index]
        assert key not in stash
    agree(stash, PEOPLE, "x")


def test_a_shelf_in_a_block(shelf: str) -> None:
    """Inside a block the file stays open, blocks nest, and other threads wait for its end."""
    stash = ShelveStash(shelf)
    got: list[Any] = []
    thread = threading.Thread(target=lambda: got.append(stash["new"]))
    with stash as inside, inside:
        thread.start()
        stash["new"] = 1
        with contextlib.suppress(ZeroDivisionError), stash:
            raise ZeroDivisionError
        assert stash["new"] == 1 and got == []
    thread.join(30)
    assert got == [1]
    assert dict(stash) == {**PEOPLE, "new": 1}


# --- other processes ---


def test_stashes_on_files_are_pickled(tmp_path: Path) -> None:
    """They can be sent to a process that works on the same files; a key is not in a pickle."""
    texts = DirectoryStash(tmp_path / "d", format="json", lossy=True)
    texts["a"] = (1, 2)
    sent = pickle.loads(pickle.dumps(texts))
    sent["b"] = (3,)
    assert dict(texts) == dict(sent) == {"a": [1, 2], "b": [3]}
    shelf = ShelveStash(tmp_path / "s", classes="none")
    shelf["a"] = 1
    assert dict(pickle.loads(pickle.dumps(shelf))) == {"a": 1}
    locked = DirectoryStash(tmp_path / "e", key=bytes(range(32)))
    with pytest.raises(TypeError, match="what has a key is not pickled"):
        pickle.dumps(locked)


# --- zip archives ---


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A zip archive with directories, and names that begin alike."""
    path = tmp_path / "texts.zip"
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("root/", "")
        made.writestr("root/a.txt", "Grüße")
        made.writestr("root/deep/b.txt", "")
        made.writestr("rootother/c.txt", "c")
    return path


def test_zip_archives(archive: Path) -> None:
    """Files are keys and directories are not; below a root are its own files alone."""
    agree(
        ZipStash(archive),
        {"root/a.txt": "Grüße".encode(), "root/deep/b.txt": b"", "rootother/c.txt": b"c"},
        "root/",
    )
    texts = ZipStash(archive, "root", "utf-8")
    agree(texts, {"a.txt": "Grüße", "deep/b.txt": ""}, "ther/c.txt")
    conformance.refuses(texts, "a.txt")
    assert 5 not in texts
    for root in ("/root", "root/"):
        with pytest.raises(ValueError, match="slash"):
            ZipStash(archive, root)
    with pytest.raises(UnicodeDecodeError):
        ZipStash(archive, "root", "ascii")["a.txt"]


def test_zip_archives_that_change(archive: Path) -> None:
    """An archive that was replaced is read anew; one that is gone or is none says so."""
    stash = ZipStash(archive)
    assert len(stash) == 3
    with zipfile.ZipFile(archive, "a") as made:
        made.writestr("new", "n")
    assert stash["new"] == b"n" and len(stash) == 4
    archive.write_bytes(b"not a zip archive")
    with pytest.raises(richstore.FormatError, match=r"texts\.zip is not a zip archive"):
        len(stash)
    archive.unlink()
    with pytest.raises(FileNotFoundError):
        stash["new"]


def test_zip_archives_that_cannot_be_unpacked(tmp_path: Path) -> None:
    """Damage that the way to compress finds, and a password, are told as other damage is."""
    path = tmp_path / "made.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("a", "hello " * 1000)
    data = path.read_bytes()
    # behind the name the data begins; the flags are in the header and in the list at the end
    entry = data.index(b"PK\x01\x02")
    for at, byte in ((31, 0xFF), (entry + 8, 1), (entry + 10, 99)):
        broken = bytearray(data)
        broken[at] = byte
        path.write_bytes(broken)
        with pytest.raises(richstore.FormatError, match=r"made\.zip cannot be read at 'a'"):
            ZipStash(path)["a"]


def test_damaged_zip_archives(archive: Path) -> None:
    """A file that is not what was packed is an error that names it."""
    data = archive.read_bytes()
    archive.write_bytes(data.replace("Grüße".encode(), b"1234567", 1))
    with pytest.raises(richstore.FormatError, match=r"cannot be read at 'root/a\.txt'"):
        ZipStash(archive)["root/a.txt"]
