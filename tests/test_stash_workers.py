"""Stashes that several processes fill: what is made, what fails, and what is killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import stash_factories as factories
from conftest import child_environment

import richstore
from richstore.stash import DirectoryStash, MultiProcessStash, OneShotFactoryStash


@pytest.fixture(autouse=True)
def _quick_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let workers not import pytest, which they would as the main module of this process."""
    monkeypatch.setitem(sys.modules, "__main__", ModuleType("__main__"))


def wait_until(condition: Any) -> None:
    """Wait for what will happen, for a long time if need be."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def is_running(pid: int) -> bool:
    """Tell whether a process is there, other than as a zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_what_is_missing_is_made(tmp_path: Path) -> None:
    """The first use fills what is missing, by several processes, once, and tells how far it is."""
    steps: list[tuple[int, int]] = []
    with richstore.open(str(tmp_path / "test.db"), synchronous="off") as store:
        group = store.group("made")
        group["kept"] = "by hand"
        keys = ["kept", "a", "interrupt", "none", "a"]
        stash = MultiProcessStash(
            group, factories.by_name, keys, workers=2, progress=lambda *step: steps.append(step)
        )
        assert len(group) == 1
        got: list[Any] = []
        threads = [threading.Thread(target=lambda: got.append("a" in stash)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert got == [True] * 3
        assert dict(stash) == {
            "kept": "by hand",
            "a": ["a"],
            "interrupt": ["interrupt"],
            "none": None,
        }
        assert dict(group) == dict(stash) and stash.failures == {}
        assert steps == [(2, 4), (3, 4), (4, 4)]
        # complete: no process is started, and no factory sent
        again = MultiProcessStash(group, lambda key: 1 / 0, iter(keys))
        assert again["a"] == ["a"] and len(again) == 4
        stash["a"].append("live")
        assert group["a"] == ["a", "live"]
    assert multiprocessing.active_children() == []


FAILING = ["error-1", "awkward", "exit", "die", "kill", "lambda", "unloadable", "set"]


def test_failures_are_kept_apart(tmp_path: Path) -> None:
    """Whatever becomes of single keys, the others are made, and each error is told with its key."""
    stash = DirectoryStash(tmp_path, format="json")
    keys = ["a", *FAILING, "b", "c"]
    filled = MultiProcessStash(stash, factories.by_name, keys, workers=1)
    with pytest.raises(richstore.FillError, match="8 of 11 keys could not be made") as caught:
        len(filled)
    assert dict(stash) == {"a": ["a"], "b": ["b"], "c": ["c"]}
    failures = caught.value.failures
    assert failures == filled.failures and sorted(failures) == sorted(FAILING)
    assert type(failures["error-1"]) is ValueError and str(failures["error-1"]) == "no error-1"
    assert "stash_factories.py" in "".join(failures["error-1"].__notes__)
    assert str(failures["awkward"]) == "Awkward: one and two"
    assert type(failures["exit"]) is SystemExit
    assert str(failures["die"]).startswith("the worker process ended (exit code 3) while it was at")
    assert str(failures["kill"]) == (
        "the worker process was killed (SIGKILL) while it was at the key 'kill'"
    )
    assert type(failures["unloadable"]) is ImportError
    # made, and refused by what should keep it
    assert type(failures["set"]) is richstore.EncodingError
    # the stash has what there is, and tries again when it is told to
    assert dict(filled) == dict(stash) and "kill" not in filled
    assert filled.get("kill", 5) == 5
    stash.update(dict.fromkeys(FAILING[1:]))
    with pytest.raises(
        richstore.FillError, match=r"1 of 11 keys .*'error-1': ValueError: no error"
    ):
        filled.fill()
    stash["error-1"] = "by hand"
    filled.fill()
    assert filled.failures == {} and len(filled) == 11
    assert multiprocessing.active_children() == []


def test_a_worker_whose_child_outlives_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that is killed is noticed though its own child keeps its pipe open."""
    monkeypatch.chdir(tmp_path)
    below: dict[str, Any] = {}
    with pytest.raises(richstore.FillError, match="was killed") as caught:
        MultiProcessStash(below, factories.by_name, ["orphan", "a"], workers=1).prime()
    assert list(caught.value.failures) == ["orphan"] and below == {"a": ["a"]}
    orphan = int((tmp_path / "orphan").read_text())
    assert is_running(orphan)
    os.kill(orphan, signal.SIGKILL)


def test_what_cannot_be_sent() -> None:
    """A factory that cannot go to other processes is told at once, before any key is tried."""
    for keys in (["a"], lambda: iter(["a"])):
        stash = MultiProcessStash({}, lambda key: key, keys)  # type: ignore[arg-type]
        for _ in range(2):
            with pytest.raises(TypeError, match="the factory cannot be sent to other processes"):
                stash["a"]
    with pytest.raises(richstore.FillError, match=r"could not be loaded .*not to be loaded"):
        MultiProcessStash({}, factories.Unloadable(), ["a"], workers=1).prime()
    with pytest.raises(TypeError, match="give keys="):
        MultiProcessStash({}, len)
    with pytest.raises(TypeError, match="factory must be a function"):
        MultiProcessStash({}, 5, [])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="workers is 0"):
        MultiProcessStash({}, len, [], workers=0)


def test_an_interrupted_fill_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was made before an interruption is kept, no worker stays, the next use goes on."""
    monkeypatch.chdir(tmp_path)
    pids: list[Any] = []

    def interrupt(done: int, total: int) -> None:
        pids.append(stash.delegate[done])
        if done == 2:
            raise KeyboardInterrupt

    stash = MultiProcessStash({}, factories.pid, [1, 2, 3], workers=1, progress=interrupt)
    with pytest.raises(KeyboardInterrupt):
        list(stash)
    assert list(stash.delegate) == [1, 2]
    # it was waiting for the file
    assert not is_running(pids[0])
    (tmp_path / "go").touch()
    with pytest.raises(KeyError):
        stash["x"]
    assert list(stash) == [1, 2, 3] and stash[3] != stash[1]


SCRIPT = """
import richstore
from richstore.stash import DirectoryStash, MultiProcessStash


def double(key):
    return 2 * key


def main():
    stash = MultiProcessStash(DirectoryStash("files"), double, ["a", "b"], workers=1)
    try:
        print(dict(sorted(stash.items())))
    except richstore.FillError as error:
        print(error)


GUARDmain()
"""


@pytest.mark.parametrize("guarded", [True, False])
def test_scripts(tmp_path: Path, guarded: bool) -> None:
    """A script may have the factory itself; without its guard it is told so, and does not hang."""
    script = tmp_path / "script.py"
    guard = 'if __name__ == "__main__":\n    ' if guarded else ""
    script.write_text(SCRIPT.replace("GUARD", guard))
    done = subprocess.run(
        [sys.executable, script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env=child_environment(),
    )
    if guarded:
        assert done.stdout == "{'a': 'aa', 'b': 'bb'}\n" and done.stderr == ""
    else:
        assert "before it began" in done.stdout and "__name__ == '__main__'" in done.stdout


PARENT = """
import stash_factories
from richstore.stash import MultiProcessStash
if __name__ == "__main__":
    MultiProcessStash({}, stash_factories.wait_for_file, ["a", "b"], workers=2).prime()
"""


def test_workers_of_a_parent_that_is_killed(tmp_path: Path) -> None:
    """When the process that fills a stash is killed, its workers end with the key they are at."""
    (tmp_path / "parent.py").write_text(PARENT)
    with subprocess.Popen(
        [sys.executable, "parent.py"], cwd=tmp_path, env=child_environment()
    ) as parent:
        wait_until(lambda: len([*tmp_path.glob("[ab].[0-9]*")]) == 2)
        workers = [int(path.suffix[1:]) for path in tmp_path.glob("[ab].[0-9]*")]
        assert all(map(is_running, workers))
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    for key in "ab":
        (tmp_path / f"{key}.go").touch()
    wait_until(lambda: not any(map(is_running, workers)))


FILLER = """
import os, sys
import richstore
from richstore.stash import OneShotFactoryStash

def worker():
    for number in range(50):
        if number == 25 and sys.argv[2] == "die":
            os.kill(os.getpid(), 9)
        yield number, os.getpid()

with richstore.open(sys.argv[1], synchronous="off") as store:
    print(len(set(OneShotFactoryStash(store.group("made"), worker).values())))
"""


def test_processes_that_fill_one_store(tmp_path: Path) -> None:
    """A process that is killed while it fills a store leaves nothing; of several, one fills it."""
    path = str(tmp_path / "test.db")

    def start(how: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-c", FILLER, path, how],
            stdout=subprocess.PIPE,
            env=child_environment(),
        )

    with start("die") as killed:
        assert killed.wait(60) == -signal.SIGKILL
    with richstore.open(path) as store:
        assert store.groups() == []
    processes = [start("live") for _ in range(2)]
    assert [process.communicate(timeout=60)[0] for process in processes] == [b"1\n"] * 2
    with richstore.open(path) as store:
        made = OneShotFactoryStash(store.group("made"), [])
        assert len(made) == 50 and len(set(made.values())) == 1
        assert made[0] in [process.pid for process in processes] and made[0] != os.getpid()
