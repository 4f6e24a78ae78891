"""The demonstration, run as a user runs it: a process of its own on real source files."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import richstore
from richstore.demo.contents import ABOUT, is_demo_store, package_key
from richstore.demo.index import (
    Package,
    describe,
    find_modules,
    module_name,
    standard_library,
)

PROJECT = Path(richstore.__file__).parent.parent
BROKEN = "def half_a_function(:\n"


def run_demo(*arguments: str | os.PathLike[str]) -> subprocess.CompletedProcess[str]:
    """Run the demo in a process of its own, with warnings as errors."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "richstore", "demo", *map(os.fspath, arguments)],
        cwd=PROJECT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Two packages of the standard library, one module beside them and one that is broken."""
    root = tmp_path / "source"
    for name in ("json", "email"):
        shutil.copytree(
            standard_library() / name, root / name, ignore=shutil.ignore_patterns("__pycache__")
        )
    shutil.copy(standard_library() / "bisect.py", root)
    (root / "broken.py").write_text(BROKEN)
    return root


@pytest.fixture
def finished(tmp_path: Path, source: Path) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A demo that ran on `source`, with the path of its store."""
    path = tmp_path / "demo.db"
    return path, run_demo(path, "--source", source)


def test_the_second_process_shows_old_and_new(
    finished: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    """The second process sees old values in its snapshot, new ones in the store, and rolls back."""
    _, done = finished
    assert done.returncode == 0, done.stderr
    line = r"{} +snapshot: {} +store: {}\n"
    for what, old, new in [
        ("last method", "'(?!added_)[^']*'", "'added_by_the_second_process'"),
        ("imports richstore", "False", "True"),
        ("reviewed", "False", "True"),
        ("notes", r"\{\}", r"\{'process \d+': \['looks good'\]\}"),
    ]:
        assert re.search(line.format(what, old, new), done.stdout), (what, done.stdout)
    assert re.search(r"in memory as before \([1-9]\d* classes\): yes\n", done.stdout)
    assert "in the store as before: yes\n" in done.stdout
    assert "on disk as before: yes\n" in done.stdout


def test_the_first_process_sees_the_changes_of_the_second(
    finished: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    """References held by the first process show what another process with its own id did."""
    _, done = finished
    first = re.search(
        r"This process \((\d+)\) holds a list in the store, (\d+) methods", done.stdout
    )
    second = re.search(r"second process \((\d+)\) opened", done.stdout)
    assert first and second, done.stdout
    assert first[1] != second[1]
    after = done.stdout.partition("Back in this process")[2]
    assert f"the list has {int(first[2]) + 1} methods, the last is 'added_by_the_second" in after
    assert f"reviewed=True, notes={{'process {second[1]}': ['looks good']}}" in after


def test_the_store_has_what_the_files_have(
    finished: tuple[Path, subprocess.CompletedProcess[str]], source: Path
) -> None:
    """Each module is stored as it was described, but for the changes of the second process."""
    path, _ = finished
    with richstore.open(path, "r") as store:
        names = {key for key in store if isinstance(key, str)}
        paths = {module_name(source, each): each for each in find_modules(source)}
        assert names == set(paths) - {"broken"}
        changed = set()
        for name in names:
            expected = describe(source, paths[name])
            stored = richstore.plain(store[name])
            assert type(stored["imports"]) is set
            if stored != expected:
                changed.add(name)
                assert stored["imports"] == expected["imports"] | {"richstore"}
                assert stored["doc"] == expected["doc"]
        assert len(changed) == 1

        package = store[package_key("json")]
        assert isinstance(package, Package)
        assert package.modules == sorted(name for name in names if name.startswith("json"))
        assert package.totals["bytes"] == sum(
            each.stat().st_size for each in (source / "json").glob("*.py")
        )
        assert package.reviewed is True
        assert not store[package_key("email")].reviewed


def test_a_file_that_does_not_parse_is_named(
    finished: tuple[Path, subprocess.CompletedProcess[str]], source: Path
) -> None:
    """A broken file is counted and named with the reason, in the output and in the store."""
    path, done = finished
    assert "1 files could not be parsed\n" in done.stdout
    assert f"{source / 'broken.py'}: SyntaxError: " in done.stdout
    with richstore.open(path, "r") as store:
        assert list(store[ABOUT]["unparsed"]) == [str(source / "broken.py")]
        assert "broken" not in store


def test_the_summary_counts_what_is_there(
    finished: tuple[Path, subprocess.CompletedProcess[str]], source: Path
) -> None:
    """Modules, classes and bytes of the summary are those of the files."""
    path, done = finished
    texts = [each.read_bytes() for each in find_modules(source) if each.name != "broken.py"]
    classes = sum(isinstance(node, ast.ClassDef) for text in texts for node in ast.parse(text).body)
    assert f"{len(texts):,} modules, 3 of them packages" in done.stdout
    assert f" {classes:,} classes," in done.stdout
    assert f"{sum(map(len, texts)):,} bytes of source in " in done.stdout
    size = re.search(r"([\d,]+) bytes in the file", done.stdout)
    assert size, done.stdout
    assert 0 < int(size[1].replace(",", "")) <= path.stat().st_size


def test_progress_without_a_terminal_is_a_few_lines(
    finished: tuple[Path, subprocess.CompletedProcess[str]], source: Path
) -> None:
    """Each step tells at most four plain lines on standard error when it is no terminal, up to
    its total.
    """
    _, done = finished
    total = len(find_modules(source))
    lines = done.stderr.splitlines()
    for unit in ("modules", "lines"):
        told = [line for line in lines if line.endswith(unit)]
        assert 1 <= len(told) <= 4
        done_of, of = told[-1].split()[0].split("/")
        assert done_of == of
        assert unit == "lines" or of == str(total)
    assert "\r" not in done.stderr


def test_it_runs_again_on_its_own_file(
    finished: tuple[Path, subprocess.CompletedProcess[str]], source: Path
) -> None:
    """A file of an earlier demo is emptied and filled anew."""
    path, first = finished
    again = run_demo(path, "--source", source)
    assert again.returncode == 0, again.stderr
    count = r"holds a list in the store, (\d+) methods"
    assert re.findall(count, again.stdout) == re.findall(count, first.stdout) != []


def test_it_leaves_other_files_alone(tmp_path: Path, source: Path) -> None:
    """A text file, a directory and a store of something else are refused and stay as they were."""
    text = tmp_path / "notes.txt"
    text.write_text("my notes\n" * 1000)
    folder = tmp_path / "folder"
    folder.mkdir()
    other = tmp_path / "other.db"
    with richstore.open(other) as store:
        store["mine"] = ["precious"]
    for path in (text, folder, other):
        assert not is_demo_store(path)
        refused = run_demo(path, "--source", source)
        assert refused.returncode == 2
        assert f"{path} exists and was not made by this demo" in refused.stderr
        assert "Traceback" not in refused.stderr
    assert text.read_text() == "my notes\n" * 1000
    assert list(folder.iterdir()) == []
    with richstore.open(other, "r") as store:
        assert store["mine"] == ["precious"]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["missing/demo.db"], "missing/demo.db"),
        (["--source", "missing"], "no Python modules in missing"),
    ],
)
def test_it_says_what_it_cannot_use(arguments: list[str], reason: str) -> None:
    """A directory that is missing ends the demo with one line that names it, not a traceback."""
    done = run_demo(*arguments)
    assert done.returncode != 0
    assert reason in done.stderr
    assert "Traceback" not in done.stderr


