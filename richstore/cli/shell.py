"""The command `shell`: Python with the store open."""

from __future__ import annotations

import code
import sys
from typing import Any

import click

import richstore
from richstore.cli.target import Target, on_group

__all__ = ["shell"]


@click.command()
@click.option("-r", "--read-only", is_flag=True, help="Open the store for reading only.")
@on_group
def shell(read_only: bool, target: Target) -> None:
    """Start Python with the store open as `store`, and the group as `group`.

    Each change is on the disk when its line ends; `with store.transaction():` works as elsewhere.
    Modules of the working directory can be imported. It also runs a script from standard input.
    """
    if "" not in sys.path:
        # as Python itself has it where one types, for classes of the project
        sys.path.insert(0, "")
    with target.open("r" if read_only else "w") as store:
        names: dict[str, Any] = {"__name__": "__console__", "richstore": richstore, "store": store}
        if target.group:
            names["group"] = target.group_of(store)
        _complete(names)
        known = ", ".join(name for name in ("store", "group") if name in names)
        banner = f"Python {sys.version.split()[0]}; {known} of {store.path}"
        # a script from a pipe wants no greeting
        code.interact(banner if sys.stdin.isatty() else "", local=names, exitmsg="")


def _complete(names: dict[str, Any]) -> None:
    """Let the tab key complete names, where there is a terminal and Python has readline."""
    if not sys.stdin.isatty():
        return
    try:
        import readline
        import rlcompleter
    except ImportError:
        return
    readline.set_completer(rlcompleter.Completer(names).complete)
    readline.parse_and_bind("tab: complete")
