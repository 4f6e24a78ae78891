"""Documents on full and failing disks, and what is left of them when the power fails."""

from __future__ import annotations

import errno
import json
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from crash_states import Disk
from disks import MEGABYTE
from failing_calls import needs_strace, run_failing
from recording import Event, build, compiler, record

import richstore

plain = richstore.plain


def names(directory: Path) -> set[str]:
    """Return what is in a directory, without locks."""
    return {path.name for path in directory.iterdir() if path.suffix != ".lock"}


@pytest.mark.parametrize("way", ["single change", "block", "commit"])
def test_a_full_disk(small_disk: Path, way: str) -> None:
    """A change that finds no room raises ENOSPC, and file and memory are as before; with room it
    works again.
    """
    path = small_disk / "state.json"
    document = richstore.document(path, default={"kept": [1]}, autosave=way == "single change")
    document.commit()
    (small_disk / "ballast").write_bytes(bytes(MEGABYTE))
    before = path.read_bytes()

    def change() -> None:
        if way == "block":
            with document:
                document.value["kept"].append(2)
                document.value["large"] = "x" * 3 * MEGABYTE
        else:
            document.value["large"] = "x" * 3 * MEGABYTE
            document.commit()

    with pytest.raises(OSError) as caught:
        change()
    assert caught.value.errno == errno.ENOSPC
    assert path.read_bytes() == before
    assert names(small_disk) == {"state.json", "ballast"}
    if way == "commit":
        # that is in memory what was put there
        assert len(document.value["large"]) == 3 * MEGABYTE
        document.value["large"] = ""
    else:
        assert document.value == {"kept": [1]}
    (small_disk / "ballast").unlink()
    document.value["kept"].append(3)
    document.commit()
    assert json.loads(path.read_bytes())["kept"] == [1, 3]


def test_no_room_for_a_single_byte(small_disk: Path) -> None:
    """On a disk without a free page a document can be opened, and a change raises ENOSPC."""
    path = small_disk / "state.json"
    path.write_text("[1]")
    (small_disk / "ballast").write_bytes(bytes(4096 * os.statvfs(small_disk).f_bavail))
    document = richstore.document(path, autosave=True)
    with pytest.raises(OSError) as caught:
        document.value.append(2)
    assert caught.value.errno == errno.ENOSPC
    assert document.value == [1] and path.read_text() == "[1]"
    (small_disk / "ballast").unlink()
    document.value.append(2)
    assert path.read_text() == "[1, 2]"


# Runs under strace, which lets the n-th call of some system call fail.
FAILING = """
import errno, json, os, sys, richstore
from richstore.documents.files import FilePlace
path, way, expected, fault = sys.argv[1:]
if fault == "nothing is put back":
    FilePlace._put_back = lambda self, target, error: None
document = richstore.document(path, default=[0])
document.commit()
document.autosave = way == "single change"
failures = 0
for n in range(1, 13):
    before = richstore.plain(document.value)
    stored = open(path, "rb").read()
    try:
        if way == "block":
            with document:
                document.value.append(n)
        else:
            document.value.append(n)
            document.commit()
    except OSError as error:
        failures += 1
        assert error.errno == getattr(errno, expected), error
        assert not getattr(error, "__notes__", []), error.__notes__
        assert open(path, "rb").read() == stored, "the file has changed"
        assert set(os.listdir(os.path.dirname(path))) == {"state.json", "state.json.lock"}
        now = richstore.plain(document.value)
        assert now == (before + [n] if way == "commit" else before), (now, before)
    else:
        assert json.loads(open(path, "rb").read()) == document.value
print(failures)
"""


def failures(path: Path, way: str, call: str, when: str, fault: str = "none") -> str:
    """Return how many changes failed when strace let calls fail, or what was wrong."""
    done = run_failing(FAILING, path, way, "EIO", fault, call=call, error="EIO", when=when)
    return done.stdout.strip() if done.returncode == 0 else done.stderr[-2000:]


@needs_strace
@pytest.mark.parametrize("way", ["single change", "block", "commit"])
@pytest.mark.parametrize("call", ["fsync", "rename", "write", "fchmod"])
def test_a_failing_disk(
    tmp_path: Path, call: str, way: str, request: pytest.FixtureRequest
) -> None:
    """A write, sync or rename that fails is told; the file is untouched, memory as before, nothing
    is left, and it works afterwards.
    """
    # of two syncs in a commit one is that of the directory, when the file has its name already
    whens = ["3", "4"] if call == "fsync" else ["3"]
    if request.config.getoption("--long"):
        whens = [str(n) for n in range(3, 12)]
    for when in whens:
        (tmp_path / when).mkdir()
        assert failures(tmp_path / when / "state.json", way, call, when) == "1"


@needs_strace
def test_a_change_that_is_not_put_back_is_found(tmp_path: Path) -> None:
    """The check above fails when the sync of the directory fails and the new file stays."""
    said = failures(tmp_path / "state.json", "block", "fsync", "4", "nothing is put back")
    assert "the file has changed" in said


