"""The command line as a program: processes, signals, pipes and terminals."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import child_environment, run_python
from sample_classes import Bare

import richstore

PROGRAM = [sys.executable, "-W", "error", "-m", "richstore"]


@pytest.fixture
def store(path: str) -> Iterator[Any]:
    """An open store in a file, with a value."""
    with richstore.open(path, synchronous="off") as made:
        made["log"] = ["first"]
        yield made


def start(*words: str, **options: Any) -> subprocess.Popen[str]:
    """Start a command; its output and errors are pipes."""
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options}
    return subprocess.Popen([*PROGRAM, *words], env=child_environment(), **options)


def run(*words: str, given: str = "") -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [*PROGRAM, *words],
        env=child_environment(),
        input=given,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@contextmanager
def watching(*words: str) -> Iterator[subprocess.Popen[str]]:
    """Give a `watch` that has begun."""
    with start("watch", "--interval", "0.02", *words) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().startswith("Watching")
            yield process
        finally:
            process.kill()


def test_watch_tells_what_others_commit(store: Any, path: str) -> None:
    """`watch` prints each change of another process with its path, and ends after so many."""
    with watching("-s", path, "-n", "4") as process:
        assert process.stdout is not None
        store["log"].append("second")
        assert "log[1] = 'second'" in process.stdout.readline()
        store["new"] = {"a": 1}
        assert "new = {'a': 1}" in process.stdout.readline()
        store["new"]["a"] = 2
        assert "new.a = 2  (was 1)" in process.stdout.readline()
        del store["log"]
        assert "log  deleted" in process.stdout.readline()
        assert process.wait(60) == 0


def test_watch_a_path_in_a_group(store: Any, path: str) -> None:
    """`watch` of a path says nothing of other values, and waits for what is not there yet."""
    with watching("users.ann", "-g", "eu", "-s", path, "-n", "2") as process:
        assert process.stdout is not None
        store["users"] = {"ann": 1}
        users = store.group("eu")
        with store.transaction():
            users["users"] = {"ann": [1], "bob": 1}
        assert "users.ann = [1]" in process.stdout.readline()
        users["users"]["bob"] = 2
        users["users"]["ann"].append(2)
        assert "users.ann[1] = 2" in process.stdout.readline()
        assert process.wait(60) == 0


def test_ctrl_c(store: Any, path: str) -> None:
    """Ctrl-C ends a command with 130 and one line."""
    with watching("-s", path) as process:
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        assert process.stderr is not None
        assert process.stderr.read().strip().startswith("Interrupted.")


def test_while_another_writes(store: Any, path: str) -> None:
    """A command waits for the writer before it, until its --timeout or Ctrl-C ends it."""
    code = "import sys, richstore\nwith richstore.open(sys.argv[1]) as s, s.transaction():\n"
    code += "    print('in', flush=True)\n    sys.stdin.read()"
    words = [sys.executable, "-c", code, path]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(words, env=child_environment(), **pipes) as writer:
        assert writer.stdout is not None and writer.stdin is not None
        assert writer.stdout.readline() == "in\n"
        done = run("set", "new", "1", "-s", path, "--timeout", "0.01")
        assert done.returncode == 3 and "another" in done.stderr
        code = "import signal, sys, richstore.__main__ as m, richstore.cli.target as t\n"
        code += "usual = t.Target.open\n"
        code += "def said(*a, **o):\n    print('opening', flush=True)\n    return usual(*a, **o)\n"
        code += "t.Target.open = said\nm.main()"
        with subprocess.Popen(
            [sys.executable, "-c", code, "set", "new", "1", "-s", path],
            env=child_environment(),
            stderr=subprocess.PIPE,
            **{**pipes, "stdin": subprocess.DEVNULL},
        ) as process:
            assert process.stdout is not None and process.stderr is not None
            assert process.stdout.readline() == "opening\n"
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 130
            assert "Traceback" not in process.stderr.read()
        writer.stdin.close()
    assert "new" not in store


def test_a_closed_pipe(store: Any, path: str) -> None:
    """A command whose reader goes away, as `head` does, ends without a word."""
    store["big"] = list(range(20_000))
    with start("tree", "--items", "20000", "-s", path) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline().startswith("big")
        process.stdout.close()
        assert process.wait(60) == 141
        assert process.stderr.read() == ""


def test_shell(store: Any, path: str) -> None:
    """`shell` runs Python with the store and the group open; a change is on the disk."""
    script = "store['log'].append('from the shell')\ngroup['ann'] = [1]\nprint(richstore, 1 + 1)\n"
    done = run("shell", "-s", path, "-g", "users", given=script)
    assert done.returncode == 0, done.stderr
    assert "<module 'richstore'" in done.stdout
    assert store["log"] == ["first", "from the shell"]
    assert store.group("users")["ann"] == [1]
    done = run("shell", "-r", "-s", path, given="store['log'].append(1)\nexit(3)\n")
    assert "ReadOnlyError" in done.stderr
    assert done.returncode == 3


def test_the_program(store: Any, path: str, tmp_path: Path) -> None:
    """The entry point of the package is the same command line; its name is in its help."""
    code = "import sys\nfrom richstore.__main__ import main\nsys.argv[0] = 'richstore'\nmain()"
    done = run_python(code, "get", "log[0]", "-s", path)
    assert (done.returncode, done.stdout) == (0, "first\n")
    assert run_python(code, "--help").stdout.startswith("Usage: richstore ")
    configuration = (Path(richstore.__file__).parent.parent / "pyproject.toml").read_text()
    assert 'richstore = "richstore.__main__:main"' in configuration


@pytest.mark.parametrize("missing", [("click",), ("rich", "platformdirs", "keyring")])
def test_without_the_extra(store: Any, path: str, missing: tuple[str, ...]) -> None:
    """Without the extra the program says what to install; the other packages wait for their use."""
    code = (
        f"import sys\nsys.modules |= dict.fromkeys({missing!r})\nimport richstore.__main__ as m\n"
    )
    done = run_python(code + "sys.exit(m.main())", "get", "log[0]", "-s", path)
    if "click" in missing:
        assert done.returncode == 2
        assert done.stderr == (
            "richstore: the command line needs the package click: pip install 'richstore[cli]'\n"
        )
    else:
        assert (done.returncode, done.stdout) == (0, "first\n")


def test_check_runs_in_a_process_of_its_own(store: Any, path: str) -> None:
    """`check` and `salvage` tell what their processes found, also with names like options."""
    done = run("check", path)
    assert done.returncode == 0 and "no problems; 1 values" in done.stdout
    place = Path(path).parent
    store["day"] = Bare()
    done = run("salvage", "-s", path, "--classes", "none", "--", str(place / "-new.db"))
    assert done.returncode == 1 and "1 values kept, 0 kept in part, 1 lost" in done.stdout
    with richstore.open(place / "-new.db", "r") as saved:
        assert saved["log"] == ["first"]


# --- terminals ---


def on_terminal(*words: str) -> tuple[int, str]:
    """Run a command on a terminal; return its exit code and all that was shown."""
    ours, theirs = pty.openpty()
    environment = {**child_environment(), "TERM": "xterm", "COLUMNS": "100"}
    with subprocess.Popen(
        [*PROGRAM, *words], env=environment, stdin=theirs, stdout=theirs, stderr=theirs
    ) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                piece = os.read(ours, 65536)
            except OSError:  # how Linux says that all have closed it
                break
            if not piece:
                break
            shown += piece
        os.close(ours)
        code = process.wait(60)
    return code, shown.decode()


def bare(shown: str) -> str:
    """Return what was shown less what steers the terminal."""
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown)


EVIL = "\x1b]0;owned\x07\x1b[2J"


def steers(shown: str) -> bool:
    """Tell whether any of the evil text has reached the terminal."""
    return "\x1b]" in shown or "\x07" in shown or "\x1b[2J" in shown


def test_tables_on_a_terminal(store: Any, path: str) -> None:
    """On a terminal `ls` is a table, in which brackets are brackets, and nothing steers it."""
    store["[red]x"] = "[bold]"
    store[EVIL] = [EVIL]
    code, shown = on_terminal("ls", "-s", path)
    assert code == 0
    assert "kind" in bare(shown) and "list of 1" in bare(shown)
    assert '["[red]x"]' in bare(shown) and "'[bold]'" in bare(shown)
    assert "owned" in shown and not steers(shown)


def test_a_text_does_not_steer_a_terminal(store: Any, path: str) -> None:
    """Control characters of a text reach no terminal; a pipe gets the text as it is."""
    store["text"] = EVIL
    code, shown = on_terminal("get", "text", "-s", path)
    assert code == 0
    assert "owned" in shown and not steers(shown)
    assert run("get", "text", "-s", path).stdout == EVIL + "\n"


def test_progress_on_a_terminal(store: Any, path: str) -> None:
    """Long commands show a bar on a terminal, which is gone in the end, and else nothing."""
    for words in (["check", "--here"], ["backup", f"{path}.copy"]):
        code, shown = on_terminal(*words, "-s", path)
        assert code == 0, shown
        assert "━" in shown
        # shown again, in case it had been hidden
        assert shown.count("\x1b[?25h") >= shown.count("\x1b[?25l") > 0
    assert run("backup", f"{path}.other", "-s", path).stderr == ""


def test_a_pipe_gets_the_output_of_a_command_with_a_bar(store: Any, path: str) -> None:
    """With a bar on the terminal of standard error, standard output goes where it is to go."""
    ours, theirs = pty.openpty()
    try:
        with start("find", "first", "--json", "-s", path, stderr=theirs) as process:
            assert process.stdout is not None
            found = json.loads(process.stdout.read())
            assert process.wait(60) == 0
    finally:
        os.close(theirs)
        os.close(ours)
    assert [row["path"] for row in found] == ["log[0]"]
