"""The command line: `python -m richstore demo [PATH]`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from richstore.demo import first, second

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
    options = parser.parse_args(arguments)
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


if __name__ == "__main__":
    sys.exit(main())
