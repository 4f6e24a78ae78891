"""Helpers for tests of classes that change: modules written anew, and processes with them."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

from conftest import child_environment


class Versions:
    """A directory of modules, a store, and processes that have the modules as they are then.

    Args:
        directory: where both are to be.
    """

    def __init__(self, directory: Path) -> None:
        self.modules = directory / "modules"
        self.modules.mkdir()
        self.store = directory / "store"

    def write(self, name: str, source: str) -> None:
        """Write a module, or write it anew: `app.models` is `app/models.py`."""
        *packages, module = name.split(".")
        place = self.modules
        for package in packages:
            place /= package
            place.mkdir(exist_ok=True)
            (place / "__init__.py").touch()
        (place / f"{module}.py").write_text(textwrap.dedent(source))

    def remove(self, name: str) -> None:
        """Remove a module."""
        (self.modules / (name.replace(".", "/") + ".py")).unlink()

    def environment(self) -> dict[str, str]:
        """Return the environment of the processes: nothing of a module is cached."""
        found = child_environment()
        paths = os.pathsep.join((str(self.modules), found["PYTHONPATH"]))
        return {**found, "PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1"}

    def command(self, code: str) -> list[str]:
        """Return the command that runs code with the store open as `store`."""
        beginning = (
            "import sys, richstore\n"
            "store = richstore.open(sys.argv[1], synchronous='off')\n"
            "with store:\n"
        )
        source = beginning + textwrap.indent(textwrap.dedent(code), "    ")
        return [sys.executable, "-W", "error", "-c", source, str(self.store)]

    def run(self, code: str) -> str:
        """Run code in a new process with the store open as `store`; return what it prints."""
        done = subprocess.run(
            self.command(code),
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def start(self, code: str) -> subprocess.Popen[Any]:
        """Start such a process, whose output can be read."""
        return subprocess.Popen(
            self.command(code),
            env=self.environment(),
            stdout=subprocess.PIPE,
            stdin=subprocess.PIPE,
            text=True,
        )
