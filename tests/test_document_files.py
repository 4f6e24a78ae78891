"""Where documents in files are, and what of the file is kept: names, links, mode and owner."""

from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import child_environment, run_python

import richstore

plain = richstore.plain
AS_ROOT = os.geteuid() == 0
needs_root = pytest.mark.skipif(not AS_ROOT, reason="only root may give files away")


def save(path: Any, value: Any, **options: Any) -> None:
    """Make `value` the content of a document."""
    with richstore.document(path, **options) as document:
        document.value = value


def names(directory: Path) -> set[str]:
    """Return what is in a directory, without locks."""
    return {path.name for path in directory.iterdir() if path.suffix != ".lock"}


# --- where it is ---


def test_the_value_is_in_the_file(tmp_path: Path) -> None:
    """A block writes the file, and nothing else but the lock is there."""
    save(tmp_path / "state.json", {"ä": [1, None, "€"]})
    assert (tmp_path / "state.json").read_bytes() == '{"ä": [1, null, "€"]}'.encode()
    assert {path.name for path in tmp_path.iterdir()} == {"state.json", "state.json.lock"}


def test_a_path_may_be_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative path is that of the moment of opening, wherever the process goes afterwards."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    monkeypatch.chdir(tmp_path / "a")
    document = richstore.document("state.json", default=[], autosave=True)
    monkeypatch.chdir(tmp_path / "b")
    document.value.append(1)
    document.reload()
    document.value.append(2)
    assert document.location == str(tmp_path / "a" / "state.json")
    assert json.loads((tmp_path / "a" / "state.json").read_text()) == [1, 2]
    assert names(tmp_path / "b") == set()


def test_a_path_may_be_any_path_of_str(tmp_path: Path) -> None:
    """A str, a Path and every other PathLike of str are paths; bytes and numbers are refused."""

    class Place:
        def __fspath__(self) -> Any:
            return self.name

        def __init__(self, name: Any) -> None:
            self.name = name

    path = str(tmp_path / "state.json")
    save(path, [1])
    assert richstore.document(Path(path)).value == [1]
    assert richstore.document(Place(path)).value == [1]
    for wrong in (path.encode(), Place(path.encode()), 3, None):
        with pytest.raises(TypeError):
            richstore.document(wrong)
    with pytest.raises(ValueError, match="null"):
        richstore.document(path + "\0")


@pytest.mark.parametrize("name", ["a b.json", "ä€.json", "50%.json", "a#b?.json", "\udcff.json"])
def test_a_url_of_a_file(tmp_path: Path, name: str) -> None:
    """A file:// URL as `Path.as_uri` makes it is the same document as the path."""
    path = tmp_path / name
    url = path.as_uri()
    save(url, ["here"])
    assert names(tmp_path) == {name}
    assert richstore.document(path).value == ["here"]
    for same in (url.replace("file://", "file://localhost"), url.replace("file", "FILE", 1)):
        assert richstore.document(same).location == str(path)


@pytest.mark.parametrize(
    "url", ["file://other/state.json", "file://state.json", "file://", "file:///a?b", "file:///a#b"]
)
def test_a_url_of_no_file_here(url: str) -> None:
    """A file:// URL with a host, a query, or no absolute path is refused."""
    with pytest.raises(ValueError, match="absolute path"):
        richstore.document(url)


@pytest.mark.parametrize("place", ["state.json", "file:///tmp/state.json"])
def test_a_file_has_no_options(place: str) -> None:
    """A misspelt argument is named, rather than taken for an option of an object store."""
    with pytest.raises(TypeError, match="autosafe"):
        richstore.document(place, autosafe=True)


def test_a_missing_directory(tmp_path: Path) -> None:
    """A parent directory that is missing, or goes, is an error that names it."""
    for path in (tmp_path / "no" / "state.json", tmp_path / "no" / "such" / "state.json"):
        with pytest.raises(FileNotFoundError, match="directory of the document") as caught:
            richstore.document(path, default=[])
        assert caught.value.filename == str(path.parent)
    directory = tmp_path / "goes"
    directory.mkdir()
    document = richstore.document(directory / "state.json", default=[1], autosave=True)
    for path in list(directory.iterdir()):
        path.unlink()
    directory.rmdir()
    with pytest.raises(FileNotFoundError, match="directory of the document"):
        document.value.append(2)
    assert document.value == [1]
    directory.mkdir()
    document.value.append(2)
    assert json.loads((directory / "state.json").read_text()) == [1, 2]


def test_what_is_no_ordinary_file(tmp_path: Path) -> None:
    """A directory, a FIFO and a device are refused at once, and stay what they are."""
    with pytest.raises(IsADirectoryError, match="a directory is where"):
        richstore.document(tmp_path)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for path in (fifo, Path("/dev/null")):
        mode = path.stat().st_mode
        with pytest.raises(OSError, match="ordinary file") as caught:
            richstore.document(path, default=[], autosave=True)
        assert caught.value.filename == str(path)
        assert path.stat().st_mode == mode


