"""The command line: `python -m richstore COMMAND`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from richstore import commands as upkeep
from richstore.demo import first, second
from richstore.errors import RichStoreError

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status.

    Args:
        arguments: the words after `python -m richstore`; None takes those of this process.
    """
    parser = argparse.ArgumentParser(
        prog="python -m richstore",
        description="Plain Python values that persist themselves when they change.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    demo = commands.add_parser(
        "demo",
        help="index the standard library into a store and change it from a second process",
        description="Index the standard library of this interpreter into a store; then let a"
        " second process change it in place, roll back a transaction and read a snapshot.",
    )
    demo.add_argument(
        "path",
        nargs="?",
        type=Path,
        metavar="PATH",
        help="the file to fill: a new one, or one that this demo made, which is emptied first"
        " (default: a new temporary file, which is kept)",
    )
    demo.add_argument(
        "--source",
        type=Path,
        metavar="DIR",
        help="index the Python modules in this directory (default: the standard library)",
    )
    demo.add_argument("--second", action="store_true", help=argparse.SUPPRESS)
    _add_upkeep(commands)
    options = parser.parse_args(arguments)
    if options.command != "demo":
        return _run_upkeep(options)
    if options.second and options.path is None:
        demo.error("--second needs the PATH of a store that the demo made")

    try:
        if options.second:
            return second.run(options.path)
        return first.run(options.path, options.source)
    except KeyboardInterrupt:
        print("\nInterrupted. What was committed until now is in the file.", file=sys.stderr)
        return 130
    except OSError as error:
        print(f"richstore demo: {error}", file=sys.stderr)
        return 1


def _add_upkeep(commands: Any) -> None:
    check = commands.add_parser(
        "check", help="walk every record of a store and say what does not fit together"
    )
    check.add_argument("path", type=Path, metavar="FILE")
    check.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    backup = commands.add_parser(
        "backup", help="copy a store, also while others write to it, and verify the copy"
    )
    backup.add_argument("path", type=Path, metavar="FILE")
    backup.add_argument("target", type=Path, metavar="COPY")
    backup.add_argument(
        "--compact", action="store_true", help="leave out what deleted values have left behind"
    )
    restore = commands.add_parser("restore", help="put a copy of a backup where a store is to be")
    restore.add_argument("path", type=Path, metavar="BACKUP")
    restore.add_argument("target", type=Path, metavar="FILE")
    for command in (backup, restore):
        command.add_argument(
            "--replace", action="store_true", help="replace a file that is there already"
        )
    salvage = commands.add_parser(
        "salvage", help="store what can be read of a damaged store in a new one"
    )
    salvage.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    salvage.add_argument("path", type=Path, metavar="FILE")
    salvage.add_argument("target", type=Path, metavar="NEW")


def _run_upkeep(options: argparse.Namespace) -> int:
    try:
        if options.command == "check":
            return (upkeep.check_here if options.here else upkeep.check)(options.path)
        if options.command == "salvage":
            run = upkeep.salvage_here if options.here else upkeep.salvage
            return run(options.path, options.target)
        if options.command == "restore":
            return upkeep.restore(options.path, options.target, replace=options.replace)
        return upkeep.backup(
            options.path, options.target, compact=options.compact, replace=options.replace
        )
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        return 130
    except (OSError, RichStoreError) as error:
        print(f"richstore {options.command}: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