def test_the_whole_standard_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without arguments it indexes the running interpreter's library into a file that it names."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    done = run_demo()
    assert done.returncode == 0, done.stderr
    kept = re.search(r"^into (.+)$", done.stdout, re.MULTILINE)
    assert kept, done.stdout
    path = Path(kept[1])
    assert path.is_relative_to(tmp_path)
    with richstore.open(path, "r") as store:
        assert store["json"]["doc"] == json.__doc__.strip()
        assert "dumps" in store["json"]["functions"]
        assert "JSONDecoder" in store["json.decoder"]["classes"]
        assert {"json.decoder", "json.encoder"} <= store["json"]["imports"]
        assert len(list(store.keys(prefix="asyncio."))) > 20


def test_imports_are_absolute(tmp_path: Path) -> None:
    """Relative imports are resolved against the package, from modules and from `__init__`."""
    package = tmp_path / "top" / "inner"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("from . import a\nfrom .b import x\nfrom ..c import y\n")
    (package / "a.py").write_text("import os.path, sys\nfrom .b import x\nfrom .. import d\n")
    assert describe(tmp_path, package / "__init__.py")["imports"] == {
        "top.inner.a",
        "top.inner.b",
        "top.c",
    }
    assert describe(tmp_path, package / "a.py")["imports"] == {
        "os.path",
        "sys",
        "top.inner.b",
        "top.d",
    }