def test_what_is_an_ordinary_file_no_longer(tmp_path: Path) -> None:
    """A directory that takes the place of an open document is not replaced."""
    document = richstore.document(tmp_path / "state.json", default=[1], autosave=True)
    (tmp_path / "state.json").unlink()
    (tmp_path / "state.json").mkdir()
    with pytest.raises(IsADirectoryError):
        document.value.append(2)
    assert document.value == [1]
    document.autosave = False
    document.value.append(2)
    with pytest.raises(richstore.ConflictError):
        document.commit()
    assert (tmp_path / "state.json").is_dir()


def test_a_name_that_is_too_long(tmp_path: Path) -> None:
    """A name that leaves no room for that of the temporary file is an error, and leaves nothing."""
    document = richstore.document(tmp_path / ("x" * 245), default=[])
    with pytest.raises(OSError, match="too long") as caught:
        document.commit()
    assert caught.value.errno == errno.ENAMETOOLONG
    assert names(tmp_path) == set()


# --- links ---


def test_a_symlink_stays(tmp_path: Path) -> None:
    """A document that is reached by symbolic links is written where they lead."""
    real = tmp_path / "real"
    real.mkdir()
    (real / "state.json").write_text("[1]")
    (tmp_path / "one.json").symlink_to(real / "state.json")
    (tmp_path / "two.json").symlink_to("one.json")
    with richstore.document(tmp_path / "two.json") as document:
        document.value.append(2)
    assert (tmp_path / "two.json").readlink() == Path("one.json")
    assert (tmp_path / "one.json").readlink() == real / "state.json"
    assert not (real / "state.json").is_symlink()
    assert json.loads((real / "state.json").read_text()) == [1, 2]
    # the lock is one for all names
    assert {path.name for path in tmp_path.rglob("*.lock")} == {"state.json.lock"}
    document.delete()
    assert (tmp_path / "two.json").is_symlink() and not (real / "state.json").exists()


def test_a_dangling_symlink(tmp_path: Path) -> None:
    """A link to a file that does not exist yet is followed, and the file is made there."""
    (tmp_path / "link.json").symlink_to("target.json")
    save(tmp_path / "link.json", [1], default=[])
    assert (tmp_path / "link.json").is_symlink()
    assert (tmp_path / "target.json").read_text() == "[1]"
    (tmp_path / "lost.json").symlink_to(tmp_path / "no" / "target.json")
    with pytest.raises(FileNotFoundError, match="directory of the document") as caught:
        richstore.document(tmp_path / "lost.json", default=[])
    assert caught.value.filename == str(tmp_path / "no")


def test_a_loop_of_symlinks(tmp_path: Path) -> None:
    """Links that lead to each other are an error, and stay."""
    (tmp_path / "a.json").symlink_to("b.json")
    (tmp_path / "b.json").symlink_to("a.json")
    with pytest.raises(OSError) as caught:
        richstore.document(tmp_path / "a.json", default=[], autosave=True)
    assert caught.value.errno == errno.ELOOP
    assert (tmp_path / "a.json").is_symlink()


def test_a_hard_link(tmp_path: Path) -> None:
    """Another name of the file keeps the old content: the document is a new file then."""
    (tmp_path / "state.json").write_text("[1]")
    os.link(tmp_path / "state.json", tmp_path / "other.json")
    save(tmp_path / "state.json", [2])
    assert (tmp_path / "state.json").read_text() == "[2]"
    assert (tmp_path / "other.json").read_text() == "[1]"


# --- mode and owner ---


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664, 0o777, 0o4755])
def test_the_mode_is_kept(tmp_path: Path, mode: int) -> None:
    """The mode of the file is that of its predecessor, whatever the umask."""
    path = tmp_path / "state.json"
    save(path, [1])
    path.chmod(mode)
    before = os.umask(0o077)
    try:
        save(path, [2])
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == mode
    assert path.read_text() == "[2]"


def test_a_new_file_obeys_the_umask(tmp_path: Path) -> None:
    """A file that is made has the mode that open() would give it."""
    for umask in (0o022, 0o077, 0o002):
        path = tmp_path / f"{umask}.json"
        before = os.umask(umask)
        try:
            save(path, [1])
        finally:
            os.umask(before)
        assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask


