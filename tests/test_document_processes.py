"""Documents in files, and several processes: killed, suspended, or all at once.

`document_hunt` has the writers, and the faults that its checks are shown.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import HERE, child_environment

import richstore

HUNT = str(Path(HERE) / "document_hunt.py")


def hunt(directory: Path, mode: str, number: int, fault: str = "none") -> dict[str, int] | str:
    """Run the hunt; return what it saw, or what it says is wrong."""
    done = subprocess.run(
        [sys.executable, HUNT, mode, str(directory), fault, str(number)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        env=child_environment(),
    )
    if done.returncode == 0:
        seen: dict[str, int] = json.loads(done.stdout)
        return seen
    return done.stderr[-2000:]


@pytest.mark.timeout(0)
def test_killed_at_any_moment(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """After kill -9 there is the old or the new value, with all that was acknowledged, and the next
    writer clears up.
    """
    rounds = 200 if request.config.getoption("--long") else 40
    seen = hunt(tmp_path, "kill", rounds)
    assert isinstance(seen, dict), seen
    assert seen["changes"] >= rounds


@pytest.mark.timeout(0)
def test_killed_at_every_line(tmp_path: Path) -> None:
    """A writer that is killed at any line of `files` leaves the old or the new value."""
    seen = hunt(tmp_path, "lines", 1)
    assert isinstance(seen, dict), seen
    assert seen["lines"] > 40 and seen["leftovers"] > 5


@pytest.mark.parametrize(
    ("fault", "mode", "number", "found"),
    [
        ("in place", "kill", 40, "JSONDecodeError"),
        ("two steps", "kill", 40, "a block by half"),
        ("acknowledged too early", "kill", 40, "an acknowledged change is missing"),
        ("leftovers stay", "lines", 1, "litter"),
        ("no lock", "appends", 20, "a writer failed|lost updates"),
    ],
)
def test_a_planted_fault_is_found(
    tmp_path: Path, fault: str, mode: str, number: int, found: str
) -> None:
    """The hunt finds each fault that is planted in it."""
    said = hunt(tmp_path, mode, number, fault)
    assert isinstance(said, str), said
    assert any(one in said for one in found.split("|")), said


@pytest.mark.timeout(0)
def test_eight_processes_lose_nothing(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Eight processes that append 100 times each leave 800 items, by single changes and blocks."""
    each = 100 if request.config.getoption("--long") else 25
    seen = hunt(tmp_path, "appends", each)
    assert seen == {"changes": 16 * each}


HOLDER = """
import sys, richstore
with richstore.document(sys.argv[1], default=[]) as document:
    document.value.append("never")
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def holder(path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that is inside a block."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=child_environment(),
    )
    with process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def test_who_dies_with_the_lock_does_not_block(tmp_path: Path) -> None:
    """After a process was killed inside a block, the next one writes at once."""
    path = tmp_path / "log.json"
    with holder(path) as process:
        process.kill()
        process.wait()
        began = time.monotonic()
        with richstore.document(path, default=[], timeout=60) as document:
            document.value.append("mine")
        assert time.monotonic() - began < 30
    assert json.loads(path.read_text()) == ["mine"]


@pytest.mark.parametrize("way", ["block", "single change", "commit", "update", "delete"])
def test_who_has_the_lock_and_does_not_end(tmp_path: Path, way: str) -> None:
    """Whatever wants to write while a suspended process is inside a block ends in time."""
    path = tmp_path / "log.json"
    path.write_text('["first"]')
    with holder(path) as process:
        os.kill(process.pid, signal.SIGSTOP)
        document = richstore.document(path, timeout=0.2)
        if way == "commit":
            document.value.append("mine")
        if way == "single change":
            document.autosave = True
        before = richstore.plain(document.value)
        began = time.monotonic()
        with pytest.raises(
            richstore.LockTimeoutError, match=r"log\.json locked for more than 0\.2"
        ):
            if way == "block":
                with document:
                    raise AssertionError("the block was entered")
            elif way == "single change":
                document.value.append("mine")
            elif way == "commit":
                document.commit()
            elif way == "update":
                document.update(lambda value: value.append("mine"))
            else:
                document.delete()
        assert 0.2 <= time.monotonic() - began < 30
        assert document.value == before
        assert json.loads(path.read_text()) == ["first"]
        process.kill()
        process.wait()
        with document:
            document.value.append("later")
    assert json.loads(path.read_text()) == [*before, "later"]


FORKS = """
import os, sys, richstore
document = richstore.document(sys.argv[1], default=[], timeout=5)
with document:
    document.value.append("parent")
    pid = os.fork()
    if pid == 0:
        if sys.argv[2] == "exit":
            sys.exit(0)
        os._exit(0)
    os.waitpid(pid, 0)
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("end", ["exit", "_exit"])
def test_a_child_of_the_holder_gives_nothing_away(tmp_path: Path, end: str) -> None:
    """A forked child that ends while its parent is inside a block does not release the lock, and
    writes nothing.
    """
    path = tmp_path / "log.json"
    path.write_text("[]")
    process = subprocess.Popen(
        [sys.executable, "-c", FORKS, str(path), end],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=child_environment(),
    )
    with process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        with pytest.raises(richstore.LockTimeoutError):
            richstore.document(path, timeout=0.1, data=["mine"], autosave=True)
        assert path.read_text() == "[]"
        process.communicate("")
    assert process.returncode == 0
    assert json.loads(path.read_text()) == ["parent"]
