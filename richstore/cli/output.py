"""What commands print: texts, tables and JSON. Nothing that is stored can steer a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import click

from richstore.cli.show import json_text
from richstore.cli.terminal import visible

__all__ = ["json_option", "on_terminal", "say", "say_json", "say_json_line", "table"]

F = TypeVar("F", bound=Callable[..., Any])

json_option: Callable[[F], F] = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def on_terminal() -> bool:
    """Tell whether the output goes to a terminal."""
    return sys.stdout.isatty()


def say(text: str) -> None:
    """Print a text; on a terminal its control characters are made visible."""
    if on_terminal():
        text = visible(text)
    encoding = sys.stdout.encoding or "utf-8"
    # by print, since a progress bar looks for it there
    print(text.encode(encoding, "backslashreplace").decode(encoding), flush=True)


def say_json(value: Any) -> None:
    """Print a value as JSON."""
    print(json_text(value), flush=True)


def say_json_line(value: Any) -> None:
    """Print a value as JSON on one line."""
    print(json_text(value, indent=None), flush=True)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table: with lines on a terminal, else a row a line with tabs in it."""
    if not on_terminal():
        for row in rows:
            say("\t".join(row))
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    made = Table(*columns, box=box.SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        # as a Text it is shown as it is: brackets in a str would be markup
        made.add_row(*(Text(visible(cell), overflow="fold") for cell in row))
    Console(highlight=False).print(made)