def test_nobody_else_may_open_the_temporary_file(tmp_path: Path) -> None:
    """The file that takes the place of a private one is private from its first moment."""
    code = """
import os, sys, richstore
modes = []
def look(event, arguments):
    if event == "open" and str(arguments[0]).endswith(".part"):
        flags = arguments[2]
        modes.append(flags)
    if event in ("os.chmod", "os.chown") and modes:
        for entry in os.scandir(os.path.dirname(sys.argv[1])):
            if entry.name.endswith(".part"):
                print(oct(entry.stat().st_mode & 0o777))
sys.addaudithook(look)
os.umask(0)
with richstore.document(sys.argv[1]) as document:
    document.value.append(2)
"""
    path = tmp_path / "state.json"
    path.write_text("[1]")
    path.chmod(0o640)
    done = run_python(code, str(path))
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) == {"0o600"}
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


@needs_root
def test_the_owner_is_kept(tmp_path: Path) -> None:
    """What root writes to somebody's file stays theirs, and so does its lock's use."""
    path = tmp_path / "state.json"
    save(path, [1])
    path.chmod(0o640)
    os.chown(path, 65534, 1234)
    save(path, [2])
    status = path.stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (65534, 1234, 0o640)


@pytest.fixture
def shared() -> Iterator[Path]:
    """A directory that every user may enter."""
    # not that of temporary files, which may be one user's
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        os.chmod(directory, 0o755)
        yield Path(directory)


# goes on as nobody, where it can; the modules may be where only root can read them
AS_NOBODY = """
import os, sys, tempfile, richstore
with tempfile.TemporaryDirectory() as directory:
    with richstore.document(directory + "/warm.json", default=[]) as document:
        document.value.append(1)
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
path = sys.argv[1]
"""


def test_a_read_only_directory(shared: Path) -> None:
    """A document in a directory that may not be written can be read; writing says so, and leaves
    file and memory as they were.
    """
    code = f"""{AS_NOBODY}
document = richstore.document(path)
assert document.value == [1]
for way in ("commit", "autosave", "block"):
    try:
        if way == "commit":
            document.value.append(2)
            document.commit()
        elif way == "autosave":
            document.reload()
            document.autosave = True
            document.value.append(2)
        else:
            with document:
                document.value.append(2)
    except PermissionError as error:
        print(way, error.errno, os.path.dirname(error.filename) == os.path.dirname(path),
              richstore.plain(document.value))
"""
    path = shared / "state.json"
    path.write_text("[1]")
    path.chmod(0o666)
    shared.chmod(0o555)
    try:
        done = run_python(code, str(path))
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines() == [
            "commit 13 True [1, 2]",
            "autosave 13 True [1]",
            "block 13 True [1]",
        ]
        assert path.read_text() == "[1]"
        assert names(shared) == {"state.json"}
    finally:
        shared.chmod(0o755)


def test_a_write_protected_file(shared: Path) -> None:
    """A file that the user may not write is not replaced, though its directory would allow it."""
    code = f"""{AS_NOBODY}
document = richstore.document(path, autosave=True)
try:
    document.value.append(2)
except PermissionError as error:
    print(error.filename == path, "write-protected" in str(error), richstore.plain(document.value))
"""
    path = shared / "state.json"
    path.write_text("[1]")
    path.chmod(0o444)
    shared.chmod(0o777)
    done = run_python(code, str(path))
    assert done.returncode == 0, done.stderr
    assert done.stdout == "True True [1]\n"
    assert path.read_text() == "[1]"
    assert names(shared) == {"state.json"}


@needs_root
def test_a_file_of_another_user(shared: Path) -> None:
    """A user who may write the file of another, and not give files away, keeps group and mode."""
    code = f"""{AS_NOBODY}
with richstore.document(path) as document:
    document.value.append(2)
"""
    path = shared / "state.json"
    path.write_text("[1]")
    os.chown(path, 1000, 65534)
    path.chmod(0o664)
    shared.chmod(0o777)
    done = run_python(code, str(path))
    assert done.returncode == 0, done.stderr
    status = path.stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (65534, 65534, 0o664)
    assert path.read_text() == "[1, 2]"
    # and the other way round: the lock that they have made serves its owner too
    assert stat.S_IMODE((shared / "state.json.lock").stat().st_mode) & 0o060 == 0o060


# --- leftovers ---


def test_leftovers_of_this_document_alone_are_cleared(tmp_path: Path) -> None:
    """What a killed writer of this document has left goes; what only has a similar name stays."""
    hexadecimal = "0123456789abcdef"
    mine = {f".state.json.{hexadecimal}.part", f".state.json.{hexadecimal[::-1]}.part"}
    others = {
        f".state.json.old.{hexadecimal}.part",  # of the document state.json.old
        f".state.{hexadecimal}.part",
        f".xstate.json.{hexadecimal}.part",
        f".stateyjson.{hexadecimal}.part",
        f"state.json.{hexadecimal}.part",
        f".state.json.{hexadecimal}.part.txt",
        ".state.json.part",
        ".state.json.notes.part",
    }
    for name in mine | others:
        (tmp_path / name).write_text("?")
    save(tmp_path / "state.json", [1])
    assert names(tmp_path) == others | {"state.json"}


