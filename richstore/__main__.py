"""`python -m richstore COMMAND`, and the program `richstore`: the command line, if it is there."""

from __future__ import annotations

import sys

__all__ = ["main"]

# What the extra `cli` brings.
_NEEDED = {"click", "rich", "platformdirs"}


def main() -> int:
    """Run the command that the arguments of this process name, and exit with its code.

    Returns:
        2 when a package is missing; else it exits by itself.
    """
    try:
        from richstore.cli.main import cli
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _NEEDED:
            raise
        print(
            f"richstore: the command line needs the package {error.name}: "
            f"pip install 'richstore[cli]'",
            file=sys.stderr,
        )
        return 2
    cli()
    return 0


if __name__ == "__main__":
    sys.exit(main())
