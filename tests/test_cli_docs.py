"""What the pages on the command line show is what the commands print."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner
from test_docs import PROJECT, blocks

from richstore.cli.main import cli

PAGES = [PROJECT / "docs" / "howto" / f"{name}.md" for name in ("command-line", "projects")]


def ran(command: str) -> str:
    """Return what a command of a page prints, with what comes behind `||` when it fails."""
    words, _, otherwise = command.removeprefix("$ richstore ").partition(" || ")
    done = CliRunner().invoke(cli, shlex.split(words))
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    if done.exit_code and otherwise:
        echoed = shlex.split(otherwise)[1].replace("$?", str(done.exit_code))
        return f"{done.output}{echoed}\n"
    return done.output


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_console_examples(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each command of the page prints what the page shows below it; … stands for anything."""
    for name in ("STORE", "KEY", "PASSPHRASE"):
        monkeypatch.delenv(f"RICHSTORE_{name}", raising=False)
    monkeypatch.chdir(tmp_path)
    commands = 0
    for block in blocks(page, "console"):
        for part in re.split(r"^(?=\$ )", block.text, flags=re.MULTILINE):
            command, _, shown = part.partition("\n")
            if command.startswith("$ richstore "):
                commands += 1
                expected = ".*".join(map(re.escape, shown.split("…")))
                assert re.fullmatch(expected, ran(command), re.DOTALL), (command, ran(command))
    assert commands >= 2