def test_no_more_open_files(tmp_path: Path) -> None:
    """When the process may open no more files, a change says EMFILE and undoes itself."""
    path = tmp_path / "state.json"
    document = richstore.document(path, default=[1], autosave=True)
    taken = []
    try:
        while True:
            taken.append(os.open("/dev/null", os.O_RDONLY))
    except OSError as error:
        assert error.errno == errno.EMFILE
    try:
        with pytest.raises(OSError) as caught:
            richstore.document(path)
        assert caught.value.errno == errno.EMFILE
        # with none, then with one to spare at each step of the way
        failed = 0
        for _ in range(4):
            before = plain(document.value)
            try:
                document.value.append(2)
            except OSError as error:
                assert error.errno == errno.EMFILE
                assert document.value == before
                failed += 1
            os.close(taken.pop())
    finally:
        for fd in taken:
            os.close(fd)
    assert failed >= 2
    document.value.append(3)
    assert json.loads(path.read_text()) == document.value
    assert names(tmp_path) == {"state.json"}


# --- power loss ---

COUNT = 12

WRITER = """
import sys, richstore
from recording import acknowledge
path, count = sys.argv[1], int(sys.argv[2])
document = richstore.document(path, default={"n": 0, "pad": ""}, autosave=True)
acknowledge(0)
for n in range(1, count + 1):
    if n % 2:
        with document:
            document.value["pad"] = "x" * (n * 1777 % 9000)
            document.value["n"] = n
    else:
        document.value["n"] = n
    acknowledge(n)
"""


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> list[Event]:
    """What a process that changes a document has written, synced and named."""
    if compiler() is None:
        pytest.skip("the recorder of writes needs Linux and gcc")
    directory = tmp_path_factory.mktemp("document")
    library = build(tmp_path_factory.mktemp("recorder"))
    arguments = ["-c", WRITER, str(directory / "state.json"), str(COUNT)]
    found = record(library, directory, arguments)
    assert [event.place for event in found if event.kind == "A"] == list(range(COUNT + 1))
    return found


def check_power_losses(events: list[Event], rounds: int) -> int:
    """Let the power fail after each event, and look at what the document may hold then.

    Each commit writes another file. Of those that have had the name since the directory was synced
    last, each may have it, with any content that its own writes and syncs allow.
    """
    dice = random.Random(rounds)
    nothing = Event("-", 0, 0, b"")
    disks: dict[int, Disk] = {}
    holders: list[Disk | None] = [None]
    acknowledged = -1
    states = 0
    for event in events:
        if event.kind == "A":
            acknowledged = event.place
        elif event.kind == "D":
            holders = holders[-1:]
        else:
            # an inode may come again for another file
            if event.kind == "W" and event.place == 0:
                disks[event.inode] = Disk()
            disk = disks[event.inode]
            disk.do(event)
            if event.kind == "N":
                holders.append(disk)
        for holder in holders:
            for _ in range(rounds):
                states += 1
                if holder is None:
                    assert acknowledged < 0, "the file may be missing"
                    continue
                # that it may have no name is what the list of holders says
                holder.found = True
                content = holder.after_power_loss(nothing, dice)
                assert content, f"an empty file after change {acknowledged}"
                value = json.loads(content)
                assert acknowledged <= value["n"] <= acknowledged + 1, "a change is missing"
    return states


def test_after_a_power_loss(events: list[Event], request: pytest.FixtureRequest) -> None:
    """Whenever the power fails, the document has its old or its new value, and every change that
    was acknowledged.
    """
    rounds = 300 if request.config.getoption("--long") else 20
    assert check_power_losses(events, rounds) > 1000


def test_a_commit_is_written_synced_named_and_synced(events: list[Event]) -> None:
    """Each commit writes a file, syncs it, gives it its name, and syncs the directory."""
    kinds = "".join(event.kind for event in events)
    commits = kinds.split("A")
    assert commits.pop() == ""
    assert len(commits) == COUNT + 1
    for commit in commits:
        assert commit.strip("W") == "FND" and commit.startswith("W"), kinds


FAULTS: dict[str, Callable[[list[Event]], list[Event]]] = {
    "the file is not synced": lambda events: [e for e in events if e.kind != "F"],
    "the directory is not synced": lambda events: [e for e in events if e.kind != "D"],
    "the name is given before the sync": lambda events: _swapped(events, "FN"),
    "acknowledged before the sync": lambda events: _swapped(events, "DA"),
}


def _swapped(events: list[Event], kinds: str) -> list[Event]:
    """Exchange neighbours of two kinds."""
    order = list(events)
    for at in range(len(order) - 1):
        if order[at].kind + order[at + 1].kind == kinds:
            order[at], order[at + 1] = order[at + 1], order[at]
    return order


@pytest.mark.parametrize("fault", FAULTS)
def test_a_missing_sync_is_found(events: list[Event], fault: str) -> None:
    """The check finds a wrong state when syncs are taken out of the record, or come too late."""
    with pytest.raises((AssertionError, ValueError)):
        check_power_losses(FAULTS[fault](events), 20)
