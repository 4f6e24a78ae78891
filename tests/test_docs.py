"""Every Python example in the README and the documentation is run, and the pages build.

The `python` blocks of a page run one after the other in one namespace, in an empty directory, with
that namespace as `__main__`: as for a reader who types them in.
"""

from __future__ import annotations

import contextlib
import doctest
import io
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest
from document_places import KEYS, client

import richstore
from richstore.remembered import places

PROJECT = Path(__file__).parent.parent
PAGES = [
    PROJECT / "README.md",
    *sorted(path for path in (PROJECT / "docs").rglob("*.md") if "_build" not in path.parts),
]
OPTIONS = doctest.ELLIPSIS


class Block(NamedTuple):
    """A fenced block: its text, and the number of its first line in the page."""

    text: str
    line: int


def blocks(page: Path, language: str) -> Iterator[Block]:
    """Yield the fenced blocks of `language` in `page`."""
    text = page.read_text(encoding="utf-8")
    for found in re.finditer(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        yield Block(found[1], text.count("\n", 0, found.start(1)) + 1)


def run_block(page: Path, block: Block, module: ModuleType) -> str:
    """Run one example in the namespace of `module` and return what went wrong."""
    if ">>>" not in block.text:
        source = "\n" * (block.line - 1) + block.text
        exec(compile(source, str(page), "exec"), module.__dict__)
        return ""
    test = doctest.DocTestParser().get_doctest(block.text, {}, page.name, str(page), block.line - 1)
    test.globs = module.__dict__
    report = io.StringIO()
    doctest.DocTestRunner(verbose=False, optionflags=OPTIONS).run(
        test, out=report.write, clear_globs=False
    )
    return report.getvalue()


WITH_EXAMPLES = [page for page in PAGES if any(blocks(page, "python"))]


@pytest.fixture
def bucket(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty bucket `bucket` on an S3 server that is found by the environment."""
    where = {"LocationConstraint": KEYS["region"]}
    client(s3_server).create_bucket(Bucket="bucket", CreateBucketConfiguration=where)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server)
    for name, value in KEYS.items():
        monkeypatch.setenv(f"AWS_{name.upper()}", value)
    yield
    for found in client(s3_server).list_objects(Bucket="bucket").get("Contents", ()):
        client(s3_server).delete_object(Bucket="bucket", Key=found["Key"])
    client(s3_server).delete_bucket(Bucket="bucket")


@pytest.mark.parametrize("page", WITH_EXAMPLES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_examples_run(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """Each example of the page runs and shows what the page says."""
    if any("s3://" in block.text for block in blocks(page, "python")):
        request.getfixturevalue("bucket")
    monkeypatch.chdir(tmp_path)
    module = ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", module)
    try:
        for block in blocks(page, "python"):
            with contextlib.redirect_stdout(io.StringIO()):
                report = run_block(page, block, module)
            if report:
                for value in vars(module).values():
                    if isinstance(value, richstore.Store):
                        value.close()  # or the warning about it would hide what is wrong
            assert not report, report
    finally:
        for store in list(places._opened.values()):
            store.close()  # as the end of the program does
        places._opened.clear()


def test_the_readme_shows_what_it_prints(tmp_path: Path) -> None:
    """The example that opens the README, run as a script of its own, prints what it stored."""
    example = next(blocks(PROJECT / "README.md", "python"))
    script = tmp_path / "example.py"
    script.write_text(example.text)
    for _ in range(2):  # the second time on the file of the first
        done = subprocess.run(
            [sys.executable, "-W", "error", script],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(PROJECT)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout == (
            "['shop2', 'shop3'] {'theme': {'dark': True, 'accent': 'teal', 'fonts': ['Inter']}}\n"
        )
        assert done.stderr == ""
    assert {path.name for path in tmp_path.iterdir()} == {"example.py", "shop.db", "shop.db-lock"}


def test_there_are_examples() -> None:
    """The README, the tutorial and the guides have examples, so that the above is not void."""
    names = {page.name for page in WITH_EXAMPLES}
    assert {"README.md", "tutorial.md", "index.md"} <= names
    assert len([page for page in WITH_EXAMPLES if page.parent.name == "howto"]) >= 6


def test_the_readme_has_two_commands() -> None:
    """The README has exactly two commands, one for the demo and one for the tests."""
    commands = [block.text.strip() for block in blocks(PROJECT / "README.md", "console")]
    assert len(commands) == 2
    demo, tests = commands
    assert "\n" not in demo and demo.endswith(" -m richstore demo")
    assert "\n" not in tests and tests.endswith(" -m pytest -q")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_links_lead_somewhere(page: Path) -> None:
    """Each relative link of a page names a file that is there."""
    for target in re.findall(r"\]\((?!https?:)([^)#\s]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).is_file(), target


def test_the_pages_build(tmp_path: Path) -> None:
    """Sphinx builds all pages without a warning."""
    for needed in ("sphinx", "myst_parser", "furo"):
        pytest.importorskip(needed, reason="the extra `docs` is not installed")
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q"]
        + ["-d", tmp_path / "doctrees", PROJECT / "docs", tmp_path / "html"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "html" / "reference.html").is_file()