def test_leftovers_are_cleared_at_any_time(tmp_path: Path) -> None:
    """Also a document that has been open for long clears what others have left meanwhile."""
    document = richstore.document(tmp_path / "state.json", default=[], autosave=True)
    for n in range(3):
        document.value.append(n)
        time.sleep(0.02)  # the clock of file systems has ticks
        (tmp_path / f".state.json.{n:016x}.part").write_text("?")
        document.value.append(n)
        assert names(tmp_path) == {"state.json"}


def test_a_directory_of_many_files(tmp_path: Path) -> None:
    """Changes of one document do not read a long directory again and again."""
    for n in range(5_000):
        (tmp_path / f"other {n}").touch()
    code = """
import sys, richstore
document = richstore.document(sys.argv[1], default=[], autosave=True)
listed = []
sys.addaudithook(lambda event, _: listed.append(event) if event == "os.scandir" else None)
for n in range(20):
    document.value.append(n)
print(len(listed))
"""
    done = run_python(code, str(tmp_path / "state.json"))
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) <= 2


def test_a_leftover_in_the_directory_of_a_link(tmp_path: Path) -> None:
    """Temporary files are where the file is, not where a link to it is."""
    real = tmp_path / "real"
    real.mkdir()
    left = real / ".state.json.0123456789abcdef.part"
    left.write_text("?")
    (tmp_path / "link.json").symlink_to(real / "state.json")
    save(tmp_path / "link.json", [1], default=[])
    assert names(real) == {"state.json"}


# --- others ---


def test_a_file_that_was_only_touched_is_no_conflict(tmp_path: Path) -> None:
    """Content decides: a new date, or the same content once more, is not somebody else's change."""
    path = tmp_path / "state.json"
    save(path, [1])
    document = richstore.document(path)
    document.value.append(2)
    os.utime(path)
    document.commit()
    document.value.append(3)
    path.write_bytes(path.read_bytes())
    document.commit()
    assert path.read_text() == "[1, 2, 3]"
    document.value.append(4)
    path.write_text("[1, 2, 5]")
    with pytest.raises(richstore.ConflictError, match="somebody else"):
        document.commit()
    assert path.read_text() == "[1, 2, 5]"


def test_a_commit_that_changes_nothing_writes_nothing(tmp_path: Path) -> None:
    """The file stays the same file when there is nothing to write."""
    path = tmp_path / "state.json"
    save(path, {"a": [1]})
    before = path.stat()
    with richstore.document(path) as document:
        assert document.value == {"a": [1]}
    document.commit()
    document.autosave = True
    document.value["a"] = [1]
    after = path.stat()
    # not the time of the last access, which reading changes
    assert (after.st_ino, after.st_mtime_ns, after.st_ctime_ns) == (
        before.st_ino,
        before.st_mtime_ns,
        before.st_ctime_ns,
    )


LOCALE = """
import locale, sys, richstore
assert locale.getpreferredencoding(False).upper() != "UTF-8", locale.getpreferredencoding(False)
with richstore.document(sys.argv[1]) as document:
    assert document.value == ["\\xe4\\u20ac\\U0001f600"], ascii(document.value)
    document.value.append("\\xfc")
class Words:
    def dump(self, value, file): file.write(" ".join(value))
    def load(self, file): return file.read().split(" ")
with richstore.document(sys.argv[2], default=[], format=Words(), is_binary=False) as document:
    document.value.append("\\xe4")
"""


def test_text_is_utf8_whatever_the_locale(tmp_path: Path) -> None:
    """Text is read and written as UTF-8 in a process whose locale says ASCII."""
    path, other = tmp_path / "a.json", tmp_path / "words"
    path.write_text('["ä€😀"]', encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", LOCALE, str(path), str(other)],
        capture_output=True,
        text=True,
        check=False,
        env={
            **child_environment(),
            "LC_ALL": "C",
            "PYTHONUTF8": "0",
            "PYTHONCOERCECLOCALE": "0",
        },
    )
    assert done.returncode == 0, done.stderr
    assert path.read_text(encoding="utf-8") == '["ä€😀", "ü"]'
    assert other.read_text(encoding="utf-8") == "ä"


def test_without_filelock(tmp_path: Path) -> None:
    """Without the package for locks, a document can be read, and writing says what to install."""
    code = """
import sys, richstore
sys.modules["filelock"] = None
document = richstore.document(sys.argv[1])
document.value.append(2)
try:
    document.commit()
except ModuleNotFoundError as error:
    print(error)
"""
    (tmp_path / "state.json").write_text("[1]")
    done = run_python(code, str(tmp_path / "state.json"))
    assert done.returncode == 0, done.stderr
    assert "pip install 'richstore[documents]'" in done.stdout
