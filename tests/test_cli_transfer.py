"""The commands `export`, `import` and `convert`; what they do is tested with the library."""

from __future__ import annotations

import json
import shelve
from collections.abc import Callable
from pathlib import Path

import pytest
import sample_classes
from click.testing import CliRunner, Result
from files_of_others.make import KEY

import richstore
from richstore.cli.main import cli

FILES = Path(__file__).parent / "files_of_others"
Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command in an empty folder, on the store `shop.db` unless it names one."""
    monkeypatch.chdir(tmp_path)

    def invoke(*words: str, input: bytes | None = None, code: int = 0) -> Result:
        store = [] if "-s" in words else ["-s", "shop.db"]
        done = CliRunner().invoke(cli, [*words, *store], input=input)
        assert done.exit_code == code, done.output
        return done

    return invoke


def test_there_and_back(run: Run) -> None:
    """What `export` writes to a file or to standard output, `import` reads from either."""
    with richstore.open("shop.db") as store:
        store["shops"] = ["shop1", (1, {2})]
        store.group("users").group("old")["ann", 7] = {1: b"x"}
    assert run("export", "shop.jsonl").output == "shop.jsonl: 2 items\n"
    text = run("export", "-").stdout_bytes
    assert text == Path("shop.jsonl").read_bytes()
    assert run("import", "shop.jsonl", "-s", "file.db").output == "file.db: 2 items\n"
    run("import", "-s", "input.db", input=text)
    for name in ("file.db", "input.db"):
        with richstore.open(name) as copy:
            assert copy.copy() == {"shops": ["shop1", (1, {2})]}
            assert copy.group("users").group("old").copy() == {("ann", 7): {1: b"x"}}


def test_groups_and_json(run: Run) -> None:
    """A group is exported alone, and imported into any other; the suffix says the format."""
    with richstore.open("shop.db") as store:
        store.group("users")["ann"] = {"age": 41}
    run("export", "users.json", "-g", "users")
    assert json.loads(Path("users.json").read_text()) == {"ann": {"age": 41}}
    run("import", "users.json", "-g", "copies/users", "--atomic")
    assert "at .group('copies')" in run("export", "all.json", code=3).output
    run("export", "all.json", "--lossy")
    assert json.loads(Path("all.json").read_text())["copies"] == {"users": {"ann": {"age": 41}}}
    assert "is there already" in run("export", "all.json", "--lossy", code=3).output
    run("export", "all.json", "--lossy", "--replace")
    run("import", "--format", "json", "--replace", input=b'{"a": 1}')
    with richstore.open("shop.db") as store:
        assert store.copy() == {"a": 1} and store.groups() == []


def test_classes(run: Run) -> None:
    """`--classes` says what a file may name; by default it is what `open` would trust."""
    with richstore.open("shop.db") as store:
        store["ann"] = sample_classes.Account("ann")
    run("export", "out.jsonl")
    path = Path("out.jsonl")
    path.chmod(0o666)
    assert "everybody can write it" in run("import", "out.jsonl", code=3).output
    assert "Account is not among" in run("import", code=3, input=path.read_bytes()).output
    assert "Account is not" in run("export", "--classes", "none", code=3).output
    for names in (["any"], ["sample_classes"], ["other", "sample_classes.Account"]):
        options = [word for name in names for word in ("--classes", name)]
        run("import", "out.jsonl", *options)
    assert run("import", "out.jsonl", "--classes", "sample_classes.Acc", code=3)
    assert "stand alone" in run("import", "--classes", "any", "--classes", "a", code=2).output


def test_convert(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of others are recognised, or named with `--from`; keys come from the environment."""
    with shelve.open("old") as shelf:
        shelf["a"] = (1,)
    assert run("convert", "old").output == "shop.db: 1 items from shelve\n"
    monkeypatch.setenv("RICHSTORE_SOURCE_KEY", KEY.decode())
    run("convert", str(FILES / "secure"), "--from", "saved_instance", "-g", "secure")
    with richstore.open("shop.db") as store:
        assert store.copy() == {"a": (1,)}
        assert store.group("secure").copy() == {"msg": "Hi", "numbers": [1, 2]}
    monkeypatch.delenv("RICHSTORE_SOURCE_KEY")
    said = run("convert", str(FILES / "secure"), "--from", "saved_instance").output
    assert "look encrypted, and stay so without a key: 2\n" in said


def test_mistakes(run: Run) -> None:
    """A user's mistake is one line, without a traceback, and an exit code."""
    Path("text").write_text("hello")
    for words in (
        ("import", "missing.jsonl"),
        ("import", "text"),
        ("convert", "missing"),
        ("convert", "text"),
        ("convert", "text", "--from", "zodb"),
        ("export", "-s", "missing.db"),
        ("export", "no/folder.jsonl"),
    ):
        said = run(*words, code=3).output
        assert said.startswith("richstore: ") and said.count("\n") == 1, said
    run("export", "-g", "missing", code=1)
    run("convert", "text", "--from", "pickles", code=2)
